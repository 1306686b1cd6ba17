"""Geometry of activations: principal components, fitted on one part and shown on the other, against permuted labels.

Components are scikit-learn's. Left out by default are each prompt's first position and massive activations (arXiv
2402.17762): they are orders of magnitude longer than all others, and any component would be theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Shaped
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from torch import Tensor

from probes.auroc import auroc
from probes.errors import UserError
from probes.figures import styled
from probes.inert import label
from probes.sweep import COLOURS

MASSIVE = 10.0  # times the median norm
PERMUTATIONS = 500


@dataclass(frozen=True, eq=False)
class Projection:
    """Activations on their principal components.

    Args:
        points: on the components, of the observations that were kept.
        labels: of the points.
        fitted: whether the components (and the sign of the first) come from this point.
        kept: of all observations, the number of each point.
        explained: fraction of the fit part's variance on each component.
        components: unit vectors.
        mean: of the fit part.
        left_out: why and how many observations were left out.
        measure: what `separation` is.
        separation: of the labels, on the points that were not fitted (on all where all were).
        null: the same with permuted labels.
    """

    points: Float[np.ndarray, "points components"]
    labels: tuple[str, ...]
    fitted: Bool[np.ndarray, " points"]
    kept: Shaped[np.ndarray, " points"]
    explained: Float[np.ndarray, " components"]
    components: Float[np.ndarray, "components d_model"]
    mean: Float[np.ndarray, " d_model"]
    left_out: dict[str, int]
    measure: str
    separation: float
    null: Float[np.ndarray, " permutations"]

    @property
    def p_value(self) -> float:
        """Chance of a separation as large under permuted labels."""
        return float((1 + (self.null >= self.separation).sum()) / (1 + len(self.null)))

    @property
    def null_interval(self) -> tuple[float, float]:
        """The middle 95% of the null."""
        low, high = np.quantile(self.null, [0.025, 0.975])
        return float(low), float(high)


def activation_pca(
    activations: Float[np.ndarray, "n d_model"] | Float[Tensor, "n d_model"],
    labels: Sequence[str],
    *,
    fit: Sequence[bool] | None = None,
    positions: Sequence[int] | None = None,
    groups: Sequence[Any] | None = None,
    components: int = 3,
    outliers: bool = False,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Projection:
    """Principal components of activations, and how well the first one separates their labels.

    With two labels the separation is the AUROC of the first component, whose sign is chosen on the fit part (on all
    points where all were fitted: then it is at least 0.5, and so is its null). With more labels it is the silhouette of
    the components.

    Args:
        activations: one an observation.
        labels: of the observations.
        fit: which observations the components may see; all unless given.
        positions: of the observations in their prompts; position 0 is left out.
        groups: labels are permuted within a group (the two prompts of one question), if given.
        components: how many.
        outliers: keep position 0 and massive activations.
        permutations: of the labels, for the null.

    Raises:
        UserError: lengths that differ, NaN or infinity, one label only, too few observations.
    """
    values = activations.detach().float().cpu().numpy() if isinstance(activations, Tensor) else activations
    values = np.asarray(values, dtype=np.float64)
    given = {"labels": labels, "fit": fit, "positions": positions, "groups": groups}
    for name, one in given.items():
        if one is not None and len(one) != len(values):
            raise UserError(f"{len(one)} {name} were given for {len(values)} activations; give one each")
    if not np.isfinite(values).all():
        raise UserError("the activations hold NaN or infinity; read them again, in fp32")
    keep, left_out = _usual(values, positions, outliers)
    kept = np.flatnonzero(keep)
    values = values[kept]
    named = np.asarray(labels, dtype=object)[kept]
    fitted = np.ones(len(kept), dtype=bool) if fit is None else np.asarray(fit, dtype=bool)[kept]
    inside = None if groups is None else np.unique([str(g) for g in groups], return_inverse=True)[1][kept]
    shown = ~fitted if not fitted.all() else fitted
    for part in (fitted, shown):
        if len(set(named[part])) < 2 or part.sum() < 3:
            raise UserError(
                f"{int(part.sum())} activations with {len(set(named[part]))} labels are left of a part; "
                "give at least three, of two labels, to fit and to show"
            )
    if len(set(named)) > 2 and len(set(named[shown])) == shown.sum():
        raise UserError(f"each of the {shown.sum()} activations to show has a label of its own; give more of a label")
    components = min(components, int(fitted.sum()) - 1, values.shape[1])
    pca = PCA(n_components=components, svd_solver="full").fit(values[fitted])
    points = pca.transform(values)
    rng = np.random.default_rng(seed)
    binary = len(set(named)) == 2
    separation = _separation(points, named, fitted, shown)
    null = [
        _separation(points, _permuted(named, inside, fitted, rng), fitted, shown)
        for _ in range(permutations if binary else min(permutations, 100))
    ]
    return Projection(
        points=points,
        labels=tuple(named.tolist()),
        fitted=fitted,
        kept=kept,
        explained=pca.explained_variance_ratio_,
        components=pca.components_,
        mean=pca.mean_,
        left_out=left_out,
        measure="AUROC of the first component" if binary else "silhouette",
        separation=separation,
        null=np.array(null),
    )


def _usual(
    values: Float[np.ndarray, "n d_model"], positions: Sequence[int] | None, outliers: bool
) -> tuple[Bool[np.ndarray, " n"], dict[str, int]]:
    """Observations that are neither a first position nor massive."""
    first = np.zeros(len(values), dtype=bool)
    massive = np.zeros(len(values), dtype=bool)
    if not outliers and len(values):
        if positions is not None:
            first = np.asarray(positions) == 0
        norm = np.linalg.norm(values, axis=1)
        rest = norm[~first] if not first.all() else norm
        massive = ~first & (norm > MASSIVE * np.median(rest))
    return ~first & ~massive, {"position 0": int(first.sum()), "massive activations": int(massive.sum())}


def _separation(points: np.ndarray, labels: np.ndarray, fitted: np.ndarray, shown: np.ndarray) -> float:
    names = sorted(set(labels))
    if len(names) > 2:
        # Of permuted labels those shown may be one alone, or one each: they are not apart.
        defined = 2 <= len(set(labels[shown])) < shown.sum()
        return float(silhouette_score(points[shown], labels[shown])) if defined else 0.0
    positive = labels == names[-1]
    if len(set(positive[shown])) < 2 or len(set(positive[fitted])) < 2:
        return 0.5
    sign = 1 if auroc(points[fitted, 0], positive[fitted]) >= 0.5 else -1
    return auroc(sign * points[shown, 0], positive[shown])


def _permuted(labels: np.ndarray, groups: np.ndarray | None, fitted: np.ndarray, rng: np.random.Generator) -> Any:
    """Labels exchanged within each group, or within the fit part and the rest."""
    cells = fitted.astype(int) if groups is None else groups
    out = labels.copy()
    order = np.lexsort((rng.random(len(labels)), cells))
    out[np.argsort(cells, kind="stable")] = labels[order]
    return out


def pca_figure(projection: Projection, *, hover: Sequence[str] | None = None, title: str = "") -> go.Figure:
    """The first two components, coloured by label; fitted points hollow; separation and its null in the title.

    Args:
        hover: a line for each observation that was given, the left out included.
        title: before the separation.
    """
    if projection.points.shape[1] < 2:
        raise UserError("one component was computed; the figure needs two")
    figure = go.Figure()
    labels = np.asarray(projection.labels, dtype=object)
    parts = [(False, "circle", "")] if projection.fitted.any() and not projection.fitted.all() else []
    parts.append((True, "circle-open" if parts else "circle", " (fitted)" if parts else ""))
    for number, name in enumerate(dict.fromkeys(projection.labels)):
        colour = COLOURS[number % len(COLOURS)]
        for fitted, symbol, suffix in parts:
            chosen = np.flatnonzero((labels == name) & (projection.fitted == fitted))
            figure.add_scatter(
                x=projection.points[chosen, 0],
                y=projection.points[chosen, 1],
                mode="markers",
                name=f"{label(name)}{suffix}",
                marker={"color": colour, "size": 8, "symbol": symbol, "opacity": 0.5 if suffix else 0.85},
                hovertext=[_hover_of(projection, int(i), hover) for i in chosen],
                hoverinfo="text",
            )
    low, high = projection.null_interval
    line = (
        f"{projection.measure} {projection.separation:.2f}; permuted labels {low:.2f} … {high:.2f}, "
        f"p = {projection.p_value:.3f}"
    )
    figure.update_layout(
        title={"text": f"{label(title)}<br>{label(line)}"},
        legend={"orientation": "h", "y": -0.2, "x": 0},
    )
    figure = styled(figure, height=480)
    figure.update_layout(margin={"t": 80})
    figure.update_xaxes(title=f"component 1 ({projection.explained[0]:.0%} of the variance)")
    figure.update_yaxes(title=f"component 2 ({projection.explained[1]:.0%})")
    return figure


def _hover_of(projection: Projection, point: int, hover: Sequence[str] | None) -> str:
    text = "" if hover is None else "<br>" + label(hover[int(projection.kept[point])])
    x, y = projection.points[point, :2]
    return f"{label(projection.labels[point])}  ({x:.2f}, {y:.2f}){text}"
