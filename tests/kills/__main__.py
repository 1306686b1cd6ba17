"""Kill commands at random moments, run them again, and compare what is left with what an undisturbed one left.

    python -m tests.kills                             # 100 kills over all kinds; exit code 1 where anything differs
    python -m tests.kills --kills 20 --kinds sweep,RL --seed 1
    python -m tests.kills --write                     # into the documentation

A command runs in a process of its own, forked from one that has loaded the suite, and is killed with all that it has
started (SIGKILL) at a moment that is drawn evenly from the time that it takes undisturbed; one that ended before does
not count, and is drawn again. Half of them are killed a second time while they go on. Then the same command runs to its
end. Samples, metrics and tensors are compared to the last digit, seconds aside. The endpoint keeps nothing: what its
clients had no answer to is asked again of a new one.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.kills.endpoint import NAME as SERVE
from tests.kills.endpoint import Endpoint
from tests.kills.kinds import Kind, kinds, left
from tests.kills.process import SAID, ended, forked, killed
from tests.same_samples import difference, make_inputs
from tests.support.reliability import put, row

BEGIN = "<!-- begin: python -m tests.kills --write -->\n"
HEAD = row("what", "kills", "a second time", "equal", "different")


class Command:
    """Kills of one kind of command, each in a folder of its own."""

    def __init__(self, kind: Kind, place: Path) -> None:
        self.kind, self.place, self.number = kind, place, 0
        folder = self._folder()
        begun = time.monotonic()
        ended(forked(kind.command, folder))
        self.seconds = time.monotonic() - begun
        self.whole = left(folder)
        assert self.whole, f"{kind.name}: nothing to compare"

    def _folder(self) -> Path:
        self.number += 1
        folder = self.place / str(self.number)
        folder.mkdir(parents=True)
        if self.kind.first:
            ended(forked(self.kind.first, folder))
        return folder

    def tried(self, rng: random.Random) -> tuple[int, str]:
        """How often a command was killed (0: it ended before), and what differs after it came to its end."""
        folder, kills = self._folder(), 0
        try:
            for _ in range(rng.choice((1, 2))):
                child = forked(self.kind.command, folder)
                if ended(child, rng.random() * self.seconds):
                    break
                killed(child)
                kills += 1
            if not kills:
                return 0, ""
            if not ended(child := forked(self.kind.command, folder)):
                killed(child)
                return kills, "it did not end within ten minutes"
        except RuntimeError as error:
            return max(kills, 1), f"{error}: {(folder / SAID).read_text(errors='replace')[-300:]}"
        return kills, difference(self.whole, left(folder))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description="Kill commands at random moments.")
    parser.add_argument("--kills", type=int, default=100, help="commands that are killed, in all")
    parser.add_argument("--kinds", default="", help="parts of names, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write the table into the documentation")
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory(prefix="elicit-kills-") as temporary:
        place = Path(temporary).resolve()
        paths = make_inputs(place)
        by_name = {kind.name: kind for kind in kinds(paths)}
        names = [*by_name, SERVE]
        parts = [part for part in given.kinds.split(",") if part]
        chosen = [name for name in names if not parts or any(part in name for part in parts)]
        if not chosen or given.kills < len(chosen):
            parser.error(
                f"{len(chosen)} kinds and {given.kills} kills; give names of {', '.join(names)}, one kill each"
            )
        if given.write and parts:
            parser.error("--write is of all kinds; leave --kinds out")
        lines, sums = [HEAD, row("---", *["---:"] * 4)], [0, 0, 0, 0]
        print(HEAD)
        for n, name in enumerate(chosen):
            rng, counts = random.Random(f"{given.seed} {name}"), [0, 0, 0, 0]
            each = given.kills // len(chosen) + (n < given.kills % len(chosen))
            what = Endpoint(paths["model"], place / name) if name == SERVE else Command(by_name[name], place / name)
            while counts[0] < each:
                kills, differs = what.tried(rng)
                if not kills:
                    continue
                counts = [a + b for a, b in zip(counts, (1, kills > 1, not differs, bool(differs)), strict=True)]
                if differs:
                    print(f"  {differs}", flush=True)
            lines.append(row(name, *counts))
            print(lines[-1], flush=True)
            sums = [a + b for a, b in zip(sums, counts, strict=True)]
    lines.append(row("all", *sums))
    print(lines[-1])
    if given.write:
        put(BEGIN, f"{given.kills} kills, seed {given.seed}", lines)
    return int(bool(sums[-1]))


if __name__ == "__main__":
    sys.exit(main())
