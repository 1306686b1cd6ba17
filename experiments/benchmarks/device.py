"""What decoding and capture reach on a GPU, with random weights of true shapes, in under six minutes.

    python -m experiments.benchmarks.device                              # the whole of it
    python -m experiments.benchmarks.device --before ../elicit-older     # beside a checkout of an earlier commit
    python -m experiments.benchmarks.device --device cpu --shapes tiny   # shows that it runs; its figures say nothing

32 questions of 200 prompt tokens, ten branches each, 64 new tokens, bf16. Weights of 135M (vocabulary 49k), 1.5B and 7B
(152k) are random, so nothing is downloaded, and answers end at the limit. Two processes measure in turns, so that both
sides see the same card in the same minutes: one of this checkout, one of the earlier one. `graph+fuse` is the graph
engine with its option `fuse`; what is to be reached counts for the faster of the two. A measurement that the time
left does not allow is left out and says so; one that fails says why, and the others go on. The last row is the whole
program, `elicit compare --methods all --quick`, whose weights must be there already where there is no network.

Each measurement is described in `device_rows.py`. `--out` keeps the figures as JSON and the tables as Markdown, with
card, driver, versions and date.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from experiments.markdown import markdown

HERE = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("device_rows.py")
ENGINES, BEFORE = ("hf", "graph", "graph+fuse"), "before"  # with an option that is on, after a plus
MOST, LATER = ("cot-decoding", "generate", "floor"), (
    "parts", "profile", "same-tokens", "sampling", "unequal", "greedy", "steered", "capture",
)  # fmt: skip
# Of those that an engine does; the others are measured once, as are those of an earlier checkout.
BY_ENGINE = ("cot-decoding", "profile", "same-tokens", "sampling", "unequal", "greedy", "steered")
BY_COMMIT = ("cot-decoding", "profile", "parts", "sampling", "capture")
LEAST = 8.0  # seconds that must be left for a measurement to begin
COMPARE = "compare"
QUICK = "--methods all --model smollm2-135m-latent --quick"


@dataclass(frozen=True)
class Asked:
    """One measurement: of a shape, by an engine, of this checkout or of the earlier one."""

    row: str
    shape: str
    engine: str
    before: bool = False

    @property
    def column(self) -> str:
        """Under which it stands in the tables."""
        return BEFORE if self.before else self.engine


def plan(shapes: Sequence[str], engines: Sequence[str], rows: Sequence[str], before: bool) -> list[Asked]:
    """What is measured, in the order of its worth: the main figures of all shapes, the program, then the rest."""
    out = []
    for some in (MOST, (COMPARE,), LATER):
        for shape in ("",) if some == (COMPARE,) else shapes:
            for row in (row for row in some if row in rows):
                by = engines if row in (*BY_ENGINE, COMPARE) else engines[:1]
                # The program's short batches would wait for the compiler.
                by = [one for one in by if (row, one) != ("same-tokens", "hf") and (row != COMPARE or "+" not in one)]
                out += [Asked(row, shape, one) for one in by]
                if before and row in BY_COMMIT:
                    out.append(Asked(row, shape, "hf", before=True))
    return out


@dataclass
class Worker:
    """A process that measures with the code of one folder; it is started when it is first asked, and after it died."""

    folder: Path
    device: str
    process: subprocess.Popen[str] | None = None
    answers: queue.Queue[str] = field(default_factory=queue.Queue)

    def ask(self, asked: Asked, seconds: float) -> dict[str, Any]:
        """The answer, or why there is none."""
        if self.process is None or self.process.poll() is not None:
            self.stop()
            self._start()
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps({"row": asked.row, "shape": asked.shape, "engine": asked.engine}) + "\n")
        self.process.stdin.flush()
        try:
            line = self.answers.get(timeout=seconds)
        except queue.Empty:
            self.stop()
            return {"error": f"took longer than the {seconds:.0f} s that were left"}
        found: dict[str, Any] = json.loads(line or '{"error": "its process ended"}')
        return found

    def _start(self) -> None:
        self.answers = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), self.device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(self.folder)},
        )  # fmt: skip
        threading.Thread(target=self._read, args=(self.process, self.answers), daemon=True).start()

    def _read(self, process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def stop(self) -> None:
        if self.process is not None:
            with self.process as ending:  # its pipes are closed
                ending.kill()


def compare(folder: Path, device: str, engine: str, options: str, seconds: float) -> dict[str, Any]:
    """The whole program: seconds, and the accuracy of each method in percent."""
    with tempfile.TemporaryDirectory() as place:
        command = [
            sys.executable, "-P", "-m", "elicit", "compare", *shlex.split(options), "--device", device,
            "--engine", engine, "--out", str(Path(place) / "compared"), "--json",
        ]  # fmt: skip
        began = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, cwd=place,
                env={**os.environ, "PYTHONPATH": str(folder)},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"error": f"took longer than the {seconds:.0f} s that were left"}
        if done.returncode:
            return {"error": " ".join(done.stderr.split())[-300:]}
        right = {arm["arm"]: round(100 * arm["accuracy"], 1) for arm in json.loads(done.stdout)["arms"]}
        return {"seconds": round(time.monotonic() - began, 1), "accuracy": right}


def made(device: str) -> dict[str, Any]:
    """Card, driver, versions, date."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True).stdout
    said: dict[str, Any] = {
        "device": f"{platform.machine()}, {os.cpu_count()} cores", "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.strip(), **{name: version(name) for name in ("torch", "transformers")},
        "python": platform.python_version(),
    }  # fmt: skip
    if device == "cuda":
        about = torch.cuda.get_device_properties(0)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        memory = round(about.total_memory / 2**30, 1)
        said |= {"device": about.name, "memory_gib": memory, "driver": driver, "cuda": torch.version.cuda}
    return said


