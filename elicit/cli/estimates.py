"""What a command will take, said before it begins: `--dry-run` says it and stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from elicit.cli.lines import remark, say, show_json
from probes.estimate import WORTH_TELLING, Estimate, check_room, spoken

if TYPE_CHECKING:
    import torch

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what time, memory and disk it will take, write nothing, and stop.")
]


def tell(*, quiet: bool) -> Callable[[Estimate], None]:
    """A function that is called with what a job takes before it begins; jobs of ten seconds and more are told of, on
    standard error."""

    def told(needed: Estimate) -> None:
        if not quiet and needed.seconds >= WORTH_TELLING:
            remark(needed.line)

    return told


def dry(needed: Estimate, as_json: bool) -> NoReturn:
    """Say what a command would take, and end it."""
    if as_json:
        show_json(asdict(needed), indent=2)
    else:
        say(needed.line)
    raise typer.Exit(0)


def under_seeds(needed: Estimate, seeds: str) -> Estimate:
    """What a job takes under each of `--seeds`, one after another; as it is where none are given."""
    from elicit.evaluation.seeds import parse_seeds

    times = len(parse_seeds(seeds)) if seeds else 1
    return replace(needed, seconds=needed.seconds * times, disk=needed.disk * times)


def before(*, dry_run: bool, as_json: bool) -> Callable[[Estimate], None]:
    """A function that is called with what a job takes before it begins: `tell`, or of a dry run `dry`."""
    return partial(dry, as_json=as_json) if dry_run else tell(quiet=as_json)


def foretold(
    needed: Estimate, folder: Path, device: torch.device | str, *, what: str, for_memory: str, for_disk: str,
    dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Refuse a job that there is no room for, and say what it takes.

    Args:
        needed: by the job.
        folder: where it writes.
        device: whose memory it takes.
        what, for_memory, for_disk: as `probes.estimate.check_room`.
        dry_run, as_json: as the command was asked.

    Raises:
        UserError: no room.
    """
    import torch

    from elicit.models.memory import free_bytes

    free = free_bytes(torch.device(device))
    check_room(needed, folder, free, what=what, for_memory=for_memory, for_disk=for_disk)
    before(dry_run=dry_run, as_json=as_json)(needed)


@contextmanager
def counted(*, dry_run: bool, as_json: bool, disk: int = 0) -> Iterator[Callable[[str, int, int], None]]:
    """`progress` of a job that counts what it does: shown while it works, or for a dry run `Watched`. What the job
    writes is written after it.

    Args:
        dry_run, as_json: as the command was asked.
        disk: bytes that will be written.
    """
    if dry_run:
        watch = Watched(as_json, disk)
        yield watch
        watch.ended()
    from elicit.cli.terminal import fetch_bar

    with fetch_bar(quiet=as_json) as progress:
        yield progress


class Watched:
    """`progress` of a job that counts what it does, for a dry run of it: after `SECONDS` it is ended, and the whole of
    what was being counted reckoned from its part."""

    SECONDS = 5.0

    def __init__(self, as_json: bool, disk: int = 0) -> None:
        self.as_json, self.disk = as_json, disk
        self.began = time.perf_counter()
        self.steps: dict[str, tuple[float, int]] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        now = time.perf_counter()
        began, from_done = self.steps.setdefault(what, (now, done))
        if now - self.began > self.SECONDS and done > from_done:
            left = (now - began) / (done - from_done) * (of - done)
            beside = f"{what} {done} of {of} were done in {spoken(now - began)}, what follows them is not counted"
            dry(Estimate(now - self.began + left, disk=self.disk, beside=beside), self.as_json)

    def ended(self) -> NoReturn:
        """The job came to its end before that."""
        dry(Estimate(time.perf_counter() - self.began, disk=self.disk), self.as_json)
