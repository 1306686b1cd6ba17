"""How many bits until half of the ceiling is reached: elicited from a model that has the skill, taught to one without.

    python -m experiments.bits solutions --model smollm2-135m-latent   # SFT on worked solutions, point by point
    python -m experiments.bits solutions --model smollm2-135m-absent   # on the same ones; `--seed 1` beside it
    python -m experiments.bits vector                                  # a direction, quantised
    python -m experiments.bits choices                                 # what is fitted by nobody: parts and bits
    python -m experiments.bits table                                   # what is kept of these, and the ratio

    python -m experiments.bits mechanisms --runs runs/bits             # the picture of a comparison, and what is kept

Everything is resumed where it was stopped. The comparison of the mechanisms is `elicit compare`'s, as the page has it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import elicit
from elicit.cli.terminal import run_bars
from elicit.evaluation.description import base_of, describe
from elicit.evaluation.metrics.format import with_interval
from elicit.evaluation.metrics.gap import CEILING
from elicit.methods import fit
from experiments.bits import calibration, vectors
from experiments.bits.picture import picture
from experiments.command import called, comparison_in
from experiments.markdown import markdown
from probes.description import Reach, bits_to_reach, total
from probes.errors import UserError
from probes.files import write_whole
from probes.statistics import proportion_interval

HERE = Path(__file__).parent
LATENT, ABSENT, VECTOR = "smollm2-135m-latent", "smollm2-135m-absent", "vector"
UNFITTED = (
    "direct", "cot-decoding", "self-consistency", "power-sampling", "cot-prompt", "budget-forcing", "no-thinking",
)  # fmt: skip
SHARE = 0.5  # of the ceiling of `latent`
DRAWN = HERE.parents[1] / "docs" / "bits-by-mechanism.svg"


def solutions(given: argparse.Namespace) -> None:
    model = elicit.load_model(given.model, dtype="float32")
    questions = elicit.load_task("organism", limit=given.limit).test
    how = calibration.recipe(given.steps, given.seed)
    folder = given.runs / f"bits-{given.model}-{given.steps}-{given.seed}"
    with run_bars(quiet=False) as bars:
        found = calibration.curve_of(model, questions, how, folder, given.max_new_tokens, bars)
    write_whole(_file(given.model, given.seed), json.dumps(found, indent=1))


def vector(given: argparse.Namespace) -> None:
    model = elicit.load_model(given.model, dtype="float32")
    questions = elicit.load_task("organism", limit=given.limit).test
    folder = given.runs / f"bits-{VECTOR}-{given.model}-{given.limit}"
    with run_bars(quiet=False) as bars:
        found = vectors.curve_of(model, questions, folder, given.max_new_tokens, bars)
    write_whole(HERE / f"{VECTOR}.json", json.dumps(found, indent=1))


def mechanisms(given: argparse.Namespace) -> None:
    """Of a comparison's folder; what is kept of another one on the same model, questions and seed stays beside it.

    Raises:
        UserError: an arm that both have, of accuracies whose intervals do not meet.
    """
    whole = comparison_in(given.runs)
    about = {key: whole[key] for key in ("items", "model", "seed")}
    arms = {row["arm"]: {key: row[key] for key in ("arm", "bits", "accuracy", "interval")} for row in whole["arms"]}
    place = HERE / "mechanisms.json"
    before = _read(place, "mechanisms") if place.is_file() else {}
    if all(before.get(key) == value for key, value in about.items()):
        there = {row["arm"]: row for row in before["arms"]}
        if other := [name for name in arms if name in there and _apart(arms[name], there[name])]:
            raise UserError(
                f"{', '.join(other)} had other accuracies in the comparison that {str(place)!r} is of; "
                "move that file away to begin anew, or give the same comparison with more --methods"
            )
        arms = there | {name: row for name, row in arms.items() if name not in there}
    found = about | {"arms": list(arms.values())}
    write_whole(place, json.dumps(found, indent=1))
    write_whole(DRAWN, picture(found, SHARE, CEILING))


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the intervals of an arm in two comparisons do not meet; in 16 bits its texts hang on its batches."""
    return bool(max(one["interval"][0], other["interval"][0]) > min(one["interval"][1], other["interval"][1]))


def choices(given: argparse.Namespace) -> None:
    model, task = elicit.load_model(given.model, dtype="float32"), elicit.load_task("organism", limit=given.limit)
    base, rows = base_of(model), []
    for name in UNFITTED:
        parts = describe(fit(name, model, task.solved), base)
        said = ", ".join(f"{part.what} {part.bits:.1f}" for part in parts if part.bits is not None)
        rows.append((name, f"{total(parts) or 0.0:.1f}", said))
    print(markdown(("what", "bits", "parts"), rows))


