"""The bottom line: each outcome of the rule, by planted scores; it is the first line wherever a run is shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from elicit.evaluation import Run
from elicit.evaluation.metrics import bottom_line as rule
from elicit.evaluation.metrics.bottom_line import BottomLine, bottom_line, of_run, several
from elicit.models import Model
from elicit.report import compare_runs, render, render_all
from elicit.tasks.base import Item
from probes.statistics import paired
from tests.support.shell import shell
from tests.support.written import Answers, written_run, written_task

N = 100


def told(method: int, direct: int = 10, n: int = N, **others: int) -> BottomLine:
    """The bottom line where so many of the first questions are right in each arm."""
    named = {"m": method, "direct": direct, **others}
    return bottom_line("m", {name: (np.arange(n) < right).astype(float) for name, right in named.items()})


def controls(**right: int) -> dict[str, int]:
    """Five random draws and some others."""
    randoms = {f"random feature {n}": right.get(f"r{n}", 12) for n in range(5)}
    begins = {f"begins {word!r}": right.get(word, 11) for word in ("To", "Step")}
    return {**randoms, **begins, "sign flipped": right.get("flipped", 9), "direct@budget": right.get("budget", 13)}


def test_nothing_gained() -> None:
    assert told(10) == BottomLine("nothing", "m gains nothing over direct: +0.0 points [-3.6, +3.6] on 100 questions.")
    assert told(10, **controls()).outcome == "nothing"  # what controls do is of no matter then


def test_undecided_says_the_smallest_lead_that_would_have_counted() -> None:
    line = told(14, 10)
    assert line.outcome == "undecided" and line.sentence.startswith("It is undecided whether m gains over direct: +4.0")
    assert line.sentence.endswith("on 100 questions, where no lead below 6.0 points could be seen.")
    assert told(15, 10).outcome == "undecided" and told(16, 10).outcome == "uncontrolled"
    assert told(16, 10, **controls()).outcome == "undecided"  # ten arms: Holm asks for more
    assert "no lead below 9.0 points" in told(16, 10, **controls()).sentence
    assert told(19, 10, **controls()).outcome != "undecided"
    few = told(3, 0, n=4)
    assert few.outcome == "undecided" and few.sentence.endswith(
        "on 4 questions, where no lead could be seen: raise --limit."
    )


def test_lost_answers_make_the_smallest_lead_larger() -> None:
    direct = (np.arange(N) < 50).astype(float)
    method = np.roll(direct, 20)  # twenty lost, twenty won
    line = bottom_line("m", {"m": method, "direct": direct})
    assert line.outcome == "undecided" and "no lead below 16.0 points" in line.sentence
    for wins, outcome in ((35, "undecided"), (36, "uncontrolled")):
        more = (np.arange(N) >= 20) & (np.arange(N) < 50 + wins)
        line = bottom_line("m", {"m": more.astype(float), "direct": direct})
        assert line.outcome == outcome, line


def test_worse() -> None:
    line = told(10, 40, **controls())
    assert line.outcome == "worse" and line.sentence.startswith("m does worse than direct: -30.0 points [-39.2, -20.0]")


def test_no_controls_were_run() -> None:
    line = told(60, 10, **{"cot-prompt": 90, "self-consistency": 60, "cot-prompt + push": 90, "thinking model": 80})
    assert line == BottomLine(
        "uncontrolled",
        "m gains 50.0 points [38.7, 60.0] over direct, but no controls were run: add --controls.",
    )
    scores = {"cot-prompt": (np.arange(N) < 60).astype(float), "direct": np.zeros(N)}
    assert bottom_line("cot-prompt", scores).outcome == "gained"  # a baseline has none
    assert "controls" not in bottom_line("cot-prompt", scores).sentence


def test_more_than_every_control() -> None:
    line = told(60, 10, **controls(), **{"cot-prompt": 90})
    assert line == BottomLine(
        "beats",
        "m gains 50.0 points [38.7, 60.0] over direct, and more than each of its nine controls: 47.0 points "
        "[35.9, 57.0] more than the closest, direct@budget.",
    )
    one = told(60, 10, **{"sign flipped": 20})
    assert one.outcome == "beats" and "and more than its one control, sign flipped: by 40.0 points" in one.sentence


def test_no_more_than_one_of_five_random_draws_or_a_forced_first_word() -> None:
    line = told(60, 10, **controls(r3=62, Step=60))
    assert line == BottomLine(
        "random",
        "m gains 50.0 points [38.7, 60.0] over direct, but no more than one of five random features (random feature 3) "
        "and one of two “begins …” (begins 'Step').",
    )
    assert "all five random features" in told(60, 10, **controls(r0=60, r1=60, r2=60, r3=60, r4=60)).sentence
    single = told(60, 10, **{"random 0": 60, "random 1": 20})
    assert "no more than one of two random controls (random 0)." in single.sentence


def test_another_control_does_as_much() -> None:
    line = told(60, 10, **controls(budget=61))
    assert line.outcome == "other" and line.sentence.endswith("but no more than direct@budget (the same tokens).")
    both = told(60, 10, **controls(budget=61, flipped=60, To=60))
    assert both.outcome == "other" and both.sentence.endswith(
        "no more than one of two “begins …” (begins 'To'), sign flipped and direct@budget (the same tokens)."
    )


def test_a_lead_over_a_control_that_does_not_count_is_undecided() -> None:
    line = told(60, 10, **controls(flipped=57, r0=64))
    assert line.outcome == "random" and line.sentence.endswith(
        "but no more than one of five random features (random feature 0); its lead over sign flipped is undecided."
    )
    assert told(60, 10, **controls(flipped=57)).outcome == "other"


def test_what_cannot_be_told() -> None:
    scores = {"m": np.ones(4), "cot-prompt": np.ones(4)}
    line = bottom_line("m", scores)
    assert line.outcome == "no start"
    assert line.sentence.endswith("direct was not run, so no gain can be measured: add --against direct.")
    alone = bottom_line("direct", {"direct": np.ones(1)})
    assert alone.sentence == "direct is right in 100.0% of 1 question; gains of others are measured from it."


def test_a_difference_counts_as_the_table_of_the_run_has_it() -> None:
    """An interval that leaves out 0 is not enough where McNemar's test says otherwise."""
    place = np.arange(N)
    a, b = (place < 22).astype(float), ((place >= 22) & (place < 32)).astype(float)
    assert paired(a, b).interval.low > 0 and (paired(a, b).mcnemar_p or 0) > 0.05
    assert rule.bottom_line("m", {"m": a, "direct": b}).outcome == "undecided"


