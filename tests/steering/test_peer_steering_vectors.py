"""Against `steering-vectors`, another implementation: the same vector, the same model, equal logits.

And where the two part: on cached decoding the peer counts `min_token_index` in each forward's own positions, not in the
text's, so a generated token, alone in its forward at position 0, is not steered at all.
"""

from __future__ import annotations

import pytest
import torch
from steering_vectors import SteeringVector
from torch import Tensor
from transformers import PreTrainedModel

from probes.sites import Site
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, Plan, When
from tests.support.tiny import tiny_model

MULTIPLIER = 1.7
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
PROMPT = IDS.shape[1]
FROM = 3  # the first steered position


def vectors(*layers: int) -> dict[int, Tensor]:
    return {layer: torch.randn(32, generator=torch.Generator().manual_seed(layer)) for layer in layers}


def plan_of(found: dict[int, Tensor], when: When, point: str = "resid_post") -> Plan:
    return tuple(
        Intervention(Add(Direction(vector, Site(layer, point))), MULTIPLIER, when=when)
        for layer, vector in found.items()
    )


@torch.no_grad()
def whole(lm: PreTrainedModel, ids: Tensor) -> Tensor:
    return lm(input_ids=ids, use_cache=False).logits


@torch.no_grad()
def generated(lm: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Ids and each step's logits, from a cache."""
    out = lm.generate(  # type: ignore[operator]
        IDS,
        attention_mask=torch.ones_like(IDS),
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return out.sequences, torch.stack(out.logits, 1)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gpt2"])
def test_equal_logits_on_prefill(architecture: str) -> None:
    lm = tiny_model(architecture)
    found = vectors(0, 1, 2)
    with SteeringVector(found).apply(lm, multiplier=MULTIPLIER):
        theirs = whole(lm, IDS)
    with attached(lm, [plan_of(found, When.everywhere())]):
        ours = whole(lm, IDS)
    assert float((whole(lm, IDS) - theirs).abs().max()) > 1e-2
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_equal_logits_from_a_position_on() -> None:
    lm = tiny_model("llama")
    found = vectors(1, 2)
    with SteeringVector(found).apply(lm, multiplier=MULTIPLIER, min_token_index=FROM):
        theirs = whole(lm, IDS)
    with attached(lm, [plan_of(found, When(first=FROM - PROMPT + 1))]):
        ours = whole(lm, IDS)
    assert float((whole(lm, IDS) - theirs).abs().max()) > 1e-2
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_equal_logits_at_the_mlp() -> None:
    lm = tiny_model("llama")
    found = vectors(1, 2)
    with SteeringVector(found, layer_type="mlp").apply(lm, multiplier=MULTIPLIER):
        theirs = whole(lm, IDS)
    with attached(lm, [plan_of(found, When.everywhere(), "mlp_out")]):
        ours = whole(lm, IDS)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_equal_logits_on_cached_steps_where_all_is_steered() -> None:
    lm = tiny_model("llama")
    found = vectors(1, 2)
    with SteeringVector(found).apply(lm, multiplier=MULTIPLIER):
        their_ids, theirs = generated(lm)
    with attached(lm, [plan_of(found, When.everywhere())]):
        our_ids, ours = generated(lm)
    assert torch.equal(our_ids, their_ids)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_peer_leaves_cached_steps_unsteered_and_ours_does_not() -> None:
    """Judge: each engine's own text in one forward without a cache, where both steer alike."""
    lm = tiny_model("llama")
    found = vectors(1, 2)
    plan = plan_of(found, When(first=FROM - PROMPT + 1))
    with attached(lm, [plan]):
        our_ids, ours = generated(lm)
    with SteeringVector(found).apply(lm, multiplier=MULTIPLIER, min_token_index=FROM):
        their_ids, theirs = generated(lm)
        judged_ours, judged_theirs = whole(lm, our_ids), whole(lm, their_ids)
    torch.testing.assert_close(ours, judged_ours[:, PROMPT - 1 : -1], atol=1e-5, rtol=0)

    apart = (theirs - judged_theirs[:, PROMPT - 1 : -1]).abs().amax(-1)[0]
    assert float(apart[0]) < 1e-5  # chosen by the prompt's own forward
    assert float(apart[1:].min()) > 1e-2

    # What it computed is the prompt steered from FROM on and the generated tokens not at all.
    with attached(lm, [plan_of(found, When(first=FROM - PROMPT + 1, stop=1))], lengths=[PROMPT]):
        prompt_alone = whole(lm, their_ids)
    torch.testing.assert_close(theirs, prompt_alone[:, PROMPT - 1 : -1], atol=1e-5, rtol=0)
