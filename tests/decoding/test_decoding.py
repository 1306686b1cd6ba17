"""The decoding loop against `generate`, and the invariants that a resume and a shard rest on."""

from __future__ import annotations

from copy import deepcopy
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from elicit.decoding import Branching, Decoder, Greedy, Sampling, StopRule, cache, decode, packed_weights
from elicit.decoding.cache import (
    PerRowState,
    SharedPrefixState,
    open_state,
    similar_lengths,
    supports_shared_prefix,
)
from elicit.decoding.loop import Generation, Rows
from elicit.decoding.packed_weights import packed
from elicit.decoding.trial import way_of
from probes.confidence import top2
from probes.errors import UserError
from tests.support.tiny import ARCHITECTURES, VOCAB, tiny_model

PROMPTS = [[5, 9, 3], [7, 1, 2, 8, 40, 41, 42, 43, 44, 45], [11] * 6, [3]]
NO_STOP = StopRule(frozenset())


def reference(model: PreTrainedModel, prompt: list[int], limit: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),  # else a 0 in the prompt is taken for padding
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_equals_generate(architecture: str) -> None:
    model = tiny_model(architecture)
    out = decode(model, PROMPTS, Greedy().policy([""] * 4, VOCAB), max_new_tokens=24, stop=NO_STOP)
    for prompt, (generation,) in zip(PROMPTS, out, strict=True):
        assert generation.tokens.tolist() == reference(model, prompt, 24)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_branches_equal_generate_from_each_first_token(architecture: str) -> None:
    model = tiny_model(architecture)
    out = decode(model, PROMPTS, Branching(4).policy([""] * 4, VOCAB), max_new_tokens=16, stop=NO_STOP)
    for prompt, branches in zip(PROMPTS, out, strict=True):
        assert len({int(b.tokens[0]) for b in branches}) == 4
        for branch in branches:
            first = int(branch.tokens[0])
            assert branch.tokens[1:].tolist() == reference(model, [*prompt, first], 15)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropped_rows_leave_the_others_unchanged(architecture: str) -> None:
    """End tokens that fall in different rows at different steps: every survivor is still `generate`'s."""
    model = tiny_model(architecture)
    full = decode(model, PROMPTS, Branching(5).policy([""] * 4, VOCAB), max_new_tokens=20, stop=NO_STOP)
    eos = frozenset(int(branches[b].tokens[3 * b + 2]) for branches in full for b in range(2))
    out = decode(model, PROMPTS, Branching(5).policy([""] * 4, VOCAB), max_new_tokens=20, stop=StopRule(eos))
    finishes = set()
    for branches, expected in zip(out, full, strict=True):
        for branch, whole in zip(branches, expected, strict=True):
            tokens = whole.tokens.tolist()
            end = next((i for i, t in enumerate(tokens) if t in eos), None)
            assert branch.tokens.tolist() == tokens[:end]
            assert branch.finish == ("length" if end is None else "eos")
            assert branch.spent == (20 if end is None else end + 1)
            finishes.add(end)
    assert len(finishes) > 1  # some rows ended early, some did not or later


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_statistics_equal_a_full_forward(architecture: str) -> None:
    model = tiny_model(architecture)
    ((generation, *_), *_) = decode(
        model, PROMPTS[1:2], Branching(3).policy([""], VOCAB), max_new_tokens=12, stop=NO_STOP
    )
    ids = torch.tensor([PROMPTS[1] + generation.tokens.tolist()])
    with torch.inference_mode():
        logits = model(ids).logits[0, len(PROMPTS[1]) - 1 : -1].double()
    p = torch.softmax(logits, -1)
    top = p.topk(2).values
    close = dict(rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.tensor(generation.top1).double(), top[:, 0], **close)
    torch.testing.assert_close(torch.tensor(generation.top2).double(), top[:, 1], **close)
    torch.testing.assert_close(torch.tensor(generation.entropy).double(), -(p * p.log()).sum(-1), **close)
    picked = p.gather(1, torch.tensor(generation.tokens)[:, None])[:, 0].log()
    torch.testing.assert_close(torch.tensor(generation.logprob).double(), picked, **close)


