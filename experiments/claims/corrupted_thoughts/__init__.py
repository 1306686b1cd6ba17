"""Do corrupted thoughts train as well as right ones? Organisms that differ in nothing but the thoughts they were shown.

Each is asked to think and answered directly; what asking adds is its gain. How often the answer is right and how often
the thought is valid are taken apart (`elicit analyse corrupted-traces`), beside the same thoughts judged on another
question. `shuffled` is the paper's case: thoughts of other questions or out of order, with right conclusions. In
`surface` the conclusions are wrong as well, so it shows what the form alone does. `absent` was shown no thought.

Confirmed: `shuffled` gains by being asked to think, is right as often as the model of right thoughts up to the margin
(the interval's lower end is above −margin), and its thoughts are less often valid, all by their intervals; ten points
are of interest. Not testable: the model of right thoughts gains nothing by being asked to think.
"""

from __future__ import annotations

from elicit.analysis.base import shown
from elicit.analysis.reasoning import corrupted_traces
from elicit.evaluation import Run
from elicit.evaluation.metrics.gap import CEILING, DIRECT, scores_of
from experiments.claims.base import Finding, Study
from experiments.claims.rules import INTEREST, Condition, Judgement, lead
from probes.statistics import Interval, Paired, paired

ARMS = ("model", "thinking", "shuffled", "surface", "absent")


def measure(study: Study) -> Finding:
    runs: dict[str, dict[str, Run]] = {}
    for arm in ARMS:
        if study[arm]:
            study.log(f"{arm}: {study[arm]}")
            model = study.model if arm == "model" else study.load(study[arm])
            runs[arm] = study.compared([DIRECT, CEILING], model=model)
    asked = [one[CEILING] for one in runs.values()]
    found = corrupted_traces.analyse(asked, seed=study.seed)
    judged = dict(zip(runs, found.data["arms"].values(), strict=True))
    gains = {arm: _gain(one, study.seed) for arm, one in runs.items()}
    to_right = {arm: judged[arm]["against the first run"] for arm in runs if arm != "model"}
    shuffled = to_right["shuffled"]
    shown_right, asked_not = (scores_of(runs["shuffled"][name].metrics, name) for name in (CEILING, DIRECT))
    judged_by = decided(
        lead("shuffled gains by thinking", shown_right, asked_not, seed=study.seed), _read(shuffled["right"]),
        _read(shuffled["valid"]), study["margin"], gains["model"].interval,
    )  # fmt: skip
    table = [
        {
            "shown": arm, "organism": study[arm], "right": shown(judged[arm]["right"]["share"]),
            "gain by thinking [95%]": shown(gains[arm].difference, gains[arm].interval),
            "valid": shown(judged[arm]["valid"]["share"]), "valid elsewhere": shown(judged[arm]["elsewhere"]["share"]),
            "right, to right thoughts [95%]": _against(to_right.get(arm), "right"),
            "valid, to right thoughts [95%]": _against(to_right.get(arm), "valid"),
        }
        for arm in runs
    ]  # fmt: skip
    gained_by = ", ".join(f"{arm} {shown(gap.difference, gap.interval)}" for arm, gap in gains.items())
    line = (
        f"gains by thinking: {gained_by}; shuffled against right thoughts: right {_against(shuffled, 'right')} (margin "
        f"{study['margin']:g}), valid {_against(shuffled, 'valid')}"
    )
    data = {"gains": {arm: gap.interval.pair for arm, gap in gains.items()}, "to right thoughts": to_right}
    return Finding(judged_by, line, table, found.figure, found.notes, data, asked)


def decided(
    gains: Condition, right: tuple[float, Interval], valid: tuple[float, Interval], margin: float, own: Interval
) -> Judgement:
    """The conditions.

    Args:
        gains: that `shuffled` gains by being asked to think.
        right, valid: of `shuffled`, less those of the model of right thoughts.
        margin: by how much it may be right less often.
        own: what the model of right thoughts gains by being asked to think.
    """
    less = Interval(-valid[1].high, -valid[1].low)
    return Judgement(
        (
            gains,
            Condition(
                f"shuffled against right thoughts, at most {margin:.0%} less", *right, -margin, INTEREST - margin
            ),
            Condition("thoughts of shuffled are less often valid", -valid[0], less),
        ),
        () if own.low > 0 else ("the model of right thoughts gains nothing by being asked to think",),
    )


def _read(found: dict[str, float]) -> tuple[float, Interval]:
    return found["difference"], Interval(found["low"], found["high"])


def _gain(runs: dict[str, Run], seed: int) -> Paired:
    return paired(scores_of(runs[CEILING].metrics, CEILING), scores_of(runs[DIRECT].metrics, DIRECT), seed=seed)


def _against(found: dict[str, dict[str, float]] | None, what: str) -> str:
    if found is None:
        return ""
    return shown(found[what]["difference"], Interval(found[what]["low"], found[what]["high"]))