def test_several_methods_in_one_sentence() -> None:
    lines = {
        "a": told(60, **controls()),
        "b": told(60),
        "c": told(60, **controls(r1=60)),
        "d": told(60, **controls(r1=60)),
    }
    assert several(lines) == (
        "Of four methods one gains more than each of its controls (a); two are not shown to gain more than a random "
        "control (c, d); one gains, but no controls were run: add --controls (b)."
    )
    assert several({"b": lines["b"]}) == lines["b"].sentence
    assert set(rule.OF_SEVERAL) == {
        rule.NO_START, rule.WORSE, rule.NOTHING, rule.UNDECIDED, rule.GAINED, rule.UNCONTROLLED, rule.BEATS,
        rule.RANDOM, rule.OTHER, rule.NO_VERDICTS,
    }  # fmt: skip


def first(right: int) -> Answers:
    def say(item: Item, branch: int) -> str:
        return f"so {item.answer}" if int(item.id[2:]) < right else "so 999"

    return say


@pytest.fixture(scope="module")
def run(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Run:
    arms = {"m": 30, "direct": 4, "random 0": 3, "random 1": 30}
    say = {name: first(right) for name, right in arms.items()}
    return written_run(tiny, tmp_path_factory.mktemp("run") / "m", written_task(40), "m", say)


SENTENCE = "m gains 65.0 points [43.4, 80.0] over direct, but no more than one of two random controls (random 1)."


def test_it_is_the_first_line_of_a_run_and_its_page(run: Run) -> None:
    assert run.metrics["bottom_line"] == run.bottom_line == of_run(run.metrics).sentence == SENTENCE
    assert next(iter(json.loads((run.folder / "metrics.json").read_text()))) == "bottom_line"
    page = render(run)
    assert page.index("</header>") < page.index(SENTENCE) < page.index("40 items of written") < page.index("<table")
    older = {key: value for key, value in run.metrics.items() if key != "bottom_line"}
    assert Run(run.store, older).bottom_line == SENTENCE


def test_it_is_the_first_line_of_a_comparison(run: Run, tmp_path: Path) -> None:
    result = compare_runs([run])
    assert next(iter(result)) == "bottom_line" and result["bottom_line"] == SENTENCE
    assert result["bottom_lines"] == {"m": SENTENCE}
    page = render_all([run], result)
    assert page.index("</header>") < page.index(SENTENCE) < page.index("40 items of written") < page.index("<table")
    code, out, err = shell("compare", str(run.folder))
    assert code == 0 and " ".join(out.split()).startswith(SENTENCE), err
    code, out, err = shell("compare", str(run.folder), "--json")
    assert code == 0 and json.loads(out)["bottom_line"] == SENTENCE, err
    code, out, err = shell("report", str(run.folder), "--analyses", "none", "--out", str(tmp_path / "page.html"))
    assert code == 0 and " ".join(out.split()).startswith(SENTENCE), err


def test_a_comparison_measures_each_method_beside_its_own_controls(run: Run, tiny: Model, tmp_path: Path) -> None:
    say = {name: first(right) for name, right in {"p": 30, "flipped": 4}.items()}
    other = written_run(tiny, tmp_path / "p", written_task(40), "p", say)
    result = compare_runs([run, other])
    assert result["bottom_lines"]["m"] == SENTENCE
    assert "and more than its one control, flipped: by 65.0 points" in result["bottom_lines"]["p"]
    assert result["bottom_line"].startswith("Of two methods one gains more than each of its controls (p); one is not")
    only = written_run(tiny, tmp_path / "d", written_task(40), "direct", {"direct": first(4)})
    assert compare_runs([only])["bottom_line"].startswith("direct is right in 10.0% of 40 questions; gains of others")
    part = compare_runs([run, other], baseline="p")["bottom_lines"]
    assert set(part) == {"m"} and part["m"].startswith("It is undecided whether m gains over p: +0.0")
