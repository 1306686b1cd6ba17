"""What a task of lm-eval asks of a handle in one request, and what of it can be honoured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from elicit.decoding.decoders import Greedy, RngStream, Sampling, decoder_name
from elicit.elicited import Elicited
from elicit.integrations.lm_eval.arguments import needs_kind
from elicit.models.chat import written
from elicit.tasks.answers import Kind
from probes.errors import UserError

# In lm-eval's order, where several are given.
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
SAMPLERS = ("top_p", "top_k", "min_p")
# Values under which an option changes nothing, whatever decodes.
NEUTRAL = {
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "num_return_sequences": 1,
    "use_cache": True,
}


@dataclass(frozen=True)
class Asked:
    """What is asked of one request.

    Args:
        number: the request's.
        prompt: token ids.
        begun: the mark of the thought that the prompt ends in, or "".
        kind: of the answer.
        rng_stream: where its random numbers come from.
        handle: with the decoder that answers.
        limit: of new tokens.
        until: strings at which it ends.
    """

    number: int
    prompt: tuple[int, ...]
    begun: str
    kind: Kind
    rng_stream: RngStream
    handle: Elicited
    limit: int
    until: tuple[str, ...]

    @property
    def together(self) -> Any:
        """What requests have in common that are answered in one batch."""
        return (id(self.handle), self.limit, self.until)


def settings(handle: Elicited, given: Mapping[str, Any], seed: int) -> tuple[Elicited, int, tuple[str, ...]]:
    """The handle as a task's generation arguments have it decode, its limit, and where its answers end.

    A handle that decodes greedily samples where the task asks for it. One with a decoder of its own keeps that: the
    `do_sample: false` of most tasks is no more than what a base does, and a request to sample is refused.

    Args:
        handle: that answers.
        given: `generation_kwargs` of the task.
        seed: of samples that the task asks for.

    Raises:
        UserError: an argument that cannot be honoured, named with its value.
    """
    rest = dict(given)
    until = rest.pop("until", None) or []
    limits = [value for value in (rest.pop(name, None) for name in LIMITS) if value is not None]
    limit = int(limits[0]) if limits else handle.decoder.max_new_tokens
    temperature = float(rest.pop("temperature", None) or 0.0)
    asked = rest.pop("do_sample", None)
    sampler = {name: rest.pop(name) for name in SAMPLERS if rest.get(name) is not None}
    for key, value in rest.items():
        if value is not None and (key not in NEUTRAL or value != NEUTRAL[key]):
            raise UserError(
                f"the task asks for {key}={value!r} in its generation_kwargs, which elicit does not do; "
                f"it does until, {LIMITS[0]}, do_sample, temperature, {', '.join(SAMPLERS)}"
            )
    if not (temperature > 0 if asked is None else asked):
        return handle, limit, _strings(until)
    if not isinstance(handle.decoder, Greedy):
        raise UserError(
            f"the task asks for samples and {handle.method} chooses tokens by {decoder_name(handle.decoder)}; "
            "give --gen_kwargs do_sample=false temperature=0 and set the method's own options in --model_args"
        )
    if not temperature:
        raise UserError(
            "the task asks for samples at temperature 0; give --gen_kwargs temperature=1.0, or do_sample=false"
        )
    decoder = Sampling(1, temperature, seed=seed, max_new_tokens=limit, **sampler)
    return replace(handle, decoder=decoder, select="greedy"), limit, _strings(until)


def _strings(until: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(string for string in ([until] if isinstance(until, str) else until) if string)


def draws(handle: Elicited) -> bool:
    """Whether its answers depend on random numbers."""
    decoder = handle.decoder
    return isinstance(decoder, Sampling) or getattr(decoder, "temperature", 0.0) > 0


def streams(handles: Sequence[Elicited], samples: Sequence[str], repeats: Sequence[int], seed: int) -> list[RngStream]:
    """Where each request's random numbers come from: its decoder's seed, its sample's id, and the repeat it is."""
    return [
        RngStream(getattr(one.decoder, "seed", seed), sample, repeat, getattr(one.decoder, "first_sample", 0))
        for one, sample, repeat in zip(handles, samples, repeats, strict=True)
    ]


def repeats_of(requests: Sequence[Any]) -> list[int]:
    """Which time each request is asked: lm-eval gives one that is repeated several times over."""
    seen: Counter[int] = Counter()
    out = []
    for request in requests:
        out.append(seen[id(request)])
        seen[id(request)] += 1
    return out


class Words:
    """Puts the last words of a handle's prompt at the end of a context.

    Without a chat template both the trigger and the words that the answer begins with follow the context, as they
    follow a question elsewhere. In a chat the trigger stands in the user's message already (`user`).

    Attributes:
        generations: what the chat template puts after the user's message: before an answer that is to come, and before
            one that is begun, where that is another (a template may open a thought for the first alone).
    """

    def __init__(self, handle: Elicited) -> None:
        prompt, tokenizer = handle.prompt, handle.model.tokenizer
        self.trigger, self.begin, self.generations = prompt.trigger, prompt.begin, list[str]()
        if tokenizer.chat_template and (self.trigger or self.begin or needs_kind(handle)):
            asked = {"role": "user", "content": "What is 1 + 1?"}
            said = {"role": "assistant", "content": "It is"}
            for turns in ([asked], [asked, said]):
                with suppress(UserError):  # of a template that cannot be used no context is made
                    text = written(
                        tokenizer, turns, json.loads(prompt.arguments or "{}"), begun=turns[-1] is said
                    ).removesuffix(said["content"])
                    mark = text.rpartition(asked["content"])[2]
                    self.generations += [mark] if mark.strip() and mark not in self.generations else []

    def user(self, message: str) -> str:
        """A user's message with the trigger."""
        return f"{message}\n{self.trigger}" if self.trigger else message

    def opened(self, context: str) -> str | None:
        """What of a context belongs to the answer, after a chat template's mark of its beginning; None: no chat."""
        found = (context.rfind(mark) for mark in self.generations)
        at = next((place for place in found if place >= 0), -1)
        return None if at < 0 else context[at:]

    def after(self, context: str) -> str:
        """A context with what follows it."""
        chat = self.opened(context) is not None
        for words in (self.begin,) if chat else (self.trigger, self.begin):
            blank = "" if chat else " "
            context += f"{blank}{words}" if words else ""
        return context
