"""pass@k of a base and of what was elicited from it, and the k* at which the base overtakes (arXiv 2504.13837).

    pass@k = 1 − C(n − c, k) / C(n, k)

a question, with n independent samples of which c are right, under the same sampling settings. k* is the smallest k at
which the base's mean is above the elicited arm's; it may be *never* up to the k that the samples reach, and its
interval, from resampled questions, may hold "never" too. At equal tokens an arm with longer answers gets fewer samples.

Two arms with the same distribution cross as well, by chance. So the crossing is measured, as the smaller of the lead at
k = 1 and the lag at the largest k, and held against a null: samples exchanged between the two within each question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from elicit.analysis.base import Analysis, shown, with_left_out
from elicit.evaluation.run.arms import Arm, arms_of, named, shared_items
from elicit.evaluation.run.run import Run
from probes.at_k import pass_at_k
from probes.dots import Dot, whiskers
from probes.errors import UserError
from probes.figures import styled
from probes.inert import label
from probes.statistics import Interval, Null, against_null, bootstrap_mean, central, question_weights
from probes.sweep import COLOURS

NAME = "pass-at-k"
SUMMARY = "pass@k of sampled arms, and the k at which the base overtakes what was elicited from it"
PAPER = "2504.13837"
READS = "samples"
DRAWS = 1000
SLACK = 1e-9  # equal up to rounding is no lead
SETTINGS = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")


class Samples(NamedTuple):
    """Of each question how many samples there are, how many are right, and the tokens of all (below 0: not known)."""

    n: Int[np.ndarray, " items"]
    right: Int[np.ndarray, " items"]
    tokens: Int[np.ndarray, " items"]


class Crossing(NamedTuple):
    """An elicited arm against the base; k* and tokens* are infinite for "never".

    `lead` and `lag` are elicited − base at k = 1 and base − elicited at the largest k, question by question. `tokens`
    is the budget a question at which the base overtakes, NaN where the two have no budget in common.
    """

    lead: tuple[float, Interval]
    lag: tuple[float, Interval]
    k: tuple[float, Interval]
    never: float
    tokens: tuple[float, Interval]
    null: Null

    @property
    def stands(self) -> bool:
        """The elicited arm leads at 1, the base at the largest k, and exchanged samples do not cross so."""
        return self.lead[1].low > 0 and self.lag[1].low > 0 and self.null.p < 0.05


def curves(samples: Samples, most: int) -> Float[np.ndarray, "items k"]:
    """pass@1 … pass@most of each question."""
    return np.stack([pass_at_k(samples.n, samples.right, k) for k in range(1, most + 1)], axis=1)


def first_above(a: Float[np.ndarray, "draws k"], b: Float[np.ndarray, "draws k"]) -> Float[np.ndarray, " draws"]:
    """The first place (from 1) at which a is above b, infinite where it never is; NaN places do not count."""
    above = a - b > SLACK
    return np.where(above.any(1), above.argmax(1) + 1.0, math.inf)


def crossing(base: Samples, other: Samples, *, most: int = 0, seed: int = 0) -> Crossing:
    """Where the base overtakes an elicited arm on the same questions, up to k = `most` (all samples unless given)."""
    most = most or int(min(base.n.min(), other.n.min()))
    of_base, of_other = curves(base, most), curves(other, most)
    lead, lag = of_other[:, 0] - of_base[:, 0], of_base[:, -1] - of_other[:, -1]
    weight = question_weights(len(lead), seed=seed, resamples=DRAWS)
    whole = np.ones((1, len(lead)))
    drawn = first_above(weight @ of_base, weight @ of_other)
    return Crossing(
        lead=(float(lead.mean()), bootstrap_mean(lead, seed=seed)),
        lag=(float(lag.mean()), bootstrap_mean(lag, seed=seed)),
        k=(float(first_above(whole @ of_base, whole @ of_other)[0]), central(drawn)),
        never=float(np.isinf(drawn).mean()),
        tokens=(float(_budget(base, other, whole)[0]), central(_budget(base, other, weight))),
        null=_exchanged(base, other, most, min(float(lead.mean()), float(lag.mean())), seed),
    )


def _budget(base: Samples, other: Samples, weight: Float[np.ndarray, "draws items"]) -> Float[np.ndarray, " draws"]:
    """The tokens a question at which the base is above: k samples of the other arm against as many tokens of its own.

    Between whole numbers of samples the base's curve is a straight line.
    """
    if min(base.tokens.min(), other.tokens.min()) < 0:
        return np.full(len(weight), math.nan)
    longest = int(base.n.min())
    of_base = weight @ curves(base, longest) / weight.sum(1)[:, None]
    of_other = weight @ curves(other, int(other.n.min())) / weight.sum(1)[:, None]
    cost, base_cost = ((weight @ s.tokens) / (weight @ s.n) for s in (other, base))
    out = np.full(len(weight), math.nan)
    samples = np.arange(1, longest + 1)
    for draw, (price, base_price) in enumerate(zip(cost, base_cost, strict=True)):
        budgets = price * np.arange(1, of_other.shape[1] + 1)
        inside = (budgets >= base_price) & (budgets <= base_price * longest)
        if inside.any():
            reached = np.interp(budgets / base_price, samples, of_base[draw])
            above = inside & (reached - of_other[draw] > SLACK)
            out[draw] = budgets[above.argmax()] if above.any() else math.inf
    return out


def _exchanged(base: Samples, other: Samples, most: int, observed: float, seed: int) -> Null:
    """The smaller of lead and lag where each question's samples are permuted between the two arms."""
    rng = np.random.default_rng(seed)
    pooled = base.right + other.right
    shape = (DRAWS, len(pooled))
    dealt = rng.hypergeometric(pooled, base.n + other.n - pooled, other.n, size=shape)

    def at(k: int, n: np.ndarray, right: np.ndarray) -> np.ndarray:
        return pass_at_k(np.broadcast_to(n, shape).ravel(), right.ravel(), k).reshape(shape).mean(1)

    rest = pooled - dealt
    lead = at(1, other.n, dealt) - at(1, base.n, rest)
    lag = at(most, base.n, rest) - at(most, other.n, dealt)
    return against_null(observed, np.minimum(lead, lag), greater=True)


