"""Run the simulations and write the table.

python -m experiments.simulations                # minutes on one core; experiments/simulations/README.md
python -m experiments.simulations --sims 200     # fewer draws, printed alone
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import chain
from pathlib import Path

from elicit.cli.terminal import show_table
from experiments.command import called
from experiments.markdown import markdown
from experiments.simulations import FINER, coverage, directions, seeded, verdicts
from experiments.simulations import __doc__ as about
from probes.files import write_whole

PAGE = Path(__file__).parent / "README.md"
SIMS = 2000
HEAD = ("what", "n", "seeds", "truth", "found", "95% of the simulation", "asked", "")


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sims", type=int, default=SIMS, help="draws of each simulation")
    args = parser.parse_args(given)
    if args.sims < 100:
        print(f"error: --sims {args.sims} was given; give at least 100", file=sys.stderr)
        sys.exit(2)
    parts = []
    for part in (coverage, seeded, verdicts, directions):
        began = time.perf_counter()
        parts.append(list(part(args.sims)))
        print(f"simulations: {part.__name__}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    rows = list(chain(*parts))
    if args.sims != SIMS:
        show_table(HEAD, [row.cells() for row in rows])
        return
    asked = [row for row in rows if row.holds is not None]
    lines = [
        "# Simulations with a known truth", "", (about or "").partition("\n\n")[2].strip(), "",
        "    python -m experiments.simulations", "",
        f"{SIMS} draws a row, seed 0; {FINER} times as many where a rate of 0.025 is asked of what is drawn. "
        "Each row is judged at face value: the fraction that was found against what is "
        "asked. Beside it stands the 95% interval of the simulation itself, which says how sure that is. "
        f"{sum(row.holds or False for row in asked)} of {len(asked)} rows hold. Rows that say *a limit* are not "
        "asked: they show what an interval cannot know.", "",
        markdown(HEAD, [row.cells() for row in rows]),
    ]  # fmt: skip
    write_whole(PAGE, "\n".join(lines) + "\n")
    print(f"page: {PAGE}")


if __name__ == "__main__":
    called("simulations", main)
