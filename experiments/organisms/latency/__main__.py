"""Which mechanism finds how rare a skill: five mechanisms at three latencies and on four twins, with three seeds.

    python -m experiments.organisms.latency                     # all cells, those that tell most first; resumes
    python -m experiments.organisms.latency --cells cot-decoding:latent-p02,sae-steer:absent:0
    python -m experiments.organisms.latency --left --keep       # what the page lacks; each cell onto it when it ends
    python -m experiments.organisms.latency --plan              # what is there, what is not, and its cost
    python -m experiments.organisms.latency --draw              # the page and the picture of what is kept

A cell is METHOD:ORGANISM:SEED; without a seed it is all of them, and METHOD alone all of its cells.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch

from elicit.cli.terminal import run_bars
from experiments.command import called
from experiments.markdown import markdown
from experiments.organisms.latency import table
from experiments.organisms.latency.cells import LATENT, Cell, chosen, foretold, measured, spanned


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="", help="METHOD:ORGANISM:SEED, joined by commas; all unless given")
    parser.add_argument("--left", action="store_true", help="of these what the page lacks")
    parser.add_argument("--keep", action="store_true", help="put each onto the page when it has ended")
    parser.add_argument("--plan", action="store_true", help="say what each costs; nothing is run")
    parser.add_argument("--draw", action="store_true", help="the page and the picture of what is kept; nothing is run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    called("latency", lambda: put(given))


def put(given: argparse.Namespace) -> None:
    kept = table.load()
    if given.draw:
        table.keep(kept)
        return
    cells = chosen(given.cells)
    if given.left:
        cells = [cell for cell in cells if str(cell) not in kept["cells"]]
    if given.plan:
        print(plan(kept, cells))
        return
    now: dict[str, Any] = {**table.load(), "spans": {}, "cells": {}}
    for n, cell in enumerate(cells, 1):
        said = f"latency: {n}/{len(cells)} {cell}"
        print(said, file=sys.stderr, flush=True)
        with run_bars(quiet=False) as bars:
            for model in {LATENT: None, cell.model: None}:
                if model not in now["spans"]:
                    now["spans"][model] = spanned(model, bars, _log)
            now["cells"][str(cell)] = measured(cell, bars, _log)
        if given.keep:
            kept = table.load()  # as it is now, in case that another call added to it
            table.keep({**kept, **{part: {**kept[part], **now[part]} for part in ("spans", "cells")}})
    print(table.shown(now))


def plan(kept: dict[str, Any], cells: Sequence[Cell]) -> str:
    """The cells with their cost: measured, of the mechanism's other cells, or tried here."""
    rows: list[tuple[str, ...]] = []
    tried: dict[str, str] = {}  # one cell of a mechanism of which none was run
    for cell in cells:
        cost, there = table.cost(kept, [cell]), str(cell) in kept["cells"]
        if cost != table.UNKNOWN:
            cost = f"{cost} processor minutes"
        else:
            if cell.method not in tried:
                tried[cell.method] = foretold(cell)
            cost = tried[cell.method]
        rows.append((str(cell), "kept" if there else table.NOT_RUN, cost, f"`{table.COMMAND} --keep --cells {cell}`"))
    return f"{table.power()}.\n\n" + markdown(("cell", "", "cost", "command"), rows)


def _log(line: str) -> None:
    print(f"latency: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
