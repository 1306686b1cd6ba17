"""Shifts of the stream and of distributions: against plain forwards, planted agreement, and agreement by anisotropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import elicit
from elicit.analysis import analyse
from elicit.analysis.internals.convergence_shift import _band, rows, said, shifts
from elicit.analysis.internals.teacher_forcing import AGAIN, SEGMENTS, Texts, compare, distributions, positions, states
from elicit.decoding import Greedy
from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.models import Model, load_model, named_prompt
from probes.errors import UserError
from probes.shifts import raised, shift_cosine, whitening
from probes.sites import Site
from steering.directions import Direction
from steering.interventions import Add, Intervention, When
from tests.support.saes import save_random_sae
from tests.support.tiny import save_tiny

TASK = "chain-sum:min_terms=2,max_terms=2"


def pushed(model: Model, method: str, seed: int) -> Elicited:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    direction = Direction(vector, Site(1), name="d", resid_norm=7.0)
    plan = (Intervention(Add(direction.normalized("resid")), 1.0, when=When.every_step()),)
    return Elicited(model, method, decoder=Greedy(12), interventions=plan)


@pytest.fixture(scope="module")
def runs(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Run]:
    task, folder = elicit.load_task(TASK, limit=9), tmp_path_factory.mktemp("runs")
    handles = {
        "one": pushed(tiny, "one", 0), "twin": pushed(tiny, "twin", 0), "other": pushed(tiny, "other", 5),
        "cot-decoding": elicit.methods.cot_decoding.fit(tiny, k=2, max_new_tokens=12),
    }  # fmt: skip
    return {name: elicit.evaluate(one, task.test, out=folder / name) for name, one in handles.items()}


def stream(rng: np.random.Generator, count: int, d: int = 24) -> np.ndarray:
    """Activations that lie along one axis for the most part."""
    scale = np.ones(d)
    scale[0] = 40.0
    return rng.standard_normal((count, d)) * scale


def test_an_agreement_of_anisotropy_is_caught() -> None:
    """Two unrelated shifts with the stream's own covariance: their cosine is near 1 in size and says nothing."""
    rng = np.random.default_rng(0)
    called, seeming = [], []
    for seed in range(20):
        first, second = stream(rng, 2)
        noise = rng.standard_normal((2, 40, 24))
        found = shift_cosine(first + noise[0], second + noise[1], whitening(stream(rng, 400)), seed=seed)
        seeming.append(abs(found.plain) > 1.96 / np.sqrt(24))  # what directions without a covariance would call alike
        called.append(found.p < 0.05)
    assert sum(seeming) >= 15 and sum(called) <= 3


def test_a_planted_agreement_is_found() -> None:
    rng = np.random.default_rng(1)
    shared = np.eye(24)[3] * 5.0
    noise = rng.standard_normal((2, 40, 24))
    few = whitening(rng.standard_normal((400, 24)))
    found = shift_cosine(shared + noise[0], shared + noise[1], few)
    assert found.value > 0.9 and found.p < 0.01 and found.low > found.null_high and min(found.ceiling) > 0.8
    still = shift_cosine(np.zeros((4, 24)), noise[0][:4], few)
    assert np.isnan(still.value) and np.isnan(still.p)


def test_an_opposed_shift_is_not_alike() -> None:
    rng = np.random.default_rng(3)
    noise, few = rng.standard_normal((2, 40, 24)), whitening(rng.standard_normal((400, 24)))
    shared = np.eye(24)[3] * 5.0
    found = shift_cosine(shared + noise[0], noise[1] - shared, few)
    assert found.value < -0.9 and found.p * 100 < 0.05  # so small that a hundred layers can be tested
    assert said(found.value, found.p) == "opposed beyond the null" and said(0.9, 0.01) == "alike beyond the null"
    assert said(-0.9, 0.2) == "no more than the null"


