"""Advantages, losses and log-probabilities against hand-written numbers and plain forwards."""

from __future__ import annotations

import copy
import math
import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from elicit.methods.one_shot_rlvr.example_selection import historical_variance
from elicit.training import output_head
from elicit.training.output_head import summed_loss
from elicit.training.rl import losses
from elicit.training.rl.curve import Point, columns, line, saturation, summary
from elicit.training.rl.policy import WIDTHS, Batch, hidden_states, logprobs, pieces, prefix_of
from elicit.training.rl.settings import Settings
from probes.batching import left_pad
from probes.errors import UserError
from probes.sites import decoder
from tests.support.tiny import VOCAB, tiny_model

PROMPTS = [[5, 9, 3, 7, 7, 21], [11, 40, 2]]
ANSWERS = [[8, 4, 6], [12], [9, 9, 9, 30, 31], [2, 44, 45, 46]]
QUESTION = [0, 0, 1, 1]
LIMIT = 6


def test_advantages_of_worked_groups() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
    assert losses.advantages(rewards, "dr-grpo").tolist() == [[0.75, -0.25, -0.25, -0.25], [0, 0, 0, 0]]
    # the other three have mean 0; each of them sees (1 + 0 + 0) / 3
    assert losses.advantages(rewards, "rloo")[0].tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    # the sample's standard deviation of (1, 0, 0, 0) is 1/2
    assert losses.advantages(rewards, "grpo")[0].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], rel=1e-4)
    assert losses.advantages(torch.full((1, 3), 0.1), "grpo").tolist() == [[0, 0, 0]]
    with pytest.raises(UserError, match="did you mean grpo"):
        losses.advantages(rewards, "gpro")


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=8))
def test_advantages_add_up_to_nothing_and_rloo_leaves_itself_out(rewards: list[float]) -> None:
    r = torch.tensor([rewards], dtype=torch.float64)
    for how in losses.ADVANTAGES:
        assert abs(float(losses.advantages(r, how).sum())) < 1e-6
    left_out = [x - (sum(rewards) - x) / (len(rewards) - 1) for x in rewards]
    assert losses.advantages(r, "rloo")[0].tolist() == pytest.approx(left_out, abs=1e-9)


def test_weights_of_tokens() -> None:
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    token, sequence, constant = (losses.token_weights(mask, how) for how in losses.AGGREGATES)
    assert token.tolist() == [[0.25, 0.25, 0.25, 0], [0.25, 0, 0, 0]]
    assert sequence[0].tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 0]) and sequence[1, 0] == 0.5
    assert constant.tolist() == [[0.125, 0.125, 0.125, 0], [0.125, 0, 0, 0]]


def test_the_surrogate_and_its_bounds() -> None:
    ratio = torch.tensor([1.0, 1.5, 1.5, 0.5, 0.5])
    advantage = torch.tensor([2.0, 1.0, -1.0, 1.0, -1.0])
    old = torch.full((5,), -1.0)
    logprob = (old + ratio.log()).requires_grad_()
    loss = losses.surrogate(logprob, old, advantage, 0.2, 0.2)
    assert loss.tolist() == pytest.approx([-2.0, -1.2, 1.5, -0.5, 0.8])
    loss.sum().backward()
    assert logprob.grad is not None
    # a bound that holds back leaves no gradient; else it is −ρ A
    assert logprob.grad.tolist() == pytest.approx([-2.0, 0.0, 1.5, -0.5, 0.0])
    assert losses.clipped(ratio, advantage, 0.2, 0.2).tolist() == [False, True, False, False, True]


