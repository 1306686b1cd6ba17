"""From prompts to graded answers: what is said, the answer in it, where that lies, and its verdict.

`respond` is where all answers come from: evaluations, rollouts, critiques and whoever asks a model through this suite.
Grading stands on top of it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from elicit.decoding.continuing import continuing_ids
from elicit.decoding.decoders import Greedy, RngStream
from elicit.decoding.engine import UNSTEERED, Batch, decode_batch
from elicit.decoding.loop import NOTES, Generation, OnStep, StopRule
from elicit.decoding.trace import Trace, filter_path, other_deltas, place, rounded, rounded_one, text_of
from elicit.models.model import Model
from elicit.tasks.answers import Answer, Kind, find_answer, token_span
from elicit.tasks.base import Item, Task
from probes.offsets import decoded
from steering.adapters import Tuned
from steering.interventions import Plan

ANSWER_PROMPT = "\nSo the answer is"
ANSWER_TOKENS = 24


@dataclass(frozen=True)
class Response:
    """What was said in answer to a question.

    Args:
        text: up to a stop string.
        ends: for each token the character at which it ends.
        found: the answer in the text, if there is one.
        begun: the mark of the thought that the text begins within, where its prompt ended in one.
        start: the character from which on the answer is looked for: behind the last result of a tool.
    """

    text: str
    ends: list[int]
    found: Answer | None
    begun: str = ""
    start: int = 0

    @property
    def answer(self) -> str | None:
        return self.found.text if self.found else None

    @property
    def span(self) -> tuple[int, int] | None:
        """The answer's tokens, first and one past the last."""
        return token_span(self.ends, self.found) if self.found else None


def read(
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    stop: tuple[str, ...],
    kind: Kind,
    begun: str = "",
    anywhere: bool = False,
    begins: int = 0,
) -> Response:
    """The text of token ids from any sampler, and the answer in it.

    Args:
        stop, anywhere: as a `StopRule` has them.
        begun: the mark of a thought, where the prompt ended in one (`Prompt.begun`): what follows is read as a thought
            until that ends.
        begins: the number of the first token in which the answer is looked for.
    """
    text, ends = text_of(tokenizer, ids, stop, anywhere, begins)
    start = ends[begins - 1] if begins else 0
    return Response(text, ends, found_in(text, kind, begun, start), begun, start)


def found_in(text: str, kind: Kind, begun: str = "", start: int = 0) -> Answer | None:
    """The answer in a text from a character on; the text may begin within a thought."""
    mark = "" if start else begun
    found = find_answer(mark + text[start:], kind)
    if found is None or found.start < len(mark):
        return None
    return found._replace(start=found.start - len(mark) + start, end=found.end - len(mark) + start)


@dataclass(frozen=True)
class Draft:
    """An answer that nobody has graded.

    Args:
        said: what it says.
        generation: its tokens, with their statistics.
        choice: its number among the answers to its prompt, those of other calls included.
        prompt_tokens: of its prompt.
        forwards: passes that it took; the prompt's own belongs to its first answer.
        asked: tokens that it took to ask for the answer.
    """

    said: Response
    generation: Generation
    choice: int
    prompt_tokens: int
    forwards: int
    asked: int = 0


def respond(
    model: Model,
    batch: Batch,
    kinds: Sequence[Kind],
    on_step: OnStep | None = None,
    begun: Sequence[str] | None = None,
) -> list[list[Draft]]:
    """Answer the prompts of a batch by the model's engine.

    Args:
        kinds: of the answer that is looked for, one a prompt.
        begun: for each prompt the mark of the thought that it ends in, or "", as `read` takes it.

    Returns:
        For each prompt its branches.

    Raises:
        UserError, NotFiniteError: as `elicit.decoding.engine.decode_batch`.
    """
    own = getattr(batch.decoder, "first_sample", 0)
    out = []
    made = decode_batch(model, batch, on_step)
    begun = [""] * len(made) if begun is None else begun
    for prompt, rng_stream, kind, mark, branches in zip(
        batch.prompts, batch.rng_streams, kinds, begun, made, strict=True
    ):
        first = rng_stream.choice if isinstance(rng_stream, RngStream) else own
        rule = batch.stop
        said = [
            read(model.tokenizer, g.tokens.tolist(), rule.strings, kind, mark, rule.anywhere, g.begins)
            for g in branches
        ]
        out.append(
            [
                Draft(one, g, first + n, len(prompt), g.spent + g.beside - (n > 0))
                for n, (one, g) in enumerate(zip(said, branches, strict=True))
            ]
        )
    return out


def asked_again(
    model: Model,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[Draft]],
    kinds: Sequence[Kind],
    adapter: Tuned | None = None,
) -> list[list[Draft]]:
    """The drafts with the answers that are given when each is asked for its own, located in the text.

    It is asked after the last token that ends within the text: what stopped the answer has no part in it.
    """
    paths = [[*p, *_within(one)] for p, some in zip(prompts, drafts, strict=True) for one in some]
    flat = [kind for kind, some in zip(kinds, drafts, strict=True) for _ in some]
    answers = iter(ask(model, paths, flat, adapter=adapter))
    return [
        [
            replace(one, said=found_again(one.said, answer), asked=spent)
            for one, (answer, spent) in zip(some, answers, strict=False)
        ]
        for some in drafts
    ]


