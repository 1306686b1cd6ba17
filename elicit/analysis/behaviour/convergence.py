"""Do several mechanisms reach the same latent ability? Which items they newly solve, and how far these overlap.

*Newly solved* are the items that the baseline gets wrong and the mechanism right. Of the N items that the baseline gets
wrong let A and B be those that two mechanisms solve:

    Jaccard = |A ∩ B| / |A ∪ B|         lift = |A ∩ B| / E|A ∩ B|
    agreement = (|A ∩ B| − E) / (Σ_bins min(|A_b|, |B_b|) − E)

Where both solve nearly everything a lift cannot leave 1; agreement is 0 at chance and 1 where the smaller set lies in
the larger.

Chance (E = |A||B|/N) is too low a bar: any two mechanisms solve what is easy. Difficulty-matched chance deals the items
out anew only among items that are solved as often by *other* arms (the pair's own are left out):
E = Σ_bins |A_b||B_b|/N_b. Which arms those are decides what is asked. Matched on arms without the ability in question
a lift is an upper bound of what the two have in common, since difficulty is measured roughly. Matched on further
mechanisms that reach the same ability it is a lower bound: what all of them share is taken away as well. `difficulty`
names the arms; `within` holds a kind of question fixed besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int

from elicit.analysis.base import Analysis, shown
from elicit.evaluation.run.arms import Arm, arms_of, named, questions, shared_items
from elicit.evaluation.run.run import Run
from probes.dots import Dot, dot_plot
from probes.errors import UserError, unknown
from probes.inert import label
from probes.statistics import Interval, Null, against_null, central, holm_by_name, proportion_interval, question_weights

NAME = "convergence"
SUMMARY = "do mechanisms solve the same new items, beyond chance and beyond what difficulty explains"
PAPER = ""
READS = "samples"
DRAWS = 2000
SLACK = 1e-9  # what rounding leaves of nothing


class Overlap(NamedTuple):
    """Two sets of items; nulls are of the number of shared ones, and `room` is how many more than matched chance an
    agreement of 1 has. What is matched is NaN where nothing measures difficulty."""

    sizes: tuple[int, int]
    shared: int
    jaccard: tuple[float, Interval]
    lift: tuple[float, Interval]
    agreement: tuple[float, Interval]
    chance: Null
    matched_lift: tuple[float, Interval]
    matched_agreement: tuple[float, Interval]
    matched: Null
    room: float


class PooledAgreement(NamedTuple):
    """The agreement of all pairs of several sets, and of sets permuted within bins; p is for more than those. `room` is
    how many more shared items than expected an agreement of 1 has, over all pairs."""

    agreement: tuple[float, Interval]
    null: Null
    room: float


def overlap(
    a: Bool[np.ndarray, " items"],
    b: Bool[np.ndarray, " items"],
    ease: Float[np.ndarray, " items"] | None = None,
    *,
    kinds: Sequence[Any] | None = None,
    bins: int = 5,
    seed: int = 0,
) -> Overlap:
    """How far two sets of items overlap, against chance and against difficulty-matched chance.

    Args:
        a, b: membership of each item; both of items that the baseline gets wrong.
        ease: how often others solve each item; None where there are no others.
        kinds: of each item; matched chance exchanges items of one kind alone.
        bins: quantiles of ease within which items are exchanged.
        seed: of the bootstrap and of the exchanges.

    Raises:
        UserError: lengths that differ, no items, fewer than one bin.
    """
    if not len(a) or len(a) != len(b) or (ease is not None and len(ease) != len(a)):
        raise UserError(f"sets over {len(a)} and {len(b)} items were given; give the same items to both, at least one")
    if bins < 1:
        raise UserError(f"{bins} bins were given; give at least 1")
    weight = question_weights(len(a), seed=seed)
    one_bin = np.zeros(len(a), dtype=int)
    nothing = Interval(float("nan"), float("nan"))
    shared = int((a & b).sum())
    union = weight @ (a | b)
    with np.errstate(invalid="ignore", divide="ignore"):
        jaccard = (weight @ (a & b)) / union
    matched_lift = matched_agreement = float("nan"), nothing
    matched, room = Null(float("nan"), nothing, float("nan")), float("nan")
    if ease is not None or kinds is not None:
        binned = matching(np.zeros(len(a)) if ease is None else ease, kinds, bins)
        matched_lift, matched_agreement = _lift(a, b, binned, weight), _agreement(np.stack([a, b]), binned, weight)
        matched, room = _dealt(a, b, binned, seed), _room(np.stack([a, b]), binned)
    return Overlap(
        sizes=(int(a.sum()), int(b.sum())),
        shared=shared,
        jaccard=(shared / max(1, int((a | b).sum())) if (a | b).any() else float("nan"), central(jaccard)),
        lift=_lift(a, b, one_bin, weight),
        agreement=_agreement(np.stack([a, b]), one_bin, weight),
        chance=_dealt(a, b, one_bin, seed),
        matched_lift=matched_lift,
        matched_agreement=matched_agreement,
        matched=matched,
        room=room,
    )


def matching(
    ease: Float[np.ndarray, " items"], kinds: Sequence[Any] | None = None, bins: int = 5
) -> Int[np.ndarray, " items"]:
    """A number for each item: equal for items of one kind and one quantile of ease; equally easy ones together."""
    edges = np.unique(np.quantile(ease, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf"))
    quantile = np.searchsorted(edges, ease, side="left")
    if kinds is None:
        return quantile
    _, kind = np.unique([str(one) for one in kinds], return_inverse=True)
    both: Int[np.ndarray, " items"] = kind * (len(edges) + 1) + quantile
    return both


def pooled_agreement(
    solved: Bool[np.ndarray, "sets items"], binned: Int[np.ndarray, " items"], *, seed: int = 0
) -> PooledAgreement:
    """How far several sets agree beyond what bins explain, all pairs at once.

    Args:
        solved: membership of each item in each set.
        binned: a number for each item; items of one number are exchanged (`matching`).
        seed: of the bootstrap and of the exchanges.
    """
    rng = np.random.default_rng(seed)
    found = _agreement(solved, binned, question_weights(len(binned), seed=seed))
    places = [np.flatnonzero(binned == one) for one in np.unique(binned)]
    room, dealt = _room(solved, binned), solved.copy()
    draws = np.full(DRAWS, np.nan)
    for n in range(DRAWS if room > SLACK else 0):
        for some in places:
            dealt[:, some] = rng.permuted(solved[:, some], axis=1)
        draws[n] = _shared(dealt).sum()
    expected = float(_expected(solved, binned, np.ones((1, len(binned))))[0][0])
    return PooledAgreement(found, against_null(found[0], (draws - expected) / max(room, SLACK), greater=True), room)


def _shared(solved: np.ndarray) -> np.ndarray:
    """Of each item the number of pairs of sets that share it."""
    count = solved.sum(0)
    pairs: np.ndarray = count * (count - 1) / 2
    return pairs


def _expected(solved: np.ndarray, binned: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over all pairs of sets the shared items that are expected within bins, and the most that there can be."""
    expected, most = np.zeros(len(weight)), np.zeros(len(weight))
    for one in np.unique(binned):
        inside = weight * (binned == one)
        size, sums = inside.sum(1), np.sort(inside @ solved.T.astype(float), axis=1)
        products = (sums.sum(1) ** 2 - (sums**2).sum(1)) / 2
        expected += np.divide(products, size, out=np.zeros(len(weight)), where=size > 0)
        most += sums @ np.arange(len(solved) - 1, -1, -1)  # the smaller one of each pair
    return expected, most


