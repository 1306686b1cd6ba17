"""Linear probes and layers: against slow versions and scikit-learn, planted effects, and effects that only seem so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

import elicit
from elicit.analysis import analyse
from elicit.analysis.internals.inputs import last_activations
from elicit.analysis.internals.layers import against, carried, similarity
from elicit.analysis.internals.linear_probes import probe
from elicit.models import Model, load_model
from probes.errors import UserError
from probes.linear import PENALTY, auroc_columns, crossfit, folds_of, spearman_columns
from probes.similarity import cka_of, gram, linear_cka
from probes.sites import Site
from tests.support.tiny import save_tiny

TASK = "chain-sum:min_terms=2,max_terms=2"


def test_crossfit_is_ridge_on_the_other_folds() -> None:
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, 30, 50))
    x[:, 0] = 3.0  # never changes
    y = rng.integers(0, 2, 30).astype(float)
    folds = folds_of([str(n // 2) for n in range(30)])
    assert all(folds[2 * n] == folds[2 * n + 1] for n in range(15))
    found = crossfit(x, y, [x, other], folds, permutations=3)
    assert found.null[1].shape == (30, 3)
    for fold in range(5):
        fit = folds != fold
        spread = np.where(x[fit].std(0) > 0, x[fit].std(0), 1)
        z = (x - x[fit].mean(0)) / spread
        w = (other - x[fit].mean(0)) / spread
        ridge = Ridge(alpha=PENALTY * np.trace(z[fit] @ z[fit].T) / fit.sum(), fit_intercept=False)
        ridge.fit(z[fit], y[fit] - y[fit].mean())
        np.testing.assert_allclose(found.scores[0][~fit], ridge.predict(z[~fit]), atol=1e-6)
        np.testing.assert_allclose(found.scores[1][~fit], ridge.predict(w[~fit]), atol=1e-6)
    columns = auroc_columns(np.column_stack([found.scores[0], -found.scores[0]]), y)
    assert columns[0] == pytest.approx(roc_auc_score(y, found.scores[0])) and columns.sum() == pytest.approx(1)
    rho = spearman_columns(found.scores[0][:, None], x[:, 3])[0]
    assert rho == pytest.approx(stats.spearmanr(found.scores[0], x[:, 3]).statistic)
    with pytest.raises(UserError, match="at least 5"):
        folds_of(["a", "b"])


def planted(seed: int, signal: float, length: float) -> dict[str, np.ndarray]:
    """Activations of two layers that hold a hidden cause or the question's length, and a label."""
    rng = np.random.default_rng(seed)
    cause, long = rng.normal(size=(2, 120))
    label = (signal * cause + length * long + 0.3 * rng.normal(size=120) > 0).astype(float)
    x = rng.normal(size=(2, 120, 40))
    x[1, :, 0] += 4 * signal * cause + 4 * length * long
    return {"x": x, "label": label, "surface": np.column_stack([long, rng.normal(size=120)])}


def test_a_label_that_is_the_questions_length_is_caught() -> None:
    data = planted(0, 0.0, 1.0)
    (found,) = probe(data["x"], data["label"], [data["x"]], [data["label"]], data["surface"], range(120))
    assert found.value[1] > 0.75 and found.p < 0.05  # as it seems
    assert found.surface > 0.85 and found.beyond[1] <= 0


def test_a_planted_cause_is_found_and_noise_is_not() -> None:
    data = planted(1, 1.0, 0.0)
    (found,) = probe(data["x"], data["label"], [data["x"]], [data["label"]], data["surface"], range(120))
    assert found.best == 1 and found.chosen[0] > 0.75 and found.p < 0.05 and found.beyond[1] > 0.1
    assert abs(found.surface - 0.5) < 0.15
    noise = planted(2, 0.0, 0.0)
    seen = probe(noise["x"], noise["label"], [noise["x"]], [noise["label"]], noise["surface"], range(120))[0]
    assert seen.p > 0.05 and seen.null.max(0).mean() > 0.5  # the best of two layers is above a half by itself
    ranked = probe(
        data["x"], data["label"], [data["x"]], [data["x"][1, :, 0]], data["surface"], range(120), ranked=True
    )
    assert ranked[0].chosen[0] > 0.5


def test_probes_of_runs(tiny: Model, tmp_path: Path) -> None:
    task = elicit.load_task(TASK, limit=40)
    handle = elicit.methods.cot_prompt.fit(tiny, max_new_tokens=2)
    run = elicit.evaluate(handle, task.test, out=tmp_path / "run", against="direct")
    with pytest.raises(UserError, match="direct is wrong on all"):  # a random model
        analyse("probes", [run])
    with pytest.raises(UserError, match="at least 20"):
        analyse("probes", [run], limit=8)
    scores = run.metrics["arms"]["direct"]["scores"]
    for n, item in enumerate(scores):
        scores[item] = float(n % 2)
    with pytest.raises(UserError, match="unknown reference 'self-consistency'"):
        analyse("probes", [run], reference="self-consistency")
    result = analyse("probes", [run])
    assert len({tuple(row) for row in result.table}) == 1
    said = {(row["arm"], row["target"]): row["says"] for row in result.table}
    assert "wrong on all" in said["cot-prompt", "will be right"] and "equally hard" in said["direct", "difficulty"]
    assert len(result.data["probes"]["will be right"]["direct"]["value"]) == 4