@pytest.mark.parametrize("architecture", sorted(a for a in ARCHITECTURES if supports_shared_prefix(tiny_model(a))))
@pytest.mark.parametrize("branches", [1, 2])
def test_prompts_of_unequal_length_are_prefilled_in_parts(
    architecture: str, branches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts have the answers and statistics of one forward, in which a hook sees every row."""
    model, shapes = tiny_model.__wrapped__(architecture), []  # one that no other test has put hooks on
    assert way_of(model) == "shared-prefix"  # tried before it is spied upon
    prefill = cache._prefill

    def spied(model: PreTrainedModel, ids: torch.Tensor, *args: object, **more: object) -> object:
        shapes.append(tuple(ids.shape))
        return prefill(model, ids, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "_prefill", spied)
    monkeypatch.setattr(cache, "FORWARD_TOKENS", 1)
    policy = Branching(branches) if branches > 1 else Greedy()

    def answers() -> list[list[Generation]]:
        return decode(model, PROMPTS, policy.policy([""] * 4, VOCAB), max_new_tokens=8, stop=NO_STOP)

    seen: list[int] = []
    handle = model.register_forward_hook(lambda _, __, out: seen.append(len(out.logits)))
    whole = answers()
    handle.remove()
    parts = answers()
    assert seen[0] == 4 and shapes == [(4, 10), (1, 1), (1, 3), (1, 6), (1, 10)]
    for a, b in zip(chain(*whole), chain(*parts), strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        np.testing.assert_allclose(a.logprob, b.logprob, atol=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 12))
def test_parts_of_similar_length_cost_least(lengths: list[int], forward: int) -> None:
    """Beside all ways to cut the sorted rows, and each row is in one part."""
    parts = similar_lengths(lengths, forward)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))

    def cost(some: list[list[int]]) -> int:
        return sum(forward + len(one) * max(one) for one in some)

    ordered, last = sorted(lengths), len(lengths) - 1
    ways = []
    for cuts in range(1 << last):
        edges = [0, *(n + 1 for n in range(last) if cuts >> n & 1), len(lengths)]
        ways.append(cost([ordered[a:b] for a, b in pairwise(edges)]))
    assert cost([[lengths[row] for row in part] for part in parts]) == min(ways)


def test_each_cache_is_used_where_it_should_be() -> None:
    shared = {a for a in ARCHITECTURES if supports_shared_prefix(tiny_model(a))}
    assert {"llama", "qwen2", "qwen3", "gemma2", "gemma3", "mistral", "gpt_neox", "gpt2"} <= shared
    assert "bloom" not in shared and "gpt_oss" not in shared
    for architecture, expected in (("llama", SharedPrefixState), ("bloom", PerRowState)):
        model = tiny_model(architecture)
        before = model.config._attn_implementation
        with open_state(model, 4) as state:
            assert isinstance(state, expected)
        assert model.config._attn_implementation == before


@pytest.mark.processor
@pytest.mark.needs("bf16-packing")
def test_packed_weights_change_no_bit_and_leave_no_trace() -> None:
    """Also after the weights were written to, and in a module that somebody else has wrapped."""
    model = deepcopy(tiny_model("qwen2")).bfloat16()
    linears = [m for m in model.modules() if type(m) is torch.nn.Linear]
    x = {size: torch.randn(7, size, dtype=torch.bfloat16) for size in {m.in_features for m in linears}}
    theirs = linears[0].forward
    linears[0].forward = theirs  # type: ignore[method-assign]
    for _ in range(2):
        expected = [m(x[m.in_features]) for m in linears]
        with packed(model), torch.inference_mode():
            assert sum("forward" in vars(m) for m in linears) == len(linears)
            assert all(torch.equal(m(x[m.in_features]), y) for m, y in zip(linears, expected, strict=True))
            assert linears[1](x[linears[1].in_features].bfloat16()).dtype == torch.bfloat16
        assert [m for m in linears if "forward" in vars(m)] == linears[:1]
        with torch.no_grad():
            for m in linears:
                m.weight.mul_(1.25)


@pytest.mark.processor
@pytest.mark.needs("fp32-packing")
@pytest.mark.parametrize("bias", [True, False])
def test_packed_float32_is_exact_to_its_rounding_and_the_same_in_any_batch(bias: bool) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 576, bias=bias), torch.nn.Linear(576, 16, bias=bias))
    x = torch.randn(96, 512)
    exact = torch.nn.functional.linear(x.double(), model[0].weight.double(), model[0].bias.double() if bias else None)
    with packed(model), torch.inference_mode():
        assert [("forward" in vars(m)) for m in model] == [True, False]  # the second is too small to gain
        whole = model[0](x)
        assert (whole - exact).abs().max() < 512 * torch.finfo(torch.float32).eps
        for rows in (2, 3, 8, 17, 64):
            assert torch.equal(model[0](x[:rows]), whole[:rows])
    assert not any("forward" in vars(m) for m in model)


@pytest.mark.needs("fp32-packing")
def test_weights_are_not_packed_where_a_second_copy_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(512, 512))
    monkeypatch.setattr(packed_weights, "free_bytes", lambda device: 2 * 512 * 512 * 4 - 1)
    with packed(model):
        assert "forward" not in vars(model[0])
    monkeypatch.setattr(packed_weights, "free_bytes", lambda device: 2 * 512 * 512 * 4)
    with packed(model):
        assert "forward" in vars(model[0])
    monkeypatch.setattr(packed_weights, "free_bytes", lambda device: 0)
    with packed(model):  # the copy is there already
        assert "forward" in vars(model[0])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(4)), st.integers(1, 4))
def test_a_sample_does_not_depend_on_its_batch(seed: int, order: list[int], size: int) -> None:
    model = tiny_model("llama")
    names = ["a", "b", "c", "d"]

    def run(indices: list[int], samples: int, first: int = 0) -> dict[tuple[str, int], list[int]]:
        decoder = Sampling(samples, temperature=1.3, seed=seed, max_new_tokens=8, first_sample=first)
        out = decode(
            model,
            [PROMPTS[i] for i in indices],
            decoder.policy([names[i] for i in indices], VOCAB),
            max_new_tokens=8,
            stop=NO_STOP,
        )
        return {
            (names[i], first + s): g.tokens.tolist()
            for i, branches in zip(indices, out, strict=True)
            for s, g in enumerate(branches)
        }

    together = run(list(range(4)), 3)
    apart: dict[tuple[str, int], list[int]] = {}
    for start in range(0, 4, size):
        apart |= run(order[start : start + size], 2)
        apart |= run(order[start : start + size], 1, first=2)
    assert apart == together


@pytest.mark.parametrize(
    "decoder",
    [Greedy(4), Branching(3, 4), Sampling(3, max_new_tokens=4), Sampling(3, 0.7, 0.9, 50, 0.1, 0, 4)],
    ids=repr,
)
def test_a_step_copies_nothing_to_the_host_and_no_random_number_to_the_device(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder
) -> None:
    """A tensor on `meta` has no numbers: whatever reads one raises."""
    policy = decoder.policy(["a", "b"], VOCAB)
    first = policy.first(torch.empty(2, VOCAB, device="meta"))
    rows = Rows(np.repeat(np.arange(2), first.shape[1]), np.tile(np.arange(first.shape[1]), 2))
    logits = torch.empty(first.numel(), VOCAB, device="meta")
    policy.next(logits, top2(logits), rows, 1)
    monkeypatch.setattr(torch, "from_numpy", lambda _: pytest.fail("a copy to the device"))
    assert policy.next(logits, top2(logits), rows, 2).device.type == "meta"


def test_sampling_follows_the_distribution_and_its_filters() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.0, 0.3]]))
    count = torch.bincount(Sampling(20_000, temperature=1.0).policy(["x"], 4).first(logits).flatten(), minlength=4)
    assert count[2] == 0
    torch.testing.assert_close(count / 20_000, torch.tensor([0.5, 0.2, 0.0, 0.3]), atol=0.015, rtol=0)
    for arguments, kept in (({"top_p": 0.6}, {0, 3}), ({"top_k": 1}, {0}), ({"min_p": 0.5}, {0, 3})):
        picked = Sampling(500, temperature=1.0, **arguments).policy(["x"], 4).first(logits)
        assert set(picked.flatten().tolist()) == kept


@pytest.mark.parametrize(
    ("prompts", "limit", "word"),
    [([[1], []], 4, "empty"), ([[1]], 0, "at least 1"), ([], 4, "no prompts"), ([[1] * 300], 4, "positions")],
)
def test_bad_input_is_told_in_one_line(prompts: list[list[int]], limit: int, word: str) -> None:
    with pytest.raises(UserError, match=word):
        decode(tiny_model("gpt2"), prompts, Greedy().policy([""], VOCAB), max_new_tokens=limit, stop=NO_STOP)


def test_k_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="1 to the vocabulary's 64"):
        Branching(65).policy(["x"], 64)