def test_bounds_may_differ() -> None:
    ratio, advantage = torch.tensor([1.25, 0.75, 1.25, 0.75]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    wide = losses.clipped(ratio, advantage, 0.2, 0.28)
    assert wide.tolist() == [False, True, False, True]
    loss = losses.surrogate(ratio.log(), torch.zeros(4), advantage, 0.2, 0.28)
    assert loss.tolist() == pytest.approx([-1.25, 0.8, -1.25, 0.8])
    assert losses.surrogate(torch.tensor([0.5]), torch.zeros(1), torch.ones(1), 0.2, 0.28).tolist() == pytest.approx(
        [-1.28]
    )


def test_kl_is_estimated_without_bias_and_never_below_nothing() -> None:
    rng = np.random.default_rng(0)
    p, q = (torch.tensor(rng.dirichlet(np.ones(5))) for _ in range(2))
    expected = float((p * (p / q).log()).sum())
    assert float((p * losses.k3(p.log(), q.log())).sum()) == pytest.approx(expected, rel=1e-9)
    assert float(losses.k3(p.log(), q.log()).min()) >= 0
    assert float(losses.k3(torch.tensor(-1.0), torch.tensor(-2.0))) == pytest.approx(math.exp(-1))


def fresh(kind: str) -> PreTrainedModel:
    lm = copy.deepcopy(tiny_model(kind))
    lm.set_attn_implementation("eager")
    return lm


def batch() -> Batch:
    return Batch.of(left_pad(PROMPTS), QUESTION, ANSWERS, LIMIT)


def plain(lm: PreTrainedModel, temperature: float) -> tuple[list[Tensor], list[Tensor]]:
    """Each answer after its prompt, alone, on the model's own logits."""
    logprob, entropy = [], []
    for question, ids in zip(QUESTION, ANSWERS, strict=True):
        prompt = PROMPTS[question]
        logits = lm(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0]
        logp = torch.log_softmax(logits[len(prompt) - 1 : -1].float() / temperature, -1)
        logprob.append(logp.gather(1, torch.tensor(ids)[:, None])[:, 0])
        entropy.append(-(logp.exp() * logp).sum(-1))
    return logprob, entropy


def weighted_sum(of_logprob: Tensor, of_entropy: Tensor, logprob: Tensor, entropy: Tensor, some: slice) -> Tensor:
    """A loss with gradients of its own for each token, of both."""
    return (of_logprob[some] * logprob).sum() + (of_entropy[some] * entropy).sum()


def any_weights(n: int) -> tuple[Tensor, Tensor]:
    return torch.linspace(-1, 2, n), torch.linspace(0.3, -0.7, n)


def gradients(lm: PreTrainedModel) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}
    lm.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gemma3", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_shared_prompt_has_the_gradient_of_plain_forwards(kind: str, temperature: float) -> None:
    lm = fresh(kind).requires_grad_(True)
    logprob, entropy = plain(lm, temperature)
    weighted_sum(*any_weights(sum(map(len, ANSWERS))), torch.cat(logprob), torch.cat(entropy), slice(None)).backward()
    expected = gradients(lm)

    made = batch()
    prefix = prefix_of(lm, made.prompts)
    leaves = prefix.leaves()
    lengths = [len(ids) for ids in ANSWERS]
    found_logprob, found_entropy = [], []
    weights = [w.split(lengths) for w in any_weights(sum(lengths))]
    for start in (0, 2):  # two parts, whose gradients add up
        rows = slice(start, start + 2)
        part = Batch(made.prompts, made.question[rows], made.tokens[rows], made.mask[rows])
        hidden = hidden_states(lm, leaves, part)
        some = [torch.cat(w[rows]) for w in weights]
        loss, lp, h = summed_loss(lm, hidden, part.tokens[part.mask], temperature, partial(weighted_sum, *some))
        assert torch.allclose(loss, weighted_sum(*some, lp, h, slice(None)), atol=1e-5)
        loss.backward()
        found_logprob.append(lp)
        found_entropy.append(h)
    prefix.backward(leaves)
    assert torch.allclose(torch.cat(found_logprob), torch.cat(logprob), atol=1e-5)
    assert torch.allclose(torch.cat(found_entropy), torch.cat(entropy), atol=1e-5)
    found = gradients(lm)
    assert set(found) == set(expected)
    largest = max(float(grad.abs().max()) for grad in expected.values())
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, atol=1e-5 * largest), name


