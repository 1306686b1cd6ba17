from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes import confidence
from probes.confidence import rows_at_once, token_statistics, top2


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


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    vocabulary=st.integers(2, 3000),
    cache=st.integers(1, 1 << 17),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    masked=st.booleans(),
)
def test_statistics_do_not_depend_on_the_rows_at_once(
    rows: int, vocabulary: int, cache: int, dtype: torch.dtype, masked: bool
) -> None:
    draw = torch.Generator().manual_seed(rows * vocabulary)
    logits = (torch.randn(rows, vocabulary, generator=draw) * 5).to(dtype)
    if masked:
        logits[:, vocabulary // 2] = float("-inf")
    before, tokens = logits.clone(), torch.randint(0, vocabulary, (rows,), generator=draw)
    in_one_piece = token_statistics(logits, top2(logits), tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confidence, "CORE_CACHE", cache)
        in_chunks = token_statistics(logits, top2(logits), tokens)
    for one, other in zip(in_one_piece, in_chunks, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(("gib", "rows"), [(80, 2208), (8, 220), (0, 1)])
def test_on_a_device_rows_are_one_piece_as_far_as_its_memory_goes(
    monkeypatch: pytest.MonkeyPatch, gib: int, rows: int
) -> None:
    """Three fp32 arrays of the rows that are computed together never take more than 3/64 of its memory."""
    monkeypatch.setattr(confidence, "_memory", lambda _: gib << 30)
    logits = torch.empty(320, 151936, device="meta", dtype=torch.bfloat16)
    assert rows_at_once(logits) == rows
    assert rows == 1 or 3 * 4 * rows * 151936 <= 3 * (gib << 30) / 64


def test_statistics_copy_nothing_to_the_host() -> None:
    """A tensor on `meta` has no numbers: whatever reads one raises."""
    logits = torch.empty(320, 151936, device="meta", dtype=torch.bfloat16)
    top = top2(logits)
    found = token_statistics(logits, top, top.argmax)
    assert {value.device.type for value in found} == {"meta"} and found.entropy.shape == (320,)
