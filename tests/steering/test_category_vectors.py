"""Vectors a category: read and trained at the positions that choose its tokens, and at no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.errors import UserError
from probes.sites import Site
from steering import storage
from steering.categories.coefficient import CoefficientHead, fit_coefficient
from steering.categories.vectors import fit_vectors
from steering.directions import Direction
from steering.find import optimise, stream_norm
from tests.support.tiny import tiny_model

SITE = Site(1)
TEXTS = [[5 + i, 9, 3, 20 + i, 21, 22, 23, 24, 25 + i] for i in range(6)]
LENGTHS = [3, 2] * 3
SPANS = [[(3, 5), (5, 9)] if i % 2 == 0 else [(2, 4), (4, 7), (7, 9)] for i in range(6)]
LABELS = [4, 7] * 1 + [7, 4, 4] + [4, 7] + [7, 4, 4] + [4, 7] + [7, 4, 4]
FLAT = [(r, *span) for r, those in enumerate(SPANS) for span in those]


def by_hand(shift: int) -> dict[int, torch.Tensor]:
    """Category means less the mean of all thought positions, at positions [first − shift, last − shift)."""
    lm = tiny_model("llama")
    inside: dict[int, list[torch.Tensor]] = {4: [], 7: []}
    everything = []
    for r, text in enumerate(TEXTS):
        with torch.inference_mode():
            h = lm(input_ids=torch.tensor([text]), output_hidden_states=True).hidden_states[2][0].double()
        everything.append(h[LENGTHS[r] - shift : len(text) - shift])
        for (row, first, last), label in zip(FLAT, LABELS, strict=True):
            if row == r:
                inside[label].append(h[first - shift : last - shift])
    return {label: torch.cat(h).mean(0) - torch.cat(everything).mean(0) for label, h in inside.items()}


def test_means_are_those_of_the_positions_that_choose_the_tokens() -> None:
    lm = tiny_model("llama")
    found, bias = fit_vectors(lm, TEXTS, LENGTHS, SPANS, torch.tensor(LABELS), SITE, names={4: "compute"})
    assert bias is None and set(found) == {4, 7} and found[4].name == "compute" and found[7].name == "category 7"
    right, late = by_hand(1), by_hand(0)
    norm = stream_norm(lm, TEXTS, SITE)
    for label, direction in found.items():
        torch.testing.assert_close(direction.unit.double(), right[label] / right[label].norm(), rtol=1e-3, atol=1e-4)
        wrong = torch.nn.functional.cosine_similarity(direction.vector.double(), late[label], 0)
        assert float(wrong) < 0.9  # one position too late is another vector
        assert direction.norm == "resid" and direction.resid_norm == pytest.approx(norm)
        assert direction.length == pytest.approx(norm, rel=1e-4) and direction.site == SITE
        assert direction.made["length before rescaling"] == pytest.approx(float(right[label].norm()), rel=1e-3)
    positions = sum(len(t) - n for t, n in zip(TEXTS, LENGTHS, strict=True))
    assert found[4].made["counts"][1] == positions
    assert found[4].made["counts"][0] + found[7].made["counts"][0] == positions


def test_what_stands_outside_of_a_sentence_changes_no_category() -> None:
    """The tokens after a sentence's last chosen one are not read for it: only the mean of all is moved."""
    lm = tiny_model("llama")
    one = fit_vectors(lm, TEXTS, LENGTHS, SPANS, LABELS, SITE).by_category
    changed = [[*text[:-1], 60] for text in TEXTS]  # each last token, which chooses nothing
    two = fit_vectors(lm, changed, LENGTHS, SPANS, LABELS, SITE).by_category
    for label in one:
        torch.testing.assert_close(one[label].unit, two[label].unit, rtol=1e-4, atol=1e-5)


def test_optimised_vectors_are_those_of_their_own_sentences() -> None:
    """The glue alone: the same calls by hand give the same vectors, bias first, contexts as prompts."""
    lm = tiny_model("llama")
    settings = {"steps": 4, "lr": 0.1}
    told: list[str] = []
    found, bias = fit_vectors(
        lm, TEXTS, LENGTHS, SPANS, LABELS, SITE, "optimised", progress=lambda name, *_: told.append(name), **settings
    )
    assert bias is not None and bias.name == "bias" and found[4].made["bias"] == "bias"
    assert found[4].made["held_out_loss"][1] < found[4].made["held_out_loss"][0]
    assert list(dict.fromkeys(told)) == ["bias", "category 4", "category 7"] and len(told) == 12
    few, _ = fit_vectors(lm, TEXTS, LENGTHS, SPANS, LABELS, SITE, "optimised", most=4, **settings)
    assert few[4].made["texts"] + few[4].made["held_out"] == 4 and few[4].made["sentences"] == LABELS.count(4)
    rng = np.random.default_rng(0)  # sentences come in a random order: all, those of 4, those of 7
    members = {label: [i for i, one in enumerate(LABELS) if one == label] for label in (4, 7)}
    order = [rng.permutation(some).tolist() for some in (range(len(LABELS)), members[4], members[7])]

    def alone(numbers: list[int], bias: Direction | None) -> torch.Tensor:
        chosen = [FLAT[i] for i in numbers]
        texts, lengths = [TEXTS[r][:last] for r, _, last in chosen], [first for _, first, _ in chosen]
        groups = [r for r, _, _ in chosen]
        return optimise(lm, texts, lengths, SITE, bias=bias, groups=groups, **settings).vector

    assert torch.equal(alone(order[0], None), bias.vector)
    assert torch.equal(alone(order[2], bias), found[7].vector)
    assert not torch.equal(alone(order[2], None), found[7].vector)


