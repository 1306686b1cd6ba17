"""From prompts to graded answers: what is said, the answer in it, where that lies, and its verdict.

`respond` is where all answers come from: evaluations, rollouts, critiques and whoever asks a model through this suite.
Grading stands on top of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from elicit.decoding.decoders import Greedy, RngStream
from elicit.decoding.engine import UNSTEERED, Batch, decode_batch
from elicit.decoding.loop import NOTES, Generation, OnStep, StopRule
from elicit.decoding.trace import Trace, filter_path, place, rounded, text_of
from elicit.models.model import Model
from elicit.tasks.answers import Answer, Kind, find_answer, token_span
from elicit.tasks.base import Item, Task
from probes.offsets import decoded
from steering.adapters import Adapter
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
    """

    text: str
    ends: list[int]
    found: Answer | None

    @property
    def answer(self) -> str | None:
        return self.found.text if self.found else None

    @property
    def span(self) -> tuple[int, int] | None:
        """The answer's tokens, first and one past the last."""
        return token_span(self.ends, self.found) if self.found else None


def read(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: tuple[str, ...], kind: Kind) -> Response:
    """The text of token ids from any sampler, and the answer in it."""
    text, ends = text_of(tokenizer, ids, stop)
    return Response(text, ends, find_answer(text, kind))


@dataclass(frozen=True)
class Draft:
    """An answer that nobody has graded.

    Args:
        said: what it says.
        generation: its tokens, with their statistics.
        choice: its number among the answers to its prompt, those of other calls included.
        prompt_tokens: of its prompt.
        asked: tokens that it took to ask for the answer.
    """

    said: Response
    generation: Generation
    choice: int
    prompt_tokens: int
    asked: int = 0


def respond(model: Model, batch: Batch, kinds: Sequence[Kind], on_step: OnStep | None = None) -> list[list[Draft]]:
    """Answer the prompts of a batch by the model's engine.

    Args:
        kinds: of the answer that is looked for, one a prompt.

    Returns:
        For each prompt its branches.

    Raises:
        UserError, NotFiniteError: as `elicit.decoding.engine.decode_batch`.
    """
    own = getattr(batch.decoder, "first_sample", 0)
    out = []
    made = decode_batch(model, batch, on_step)
    for prompt, rng_stream, kind, branches in zip(batch.prompts, batch.rng_streams, kinds, made, strict=True):
        first = rng_stream.choice if isinstance(rng_stream, RngStream) else own
        out.append(
            [
                Draft(read(model.tokenizer, g.tokens.tolist(), batch.stop.strings, kind), g, first + n, len(prompt))
                for n, g in enumerate(branches)
            ]
        )
    return out


def asked_again(
    model: Model,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[Draft]],
    kinds: Sequence[Kind],
    adapter: Adapter | None = None,
) -> list[list[Draft]]:
    """The drafts with the answers that are given when each is asked for its own, located in the text."""
    paths = [[*p, *one.generation.tokens.tolist()] for p, some in zip(prompts, drafts, strict=True) for one in some]
    flat = [kind for kind, some in zip(kinds, drafts, strict=True) for _ in some]
    answers = iter(ask(model, paths, flat, adapter=adapter))
    return [
        [
            replace(one, said=found_again(one.said, answer), asked=spent)
            for one, (answer, spent) in zip(some, answers, strict=False)
        ]
        for some in drafts
    ]


def ask(
    model: Model,
    paths: Sequence[Sequence[int]],
    kinds: Sequence[Kind],
    *,
    arm: tuple[str, Plan] = UNSTEERED[0],
    lengths: Sequence[int] | None = None,
    adapter: Adapter | None = None,
) -> list[tuple[str | None, int]]:
    """Ask every path for its answer: what is said after "So the answer is", and the tokens that it took.

    Args:
        arm: a name and the plan that all paths follow.
        lengths: of the question in each path, from which the plan's steps are counted.
        adapter: on the model meanwhile.
    """
    tokenizer = model.tokenizer
    question = list(tokenizer(ANSWER_PROMPT, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
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
    """The response with an answer that it gave when asked for it, where that last stands in the text: 5 does not stand
    in 15, nor in 0.5."""
    if answer is None:
        return replace(response, found=None)
    before = r"(?<!\w)(?<!\d[.,])" if answer[0].isalnum() else ""
    after = r"(?!\w)(?![.,]\d)" if answer[-1].isalnum() else ""
    places = list(re.finditer(before + re.escape(answer) + after, response.text))
    return replace(response, found=Answer(answer, *places[-1].span(), "asked") if places else None)


def graded(draft: Draft, task: Task, item: Item, *, filters: bool = False, steered: bool = False) -> Trace:
    """The trace of one branch.

    Args:
        draft: what was answered.
        filters: whether the paper's filters take it out of the selection; a path without an answer always is.
        steered: whether interventions may have moved it.
    """
    response, generation = draft.said, draft.generation
    span, delta = place(generation, response.ends, response.found)
    dropped = filter_path(response.text, generation.finish, response.answer)
    grade = task.grader.grade(item, response.answer)
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
        **notes,
    )
