"""The census of models: what it counts and shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from experiments.compatibility import graph
from experiments.compatibility.__main__ import alone, counts, main, page
from experiments.compatibility.census import CHECKS, TYPES, Found


def found(kind: str, *verdicts: str) -> Found:
    return Found(kind, "Model", way="per-row", checks=dict(zip(CHECKS, verdicts, strict=True)))


def test_the_table_counts_what_was_built_and_says_what_is_not_exact() -> None:
    some = [
        found("one", "exact", "exact", "exact", "exact"),
        found("two", "exact", "wrong: off by 3", "refused: Model cannot be steered", "crash: KeyError: 'x' (a.py:1)"),
        Found("three", unbuilt="ImportError: timm"),
    ]
    tallies = counts(some)
    assert tallies["greedy"]["exact"] == 2 and tallies["branching"]["wrong"] == tallies["capture"]["crash"] == 1
    text = page(some)
    assert "2 of the 3 types that were tried can be built" in text
    assert (
        "| branching | 1 | 0 | 1 | 0 | 50% |" in text and "| two | per-row | exact | wrong | refused | crash |" in text
    )
    assert "`two`, branching: wrong: off by 3" in text and "`three`: ImportError: timm" in text


def test_a_type_is_examined_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(alone("llama").checks.values()) == {"exact"}
    monkeypatch.setattr(sys, "argv", ["compatibility", "gpt2"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and "gpt2" in capsys.readouterr().out
    assert len(TYPES) > 150


def test_a_census_of_the_graph_engine_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mllama` leaves a layer out without an image; `dbrx` cannot be built."""
    place, asked = tmp_path / "kept.json", []

    def apart(work: object, kind: str) -> graph.Found:
        asked.append(kind)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return graph.examined(kind)

    monkeypatch.setattr(graph, "TYPES", ("dbrx", "mllama"))
    monkeypatch.setattr(graph, "HERE", tmp_path)
    monkeypatch.setattr(graph, "apart", apart)
    monkeypatch.setattr(sys, "argv", ["graph", "--kept", str(place)])
    with pytest.raises(KeyboardInterrupt):
        graph.main()
    graph.main()
    assert asked == ["dbrx", "mllama", "mllama"]
    text = (tmp_path / "graph.md").read_text()
    assert "Of 2 types of transformers 1 are decoded" in text
    assert "| exact | 1 | 1 |" in text and "| WRONG | 0 | 0 |" in text and "| no | 0 | 0 |" in text
    assert "- cannot be built: AttributeError: `dbrx`" in text
    assert graph.kept(place, "other code") == {}
