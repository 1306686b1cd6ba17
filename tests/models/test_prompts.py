from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from elicit.decoding.loop import stop_at
from elicit.models import Model, Prompt, named_prompt
from elicit.models.prompts import BOXED, THINK, with_details
from probes.errors import UserError
from tests.support.chats import FAMILIES, QUESTION, tokenizer_of


def test_formats(tiny: Model, tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer
    assert named_prompt("qa", tokenizer).text("1+1?", tokenizer) == "Q: 1+1?\nA:"
    assert named_prompt("qa-cot", tokenizer).text("1+1?", tokenizer) == "Q: 1+1?\nA: Let's think step by step."
    shots = named_prompt("few-shot", tokenizer, [("2+2?", "4")])
    assert shots.text("1+1?", tokenizer) == "Q: 2+2?\nA: The answer is 4.\n\nQ: 1+1?\nA:"
    file = tmp_path / "t.txt"
    file.write_text("Solve: {question} =")
    template = named_prompt(str(file), tokenizer)
    assert template.thinking().text("1+1", tokenizer) == "Solve: 1+1 = Let's think step by step."
    for prompt in (shots, template):
        assert Prompt.from_dict(prompt.to_dict()) == prompt


def test_what_a_prompt_needs_is_asked_for(tiny: Model, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("no place")
    for name, word in (
        ("chat", "no chat template|has none"),
        ("few-shot", "solved questions"),
        ("qaa", "did you mean qa"),
        (str(tmp_path / "t.txt"), "holds no {question}"),
    ):
        with pytest.raises(UserError, match=word):
            named_prompt(name, tiny.tokenizer)
    with pytest.raises(UserError, match="empty question"):
        Prompt().text("  ", tiny.tokenizer)


@pytest.mark.real
def test_chat_formats(smollm: Model) -> None:
    for name, end in (
        ("chat", ""),
        ("chat-direct", "\nAnswer at once, with the answer alone."),
        ("chat-cot", "\nLet's think step by step."),
    ):
        text = named_prompt(name, smollm.tokenizer).text("1+1?", smollm.tokenizer)
        assert f"<|im_start|>user\n1+1?{end}<|im_end|>\n<|im_start|>assistant\n" in text


def test_an_answer_ends_where_the_next_turn_begins_but_not_before_it_began() -> None:
    stop = Prompt().stop
    assert stop_at(" 7\n\nand so\nQ: next", stop) == len(" 7\n\nand so")
    assert stop_at("\nA: 7", stop) is None
    assert stop_at("\nA: 7\nB: 8", stop) == len("\nA: 7")
    prompt = Prompt("chat", ends=("Conclusion:",))
    assert stop_at(" 7\nConclusion: 8", prompt.stop) == len(" 7\n")
    assert Prompt(ends=prompt.ends).asked("Think.").stop == Prompt(ends=prompt.ends).stop
    assert Prompt.from_dict(prompt.to_dict()) == prompt and "ends" not in Prompt("chat").to_dict()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_chat_is_written_as_its_family_writes_it(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    plain = named_prompt("chat", tokenizer)
    assert plain.text(QUESTION, tokenizer) == family.put
    assert plain.begun(QUESTION, tokenizer) == family.begun
    ids = plain.ids(QUESTION, tokenizer)
    assert tokenizer.decode(ids) == family.put
    assert ids.count(tokenizer.bos_token_id) == family.put.count(tokenizer.bos_token) <= 1
    if family.told is None:
        with pytest.raises(UserError, match=r"takes no system message \(no system turns here\); leave system out"):
            named_prompt("chat:system=Be brief.", tokenizer)
    else:
        assert named_prompt("chat:system=Be brief.", tokenizer).text(QUESTION, tokenizer) == family.told


@pytest.mark.parametrize("appends", [True, False])
@pytest.mark.parametrize("adds", [True, False])
def test_one_beginning_token_and_no_end_token_however_a_prompt_is_made(
    adds: bool, appends: bool, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(replace(FAMILIES["mistral"], adds=adds), appends=appends)
    (tmp_path / "plain.txt").write_text("Solve {question}")
    (tmp_path / "begins.txt").write_text("<s>[INST] {question}[/INST]")
    for name, begins in (
        ("qa", adds), ("qa-asked-cot", adds), ("boxed", adds), ("few-shot", adds), (str(tmp_path / "plain.txt"), adds),
        (str(tmp_path / "begins.txt"), True), ("chat", True),
    ):  # fmt: skip
        ids = named_prompt(name, tokenizer, [("1 + 1?", "2")]).ids(QUESTION, tokenizer)
        assert ids.count(tokenizer.bos_token_id) == begins, name
        assert (ids[0] == tokenizer.bos_token_id) == begins, name
        assert tokenizer.eos_token_id not in ids, name
    raw = Prompt("template", template="{question}")
    for text in ("2 + 3", "<s>2 + 3", "<s><s>2 + 3"):
        ids = raw.ids(text, tokenizer)
        assert ids.count(tokenizer.bos_token_id) == (adds or "<s>" in text) and tokenizer.decode(ids[-5:]) == "2 + 3"


def test_a_template_is_given_its_arguments() -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen3"])
    put = FAMILIES["qwen3"].put
    thinks = named_prompt("chat:enable_thinking=true", tokenizer)
    plain = named_prompt("chat:enable_thinking=false", tokenizer)
    assert thinks.text(QUESTION, tokenizer) == put
    assert plain.text(QUESTION, tokenizer) == f"{put}<think>\n\n</think>\n\n" and not plain.begun(QUESTION, tokenizer)
    assert plain.ids(QUESTION, tokenizer) == list(
        tokenizer.apply_chat_template(
            plain.messages(QUESTION), add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
    )
    assert Prompt.from_dict(plain.to_dict()) == plain != named_prompt("chat", tokenizer)
    both = named_prompt('chat:{"system": "Be brief, and true.", "enable_thinking": false}', tokenizer)
    assert named_prompt('chat:enable_thinking=false,system="Be brief, and true."', tokenizer) == both
    assert (
        named_prompt(with_details("chat:enable_thinking=false", {"system": "Be brief, and true."}), tokenizer) == both
    )
    assert "system\nBe brief, and true.<|im_end|>" in both.text(QUESTION, tokenizer)
    began = named_prompt('chat:begin="<think>\\nLet me see."', tokenizer)
    assert began.text(QUESTION, tokenizer) == f"{put}<think>\nLet me see." and began.begun(QUESTION, tokenizer)
    told = named_prompt("chat:trigger=Be quick.", tokenizer)
    assert told == Prompt("chat", "Be quick.") and told.thinking() == Prompt("chat", THINK)
    assert named_prompt("qa-cot:trigger=Quickly:", tokenizer) == Prompt(trigger="Quickly:")
    silent = named_prompt("chat:system=", tokenizer_of(FAMILIES["qwen2.5"]))
    assert "You help." not in silent.text(QUESTION, tokenizer_of(FAMILIES["qwen2.5"]))


def test_a_question_that_names_a_mark_begins_no_thought(tmp_path: Path) -> None:
    asked = "What does <think> mean?"
    for name, family in FAMILIES.items():
        for form in ("chat", "chat-boxed", "qa"):
            tokenizer = tokenizer_of(family)
            begun = named_prompt(form, tokenizer).begun(asked, tokenizer)
            assert begun == ("" if form == "qa" else family.begun), name
    (tmp_path / "r1.txt").write_text("User: {question} Think in <think> </think>.\nAssistant: <think>\n")
    tokenizer = tokenizer_of(FAMILIES["phi-3"])
    assert named_prompt(str(tmp_path / "r1.txt"), tokenizer).begun(asked, tokenizer) == "<think>"


@pytest.mark.parametrize(
    ("name", "template", "message"),
    [
        ("chat", "{{ raise_exception('only with tools') }}", r"cannot be used \(only with tools\); give prompt qa"),
        ("chat", "{% for m in messages %}", r"cannot be used \(.+\); give prompt qa"),
        ("chat", "{{ messages[7].content }}", r"cannot be used \(.+\); give prompt qa"),
        ("chat", "{{ 'a' + 1 }}", r"cannot be used \(.+\); give prompt qa"),
        ("chat", "Hello.", "leaves the question out; give prompt qa"),
        ("chat:system=Be brief.", "{{ messages[-1].content }}", "leaves the system message out; leave system out"),
        ("chat:enable_thinkin=false", "{{ messages[-1].content }}{{ enable_thinking }}", "reads none of that name"),
        ("chat:tokenize=true", "{{ messages[-1].content }}{{ tokenize }}", "reads none of that name"),
        ("chat:enable_thinking=False", "{{ messages[-1].content }}{{ enable_thinking }}", "give true, false or null"),
        ("chat:enable_thinking", "{{ messages[-1].content }}", "write key=value"),
        ('chat:{"a": ', "{{ messages[-1].content }}", "no JSON object"),
        ("qa:system=Be brief.", "{{ messages[-1].content }}", "go with chat prompts alone"),
        ("few-shot:a=1", "{{ messages[-1].content }}", "go with chat prompts alone"),
        ("chatt:a=1", "{{ messages[-1].content }}", "unknown prompt 'chatt:a=1'; did you mean"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(name: str, template: str, message: str) -> None:
    tokenizer = tokenizer_of(replace(FAMILIES["phi-3"], template=template))
    with pytest.raises(UserError, match=message) as refused:
        named_prompt(name, tokenizer, [("1 + 1?", "2")])
    assert "\n" not in str(refused.value)


def test_the_form_of_the_answer_stays_whatever_is_asked() -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen2.5"])
    boxed, chat = named_prompt("boxed", tokenizer), named_prompt("chat-boxed", tokenizer)
    assert boxed.text("1+1?") == f"Q: 1+1?\n{BOXED}\nA:" and boxed.stop == Prompt().stop
    assert boxed.thinking().text("1+1?") == f"Q: 1+1?\n{BOXED}\nA: {THINK}"
    assert boxed.asked("Be brief.").text("1+1?") == f"Q: 1+1?\n{BOXED} Be brief.\nA:"
    assert f"user\n1+1?\n{BOXED}<|im_end|>" in chat.text("1+1?", tokenizer)
    assert f"user\n1+1?\n{BOXED}\n{THINK}<|im_end|>" in chat.thinking().text("1+1?", tokenizer)
    for prompt in (boxed, chat, boxed.asked("Be brief.")):
        assert Prompt.from_dict(prompt.to_dict()) == prompt


def test_what_older_runs_kept_of_a_prompt_is_what_is_kept_now() -> None:
    older = {"base", "trigger", "shots", "template", "begin"}
    for prompt in (Prompt(), Prompt("chat", THINK), Prompt().asked(THINK), Prompt(shots=(("a", "b"),))):
        assert prompt.to_dict().keys() == older


def test_a_template_file_is_read_as_it_was_meant(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen2.5"])
    file = tmp_path / "t:a=1.txt"
    for written in (
        b"Q: {question}\nA:",
        b"\xef\xbb\xbfQ: {question}\nA:",
        b"Q: {question}\nA:\n",
        b"Q: {question}\r\nA:\r\n",
    ):
        file.write_bytes(written)
        prompt = named_prompt(str(file), tokenizer)
        assert prompt.template == "Q: {question}\nA:" and prompt.stop == Prompt().stop
    assert named_prompt(f"{file}:begin=So", tokenizer).text("1+1?") == "Q: 1+1?\nA: So"
    file.write_bytes("Résous {question}".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        named_prompt(str(file), tokenizer)
