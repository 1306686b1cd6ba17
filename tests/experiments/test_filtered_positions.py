"""What the filter keeps beside what matters: the measures on planted numbers, the parts on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import filtered_positions
from experiments.claims.rules import CONFIRMED, NOT_CONFIRMED, UNDECIDED, Judgement
from experiments.filtered_positions import __main__ as command
from experiments.filtered_positions.measures import Entropies, by_kind, by_part, dropped, kept, shift, shifts_of
from probes.errors import UserError


def test_fractions_kept_by_part_of_a_document() -> None:
    documents = [
        Entropies("worked", "solution", [2.0, 0.1, 0.6, 1.2], 1), Entropies("worked", "solution", [0.0, 0.0, 0.7], 1),
        Entropies("unrelated", "", [1.6, 1.4], 0),
    ]  # fmt: skip
    rows = {row["part"]: row for row in by_part(documents)}
    assert set(rows) == {"worked, question", "worked, solution", "unrelated"}  # no question in everyday text
    assert rows["worked, solution"]["positions"] == 5 and rows["worked, solution"]["documents"] == 2
    assert rows["worked, solution"]["kept"]["0.5"]["mean"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert rows["unrelated"]["kept"]["1.5"]["mean"] == 0.5 and kept([1.0, 0.9], 1.0) == 0.5
    assert by_kind(documents)["worked"] == {"all": 7, "0.5": 4, "1.0": 2, "1.5": 1}


def test_what_matters_is_weighted_by_its_influence() -> None:
    influence = np.array([[1.0, 0.0, -5.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    found = shift(influence, np.array([0.1, 0.3, 0.5, 0.7]))
    assert found == pytest.approx([0.1 - 0.4, 0.0])
    with pytest.raises(UserError, match="1 queries have no document of positive influence"):
        shift(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.5, 0.5]))


@pytest.mark.parametrize(
    ("center", "spread", "verdict"),
    [(-0.3, 0.05, CONFIRMED), (0.3, 0.05, NOT_CONFIRMED), (0.05, 0.05, NOT_CONFIRMED), (-0.05, 0.3, UNDECIDED)],
)
def test_the_rule_comes_out_each_way(center: float, spread: float, verdict: str) -> None:
    values = center + spread * np.linspace(-1, 1, 24)
    assert Judgement((dropped(values, (-0.4, 0.4)),)).verdict == verdict


def test_shifts_within_a_kind_do_not_see_the_others() -> None:
    influence = np.array([[1.0, 1.0, 0.0, 2.0], [1.0, 0.0, 1.0, 2.0]])
    fraction, within = np.array([0.9, 0.9, 0.2, 0.4]), np.array([False, False, True, True])
    found = shifts_of(influence, {"a": np.array([0, 1])}, fraction, within)["a"]
    assert found["within"]["mean"] == pytest.approx(np.mean([0.4, (0.2 + 0.8) / 3]) - 0.3) and found["queries"] == 2


def test_the_parts_run_and_are_drawn(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("kronfluence", reason="kronfluence is not installed; make install brings it")
    monkeypatch.setattr(command, "HERE", tmp_path)
    with pytest.raises(SystemExit) as ended:
        command.main(["figure"])
    assert (
        ended.value.code == 2 and "run python -m experiments.filtered_positions kept first" in capsys.readouterr().err
    )
    few = ["--model", str(tiny_folder), "--documents", "6", "--influence-documents", "8", "--queries", "2", "--steps",
           "1", "--layers", "1"]  # fmt: skip
    for part in ("kept", "influence", "figure"):
        command.main([part, *few])
    told = capsys.readouterr().out
    assert "worked, solution" in told and "procedures, solution" in told and "The filter drops" in told
    figure = json.loads((tmp_path / "figure.json").read_text(encoding="utf-8"))
    assert len(figure["data"]) == 5 and filtered_positions.__doc__
    assert json.loads((tmp_path / "kept.json").read_text())["kinds"]["unrelated"]["all"] > 0