def tables(found: Sequence[dict[str, Any]], about: dict[str, Any], options: str = QUICK) -> str:
    """What was found, as Markdown."""
    columns = list(dict.fromkeys(one["column"] for one in found if one["row"] in (*BY_ENGINE, *BY_COMMIT, COMPARE)))
    columns.sort(key=lambda name: name != BEFORE)
    cells = {(one["shape"], one["row"], one["column"]): one for one in found}
    out = [f"{about['device']}, " + ", ".join(f"{k} {v}" for k, v in about.items() if k != "device") + "."]

    def table(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
        """A line a shape and row; of each the value of a key, in all columns."""
        lines = []
        for shape in dict.fromkeys(one["shape"] for one in found if one["shape"]):
            for row, key, name in rows:
                said = [_cell(cells.get((shape, row, column)), key) for column in columns]
                if any(said):
                    lines.append([shape, name, *said])
        if lines:
            out.append(f"{title}\n\n" + markdown(["model", "", *columns], lines))

    named = {
        "cot-decoding": "CoT-decoding", "generate": "`generate`, prompts repeated", "sampling": "sampling",
        "unequal": "sampling, unequal lengths", "greedy": "greedy, 2 rows a question", "steered": "the same, steered",
        "capture": "all layers to disk", "floor": "the floor",
    }  # fmt: skip
    table("Tokens a second:", [(row, "tok_s", name) for row, name in named.items()])
    step = [("cot-decoding", "ms_step", "ms, CoT-decoding"), ("floor", "ms", "ms, the floor"),
            ("parts", "ms", "of it statistics, ms"), ("parts", "sampling_ms", "the sampler, ms"),
            ("profile", "kernels", "kernels"), ("profile", "launches", "started one by one"),
            ("profile", "graphs", "graphs"), ("profile", "synchronisations", "synchronisations"),
            ("profile", "copies_to_host", "copies to the host"), ("profile", "operators", "operators"),
            ("profile", "busy", "busy"),
            ("same-tokens", "alike", "tokens as hf's"), ("cot-decoding", "peak_gib", "peak, GiB"),
            ("capture", "of_plain", "capture to disk / plain forward"),
            ("capture", "memory_of_plain", "capture of one layer / plain forward")]  # fmt: skip
    table("One step of all branches, and capture:", step)
    whole = [one for one in found if one["row"] == COMPARE]
    if whole:
        said = [", ".join(f"{name} {value}" for name, value in one.get("accuracy", {}).items()) for one in whole]
        lines = [[one["column"], _cell(one, "seconds"), text] for one, text in zip(whole, said, strict=True)]
        out.append(f"`elicit compare {options}`:\n\n" + markdown(["engine", "seconds", "accuracy"], lines))
    errors: dict[str, list[str]] = {}
    for one in (one for one in found if "error" in one):
        errors.setdefault(one["error"], []).append(f"{one['shape']} {one['row']} ({one['column']})".strip())
    if errors:
        out.append("Not measured:\n\n" + "\n".join(f"- {', '.join(rows)}: {why}" for why, rows in errors.items()))
    return "\n\n".join(out) + "\n"


def _cell(one: dict[str, Any] | None, key: str) -> str:
    if one is None:
        return ""
    return "–" if "error" in one else f"{one[key]:,}" if key in one else ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shapes", default="135m,1.5b,7b", help="of tiny, 135m, 1.5b, 7b, joined by commas")
    parser.add_argument(
        "--engine", default=",".join(ENGINES), help="of those that there are, joined by commas; name+option"
    )
    parser.add_argument("--rows", default=",".join((*MOST, COMPARE, *LATER)), help="what is measured")
    parser.add_argument("--before", type=Path, help="folder of a checkout of an earlier commit")
    parser.add_argument("--compare", default=QUICK, help="what `elicit compare` is given")
    parser.add_argument("--seconds", type=float, default=345.0, help="for all of it")
    parser.add_argument("--out", type=Path, help="name of the files that keep it, without .json and .md")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is seen by PyTorch here; give --device cpu --shapes tiny to try the script")
    if given.before is not None and not (given.before / "elicit").is_dir():
        parser.error(f"{str(given.before)!r} holds no elicit/; give the folder of a checkout")
    end = time.monotonic() + given.seconds
    workers = {False: Worker(HERE, given.device), True: Worker((given.before or HERE).resolve(), given.device)}
    found: list[dict[str, Any]] = []
    rows, engines = given.rows.split(","), given.engine.split(",")
    try:
        for asked in plan(given.shapes.split(","), engines, rows, given.before is not None):
            left = end - time.monotonic()
            if left < LEAST:
                answer = {"error": f"{max(0.0, left):.0f} s were left"}
            elif asked.row == COMPARE:
                answer = compare(HERE, given.device, asked.engine, given.compare, left)
            else:
                answer = workers[asked.before].ask(asked, left)
            found.append({"row": asked.row, "shape": asked.shape, "column": asked.column, **answer})
            print(json.dumps(found[-1]), flush=True)
    finally:
        for worker in workers.values():
            worker.stop()
    about = made(given.device)
    text = tables(found, about, given.compare)
    print("\n" + text)
    if given.out is not None:
        Path(f"{given.out}.json").write_text(json.dumps({"made": about, "found": found}, indent=1) + "\n")
        Path(f"{given.out}.md").write_text(text)


if __name__ == "__main__":
    main()
