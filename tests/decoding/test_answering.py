"""Where the answer is looked for: within what was said, as a whole, and not in a thought that the prompt began."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import elicit
from elicit.decoding import answering
from elicit.decoding.answering import Response, found_again, found_in
from elicit.decoding.engine import Batch, decode_batch
from elicit.decoding.loop import StopRule, stop_at
from elicit.decoding.trace import Trace
from elicit.evaluation.regrade import regrade
from elicit.evaluation.run import Store
from elicit.models import Model, load_model
from elicit.tasks import Task, grading, load_task
from probes.errors import UserError
from tests.evaluation.test_identity import task_file

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% else %}<think>{% endif %}"
)


@pytest.mark.parametrize(
    ("text", "answer", "place"),
    [
        ("3 + 12 = 15.", "5", None), ("3 + 12 = 15, so 5.", "5", 16), ("5 and 5.5", "5", 0), ("5/6", "5", None),
        ("5, then 1,500", "5", 0), ("10:05", "05", None), ("x = -5", "5", None), ("8 - 5", "5", 4), ("8-5", "5", 2),
        ("x = -5", "-5", 4), ("8-5", "-5", None), ("x5", "5", None), ("It is a category.", "cat", None),
        ("A cat!", "cat", 2), (r"so \frac{1}{2}", r"\frac{1}{2}", 3), (r"\frac{1}{2}x", r"\frac{1}{2}", 0),
        ("5.", "5", 0), ("12", None, None),
    ],
)  # fmt: skip
def test_an_answer_that_was_asked_for_is_found_where_it_stands_by_itself(
    text: str, answer: str | None, place: int | None
) -> None:
    found = found_again(Response(text, list(range(1, len(text) + 1)), None), answer).found
    assert (None if found is None else found.start) == place
    assert found is None or text[found.start : found.end] == found.text == answer


def test_an_answer_keeps_its_place_where_the_prompt_began_the_thought() -> None:
    text = "so 4\n</think>\nThe answer is 12"
    found = found_in(text, "number", "<think>")
    assert found is not None and text[found.start : found.end] == found.text == "12"
    assert found == found_in(text, "number")
    assert found_in("so 4, and 5", "number", "<think>") is None  # a thought that does not end has no answer


@pytest.fixture
def thinks(tiny_folder: Path) -> Model:
    model = load_model(str(tiny_folder), dtype="float32")
    model.tokenizer.chat_template = TEMPLATE
    return model


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return load_task(str(task_file(tmp_path)))


def test_a_trace_begins_in_the_thought_that_its_prompt_began(
    thinks: Model, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = []
    for name, begun in (
        ("chat", "<think>"),
        ("chat:enable_thinking=false", ""),
        ("qa", ""),
        ("chat:system=Hm", "<think>"),
    ):
        handle = elicit.methods.direct.fit(thinks, max_new_tokens=4, prompt=name)
        run = elicit.evaluate(handle, task.test, against=["cot-prompt"])
        traces = [t for arm in run.traces.values() for some in arm.values() for t in some]
        assert {t.begun for t in traces} == {begun} and not any("<think>" in t.text for t in traces)
        kept = [t for some in Store.read(run.folder).traces().values() for ts in some.values() for t in ts]
        assert {t.begun for t in kept} == {begun} and all(Trace.from_dict(t.to_dict()) == t for t in kept)
        assert ("begun" in kept[0].to_dict()) == bool(begun)
        thinking = run.store.config["arms"]["cot-prompt"]["prompt"]
        assert thinking["base"] == ("qa" if name == "qa" else "chat")  # the baseline is asked as the method is
        assert thinking.get("system") == ("Hm" if "system" in name else None)
        folders.append(run.folder)
        assert not begun or all(t.answer is None for t in traces)
        with monkeypatch.context() as patched:
            patched.setattr(grading, "VERSION", "another")
            anew = regrade(run, tmp_path / f"anew {len(folders)}")
        again = [t for arm in anew.traces.values() for some in arm.values() for t in some]
        assert again == traces  # read anew as they were begun
        assert elicit.evaluate(handle, task.test, against=["cot-prompt"]).folder == run.folder
    assert len(set(folders)) == len(folders)  # all of a prompt is in a run's identity


def test_a_template_that_refuses_a_question_is_one_line_and_leaves_nothing(
    thinks: Model, task: Task, tmp_path: Path
) -> None:
    model = replace(thinks)
    model.tokenizer.chat_template = (
        "{% if 'is 2' in messages[-1].content %}{{ raise_exception('no twos') }}{% endif %}{{ messages[-1].content }}"
    )
    handle = elicit.methods.direct.fit(model, max_new_tokens=2, prompt="chat:begin=So")
    with pytest.raises(UserError, match=r"cannot be used \(no twos\)"):
        elicit.evaluate(handle, task.test, against=(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_answer_ends_after_something_was_said_or_anywhere(tiny: Model) -> None:
    assert stop_at("\n\nSo 4", ["\n\n"]) is None
    assert stop_at("\n\nSo 4", ["\n\n"], anywhere=True) == 0
    assert stop_at("4\n\n5", ["\n\n"]) == stop_at("4\n\n5", ["\n\n"], anywhere=True) == 1
    handle, prompt = elicit.methods.fit("direct", tiny, max_new_tokens=6), tiny.tokenizer("Q: 1 + 1?")["input_ids"]
    ((whole,),) = handle.respond([prompt], ["whole"], ["a"], stop=[])
    begins = whole.said.text[0]
    assert begins.strip()
    for anywhere in (True, False):
        rule = StopRule(tiny.eos_ids, (begins,), tiny.tokenizer, anywhere)
        ((found,),) = handle.respond([prompt], ["whole"], ["a"], stop=rule)
        assert found.said.text == ("" if anywhere else whole.said.text[: stop_at(whole.said.text, [begins])])
        assert (len(found.generation.tokens) == 1) is anywhere


def test_an_answer_is_asked_for_where_its_text_ends(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    handle, prompt = elicit.methods.fit("direct", tiny, max_new_tokens=6), tiny.tokenizer("Q: 1 + 1?")["input_ids"]
    ((whole,),) = handle.respond([prompt], ["whole"], ["a"], stop=[])
    text = whole.said.text
    stop = next(text[n : n + 2] for n in range(2, 5) if stop_at(text, [text[n : n + 2]]) == n)
    put: list[list[int]] = []

    def spied(model: Model, batch: Batch, *more: Any) -> Any:
        put.extend(map(list, batch.prompts))
        return decode_batch(model, batch, *more)

    monkeypatch.setattr(answering, "decode_batch", spied)
    asking, asked = replace(handle, span="prompted"), tiny.tokenizer(answering.ANSWER_PROMPT)["input_ids"]
    for strings in ([stop], []):
        put.clear()
        ((found,),) = asking.respond([prompt], ["whole"], ["a"], stop=strings)
        kept = tiny.tokenizer(found.said.text)["input_ids"]
        assert put == [prompt, [*prompt, *kept, *asked]]
        assert (len(found.generation.tokens) == len(kept) + 2) is bool(strings)
