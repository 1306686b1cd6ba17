"""Run the simulations and write the table.

python -m experiments.simulations                # minutes on one core; experiments/simulations/README.md
python -m experiments.simulations --sims 200     # fewer draws, printed alone
"""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path

from elicit.cli.terminal import show_table
from experiments.markdown import markdown
from experiments.simulations import __doc__ as about
from experiments.simulations import coverage, directions, seeded, verdicts
from probes.files import write_whole

PAGE = Path(__file__).parent / "README.md"
SIMS = 200
HEAD = ("what", "n", "seeds", "truth", "found", "asked", "")


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sims", type=int, default=SIMS, help="draws of each simulation")
    args = parser.parse_args(given)
    if args.sims < 100:
        print(f"error: --sims {args.sims} was given; give at least 100", file=sys.stderr)
        sys.exit(2)
    rows = []
    for part in (coverage, seeded, verdicts, directions):
        print(f"simulations: {part.__name__}", file=sys.stderr)
        rows.append(list(part(args.sims)))
    cells = [
        (row.what, str(row.n), str(row.seeds), row.truth, f"{row.found:.3f}" if row.found >= 0.001 else
         f"{row.found:.5f}", row.asked, {None: "", True: "kept", False: "**not kept**"}[row.kept])
        for row in chain(*rows)
    ]  # fmt: skip
    if args.sims != SIMS:
        show_table(HEAD, cells)
        return
    asked = [row for row in chain(*rows) if row.kept is not None]
    lines = [
        "# Simulations with a known truth", "", (about or "").partition("\n\n")[2].strip(), "",
        "    python -m experiments.simulations", "",
        f"{SIMS} draws a row (half for several leads and the twin, a tenth for AUROC), seed 0. A row is not kept where "
        "it misses what is asked by more than two standard errors of the simulation itself (at 0.93 these are "
        f"{2 * (0.07 * 0.93 / SIMS) ** 0.5:.3f}). {sum(row.kept or False for row in asked)} of {len(asked)} rows keep "
        "what is asked. Rows that say *a limit* are not asked: they show what an interval cannot know.", "",
        markdown(HEAD, cells),
    ]  # fmt: skip
    write_whole(PAGE, "\n".join(lines) + "\n")
    print(f"page: {PAGE}")


if __name__ == "__main__":
    main()
