"""`--track`: what a run measures, also as a track of TensorBoard or Trackio; off unless it is asked for.

A track is named after the command, so the same command, which resumes a run, goes on in the same track; of each series
a step that is there is not written again. With `--fresh` another track begins, named with the next number, and the
command goes on in the latest from then on. Nothing leaves this machine. A tracker that fails while a run
works is told once and left; the run goes on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import typer

from elicit.cli.lines import remark
from elicit.decoding.progress import Progress, measure
from probes.errors import UserError, unknown

Track = Annotated[
    str,
    typer.Option(
        help="Also write losses, rewards and accuracies as a track on this machine: tensorboard:FOLDER or "
        "trackio:PROJECT."
    ),
]
LEFT_OUT = ("track", "as_json", "dry_run", "fresh")  # of a command, what makes no other track


@runtime_checkable
class Tracker(Protocol):
    """Where series go; `kept` has the steps of each that were there when it was opened.

    Made of a place, what its tracks are called, and whether another one begins.
    """

    kept: dict[str, set[int]]

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """A run of TensorBoard: event files in a folder of its own. Each step is on the disk before the next begins."""

    def __init__(self, folder: str, name: str, fresh: bool) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter

        above = Path(folder).expanduser()
        self.kept: dict[str, set[int]] = {}
        try:
            place = above / numbered(name, [one.name for one in above.iterdir()] if above.is_dir() else [], fresh)
            if place.is_dir():
                read = EventAccumulator(str(place), size_guidance={"scalars": 0})
                read.Reload()
                self.kept = {tag: {one.step for one in read.Scalars(tag)} for tag in read.Tags()["scalars"]}
            self.writer = SummaryWriter(str(place))
        except OSError as error:
            raise UserError(f"no track can be written in {folder!r} ({error.strerror}); give another folder") from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Trackio:
    """A run in Trackio's database on this machine; what it says goes to standard error."""

    def __init__(self, project: str, name: str, fresh: bool) -> None:
        import trackio
        from trackio.sqlite_storage import SQLiteStorage
        from trackio.utils import TRACKIO_DIR

        try:
            TRACKIO_DIR.mkdir(parents=True, exist_ok=True)  # which Trackio does beside the run, and only warns
            name = numbered(name, SQLiteStorage.get_runs(project), fresh)
            with redirect_stdout(sys.stderr):
                self.run = trackio.init(
                    project, name, resume="allow", embed=False, auto_log_cpu=False, auto_log_gpu=False
                )
            self.kept: dict[str, set[int]] = {}
            for entry in SQLiteStorage.get_logs(project, name):
                for key in entry.keys() - {"step", "timestamp"}:
                    self.kept.setdefault(key, set()).add(entry["step"])
        except (OSError, ValueError, sqlite3.Error) as error:
            raise UserError(
                f"Trackio cannot write the project {project!r} in {str(TRACKIO_DIR)!r} ({error}); give another, or set "
                "TRACKIO_DIR to a folder"
            ) from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self.run.finish()


TRACKERS: dict[str, Callable[[str, str, bool], Tracker]] = {"tensorboard": TensorBoard, "trackio": Trackio}


class Tracked:
    """Progress that is shown, and measured by a tracker besides."""

    def __init__(self, shown: Progress, tracker: Tracker) -> None:
        self.shown, self.tracker = shown, tracker
        self.failed = False

    def arm(self, name: str, questions: int, done: int) -> None:
        self.shown.arm(name, questions, done)

    def step(self, step: int, open_rows: int) -> None:
        self.shown.step(step, open_rows)

    def advance(self, questions: int, tokens: int) -> None:
        self.shown.advance(questions, tokens)

    def training(self, name: str, done: int, updates: int, note: str) -> None:
        self.shown.training(name, done, updates, note)

    def measure(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Write it to the series that do not have this step yet."""
        if self.failed:
            return
        new = {}
        for key, value in values.items():
            steps = self.tracker.kept.setdefault(f"{name}/{key}", set())
            if step not in steps:
                steps.add(step)
                new[f"{name}/{key}"] = float(value)
        if new:
            self._try(lambda: self.tracker.log(new, step))

    def close(self) -> None:
        self._try(self.tracker.close)

    def _try(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001  # told; a run is not lost for its track
            if not self.failed:
                remark(f"the track ends here ({type(error).__name__}: {error}); the run goes on")
            self.failed = True


@contextmanager
def tracked(shown: Progress, given: Mapping[str, Any], name: str) -> Iterator[Progress]:
    """Progress of a command, with the tracker that its options ask for.

    Args:
        shown: what is shown.
        given: the command's options; its `track` is what was given for `--track`.
        name: what the track is called, before a hash of the options.

    Raises:
        UserError: an unknown tracker, one that is not installed, a place that cannot be written to.
    """
    if not given["track"]:
        yield shown
        return
    both = Tracked(shown, opened(given, name))
    try:
        yield both
    finally:
        both.close()


def check_track(track: str) -> None:
    """Refuse what cannot be tracked to, before anything is loaded.

    Raises:
        UserError: an unknown tracker, one that is not installed or would send what it is given away; no place.
    """
    if not track:
        return
    kind, _, place = track.partition(":")
    if kind not in TRACKERS:
        raise unknown("tracker", kind, TRACKERS)
    if not place:
        raise UserError(f"--track {track} was given; write tensorboard:FOLDER or trackio:PROJECT")
    if importlib.util.find_spec(kind) is None:
        raise UserError(f"{kind} is not installed here; pip install 'elicit[{kind}]'")
    for key in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        if kind == "trackio" and os.environ.get(key):
            raise UserError(f"{key} is set, and --track sends nothing away; unset it")


def measure_arms(progress: Progress, run: Any) -> None:
    """Tell what a finished run found of each arm; no accuracy where it states none."""
    from elicit.evaluation.metrics.verdicts import is_accuracy

    for name, arm in run.metrics["arms"].items():
        stated = arm["accuracy"] if is_accuracy(arm, run.metrics["items"]) else None
        measure(progress, name, 0, {"accuracy": stated, "tokens_per_item": arm["tokens_per_item"]})


def opened(given: Mapping[str, Any], name: str) -> Tracker:
    """The tracker of a command; see `tracked`."""
    check_track(given["track"])
    kind, _, place = given["track"].partition(":")
    said = json.dumps({k: v for k, v in given.items() if k not in LEFT_OUT}, sort_keys=True, default=str)
    return TRACKERS[kind](place, f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:8]}", given.get("fresh", False))


def numbered(name: str, there: Iterable[str], fresh: bool) -> str:
    """The latest of the tracks of a command, `name`, `name-2`, `name-3`; or, afresh, the one after it."""
    found = re.compile(re.escape(name) + r"(?:-([0-9]+))?")
    last = max((int(match[1] or 1) for one in there if (match := found.fullmatch(one))), default=0)
    number = last + fresh if last else 1
    return name if number == 1 else f"{name}-{number}"
