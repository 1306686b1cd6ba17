"""Tools that the model calls and that are the model itself, all questions' rows together (arXiv 2506.12115, section 3).

The model answers until it writes a call, `<tool>NAME</tool>`. Decoding stops there; the tool is a call of the same
model in a context of its own, which holds that tool's instruction, the question and, for tools that read it, the
attempt so far. What the tool says is put behind the call between `<result>` and `</result>`, and decoding goes on,
until the answer ends. The answer is looked for behind the last result: what a tool says is no answer.

Calls are data of a strict grammar: a name between the two marks. Nothing that a model writes is run. A name that no
tool has, or a mark without its beginning, is answered by a line and counts as a call; a call beyond the limit is
answered by a line once, and from there on the marks are text. Tools call no tools: calls in what they say are counted
and left out.

Departures:
- the paper's models write Python calls with arguments, and also run Python; here a call is a name, and the tool gets
  the question and the attempt as they are. There is no tool that runs code.
- a schedule, for models that write no calls: tools are called in its order, one that reads the attempt when the answer
  has ended, the others at once; the answer goes on behind "Examine: … Answer:" in place of marks.
- the paper gives no limits; here calls of a question, tokens of a call and tokens of the answer have one each.

Each round decodes the answers that are open as one batch, and then the calls that were made as another. Random numbers
belong to seed, question and the number of the piece or of the call. Of tokens that were put in the statistics are those
of certain ones (probability 1, entropy 0), since nobody chose them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from elicit.decoding.continuing import continuing_ids
from elicit.decoding.decoders.greedy import Greedy
from elicit.decoding.decoders.sampling import RngStream, Sampling
from elicit.decoding.decoders.tools import Tools
from elicit.decoding.engine import Batch
from elicit.decoding.loop import Generation, OnStep, StopRule, decode
from elicit.decoding.ready import check_ready
from elicit.decoding.record import stop_at
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.statements import without_thoughts
from probes.errors import UserError
from probes.finite import NotFiniteError
from probes.offsets import decoded, token_ends

BEGIN, END = "<tool>", "</tool>"
CALL = re.compile(rf"{BEGIN}\s*([^<>\s]+)\s*{END}$")
MARKS = re.compile(r"</?(?:tool|result)>")
NO_MORE = "No calls are left. Go on without them, and give the answer."


def result(text: str) -> str:
    """What is put behind a call."""
    return f"\n<result>\n{text}\n</result>\n"


def scheduled(name: str, text: str) -> str:
    """What is put in where the schedule has a call, for a model that was told of no marks."""
    return f"\n{name.capitalize()}: {text}\nAnswer:"


def no_such(names: Sequence[str]) -> str:
    """The answer to a call of a tool that is not there."""
    return f"There is no such tool. Write the name of one between {BEGIN} and {END}: {', '.join(names)}."


def call_text(question: str, instruction: str, attempt: str | None, *, system: bool) -> str:
    """What a tool is asked, as a question; with `system` its instruction goes elsewhere."""
    parts = [question, *([] if attempt is None else [f"Attempt: {attempt.strip() or '(none yet)'}"])]
    return "\n".join([*parts, *([] if system else [instruction])])


def call_context(
    prompt: Prompt, question: str, instruction: str, attempt: str | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], str]:
    """The context of a tool, and the mark of the thought that it ends in.

    Its instruction is the only system message of a chat, and follows the question elsewhere; of the answer's prompt
    there are no solved questions in it, no trigger and no words on the answer's form.
    """
    chat = prompt.base == "chat"
    own = replace(prompt, trigger="", shots=(), form="", begin="", system=instruction if chat else None)
    text = call_text(question, instruction, attempt, system=chat)
    return own.ids(text, tokenizer), own.begun(text, tokenizer)


def without_special(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A text of a model without the names of special tokens, which would become such when it is put into a prompt."""
    held = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = re.compile("|".join(map(re.escape, sorted({*held, *tokenizer.all_special_tokens}, key=len, reverse=True))))
    while names.pattern and names.search(text):
        text = names.sub("", text)
    return text


def tool_said(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: StopRule, begun: str = "") -> tuple[str, int]:
    """What a tool says, without thoughts, special tokens and marks, and the calls that were in it."""
    text = decoded(tokenizer, ids)
    text = without_thoughts(begun + text[: stop_at(text, stop.strings, stop.anywhere)])
    nested = text.count(END)
    while MARKS.search(text := without_special(tokenizer, text)):
        text = MARKS.sub("", text)
    return text.strip(), nested


