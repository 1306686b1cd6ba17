"""Every field of `GenerateConfig` is honoured, Inspect's own, or refused by name; a new one fails here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.model import GenerateConfig, ResponseSchema
from inspect_ai.util import JSONSchema

from elicit import methods
from elicit.decoding.decoders import Greedy, Sampling
from elicit.elicited import Elicited
from elicit.integrations.inspect import fields
from elicit.models.model import load_model
from probes.errors import UserError

VALUES: dict[str, Any] = {  # that ask for something
    "best_of": 2,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "logit_bias": {1: 2.0},
    "parallel_tool_calls": True,
    "internal_tools": False,
    "cache_prompt": True,
    "fallback_models": ["other"],
    "verbosity": "low",
    "effort": "low",
    "reasoning_effort": "low",
    "reasoning_mode": "pro",
    "reasoning_tokens": 8,
    "reasoning_summary": "auto",
    "response_schema": ResponseSchema(name="a", json_schema=JSONSchema(type="object")),
    "extra_headers": {"a": "b"},
    "modalities": ["image"],
    "batch": 8,
}


@pytest.fixture(scope="module")
def greedy(tiny: Path) -> Elicited:
    return methods.fit("direct", load_model(str(tiny), dtype="float32"))


@pytest.fixture(scope="module")
def sampled(greedy: Elicited) -> Elicited:
    return methods.fit("self-consistency", greedy.model, samples=4)


@pytest.fixture(scope="module")
def branching(greedy: Elicited) -> Elicited:
    return methods.fit("cot-decoding", greedy.model, k=3)


def test_every_field_stands_in_one_of_three_lists() -> None:
    listed = [*fields.HONOURED, *fields.INSPECTS, *fields.REFUSED]
    assert sorted(listed) == sorted(GenerateConfig.model_fields)


@pytest.mark.parametrize("name", fields.REFUSED)
def test_what_is_refused_is_named(name: str, greedy: Elicited) -> None:
    with pytest.raises(UserError, match=f"{name} = .* was given and direct cannot honour it"):
        fields.check(GenerateConfig(**{name: VALUES[name]}), greedy)
    for neutral in fields.REFUSED[name]:
        fields.check(GenerateConfig(**{name: neutral}), greedy)


def test_nothing_given_leaves_the_mechanism_its_own(greedy: Elicited, sampled: Elicited, branching: Elicited) -> None:
    for handle in (greedy, sampled, branching):
        assert fields.decoder_of(GenerateConfig(), handle) == handle.decoder


def test_a_temperature_samples_greedily_decoded_prompts(greedy: Elicited) -> None:
    config = GenerateConfig(temperature=0.8, top_p=0.9, top_k=5, num_choices=3, max_tokens=7)
    expected = Sampling(samples=3, temperature=0.8, top_p=0.9, top_k=5, max_new_tokens=7)
    assert fields.decoder_of(config, greedy) == expected
    assert fields.decoder_of(GenerateConfig(temperature=0, top_p=0.9), greedy) == greedy.decoder
    assert fields.decoder_of(GenerateConfig(max_tokens=5), greedy) == Greedy(5)


def test_a_sampler_takes_what_is_given_and_keeps_the_rest(sampled: Elicited) -> None:
    made = fields.decoder_of(GenerateConfig(top_k=2), sampled)
    assert made == replace(sampled.decoder, top_k=2)


@pytest.mark.parametrize(
    ("method", "given", "told"),
    [
        ("greedy", {"top_p": 0.9}, "top_p = 0.9 was given and direct does not sample; give a temperature"),
        ("greedy", {"num_choices": 2}, "num_choices = 2 was given and direct has 1; give a temperature above 0"),
        ("greedy", {"max_tokens": 0}, "max_tokens = 0"),
        ("greedy", {"stop_seqs": [""]}, "an empty stop sequence"),
        ("greedy", {"top_logprobs": 3}, "top_logprobs was given without logprobs"),
        ("greedy", {"top_logprobs": 21, "logprobs": True}, "give 0 to 20"),
        ("greedy", {"extra_body": {"guided": 1}}, "extra_body key 'guided'"),
        ("greedy", {"extra_body": {"kind": "numbr"}}, "answer kind 'numbr'"),
        ("greedy", {"temperature": -1.0}, "temperature = -1.0 was given"),
        ("sampled", {"temperature": 0}, "temperature = 0 was given and self-consistency samples"),
        ("sampled", {"num_choices": 5}, "num_choices = 5 was given and self-consistency has 4; give -M samples="),
        ("sampled", {"top_p": 1.5}, "top_p = 1.5 was given"),
        ("branching", {"temperature": 0.7}, "temperature = 0.7 was given and cot-decoding does not sample"),
        ("branching", {"num_choices": 4}, "num_choices = 4 was given and cot-decoding has 3; give -M k="),
    ],
)
def test_values_that_cannot_be_honoured(
    method: str, given: dict[str, Any], told: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(UserError, match=told):
        fields.check(GenerateConfig(**given), request.getfixturevalue(method))
