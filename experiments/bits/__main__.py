"""How many bits until half of the ceiling is reached: elicited from a model that has the skill, taught to one without.

    python -m experiments.bits solutions --model smollm2-135m-latent   # SFT on worked solutions, point by point
    python -m experiments.bits solutions --model smollm2-135m-absent   # on the same solutions

Everything is resumed where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import elicit
from elicit.cli.terminal import run_bars
from experiments.bits.calibration import curve_of, recipe
from probes.files import write_whole

HERE = Path(__file__).parent


def solutions(given: argparse.Namespace) -> None:
    model = elicit.load_model(given.model, dtype="float32")
    questions = elicit.load_task("organism", limit=given.limit).test
    how = recipe(given.steps, given.seed)
    folder = given.runs / f"bits-{given.model}-{given.steps}-{given.seed}"
    with run_bars(quiet=False) as bars:
        found = curve_of(model, questions, how, folder, given.max_new_tokens, bars)
    write_whole(HERE / f"{given.model}.json", json.dumps(found, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bits", description=__doc__)
    parser.add_argument("part", choices=("solutions",))
    parser.add_argument("--model", default="smollm2-135m-latent")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    given = parser.parse_args()
    {"solutions": solutions}[given.part](given)


if __name__ == "__main__":
    main()
