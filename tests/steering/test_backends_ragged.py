"""Texts of several lengths through the backends, where a model's state sees the padding of the shorter ones."""

from __future__ import annotations

import pytest
import torch

from probes.errors import UserError
from probes.sites import Site
from steering.backends import Rows
from steering.backends.huggingface import HuggingFace
from steering.backends.lens import TransformerLens
from steering.backends.nnsight import NNsight
from steering.directions import Direction
from steering.interventions import Add, Intervention, When
from tests.steering.test_backends import tokenizer
from tests.support.tiny import SEEING_PADDING, tiny_model

TEXTS = [[5, 9, 3, 7, 40, 41], [7, 1], [8, 8, 20, 4], [11, 3]]
LENGTHS = [4, 2, 3, 1]
G = torch.Generator().manual_seed(0)
PLAN = (
    Intervention(Add(Direction(torch.randn(32, generator=G), Site(1), resid_norm=3.0)), 2.0, when=When.every_step()),
)
OF_ROW = [0, 0, 1, 0]


@pytest.mark.parametrize("architecture", [*SEEING_PADDING, "llama"])
def test_the_reference_scores_each_text_as_it_does_alone(architecture: str) -> None:
    backend = HuggingFace(tiny_model(architecture))
    found = backend.score(Rows(TEXTS, [PLAN, ()], OF_ROW, LENGTHS))
    moved = backend.delivery.positions
    alone = 0
    for row, (text, length) in enumerate(zip(TEXTS, LENGTHS, strict=True)):
        (expected,) = backend.score(Rows([text], [PLAN if OF_ROW[row] == 0 else ()], None, [length]))
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)
        alone += backend.delivery.positions
    assert moved == alone == 3 + 1 + 0 + 2


@pytest.mark.parametrize("architecture", ["recurrent_gemma", "llama"])
def test_the_reference_generates_for_each_text_as_it_does_alone(architecture: str) -> None:
    backend = HuggingFace(tiny_model(architecture))
    found = backend.generate(Rows(TEXTS, [PLAN, ()], OF_ROW), max_new_tokens=4, keep_logprobs=True)
    for row, text in enumerate(TEXTS):
        plan = PLAN if OF_ROW[row] == 0 else ()
        (expected,) = backend.generate(Rows([text], [plan]), max_new_tokens=4, keep_logprobs=True)
        assert found[row].tokens == expected.tokens
        assert found[row].logprobs is not None and expected.logprobs is not None
        torch.testing.assert_close(found[row].logprobs, expected.logprobs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [NNsight, TransformerLens])
def test_another_backend_refuses_them(kind: type[NNsight] | type[TransformerLens]) -> None:
    lm = tiny_model("recurrent_gemma")
    backend = kind(lm, tokenizer())
    with pytest.raises(UserError, match="RecurrentGemmaForCausalLM sees the padding of the shorter ones") as error:
        backend.score(Rows(TEXTS, [PLAN]))
    assert "\n" not in str(error.value)
    equal = Rows([TEXTS[1], TEXTS[3]], [PLAN])
    for one, other in zip(backend.score(equal), HuggingFace(lm).score(equal), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
