"""Baselines, plain and with as many tokens as a mechanism spends: what each mechanism is held against."""

from __future__ import annotations

from elicit.elicited import Elicited
from elicit.evaluation.budget import MATCHED
from elicit.methods.baselines import cot_prompt, direct
from elicit.tasks.base import Items


def plain(handle: Elicited, items: Items | None) -> dict[str, Elicited]:
    """`direct` and `cot-prompt`, with a handle's prompt and limit."""
    shared = {"prompt": handle.options["prompt"], "max_new_tokens": handle.decoder.max_new_tokens}
    return {m.NAME: m.fit(handle.model, items, **shared) for m in (direct, cot_prompt)}


def at_budget(handle: Elicited, items: Items | None, seed: int) -> dict[str, Elicited]:
    """`direct@budget` and `cot-prompt@budget`, with a handle's prompt and limit: with the tokens that it spends."""
    shared = {"prompt": handle.options["prompt"], "max_new_tokens": handle.decoder.max_new_tokens, "seed": seed}
    return {m.NAME + MATCHED: m.matched(handle.model, items, **shared) for m in (direct, cot_prompt)}