def _room(solved: np.ndarray, binned: np.ndarray) -> float:
    expected, most = _expected(solved, binned, np.ones((1, len(binned))))
    return float(most[0] - expected[0])


def _agreement(solved: np.ndarray, binned: np.ndarray, weight: np.ndarray) -> tuple[float, Interval]:
    """Shared items beyond the expected, as a fraction of the most there can be; the interval from resampled items."""

    def agreement(w: np.ndarray) -> np.ndarray:
        expected, most = _expected(solved, binned, w)
        beyond, room = w @ _shared(solved) - expected, most - expected
        return np.divide(beyond, room, out=np.full(len(w), np.nan), where=room > SLACK)

    return float(agreement(np.ones((1, len(binned))))[0]), central(agreement(weight))


def _lift(a: np.ndarray, b: np.ndarray, binned: np.ndarray, weight: np.ndarray) -> tuple[float, Interval]:
    """Shared items over their expectation within bins, and its interval from resampled items."""

    def lift(w: np.ndarray) -> np.ndarray:
        expected, _ = _expected(np.stack([a, b]), binned, w)
        return np.divide(w @ (a & b), expected, out=np.full(len(w), np.nan), where=expected > 0)

    return float(lift(np.ones((1, len(a))))[0]), central(lift(weight))


