"""The door for methods: what a module must have is checked, what it may have has a default, the page's example runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from elicit.decoding.progress import Silent
from elicit.elicited import Elicited
from elicit.methods import METHODS, Method, register
from elicit.models import Model
from elicit.models.model import DEFAULT_MODEL
from elicit.tasks import load_task
from probes.errors import UserError
from tests.support.pages import examples, module_of
from tests.support.shell import shell

PAGE = Path(__file__).parents[2] / "elicit" / "methods" / "README.md"
TASK = "chain-sum:min_terms=2,max_terms=2"


def fit(model: Any, items: Any = None, progress: Any = None, *, strength: float = 1.0, seed: int = 0) -> Elicited:
    raise AssertionError("it is not fitted here")


def controls(handle: Any, items: Any = None, *, seed: int = 0) -> dict[str, Elicited]:
    return {}


def module(**changed: Any) -> ModuleType:
    """A whole method module, with attributes changed; None takes one away."""
    made = ModuleType("mine")
    whole = {"NAME": "mine", "SUMMARY": "does it", "PAPER": "", "fit": fit, "controls": controls, **changed}
    vars(made).update({key: value for key, value in whole.items() if value is not None})
    return made


def by_place(model: Any, items: Any = None, progress: Any = None, strength: float = 1.0) -> Elicited:
    raise AssertionError


def anything(model: Any, items: Any = None, progress: Any = None, **options: Any) -> Elicited:
    raise AssertionError


def undecided(model: Any, items: Any = None, progress: Any = None, *, strength: float) -> Elicited:
    raise AssertionError


def without_seed(handle: Any, items: Any = None) -> dict[str, Elicited]:
    raise AssertionError


def spends(model: Any, items: Any = None, *, seed: int = 0) -> Elicited:
    raise AssertionError


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"PAPER": None, "controls": None}, "'mine' lacks PAPER, controls; it must have NAME, SUMMARY, PAPER, fit"),
        ({"PAPER": 2402.102}, "has PAPER = 2402.102; expected str"),
        ({"QUICK": ["k"]}, r"has QUICK = \['k'\]; expected dict"),
        ({"QUICK": {"strenght": 2.0}}, "QUICK .*unknown option of mine 'strenght'; did you mean strength"),
        ({"QUICK": {"strength": "2"}}, "QUICK .*strength = '2' was given to mine; expected float"),
        ({"NAME": "Mine, too"}, "give lower-case words joined by hyphens"),
        ({"fit": "fit"}, r"has fit = 'fit'; expected a function fit\(model, items, progress\)"),
        (
            {"fit": lambda model, items=None: None},
            r"fit that cannot be called as fit\(model, items, progress\): too many",
        ),
        ({"fit": by_place}, "takes strength by place; write \\* before its options"),
        ({"fit": anything}, r"takes \*\*options.*; name each option"),
        ({"fit": undecided}, r"fit that cannot be called .*missing a required .*'strength'"),
        ({"controls": without_seed}, r"controls\(handle, items, seed=…\): got an unexpected keyword argument 'seed'"),
        ({"notes": lambda: []}, r"notes that cannot be called as notes\(options\)"),
        ({"findings": []}, r"has findings = \[\]; expected a function findings\(run\)"),
        ({"missing": lambda: ""}, r"missing that cannot be called as missing\(model\)"),
        ({"matched": spends}, "matched of .* lacks options of its fit: strength"),
    ],
)
def test_what_lacks_or_does_not_fit_is_named_in_one_line(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        register(module(**changed))
    assert "\n" not in str(caught.value) and "mine" in str(caught.value) and "mine" not in METHODS


def test_what_a_module_may_leave_out_has_a_default(tiny: Model) -> None:
    method = Method.of(module())
    assert method.options == {"strength": 1.0, "seed": 0} and method.matched is None
    assert method.notes({}) == method.report_sections({}) == [] and method.missing("any") == "" and method.quick == {}
    assert method.model == DEFAULT_MODEL
    with pytest.raises(UserError, match="did you mean strength"):
        method.check_options({"strenth": 1.0})
    with pytest.raises(UserError, match="seed = -1 was given to mine; give 0 or more"):
        method.check_options({"seed": -1})
    told: list[Any] = []

    def reporting(handle: Any, items: Any = None, *, seed: int = 0, progress: Any = None) -> dict[str, Elicited]:
        told.append(progress)
        return {}

    for one in (Method.of(module(controls=reporting)), method):  # whose own takes none
        assert one.controls(Elicited(tiny, "mine"), None, progress=Silent()) is not None
    assert len(told) == 1 and isinstance(told[0], Silent)
    given = Method.of(module(MODEL="other", QUICK={"strength": 2}, notes=lambda o: ["a"], missing=lambda m: f"no {m}"))
    assert (given.model, given.quick, given.notes({}), given.missing("b")) == ("other", {"strength": 2}, ["a"], "no b")


def test_a_name_is_one_modules_and_a_module_may_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "mine", Method.of(mine := module()))
    vars(mine)["SUMMARY"] = "does it better"  # as after a reload
    assert register(mine).summary == METHODS["mine"].summary == "does it better"
    with pytest.raises(ValueError, match="two methods are called 'mine': mine and mine"):
        register(module())
    with pytest.raises(ValueError, match=r"called 'direct': elicit\.methods\.baselines\.direct and mine; rename one"):
        register(module(NAME="direct"))


def test_the_pages_example_runs(
    tiny: Model, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a notebook's reader would run it; then from the shell, like any method."""
    monkeypatch.chdir(tmp_path)
    source, use = examples(PAGE)
    module_of(source, "opening_word", tmp_path, monkeypatch)
    used: dict[str, Any] = {"model": tiny, "task": load_task(TASK, limit=6)}
    try:
        exec(compile(use, str(PAGE), "exec"), used)
        assert list(used["run"].metrics["arms"]) == ["opening-word", "direct", "random word 0", "random word 1"]
        page = (used["run"].folder / "report.html").read_text()
        assert "Begins with" in page  # its notes
        assert page.index(used["run"].bottom_line) < page.index("Begins with")
        compared = (
            "compare", "--methods", "opening-word", "--controls", "--quick", "--model", str(tiny_folder),
            "--task", TASK, "--limit", "2", "--max-new-tokens", "4", "--device", "cpu",
        )  # fmt: skip
        code, out, err = shell(*compared, "--json")
        assert code == 0 and [row["key"] for row in json.loads(out)["arms"]][-1] == "random word 1", err
        code, _, err = shell("compare", "--methods", "opening-ward")
        assert code == 2 and "did you mean opening-word" in err
    finally:
        METHODS.pop("opening-word", None)
