"""`python -m experiments.compatibility`: the census, a process a type, and its table.

python -m experiments.compatibility                  # every type; writes README.md
python -m experiments.compatibility --third          # every third, to stdout; exit code 1 where one is wrong
python -m experiments.compatibility llama nemotron   # these, to stdout
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from experiments.command import called
from experiments.compatibility.census import CHECKS, TYPES, Found, examined
from experiments.compatibility.process import ENDED, apart
from experiments.markdown import markdown

HERE = Path(__file__).parent
AIMS = {"greedy": 0.90, "branching": 0.90, "steering": 0.85, "capture": 0.85}


def alone(kind: str) -> Found:
    """A type in a process of its own, with a limit of time."""
    found = apart(examined, kind)
    return Found(kind, unbuilt=ENDED) if found is None else found


def counts(found: list[Found]) -> dict[str, Counter[str]]:
    """For each check how many types that were built are exact, refused, wrong, or crash."""
    return {check: Counter(one.checks[check].partition(":")[0] for one in found if one.checks) for check in CHECKS}


def page(found: list[Found]) -> str:
    """The table as Markdown."""
    built = [one for one in found if one.checks]
    kinds = ("exact", "refused", "wrong", "crash")
    summary = [
        [check, *(str(tally[kind]) for kind in kinds), f"{tally['exact'] / len(built):.0%}"]
        for check, tally in counts(found).items()
    ]
    rows = [[one.type, one.way or "none", *(one.checks[check].partition(":")[0] for check in CHECKS)] for one in built]
    notes = [
        f"- `{one.type}`, {check}: {one.checks[check].replace('|', '/')}"
        for one in built for check in CHECKS if one.checks[check] != "exact"
    ]  # fmt: skip
    unbuilt = [f"- `{one.type}`: {one.unbuilt.replace('|', '/')}" for one in found if not one.checks]
    today = datetime.date.today().isoformat()
    return "\n".join(
        [
            "# Which models",
            "",
            f"Every type that `AutoModelForCausalLM` of transformers {transformers.__version__} maps (torch "
            f"{torch.__version__}, CPU, fp32, seed 3, {today}), built small and random from its published "
            "configuration, and held to its own forward without a cache of one prompt alone. A type's *way* is the "
            "first of shared-prefix, per-row, equal-lengths and uncached that a trial found exact "
            "([decoding](../../elicit/decoding/README.md)). The same is tried of your own model by "
            "`elicit models check NAME`.",
            "",
            "    python -m experiments.compatibility",
            "",
            f"{len(built)} of the {len(found)} types that were tried can be built ({len(TYPES)} are mapped). Greedy "
            "decoding and branching are of a ragged batch; steering adds a vector at the prompt's last position and at "
            "each cached step; capture is of all blocks' outputs.",
            "",
            markdown(["check", *kinds, "exact of built"], summary),
            "",
            markdown(["type", "way", *CHECKS], rows),
            "",
            "## What is not exact",
            "",
            *(notes or ["- nothing"]),
            "",
            "## What cannot be built",
            "",
            *(unbuilt or ["- nothing"]),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.compatibility", description=__doc__)
    parser.add_argument("types", nargs="*", help="types of transformers; all unless given")
    parser.add_argument("--third", action="store_true", help="every third type")
    parser.add_argument("--json", type=Path, help="also write what was found to this file")
    given = parser.parse_args()
    kinds = given.types or (TYPES[::3] if given.third else TYPES)
    found = []
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context("fork")) as pool:
        for one in pool.map(alone, kinds):
            found.append(one)
            said = one.unbuilt if not one.checks else f"{one.way or 'none':14}" + "  ".join(one.checks.values())
            print(f"{one.type:28}{said}", flush=True)
            if given.json:
                given.json.write_text(json.dumps([asdict(one) for one in found], indent=1))
    tallies = counts(found)
    print({check: dict(tally) for check, tally in tallies.items()})
    if not given.types and not given.third:
        (HERE / "README.md").write_text(page(found))
    sys.exit(1 if any(tally["wrong"] + tally["crash"] for tally in tallies.values()) else 0)


if __name__ == "__main__":
    called("compatibility", main)
