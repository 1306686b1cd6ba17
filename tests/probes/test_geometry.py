"""Principal components of activations: against a plain SVD, what is left out, separation against its null."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.errors import UserError
from probes.geometry import activation_pca, pca_figure

RNG = np.random.default_rng(0)


def clouds(shift: float, n: int = 60, width: int = 12) -> tuple[np.ndarray, list[str]]:
    values = RNG.normal(size=(n, width))
    values[n // 2 :, 3] += shift
    return values, ["a"] * (n // 2) + ["b"] * (n // 2)


def test_components_are_those_of_the_fit_part() -> None:
    values, labels = clouds(6.0)
    fit = np.arange(60) % 2 == 0
    found = activation_pca(values, labels, fit=fit.tolist(), components=4)
    centred = values[fit] - values[fit].mean(0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(np.abs(found.components @ vt[:4].T), np.eye(4), atol=1e-8)
    assert found.explained == pytest.approx((s**2 / (s**2).sum())[:4])
    assert found.points == pytest.approx((values - values[fit].mean(0)) @ found.components.T)
    same = activation_pca(torch.tensor(values), labels, fit=fit.tolist(), components=4)
    assert same.points == pytest.approx(found.points, abs=1e-4)


def test_separation_and_its_null() -> None:
    values, labels = clouds(6.0)
    fit = (np.arange(60) % 2 == 0).tolist()
    found = activation_pca(values, labels, fit=fit)
    assert found.separation > 0.97 and found.p_value < 0.01
    assert found.null_interval[0] < 0.5 < found.null_interval[1] < 0.9
    nothing = activation_pca(clouds(0.0)[0], labels, fit=fit)
    assert nothing.p_value > 0.05 and nothing.null_interval[0] < nothing.separation
    paired = activation_pca(values, labels, fit=[*fit[:30], *fit[:30]], groups=[*range(30), *range(30)])
    assert paired.separation > 0.97 and 0.4 < paired.null.mean() < 0.6
    three = activation_pca(values, ["a", "b", "c"] * 20, fit=fit)
    assert three.measure == "silhouette" and three.null_interval[0] < three.separation < three.null_interval[1]


def test_first_positions_and_massive_activations_are_left_out() -> None:
    values, labels = clouds(6.0)
    values[7] *= 1000
    values[9] *= 1000
    positions = [1] * 60
    positions[7] = positions[20] = 0
    found = activation_pca(values, labels, positions=positions)
    assert found.left_out == {"position 0": 2, "massive activations": 1}
    assert len(found.points) == 57 and not {7, 9, 20} & set(found.kept.tolist())
    assert len(activation_pca(values, labels, positions=positions, outliers=True).points) == 60


def test_what_it_refuses() -> None:
    values, labels = clouds(1.0)
    with pytest.raises(UserError, match="59 labels were given for 60"):
        activation_pca(values, labels[1:])
    with pytest.raises(UserError, match="of two labels"):
        activation_pca(values, ["a"] * 60)
    with pytest.raises(UserError, match="at least three"):
        activation_pca(values[[0, 59]], ["a", "b"])


def test_more_labels_than_points_have_no_silhouette() -> None:
    values = clouds(1.0, n=9)[0]
    fit = [True] * 6 + [False] * 3
    with pytest.raises(UserError, match="each of the 3 activations to show has a label of its own"):
        activation_pca(values, list("abcabcabc"), fit=fit)
    with pytest.raises(UserError, match="NaN or infinity"):
        activation_pca(np.where(values == values.max(), np.nan, values), list("ababababa"))
    # Some permutations leave one label, or three, to the three points that are shown.
    found = activation_pca(values, list("abaabcaab"), fit=fit, groups=["one"] * 9)
    assert np.isfinite(found.null).all() and 0 <= found.p_value <= 1


def test_figure() -> None:
    values, labels = clouds(6.0)
    fit = np.arange(60) % 2 == 0
    found = activation_pca(values, labels, fit=fit.tolist())
    figure = pca_figure(found, hover=[f"q{i}" for i in range(60)], title="T")
    assert {t.name for t in figure.data} == {"a", "b", "a (fitted)", "b (fitted)"}
    assert sum(len(t.x) for t in figure.data) == 60
    assert f"{found.explained[0]:.0%}" in figure.layout.xaxis.title.text
    assert "AUROC" in figure.layout.title.text and "permuted" in figure.layout.title.text
    assert figure.data[0].hovertext[0].endswith("q1")
