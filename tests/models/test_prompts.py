from __future__ import annotations

from pathlib import Path

import pytest

from elicit.decoding.loop import stop_at
from elicit.models import Model, Prompt, named_prompt
from probes.errors import UserError


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
