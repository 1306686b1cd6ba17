"""Do corrupted thoughts train as well as right ones? Organisms that differ in nothing but the thoughts they were shown.

Each is asked to think and answered directly; what asking adds is its gain. How often the answer is right and how often
the thought is valid are taken apart (`elicit analyse corrupted-traces`), beside the same thoughts judged on another
question. `shuffled` is the paper's case: thoughts of other questions or out of order, with right conclusions. In
`surface` the conclusions are wrong as well, so it shows what the form alone does. `absent` was shown no thought.

Confirmed: `shuffled` gains by being asked to think, is right as often as the model of right thoughts up to the margin
(the interval's lower end is above −margin), and its thoughts are less often valid, all by their intervals.
"""

from __future__ import annotations

from elicit.analysis.base import shown
from elicit.analysis.reasoning import corrupted_traces
from elicit.evaluation import Run
from elicit.evaluation.metrics.gap import CEILING, DIRECT, scores_of
from experiments.claims.base import CONFIRMED, NOT_CONFIRMED, Finding, Study
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
    gained = gains["shuffled"].interval.low > 0
    as_right = shuffled["right"]["low"] > -study["margin"]
    less_valid = shuffled["valid"]["high"] < 0
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
    holds = gained and as_right and less_valid
    return Finding(CONFIRMED if holds else NOT_CONFIRMED, line, table, found.figure, found.notes, data, asked)


def _gain(runs: dict[str, Run], seed: int) -> Paired:
    return paired(scores_of(runs[CEILING].metrics, CEILING), scores_of(runs[DIRECT].metrics, DIRECT), seed=seed)


def _against(found: dict[str, dict[str, float]] | None, what: str) -> str:
    if found is None:
        return ""
    return shown(found[what]["difference"], Interval(found[what]["low"], found[what]["high"]))
