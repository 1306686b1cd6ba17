"""What is left when every question has another question's gold answer: nothing but chance, whatever is graded.

    python -m experiments.shuffled_gold            # the decoding methods on every kind of answer: two minutes
    python -m experiments.shuffled_gold --methods  # all methods on an organism, fitted on shuffled answers too

Kinds of answers: a base model copies what the question says, so that it is right on each kind; reasoning-gym's own
scorers are a kind as well. Methods: each is fitted, chosen and evaluated on shuffled items of `latent`, whose gap it
recovers with the true ones.

Chance is what the same answers get from the gold answers of all other questions of the kind, on average: zero where no
two gold answers are alike, a quarter of four options. An arm is at chance where the interval of its accuracy holds
it: that of 99.9%, since there are some fifty arms.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import elicit
from elicit.evaluation.evaluator import evaluate
from elicit.evaluation.run.arms import Arm
from elicit.evaluation.run.run import Run
from elicit.methods import METHODS
from elicit.methods.compare import SharedOptions, run_together
from elicit.models.model import Model
from elicit.tasks.answers import Kind
from elicit.tasks.base import Item, Items, Task
from elicit.tasks.grading import grader_for
from elicit.tasks.reasoning_gym import load as load_gym
from experiments.markdown import markdown
from probes.statistics import proportion_interval

DECODING = ("direct", "cot-prompt", "self-consistency", "cot-decoding")
OPTIONS: dict[str, dict[str, Any]] = {"cot-decoding": {"k": 4}, "self-consistency": {"samples": 5}}
GYM = ("chain-sum", "prime-factorization", "spell-backward")
SHOTS = 4
SURE = 0.999
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "maple", "olive", "quill")


class Row(NamedTuple):
    """An arm on shuffled gold answers: its accuracy and interval, chance, and its accuracy with the true ones."""

    what: str
    arm: str
    n: int
    true: float
    shuffled: float
    low: float
    high: float
    chance: float
    at_chance: bool


def _number(rng: np.random.Generator) -> str:
    return str(rng.integers(100, 10_000))


def _expression(rng: np.random.Generator) -> str:
    a, b, c = rng.integers(2, 60, 3)
    return f"{a} + {b} * {c}"


def _option(rng: np.random.Generator) -> str:
    return "ABCD"[rng.integers(4)]


def _math(rng: np.random.Generator) -> str:
    a, b = rng.integers(2, 90, 2)
    return (f"\\frac{{{a}}}{{{b}}}", f"\\sqrt{{{a}}}", f"{a}x + {b}", f"({a}, {b})")[rng.integers(4)]


def _words(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, 2, replace=False))


def _code(rng: np.random.Generator) -> str:
    a, b = rng.integers(2, 90, 2)
    return f"print({a} + {b})"


GOLD: dict[Kind, Callable[[np.random.Generator], str]] = {
    "number": _number,
    "last-number": _number,
    "expression": _expression,
    "option": _option,
    "math": _math,
    "text": _words,
    "code": _code,
    "whole": _words,
}


def copying(kind: Kind, n: int, seed: int) -> Task:
    """A task whose questions say their answers."""
    rng = np.random.default_rng([seed, *kind.encode()])
    golds = [GOLD[kind](rng) for _ in range(n + SHOTS)]
    items = [
        Item(f"{kind}-{at}", f"Copy: {gold}", gold, "fit" if at < SHOTS else "test") for at, gold in enumerate(golds)
    ]
    return Task(f"copy-{kind}", tuple(items), grader_for(kind), kind, {"family": "copying", "kind": kind})


def copying_gym(name: str, n: int, seed: int) -> Task:
    """Items of a reasoning-gym data set with its own scorer, whose questions say their answers."""
    task = load_gym(name, n + SHOTS, seed, {})
    some = [*task.fit][:SHOTS], [*task.test][:n]
    items = [replace(item, question=f"Copy: {item.answer}") for part in some for item in part]
    return replace(task, name=f"copy-{name}", items=tuple(items))


def shuffled(task: Task, seed: int) -> Task:
    """Each item with the gold answer, and what else its grader reads, of another of its split, kind and family."""
    rng = np.random.default_rng(seed)
    groups: dict[Any, list[Item]] = {}
    for item in task.items:
        groups.setdefault((item.split, task.kind_of(item), item.metadata.get("family")), []).append(item)
    out: dict[str, Item] = {}
    for some in groups.values():
        order = rng.permutation(len(some))
        for at, other in zip(order, np.roll(order, 1), strict=True):
            given = some[other]
            out[some[at].id] = replace(some[at], answer=given.answer, metadata=given.metadata)
    return replace(task, items=tuple(out[item.id] for item in task.items))


def chance(items: Items, answers: Mapping[str, str | None]) -> float:
    """Share of answers that are right by the gold answer of another question of the same kind and family."""
    shares = []
    for item in items:
        like = [
            other
            for other in items
            if other.id != item.id
            and items.task.kind_of(other) == items.task.kind_of(item)
            and other.metadata.get("family") == item.metadata.get("family")
        ]
        shares.append(np.mean([items.task.grader.grade(other, answers[item.id]).correct for other in like]))
    return float(np.mean(shares))


def rows(what: str, true: Run, false: Run) -> Iterator[Row]:
    """A row an arm."""
    ids = [item.id for item in false.items]
    for name, found in false.metrics["arms"].items():
        said = {item: trace.answer for item, trace in zip(ids, Arm(name, false, name).chosen(ids), strict=True)}
        right = round(found["accuracy"] * len(ids))
        before, share = true.metrics["arms"][name]["accuracy"], chance(true.items, said)
        least, most = proportion_interval(right, len(ids), SURE).pair
        at_chance = least - 1e-9 <= share <= most  # of no right answer the interval begins at 0 but for rounding
        interval = proportion_interval(right, len(ids)).pair
        yield Row(what, name, len(ids), before, found["accuracy"], *interval, share, at_chance)


def of_kinds(model: Model, n: int, seed: int, out: Path) -> Iterator[Row]:
    """The decoding methods on a task of each kind, with the true gold answers and with shuffled ones."""
    tasks = [copying(kind, n * (4 if kind == "option" else 1), seed) for kind in GOLD]
    tasks += [copying_gym(name, n, seed) for name in GYM]
    for task in tasks:
        prompt = prompt_of(task, out)
        first, *others = [
            elicit.methods.fit(
                name,
                model,
                task.solved,
                prompt=prompt,
                max_new_tokens=24,
                **({"k": 4} if name == "cot-decoding" else {}),
            )
            for name in DECODING
        ]
        runs = [
            evaluate(
                first,
                some.test,
                against=dict(zip(DECODING[1:], others, strict=True)),
                out=out / some.name / name,
                seed=seed,
            )
            for name, some in (("true", task), ("shuffled", shuffled(task, seed)))
        ]
        yield from rows(task.name, *runs)


def of_methods(model: Model, n: int, seed: int, out: Path) -> Iterator[Row]:
    """All methods on an organism's own task, fitted with each method's short settings."""
    task = elicit.load_task("organism")
    some = shuffled(task, seed)
    shared = SharedOptions(seed=seed, quick=True)
    found = []
    for name, one in (("true", task), ("shuffled", some)):
        items = Items(one, tuple(one.test)[:n])
        done = run_together(model, items, METHODS, shared, out=out / name, optional=True, log=print)
        for method, why in done.left_out.items():
            print(f"{name}: {method} was left out: {why}")
        found.append({run.metrics["method"]: run for run in done.runs})
    for method, run in found[1].items():
        yield from rows("organism", found[0][method], run)


def prompt_of(task: Task, folder: Path) -> str:
    """A template file with a few items copied."""
    shots = "".join(f"Q: {item.question}\nA: {item.answer}\n\n" for item in task.fit)
    file = folder / f"{task.name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{shots}Q: {{question}}\nA:", encoding="utf-8")
    return str(file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="smollm2-135m; for --methods its organism latent")
    parser.add_argument("--methods", action="store_true", help="all methods, on an organism")
    parser.add_argument(
        "--limit", type=int, default=24, help="questions; of options, whose chance is not zero, four times as many"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/shuffled-gold"))
    given = parser.parse_args()
    model = elicit.load_model(given.model or ("smollm2-135m-latent" if given.methods else "smollm2-135m"))
    of = of_methods if given.methods else of_kinds
    found = list(of(model, given.limit, given.seed, given.out / ("methods" if given.methods else "kinds")))
    table = [
        [
            row.what,
            row.arm,
            str(row.n),
            f"{100 * row.true:.1f}",
            f"{100 * row.shuffled:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]",
            f"{100 * row.chance:.1f}",
            "yes" if row.at_chance else "no",
        ]
        for row in found
    ]
    print(markdown(["task", "arm", "n", "true gold, %", "shuffled, % [95%]", "chance, %", "at chance"], table))
    print(f"\nModel: {model.name} {model.provenance.sha256[:12]}, {model.dtype}, seed {given.seed}.")
    return 0 if all(row.at_chance for row in found) else 1
