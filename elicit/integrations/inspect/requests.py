"""From messages and a configuration of Inspect to what is asked of a handle: a prompt, a decoder, random numbers.

An answer's random numbers come from (seed, sample id, epoch, choice). Inspect hands a model neither id nor epoch; they
are read from its active sample, as 0.3.285 has it. Epoch 1 there is epoch 0 here, so that an evaluation of one epoch
draws what `elicit.evaluate` draws. A sample that asks again (its n-th request) draws from `<id>`, `<id>\\x00request 1`,
…; what is asked outside of a sample is a sample of its own, named by its prompt, asked again in the next epoch.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig

from elicit.decoding.decoders import Decoder, RngStream
from elicit.elicited import Elicited
from elicit.integrations.inspect import fields
from elicit.integrations.inspect.arguments import Asked
from elicit.models.turns import put
from elicit.tasks.answers import Kind
from elicit.tasks.base import content_id
from probes.errors import UserError

KIND = "elicit_kind"  # a sample's metadata may say the kind of its answer


@dataclass(frozen=True)
class Request:
    """One prompt, and all that is asked of it.

    Args:
        ids: the prompt's tokens.
        partner_ids: as a partner with a prompt of its own is asked, or None.
        begun: the mark of the thought that the prompt ends in, or "".
        kind: of the answer that is looked for; None: none is.
        stream: of random numbers.
        decoder, stop: what requests must have in common to be decoded together.
        choices: of the output.
        logprobs: of each token.
        alternatives: to each token of the answer.
        prompt_alternatives: to each token of the prompt, with its own log-probability; 0: neither.
        seen: how the handle has seen this item: `fitted`, `chosen`, or "".
    """

    ids: list[int]
    partner_ids: list[int] | None
    begun: str
    kind: Kind | None
    stream: RngStream
    decoder: Decoder
    stop: tuple[str, ...]
    choices: int
    logprobs: bool
    alternatives: int
    prompt_alternatives: int
    seen: str

    @property
    def key(self) -> tuple[Decoder, tuple[str, ...]]:
        return self.decoder, self.stop


@dataclass
class Counts:
    """How often each sample, and each prompt outside of one, was asked."""

    of_sample: WeakKeyDictionary[Any, int] = field(default_factory=WeakKeyDictionary)
    of_prompt: Counter[str] = field(default_factory=Counter)

    def stream(self, active: Any, seed: int, prompt: str) -> RngStream:
        """Where the next answer's random numbers come from."""
        if active is None or active.sample.id is None:
            asked, self.of_prompt[prompt] = self.of_prompt[prompt], self.of_prompt[prompt] + 1
            return RngStream(seed, prompt, asked)
        asked = self.of_sample.get(active, 0)
        self.of_sample[active] = asked + 1
        name = str(active.sample.id)
        return RngStream(seed, f"{name}\x00request {asked}" if asked else name, active.epoch - 1)


def requested(
    asked: Asked, counts: Counts, input: Sequence[ChatMessage], config: GenerateConfig, active: Any
) -> Request:
    """What is asked of the handle.

    Args:
        asked: the handle and its `-M` arguments.
        counts: of its requests until now.
        input: the messages.
        config: the request's.
        active: Inspect's active sample, or None.

    Raises:
        UserError: messages that the prompt cannot put; a kind that is missing; as `fields.check`.
    """
    handle = asked.handle
    fields.check(config, handle)
    kind = _kind(asked, config, active)
    if kind is None and fields.needs_kind(handle):
        raise UserError(
            f"{handle.method} chooses by answers ({handle.select}) and this sample does not say their kind; give it as "
            f"metadata {KIND}, as extra_body kind, or for all as -M kind=…"
        )
    prompt, question = put(handle.prompt, [_text(message) for message in input], "give -M prompt=chat")
    tokenizer = handle.model.tokenizer
    decoder = fields.decoder_of(config, handle)
    ids = prompt.ids(question, tokenizer)
    partner = handle.partner
    theirs = partner.prompt_ids(handle.model, [question], decoder.max_new_tokens) if partner else None
    if theirs is not None and len(input) > 1:
        raise UserError("several messages were given to a partner with a prompt of its own; give a question alone")
    seed = config.seed if config.seed is not None else int(getattr(handle.decoder, "seed", 0))
    name = hashlib.blake2b(json.dumps(ids).encode(), digest_size=6).hexdigest()
    stream = counts.stream(active, seed, name)
    first = int(getattr(handle.decoder, "first_sample", 0))
    known = [str(active.sample.id)] if active is not None else []
    return Request(
        ids=ids,
        partner_ids=theirs[0] if theirs else None,
        begun=prompt.begun(question, tokenizer),
        kind=kind,
        stream=stream._replace(choice=first),
        decoder=decoder,
        stop=(*prompt.stop, *(one for one in config.stop_seqs or () if one not in prompt.stop)),
        choices=fields.choices_of(config, decoder),
        logprobs=bool(config.logprobs),
        alternatives=config.top_logprobs or 0,
        prompt_alternatives=config.prompt_logprobs or 0,
        seen=next((asked.seen[one] for one in (*known, content_id(question.strip())) if one in asked.seen), ""),
    )


def _kind(asked: Asked, config: GenerateConfig, active: Any) -> Kind | None:
    """Of a request, of a sample, or of all."""
    given = fields.body_of(config.extra_body)
    if given is None and active is not None and KIND in (active.sample.metadata or {}):
        given = fields.checked_kind(active.sample.metadata[KIND])
    return given or asked.kind


def _text(message: ChatMessage) -> tuple[str, str]:
    """A message's role and text.

    Raises:
        UserError: content that is no text; calls of tools and their results.
    """
    if not isinstance(message, ChatMessageSystem | ChatMessageUser | ChatMessageAssistant):
        raise UserError(f"a message of role {message.role} was given; tools are not called here: leave them out")
    if isinstance(message, ChatMessageAssistant) and message.tool_calls:
        raise UserError("a call of a tool was given; tools are not called here: leave them out")
    if not isinstance(message.content, str):
        for part in message.content:
            if part.type not in ("text", "reasoning"):
                raise UserError(f"{part.type} content was given; a question is text alone: leave it out")
    return message.role, message.text


def handle_for(handle: Elicited, decoder: Decoder) -> Elicited:
    """The handle with a request's decoder."""
    return handle if decoder == handle.decoder else replace(handle, decoder=decoder)
