"""Runs of answers that are written here instead of decoded: any text, any statistics, any number of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from elicit.decoding import Branching, Greedy, Trace
from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.evaluation.metrics.run_metrics import compute
from elicit.evaluation.run import Store
from elicit.evaluation.run.provenance import made_by
from elicit.evaluation.run.store import PARQUET
from elicit.evaluation.run.table import outcomes
from elicit.models import Model
from elicit.tasks.base import Item, Items, Task
from elicit.tasks.grading import NumberGrader

Answers = Callable[[Item, int], str]


def written_task(size: int) -> Items:
    """Questions whose answer is their own number."""
    items = tuple(Item(f"q-{n}", f"What is {n} + 0?", str(n), "test") for n in range(size))
    return Items(Task("written", items, NumberGrader(), "number", {"family": "written"}), items)


def written_trace(item: Item, index: int, text: str, seed: int = 0, moved: bool = False) -> Trace:
    """A trace of one token a word; its last word is the answer."""
    words = [word + " " for word in text.split(" ")]
    rng = np.random.default_rng([seed, index, *item.id.encode()])
    top1 = rng.uniform(0.3, 1.0, len(words))
    answer = words[-1].strip()
    ends = np.cumsum([len(word) for word in words]).tolist()
    return Trace(
        item=item.id, index=index, prompt_tokens=9, tokens=list(range(len(words))), ends=ends, text="".join(words),
        top1=top1.tolist(), top2=(0.9 * (1 - top1)).tolist(), entropy=rng.uniform(0, 3, len(words)).tolist(),
        logprob=np.log(top1).tolist(), finish="eos", spent=len(words) + 1, answer=answer,
        span=(len(words) - 1, len(words)), delta=float(np.round(rng.uniform(-1, 1), 6)), dropped="",
        score=float(answer == item.answer), moved=rng.uniform(0, 0.4, len(words)).tolist() if moved else [],
    )  # fmt: skip


def written_run(
    model: Model, folder: Path, items: Items, method: str, arms: Mapping[str, Answers], branches: int = 1
) -> Run:
    """A finished run: the first arm is the one under test and has `branches`; the others have one."""
    decoders = {name: Branching(branches) if n == 0 and branches > 1 else Greedy() for n, name in enumerate(arms)}
    handles = {
        name: Elicited(model, name, decoder=one, select="max" if one.branches > 1 else "greedy")
        for name, one in decoders.items()
    }
    config = {
        "identity": {
            "method": method, "model": model.provenance.sha256, "dtype": model.dtype, "task": items.task.name,
            "items": "0" * 16, "arms": list(arms), "seed": 0,
        },
        "execution": {"batch_rows": 8},
        "arms": {name: {**handle.to_dict(), "source": name} for name, handle in handles.items()},
        "task": items.task.source,
        "made": made_by(),
    }  # fmt: skip
    store = Store.open(folder, config)
    store.write_items(items)
    with store.writing() as journal:
        for name, say in arms.items():
            for n, item in enumerate(items):
                journal.append(name, n, _answers(item, name, say, decoders[name].branches))
    store.write_table([item.id for item in items])
    extra = {"seconds": dict.fromkeys(arms, 1.0), "seed": 0, "model": model.describe(), "options": {}}
    by_name = {name: (name, handle) for name, handle in handles.items()}
    store.finish(compute(by_name, outcomes(folder / PARQUET), items, extra=extra))
    return Run.load(folder)


def _answers(item: Item, arm: str, say: Answers, branches: int) -> Sequence[Trace]:
    return [written_trace(item, index, say(item, index), moved="push" in arm) for index in range(branches)]