def backward(lm: PreTrainedModel, made: Batch, part: int, segment: int, checkpointing: bool) -> float:
    """A weighted loss of the batch with its gradient, by pieces; the loss."""
    weights = [torch.zeros(made.mask.shape).masked_scatter(made.mask, w) for w in any_weights(int(made.mask.sum()))]
    total = 0.0
    prefix = prefix_of(lm, made.prompts)
    leaves = prefix.leaves()
    for rows, some in made.parts(part):
        for piece in pieces(lm, leaves, some, segment, checkpointing=checkpointing):
            mask = some.mask[:, piece.columns]
            each = partial(weighted_sum, *(w[rows, piece.columns][mask] for w in weights))
            loss, _, _ = summed_loss(lm, piece.hidden, some.tokens[:, piece.columns][mask], 0.9, each)
            piece.backward(loss)
            total += loss.item()
    prefix.backward(leaves)
    return total


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize(("segment", "checkpointing"), [(1, False), (2, True), (3, False)])
def test_segments_of_an_answer_have_the_gradient_of_the_whole(kind: str, segment: int, checkpointing: bool) -> None:
    lm = fresh(kind).requires_grad_(True)
    loss = backward(lm, batch(), 4, 0, False)
    expected = gradients(lm)
    assert backward(lm, batch(), 2, segment, checkpointing) == pytest.approx(loss, rel=1e-6)
    found = gradients(lm)
    assert set(found) == set(expected)
    largest = max(float(grad.abs().max()) for grad in expected.values())
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, atol=1e-5 * largest), name


def test_a_token_that_was_not_chosen_has_no_part_in_the_gradient() -> None:
    lm = fresh("llama").requires_grad_(True)
    kept = [[place for place in range(len(ids)) if (row, place) not in {(0, 1), (1, len(ANSWERS[1]) - 1)}]
            for row, ids in enumerate(ANSWERS)]  # fmt: skip
    logprob, _ = plain(lm, 0.9)
    chosen = torch.cat([of_row[places] for of_row, places in zip(logprob, kept, strict=True)])
    weights, of_entropy = any_weights(len(chosen))
    entropy = torch.cat([of_row[places] for of_row, places in zip(plain(lm, 0.9)[1], kept, strict=True)])
    weighted_sum(weights, of_entropy, chosen, entropy, slice(None)).backward()
    expected = gradients(lm)
    made = batch()
    made.mask[0, 1] = made.mask[1, len(ANSWERS[1]) - 1] = False
    for segment in (0, 1, 2):
        backward(lm, made, 2, segment, False)
        found = gradients(lm)
        largest = max(float(grad.abs().max()) for grad in expected.values())
        for name, grad in expected.items():
            assert torch.allclose(found[name], grad, atol=1e-5 * largest), name


