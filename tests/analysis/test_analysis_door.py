"""The door for analyses: its module is checked, its result is kept and read in one place, the page's example runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import plotly.graph_objects as go
import pytest

from elicit.analysis import ANALYSES, Analyser, Analysis, load, of_samples, register, save
from elicit.models import Model
from probes.errors import UserError
from tests.support.pages import examples, module_of
from tests.support.shell import shell
from tests.support.written import written_run, written_task

PAGE = Path(__file__).parents[2] / "elicit" / "analysis" / "README.md"


def of_runs(runs: Any, *, seed: int = 0, progress: Any = None) -> Analysis:
    raise AssertionError("it is not run here")


def of_model(model: Any, *, layer: int = 0) -> Analysis:
    raise AssertionError("it is not run here")


def module(**changed: Any) -> ModuleType:
    made = ModuleType("a.b.mine")
    whole = {"NAME": "mine", "SUMMARY": "shows it", "PAPER": "", "analyse": of_runs, **changed}
    vars(made).update({key: value for key, value in whole.items() if value is not None})
    return made


def by_place(runs: Any, seed: int = 0) -> Analysis:
    raise AssertionError


def of_a_thing(thing: Any) -> Analysis:
    raise AssertionError


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"NAME": None, "analyse": None}, "lacks NAME, analyse; it must have NAME, SUMMARY, PAPER, analyse"),
        ({"SUMMARY": 3}, "has SUMMARY = 3; expected str"),
        ({"READS": "texts"}, "has READS = 'texts' and its analyse takes runs"),
        ({"READS": "samples", "analyse": of_model}, "has READS = 'samples' and its analyse takes model"),
        ({"analyse": of_a_thing}, "takes 'thing' first; call it model, or runs"),
        ({"analyse": by_place}, "takes seed by place"),
        ({"analyse": lambda runs, **more: None}, r"takes \*\*more; name each option"),
        ({"analyse": lambda: None}, "cannot be called"),
    ],
)
def test_what_lacks_or_does_not_fit_is_named_in_one_line(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        register(module(**changed))
    assert "\n" not in str(caught.value) and "a.b.mine" in str(caught.value) and "mine" not in ANALYSES


def test_what_an_analysis_reads_and_asks_about_is_told_by_its_module() -> None:
    runs, model = Analyser.of(module()), Analyser.of(module(analyse=of_model))
    assert (runs.reads, runs.takes_runs, runs.options, runs.tells_progress) == ("runs", True, {"seed": 0}, True)
    assert (model.reads, model.takes_runs, model.options, model.tells_progress) == ("model", False, {"layer": 0}, False)
    assert runs.about == "b" and {one.about for one in ANALYSES.values()} == {"behaviour", "reasoning", "internals"}
    assert set(of_samples()) == {
        "correction-harm", "convergence", "format-share", "reflection", "routing", "pass-at-k"
    }  # fmt: skip


RESULT = Analysis(
    "mine", [{"arm": "a", "n": 1.0}], go.Figure(go.Bar(y=[1])), ["As a count."], {"n": [1]},
    [("More", "Because.", go.Figure())],
)  # fmt: skip


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = save(RESULT, tmp_path, {"command": "elicit analyse mine"})
    assert saved == json.loads((tmp_path / "mine.json").read_text()) and saved["command"] == "elicit analyse mine"
    again = load(tmp_path / "mine.json")
    for key in ("name", "table", "notes", "data", "figure"):
        assert getattr(again, key) == getattr(RESULT, key)
    assert [one[:2] for one in again.more] == [("More", "Because.")]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("mine.json", "[1, 2]", "it has no 'analysis' that is a str"),
        ("mine.json", "{}", "it has no 'analysis' that is a str"),
        ("mine.json", '{"analysis": "mine", "notes": [], "table": {}}', "it has no 'table' that is a list"),
        ("mine.json", '{"analysis": "mine", "notes": [3], "table": [], "data": {}}', "its 'notes' are not texts"),
        (
            "mine.json",
            '{"analysis": "m", "notes": [], "table": [{"a": 1}, {"b": 1}], "data": {}}',
            "rows of its 'table'",
        ),
        ("mine.json", '{"analysis": "m", "notes": [], "table": [[1]], "data": {}}', "rows of its 'table'"),
        ("mine.json", "{", "it is not JSON"),
        ("mine.json", "\udcff", "it is not JSON"),
        ("mine.json", "[" * 100_000, "it is not JSON"),
        ("mine.figures.json", "{", "it is not JSON"),
        ("mine.figures.json", "[]", "it is not a list of [heading, explanation, Plotly figure]"),
        ("mine.figures.json", "3", "it is not a list of"),
        ("mine.figures.json", '[["Result", ""]]', "it is not a list of"),
        ("mine.figures.json", '[["Result", "", {"data": [{"type": "no such"}]}]]', "it is not a list of"),
    ],
)
def test_a_file_that_is_no_result_is_refused_in_one_line(file: str, text: str, said: str, tmp_path: Path) -> None:
    save(RESULT, tmp_path, {})
    (tmp_path / file).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as caught:
        load(tmp_path / "mine.json")
    assert said in str(caught.value) and "\n" not in str(caught.value) and file in str(caught.value)


def test_a_result_without_its_figures_is_refused(tmp_path: Path) -> None:
    save(RESULT, tmp_path, {})
    (tmp_path / "mine.figures.json").unlink()
    with pytest.raises(UserError, match=r"there is no .*mine\.figures\.json"):
        load(tmp_path / "mine.json")


def test_the_pages_example_runs(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a notebook's reader would run it; then every report has it, and the shell knows its options."""
    source, use = examples(PAGE)
    module_of(source, "answer_length", tmp_path, monkeypatch)
    say = {
        "m": lambda item, b: f"so it is {item.answer}" if int(item.id[2:]) % 2 else "so 99",
        "direct": lambda i, b: "9",
    }
    run = written_run(tiny, tmp_path / "run", written_task(12), "m", say)
    used: dict[str, Any] = {"run": run, "folder": tmp_path}
    try:
        exec(compile(use, str(PAGE), "exec"), used)
        assert [row["arm"] for row in used["again"].table] == ["m", "direct"]
        assert used["again"].table[0]["AUROC"] == "1.000" and used["again"].table[0]["p"] < 0.05
        code, _, err = shell("report", str(run.folder), "--out", str(tmp_path / "page.html"))
        assert code == 0 and ">Answer length<" in (tmp_path / "page.html").read_text(), err
        code, _, err = shell("analyse", "answer-length", str(run.folder), "--set", "draw=9")
        assert code == 2 and "answer-length takes no --draw; it takes --draws, --seed" in err
    finally:
        ANALYSES.pop("answer-length", None)
