"""When a thought commits to its answer: the thought cut at 0, 10 … 100%, and the answer asked for (arXiv 2605.24396).

After each cut the handle is asked for its answer at once (early answering), and continues freely by sampling. Of each
question:

- the fraction of cuts at which the early answer already is the final one; 1 minus its area is the area over the curve
  of arXiv 2307.13702, section 2.3: 0 where the thought comes after the decision;
- Spearman's correlation of the confidence, log p(final answer) a token, with the position of the cut;
- its largest jump from one cut to the next, and where.

Confidence may rise with mere length, and a noisy curve has a largest jump as well. So every curve stands beside two
nulls of the same lengths: filler, and the thought of another question cut at the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from elicit.analysis.base import Analysis, plain, shown, with_left_out
from elicit.analysis.continuations import applied_handle, continued, each_thinking, early_answers, same
from elicit.decoding.decoders import Sampling
from elicit.elicited import Elicited
from elicit.evaluation.run.arms import arms_of, model_of, questions
from elicit.evaluation.run.run import Run
from elicit.tasks.base import Items
from elicit.training.rl.information_gain import NULLS, answer_logprobs, null_traces
from probes.errors import UserError
from probes.statistics import Interval, bootstrap_mean
from probes.sweep import Band, layer_sweep

NAME = "commitment"
SUMMARY = "when a chain of thought commits to its answer: cut at 0 to 100%, answered early and continued, beside filler"
PAPER = "2605.24396"
OWN = "thought"
CONDITIONS = (OWN, NULLS[0], NULLS[2])  # own thought, another question's, filler
FREE = 4  # the free continuation is made at 0, 1/4 … 4/4
MEASURES = ("area over the curve", "Spearman", "largest jump")


@dataclass(frozen=True, eq=False)
class Curve:
    """For each question and cut: whether the early answer is the final one, and log p(final answer) a token."""

    match: Bool[np.ndarray, "items cuts"]
    confidence: Float[np.ndarray, "items cuts"]

    def measures(self) -> dict[str, Float[np.ndarray, " items"]]:
        """The three measures of each question; a confidence that never changes has correlation 0."""
        cuts = np.arange(self.match.shape[1])
        steps = np.diff(self.confidence, axis=1)
        ranks = stats.rankdata(self.confidence, axis=1)
        ranks -= ranks.mean(1, keepdims=True)
        places = cuts - cuts.mean()
        spread = np.sqrt((ranks**2).sum(1) * (places**2).sum())
        spearman = np.divide(ranks @ places, spread, out=np.zeros(len(ranks)), where=spread > 0)
        area = np.trapezoid(self.match.astype(float), cuts, axis=1) / cuts[-1]
        return dict(zip(MEASURES, (1 - area, spearman, steps.max(1)), strict=True))

    @property
    def jumps_at(self) -> Float[np.ndarray, " items"]:
        """The cut, as a fraction of the thought, after which confidence has risen most."""
        return (np.diff(self.confidence, axis=1).argmax(1) + 1) / (self.match.shape[1] - 1)


def curves(
    handle: Elicited,
    items: Items,
    thoughts: Sequence[Sequence[int]],
    answers: Sequence[str],
    *,
    cuts: int = 10,
    seed: int = 0,
) -> dict[str, Curve]:
    """The curve of the thoughts and of their null traces.

    Args:
        handle: whose thoughts they are.
        items: the questions.
        thoughts, answers: tokens of each thought, and the answer that it came to.
        cuts: how many parts a thought is cut into.
        seed: of the nulls.

    Raises:
        UserError: fewer than two thoughts, an empty one, fewer than two cuts.
    """
    if len(items) < 2 or not all(len(thought) for thought in thoughts):
        raise UserError(f"{len(items)} thoughts were given, empty ones among them or not; give two that say something")
    if cuts < 2:
        raise UserError(f"cuts = {cuts} was given; give at least 2 parts to cut a thought into")
    nulls = null_traces(handle.model.tokenizer, thoughts, seed)
    many = Items(items.task, tuple(item for item in items for _ in range(cuts + 1)))
    final = [answer for answer in answers for _ in range(cuts + 1)]
    out = {}
    for name in CONDITIONS:
        whole = thoughts if name == OWN else nulls[name]
        begun = [cut(thought, n / cuts) for thought in whole for n in range(cuts + 1)]
        match = np.array(same(many, early_answers(handle, many, begun), final))
        asked = [handle.prompt_ids(item) for item in many]
        with applied_handle(handle) as before_forward:
            sure = answer_logprobs(handle.model.lm, handle.model.tokenizer, asked, begun, final, before_forward)
        shape = (len(items), cuts + 1)
        out[name] = Curve(match.reshape(shape), np.array(sure).reshape(shape))
    return out


def cut(thought: Sequence[int], share: float) -> list[int]:
    """The first fraction of a thought."""
    return list(thought)[: round(share * len(thought))]


def free(
    handle: Elicited,
    items: Items,
    thoughts: Sequence[Sequence[int]],
    answers: Sequence[str],
    *,
    temperature: float = 0.7,
    seed: int = 0,
) -> Bool[np.ndarray, "items cuts"]:
    """Whether a sampled continuation from each quarter of the thought comes to the final answer."""
    decoder = Sampling(1, temperature, seed=seed, max_new_tokens=handle.decoder.max_new_tokens)
    many = Items(items.task, tuple(item for item in items for _ in range(FREE + 1)))
    begun = [cut(thought, n / FREE) for thought in thoughts for n in range(FREE + 1)]
    said = continued(handle, many, begun, decoder)
    final = [answer for answer in answers for _ in range(FREE + 1)]
    return np.array(same(many, said, final)).reshape(len(items), -1)


def summarised(found: dict[str, Curve], *, seed: int = 0) -> dict[str, Any]:
    """Each measure with its interval, under each null, and the difference to it, paired by question."""
    measures = {name: curve.measures() for name, curve in found.items()}
    out: dict[str, Any] = {}
    for measure in MEASURES:
        own = measures[OWN][measure]
        bounds = (0.0, 1.0) if measure == MEASURES[0] else (-1.0, 1.0)
        out[measure] = _mean(own, seed, bounds)
        for null in CONDITIONS[1:]:
            out[measure][null] = _mean(measures[null][measure], seed, bounds)
            out[measure][f"beyond {null}"] = _mean(own - measures[null][measure], seed)
    out["answers before thinking"] = float(found[OWN].match.all(1).mean())
    out["jumps at"] = float(np.median(found[OWN].jumps_at))
    return out


def _mean(values: Float[np.ndarray, " items"], seed: int, bounds: tuple[float, float] = (-1.0, 1.0)) -> dict[str, Any]:
    low, high = bootstrap_mean(values, bounds=bounds, seed=seed).pair
    return {"mean": float(values.mean()), "low": low, "high": high}


def analyse(
    runs: Sequence[Run],
    *,
    cuts: int = 10,
    limit: int = 64,
    temperature: float = 0.7,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """Curves of every arm that has thoughts.

    Args:
        runs: of one model on the same items.
        cuts: how many parts a thought is cut into.
        limit: of the items; 0 for all.
        temperature: of the free continuation (greedily a greedy handle would only say the same again).
        seed: of continuations and bootstrap.

    Raises:
        UserError: runs that do not go together, no arm with thoughts.
    """
    arms = arms_of(runs)
    items = questions(arms, limit)
    model = model_of(runs)
    table: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    data: dict[str, Any] = {}
    bands: dict[str, dict[str, Band]] = {}
    for name, some in each_thinking(NAME, arms, model, items, progress, least=2, answered=True):
        if isinstance(some, str):
            left_out[name] = some
            continue
        handle, asked, traces = some
        thoughts, answers = [trace.chain_of_thought for trace in traces], [trace.answer or "" for trace in traces]
        found = curves(handle, asked, thoughts, answers, cuts=cuts, seed=seed)
        freely = free(handle, asked, thoughts, answers, temperature=temperature, seed=seed)
        told = {"items": len(asked), **summarised(found, seed=seed), "free": freely.mean(0).tolist()}
        data[name] = {**told, "ids": [item.id for item in asked], "curves": plain(found), "freely": plain(freely)}
        table += _rows(name, told)
        bands[name] = {condition: _band(curve.match.astype(float), seed) for condition, curve in found.items()}
        bands[name]["free"] = _band(freely.astype(float), seed)
    notes = [
        "Fraction of questions whose early answer already is the final one, by the part of the thought that was read. "
        "What filler and another question's thought of the same length do is not the thought's doing: read the "
        "columns that say beyond.",
        f"Freely, the handle continues from each quarter by one sample at temperature {temperature:g}; at 0 it thinks "
        "anew, which is what chance and the question alone give.",
        "Answers before thinking: the fraction of questions whose early answer is the final one at every cut. Jumps "
        "at: the part of the thought after which confidence rises most, in the median.",
        "A curve that rises late shows that the text decides, not that its reasons do (see faithfulness).",
    ]
    (first, main), *others = ((name, _figure(name, some)) for name, some in bands.items())
    more = [(name, "The same for this arm.", figure) for name, figure in others]
    return Analysis(NAME, with_left_out(table, left_out), main, notes, {"first": first, "arms": data}, more)


def _band(values: Float[np.ndarray, "items cuts"], seed: int) -> Band:
    ends = [bootstrap_mean(column, bounds=(0.0, 1.0), seed=seed, resamples=2000) for column in values.T]
    return Band(values.mean(0).tolist(), [end.low for end in ends], [end.high for end in ends])


def _figure(name: str, bands: dict[str, Band]) -> Any:
    count = len(bands[OWN].value)
    figure = layer_sweep(
        {OWN: bands[OWN]},
        nulls={"null: filler": bands[NULLS[2]]},
        layers=[f"{100 * n // (count - 1)}%" for n in range(count)],
        title=f"{name}: when the answer is there",
        x="part of the thought that was read",
        y="early answer is the final one",
    )
    figure.add_scatter(
        x=list(range(count)), y=list(bands[NULLS[0]].value), name=f"null: {NULLS[0]}", mode="lines",
        line={"dash": "dot", "color": "#7b8794"},
    )  # fmt: skip
    figure.add_scatter(
        x=[n * (count - 1) / FREE for n in range(FREE + 1)], y=list(bands["free"].value), name="continued freely",
        mode="markers+lines", line={"color": "#2f855a"},
    )  # fmt: skip
    figure.update_yaxes(range=[-0.04, 1.04])
    return figure


def _rows(arm: str, told: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a measure, the thought's own where it lies beyond both nulls to one side; the last two have no null."""
    rows = []
    for measure in MEASURES:
        beyond = {null: told[measure][f"beyond {null}"] for null in CONDITIONS[1:]}
        cells = [shown(one["mean"], Interval(one["low"], one["high"])) for one in beyond.values()]
        away = any(all(one[end] * sign > 0 for one in beyond.values()) for end, sign in (("low", 1), ("high", -1)))
        rows.append((measure, told[measure]["mean"], *cells, "the thought's own" if away else "no more than a null"))
    rows += [(name, told[name], "–", "–", "") for name in ("answers before thinking", "jumps at")]
    columns = ("measure", "value", "beyond another's [95%]", "beyond filler [95%]", "says")
    return [{"arm": arm, **dict(zip(columns, row, strict=True))} for row in rows]