def _dealt(a: np.ndarray, b: np.ndarray, binned: np.ndarray, seed: int) -> Null:
    """The number of shared items where each bin's items are redistributed to both at random."""
    rng = np.random.default_rng(seed)
    draws = np.zeros(DRAWS)
    for one in np.unique(binned):
        inside = binned == one
        mine, theirs = int((a & inside).sum()), int((b & inside).sum())
        draws += rng.hypergeometric(mine, int(inside.sum()) - mine, theirs, size=DRAWS)
    return against_null(float((a & b).sum()), draws)


def ease_of(arms: Sequence[Arm], pair: Sequence[Arm], baseline: Arm, items: Sequence[str]) -> np.ndarray | None:
    """How often all arms but the pair's and the baseline solve each item (samples as a fraction); None without any.

    Arms that read a pair's samples, or spend its tokens, are the pair's own.
    """
    own = {(id(arm.run), arm.source) for arm in (*pair, baseline)}
    spent = {str(arm.run.folder.resolve()) for arm in pair if arm.key == arm.run.metrics["method"]}
    others = [arm for arm in arms if (id(arm.run), arm.source) not in own and arm.whose not in spent]
    if not others:
        return None
    solved = [[np.mean([t.correct for t in some]) for some in arm.outputs(items)] for arm in others]
    ease: np.ndarray = np.mean(solved, axis=0)
    return ease


def analyse(
    runs: Sequence[Run],
    *,
    baseline: str = "direct",
    difficulty: str = "",
    within: str = "",
    bins: int = 5,
    seed: int = 0,
) -> Analysis:
    """Overlap of the newly solved items of the runs' methods (of logs: all arms); their other arms measure difficulty.

    Args:
        baseline: the arm that newly solved items are wrong under.
        difficulty: the arms that measure it, joined by commas; they are no mechanisms then. Unless given all arms do,
            the other mechanisms among them.
        within: a name in the items' metadata, like family: matched chance exchanges items that agree in it.
        bins: of difficulty.
        seed: of the bootstrap and of the exchanges.

    Raises:
        UserError: fewer than two mechanisms, no baseline, a baseline that is right throughout, an arm or a name in the
            metadata that there is not.
    """
    arms = arms_of(runs)
    reference = named(arms, baseline)
    measuring = [named(arms, name.strip(), "difficulty") for name in difficulty.split(",") if name.strip()]
    methods = {run.metrics["method"] for run in runs} - {reference.key, *(arm.key for arm in measuring)}
    of_logs = [arm for arm in arms if arm.foreign and arm not in (reference, *measuring)]  # each is of another model
    mechanisms = [arm for arm in arms if arm.key in methods or arm in of_logs]
    if len(mechanisms) < 2:
        raise UserError(f"{len(mechanisms)} mechanism beside {baseline!r} was given; give runs of at least two")
    everything = shared_items(arms)
    items = [item for item, right in zip(everything, reference.right(everything), strict=True) if not right]
    if not items:
        raise UserError(f"{reference.name!r} is right on all {len(everything)} items: nothing can be newly solved")
    solved = {arm.name: arm.right(items) for arm in mechanisms}
    kinds = _kinds(arms, items, within) if within else None
    found: dict[str, Overlap] = {}
    for one, other in combinations(mechanisms, 2):
        ease = ease_of(measuring or arms, (one, other), reference, items)
        found[f"{one.name} & {other.name}"] = overlap(
            solved[one.name], solved[other.name], ease, kinds=kinds, bins=bins, seed=seed
        )
    ease = ease_of(measuring or arms, mechanisms, reference, items)
    everyone = None
    if ease is not None or kinds is not None:
        binned = matching(np.zeros(len(items)) if ease is None else ease, kinds, bins)
        everyone = pooled_agreement(np.stack(list(solved.values())), binned, seed=seed)
    chance = holm_by_name({name: pair.chance.p for name, pair in found.items()})
    matched = holm_by_name({name: pair.matched.p for name, pair in found.items()})
    table = [_row(name, pair, chance[name], matched[name]) for name, pair in found.items()]
    counts = {n: (int(s.sum()), proportion_interval(int(s.sum()), len(items))) for n, s in solved.items()}
    notes = [
        f"{len(items)} of {len(everything)} items are wrong under {reference.name}; newly solved: "
        + ", ".join(f"{name} {n}" for name, (n, _) in counts.items())
        + ". Lift is shared items over what chance gives; agreement is 0 there and 1 where one set holds the other.",
        f"Nulls: items reassigned at random (chance), and only among items {f'of one {within} ' if within else ''}"
        f"that {' and '.join(arm.name for arm in measuring) or 'all other arms'} solve as often (difficulty-matched; "
        "p is Holm's over the pairs). A lift that the second takes away is shared difficulty.",
        "Not shown: whether two mechanisms solve an item in the same way. Difficulty is matched as well as those arms "
        "measure it; where they reach the same ability themselves, what is left is a lower bound.",
    ]
    if everyone is not None:
        notes[0] += (
            f" All pairs at once, matched on arms that are none of them: agreement {shown(*everyone.agreement)}, "
            f"p {everyone.null.p:.2g}."
        )
    figure = dot_plot(
        list(found),
        {
            "lift over chance": [Dot(p.lift[0], *p.lift[1].pair) for p in found.values()],
            "lift over difficulty-matched chance": [
                Dot(p.matched_lift[0], *p.matched_lift[1].pair) for p in found.values()
            ],
        },
        nulls={"null: matched chance, 95%": [_ratio(p.matched) for p in found.values()]},
        reference=1.0,
        title="Shared newly solved items",
        x="lift",
    )
    data: dict[str, Any] = {
        "items": items,
        "baseline": reference.name,
        "solved": {name: [item for item, yes in zip(items, s, strict=True) if yes] for name, s in solved.items()},
        "share solved": {name: {"value": n / len(items), "interval": i} for name, (n, i) in counts.items()},
        "pairs": {name: pair._asdict() for name, pair in found.items()},
        "together": None if everyone is None else everyone._asdict(),
    }
    more = [("Jaccard", "Shared items over all that either of the two newly solves.", _heat(list(solved), found))]
    return Analysis(NAME, table, figure, notes, data, more)


