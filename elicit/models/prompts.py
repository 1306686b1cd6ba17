"""Prompt formats: how a question becomes token ids, and which strings end the answer.

`qa` is the bare prompt of arXiv 2402.10200 (`Q: …\\nA:`); a trigger sentence turns it, or a chat message, into
the zero-shot chain-of-thought prompt of arXiv 2205.11916; `boxed` asks in the words of Qwen2.5-Math (arXiv 2409.12122).

However a prompt is made, it begins with one beginning token at most, and never ends in an end token that the tokenizer
appends (`probes.encoding`). A chat template decides about its own special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from elicit.models.chat import written
from elicit.models.model import Model
from elicit.tasks.base import Items
from elicit.tasks.given import value_of
from elicit.tasks.statements import open_thought
from probes.description import Base, Part, stated
from probes.encoding import encoded
from probes.errors import UserError, unknown
from probes.files import file_named

THINK = "Let's think step by step."
DIRECT_ANSWER = "Answer at once, with the answer alone."
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
FORMATS: dict[str, str] = {
    "qa": "Q: <question> A:",
    "qa-cot": f"Q: <question> A: {THINK}",
    "qa-direct": f"Q: <question> A: {DIRECT_ANSWER}",
    "qa-asked-cot": f"Q: <question> {THINK} A:",
    "qa-asked-direct": f"Q: <question> {DIRECT_ANSWER} A:",
    "boxed": f"Q: <question> {BOXED} A:",
    "chat": "the chat template, the question as the user's message",
    "chat-direct": f"chat, and: {DIRECT_ANSWER}",
    "chat-cot": f"chat, and: {THINK}",
    "chat-boxed": f"chat, and: {BOXED}",
    "few-shot": "qa after solved questions of the fit split",
    "FILE": "a text file with {question} where the question goes",
}
SYSTEM, BEGIN, TRIGGER, TEMPLATE = "system", "begin", "trigger", "template"
THOUGHT_TOKENS = "thought_tokens"
_LATER = {
    "ends": (),
    "form": "",
    "system": None,
    "arguments": "",
    THOUGHT_TOKENS: 0,
}  # fields that prompts of older runs lack


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
        form: how the answer is to be written, a line that stays with the question whatever the trigger.
        system: the system message of `chat`; None: none, so that a template may put one of its own.
        arguments: of the chat template, a JSON object as text, like `{"enable_thinking": false}`.
        thought_tokens: after so many tokens of thought the mark that ends it is written; 0: never
            (`elicit.decoding.thought`).
    """

    base: str = "qa"
    trigger: str = ""
    shots: tuple[tuple[str, str], ...] = ()
    template: str = ""
    begin: str = ""
    ends: tuple[str, ...] = ()
    form: str = ""
    system: str | None = None
    arguments: str = ""
    thought_tokens: int = 0

    def __post_init__(self) -> None:
        if self.thought_tokens < 0:
            raise UserError(f"thought_tokens = {self.thought_tokens} was given; give 1 or more, or 0 for no limit")
        if self.base != "chat" and (self.system is not None or self.arguments):
            raise UserError(
                f"a system message or template arguments were given with a {self.base} prompt; they go with chat "
                "prompts alone"
            )

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
            return replace(self, base="template", trigger="", template=f"Q: {{question}} {instruction}\nA:")
        if self.base == "template":
            return replace(self, template=self.template.replace("{question}", f"{{question}} {instruction}"))
        raise UserError("a few-shot prompt was given where an instruction goes with the question; use qa or chat")

    def text(self, question: str, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
        """The prompt; only `chat` needs the tokenizer, for its template.

        Raises:
            UserError: an empty question; of `chat` as `elicit.models.chat.written`.
        """
        if not question.strip():
            raise UserError("an empty question was given; give a question with text")
        if self.base == "chat":
            assert tokenizer is not None, "a chat prompt is written by the tokenizer's template"
            return written(tokenizer, self.messages(question), json.loads(self.arguments or "{}")) + self.begin
        put = self._formed(question)
        trigger = "".join(f" {words}" for words in (self.trigger, self.begin) if words)
        if self.base == "template":
            return self.template.replace("{question}", put) + trigger
        shots = "".join(f"Q: {asked}\nA: The answer is {answer}.\n\n" for asked, answer in self.shots)
        return f"{shots}Q: {put}\nA:{trigger}"

    def _formed(self, question: str) -> str:
        return f"{question}\n{self.form}" if self.form else question

    def messages(self, question: str) -> list[dict[str, str]]:
        """The turns of `chat`, the user's last."""
        turns = [] if self.system is None else [{"role": "system", "content": self.system}]
        for asked, answer in self.shots:
            turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        put = self._formed(question)
        return [*turns, {"role": "user", "content": f"{put}\n{self.trigger}" if self.trigger else put}]

    def ids(self, question: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids; a chat template brings its own special tokens, the other formats get the tokenizer's."""
        return encoded(tokenizer, self.text(question, tokenizer), special=self.base != "chat")

    def begun(self, question: str, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
        """The mark of the thought that an answer begins within, where the prompt ends in one (`<think>`), else ""."""
        asked = self.messages(question)[-1]["content"] if self.base == "chat" else question
        return open_thought(self.text(question, tokenizer).rpartition(asked.strip())[2])

    def description(self, base: Base) -> list[Part]:
        """The texts that it puts beside the question, each as the base codes it; formats are at hand."""
        shown = (text for shot in self.shots for text in shot)
        words = self.form.removeprefix(BOXED).strip()
        texts = (self.trigger, self.begin, self.template, self.system or "", self.arguments, words, *shown)
        parts = [Part(f"{text!r}", base.text(text)) for text in texts if text]
        return [*parts, *(stated(self, THOUGHT_TOKENS) if self.thought_tokens else [])]

    def to_dict(self) -> dict[str, Any]:
        """As JSON; without later fields where they hold nothing, so that what older runs kept is the same."""
        return {name: value for name, value in asdict(self).items() if name not in _LATER or value != _LATER[name]}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Prompt:
        shots = tuple((asked, answer) for asked, answer in data.get("shots", ()))
        return Prompt(**{**data, "shots": shots, "ends": tuple(data.get("ends", ()))})


def named_prompt(name: str, tokenizer: PreTrainedTokenizerBase, solved: Sequence[tuple[str, str]] = ()) -> Prompt:
    """The prompt of this name.

    Args:
        name: one of `FORMATS`, or the path of a template file; `key=value` may follow a colon, joined by commas, or a
            JSON object: `system` (the system message), `begin` (words that the answer is made to begin with), `trigger`
            (a sentence in place of the format's own), `thought_tokens` (a budget of them), and the chat template's own
            arguments:
            `chat:enable_thinking=false`, `chat:{"system": "Be brief, please."}`.
        tokenizer: chat formats need its chat template.
        solved: (question, answer) pairs for `few-shot`; the first four are used.

    Raises:
        UserError: an unknown name, a template file without `{question}`, a tokenizer without chat template or with one
            that cannot be used so, no solved questions.
    """
    base, given = _parsed(name)
    if base.startswith("chat") and base in FORMATS and not tokenizer.chat_template:
        raise UserError(f"prompt {base!r} needs a chat template and this tokenizer has none; use qa or few-shot")
    if base == "few-shot" and not solved:
        raise UserError("prompt 'few-shot' needs solved questions; give fit items that have answers")
    known = {
        "qa": Prompt(),
        "qa-cot": Prompt(trigger=THINK),
        "qa-direct": Prompt(trigger=DIRECT_ANSWER),
        "qa-asked-cot": Prompt().asked(THINK),
        "qa-asked-direct": Prompt().asked(DIRECT_ANSWER),
        "boxed": Prompt(form=BOXED),
        "chat": Prompt("chat"),
        "chat-direct": Prompt("chat", DIRECT_ANSWER),
        "chat-cot": Prompt("chat", THINK),
        "chat-boxed": Prompt("chat", form=BOXED),
        "few-shot": Prompt(shots=tuple(solved[:4])),
    }
    prompt = replace(known[base] if base in known else _from_file(base), **_details(given))
    if prompt.base == "chat":
        prompt.text("What is 1 + 1?", tokenizer)  # a template that cannot be used is told of at once
    return prompt


def with_details(name: str, details: Mapping[str, Any]) -> str:
    """A prompt's name with more details: `system`, `begin`, `trigger`, arguments of its chat template by their names.

    Raises:
        UserError: details of the name that cannot be read.
    """
    if not details:
        return name
    base, given = _parsed(name)
    return f"{base}:{json.dumps({**given, **details}, sort_keys=True)}"


def _parsed(name: str) -> tuple[str, dict[str, Any]]:
    """A prompt's name, and the details that follow it."""
    if name in FORMATS or file_named(name):
        return name, {}
    cuts = [n for n, character in enumerate(name) if character == ":"]
    cut = next((n for n in cuts if name[:n] in FORMATS or file_named(name[:n])), None)
    if cut is None:
        return name, {}
    base, rest = name[:cut], name[cut + 1 :].strip()
    if rest.startswith("{"):
        given = value_of(rest)
        if not isinstance(given, dict):
            raise UserError(f"prompt details {rest!r} were given; they are no JSON object: mend them")
        return base, given
    found: dict[str, Any] = {}
    while rest:
        key, equals, rest = rest.partition("=")
        if not equals or not key.strip():
            raise UserError(f"prompt detail {key!r} was given; write key=value, joined by commas, or a JSON object")
        found[key.strip()], rest = _value(rest)
    return base, found


def _value(text: str) -> tuple[Any, str]:
    """The value that a text begins with, up to a comma, and what follows; in quotes and brackets it may hold commas."""
    if text[:1] in ('"', "[", "{"):
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"prompt detail {text[:40]!r} was given, which is no JSON ({error}); mend it") from error
        rest = text[end:].lstrip()
        if rest and not rest.startswith(","):
            raise UserError(f"prompt detail {text[:40]!r} was given; put a comma before {rest[:20]!r}")
        return value, rest[1:]
    said, _, rest = text.partition(",")
    return value_of(said), rest


def _details(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a prompt."""
    rest = dict(given)
    out: dict[str, Any] = {}
    for name in (SYSTEM, BEGIN, TRIGGER):
        if name in rest:
            value = rest.pop(name)
            out[name] = value if isinstance(value, str) else json.dumps(value)
    if THOUGHT_TOKENS in rest:
        out[THOUGHT_TOKENS] = limit = rest.pop(THOUGHT_TOKENS)
        if type(limit) is not int:
            raise UserError(f"thought_tokens = {limit!r} was given; give a whole number of tokens, 0 for no limit")
    return out | ({"arguments": json.dumps(rest, sort_keys=True)} if rest else {})


def _from_file(name: str) -> Prompt:
    """A template file's prompt. A mark of its encoding and a line end at its end, as editors write them, are none of
    the prompt."""
    file = file_named(name)
    if file is None:
        raise unknown("prompt", name, FORMATS, hint="(or the path of a template file)")
    try:
        template = file.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"template file {name!r} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    if "{question}" not in template:
        raise UserError(f"template file {name!r} holds no {{question}}; put it where the question goes")
    return Prompt("template", template=template)


def prompt_for(model: Model, name: str, items: Items | None) -> Prompt:
    """The named prompt; `few-shot` takes its solved questions from the items given to `fit`."""
    solved = [(i.question, i.answer) for i in items or () if i.answer is not None]
    prompt = named_prompt(name, model.tokenizer, solved)
    until = None if items is None else items.task.until
    return prompt if until is None else _around(prompt, name, until)


def _around(prompt: Prompt, name: str, until: tuple[str, ...]) -> Prompt:
    """A prompt for questions that are whole prompts, which end at these strings: its last words, or the chat around.

    Raises:
        UserError: a prompt that is more than that.
    """
    if prompt.shots or prompt.form or prompt.base == "template":
        raise UserError(
            f"prompt {name!r} was given and the task's questions are whole prompts; give qa, qa-cot or chat"
        )
    ends = (*prompt.ends, *until)
    return (
        replace(prompt, ends=ends)
        if prompt.base == "chat"
        else replace(prompt, base="template", template="{question}", ends=ends)
    )


def check_put(prompt: Prompt, items: Items) -> None:
    """Refuse to put whole prompts into another.

    Raises:
        UserError: a prompt that was made without the items' task.
    """
    if items.task.until is not None and prompt.base == "qa":
        raise UserError(
            f"the questions of {items.task.name!r} are whole prompts and would be put into another; "
            "fit the method with items of the task: fit(model, task.solved)"
        )
