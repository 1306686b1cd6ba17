"""Directions are found where they were planted, and are trained where they act."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from experiments.compatibility.census import small
from probes.batching import padding_is_unseen
from probes.capture import capture
from probes.errors import UserError
from probes.likelihood import (
    mean_losses,
    next_probabilities,
    output_head,
    output_logits,
    repeated_fraction,
    target_losses,
)
from probes.sites import Site, decoder
from steering.directions import Direction
from steering.find import (
    contrast,
    difference_of_means,
    optimise,
    pca_of_differences,
    permuted_difference,
    probe_weights,
    stream_norm,
)
from steering.hooks import attached
from steering.interventions import Add, Intervention, When
from tests.support.tiny import ARCHITECTURES, SEEING_PADDING, tiny_model

SITE = Site(1)


def planted(n: int = 200, d: int = 32, size: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    truth = torch.randn(d, generator=g)
    truth = truth / truth.norm()
    base = torch.randn(n, d, generator=g)
    noise = torch.randn(n, d, generator=g) * 0.3
    return base + noise + size * truth, base, truth


@pytest.mark.parametrize("find", [difference_of_means, pca_of_differences, probe_weights])
def test_each_method_finds_a_planted_direction(find) -> None:  # type: ignore[no-untyped-def]
    positive, negative, truth = planted()
    found = find(positive, negative, SITE)
    assert float(found.unit @ truth) > 0.9
    assert found.length == pytest.approx(2.0, rel=0.2)
    assert found.made["counts"] and found.site == SITE
    flipped = find(negative, positive, SITE)
    assert float(flipped.unit @ truth) < -0.9


@pytest.mark.parametrize("find", [difference_of_means, pca_of_differences, probe_weights])
def test_a_difference_that_is_rounding_is_none(find) -> None:  # type: ignore[no-untyped-def]
    """Made as long as the stream it would be any direction."""
    acts = planted()[0][:9]
    alike = acts[:1].expand(9, -1)
    shuffled = acts[torch.randperm(9, generator=torch.Generator().manual_seed(0))]
    assert (acts.mean(0) - shuffled.mean(0)).any()
    pairs = [(alike, alike), (acts, acts), *([(alike, alike[:4])] if find is not pca_of_differences else [])]
    for positive, negative in [*pairs, *([(acts, shuffled)] if find is difference_of_means else [])]:
        with pytest.raises(UserError, match="do not differ at this site and step"):
            find(positive, negative, SITE)
    with pytest.raises(UserError, match="has no sign"):
        pca_of_differences(acts, shuffled, SITE)


def test_prompts_that_end_alike_do_not_differ_before_the_first_block() -> None:
    positive, negative = [[5, 9, 3], [7, 8, 3], [6, 3]], [[4, 3], [9, 9, 3]]
    for method in ("means", "probe"):
        texts = (positive, negative) if method == "means" else (positive * 2, negative * 2)
        with pytest.raises(UserError, match="do not differ"):
            contrast(tiny_model("llama"), *texts, Site(0, "resid_pre"), method=method, norm="resid")


def test_means_and_probe_equal_their_definitions() -> None:
    positive, negative, _ = planted()
    found = difference_of_means(positive, negative, SITE)
    torch.testing.assert_close(found.vector, positive.mean(0) - negative.mean(0))
    probe = probe_weights(positive, negative, SITE, seed=3)
    assert probe.made["held_out"] == 100 and probe.made["held_out_accuracy"] > 0.8
    x = torch.cat([positive, negative]).numpy()
    weights = LogisticRegression(C=0.1, max_iter=2000).fit(x, np.r_[np.ones(200), np.zeros(200)]).coef_[0]
    assert float(probe.unit @ torch.from_numpy(weights / np.linalg.norm(weights)).float()) > 0.9


def test_what_pairs_share_is_not_held_against_a_probe() -> None:
    """Pairs that differ by noise alone: were one half of a pair held out, the other would vote against it."""
    found = []
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        shared = torch.randn(40, 64, generator=g) * 3
        one, other = (shared + 0.3 * torch.randn(40, 64, generator=g) for _ in range(2))
        found.append(probe_weights(one, other, SITE, seed=seed).made["held_out_accuracy"])
    assert 0.4 < np.mean(found) < 0.6
    assert probe_weights(one, other[:30], SITE).made["held_out"] == 10 + 8


def test_a_permuted_contrast_finds_nothing() -> None:
    positive, negative, truth = planted()
    found = difference_of_means(positive, negative, SITE)
    cosines = [abs(float(permuted_difference(positive, negative, found, s).unit @ truth)) for s in range(8)]
    assert np.mean(cosines) < 0.4
    assert permuted_difference(positive, negative, found, 0).length == pytest.approx(found.length, rel=1e-5)


def test_contrast_reads_at_the_step_and_measures_the_stream() -> None:
    lm = tiny_model("llama")
    positive = [[5, 9, 3, i] for i in range(8)]
    negative = [[7, 1, i] for i in range(8)]
    found = contrast(lm, positive, negative, SITE, name="x", norm="resid")
    a, b = (capture(lm, texts, [SITE], last=1) for texts in (positive, negative))
    assert a is not None and b is not None
    expected = a.values[SITE].mean(0) - b.values[SITE].mean(0)
    assert torch.nn.functional.cosine_similarity(found.vector, expected, 0) > 0.9999
    assert found.length == pytest.approx(stream_norm(lm, [*positive, *negative], SITE), rel=1e-4)
    with pytest.raises(UserError, match="have no step 2"):
        contrast(lm, positive, negative, SITE, step=2, lengths=([2] * 8, [2] * 8))
    with pytest.raises(UserError, match="do not differ"):
        contrast(lm, positive, positive, SITE)
    with pytest.raises(UserError, match="did you mean means"):
        contrast(lm, positive, negative, SITE, method="mean")


TEXTS = [[5 + i, 9, 3, 20, 21, 22, 23] for i in range(12)]
LENGTHS = [3, 2, 3] * 4


def loss_with(plan: tuple[Intervention, ...], architecture: str) -> float:
    lm = tiny_model(architecture)
    with torch.no_grad(), attached(lm, [plan], lengths=LENGTHS):
        return float(target_losses(lm, TEXTS, LENGTHS).loss.detach().mean())


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_target_loss_is_the_cross_entropy_of_the_targets(architecture: str) -> None:
    lm = tiny_model(architecture)
    total, count = 0.0, 0
    means = mean_losses(lm, [*TEXTS, TEXTS[0]], [*LENGTHS, len(TEXTS[0])], batch_size=5)
    assert means[-1] is None
    assert np.average(means[:-1], weights=[7 - n for n in LENGTHS]) == pytest.approx(  # type: ignore[arg-type]
        float(target_losses(lm, TEXTS, LENGTHS).loss.detach().mean()), rel=1e-3
    )
    for text, length in zip(TEXTS, LENGTHS, strict=True):
        with torch.no_grad():
            logprobs = torch.log_softmax(lm(input_ids=torch.tensor([text])).logits[0], -1)
        for position in range(length, len(text)):
            total -= float(logprobs[position - 1, text[position]])
            count += 1
    with torch.no_grad():
        assert float(target_losses(lm, TEXTS, LENGTHS).loss.detach().mean()) == pytest.approx(total / count, rel=1e-3)


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("falcon_h1", {"lm_head_multiplier": 0.1, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8}),
        ("hyperclovax", {"logits_scaling": 0.1}),
        ("granite", {"logits_scaling": 4.0}),
        ("cohere", {"logit_scale": 0.1}),
        ("gemma2", {"final_logit_softcapping": 2.0}),
        ("recurrent_gemma", {"logits_soft_cap": 2.0}),
        ("xlstm", {"output_logit_soft_cap": 2.0}),
    ],
)
def test_what_is_done_to_logits_is_the_models_own(architecture: str, more: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[architecture](**{**SEEING_PADDING.get(architecture, ARCHITECTURES["llama"]), **more})
    lm = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        lm.get_output_embeddings().weight.normal_(0, 1.0)
        own = lm(input_ids=torch.tensor([TEXTS[0]]), use_cache=False).logits[0]
        found = output_logits(lm, decoder(lm)(input_ids=torch.tensor([TEXTS[0]]), use_cache=False)[0][0])
    torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4)
    assert output_head(lm) != (1.0, None, None)


@pytest.mark.parametrize("architecture", ["bert", "modernbert-decoder"])
def test_a_head_that_is_more_than_a_matrix_is_refused(architecture: str) -> None:
    lm = small(architecture)
    for _ in range(2):  # what was refused once is not remembered as fine
        with pytest.raises(UserError, match="does more to its logits than its output head"):
            target_losses(lm, TEXTS, LENGTHS)


def test_a_vocabulary_without_its_padding_is_the_models_own() -> None:
    lm = small("inkling_text")
    lm.config.unpadded_vocab_size = 40
    with torch.no_grad():
        own = lm(input_ids=torch.tensor([TEXTS[0]]), use_cache=False).logits[0]
        found = output_logits(lm, decoder(lm)(input_ids=torch.tensor([TEXTS[0]]), use_cache=False)[0][0])
    torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4)
    assert output_head(lm).vocab == found.shape[1] == 40


@pytest.mark.parametrize("architecture", sorted(SEEING_PADDING))
def test_likelihoods_beside_longer_texts_are_each_texts_own(architecture: str) -> None:
    lm = tiny_model(architecture)
    assert not padding_is_unseen(lm)
    texts, lengths = [TEXTS[0][:n] for n in (5, 7, 3, 5)], [2, 4, 1, 3]
    alone = [target_losses(lm, [text], [n]).loss.detach() for text, n in zip(texts, lengths, strict=True)]
    together = target_losses(lm, texts, lengths)
    assert together.row.tolist() == [0] * 3 + [1] * 3 + [2] * 2 + [3] * 2
    torch.testing.assert_close(together.loss.detach(), torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert mean_losses(lm, texts, lengths) == pytest.approx([float(one.mean()) for one in alone], rel=1e-4)
    following = [torch.cat(list(next_probabilities(lm, [text]))) for text in texts]
    torch.testing.assert_close(torch.cat(list(next_probabilities(lm, texts, 3))), torch.cat(following))


def test_a_vector_is_optimised_beside_longer_texts_as_alone() -> None:
    lm = tiny_model("recurrent_gemma")
    texts = [text[: 7 - i % 3] for i, text in enumerate(TEXTS)]
    found = optimise(lm, texts, LENGTHS, SITE, steps=2)
    plan = (Intervention(Add(found), when=When.every_step()),)
    held = np.random.default_rng(0).permutation(len(texts)).tolist()[:3]
    losses = []
    for i in held:
        with torch.no_grad(), attached(lm, [plan], lengths=[LENGTHS[i]]):
            losses.append(target_losses(lm, [texts[i]], [LENGTHS[i]]).loss)
    assert found.made["held_out_loss"][1] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-3)


def test_repetition_counts_four_grams_that_came_before() -> None:
    assert repeated_fraction([1, 2, 3]) == 0.0 and repeated_fraction(list(range(20))) == 0.0
    assert repeated_fraction([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert repeated_fraction([7] * 20) == pytest.approx(16 / 17)


def test_an_optimised_vector_acts_as_it_was_trained() -> None:
    """Its own held-out loss is had back through an `Intervention`, with the bias before it; a random one does worse."""
    lm = tiny_model("llama")
    plain = loss_with((), "llama")
    bias = optimise(lm, TEXTS, LENGTHS, SITE, steps=40, name="bias")
    alone = (Intervention(Add(bias), when=When.every_step()),)
    assert loss_with(alone, "llama") < 0.8 * plain
    assert bias.made["held_out_loss"][1] < bias.made["held_out_loss"][0]
    random = (Intervention(Add(bias.random_like(0)), when=When.every_step()),)
    assert loss_with(random, "llama") > 1.2 * loss_with(alone, "llama")

    both = optimise(lm, TEXTS, LENGTHS, SITE, bias=bias, steps=40, seed=0)
    assert both.made["held_out_loss"][0] == pytest.approx(bias.made["held_out_loss"][1], rel=1e-3)
    order = np.random.default_rng(0).permutation(len(TEXTS)).tolist()[:3]
    plan = (*alone, Intervention(Add(both), when=When.every_step()))
    texts, lengths = [TEXTS[i] for i in order], [LENGTHS[i] for i in order]
    with torch.no_grad(), attached(lm, [plan], lengths=lengths):
        assert float(target_losses(lm, texts, lengths).loss.detach().mean()) == pytest.approx(
            both.made["held_out_loss"][1], rel=1e-3
        )
    halves = [i // 6 for i in range(len(TEXTS))]  # two answers of six sentences: one of them is held out whole
    apart = optimise(lm, TEXTS, LENGTHS, SITE, groups=halves, steps=1)
    assert apart.made["held_out"] == apart.made["texts"] == 6
    assert optimise(lm, TEXTS, LENGTHS, SITE, groups=[0] * 12, steps=1).made["held_out_loss"] is None
    again = optimise(lm, TEXTS, LENGTHS, SITE, bias=bias, steps=40, seed=0)
    assert torch.equal(again.vector, both.vector)
    assert all(p.grad is None for p in lm.parameters())


def test_bad_input_is_told_in_one_line() -> None:
    lm = tiny_model("llama")
    positive, negative, _ = planted(8)
    for call, word in (
        (lambda: optimise(lm, TEXTS, [7] * 12, SITE), "target tokens"),
        (lambda: optimise(lm, TEXTS[:2], LENGTHS[:2], SITE), "at least four"),
        (lambda: optimise(lm, TEXTS, LENGTHS, Site(9)), "4 layers"),
        (lambda: pca_of_differences(positive, negative[:5], SITE), "needs pairs"),
        (lambda: probe_weights(positive[:2], negative, SITE), "at least 4"),
        (lambda: stream_norm(lm, [[1], [2]], SITE), "one token each"),
        (lambda: Direction(torch.ones(4), SITE).normalized("resid"), "residual norm"),
    ):
        with pytest.raises(UserError, match=word) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_pattern_is_no_place_for_a_direction() -> None:
    with pytest.raises(UserError, match="can be read and not written"):
        contrast(tiny_model("llama"), [[1, 2, 3]], [[1, 5, 7]], Site(1, "pattern"))
