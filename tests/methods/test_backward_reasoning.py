"""`backward-reasoning` on a tiny model: what is kept, trained, resumed, compared, refused; backward questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit import evaluate
from elicit.decoding.answering import by_itself
from elicit.elicited import Elicited
from elicit.methods import backward_reasoning as method
from elicit.methods.documents import SUPERVISED
from elicit.models import Model, load_model
from elicit.tasks import load_task
from elicit.tasks.base import Item, Task, split_of
from elicit.tasks.organism.inverse import inverse
from elicit.tasks.organism.solver import facts_of, solve
from elicit.training.objectives import in_turn
from probes.errors import UserError
from tests.support.shell import shell
from tests.support.tiny import save_tiny
from tests.support.toys import Letters, Stop, Stopping, load_talker, toy_task

SMALL: dict[str, Any] = {
    "questions": 12, "answer_tokens": 48, "steps": 3, "rows": 2, "rank": 2, "lr": 1e-2, "max_new_tokens": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def task() -> Task:
    return replace(load_task("organism", limit=12), grader=Letters())


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
    assert found["asked"] == 12 >= found["right"] >= found["inverted"] >= found["consistent"] >= found["kept"] >= 2
    assert all(row.forward.correct and row.backward.correct for row in handle.fitted.rows)
    assert all(row.forward.ended and row.backward.ended for row in handle.fitted.rows)
    assert len(handle.options["seen"]["fitted"]) == found["kept"]
    again = fitted(talker, task)
    assert again.adapter is not None and handle.adapter is not None and again.options == handle.options
    assert again.adapter.sha256 == handle.adapter.sha256
    loaded = Elicited.load(handle.save(here / "bundle"), talker)

    others = method.controls(handle, task.solved)
    plain = {"direct", "cot-prompt", "direct@budget", "cot-prompt@budget"}
    assert set(others) == {SUPERVISED, method.SHUFFLED} | plain
    assert len({others[n].adapter.sha256 for n in (SUPERVISED, method.SHUFFLED)} | {handle.adapter.sha256}) == 3
    fresh = method.controls(loaded, task.solved)  # what the fit kept is not in the bundle, and is made again
    assert {n: h.decode_key for n, h in fresh.items()} == {n: h.decode_key for n, h in others.items()}
    run = evaluate(handle, load_task("organism", limit=12).test[:2], against=others, out=here / "run")
    page = (run.folder / "report.html").read_text()
    for words in ("consistently", "backward reasoning", "The mean of three cross-entropies"):
        assert words in page


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
    rows, put = handle.fitted.rows, handle.prompt
    plain = method.groups_of(talker, put, rows)
    shuffled = method.groups_of(talker, put, rows, 0)
    for one, other in zip(plain, shuffled, strict=True):
        assert (one[0], one[2], one[1].prompt) == (other[0], other[2], other[1].prompt)
        assert one[1].target != other[1].target
    assert sorted(g[1].target for g in plain) == sorted(g[1].target for g in shuffled)
    asks = talker.tokenizer.decode(plain[0][1].prompt)
    assert asks == f"Q: {rows[0].item.question} {method.INVERT}\nA:"
    alone = method.controls(handle, task.solved)[SUPERVISED]
    each = in_turn(plain, 2, 0)
    tokens = sum(e.tokens for step in range(3) for e in each(step))
    assert handle.options["found"]["trained"] == tokens
    longest = max(g[0].tokens for g in plain)
    assert abs(alone.options["found"]["trained"] - tokens) <= 3 * longest / 2


def test_the_teacher_writes_backward_questions_and_may_have_another_tokenizer(
    talker: Model, here: Path, tmp_path: Path
) -> None:
    task = toy_task(6)
    handle = fitted(talker, task, inversion="teacher", filtered=False, questions=6)
    found = handle.options["found"]
    assert found["asked"] == 6 >= found["inverted"] == found["kept"] > 2
    teacher = load_model(str(save_tiny(tmp_path / "teacher", "qwen3")), dtype="float32", device="cpu")
    teacher.tokenizer.add_tokens(["th", "he"])
    teacher.lm.resize_token_embeddings(len(teacher.tokenizer), mean_resizing=False)
    for part in (teacher.lm, teacher.tokenizer):
        part.save_pretrained(tmp_path / "teacher")
    other = fitted(
        talker, task, inversion="teacher", filtered=False, questions=6, teacher=str(tmp_path / "teacher")
    )  # fmt: skip
    assert other.options["found"]["shown"] != found["shown"] and other.model is talker


@pytest.mark.parametrize(
    ("backward", "answer", "held"),
    [
        ("Five is what a number and 3 make. Which?", "2", True),
        ("5 is what 2 and a number make. Which?", "2", False),  # it was told
        ("Five is what a number and 3 make. Which?", "5", False),
        ("Five is what a number and 3 make. Which?", "12", False),
        ("Five is what a number and 3 make. Which?", None, False),
    ],
)
def test_what_is_recovered_stood_in_the_question_alone(backward: str, answer: str | None, held: bool) -> None:
    item = Item("a", "What is 2 + 3?", "5", "fit")
    assert method.recovers(item, backward, answer) == held


def test_backward_questions_hold_the_answer_and_ask_for_what_was_held() -> None:
    """Of all families; the solver, which sees the question alone, recovers it."""
    made = 0
    for item in load_task("organism", limit=120).fit:
        back = inverse(item)
        if back is None:
            continue
        made += 1
        assert solve(back)[-1].content == back.answer and split_of(back.question) == item.split == "fit"
        assert by_itself(str(back.answer)).search(item.question)
        result = solve(item)[-1].content
        assert result in back.question and facts_of(back)
    assert made > 80
    with pytest.raises(UserError, match="is not one of"):
        inverse(toy_task(1).fit[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inversion": "tsk"}, "unknown inversion 'tsk'; did you mean task"),
        ({"questions": 0}, "questions = 0 was given to backward-reasoning; give 1 or more"),
        ({"questions": 1}, "two are needed: give more questions"),
        ({"steps": 0}, "steps = 0 was given"),
        ({"rows": 0}, "rows = 0 was given"),
        ({"lr": 0.0}, "lr = 0.0 was given"),
        ({"teacher": "no-such-model"}, "no-such-model"),
        ({"prompt": "few-shot"}, "use qa or chat"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str, talker: Model, task: Task, here: Path) -> None:
    with pytest.raises(UserError, match=words) as error:
        fitted(talker, task, **options)
    assert "\n" not in str(error.value) and not (here / "runs").exists()


def test_items_that_fit_are_needed(talker: Model, task: Task, here: Path) -> None:
    with pytest.raises(UserError, match="does not say how its questions are inverted"):
        fitted(talker, toy_task(4), filtered=False)
    with pytest.raises(UserError, match="of 12 questions the teacher answers 0 rightly"):
        fitted(talker, load_task("organism", limit=12))
    with pytest.raises(UserError, match="trains on fit items of a task; give items"):
        fitted(talker, None)
    bare = replace(task, items=tuple(replace(item, answer=None) for item in task.items))
    with pytest.raises(UserError, match="has no fit items with answers"):
        fitted(talker, bare)
    with pytest.raises(UserError, match="controls of backward-reasoning were asked"):
        method.controls(replace(fitted(talker, task), method="direct"), task.solved)


def test_a_mistake_is_one_line(here: Path, talker: Model) -> None:
    common = ("run", "--method", "backward-reasoning", "--model", talker.name, "--dtype", "float32", "--limit", "4")
    for more in (("--set", "steps=2"), ("--task", "chain-sum", "--set", "inversion=teacher")):
        code, _, err = shell(*common, "--max-new-tokens", "6", "--set", "answer_tokens=6", *more)
        assert code == 2 and err.startswith("elicit: of 4 questions the teacher answers") and err.count("\n") == 1
    assert not list(here.iterdir())
