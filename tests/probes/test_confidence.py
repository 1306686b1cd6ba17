from __future__ import annotations

import pytest
import torch

from probes.confidence import token_statistics, top2


@pytest.mark.processor
@pytest.mark.parametrize("vocabulary", [2, 64, 1000, 1024, 49152, 50257])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_top2_is_topk(vocabulary: int, dtype: torch.dtype) -> None:
    logits = (torch.randn(9, vocabulary, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    found, expected = top2(logits), logits.topk(2)
    assert torch.equal(found.values, expected.values)
    assert torch.equal(logits.gather(1, found.ids), found.values)
    assert (found.ids[:, 0] != found.ids[:, 1]).all()


def test_of_two_equal_logits_the_lower_id_is_the_argmax() -> None:
    logits = torch.zeros(1, 4096)
    logits[0, [3000, 17]] = 5.0
    assert top2(logits).argmax.tolist() == [17]


def test_statistics_equal_their_definitions() -> None:
    logits = torch.randn(33, 5000, generator=torch.Generator().manual_seed(1)) * 4
    logits[:, 100:200] = float("-inf")  # masked ids
    tokens = torch.randint(300, 5000, (33,), generator=torch.Generator().manual_seed(2))
    found = token_statistics(logits, top2(logits), tokens)
    p = torch.softmax(logits.double(), -1)
    torch.testing.assert_close(found.top1.double(), p.max(-1).values, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.top2.double(), p.topk(2).values[:, 1], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.entropy.double(), -torch.xlogy(p, p).sum(-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.logprob.double(), p.gather(1, tokens[:, None])[:, 0].log(), rtol=1e-5, atol=1e-5)
