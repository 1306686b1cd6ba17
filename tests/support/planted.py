"""Finished runs with planted answers: real handles, items and graders, and whatever the test wants said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from elicit.decoding import Trace
from elicit.decoding.selection import select
from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.evaluation.run import Store
from elicit.tasks.base import Item, Items, Task, content_id
from elicit.tasks.grading import NumberGrader
from probes.statistics import proportion_interval

Answers = Mapping[str, Sequence[Trace]]


def questions(count: int, first: int = 0, params: Mapping[str, Any] | None = None) -> Items:
    """Questions n, with the answer n."""
    items = tuple(Item(f"q{n}", f"Which number is {n}?", str(n), "test") for n in range(first, first + count))
    return Task("toy", items, NumberGrader(), "number", {"family": "toy", "params": dict(params or {})}).all


def answer(
    item: Item, right: bool, text: str = "It is {}.", index: int = 0, delta: float = 0.5, size: int = 4
) -> Trace:
    """An answer to an item of `size` tokens, the last of which is its answer."""
    said = str(item.answer) if right else str(int(str(item.answer)) + 1)
    return Trace(
        item=item.id, index=index, prompt_tokens=5, tokens=list(range(1, size + 1)),
        ends=list(range(1, size + 1)), text=text.replace("{}", said), top1=[0.9] * size, top2=[0.05] * size,
        entropy=[1.0 - delta] * size, logprob=[-0.1] * size, finish="eos", spent=size + 1, answer=said,
        span=(size - 1, size), delta=delta, dropped="", score=float(right),
    )  # fmt: skip


def samples(item: Item, right: Sequence[bool], **more: Any) -> list[Trace]:
    return [answer(item, bool(one), index=n, **more) for n, one in enumerate(right)]


def planted(folder: Path, items: Items, arms: Mapping[str, tuple[Elicited, Answers]]) -> Run:
    """A finished run of these arms; the first is the method under test."""
    (main, (handle, _)), *_ = arms.items()
    config = {
        "identity": {
            "method": main,
            "task": items.task.name,
            "items": content_id(" ".join(i.id for i in items)),
            "arms": list(arms),
        },
        "execution": {"batch_rows": 1},
        "arms": {name: {**one.to_dict(), "source": name} for name, (one, _) in arms.items()},
        "task": items.task.source,
    }
    store = Store.open(folder, config)
    store.write_items(items)
    replace(handle, method=main).save(folder / "elicited")
    scored = {}
    with store.writing() as journal:
        for name, (one, answers) in arms.items():
            journal.append(name, 0, [t for item in items for t in answers[item.id]])
            scores = {i.id: float(select(one.select, answers[i.id], items.task.grader).score >= 1) for i in items}
            right = int(sum(scores.values()))
            scored[name] = {
                "select": one.select, "accuracy": right / len(items),
                "interval": proportion_interval(right, len(items)).pair,
                "tokens_per_item": sum(t.spent for i in items for t in answers[i.id]) / len(items), "scores": scores,
            }  # fmt: skip
    store.finish({"task": items.task.name, "method": main, "model": handle.model.describe(), "arms": scored, "seed": 0})
    return Run.load(folder)