def test_a_coefficient_is_told_from_the_base() -> None:
    g = torch.Generator().manual_seed(0)
    v = torch.randn(12, generator=g) * 3
    base = torch.randn(400, 12, generator=g)
    truth = 0.5 * base[:, 0] - 0.2 * base[:, 1] + 1
    partner = base + truth[:, None] * v + torch.randn(400, 12, generator=g) * 0.1
    direction = Direction(v, SITE, "x")
    head = fit_coefficient(base, partner, direction, ridge=1e-3)
    assert head.made["held_out_r2"] > 0.95 and head.made["positions"] == 300 and head.site == SITE
    inside = (truth > head.low) & (truth < head.high)
    torch.testing.assert_close(head(base)[inside], truth[inside], rtol=0.05, atol=0.1)
    assert float(head(base * 100).max()) == pytest.approx(head.high)
    assert float(head(base * 100).min()) == pytest.approx(head.low)
    noise = fit_coefficient(torch.randn(400, 12, generator=g), partner, direction)
    assert noise.made["held_out_r2"] < 0.9


def test_what_is_held_out_are_whole_texts() -> None:
    """A text's positions are alike and its coefficient has nothing to do with another's: nothing is to be learned."""
    g = torch.Generator().manual_seed(0)
    text = torch.arange(40).repeat_interleave(10)
    base = torch.randn(40, 24, generator=g)[text] + 0.05 * torch.randn(400, 24, generator=g)
    partner = base + torch.randn(40, generator=g)[text, None] * torch.ones(24)
    direction = Direction(torch.ones(24), SITE)
    neighbours, apart = (fit_coefficient(base, partner, direction, text=t, ridge=1e-3) for t in (None, text.tolist()))
    assert neighbours.made["held_out_r2"] > 0.4 > 0.0 > apart.made["held_out_r2"]
    assert apart.made["held_out"] == 100 and apart.made["positions"] == 300 and apart.made["held_out_texts"] == 10
    assert fit_coefficient(base, partner, direction, text=[0] * 400).made["held_out_r2"] is None
    with pytest.raises(UserError, match="texts of 3 positions were given for 400"):
        fit_coefficient(base, partner, direction, text=[1, 2, 3])


def test_a_coefficient_is_kept_with_the_rest(tmp_path) -> None:  # type: ignore[no-untyped-def]
    g = torch.Generator().manual_seed(0)
    base, partner = torch.randn(20, 6, generator=g), torch.randn(20, 6, generator=g)
    head = fit_coefficient(base, partner, Direction(torch.ones(6), SITE, "x"))
    storage.write(tmp_path, "heads", {"7": head})
    kept = storage.read(tmp_path, "heads")["7"]
    assert isinstance(kept, CoefficientHead) and storage.digest(kept) == storage.digest(head)
    assert torch.equal(kept(base), head(base))


def test_what_it_refuses() -> None:
    lm = tiny_model("llama")
    x, v = torch.randn(9, 6), Direction(torch.ones(6), SITE)
    given = (lm, TEXTS, LENGTHS, SPANS, LABELS)
    for call, told in (
        (lambda: fit_vectors(*given, SITE, "mean"), "did you mean means"),
        (lambda: fit_vectors(*given, SITE, steps=3), "means take no settings"),
        (lambda: fit_vectors(*given, Site(9)), "4 layers"),
        (lambda: fit_vectors(lm, TEXTS, LENGTHS, SPANS, LABELS[1:], SITE), "14 labels were given for 15"),
        (lambda: fit_vectors(lm, TEXTS, LENGTHS, SPANS, [*LABELS[1:], 9], SITE), "category 9 has 1 sentences"),
        (lambda: fit_vectors(lm, TEXTS, LENGTHS, SPANS, [1] * 15, SITE), "does not differ"),
        (lambda: fit_coefficient(x, x[:8], v), r"activations \[9, 6\] of the base"),
        (lambda: fit_coefficient(x[:4], x[:4], v), "eight at least"),
        (lambda: fit_coefficient(x, x + 1, v, ridge=0.0), "positive penalty"),
        (lambda: fit_coefficient(x, x + 1, v)(torch.ones(2, 5)), "width 5"),
    ):
        with pytest.raises(UserError, match=told) as caught:
            call()
        assert "\n" not in str(caught.value)
