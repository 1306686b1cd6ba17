"""`dpo-teacher` on a tiny model: pairs, what is kept, training, resumption, controls, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit import evaluate
from elicit.elicited import Elicited
from elicit.methods import dpo_teacher as method
from elicit.methods.documents import SUPERVISED, documents_of
from elicit.methods.dpo_teacher import Answered, Asked, at_random, held
from elicit.methods.taught import Said, example
from elicit.models import Model
from elicit.models.prompts import Prompt
from elicit.tasks import load_task
from elicit.tasks.base import Item, Task
from elicit.tasks.grading import NumberGrader
from probes.errors import UserError
from probes.offsets import decoded
from tests.support.hybrid_parts import as_model
from tests.support.shell import shell
from tests.support.thinkers import thinker
from tests.support.tiny import tiny_model
from tests.support.toys import Stop, Stopping, Vowels, load_talker, toy_task

SMALL: dict[str, Any] = {
    "questions": 4, "samples": 6, "pairs": 2, "answer_tokens": 24, "steps": 3, "rows": 2, "rank": 2, "lr": 1e-2,
    "max_new_tokens": 6,
}  # fmt: skip
PLAIN = {"direct", "cot-prompt", "direct@budget", "cot-prompt@budget"}


@pytest.fixture(scope="module")
def task() -> Task:
    return replace(toy_task(6), grader=Vowels())


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_talker(tmp_path_factory.mktemp("talker") / "model", range(1, 16))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fitted(model: Model, task: Task | None, progress: Any = None, **options: Any) -> Elicited:
    return method.fit(model, task.solved if task else None, progress, **{**SMALL, **options})


def test_it_is_fitted_resumed_saved_and_compared(talker: Model, task: Task, here: Path) -> None:
    before = {name: p.detach().clone() for name, p in talker.lm.named_parameters()}
    handle = fitted(talker, task)
    assert all(torch.equal(before[name], p) for name, p in talker.lm.named_parameters())
    found = handle.options["found"]
    assert found["curve"][0] == pytest.approx(0.6931, abs=1e-3) and 0 < found["right"] < found["answers"]
    for question, chosen, rejected in found["shown"]:
        assert question.startswith("What is") and chosen != rejected
        assert set(chosen) & set("aeiou0123456789")
    again = fitted(talker, task)
    assert again.adapter is not None and handle.adapter is not None and again.options == handle.options
    assert again.adapter.sha256 == handle.adapter.sha256
    loaded = Elicited.load(handle.save(here / "bundle"), talker)

    others = method.controls(handle, task.solved)
    assert set(others) == {SUPERVISED, method.SHUFFLED} | PLAIN
    fresh = method.controls(loaded, task.solved)
    assert {n: h.decode_key for n, h in fresh.items()} == {n: h.decode_key for n, h in others.items()}
    run = evaluate(handle, toy_task(6).test[:2], against=others, out=here / "run")
    page = (run.folder / "report.html").read_text()
    assert "direct preference optimisation" in page and "are held for right (gold)" in page


@pytest.mark.parametrize(
    ("put", "wanted"),
    [
        (Prompt(), "Q: 2?\nA: It is 3."),
        (Prompt(begin="So"), "Q: 2?\nA: So It is 3."),
        (Prompt("template", template="### {question}\n### Answer\n"), "### 2?\n### Answer\nIt is 3."),
        (Prompt("chat"), "assistant\nIt is 3."),
        (Prompt("chat", begin="So"), "assistant\nSo It is 3."),
        (Prompt("chat", begin="<think>\n"), "assistant\n<think>\nIt is 3."),
    ],
)
def test_words_are_not_glued_to_those_before_them(put: Prompt, wanted: str) -> None:
    tokenizer = thinker("qwen3").tokenizer
    asked, said = example(tokenizer, put, "2?", "It is 3.")
    assert decoded(tokenizer, [*asked, *said]).endswith(f"{wanted}<|im_end|>")
    model, item = as_model(tiny_model("llama"), "tiny", tokenizer), Item("a", "2?", "3", "fit")
    (told,), _ = documents_of(
        "rlp", model, Task("t", (item,), NumberGrader(), "number", {}).solved, put, "", 1, worked=False
    )
    assert told.endswith(wanted.replace("It is 3.", "3"))


def test_a_stopped_training_ends_at_the_same_bits(talker: Model, task: Task, here: Path) -> None:
    whole = fitted(talker, task, steps=13)
    (here / "runs").rename(here / "before")
    with pytest.raises(Stop):
        fitted(talker, task, Stopping((method.NAME, 12)), steps=13)  # a state is written after ten
    again = fitted(talker, task, steps=13)
    assert whole.adapter is not None and again.adapter is not None
    assert again.adapter.sha256 == whole.adapter.sha256


def test_controls_differ_in_one_thing_each(talker: Model, task: Task, here: Path) -> None:
    handle = fitted(talker, task)
    asked, found = Asked(**handle.options["asked"]), handle.fitted
    plain, _ = method.groups_of(method.NAME, talker, handle.prompt, found, asked, 0)
    shuffled, _ = method.groups_of(method.SHUFFLED, talker, handle.prompt, found, asked, 0)
    turned = [one == other[::-1] for one, other in zip(plain, shuffled, strict=True)]
    assert all(one == other or t for one, other, t in zip(plain, shuffled, turned, strict=True))
    assert 0 < sum(turned) < len(turned)
    alone = method.controls(handle, task.solved)[SUPERVISED].options["found"]["trained"]
    longest = max(pair[0].tokens for pair in plain)
    assert abs(alone - handle.options["found"]["trained"]) <= 3 * longest / 2


def test_without_a_verifier_the_majority_is_learned_and_gold_is_not_read(talker: Model, task: Task, here: Path) -> None:
    options: dict[str, Any] = {"objective": "sft", "keep": "majority", "demonstrations": 2, "ask": "both"}
    handle = fitted(talker, task, **options)
    assert handle.options["seen"]["fitted"] == [item.id for item in task.fit[2:6]]
    others = method.controls(handle, task.solved)
    assert set(others) == {method.RANDOM} | PLAIN
    kept = [sum(one.right) for one in handle.fitted.of]
    moved = others[method.RANDOM].options["found"]
    assert moved["groups"] == handle.options["found"]["groups"] == sum(min(2, n) for n in kept) > 0
    wrong = replace(task, items=tuple(replace(item, answer="99") for item in task.items))
    blind = fitted(talker, wrong, **{**options, "demonstrations": 0})
    seeing = fitted(talker, task, **{**options, "demonstrations": 0})
    assert blind.options["found"]["shown"] == seeing.options["found"]["shown"]
    assert blind.options["found"]["curve"] == seeing.options["found"]["curve"]


def test_demonstrations_are_worked_out_where_the_task_says_how(talker: Model) -> None:
    asked = Asked("sft", "majority", "", "think", 2, 3, 4, 2, 1.0, 0.1, 8)
    (handle,), some = method.teaching(talker, load_task("organism", limit=8).solved, "qa", asked, 0)
    assert len(handle.prompt.shots) == 2 and len(some) == 3 and not handle.prompt.trigger
    assert all(len(answer.split(". ")) > 2 for _, answer in handle.prompt.shots)


def said(answer: str | None, correct: bool = False, ended: bool = True) -> Said:
    return Said(f"It is {answer}, {correct}, {ended}", answer, correct, ended)


def test_which_answers_are_held_for_right() -> None:
    some = [said("4"), said("4.0"), said("5", True), said(None), said("4", ended=False), said("5", True, False)]
    grader = NumberGrader()
    assert held(some, "gold", grader) == (False, False, True, False, False, False)
    most = held(some, "majority", grader)
    assert most == (True, True, False, False, False, False)
    drawn = {at_random(most, [0, n]) for n in range(40)}
    assert len(drawn) > 5 and {sum(one) for one in drawn} == {2}
    assert held([said(None)], "majority", grader) == (False,)
    assert at_random((True, True), [1]) == (True, True)


def test_a_question_gives_pairs_of_both_kinds() -> None:
    answers = tuple(said(str(n), n < 3) for n in range(5))
    one = Answered(0, answers, tuple(a.correct for a in answers))
    assert [(a.answer, b.answer) for a, b in one.both(4)] == [("0", "3"), ("1", "4")]
    assert len(one.both(1)) == 1 and not one._replace(right=(True,) * 5).both(4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "dp"}, "unknown objective 'dp'; did you mean dpo"),
        ({"keep": "golden"}, "unknown keep 'golden'; did you mean gold"),
        ({"ask": "thinks"}, "unknown way to ask 'thinks'"),
        ({"samples": 1}, "samples = 1 was given"),
        ({"pairs": 0}, "pairs = 0 was given"),
        ({"beta": 0.0}, "beta = 0.0 was given"),
        ({"questions": 0}, "questions = 0 was given to dpo-teacher; give 1 or more"),
        ({"demonstrations": -1}, "demonstrations = -1 was given"),
        ({"demonstrations": 6}, "demonstrations = 6 was given and the task has 6 fit items"),
        ({"temperature": -1.0}, "temperature"),
        ({"teacher": "no-such-model"}, "no-such-model"),
        ({"steps": 0}, "steps = 0 was given"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str, talker: Model, task: Task, here: Path) -> None:
    with pytest.raises(UserError, match=words) as error:
        fitted(talker, task, **options)
    assert "\n" not in str(error.value) and not (here / "runs").exists()


def test_a_question_with_both_kinds_is_needed(talker: Model, here: Path) -> None:
    """Nothing is ever right, so there is no pair; and nothing to learn."""
    for objective, words in (("dpo", "no question has both"), ("sft", "none is learned")):
        with pytest.raises(UserError, match=f"0 are held for right and .* for wrong, and {words}; give more"):
            fitted(talker, toy_task(4), objective=objective)
    with pytest.raises(UserError, match="trains on fit items of a task; give items"):
        fitted(talker, None)


def test_a_mistake_is_one_line(here: Path, talker: Model) -> None:
    code, _, err = shell(
        "run", "--method", "dpo-teacher", "--model", talker.name, "--dtype", "float32", "--limit", "2",
        "--max-new-tokens", "6", "--set", "answer_tokens=6",
    )  # fmt: skip
    assert code == 2 and "0 are held for right" in err and err.count("\n") == 1
    assert not list(here.iterdir())