def test_features_that_vary_are_not_features_that_are_raised() -> None:
    rng = np.random.default_rng(2)
    loud = np.where(np.arange(200) < 12, 30.0, 0.1)  # both vary in the same few, and raise none
    noise = rng.standard_normal((2, 30, 200)) * loud
    chance = raised(noise[0], noise[1], top=6)
    assert chance.shared > 10 / 200 and chance.p > 0.05  # far above what features drawn evenly would share
    both = np.zeros(200)
    both[[50, 60, 70, 80, 90, 100]] = 40.0
    planted = raised(noise[0] + both, noise[1] + both, top=6)
    assert planted.shared > chance.shared and planted.p < 0.05
    nothing = raised(np.zeros((3, 9)), np.zeros((3, 9)))
    assert nothing.one == () and nothing.shared == 0 and nothing.p == 1


def test_positions_cover_the_answer() -> None:
    assert [list(x) for x in positions(1)] == [[0], [0]]
    steps, parts = positions(41)
    assert steps[0] == 0 and len(set(steps)) == len(steps) == 13 and sorted(set(parts)) == [0, 1, 2, 3, 4]
    assert (np.diff(parts) >= 0).all() and steps.max() == 40 and len(SEGMENTS) == 5
    for length in range(2, 12):
        steps, _ = positions(length)
        assert steps.max() < length and len(set(steps)) == len(steps)


