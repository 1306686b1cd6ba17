"""Tasks of lm-eval as tasks of this suite, against lm-eval itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate

import elicit
from elicit.evaluation.run.arms import arms_of
from elicit.evaluation.run.run import Run
from elicit.integrations.lm_eval.model import ElicitLM
from elicit.methods import fit
from elicit.models import Model
from elicit.tasks.base import validate
from elicit.tasks.registry import load_task
from probes.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval and what it brings warn of their own matters


def test_questions_answers_and_splits(tasks: Path) -> None:
    task = load_task(f"lm-eval:{tasks / 'sums.yaml'}")
    assert [item.answer for item in task.test] == ["7", "6", "7", "10", "4", "13"]
    assert task.test[0].question == "Q: Compute 10 + 11 - 9 + 3 - 8.\nA:"
    assert {item.split for item in task.all if item.split != "test"} <= {"fit", "dev"}
    assert len(task.all) == 10
    assert task.until == ("\nQ:", "\n\n")
    assert validate(task.test).ok
    shown = load_task("lm-eval:sums", include_path=str(tasks), num_fewshot=2, limit=3)
    assert len(shown.test) == 3
    assert shown.test[0].question.count("Q: ") == 3
    assert shown.test[0].id == task.test[0].id


@pytest.mark.parametrize("method", ["cot-prompt", "self-consistency"])
def test_texts_and_verdicts_are_those_of_lm_eval(
    organism: Model, manager: Any, tasks: Path, tmp_path: Path, method: str
) -> None:
    task = load_task(f"lm-eval:{tasks / 'sums.yaml'}")
    own: dict[str, Any] = {"samples": 2, "seed": 3} if method == "self-consistency" else {}
    handle = fit(method, organism, task.solved, max_new_tokens=24, **own)
    run = elicit.evaluate(handle, task.test, against=[], out=tmp_path / "run")
    chosen = arms_of([run])[0].chosen([item.id for item in task.test])
    again = fit(method, organism, max_new_tokens=24, **own)
    lm = ElicitLM(again, stop="elicit", kind="whole")
    found = simple_evaluate(lm, tasks=["sums"], task_manager=manager, bootstrap_iters=0)
    samples = found["samples"]["sums"]
    assert [sample["resps"][0][0] for sample in samples] == [trace.text for trace in chosen]
    assert [float(sample["exact_match"]) for sample in samples] == [trace.score for trace in chosen]
    kept = Run.load(tmp_path / "run").items
    assert [kept.task.judge(item, None, trace.text).score for item, trace in zip(kept, chosen, strict=True)] == [
        trace.score for trace in chosen
    ]


def test_choices_that_have_letters_are_asked(tasks: Path) -> None:
    task = load_task(f"lm-eval:{tasks / 'letters.yaml'}")
    assert task.kind == "option"
    assert {item.answer for item in task.test} == {"B"}
    assert validate(task.test).ok


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("choices.yaml", "asks which of its continuations is likelier"),
        ("texts.yaml", "is of loglikelihood_rolling: it asks how likely texts are"),
        ("nothing.yaml", "there is no task file"),
        ("sums.yaml,filter=first", "unknown filter of .*known: last"),
        ("sums.yaml,metric=bleu", "unknown metric of .*known: exact_match"),
        ("sums.yaml,shots=2", "unknown parameter of lm-eval tasks 'shots'"),
        ("sums.yaml,num_fewshot=-1", "num_fewshot=-1 was given"),
        ("letters.yaml,filter=last", "judged by their letters"),
    ],
)
def test_what_cannot_be_asked_is_refused(tasks: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(f"lm-eval:{tasks}/{name}")


def test_a_prompt_around_a_prompt_is_refused(tiny: Model, tasks: Path) -> None:
    task = load_task(f"lm-eval:{tasks / 'sums.yaml'}")
    with pytest.raises(UserError, match="are whole prompts and would be put into another"):
        elicit.evaluate(fit("direct", tiny), task.test, against=[])
    with pytest.raises(UserError, match="give qa, qa-cot or chat"):
        fit("direct", tiny, task.solved, prompt="boxed")


def test_a_filter_that_loses_gold_is_named(tasks: Path, tmp_path: Path) -> None:
    text = (tasks / "sums.yaml").read_text()
    strict = '  - {name: strict, filter: [{function: regex, regex_pattern: "is (-?[0-9]+)"}, {function: take_first}]}\n'
    (tmp_path / "strict.yaml").write_text(text.replace("filter_list:\n", f"filter_list:\n{strict}"))
    with pytest.raises(
        UserError, match=r"filter 'strict' of .* does not find its own gold answer, like '7'; give filter=last"
    ):
        load_task(f"lm-eval:{tmp_path / 'strict.yaml'}")
    assert load_task(f"lm-eval:{tmp_path / 'strict.yaml'},filter=last").source["filter"] == "last"
