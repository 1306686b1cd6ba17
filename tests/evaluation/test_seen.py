"""Items that a handle was fitted on, or by which it was chosen, are said where they are evaluated."""

from __future__ import annotations

from dataclasses import replace

from elicit.elicited import Elicited
from elicit.evaluation.seen import SEEN, seen, seen_among, seen_notes
from elicit.models import Model
from tests.support.toys import toy_task


def test_fitted_and_chosen_items_are_counted_apart(tiny: Model) -> None:
    items = toy_task().test[:4]
    plain = Elicited(tiny, "plain")
    trained = replace(plain, options={SEEN: seen(items[:2], ["of no run"])})
    chosen = replace(plain, options={SEEN: seen([], items[1:4])})
    found = seen_among({"plain": plain, "trained": trained, "chosen": chosen}, items)
    assert found == {"trained": {"fitted": 2, "chosen": 0}, "chosen": {"fitted": 0, "chosen": 3}}
    fitted, by = seen_notes({"items": len(items), SEEN: found})
    assert "4 items trained was fitted on 2:" in fitted and "chosen was chosen on 3:" in by
