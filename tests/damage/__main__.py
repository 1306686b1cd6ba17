"""Damage files of every kind and count what comes of it.

    python -m tests.damage                        # 100,000 damages, as many of each kind; the table on the screen
    python -m tests.damage --damages 2000         # fewer
    python -m tests.damage --kinds run,SAE        # kinds whose names begin so, or hold it
    python -m tests.damage --every                # each cut and each flipped bit, instead of damages that are drawn
    python -m tests.damage --write                # the table of docs/reference/reliability.md anew

A damage is a cut, a flipped bit, bytes that are lost, doubled, blanked or written over, and in JSON and TOML a value
that is left out or of another type. What is read is compared with what the whole file holds: *one line* is the error
that a person gets (exit code 2); *another result* is a file that is well-formed and says something else, which nothing
but a hash can tell, and a fault where the file carries one. Exit code 1 where there was a traceback or such a fault;
the first of each place is printed. With the same seed the same damages are made.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.damage.damages import damaged
from tests.damage.kind import OTHER, OUTCOMES, TRACEBACK, Kind, Reading
from tests.damage.kinds import KINDS
from tests.damage.table import write
from tests.support.reliability import row

SMALL, HEADER = 1 << 12, 1 << 10  # bytes


def tried(kind: Kind, damages: int, seed: int) -> tuple[Counter[str], dict[str, str]]:
    """How often what came of it, and one fault for each place in the code; no damages: each cut and flipped bit."""
    counts: Counter[str] = Counter()
    faults: dict[str, str] = {}
    rng = random.Random(f"{seed} {kind.name}")
    with tempfile.TemporaryDirectory(prefix="elicit-damage-") as folder:
        whole = Reading.of(kind, Path(folder))
        drawn = (damaged(whole.data, kind.form, rng) for _ in range(damages))
        for data in drawn if damages else every(whole.data):
            outcome, error = whole.after(data)
            counts[outcome] += 1
            if error is not None:
                last = traceback.extract_tb(error.__traceback__)[-1]
                faults.setdefault(f"{last.filename}:{last.lineno}", f"{error!r:.200} of {data!r:.200}")
            elif kind.sealed and outcome == OTHER:
                faults.setdefault("silent", f"{data!r:.200}")
    return counts, faults


def every(data: bytes) -> Iterator[bytes]:
    """A file cut at each byte, and with each bit flipped; of a long one at its first bytes, where its header stands."""
    few = len(data) if len(data) <= SMALL else HEADER
    for at in range(few):
        yield data[:at]
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description="Damage files and count the outcomes.")
    parser.add_argument("--damages", type=int, default=100_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="parts of names, separated by commas")
    parser.add_argument("--every", action="store_true", help="each cut and each flipped bit, none drawn")
    parser.add_argument("--write", action="store_true", help="write the table into the documentation")
    given = parser.parse_args()
    parts = [part for part in given.kinds.split(",") if part]
    kinds = [kind for name, kind in KINDS.items() if not parts or any(part in name for part in parts)]
    if not kinds or given.damages < len(kinds):
        parser.error(f"{len(kinds)} kinds and {given.damages} damages; give names that there are, and one damage each")
    if given.write and (parts or given.every):
        parser.error("--write is of drawn damages of all kinds; leave --kinds and --every out")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    print(row("kind of file", "tried", *OUTCOMES))
    found, wrong = {}, False
    for n, kind in enumerate(kinds):
        each = given.damages // len(kinds) + (n < given.damages % len(kinds))
        each = max(1, each // 10) if kind.dear else each
        found[kind.name], faults = tried(kind, 0 if given.every else each, given.seed)
        print(row(kind.name, found[kind.name].total(), *(found[kind.name][one] for one in OUTCOMES)), flush=True)
        for place, fault in faults.items():
            print(f"  {place}: {fault}", flush=True)
        wrong = wrong or bool(faults)
    total = sum(found.values(), Counter())
    print(row("all", total.total(), *(total[one] for one in OUTCOMES)))
    if given.write:
        write(found, given.seed)
    return int(wrong or bool(total[TRACEBACK]))


if __name__ == "__main__":
    sys.exit(main())
