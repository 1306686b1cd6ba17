"""How many bits say what was done to a model: each part of a handle says its own (`probes.description.Described`).

A part that is as in `direct` costs nothing; that it is so is not counted. Formats of prompts, the limit of tokens and
seeds are shared by all arms and are not counted either. Texts cost what the base itself pays for them. What was trained
costs the signal that trained it where the fit counted that (`SIGNAL`), else its weights as they lie on disk, which is
a valid description too, and a long one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch

from elicit.decoding.decoders import DECODERS, decoder_name
from elicit.decoding.selection import SELECTABLE
from elicit.elicited import SPANS, Elicited
from elicit.models.model import Model
from probes.description import Base, Described, Part, one_of, total
from probes.encoding import encoded
from probes.likelihood import target_losses
from probes.sites import depth

SIGNAL = "signal"  # of a handle's options: what its training was told, as parts
DESCRIPTION = "description"  # where a run's metrics have them, by arm


def base_of(model: Model) -> Base:
    """What whoever has the model knows; each text is coded once."""

    @cache
    def text(given: str) -> float:
        return text_bits(model, given)

    return Base(depth(model.lm), text)


def text_bits(model: Model, text: str) -> float:
    """−log₂ p of a text under a model, as `ids_bits`."""
    return ids_bits(model, encoded(model.tokenizer, text, special=False))


@torch.inference_mode()
def ids_bits(model: Model, ids: Sequence[int]) -> float:
    """−log₂ p of tokens under a model, from nothing before them; of a tokenizer without a beginning or an end token the
    first token is one of the vocabulary, and so is every token of a model whose weights are elsewhere."""
    tokenizer, ids = model.tokenizer, list(ids)
    if model.lm.device.type == "meta":
        return len(ids) * one_of(model.choices)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    bits = 0.0
    if start is None:
        bits = one_of(model.choices)
    elif ids[:1] != [start]:
        ids = [int(start), *ids]
    if len(ids) < 2:
        return bits
    nats = target_losses(model.lm, [ids], [1]).loss.double().sum()
    return bits + float(nats / torch.log(torch.tensor(2.0)))


def describe(handle: Elicited, base: Base) -> list[Part]:
    """All that must be said of a handle beside its model; a part that does not say its own has no bits.

    Args:
        handle: what is described.
        base: of its model.
    """
    parts = [*handle.prompt.description(base), *_decoding(handle, base)]
    for differs, what, n in (
        (handle.select != "greedy", f"selection {handle.select}", len(SELECTABLE)),
        (handle.span != SPANS[0], f"span {handle.span}", len(SPANS)),
        (handle.filters, "filters", 2),
    ):
        if differs:
            parts.append(Part(what, one_of(n)))
    for one in handle.interventions:
        parts += one.description(base)
    trained = [one for one in (handle.adapter, handle.mixing) if one is not None]
    if trained and (told := handle.options.get(SIGNAL)) is not None:
        parts += [Part(**part) for part in told]
    else:
        parts += [part for one in trained for part in one.description(base)]
    if handle.partner is not None:
        parts += handle.partner.description(base)
    return parts


def _decoding(handle: Elicited, base: Base) -> list[Part]:
    decoder = handle.decoder
    if not isinstance(decoder, Described):
        return [Part(f"{decoder_name(decoder)} decoding, which does not say its choices", None)]
    parts = decoder.description(base)
    return [Part(f"{decoder_name(decoder)} decoding", one_of(len(DECODERS))), *parts] if parts else []


def described(handles: Mapping[str, Elicited]) -> dict[str, list[dict[str, Any]]]:
    """The parts of each handle by name, as a run's metrics keep them."""
    bases: dict[int, Base] = {}
    out = {}
    for name, handle in handles.items():
        base = bases.setdefault(id(handle.model), base_of(handle.model))
        out[name] = [part._asdict() for part in describe(handle, base)]
    return out


def signal(what: str, bits: float) -> list[dict[str, Any]]:
    """What a fit's `options[SIGNAL]` holds: one thing that its training was told."""
    return [Part(what, bits)._asdict()]


def of_rewards(summary: Mapping[str, Any], examples: int = 0, among: int = 1) -> list[dict[str, Any]]:
    """The same of reinforcement learning: its rewards, and which items among so many it was given; nothing where the
    rewards' bits were not counted (trainings of older states)."""
    if "bits of reward" not in summary:
        return []
    choice = signal("choice of examples", examples * one_of(among)) if examples else []
    return [*signal("rewards", summary["bits of reward"]), *choice]


def bits_of(metrics: Mapping[str, Any], arm: str) -> float | None:
    """The bits of a run's arm; None in runs from before they were counted, or where a part does not know its own."""
    parts: Sequence[Mapping[str, Any]] | None = metrics.get(DESCRIPTION, {}).get(arm)
    return None if parts is None else total([Part(**part) for part in parts])
