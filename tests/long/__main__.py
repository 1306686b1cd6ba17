"""Whether a long run, a long sweep and a long-lived server keep their memory, descriptors and pace.

    python -m tests.long                                 # the next three; minutes
    python -m tests.long run --sizes 10000,100000,1000000
    python -m tests.long sweep --sizes 1000,5000
    python -m tests.long serve --sizes 1000,5000,20000 [--trim] [--samples 64]
    python -m tests.long day                             # a day of commands, by a clock that runs fast: see day.py

Each prints a row for every size: what the process holds then, and what one sample, job or request took since the row
before, in processor time, which other programs on the machine do not change. Linux alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import elicit
from tests.long import folders, requests
from tests.long.state import HEAD, row
from tests.support.tiny import save_tiny

SIZES = {"run": [10_000, 100_000, 1_000_000], "sweep": [1_000, 5_000], "serve": [1_000, 5_000, 20_000]}


def tiny_served(folder: Path, samples: int = 0) -> requests.Served:
    """Two methods on a tiny random model, or one whose answers are chosen among so many samples."""
    model = elicit.load_model(str(save_tiny(folder / "model")), dtype="float32", device="cpu")
    if samples:
        fitted = {"self-consistency": elicit.methods.fit("self-consistency", model, samples=samples, max_new_tokens=24)}
        return requests.Served(fitted, most=64, kind="text")
    fitted = {
        "direct": elicit.methods.fit("direct", model, max_new_tokens=24),
        "cot-decoding": elicit.methods.fit("cot-decoding", model, k=3, max_new_tokens=24),
    }
    return requests.Served(fitted, most=64, kind="text")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.long", description="Long runs.")
    parser.add_argument("what", nargs="?", choices=(*SIZES, "day"))
    parser.add_argument("--sizes", default="", help="at which to look, separated by commas")
    parser.add_argument("--samples", type=int, default=0, help="serve: drawn for each request, by self-consistency")
    parser.add_argument("--trim", action="store_true", help="serve: give free memory back before a look")
    given = parser.parse_args()
    for what in [given.what] if given.what else SIZES:
        with tempfile.TemporaryDirectory(prefix="elicit-long-") as scratch:
            for line in lines(what, Path(scratch), given):
                print(line, flush=True)


def lines(what: str, folder: Path, given: argparse.Namespace) -> Iterator[str]:
    """A table, line by line."""
    if what == "day":
        from tests.long.day import day  # which loads all that is killed

        yield from day(folder)
        return
    sizes = [int(one) for one in given.sizes.split(",") if one] or SIZES[what]
    if what == "run":
        points = folders.run_folder(folder / "run", sizes)
    elif what == "sweep":
        points = folders.sweep_folder(folder / "sweep", sizes)
    else:
        points = requests.served(tiny_served(folder, given.samples), sizes, trim=given.trim)
    yield from (what, HEAD)
    for before, one in pairwise(points):
        yield row(before, one)


if __name__ == "__main__":
    main()