def test_states_and_distributions_against_plain_forwards(tiny: Model) -> None:
    task = elicit.load_task(TASK, limit=3)
    base = Elicited(tiny, "base")
    texts = Texts(task.test.items[:3], ((5, 6, 7, 8), (9, 10), (11, 12, 13, 14, 15, 16)))
    handle = pushed(tiny, "one", 0)
    other = Elicited(tiny, "asked", prompt=named_prompt("qa-cot", tiny.tokenizer))
    mean, single, _ = states(base, texts)
    moved, _, _ = states(handle, texts)
    assert single.shape[1:] == (4, 32)
    ids, lengths = texts.of(base)
    for row, (text, length) in enumerate(zip(ids, lengths, strict=True)):
        with torch.no_grad():
            hidden = tiny.lm(input_ids=torch.tensor([text]), output_hidden_states=True).hidden_states
        np.testing.assert_allclose(mean[row, 1], hidden[2][0, length - 1 :].mean(0).numpy(), atol=1e-4)
    assert not np.abs(moved[:, 0] - mean[:, 0]).max()
    assert isinstance(handle.interventions[0].what, Add)
    shift = moved[:, 1] - mean[:, 1]  # the same vector on every question
    np.testing.assert_allclose(shift, np.repeat(shift[:1], 3, 0), atol=1e-4)

    found = distributions({"base": base, "one": handle, "same": replace(base), "asked": other}, texts)
    assert np.nanmax(found["base", "same"]["KL"]) < 1e-6 and np.nanmax(found["base", AGAIN]["KL"]) < 1e-6
    assert np.nanmin(found["base", "one"]["KL"]) > 0 and np.nanmin(found["base", "asked"]["KL"]) > 0
    assert np.isnan(found["base", "one"]["KL"][1, 2:]).any() and not np.isnan(found["base", "one"]["KL"][:, 0]).any()
    with torch.no_grad():
        one = tiny.lm(input_ids=torch.tensor([ids[0][: lengths[0]]])).logits[0, -1].log_softmax(-1)
    (prompt,) = (other.prompt_ids(texts.items[0]),)
    with torch.no_grad():
        two = tiny.lm(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    kl = torch.nn.functional.kl_div
    both = (kl(one, two, log_target=True, reduction="sum") + kl(two, one, log_target=True, reduction="sum")) / 2
    assert found["base", "asked"]["KL"][0, 0] == pytest.approx(float(both), rel=1e-3)


def test_distributions_beside_longer_texts_are_each_texts_own(tmp_path: Path) -> None:
    model = load_model(str(save_tiny(tmp_path / "seeing", "recurrent_gemma")), dtype="float32", device="cpu")
    texts = Texts(elicit.load_task(TASK, limit=3).test.items[:3], ((5, 6, 7, 8), (9, 10), (11, 12, 13, 14, 15, 16)))
    base, handle = Elicited(model, "base"), pushed(model, "one", 0)
    found = distributions({"base": base, "one": handle}, texts)
    assert np.nanmax(found["base", AGAIN]["KL"]) < 1e-6
    for n in range(3):
        one = distributions({"base": base, "one": handle}, Texts(texts.items[n : n + 1], texts.answers[n : n + 1]))
        np.testing.assert_allclose(found["base", "one"]["KL"][n], one["base", "one"]["KL"][0], rtol=1e-3)


@pytest.mark.parametrize("architecture", ["recurrent_gemma", "rwkv"])
def test_states_of_a_steered_model_that_sees_padding(architecture: str, tmp_path: Path) -> None:
    model = load_model(str(save_tiny(tmp_path / "seeing", architecture)), dtype="float32", device="cpu")
    items = elicit.load_task(TASK, limit=3).test.items[:3]
    texts, handle = Texts(items, ((5, 6, 7, 8), (9, 10), (11, 12, 13, 14, 15, 16))), pushed(model, "one", 0)
    mean, _, _ = states(handle, texts)
    for n in range(3):
        alone, _, _ = states(handle, Texts(items[n : n + 1], texts.answers[n : n + 1]))
        np.testing.assert_allclose(mean[n], alone[0], rtol=1e-4, atol=1e-4)


def test_nats_have_no_interval_below_nothing() -> None:
    band = _band(np.array([[0.1, 5.0, np.nan], [0.3, 5.0, np.nan], [0.2, 5.0, np.nan]]), 0)
    assert band.low is not None and band.high is not None
    assert band.low[0] == 0 and band.high[0] > 0.2 and np.isnan([*band.low[1:], band.value[2]]).all()


def test_no_tokens_to_read_is_one_line(runs: Mapping[str, Run]) -> None:
    for tokens in (0, -3):
        with pytest.raises(UserError, match=f"^tokens = {tokens} was given; give at least 1, of each.*$"):
            shifts(list(runs.values()), tokens=tokens)


def test_the_same_token_is_held_against_what_the_base_has_left() -> None:
    base = torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log()
    one, other = torch.tensor([[0.1, 0.7, 0.1, 0.1]]).log(), torch.tensor([[0.2, 0.6, 0.1, 0.1]]).log()
    found = compare(one, other, base)
    assert found["same where both leave"][0] == 1 and found["argmax differs"][0] == 0
    assert found["chance of that"][0] == pytest.approx((0.09 + 0.01 + 0.01) / 0.25)
    assert np.isnan(compare(base, other, base)["same where both leave"][0])


def test_runs_end_to_end(runs: Mapping[str, Run], tmp_path: Path) -> None:
    sae = save_random_sae(tmp_path / "sae")
    found = shifts(list(runs.values()), limit=6, tokens=10, sae=str(sae), top=5)
    twin, unlike = found["cosines"]["one", "twin"], found["cosines"]["one", "other"]
    assert np.isnan(twin[0].value) and all(c.value > 0.999 and c.p < 0.05 for c in twin[1:])
    assert abs(unlike[1].value) < 0.9
    assert found["features"]["one", "twin"].shared == 1.0 and found["features"]["one", "twin"].p < 0.05
    assert np.nanmax(found["distributions"]["one", "twin"]["KL"]) < 1e-6
    assert "decoding alone" in found["reasons"]["cot-decoding"]
    assert any("does not apply" in row["says"] for row in rows(found))
    result = analyse("convergence-shift", list(runs.values()), limit=6, tokens=10)
    assert len({tuple(row) for row in result.table}) == 1 and result.figure.data and len(result.more) >= 2
    alone = analyse("convergence-shift", [runs["cot-decoding"]], limit=4)  # nothing but decoding: it says so
    assert alone.table[0]["says"].startswith("does not apply")


def test_refusals(runs: Mapping[str, Run], tiny: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown reference 'cot-prompt'"):
        shifts([runs["one"]], reference="cot-prompt")
    with pytest.raises(UserError, match="changes the model"):
        shifts([runs["one"]], reference="one")
    narrow = save_random_sae(tmp_path / "narrow", d_model=16)
    with pytest.raises(UserError, match="d_model 16"):
        shifts([runs["one"]], sae=str(narrow))
    alone = elicit.evaluate(elicit.methods.direct.fit(tiny, max_new_tokens=3), elicit.load_task(TASK, limit=3).test,
                            out=tmp_path / "direct", against=())  # fmt: skip
    with pytest.raises(UserError, match="no method but direct"):
        shifts([alone])
