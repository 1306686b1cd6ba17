"""A handle on given texts: its adapter and interventions act while it scores, reads or continues from what it is given.

Steps of interventions are counted from the question's last token, as while decoding, so that a chain of
thought that is given to a handle is steered as one of its own. Hybrid decoding steers by what two models say while it
decodes; it has no forward over a given text, and `cannot` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch

from elicit.analysis.base import in_turn
from elicit.decoding.answering import ask, found_in
from elicit.decoding.decoders import Decoder, Greedy
from elicit.decoding.engine import Batch, decode_batch
from elicit.decoding.loop import StopRule, stop_at
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.evaluation.run.arms import Arm
from elicit.models.model import Model
from elicit.tasks.base import Item, Items
from probes.batching import by_length
from probes.errors import UserError
from probes.finite import errors_of
from probes.offsets import decoded
from steering.adapters import applied
from steering.hooks import attached

BATCH_TOKENS = 4096
BeforeForward = Callable[[Sequence[int]], None]
NO_FORWARD = "does not apply: it decodes by more than a forward over a given text"


def cannot(handle: Elicited | None) -> str:
    """Why no text can be given to this arm to continue, or ""."""
    if handle is None:
        return "does not apply: the run keeps the tensors of its method alone; run this arm as a method"
    return "" if handle.has_forward else NO_FORWARD


class Thinking(NamedTuple):
    """An arm whose chains of thought can be given back to it, the questions that it thought about, and what it said."""

    handle: Elicited
    items: Items
    traces: list[Trace]


def thinking(
    arm: Arm, model: Model, asked: Sequence[Item], *, least: int = 1, answered: bool = False
) -> Thinking | str:
    """The thoughts of an arm, or why it has none to analyse.

    Args:
        arm, model: whose, and the model of its run.
        asked: the questions.
        least: how many of them must have a thought.
        answered: whether a thought without an answer counts for none.
    """
    handle = arm.handle(model)
    if why := cannot(handle):
        return why.removeprefix("does not apply: ")
    assert handle is not None
    kept = with_cot(arm, asked, answered=answered)
    if len(kept) < least:
        return too_few(kept, asked)
    items = Items(arm.run.items.task, tuple(item for item, _ in kept))
    return Thinking(handle, items, [trace for _, trace in kept])


def with_cot(arm: Arm, asked: Sequence[Item], *, answered: bool = False) -> list[tuple[Item, Trace]]:
    """The questions that an arm thought about, with what it said; see `thinking`."""
    traces = arm.chosen([item.id for item in asked])
    return [
        (item, trace)
        for item, trace in zip(asked, traces, strict=True)
        if has_cot(trace) and not (answered and trace.answer is None)
    ]


def has_cot(trace: Trace) -> bool:
    """Whether something is said before the answer; the blank that many tokenizers put before a number is no thought."""
    return bool("".join(trace.pieces[: len(trace.chain_of_thought)]).strip())


def too_few(kept: Sequence[object], asked: Sequence[Item]) -> str:
    """Why an arm with so few thoughts is left out."""
    return f"{len(kept)} of {len(asked)} answers have a thought"


def each_thinking(
    what: str,
    arms: Sequence[Arm],
    model: Model,
    asked: Sequence[Item],
    progress: Callable[[str, int, int], None] | None,
    *,
    least: int = 1,
    answered: bool = False,
) -> Iterator[tuple[str, Thinking | str]]:
    """Each arm in its turn: its name, and its thoughts or why the analysis does not apply to it.

    Args:
        what: what `progress` shows that they are for.
        arms, model: of runs, and the model of all of them.
        asked, least, answered: as for `thinking`.
        progress: called before each arm.

    Raises:
        UserError: after the last arm, if none had thoughts.
    """
    applies = False
    for arm in in_turn(what, arms, progress):
        found = thinking(arm, model, asked, least=least, answered=answered)
        applies |= isinstance(found, Thinking)
        yield arm.name, found
    if not applies:
        raise without_cot(arms)


def without_cot(arms: Sequence[Arm]) -> UserError:
    """The refusal where no arm has any."""
    return UserError(
        f"no arm has thoughts before its answers ({', '.join(arm.name for arm in arms)}); "
        "give a run of a method that thinks, like cot-prompt"
    )


@contextmanager
def applied_handle(handle: Elicited) -> Iterator[BeforeForward]:
    """The handle's adapter and interventions on its model; a function to call with the next prompts' lengths."""
    plan = attached(handle.model.lm, [handle.interventions]) if handle.interventions else nullcontext()
    with errors_of(handle.method), applied(handle.model.lm, handle.adapter), plan as session:

        def before_forward(lengths: Sequence[int]) -> None:
            if session is not None:
                session.clock.given = torch.tensor(list(lengths))

        yield before_forward


def early_answers(
    handle: Elicited, items: Items, thoughts: Sequence[Sequence[int]], *, batch_tokens: int = BATCH_TOKENS
) -> list[str | None]:
    """What the handle answers when it is asked for its answer right after each of these thoughts, greedily."""
    prompts = [handle.prompt_ids(item) for item in items]
    paths = [[*prompt, *thought] for prompt, thought in zip(prompts, thoughts, strict=True)]
    kinds = [items.task.kind_of(item) for item in items]
    out: list[str | None] = [None] * len(paths)
    with errors_of(handle.method):
        for batch in by_length(paths, batch_tokens):
            said = ask(
                handle.model, [paths[i] for i in batch], [kinds[i] for i in batch],
                arm=(handle.method, handle.interventions), lengths=[len(prompts[i]) for i in batch],
                adapter=handle.adapter,
            )  # fmt: skip
            for i, (answer, _) in zip(batch, said, strict=True):
                out[i] = answer
    return out


def continued(
    handle: Elicited,
    items: Items,
    begun: Sequence[Sequence[int]],
    decoder: Decoder | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[str | None]:
    """What the handle answers when it continues freely from each of these beginnings; see `continuations`."""
    decoder = decoder or Greedy(handle.decoder.max_new_tokens)
    return [answer for (answer,) in continuations(handle, items, begun, decoder, batch_tokens=batch_tokens)]


def continuations(
    handle: Elicited,
    items: Items,
    begun: Sequence[Sequence[int]],
    decoder: Decoder,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[str | None]]:
    """All that the handle answers when it continues freely from each of these beginnings.

    Args:
        handle: whose answers.
        items: the question of each beginning.
        begun: tokens that the answer begins with; those of a thought count in its budget.
        decoder: of as many answers as it has branches, each to its limit.
    """
    tokenizer, stop = handle.model.tokenizer, handle.prompt.stop
    prompts = [handle.prompt_ids(item) for item in items]
    paths = [[*prompt, *some] for prompt, some in zip(prompts, begun, strict=True)]
    rule = StopRule(handle.model.eos_ids, stop, tokenizer, thought_tokens=handle.prompt.thought_tokens)
    marks = handle.begun(items)
    out: list[list[str | None]] = [[] for _ in paths]
    with errors_of(handle.method):
        for batch in by_length(paths, batch_tokens // decoder.branches):
            made = decode_batch(
                handle.model,
                Batch(
                    [paths[i] for i in batch], [items[i].id for i in batch], decoder, rule,
                    arms=[(handle.method, handle.interventions)], lengths=[len(prompts[i]) for i in batch],
                    adapter=handle.adapter,
                ),
            )  # fmt: skip
            for i, branches in zip(batch, made, strict=True):
                for generation in branches:
                    text = decoded(tokenizer, [*begun[i], *generation.tokens.tolist()])
                    answer = found_in(text[: stop_at(text, stop)], items.task.kind_of(items[i]), marks[i])
                    out[i].append(answer.text if answer else None)
    return out


def same(items: Items, one: Sequence[str | None], other: Sequence[str | None]) -> list[bool]:
    """Whether two answers to each question mean the same; no answer is the same as no answer alone."""
    out = []
    for a, b in zip(one, other, strict=True):
        out.append(a == b if a is None or b is None else items.task.grader.groups([a, b])[1] == 0)
    return out
