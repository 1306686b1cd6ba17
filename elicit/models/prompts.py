"""Prompt formats: how a question becomes token ids, and which strings end the answer.

`qa` is the bare prompt of arXiv 2402.10200 (`Q: …\\nA:`); a trigger sentence turns it, or a chat message, into
the zero-shot chain-of-thought prompt of arXiv 2205.11916.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from elicit.models.model import Model
from elicit.tasks.base import Items
from probes.errors import UserError, unknown

THINK = "Let's think step by step."
DIRECT_ANSWER = "Answer at once, with the answer alone."
FORMATS: dict[str, str] = {
    "qa": "Q: <question> A:",
    "qa-cot": f"Q: <question> A: {THINK}",
    "qa-direct": f"Q: <question> A: {DIRECT_ANSWER}",
    "qa-asked-cot": f"Q: <question> {THINK} A:",
    "qa-asked-direct": f"Q: <question> {DIRECT_ANSWER} A:",
    "chat": "the chat template, the question as the user's message",
    "chat-direct": f"chat, and: {DIRECT_ANSWER}",
    "chat-cot": f"chat, and: {THINK}",
    "few-shot": "qa after solved questions of the fit split",
    "FILE": "a text file with {question} where the question goes",
}


@dataclass(frozen=True)
class Prompt:
    """A format with what fills it.

    Args:
        base: `qa`, `chat` or `template`.
        trigger: a sentence that begins the answer (`qa`, `template`) or ends the user's message (`chat`).
        shots: solved questions that go before (question, answer).
        template: text with `{question}`, for `template`.
        begin: words that the answer is made to begin with.
        ends: strings at which an answer ends beside those of the format.
    """

    base: str = "qa"
    trigger: str = ""
    shots: tuple[tuple[str, str], ...] = ()
    template: str = ""
    begin: str = ""
    ends: tuple[str, ...] = ()

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings at which an answer ends: the next turn that a completion model would invent, and `ends`.

        Not a blank line: thoughts have paragraphs.
        """
        dialogue = self.base == "qa" or self.template.startswith("Q:")
        return (*(("\nQ:", "\nA:", "\nB:") if dialogue else ()), *self.ends)

    def thinking(self) -> Prompt:
        """The same prompt with the trigger for thoughts."""
        return replace(self, trigger=THINK)

    def asked(self, instruction: str) -> Prompt:
        """The same prompt with an instruction that goes with the question, so that it ends as it did before."""
        if self.base == "chat":
            return replace(self, trigger=instruction)
        if self.base == "qa" and not self.shots:
            return Prompt("template", template=f"Q: {{question}} {instruction}\nA:", ends=self.ends)
        if self.base == "template":
            return replace(self, template=self.template.replace("{question}", f"{{question}} {instruction}"))
        raise UserError("a few-shot prompt was given where an instruction goes with the question; use qa or chat")

    def text(self, question: str, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
        """The prompt; only `chat` needs the tokenizer, for its template."""
        if not question.strip():
            raise UserError("an empty question was given; give a question with text")
        if self.base == "chat":
            assert tokenizer is not None, "a chat prompt is written by the tokenizer's template"
            messages = self.messages(question)
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)) + self.begin
        trigger = "".join(f" {words}" for words in (self.trigger, self.begin) if words)
        if self.base == "template":
            return self.template.replace("{question}", question) + trigger
        shots = "".join(f"Q: {asked}\nA: The answer is {answer}.\n\n" for asked, answer in self.shots)
        return f"{shots}Q: {question}\nA:{trigger}"

    def messages(self, question: str) -> list[dict[str, str]]:
        """The turns of `chat`, the user's last."""
        turns = [
            message
            for asked, answer in self.shots
            for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": answer})
        ]
        content = question if not self.trigger else f"{question}\n{self.trigger}"
        return [*turns, {"role": "user", "content": content}]

    def ids(self, question: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids; a chat template brings its own special tokens, the other formats get the tokenizer's."""
        special = self.base != "chat"
        return list(tokenizer(self.text(question, tokenizer), add_special_tokens=special)["input_ids"])  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """As JSON; without `ends` where there are none, so that what older runs kept is the same."""
        return {name: value for name, value in asdict(self).items() if name != "ends" or value}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Prompt:
        shots = tuple((asked, answer) for asked, answer in data.get("shots", ()))
        return Prompt(**{**data, "shots": shots, "ends": tuple(data.get("ends", ()))})


def named_prompt(name: str, tokenizer: PreTrainedTokenizerBase, solved: Sequence[tuple[str, str]] = ()) -> Prompt:
    """The prompt of this name.

    Args:
        name: one of `FORMATS`, or the path of a template file.
        tokenizer: chat formats need its chat template.
        solved: (question, answer) pairs for `few-shot`; the first four are used.

    Raises:
        UserError: an unknown name, a template without `{question}`, a tokenizer without chat template, no
            solved questions.
    """
    if name.startswith("chat") and name in FORMATS and not tokenizer.chat_template:
        raise UserError(f"prompt {name!r} needs a chat template and this tokenizer has none; use qa or few-shot")
    if name == "few-shot" and not solved:
        raise UserError("prompt 'few-shot' needs solved questions; give fit items that have answers")
    known = {
        "qa": Prompt(),
        "qa-cot": Prompt(trigger=THINK),
        "qa-direct": Prompt(trigger=DIRECT_ANSWER),
        "qa-asked-cot": Prompt().asked(THINK),
        "qa-asked-direct": Prompt().asked(DIRECT_ANSWER),
        "chat": Prompt("chat"),
        "chat-direct": Prompt("chat", DIRECT_ANSWER),
        "chat-cot": Prompt("chat", THINK),
        "few-shot": Prompt(shots=tuple(solved[:4])),
    }
    if name in known:
        return known[name]
    if not Path(name).is_file():
        raise unknown("prompt", name, FORMATS, hint="(or the path of a template file)")
    template = Path(name).read_text(encoding="utf-8")
    if "{question}" not in template:
        raise UserError(f"template file {name!r} holds no {{question}}; put it where the question goes")
    return Prompt("template", template=template)


def prompt_for(model: Model, name: str, items: Items | None) -> Prompt:
    """The named prompt; `few-shot` takes its solved questions from the items given to `fit`."""
    solved = [(i.question, i.answer) for i in items or () if i.answer is not None]
    return named_prompt(name, model.tokenizer, solved)
