"""Likelihoods of models whose stream has another precision than their output head."""

from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from probes.lens import logit_lens
from probes.likelihood import mean_losses, target_losses
from tests.support.tiny import tiny_model

TEXTS, LENGTHS = [[5, 9, 3, 7, 40, 41], [7, 1, 8, 8]], [2, 1]


def model(kind: str, dtype: torch.dtype) -> PreTrainedModel:
    more = {"num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8} if kind == "mamba2" else {}
    config = CONFIG_MAPPING[kind](vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8, **more)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_stream_in_fp32_before_a_head_in_16_bits(kind: str, dtype: torch.dtype) -> None:
    lm = model(kind, dtype)
    with torch.no_grad():
        found = target_losses(lm, TEXTS, LENGTHS)
        for row, (text, length) in enumerate(zip(TEXTS, LENGTHS, strict=True)):
            logits = lm(input_ids=torch.tensor([text]), use_cache=False).logits[0, length - 1 : -1].float()
            own = torch.nn.functional.cross_entropy(logits, torch.tensor(text[length:]), reduction="none")
            torch.testing.assert_close(found.loss[found.row == row], own, rtol=0, atol=0.02)
        lens = logit_lens(lm, TEXTS[0])
        assert (
            lens.top[-1].tolist()
            == lm(input_ids=torch.tensor([TEXTS[0]]), use_cache=False).logits[0].argmax(-1).tolist()
        )


def test_nothing_chooses_the_first_token_of_a_text() -> None:
    """Without a prompt too; beside a longer text what stands before it is padding."""
    lm = tiny_model("llama")
    alone = [mean_losses(lm, [text], [0])[0] for text in TEXTS]
    assert alone == [mean_losses(lm, [text], [1])[0] for text in TEXTS]
    assert mean_losses(lm, [*TEXTS, [7]], [0, 0, 0]) == [*(pytest.approx(one, rel=1e-5) for one in alone), None]
    assert target_losses(lm, TEXTS, [0, 0]).row.tolist() == [0] * 5 + [1] * 3
