"""What a method's fit will take, before anything of it is done: for `--dry-run`.

A method says what it answers and trains at most (its `work`); a few of those questions are answered and a part of an
update is computed, as `elicit.evaluation.forecast` and `elicit.training.forecast` do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from elicit.elicited import Elicited
from elicit.evaluation.evaluator import BATCH_ROWS, foretold
from elicit.evaluation.forecast import forecast
from elicit.methods.base import Method, Work
from elicit.models.model import Model
from elicit.tasks.base import Items
from elicit.training.forecast import forecast_training
from probes.estimate import Estimate


def forecast_run(
    method: Method,
    model: Model,
    items: Items,
    options: Mapping[str, Any],
    against: Callable[[Elicited], Mapping[str, Elicited]],
    *,
    controls: bool = False,
    out: Path | None = None,
    rows: int | None = None,
) -> Estimate:
    """Of a method's fit, its controls and its evaluation.

    Args:
        method: of the registry.
        model: the base.
        items: that it is evaluated on.
        options: of the fit.
        against: what stands beside a handle.
        controls: whether its own controls do too.
        out, rows: as for `elicit.evaluation.evaluator.foretold`.

    Raises:
        UserError: no memory or disk for it.
    """
    solved = items.task.solved
    if method.work is None:
        handle = method.fit(model, solved, **options)
        beside = method.controls(handle, solved) if controls else {}
        return foretold(handle, items, {**beside, **against(handle)}, out=out, rows=rows)
    work = method.work(model, items, {**method.options, **options})
    fitted = forecast_fit(work, items, controls=controls)
    return fitted + foretold(work.handle, items, against(work.handle), out=out, rows=rows)


def forecast_fit(work: Work, items: Items, *, controls: bool) -> Estimate:
    """Of a method's fit, and where they are asked for of its controls and their answers to all items."""
    arms, trained = work.controls if controls else (0, 0)
    out = Estimate(0.0, beside=work.beside)
    for handle, questions in (*work.answers, (work.handle, arms * len(items))):
        if questions:
            one = forecast([{handle.method: handle}], {}, items, BATCH_ROWS)
            times = questions / len(items)
            out += Estimate(one.seconds * times, one.memory, int(one.disk * times), one.most)
    if work.training is not None:
        one = forecast_training(work.handle.model, work.training)
        out += Estimate(one.seconds * (1 + trained), one.memory, one.disk * (1 + trained))
    return out