def _within(draft: Draft) -> list[int]:
    """The tokens that end within the text: those of a stop string lie beyond it."""
    tokens: list[int] = draft.generation.tokens.tolist()
    return tokens[: bisect_right(draft.said.ends, len(draft.said.text))]


def ask(
    model: Model,
    paths: Sequence[Sequence[int]],
    kinds: Sequence[Kind],
    *,
    arm: tuple[str, Plan] = UNSTEERED[0],
    lengths: Sequence[int] | None = None,
    adapter: Tuned | None = None,
) -> list[tuple[str | None, int]]:
    """Ask every path for its answer: what is said after "So the answer is", and the tokens that it took.

    Args:
        arm: a name and the plan that all paths follow.
        lengths: of the question in each path, from which the plan's steps are counted.
        adapter: on the model meanwhile.
    """
    tokenizer = model.tokenizer
    question = continuing_ids(tokenizer, ANSWER_PROMPT)
    batch = Batch(
        prompts=[[*path, *question] for path in paths],
        rng_streams=[""] * len(paths),
        decoder=Greedy(ANSWER_TOKENS),
        stop=StopRule(model.eos_ids, ("\n",), tokenizer),
        arms=[arm],
        lengths=lengths,
        adapter=adapter,
    )
    out: list[tuple[str | None, int]] = []
    for (generation,), kind in zip(decode_batch(model, batch), kinds, strict=True):
        reply = decoded(tokenizer, generation.tokens.tolist()).split("\n")[0].split(". ")[0]
        said = find_answer(reply if kind in ("code", "whole") else f"answer is {reply}", kind)
        out.append((said.text if said else None, generation.spent))
    return out


def found_again(response: Response, answer: str | None) -> Response:
    """The response with an answer that it gave when asked for it, where that stands last in the text.

    Only as a whole: 5 does not stand in 15, 1.5 or 5/6, nor "cat" in "category".
    """
    places = [] if answer is None else list(by_itself(answer).finditer(response.text, response.start))
    found = Answer(places[-1].group(), *places[-1].span(), "asked") if places else None
    return replace(response, found=found)


def by_itself(part: str) -> re.Pattern[str]:
    """A part of a text that is not a part of a longer number or word there."""
    before = after = ""
    if part[:1].isdigit():
        before = r"(?<![\w.])(?<!\d[,/:^])(?<!(?<![\w)\]}])[-\u2212])"
    elif part[:1] in ("-", "\u2212"):
        before = r"(?<![\w)\]}])"
    elif part[:1].isalpha():
        before = r"(?<!\w)"
    if part[-1:].isalnum():
        after = r"(?!\w|[.,/:^]\d)" if part[-1:].isdigit() else r"(?!\w)"
    return re.compile(before + re.escape(part) + after)


def graded(
    draft: Draft, task: Task, item: Item, *, filters: bool = False, steered: bool = False, branching: bool = False
) -> Trace:
    """The trace of one branch.

    Args:
        draft: what was answered.
        filters: whether the paper's filters take it out of the selection; a path without an answer always is.
        steered: whether interventions may have moved it.
        branching: whether its first token is one of several that were opened.
    """
    response, generation = draft.said, draft.generation
    span, delta = place(generation, response.ends, response.found)
    others = other_deltas(generation.top1, generation.top2, delta, generation.logprob, span if branching else None)
    own = response.text[response.start :]
    dropped = filter_path(own, generation.finish, response.answer)
    grade = task.judge(item, response.answer, own)
    notes = {} if generation.notes is None else dict(zip(NOTES, generation.notes.T.tolist(), strict=True))
    return Trace(
        item=item.id,
        index=draft.choice,
        prompt_tokens=draft.prompt_tokens,
        tokens=generation.tokens.tolist(),
        ends=response.ends,
        text=response.text,
        top1=rounded(generation.top1),
        top2=rounded(generation.top2),
        entropy=rounded(generation.entropy),
        logprob=rounded(generation.logprob),
        finish=generation.finish,
        spent=generation.spent + draft.asked,
        answer=response.answer,
        span=span,
        delta=delta,
        dropped=dropped if filters or response.answer is None else "",
        score=grade.score,
        moved=rounded(generation.moved) if steered else [],
        prompt_moved=generation.prompt_moved,
        unjudged=grade.unjudged,
        found_by=response.found.found_by if response.found else "",
        begun=response.begun,
        forwards=draft.forwards + draft.asked,
        delta_greedy=others[0],
        delta_zero=others[1],
        moves=generation.moves or None,
        accepted=generation.accepted if generation.moves else None,
        calls=generation.calls,
        unknown_calls=generation.unknown_calls,
        refused_calls=generation.refused_calls,
        begins=generation.begins or None,
        end_logprob=rounded_one(generation.end_logprob),
        **notes,
    )
