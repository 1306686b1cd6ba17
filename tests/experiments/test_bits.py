"""The calibration of bits: the same solutions for both models, each once, and a ratio that may be undecided."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elicit.models import Model
from experiments.bits import __main__ as command
from experiments.bits.calibration import held_out, recipe, solutions
from probes.description import NOT_REACHED, REACHED, UNDECIDED, Reach
from probes.errors import UserError


def test_solutions_are_drawn_by_seed_and_step_alone_and_none_is_held_out(tiny: Model) -> None:
    wide = replace(recipe(3, 0), width=1024)  # a token a character
    first, again = (solutions(tiny.tokenizer, wide, 0) for _ in range(2))
    later = solutions(tiny.tokenizer, wide, 1)
    assert first == again and not {tuple(e.target) for e in first} & {tuple(e.target) for e in later}
    kept = held_out(tiny.tokenizer, wide)
    assert len(kept) == 32 and not {tuple(e.prompt) for e in first + later} & {tuple(e.prompt) for e in kept}


def test_the_ratio_is_a_bound_where_the_skill_was_not_taught_and_undecided_where_it_may_be_less() -> None:
    cheap = Reach(REACHED, 80.0, 60.0, 100.0)
    missed = Reach(NOT_REACHED, None, None, None)
    assert "at least 12.0 times" in command.ratio(cheap, missed, 1200.0)
    assert command.ratio(cheap, missed, 1200.0).endswith("ten times or more.")
    assert command.ratio(cheap, missed, 300.0).endswith("undecided.")
    taught = Reach(REACHED, 500.0, 300.0, 700.0)
    assert command.ratio(cheap, taught, 9000.0).endswith(
        "3.0 to 7.0 times the bits that surely elicit it: less than ten times."
    )
    late = Reach(REACHED, 5000.0, 300.0, 7000.0)  # it may cost seventy times as many
    assert command.ratio(cheap, late, 9000.0).endswith("3.0 to 70.0 times the bits that surely elicit it: undecided.")
    assert command.ratio(Reach(UNDECIDED, 80.0, 60.0, None), missed, 9000.0).startswith("Undecided")


def test_what_was_told_stays_told_and_the_dearest_seed_counts() -> None:
    assert command.told([{"bits": b} for b in (0.0, 44.0, 79.0, -119.0, 90.0)]) == [0.0, 44.0, 79.0, 79.0, 90.0]
    cheap, dear = Reach(REACHED, 80.0, 60.0, 100.0), Reach(REACHED, 90.0, 50.0, 120.0)
    missed = Reach(UNDECIDED, None, None, None)
    assert command.dearest([cheap, dear]) == dear and command.dearest([missed, cheap]) == missed
    assert command.cheapest([cheap, dear]) == dear and command.cheapest([missed, cheap]) == cheap


def test_a_second_comparison_is_put_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "HERE", tmp_path)
    monkeypatch.setattr(command, "DRAWN", tmp_path / "drawn.svg")

    def compared(seed: int = 0, **arms: float) -> list[str]:
        rows: list[dict[str, Any]] = [
            {
                "arm": name.replace("_", "-"),
                "bits": 5.0,
                "accuracy": accuracy,
                "interval": [accuracy - 0.1, accuracy + 0.1],
            }
            for name, accuracy in arms.items()
        ]
        about = {"items": 40, "model": {"name": "m", "sha256": "5a", "dtype": "float32"}, "seed": seed, "arms": rows}
        (tmp_path / "comparison.json").write_text(json.dumps(about), encoding="utf-8")
        command.main(["mechanisms", "--runs", str(tmp_path)])
        kept = json.loads((tmp_path / "mechanisms.json").read_text(encoding="utf-8"))
        return [row["arm"] for row in kept["arms"]]

    assert compared(direct=0.1, cot_prompt=0.9) == ["direct", "cot-prompt"]
    assert compared(thinkless=0.8, direct=0.15, cot_prompt=0.9) == ["direct", "cot-prompt", "thinkless"]
    with pytest.raises(UserError, match="direct had other accuracies"):
        compared(direct=0.4, cot_prompt=0.9, rlp=0.8)
    assert compared(seed=1, direct=0.2, cot_prompt=0.9) == ["direct", "cot-prompt"]