@torch.inference_mode()
def tool_answers(model: Model, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
    """The answer to each prompt, with the results of its calls in it.

    Raises:
        UserError: prompts without their questions, which tools are asked again; interventions or a budget of thoughts,
            which calls do not carry; no positions for the answer with all results; as `elicit.decoding.loop.decode`.
    """
    decoder = batch.decoder
    assert isinstance(decoder, Tools)
    if batch.questions is None:
        raise UserError(
            "cognitive tools put the question again and were given token ids alone; evaluate them on items "
            "(elicit run, elicit.evaluate)"
        )
    if batch.steered:
        raise UserError("cognitive tools were given interventions, which calls do not carry; leave one of them out")
    if batch.stop.thought_tokens:
        raise UserError("thought_tokens was given with cognitive tools, which end no thoughts; leave it out")
    assert batch.stop.tokenizer is not None
    check_ready(model.lm, max(map(len, batch.prompts)) + decoder.most_tokens)
    answers = [
        _Answer(decoder, batch.stop, number, list(prompt), RngStream.of(stream, decoder.seed), *asked)
        for number, (prompt, stream, asked) in enumerate(
            zip(batch.prompts, batch.rng_streams, batch.questions, strict=True)
        )
    ]
    rounds = _Rounds(model, decoder, batch.stop, on_step)
    while any(one.open for one in answers):
        for some in _alike([one for one in answers if one.open and one.due is None]):
            rounds.go_on(some)
        if due := [one for one in answers if one.due is not None]:
            rounds.call(due)
    return [[one.finished()] for one in answers]


def _alike(answers: Sequence[_Answer]) -> list[list[_Answer]]:
    """Answers that end by the same rule, which are decoded together."""
    keys = sorted({one.rule for one in answers})
    return [[one for one in answers if one.rule == key] for key in keys]


@dataclass
class _Answer:
    """An answer as far as it is written.

    `due` is the tool whose call is to be decoded next, and `begun` the mark of the thought that its context ends in;
    `begins` is the number of the first token behind the last result, `own` counts the tokens against the limit.
    """

    decoder: Tools
    stop: StopRule
    number: int
    prompt: list[int]
    stream: RngStream
    question: str
    asked: Prompt
    tokens: list[int] = field(default_factory=list)
    values: list[Float[np.ndarray, "columns tokens"]] = field(default_factory=list)
    open: bool = True
    due: str | None = None
    finish: str = "length"
    end: int | None = None
    end_logprob: float | None = None
    begun: str = ""
    begins: int = 0
    own: int = 0
    spent: int = 0
    pieces: int = 0
    calls: int = 0
    unknown: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        self.left = list(self.decoder.schedule)
        self.calling = not self.left
        self._at_once()

    @property
    def rule(self) -> tuple[bool, bool]:
        """Whether a call ends what is decoded next, and whether a stop string may at its very beginning."""
        return self.calling, self.stop.anywhere or bool(self.tokens)

    @property
    def rest(self) -> int:
        """Tokens that it may still write."""
        return self.decoder.max_new_tokens - self.own

    def _at_once(self) -> None:
        """The next tool of the schedule, if it need not wait for an attempt."""
        if self.left and self.left[0] not in self.decoder.reads:
            self.due = self.left.pop(0)

    def stream_of(self, what: str, number: int) -> RngStream:
        return self.stream._replace(sample=f"{self.stream.sample}\x00{what} {number}")

    def context(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Of the call that is due."""
        assert self.due is not None
        attempt = (
            without_special(tokenizer, decoded(tokenizer, self.tokens)) if self.due in self.decoder.reads else None
        )
        others, question = self.decoder.others, self.question
        if others:
            question = others[int(self.stream_of("other", self.calls).uniform(1)[0] * len(others))]
        instruction = dict(self.decoder.tools)[self.due]
        ids, self.begun = call_context(self.asked, question, instruction, attempt, tokenizer)
        return ids

    def take(self, made: Generation, stop: StopRule) -> None:
        """Write what was decoded, and find out how it goes on."""
        tokenizer = stop.tokenizer
        assert tokenizer is not None
        ids = made.tokens.tolist()
        self.own, self.spent, self.pieces = self.own + made.spent, self.spent + made.spent, self.pieces + 1
        self.finish, self.end, self.end_logprob = made.finish, made.end, made.end_logprob
        text = decoded(tokenizer, ids)
        cut = stop_at(text, stop.strings, stop.anywhere) if made.finish == "stop" else None
        is_call = self.calling and cut is not None and text.startswith(END, cut)
        goes_on = self.rest > 0 and (is_call or bool(self.left))
        if goes_on and cut is not None and not is_call:  # the next turn that it began is none of the attempt
            ids = ids[: sum(end <= cut for end in token_ends(tokenizer, ids, text))]
        values = np.stack([made.top1, made.top2, made.entropy, made.logprob, made.moved])
        self._write(ids, values[:, : len(ids)])
        if not goes_on:
            self.open = False
            self.finish = "length" if is_call else self.finish
        elif self.left:
            self.due = self.left.pop(0)
        else:
            assert cut is not None
            self._called(text[: cut + len(END)], tokenizer)

    def _called(self, text: str, tokenizer: PreTrainedTokenizerBase) -> None:
        """What is done about a call at the end of a text."""
        found = CALL.search(text)
        if self.calls + self.unknown >= self.decoder.calls:
            self.refused, self.calling = self.refused + 1, False
            self.put(result(NO_MORE), tokenizer)
        elif found is None or found[1] not in self.decoder.names:
            self.unknown += 1
            self.put(result(no_such(self.decoder.names)), tokenizer)
        else:
            self.due = found[1]

    def take_call(self, made: Generation, stop: StopRule) -> None:
        """Put what a tool said behind its call."""
        tokenizer, name = stop.tokenizer, self.due
        assert tokenizer is not None and name is not None
        text, nested = tool_said(tokenizer, made.tokens.tolist(), stop, self.begun)
        self.spent, self.refused, self.calls, self.due = (
            self.spent + made.spent, self.refused + nested, self.calls + 1, None,
        )  # fmt: skip
        self.put(result(text) if self.calling else scheduled(name, text), tokenizer)
        self._at_once()

    def put(self, text: str, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write a text that the model did not."""
        ids = continuing_ids(tokenizer, text)
        values = np.zeros((5, len(ids)), dtype=np.float32)
        values[0] = 1
        self._write(ids, values)
        self.begins = len(self.tokens)

    def _write(self, ids: list[int], values: Float[np.ndarray, "columns tokens"]) -> None:
        self.tokens += ids
        self.values.append(values)

    def finished(self) -> Generation:
        tokens, (top1, top2, entropy, logprob, moved) = np.array(self.tokens, np.int64), np.concatenate(self.values, 1)
        return Generation(
            tokens, top1, top2, entropy, logprob, moved, 0, self.finish, self.spent, self.end, begins=self.begins,
            calls=self.calls, unknown_calls=self.unknown, refused_calls=self.refused, end_logprob=self.end_logprob,
        )  # fmt: skip


class _Rounds:
    """What decodes pieces of answers, and calls."""

    def __init__(self, model: Model, decoder: Tools, stop: StopRule, on_step: OnStep | None) -> None:
        self.model, self.decoder, self.stop, self.on_step = model, decoder, stop, on_step
        assert stop.tokenizer is not None
        self.tokenizer = stop.tokenizer
        self.steps = 0

    def go_on(self, answers: Sequence[_Answer]) -> None:
        """Decode answers to their next call or to their end."""
        calling, anywhere = answers[0].rule
        strings = (*self.stop.strings, END) if calling else self.stop.strings
        stop = replace(self.stop, strings=strings, anywhere=anywhere)
        self._decode(
            answers, [[*one.prompt, *one.tokens] for one in answers], [one.rest for one in answers], stop,
            [one.stream_of("piece", one.pieces) for one in answers], _Answer.take,
        )  # fmt: skip

    def call(self, answers: Sequence[_Answer]) -> None:
        """Decode the calls that are due."""
        limits = [self.decoder.call_tokens] * len(answers)
        streams = [one.stream_of("call", one.calls) for one in answers]
        contexts = [one.context(self.tokenizer) for one in answers]
        self._decode(answers, contexts, limits, self.stop, streams, _Answer.take_call)

    def _decode(
        self,
        answers: Sequence[_Answer],
        prompts: Sequence[list[int]],
        limits: Sequence[int],
        stop: StopRule,
        streams: Sequence[RngStream],
        take: Callable[[_Answer, Generation, StopRule], None],
    ) -> None:
        limit, temperature = max(limits), self.decoder.temperature
        how = Sampling(1, temperature, max_new_tokens=limit) if temperature else Greedy(limit)
        first = self.steps

        def told(step: int, open_rows: int) -> None:
            self.steps = first + step
            if self.on_step is not None:
                self.on_step(self.steps, open_rows)

        try:
            made = decode(
                self.model.lm, prompts, how.policy(streams, self.model.choices), max_new_tokens=limit, stop=stop,
                on_step=told, unlisted=self.model.unlisted, budgets=[most - 1 for most in limits],
            )  # fmt: skip
        except NotFiniteError as error:
            error.row = answers[error.row].number
            raise
        for one, (generation,) in zip(answers, made, strict=True):
            take(one, generation, stop)
