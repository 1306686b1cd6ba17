"""Check hooks on a Hugging Face model, whoever wrote them.

A steered and an unsteered pass over the same tokens differ in the residual stream; the first point at which they do is
the hook point, and there a position differs exactly if it was written to. So each question is answered by what reached
the model, and not by what the hooks say of themselves. Further hook points are found by giving each block of the
steered pass its input once more without hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel

from probes.clock import Frame
from probes.encoding import encoded
from probes.errors import UserError
from probes.sites import Site, check_site, depth
from steering.check import judge
from steering.check.install import Apply, fingerprint, installed, left_behind, own_strength, takes_strength
from steering.check.passes import Batch, Pass, batch, continuation, end_tokens, run, written, written_when_cached
from steering.check.report import FAILS, UNTOLD, Answer, SteeringReport
from steering.interventions import When

T = TypeVar("T")
PROMPTS = (
    "The library opens at nine and closes at six on weekdays.",
    "Water boils",
    "She packed two shirts, a map and a lamp for the road.",
    "On the table stood a bowl of pears",
)
STEPS = 6
SIDES = ("left", "right")
QUESTIONS = (
    "positions, whole forward", "positions, cached decoding", "left-padded batch", "right-padded batch",
    "padded batch, cached", "cached = without a cache", "scale", "amount", "precision", "size",
)  # fmt: skip


@dataclass(frozen=True)
class Ground:
    """What everything is compared on.

    Args:
        lm, apply, strength: the model, what installs the hooks, and the strength of one time.
        prompts: token ids.
        forced: the tokens that follow each prompt; one more than is read.
        expected: of each prompt, where it is to be steered: its positions and then the cached steps.
        everywhere: whether that is all of them.
        pad: a token for padding.
    """

    lm: PreTrainedModel
    apply: Apply
    strength: float
    prompts: list[list[int]]
    forced: list[list[int]]
    expected: list[Bool[Tensor, " _"]]
    everywhere: bool
    pad: int

    def texts(self) -> list[list[int]]:
        """What a whole forward is given: a text it can take for one, so a prompt alone where its end matters."""
        if not self.everywhere:
            return self.prompts
        return [prompt + more[:-1] for prompt, more in zip(self.prompts, self.forced, strict=True)]

    def singles(self, *, cached: bool) -> list[Batch]:
        if cached:
            return [batch([p], self.pad, forced=[f]) for p, f in zip(self.prompts, self.forced, strict=True)]
        return [batch([text], self.pad) for text in self.texts()]

    def steered(self, given: Batch, strength: float | None = None, *, calls: bool = False) -> Pass:
        with installed(self.apply, self.lm, self.strength if strength is None else strength):
            return run(self.lm, given, calls=calls)


def check_steering(
    model: Any,
    tokenizer: Any,
    apply: Apply,
    *,
    expect: str | When = "everywhere",
    prompts: Sequence[str] | Sequence[Sequence[int]] = PROMPTS,
    adds: Mapping[Site, Tensor] | None = None,
    strength: float | None = None,
    steps: int = STEPS,
) -> SteeringReport:
    """Whether hooks steer where they should: each position, batched and padded, prefill and cached steps.

    Args:
        model: a causal LM of `transformers` (or an `elicit` model, which holds one), in evaluation mode.
        tokenizer: of the prompts; None where they are token ids.
        apply: `apply(model)` or `apply(model, strength=…)` installs the hooks and gives what removes them: a context
            manager, a function without arguments, or an object with `remove()`.
        expect: where it is to act: `everywhere`, `prompt`, `last-prompt-token`, `every-step`, `steps:8`, or a `When`.
        prompts: at least two, of different lengths.
        adds: what a strength of 1 adds [d_model], by site, where that is known.
        strength: of one time; unless given, the default of `apply`'s own parameter, or 1.
        steps: cached steps that are looked at.

    Raises:
        UserError: prompts of one length, a model without blocks or with a norm over several streams, a function that
            gives nothing to remove its hooks with, hooks that fail on a plain forward of one row.
    """
    lm: PreTrainedModel = getattr(model, "lm", model)
    ground = _ground(lm, tokenizer, apply, expect, prompts, strength, steps)
    before, single, single_cached = fingerprint(lm), ground.singles(cached=False), ground.singles(cached=True)
    plain = [run(lm, one, calls=True) for one in single]
    plain_cached = [run(lm, one, calls=True) for one in single_cached]
    whole = [_first(ground, one) for one in single]
    left = left_behind(before, fingerprint(lm))
    again = [run(lm, one) for one in single]

    found = judge.find(plain, whole, _local(lm, plain, whole))
    answers = [judge.moved(plain, whole, found)]
    clean = judge.cleaned(plain, again, left)
    if found is None or not judge.same(plain, again):
        why = "the stream is not moved" if found is None else "hooks that were to be gone still act"
        answers += [Answer(name, UNTOLD, why) for name in QUESTIONS]
        return SteeringReport(_about(ground), (*answers, clean))
    cached = _attempt(lambda: [ground.steered(one, calls=True) for one in single_cached])
    lengths = [len(one) for one in ground.prompts]
    answers.append(judge.prompt_positions(ground.expected, plain, found))
    local = _local_when_cached(lm, plain_cached, cached)
    answers.append(
        judge.cached_positions(
            ground.expected, lengths, cached, plain_cached, found, local, everywhere=ground.everywhere
        )
    )
    for name, given, alone, plain_alone in _batches(ground, (whole, plain), (cached, plain_cached)):
        steered = _attempt(lambda given=given: ground.steered(given))  # type: ignore[misc]
        answers.append(judge.batched(name, given, steered, run(lm, given), alone, plain_alone, found))
    answers.append(_cached_as_whole(ground, whole, plain, cached, plain_cached, found))
    answers.append(_scale(ground, whole, plain, found))
    answers.append(judge.amount(whole, plain, ground.strength, adds, found))
    answers.append(judge.precision(whole, plain, found))
    answers.append(judge.size(whole, plain, cached, plain_cached, found, everywhere=ground.everywhere))
    return SteeringReport(_about(ground), (*answers, clean))


def _local(lm: PreTrainedModel, plain: Sequence[Pass], whole: Sequence[Pass]) -> list[list[Tensor]] | None:
    """What was written at each point; None where a block given the same once more does not hand over the same."""
    if _moves(written(lm, plain[0], plain[0]), plain[0]):
        return None
    return [written(lm, p, s) for p, s in zip(plain, whole, strict=True)]


def _local_when_cached(
    lm: PreTrainedModel, plain: Sequence[Pass], steered: Sequence[Pass] | str
) -> list[list[Tensor]] | None:
    """The same of decodings from a cache; None also where they failed."""
    if isinstance(steered, str) or _moves(written_when_cached(lm, plain[0]), plain[0]):
        return None
    return [written_when_cached(lm, one) for one in steered]


def _moves(deltas: Sequence[Tensor], one: Pass) -> bool:
    """Whether anything of a pass was written to."""
    return any(bool(judge.moves(d, h).any()) for d, h in zip(deltas, one.stream, strict=True))


def _about(ground: Ground) -> str:
    lengths = ", ".join(str(len(one)) for one in ground.prompts)
    return (
        f"{type(ground.lm).__name__}, {str(ground.lm.dtype).removeprefix('torch.')}, on {ground.lm.device}: prompts of "
        f"{lengths} tokens, {len(ground.forced[0]) - 1} cached steps, strength {ground.strength:g}"
    )


def _ground(
    lm: PreTrainedModel,
    tokenizer: Any,
    apply: Apply,
    expect: str | When,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    strength: float | None,
    steps: int,
) -> Ground:
    when = When.parse(expect) if isinstance(expect, str) else expect
    if steps < 1:
        raise UserError(f"steps = {steps} was given; give at least 1")
    if when.gate is not None:
        raise UserError("a rule with a gate was given; where it acts depends on activations: give the rule without it")
    ids = [encoded(tokenizer, one) if isinstance(one, str) else list(one) for one in prompts]
    if len({len(one) for one in ids}) < 2 or not all(ids):
        raise UserError(
            f"prompts of {[len(one) for one in ids]} tokens were given; give at least two, of different lengths, so "
            "that one is padded"
        )
    if lm.training:
        raise UserError("the model is in training mode, where dropout moves activations; call model.eval() first")
    check_site(lm, Site(depth(lm) - 1))
    given = 1.0 if not takes_strength(apply) else own_strength(apply) if strength is None else strength
    if strength is not None and not takes_strength(apply):
        raise UserError(f"strength {strength:g} was given and the function takes none; give it a parameter `strength`")
    pad = next(iter(end_tokens(lm)), 0)
    forced = [continuation(lm, one, steps + 1, pad) for one in ids]
    expected = [_expected(when, len(one), steps) for one in ids]
    return Ground(lm, apply, given, ids, forced, expected, when.kind == "everywhere", pad)


def _expected(when: When, prompt: int, steps: int) -> Bool[Tensor, " pos"]:
    frame = Frame(torch.arange(prompt + steps)[None] - prompt + 1, torch.tensor([prompt]), None, None, None)
    weight = when.weight(frame)
    assert isinstance(weight, Tensor)
    return weight[0] != 0


def _first(ground: Ground, given: Batch) -> Pass:
    """A whole forward of one row, with what was written to the stream beside it; a failure of the hooks is told."""
    try:
        return ground.steered(given, calls=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the steered forward of one row failed ({judge.told(error)}); hooks that cannot run cannot be checked"
        ) from error


def _attempt(work: Callable[[], T]) -> T | str:
    """What it gives, or what it raised, in words."""
    try:
        return work()
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  whatever somebody's hooks raise is a finding, and is told
        return judge.told(error)


def _batches(
    ground: Ground, whole: tuple[list[Pass], list[Pass]], cached: tuple[list[Pass] | str, list[Pass]]
) -> Iterator[tuple[str, Batch, list[Pass], list[Pass]]]:
    """The padded batches, each with the single passes, steered and not, that it is held to."""
    for side in SIDES:
        yield f"{side}-padded batch", batch(ground.texts(), ground.pad, side), *whole
    if not isinstance(cached[0], str):
        given = batch(ground.prompts, ground.pad, "left", ground.forced)
        yield "padded batch, cached", given, cached[0], cached[1]


def _cached_as_whole(
    ground: Ground,
    whole: list[Pass],
    plain: list[Pass],
    cached: list[Pass] | str,
    plain_cached: list[Pass],
    found: judge.Found,
) -> Answer:
    name = "cached = without a cache"
    if not ground.everywhere:
        return Answer(name, UNTOLD, "a forward without a cache does not know where the prompt ends")
    if isinstance(cached, str):
        return Answer(name, FAILS, f"cached decoding raised {cached}", "fails when cached")
    lengths = [len(one) for one in ground.prompts]
    return judge.cached_as_whole(lengths, whole, plain, cached, plain_cached, found)


def _scale(ground: Ground, whole: list[Pass], plain: list[Pass], found: judge.Found) -> Answer:
    if not takes_strength(ground.apply):
        return Answer("scale", UNTOLD, "the function takes no `strength`; give it such a parameter")
    given = ground.singles(cached=False)
    twice = _attempt(lambda: [ground.steered(one, 2 * ground.strength) for one in given])
    if isinstance(twice, str):
        return Answer("scale", FAILS, f"twice the strength raised {twice}", "fails at another strength")
    return judge.scale(whole, twice, plain, found)