def _kinds(arms: Sequence[Arm], items: Sequence[str], within: str) -> list[Any]:
    """What the items' metadata have under a name.

    Raises:
        UserError: an item has nothing there.
    """
    held = {item.id: item.metadata for item in questions(arms)}
    for item in items:
        if within not in held[item]:
            raise unknown("name in the items' metadata", within, list(held[item]))
    return [held[item][within] for item in items]


def _ratio(null: Null) -> Dot:
    """A null of a number of shared items, as lift."""
    return Dot(1.0, *(v / null.mean for v in null.interval.pair)) if null.mean > 0 else Dot(float("nan"))


def _row(name: str, pair: Overlap, chance: float, matched: float) -> dict[str, Any]:
    if not min(pair.sizes):
        reading = "one of the two solves nothing new"
    elif np.isnan(pair.matched.p):
        reading = "no other arm measures difficulty; give a run with more arms"
    elif matched < 0.05:
        reading = "more than difficulty explains" if pair.shared > pair.matched.mean else "less than difficulty gives"
    else:
        reading = "as difficulty alone gives" if chance < 0.05 else "as chance gives"
    return {
        "pair": name,
        "newly solved": f"{pair.sizes[0]}, {pair.sizes[1]}",
        "shared": pair.shared,
        "Jaccard [95%]": shown(*pair.jaccard),
        "lift [95%]": shown(*pair.lift),
        "p chance": chance,
        "matched lift [95%]": shown(*pair.matched_lift),
        "matched agreement [95%]": shown(*pair.matched_agreement),
        "p matched": matched,
        "reading": reading,
    }


def _heat(names: list[str], found: dict[str, Overlap]) -> go.Figure:
    from probes.figures import CONFIDENCE_SCALE, styled

    z = np.full((len(names), len(names)), np.nan)
    for (i, one), (j, other) in combinations(enumerate(names), 2):
        z[i, j] = z[j, i] = found[f"{one} & {other}"].jaccard[0]
    shown = [label(name) for name in names]
    figure = go.Figure(
        go.Heatmap(z=z, x=shown, y=shown, zmin=0, zmax=1, colorscale=CONFIDENCE_SCALE, texttemplate="%{z:.2f}")
    )
    figure.update_layout(title="Jaccard of newly solved items")
    figure.update_yaxes(autorange="reversed")
    return styled(figure, height=200 + 60 * len(names))
