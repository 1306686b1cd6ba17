"""Does fine-tuning on right answers cut what thoughts tell? Information gain before and after, at equal length.

The model draws answers to fit questions, asked to think, and is trained on the right ones: with their thoughts, and for
comparison on as many without them, and on as many right or wrong. The information of a thought is
log p(right answer | question, thought) − log p(right answer | question), in nats a token, under the untrained model. A
thought that grows shorter may tell less for that alone, so the two thoughts on a question are also cut to the shorter
one's last tokens.

Confirmed: trained on right answers with thoughts the model's thoughts tell less at equal length, by the interval (0.1
nats a token are of interest). A fall at full length alone does not count. Not testable: the model is not right more
often after the training, by the interval, for then the training did not work; or too few questions have a thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from elicit.analysis.base import shown
from elicit.analysis.continuations import has_cot
from elicit.analysis.reasoning.information_gain import LEAST, Gains
from elicit.analysis.reasoning.information_gain import measure as gains
from elicit.decoding import Greedy, Trace
from elicit.elicited import Elicited
from elicit.evaluation.metrics.gap import scores_of
from elicit.models import Prompt
from elicit.training.rl.information_gain import NULLS
from experiments.claims.base import Finding, Study
from experiments.claims.rules import Condition, Judgement, few
from experiments.claims.tuning import ASKED, drawn, examples, some_of, tuned
from probes.dots import Dot, dot_plot
from probes.statistics import Interval, bootstrap_mean, paired

RIGHT, ALONE, ALL = "right-with-thoughts", "right-alone", "right-or-wrong"


def measure(study: Study) -> Finding:
    answers = drawn(study)
    right = [one for one in answers if one[1].correct]
    as_many = some_of(answers, len(right), study.seed)
    trained = {
        RIGHT: examples(study, right), ALONE: examples(study, right, thoughts=False), ALL: examples(study, as_many),
    }  # fmt: skip
    before = Elicited(study.model, "before", ASKED, Greedy(study["max_new_tokens"]))
    arms = {
        name: replace(before, method=name, adapter=tuned(study, some, study.seed)) for name, some in trained.items()
    }
    main = arms.pop(RIGHT)
    run = study.evaluated(main, {**arms, "before": before}, "after-tuning")
    found = {name: _against_before(study, run, name) for name in trained}
    one = found[RIGHT]
    rise, whole, equal = one["rise"], one["whole"], one["equal"]
    line = f"trained on right answers with thoughts: accuracy {shown(*rise)}"
    if whole is None or equal is None:
        line += f"; {one['thoughts']} questions have a thought before and after, too few to compare"
    else:
        share = whole["change"][0] / whole["before"] if whole["before"] else float("nan")
        line += (
            f", information {shown(*whole['change'])} nats a token ({share:+.0%}), at equal length "
            f"{shown(*equal['change'])}"
        )
    notes = [
        f"{len(answers)} answers to {study['limit']} fit questions were drawn, {len(right)} right; trained on as many "
        "in each arm. Change is after − before on questions with a thought both times, 95% interval by question.",
        "Null: the thought of another question, of the same length; it tells nothing about the question.",
        "Where training on answers right or wrong changes as much, it is the training and not their being right.",
    ]
    table = [_row(name, one) for name, one in found.items()]
    judged = decided(rise[1], one["thoughts"], None if equal is None else equal["change"])
    return Finding(judged, line, table, _figure(found), notes, found, [run])


def decided(rise: Interval, thoughts: int, change: tuple[float, Interval] | None) -> Judgement:
    """The condition.

    Args:
        rise: of the accuracy by the training.
        thoughts: questions that have one before and after.
        change: of the information at equal length, in nats a token; None where there are too few.
    """
    unmet = few(thoughts, "questions with a thought before and after")
    if rise.low <= 0:
        unmet.append("training on right answers raised no accuracy")
    if change is None:
        return Judgement((), (*unmet, *([] if unmet else ["too few thoughts to compare"])))
    fall = Interval(-change[1].high, -change[1].low)
    return Judgement((Condition("thoughts tell less at equal length", -change[0], fall, unit="nats"),), tuple(unmet))


def _against_before(study: Study, run: Any, name: str) -> dict[str, Any]:
    """Accuracy, length and information of an arm's thoughts against those before training."""
    gap = paired(scores_of(run.metrics, name), scores_of(run.metrics, "before"), seed=study.seed)
    both = [(item, run.traces["before"][item.id][0], run.traces[name][item.id][0]) for item in run.items]
    both = [(item, old, new) for item, old, new in both if has_cot(old) and has_cot(new)]
    out = {"rise": (gap.difference, gap.interval), "accuracy": float(scores_of(run.metrics, name).mean()),
           "thoughts": len(both), "whole": None, "equal": None}  # fmt: skip
    if len(both) < LEAST:
        return out
    items = [item for item, _, _ in both]
    for what in ("whole", "equal"):
        thoughts = [_two(old, new, cut=what == "equal") for _, old, new in both]
        scored = [
            gains(study.model.lm, study.model.tokenizer, Prompt(), items, list(side), seed=study.seed)
            for side in zip(*thoughts, strict=True)
        ]
        out[what] = _changed(scored, [len(new) for _, new in thoughts], study.seed)
    return out


def _two(old: Trace, new: Trace, *, cut: bool) -> tuple[Sequence[int], Sequence[int]]:
    """Two thoughts on a question; cut to the last tokens, as many as the shorter one has."""
    length = min(len(old.chain_of_thought), len(new.chain_of_thought))
    return (
        (old.chain_of_thought[-length:], new.chain_of_thought[-length:])
        if cut
        else (old.chain_of_thought, new.chain_of_thought)
    )


def _changed(scored: Sequence[Gains], lengths: Sequence[int], seed: int) -> dict[str, Any]:
    old, new = scored
    change = new.gain - old.gain
    after = bootstrap_mean(new.gain, seed=seed)
    return {
        "before": float(old.gain.mean()), "after": (float(new.gain.mean()), after),
        "change": (float(change.mean()), bootstrap_mean(change, seed=seed)),
        "null": float(new.nulls[NULLS[0]].mean()), "null before": float(old.nulls[NULLS[0]].mean()),
        "tokens": float(np.mean(lengths)),
    }  # fmt: skip


def _row(name: str, found: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trained on": name, "right": f"{found['accuracy']:.3f}", "to before [95%]": shown(*found["rise"]),
        "thoughts": found["thoughts"],
    }  # fmt: skip
    for what, words in (("whole", "information"), ("equal", "at equal length")):
        one = found[what]
        row |= {words: "–" if one is None else f"{one['before']:.3f} → {one['after'][0]:.3f}",
                f"{words}: change [95%]": "–" if one is None else shown(*one["change"])}  # fmt: skip
    return row


def _figure(found: dict[str, Any]) -> Any:
    kept = {f"{name}, {what}": one[what] for name, one in found.items() for what in ("whole", "equal") if one[what]}
    nan = Dot(float("nan"))
    names = {key.replace("whole", "whole thought").replace("equal", "equal length"): one for key, one in kept.items()}
    return dot_plot(
        list(names) or ["no thoughts"],
        {
            "before": [Dot(one["before"]) for one in names.values()] or [nan],
            "after": [Dot(one["after"][0], *one["after"][1].pair) for one in names.values()] or [nan],
        },
        nulls={"null: another question's thought": [Dot(one["null"]) for one in names.values()] or [nan]},
        title="What thoughts tell about the right answer", x="nats a token of the right answer",
    )  # fmt: skip