class Alive:
    """Bytes of what autograd keeps for a backward inside the context: now and at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def keep(self, t: Tensor) -> Any:
        self.now += t.nbytes
        self.most = max(self.most, self.now)
        box = [t]
        held = lambda: box[0]  # noqa: E731
        weakref.finalize(held, self.free, t.nbytes)
        return held

    def free(self, size: int) -> None:
        self.now -= size


def kept_at_most(lm: PreTrainedModel, rollouts: int, length: int, segment: int) -> int:
    alive = Alive()
    answers = [[1 + (3 * row + n) % 40 for n in range(length)] for row in range(rollouts)]
    made = Batch.of(left_pad(PROMPTS[:1]), [0] * rollouts, answers, length)
    with torch.autograd.graph.saved_tensors_hooks(alive.keep, lambda held: held()):
        backward(lm, made, 1, segment, False)
    return alive.most


def test_what_is_kept_for_the_gradient_grows_neither_with_rollouts_nor_as_fast_as_answers() -> None:
    lm = fresh("llama").requires_grad_(True)
    assert kept_at_most(lm, 6, 64, 16) == kept_at_most(lm, 2, 64, 16)
    assert kept_at_most(lm, 1, 128, 16) < 0.3 * kept_at_most(lm, 1, 128, 0)


def test_log_probabilities_without_gradient_are_the_same() -> None:
    lm = fresh("llama")
    with torch.no_grad():
        expected, _ = plain(lm, 0.8)
    for part, segment in ((1, 0), (2, 2), (4, 0), (4, 3)):
        found = logprobs(lm, batch(), part, 0.8, segment)
        assert found[~batch().mask].abs().max() == 0
        for row, ids in enumerate(expected):
            assert torch.allclose(found[row, : len(ids)], ids, atol=1e-5)


@pytest.mark.parametrize("tile", [7 * VOCAB, 1 << 20])
def test_chunks_and_tiles_of_positions_do_not_matter(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_head, "TILE", tile)
    lm = fresh("gemma2").requires_grad_(True)
    torch.manual_seed(0)
    hidden = torch.randn(300, lm.config.hidden_size)  # more than one chunk, the last not full
    target = torch.randint(0, VOCAB, (300,))
    sides = []
    for chunked in (True, False):
        h = hidden.clone().requires_grad_()
        if chunked:
            loss, lp, entropy = summed_loss(lm, h, target, 0.7, partial(weighted_sum, *any_weights(300)))
        else:
            cap = lm.config.final_logit_softcapping
            logits = torch.tanh((h @ lm.get_output_embeddings().weight.T) / cap) * cap / 0.7
            logp = torch.log_softmax(logits, -1)
            lp, entropy = logp.gather(1, target[:, None])[:, 0], -(logp.exp() * logp).sum(-1)
            loss = weighted_sum(*any_weights(300), lp, entropy, slice(None))
        loss.backward()
        sides.append((lp.detach(), entropy.detach(), h.grad, gradients(lm)["model.embed_tokens.weight"]))
    for one, other in zip(*sides, strict=True):
        assert one is not None and other is not None
        assert torch.allclose(one, other, atol=1e-4)


def test_a_head_with_a_bias_is_refused() -> None:
    lm = fresh("llama")
    lm.lm_head = nn.Linear(32, VOCAB)
    with pytest.raises(UserError, match="bias"):
        summed_loss(lm, torch.zeros(1, 32), torch.zeros(1, dtype=torch.long), 1.0, lambda lp, _, __: lp.sum())


def uneven(lengths: list[int], limit: int) -> Batch:
    answers = [[1 + (7 * row + n) % 40 for n in range(length)] for row, length in enumerate(lengths)]
    return Batch.of(left_pad(PROMPTS), [row % len(PROMPTS) for row in range(len(lengths))], answers, limit)


def test_parts_have_rows_of_like_length_in_few_widths() -> None:
    limit = 200
    made = uneven([200, 3, 199, 1, 14, 60], limit)
    found = [(rows.tolist(), part.mask.shape[1]) for rows, part in made.parts(2)]
    assert found == [([0, 2], 200), ([5, 4], 65), ([1, 3], 13)]  # a sixteenth of the limit is 13
    for rows, part in made.parts(2):
        width = part.mask.shape[1]
        assert torch.equal(part.tokens, made.tokens[rows, :width]) and not made.mask[rows, width:].any()
        assert torch.equal(part.question, made.question[rows])
    widths = {part.mask.shape[1] for n in range(1, limit + 1) for _, part in uneven([n], limit).parts(1)}
    assert len(widths) == WIDTHS and max(widths) == limit
    assert {part.mask.shape[1] for n in (1, 2) for _, part in uneven([n], 2).parts(1)} == {2}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_parts_without_padding_have_the_gradient_of_one_part_with_all_of_it(kind: str) -> None:
    lm = fresh(kind).requires_grad_(True)
    made = uneven([40, 2, 9, 1, 17, 33], 40)
    sides = []
    for part in (6, 2):  # one part, as wide as its longest row, and three
        sides.append((backward(lm, made, part, 0, False), gradients(lm)))
    assert sides[0][0] == pytest.approx(sides[1][0], rel=1e-5)
    largest = max(float(grad.abs().max()) for grad in sides[0][1].values())
    for name, grad in sides[0][1].items():
        assert torch.allclose(sides[1][1][name], grad, atol=1e-5 * largest), name


def test_positions_after_the_longest_of_a_part_are_not_computed() -> None:
    lm = fresh("llama")
    output_head.output_head(lm)  # which is tried once
    fed: list[Any] = []
    hook = decoder(lm).register_forward_pre_hook(
        lambda _, __, kwargs: fed.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with hook:
        logprobs(lm, uneven([60, 1, 2, 61], 96), 2, 1.0)
    assert fed[1:] == [(2, 63), (2, 7)]  # the first are the prompts


def test_the_saturation_step() -> None:
    assert saturation([0.1, 0.96, 0.5, 0.95, 1.0, 0.97]) == 3
    assert saturation([1.0, 1.0]) == 0
    assert saturation([0.2, 0.99, 0.94]) is None and saturation([]) is None


def point(update: int, reward: float, **more: Any) -> Point:
    facts: dict[str, Any] = dict(
        accuracy=reward, entropy=0.5, kl=0.0, mixed=1 - reward, constant=0.5, low=1.0, high=1.0, clipped=0.0,
        sampler=0.0, loss=0.0, norm=1.0, tokens=10, seconds=0.5,
    )  # fmt: skip
    return Point(update, reward, **{**facts, **more})


def test_what_is_read_from_a_curve() -> None:
    curve = [point(n, reward) for n, reward in enumerate([0.0, 0.5, 1.0, 1.0])]
    found = summary(curve)
    assert found["saturation"] == 2 and found["groups without variance"] == pytest.approx(0.625)
    assert found["groups without variance after saturation"] == 1.0 and found["tokens"] == 40
    assert "constant answers after saturation" not in summary(curve[:2])
    assert columns(curve)["reward"] == [0, 0.5, 1, 1] and "held out" not in columns(curve)
    many = [point(n, 0.5) for n in range(1000)]
    assert len(columns(many)["update"]) == 400 and columns(many)["update"][-1] == 999
    checked = [*curve, point(4, 1.0, held_out=0.25)]
    assert columns(checked)["checked at"] == [4] and columns(checked)["held out"] == [0.25]
    said = line(checked)
    assert said.startswith("▁▅██") and "held out 0.25" in said and "20 tokens/s" in said


def test_historical_variance_of_worked_epochs() -> None:
    accuracy = np.array([[0.0, 0.5, 1.0], [1.0, 0.5, 1.0], [0.0, 0.5, 0.0], [1.0, 0.5, 0.0]])
    assert historical_variance(accuracy).tolist() == [0.25, 0.0, 0.25]


@pytest.mark.parametrize(("options", "words"), [
    ({"updates": 0}, "updates = 0 was given; give at least 1"),
    ({"group": 1}, "give at least 2"),
    ({"rollouts": 10, "group": 4}, "give a group that divides"),
    ({"rollouts": 12, "group": 4, "part": 8}, "give a part that divides"),
    ({"temperature": 0.0}, "above 0"),
    ({"clip_low": 1.5}, r"in \(0, 1\]"),
    ({"kl": -1.0}, "kl = -1.0 was given; give at least 0"),
    ({"entropy": -1.0}, "entropy = -1.0 was given; give at least 0"),
    ({"advantage": "grop"}, "did you mean grpo"),
    ({"aggregate": "token"}, "token-mean"),
])  # fmt: skip
def test_settings_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Settings(**options)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["temperature", "lr", "grad_clip", "clip_low", "clip_high", "kl", "entropy"])
def test_settings_that_are_not_finite(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{name} = {value} was given; give a"):
        Settings(**{name: value})


def test_which_items_a_rollout_is_of() -> None:
    settings = Settings(rollouts=32, group=8)
    assert settings.plan(1, 5) == ([0], 32) and settings.plan(2, 5) == ([0, 1], 16)
    assert settings.plan(6, 0) == ([0, 1, 2, 3], 8) and settings.plan(6, 1) == ([4, 5, 0, 1], 8)
    with pytest.raises(UserError, match="divides the groups"):
        settings.plan(3, 0)
    assert [settings.rate(n) / settings.lr for n in range(3)] == [0.5, 1, 1]