def samples_of(arm: Arm, items: Sequence[str]) -> Samples:
    traces = [arm.traces[item] for item in items]
    return Samples(
        np.array([len(some) for some in traces]),
        np.array([sum(t.correct for t in some) for some in traces]),
        np.array([sum(t.spent for t in some) if all(t.spent >= 0 for t in some) else -1 for some in traces]),
    )


def analyse(runs: Sequence[Run], *, base: str = "", most: int = 0, seed: int = 0) -> Analysis:
    """pass@k of all sampled arms of these runs, each against the base.

    Args:
        base: the base's arm; unless given the first sampled one to which nothing was done but the prompt, and of logs
            the second.
        most: the largest k at which they are compared; all samples unless given. At k = n each question's pass@k is 0
            or 1, its noisiest form: half the samples say more.
        seed: of the bootstrap and of the exchanges.

    Raises:
        UserError: fewer than two arms with independent samples under the same settings, or a k beyond them.
    """
    arms = arms_of(runs)
    items = shared_items(arms)
    sampled: dict[str, Samples] = {}
    left_out: dict[str, str] = {}
    for arm in arms:
        why = arm.not_independent
        found = None if why else samples_of(arm, items)
        if found is not None and int(found.n.min()) < 2:
            why = "one sample a question; draw at least two"
        if why or found is None:
            left_out[arm.name] = why
        else:
            sampled[arm.name] = found
    by_name = {arm.name: arm for arm in arms}
    reference = _base([by_name[name] for name in sampled], base, left_out)
    wanted = {key: reference.about["decoder"].get(key) for key in SETTINGS}  # a log may not say
    for name in list(sampled):
        other = {key: by_name[name].about["decoder"].get(key) for key in SETTINGS}
        differs = [f"{key} {other[key]} against {wanted[key]}" for key in SETTINGS if other[key] != wanted[key]]
        if differs:
            left_out[name] = f"sampled otherwise than the base ({', '.join(differs)})"
            del sampled[name]
    if len(sampled) < 2:
        raise UserError(
            f"only {reference.name!r} has independent samples under its settings "
            f"({_said(left_out) or 'no other arm was given'}); give a run of an elicited arm that samples likewise"
        )
    of_base = sampled.pop(reference.name)
    least = min(int(one.n.min()) for one in (of_base, *sampled.values()))
    if not 0 <= most <= least:
        raise UserError(f"most = {most} was given; give a k from 1 to {least}, the samples of a question, or 0 for all")
    crossings = {name: crossing(of_base, found, most=most, seed=seed) for name, found in sampled.items()}
    rows = [_row(name, one, of_base, sampled[name], most) for name, one in crossings.items()]
    named_all = {reference.name: of_base, **sampled}
    notes = [
        f"pass@k on {len(items)} questions, base: {reference.name}. k* is the smallest k at which the base is above; "
        "its interval is of resampled questions, and holds 'never' where they do not cross up to the largest k.",
        "Null: samples exchanged between the two arms within each question; the crossing (the smaller of the lead at 1 "
        "and the lag at the largest k) must be larger than 95% of those. Without it any two equal arms would cross.",
        "Not shown: what lies beyond the largest k. Independent samples only, under the same sampling settings.",
    ]
    data = {
        "items": items,
        "base": reference.name,
        "arms": {
            name: {**s._asdict(), "pass_at_k": curves(s, int(s.n.min())).mean(0)} for name, s in named_all.items()
        },
        "crossings": {name: {**one._asdict(), "stands": one.stands} for name, one in crossings.items()},
    }
    if any(value is None for value in wanted.values()) and by_name[reference.name].foreign:
        unsaid = ", ".join(key for key, value in wanted.items() if value is None)
        notes.append(f"The logs do not say the {unsaid} of the samples: whether they are the same is not known.")
    uncounted = [name for name, one in named_all.items() if one.tokens.min() < 0]
    more = []
    if uncounted:
        notes.append(f"At equal tokens nothing is shown: the log of {', '.join(uncounted)} does not count tokens.")
    else:
        heading, text = "At equal tokens", "The same curves over the tokens that a question's samples cost."
        more.append((heading, text, _figure(named_all, seed, tokens=True)))
    return Analysis(NAME, with_left_out(rows, left_out), _figure(named_all, seed), notes, data, more)