def test_cka_is_the_unbiased_one() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert linear_cka(x, 3 * x @ turn) == pytest.approx(1)
    # With more dimensions than items the plain estimator calls unrelated sets alike.
    one, other = rng.normal(size=(2, 12, 400))
    k, l = gram(one), gram(other)  # noqa: E741
    plain = (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())
    assert plain > 0.8 and abs(linear_cka(one, other)) < 0.4
    means = [linear_cka(*rng.normal(size=(2, 12, 50))) for _ in range(60)]
    assert abs(np.mean(means)) < 0.05
    draw = rng.integers(0, 12, 12)
    assert cka_of(k, k, draw) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least four"):
        linear_cka(x[:3], x[:3])


def test_layers_that_part_for_any_words_are_caught_and_a_planted_layer_is_found() -> None:
    """All prompts part more with every layer; the slow one parts in the last layer beyond that."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, 40, 12))
    fast, slow, *others = (
        shared + np.array([0.1, 0.6, 1.0])[:, None, None] * rng.normal(size=(3, 40, 12)) for _ in range(5)
    )
    seeming = similarity(fast, slow, others)
    assert seeming["value"][0] > seeming["value"][2] + 0.2  # "knowledge low, reasoning high"
    assert all(low <= 0 <= high for low, high in zip(seeming["beyond low"], seeming["beyond high"], strict=True))
    slow = slow.copy()
    slow[2] = rng.normal(size=(40, 12))
    found = similarity(fast, slow, others)
    assert found["beyond high"][2] < 0 and found["beyond low"][0] <= 0 <= found["beyond high"][0]

    effect = np.array([[0.1], [0.5], [1.0]]) + 0.05 * rng.normal(size=(3, 40))
    nulls = [np.array([[0.1], [0.5], [1.0]]) + 0.05 * rng.normal(size=(3, 40)) for _ in range(3)]
    seeming = against(effect, nulls)
    assert seeming["value"][2] > 0.9 and max(map(abs, seeming["beyond"])) < 0.03
    effect[1] += 0.3
    assert against(effect, nulls)["beyond low"][1] > 0.15


def test_patching_against_its_ends(tiny: Model) -> None:
    """The last layer brings all of it, one's own stream nothing, and the middle what a plain forward says."""
    tokenizer = tiny.tokenizer
    fast, slow = ([list(tokenizer(t)["input_ids"]) for t in texts] for texts in (["abc", "defgh"], ["xyzw", "uv"]))  # type: ignore[arg-type]
    sites = [Site(layer) for layer in range(4)]

    def stream(texts: list[list[int]]) -> np.ndarray:
        read = last_activations(tiny, texts, sites)
        return np.stack([read[site].double().numpy() for site in sites])

    found = carried(tiny, fast, slow, stream(slow))
    np.testing.assert_allclose(found[-1], 1, atol=1e-4)
    np.testing.assert_allclose(carried(tiny, fast, slow, stream(fast)), 0, atol=1e-3)
    given = torch.from_numpy(stream(slow)[1, :1]).float()[:, None]
    with torch.no_grad():
        ends = [tiny.lm(input_ids=torch.tensor([t])).logits[0, -1].log_softmax(-1) for t in (fast[0], slow[0])]
        handle = tiny.lm.model.layers[1].register_forward_hook(lambda m, a, h: torch.cat([h[:, :-1], given], 1))
        patched = tiny.lm(input_ids=torch.tensor([fast[0]])).logits[0, -1].log_softmax(-1)
        handle.remove()
    kl = [(ends[1].exp() * (ends[1] - q)).sum() for q in (patched, ends[0])]
    assert found[1, 0] == pytest.approx(float(1 - kl[0] / kl[1]), abs=1e-3)


def test_patching_beside_longer_prompts_is_each_prompts_own(tmp_path: Path) -> None:
    model = load_model(str(save_tiny(tmp_path / "seeing", "rwkv")), dtype="float32", device="cpu")
    fast, slow = [[5, 9, 3], [7, 8, 9, 10, 11, 12]], [[30, 31, 32, 33], [20, 21]]
    sites = [Site(layer) for layer in range(3)]
    read = last_activations(model, slow, sites)
    stream = np.stack([read[site].double().numpy() for site in sites])
    alone = [carried(model, fast[n : n + 1], slow[n : n + 1], stream[:, n : n + 1]) for n in range(2)]
    np.testing.assert_allclose(carried(model, fast, slow, stream), np.concatenate(alone, 1), atol=1e-4)


def test_layers_of_a_model(tiny: Model) -> None:
    result = analyse("layers", tiny, task=TASK, limit=8)
    assert len(result.table) == 4 and result.table[-1]["carried"] == pytest.approx(1, abs=1e-3)
    assert result.table[-1]["carried null"] == pytest.approx(1, abs=1e-3) and len(result.more) == 1
    with pytest.raises(UserError, match="give one"):
        analyse("layers", tiny, task=TASK, prompt=["qa", "chat"])
