"""Strengths that are found by the KL that they reach, against a slow reading of it one text at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from probes.errors import UserError
from probes.sites import Site
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Gate, Intervention, Plan, ProjectOut, When
from steering.strength import CLOSE, at_kl, plain_kl
from tests.support.tiny import VOCAB, tiny_model

G = torch.Generator().manual_seed(0)
TEXTS = [torch.randint(3, VOCAB, (n,), generator=G).tolist() for n in (9, 5, 12, 7)]
VECTOR = Direction(torch.randn(32, generator=G), Site(1), "x", resid_norm=5.0)


def slow(architecture: str, plan: Plan) -> float:
    lm, found = tiny_model(architecture), []
    for text in TEXTS:
        ids = torch.tensor([text])
        with torch.no_grad():
            plain = lm(ids).logits[0].log_softmax(-1)
            with attached(lm, [plan]):
                steered = lm(ids).logits[0].log_softmax(-1)
        found += [float((s.exp() * (s - p)).sum()) for s, p in zip(steered[1:-1], plain[1:-1], strict=True)]
    return float(torch.tensor(found).quantile(0.95))


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "recurrent_gemma"])
def test_plain_kl_is_that_of_each_text_alone(architecture: str) -> None:
    one = Intervention(Add(VECTOR), 0.3, "resid", When.last_prompt_token())
    everywhere = (replace(one, when=When.everywhere()),)
    assert plain_kl(tiny_model(architecture), (one,), TEXTS) == pytest.approx(slow(architecture, everywhere), rel=1e-3)


@pytest.mark.parametrize("nats", [0.01, 0.5])
def test_a_direction_its_opposite_and_a_random_one_reach_the_same(nats: float) -> None:
    lm = tiny_model("llama")
    for source, given in ((VECTOR, 0.01), (VECTOR, -40.0), (VECTOR.random_like(0), 1.0)):
        one = Intervention(Add(source), given, "resid", When.steps(3))
        (found,) = at_kl(lm, (one,), nats, TEXTS)
        assert found.when == one.when and found.unit == one.unit and found.strength * given > 0
        assert slow("llama", (replace(found, when=When.everywhere()),)) == pytest.approx(nats, rel=1.5 * CLOSE)


def test_what_it_refuses() -> None:
    lm = tiny_model("llama")
    plan = (Intervention(Add(VECTOR)),)
    silent = (Intervention(Add(VECTOR), when=When.every_step().gated(Gate(VECTOR.vector, Site(1), threshold=1e9))),)
    assert plain_kl(lm, silent, TEXTS) > 0  # a gate is another when: it is not asked
    calls: list[tuple[Callable[[], Plan], str]] = [
        (lambda: at_kl(lm, plan, 0.0, TEXTS), "budget of 0.0 nats"),
        (lambda: at_kl(lm, plan, 1e6, TEXTS), "no strength from .* moves plain text by 1e"),
        (lambda: at_kl(lm, (Intervention(ProjectOut(VECTOR)),), 0.1, TEXTS), "'project out', whose size"),
    ]
    for call, told in calls:
        with pytest.raises(UserError, match=told) as caught:
            call()
        assert "\n" not in str(caught.value)