def _base(sampled: Sequence[Arm], name: str, left_out: dict[str, str]) -> Arm:
    if not sampled:
        raise UserError(
            f"no arm has independent samples ({_said(left_out)}); run self-consistency, or sample from the handle"
        )
    if name:
        return named(sampled, name, "sampled arm")
    bare = [a for a in sampled if not {"adapter", "weights", "interventions", "partner"} & set(a.about)]
    bare = [a for a in bare if not (a.foreign and a.key == a.run.metrics["method"])]  # what a log holds it does not say
    return (bare or list(sampled))[0]


def _said(left_out: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in left_out.items())


def _row(name: str, one: Crossing, base: Samples, other: Samples, most: int) -> dict[str, Any]:
    most = most or int(min(base.n.min(), other.n.min()))
    if one.stands:
        reading = f"the base overtakes at k = {_k(one.k[0])}"
    elif (base.right == base.n).all() and (other.right == other.n).all():
        reading = "all samples are right: nothing to tell apart"
    elif not (base.right.any() or other.right.any()):
        reading = "no sample is right: nothing to tell apart"
    elif one.lead[1].low > 0 and one.lag[1].high < 0:
        reading = f"the elicited arm leads up to k = {most}"
    else:
        reading = "no crossing beyond chance"
    return {
        "arm": name,
        "largest k": most,
        "lead at k = 1 [95%]": shown(*one.lead),
        "base's lead at largest k": shown(*one.lag),
        "k* [95%]": f"{_k(one.k[0])} [{_k(one.k[1].low)}, {_k(one.k[1].high)}]",
        "never": one.never,
        "tokens*": f"{_k(one.tokens[0])} [{_k(one.tokens[1].low)}, {_k(one.tokens[1].high)}]",
        "null p": one.null.p,
        "reading": reading,
    }


def _k(value: float) -> str:
    return "–" if math.isnan(value) else "never" if math.isinf(value) else f"{value:.0f}"


def _figure(sampled: dict[str, Samples], seed: int, *, tokens: bool = False) -> go.Figure:
    figure = go.Figure()
    for place, (name, one) in enumerate(sampled.items()):
        most = int(one.n.min())
        ks = sorted({*(2**p for p in range(most.bit_length()) if 2**p <= most), most})
        found = curves(one, most)[:, [k - 1 for k in ks]]
        dots = []
        for values in found.T:
            interval = bootstrap_mean(values, bounds=(0.0, 1.0), seed=seed, resamples=DRAWS)
            dots.append(Dot(float(values.mean()), *interval.pair))
        cost = one.tokens.sum() / one.n.sum() if tokens else 1.0
        tone = COLOURS[place % len(COLOURS)]
        figure.add_scatter(
            x=[k * cost for k in ks], y=[d.value for d in dots], error_y=whiskers(dots), name=label(name),
            mode="lines+markers", line={"color": tone, "dash": "solid" if place else "dash"},
        )  # fmt: skip
    figure = styled(figure, height=440)
    figure.update_xaxes(title="tokens a question" if tokens else "k (samples a question)", type="log")
    figure.update_yaxes(title="pass@k", range=[0, 1.02])
    figure.update_layout(title="pass@k", legend={"orientation": "h", "y": -0.25, "x": 0})
    return figure
