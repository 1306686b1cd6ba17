"""Whether a long run, a long sweep and a long-lived server keep their memory, descriptors and pace.

    python -m tests.long                                 # all three; minutes
    python -m tests.long run --sizes 10000,100000,1000000
    python -m tests.long sweep --sizes 1000,5000
    python -m tests.long serve --sizes 1000,5000,20000 [--trim]

Each prints a row for every size: what the process holds then, and what one sample, job or request took since the row
before, in processor time, which other programs on the machine do not change. Linux alone.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

import elicit
from tests.long import folders, requests
from tests.long.state import HEAD, row
from tests.support.tiny import save_tiny

SIZES = {"run": [10_000, 100_000, 1_000_000], "sweep": [1_000, 5_000], "serve": [1_000, 5_000, 20_000]}


def tiny_served(folder: Path) -> requests.Served:
    """Two methods on a tiny random model."""
    model = elicit.load_model(str(save_tiny(folder / "model")), dtype="float32", device="cpu")
    fitted = {
        "direct": elicit.methods.fit("direct", model, max_new_tokens=24),
        "cot-decoding": elicit.methods.fit("cot-decoding", model, k=3, max_new_tokens=24),
    }
    return requests.Served(fitted, most=64, kind="text")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.long", description="Long runs.")
    parser.add_argument("what", nargs="?", choices=tuple(SIZES))
    parser.add_argument("--sizes", default="", help="at which to look, separated by commas")
    parser.add_argument("--trim", action="store_true", help="serve: give free memory back before a look")
    given = parser.parse_args()
    for what in [given.what] if given.what else SIZES:
        sizes = [int(one) for one in given.sizes.split(",")] if given.sizes else SIZES[what]
        with tempfile.TemporaryDirectory(prefix="elicit-long-") as scratch:
            folder = Path(scratch)
            if what == "run":
                points = folders.run_folder(folder / "run", sizes)
            elif what == "sweep":
                points = folders.sweep_folder(folder / "sweep", sizes)
            else:
                points = requests.served(tiny_served(folder), sizes, trim=given.trim)
            print(what, HEAD, sep="\n", flush=True)
            for before, one in pairwise(points):
                print(row(before, one), flush=True)


if __name__ == "__main__":
    main()