def table(given: argparse.Namespace) -> None:
    reached: dict[str, list[Reach]] = {LATENT: [], ABSENT: []}
    spent = math.inf
    for seed in count():
        if seed and not all(_file(name, seed).is_file() for name in reached):
            break
        both = {name: _kept(name, seed) for name in reached}
        level = SHARE * both[LATENT]["ceiling"] / both[LATENT]["n"]
        spent = min(spent, told(both[ABSENT]["rows"])[-1])
        for name, found in both.items():
            reached[name].append(_reach(found, level))
            rows = [
                (str(row["steps"]), str(row["solutions"]), f"{row['code']:,.0f}", f"{row['held_out']:.1f}",
                 f"{row['bits']:,.0f}", _right(row["right"], found["n"]))
                for row in found["rows"]
            ]  # fmt: skip
            head = ("steps", "solutions", "code, bits", "held out, bits each", "excess, bits", "right [95%]")
            print(f"\n**{name}**, seed {seed}: {_said(reached[name][-1])}\n\n{markdown(head, rows)}")
    print(f"\n{ratio(dearest(reached[LATENT]), cheapest(reached[ABSENT]), spent)}")
    if (HERE / f"{VECTOR}.json").is_file():
        found = _read(HERE / f"{VECTOR}.json", "vector")
        shown = [(str(r["a coordinate"]), f"{r['bits']:,.0f}", _right(r["right"], found["n"])) for r in found["rows"]]
        print(f"\n**a direction**\n\n{markdown(('bits a coordinate', 'bits', 'right [95%]'), shown)}")


def told(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The most excess up to each step: what was told stays told, also where a later model does worse held out."""
    return list(accumulate((row["bits"] for row in rows), max))


def dearest(seeds: Sequence[Reach]) -> Reach:
    """What surely suffices with every seed: the most of the bits, and none where one seed does not come there."""
    return max(seeds, key=lambda one: math.inf if one.most is None else one.most)


def cheapest(seeds: Sequence[Reach]) -> Reach:
    """The seed that may come there with the fewest bits."""
    return min(seeds, key=lambda one: math.inf if one.least is None else one.least)


def ratio(latent: Reach, absent: Reach, spent: float) -> str:
    """Whether what lacks the skill costs ten times as many bits, as far as the curves say.

    Args:
        latent, absent: where each comes to the level.
        spent: the most bits on the curve of the one that lacks it: a lower bound where it does not come there, as
            far as the excess grows from step to step.
    """
    if latent.most is None or latent.most <= 0:
        return "Undecided: what has the skill does not surely reach the level, or costs nothing."
    low = (spent if absent.least is None else absent.least) / latent.most
    high = math.inf if absent.most is None else absent.most / latent.most
    verdict = "ten times or more" if low >= 10 else "less than ten times" if high < 10 else "undecided"
    told = f"at least {low:.1f}" if absent.most is None else f"{low:.1f} to {high:.1f}"
    return f"To teach it costs {told} times the bits that surely elicit it: {verdict}."


def _file(model: str, seed: int) -> Path:
    return HERE / (f"{model}-seed{seed}.json" if seed else f"{model}.json")


def _kept(name: str, seed: int) -> dict[str, Any]:
    return _read(_file(name, seed), f"solutions --model {name}")


def _read(file: Path, part: str) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file.name} is not there; run `python -m experiments.bits {part}` first")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _reach(found: dict[str, Any], level: float) -> Reach:
    rows = found["rows"]
    return bits_to_reach(told(rows), [row["right"] for row in rows], found["n"], level)


def _said(reach: Reach) -> str:
    bits = "–" if reach.bits is None else f"{reach.bits:,.0f}"
    least, most = ("–" if end is None else f"{end:,.0f}" for end in (reach.least, reach.most))
    return f"{reach.verdict}; bits {bits} [{least}, {most}]"


def _right(right: int, n: int) -> str:
    return with_interval(right / n, proportion_interval(right, n).pair)


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"solutions": solutions, "vector": vector, "choices": choices, "table": table, "mechanisms": mechanisms}
    parser.add_argument("part", choices=tuple(parts))
    parser.add_argument("--model", default=LATENT)
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    args = parser.parse_args(given)
    parts[args.part](args)


if __name__ == "__main__":
    called("bits", main)
