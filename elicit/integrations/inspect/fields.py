"""Every field of Inspect's `GenerateConfig` (0.3.285): honoured here, Inspect's own business, or refused by name.

A test fails when a release has a field that stands in none of the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from elicit.decoding.decoders import Branching, Decoder, Greedy, Sampling
from elicit.decoding.selection import SELECTABLE
from elicit.elicited import Elicited
from elicit.tasks.answers import KINDS, Kind
from elicit.tasks.grading import check_kind
from probes.errors import UserError, unknown

HONOURED = (
    "max_tokens", "temperature", "top_p", "top_k", "seed", "stop_seqs", "num_choices", "logprobs", "top_logprobs",
    "prompt_logprobs", "extra_body",
)  # fmt: skip
INSPECTS = (  # done by Inspect before and after a model is asked
    "max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections", "adaptive_connections",
    "system_message", "max_tool_output", "reasoning_history", "fail_on_refusal", "cache",
)  # fmt: skip
REFUSED: dict[str, tuple[Any, ...]] = {  # with the values that ask for nothing
    "best_of": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "parallel_tool_calls": (),
    "internal_tools": (),
    "cache_prompt": ("auto",),
    "fallback_models": ([],),
    "verbosity": (),
    "effort": (),
    "reasoning_effort": (),
    "reasoning_mode": (),
    "reasoning_tokens": (),
    "reasoning_summary": (),
    "response_schema": (),
    "extra_headers": ({},),
    "modalities": ([],),
    "batch": (False,),
}
INSTEAD = {
    "best_of": "-M select=mean-logprob with a method that samples chooses by log-probability",
    "batch": "requests that wait are decoded together anyway: --max-connections says how many",
}
MOST = 20  # alternatives a token, as in Inspect's own bounds


def check(config: Any, handle: Elicited) -> None:
    """Refuse what cannot be honoured.

    Raises:
        UserError: the first field that this handle cannot honour, or whose value it cannot.
    """
    for name, neutral in REFUSED.items():
        value = getattr(config, name)
        if value is not None and value not in neutral:
            cure = INSTEAD.get(name, "leave it out")
            raise UserError(f"{name} = {value!r} was given and {handle.method} cannot honour it; {cure}")
    if config.max_tokens is not None and config.max_tokens < 1:
        raise UserError(f"max_tokens = {config.max_tokens} was given; give at least 1")
    if any(not one for one in config.stop_seqs or ()):
        raise UserError("an empty stop sequence was given; leave it out")
    if config.top_logprobs is not None:
        if not 0 <= config.top_logprobs <= MOST:
            raise UserError(f"top_logprobs = {config.top_logprobs} was given; give 0 to {MOST}")
        if config.top_logprobs and not config.logprobs:
            raise UserError("top_logprobs was given without logprobs; give logprobs as well")
    if config.top_logprobs or config.prompt_logprobs:
        name = "top_logprobs" if config.top_logprobs else "prompt_logprobs"
        check_forward(handle, name)
    body_of(config.extra_body)
    decoder_of(config, handle)


def check_forward(handle: Elicited, what: str) -> None:
    """Refuse what a forward over prompt and answer tells, where there is none.

    Raises:
        UserError: hybrid decoding, quiet thoughts; a model that another engine decodes.
    """
    if not handle.has_forward:
        raise UserError(f"{what} was given and {handle.method} has no forward over a given text; leave it out")
    if handle.model.engine != "hf":
        raise UserError(f"{what} was given and engine {handle.model.engine} keeps none; give -M engine=hf")


def body_of(extra_body: Mapping[str, Any] | None) -> Kind | None:
    """The kind of answer that a request names.

    Raises:
        UserError: another key than `kind`, or an unknown kind.
    """
    given = dict(extra_body or {})
    kind = given.pop("kind", None)
    if given:
        raise UserError(f"extra_body key {next(iter(given))!r} was given; it may hold kind alone")
    return None if kind is None else checked_kind(kind)


def checked_kind(kind: Any) -> Kind:
    """A kind of answer.

    Raises:
        UserError: an unknown one.
    """
    check_kind(kind, KINDS)
    return kind  # type: ignore[no-any-return]


def checked_select(select: str) -> str:
    """A rule that chooses among branches.

    Raises:
        UserError: an unknown one.
    """
    if select not in SELECTABLE:
        raise unknown("selection", select, SELECTABLE)
    return select


def needs_kind(handle: Elicited) -> bool:
    """Whether an answer must be found in each branch, for Δ, a vote or a filter, before one is chosen."""
    return handle.select != "greedy" or handle.span != "last"


def choices_of(config: Any, decoder: Decoder) -> int:
    """How many choices an output has."""
    return 1 if config.num_choices is None else min(int(config.num_choices), decoder.branches)


def decoder_of(config: Any, handle: Elicited) -> Decoder:
    """The handle's decoder with what a configuration asks for; None everywhere leaves the mechanism's own.

    Greedy decoding with a temperature above 0 samples. `top_p` and `top_k` ask for nothing where temperature is 0, and
    are refused where nothing is sampled and no temperature says so.

    Raises:
        UserError: what this decoder has not: a temperature for branches, choices that it does not make.
    """
    decoder, number = handle.decoder, config.num_choices
    if config.max_tokens is not None:
        decoder = replace(decoder, max_new_tokens=config.max_tokens)  # type: ignore[type-var]
    if number is not None and number < 1:
        raise UserError(f"num_choices = {number} was given; give at least 1")
    warm = bool(config.temperature)
    given = {name: getattr(config, name) for name in ("temperature", "top_p", "top_k")}
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(decoder, Sampling):
        if config.temperature == 0:
            raise UserError(f"temperature = 0 was given and {handle.method} samples; give one above 0, or leave it out")
        decoder = replace(decoder, **given)
    elif isinstance(decoder, Greedy) and warm:
        decoder = Sampling(samples=number or 1, max_new_tokens=decoder.max_new_tokens, **given)
    elif warm or (config.temperature is None and (config.top_p not in (None, 1) or config.top_k)):
        what = ", ".join(f"{name} = {value}" for name, value in given.items())
        cure = "give a temperature above 0 as well" if isinstance(decoder, Greedy) else "leave it out"
        raise UserError(f"{what} was given and {handle.method} does not sample; {cure}")
    if number is not None and number > decoder.branches:
        raise UserError(
            f"num_choices = {number} was given and {handle.method} has {decoder.branches}; "
            + {Sampling: "give -M samples=… as many", Branching: "give -M k=… as many"}.get(
                type(decoder), "give a temperature above 0, or 1"
            )
        )
    return decoder
