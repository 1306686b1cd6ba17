"""The bottom line: one plain sentence on what a method gains, and whether its controls do as much.

An arm's name says what it stands for:

- the start, `direct`: gains are measured from it;
- ceilings, `cot-prompt…` and `thinking model`: how far one gets when asked to think. To reach one speaks for a method;
- plain baselines: what one could do instead;
- controls: all others, `…@budget` among them. Those that are alike up to a number or a quoted word at the end
  (`random feature 12`, `random feature 90`; `begins 'To'`, `begins 'Step'`) are draws of one control, counted together.

Differences are the method minus another arm, paired by question. One *counts* if its 95% bootstrap interval leaves out
0 and its exact McNemar p, corrected by Holm over all arms beside the method, is below 0.05. Both stand in the table.

The rule; the first outcome that applies:

    no verdicts   too many answers of an arm have no verdict (`verdicts.py`)
    no start      `direct` was not run
    worse         the difference to `direct` counts, and is below 0
    nothing       it does not count, its interval holds 0, and ends below `LEAST_GAP` (5 points)
    undecided     it does not count; given is the smallest lead that would have counted on so many questions, with as
                  many answers spoilt as here
    gained        it counts, and the method is a baseline, which has no controls
    uncontrolled  it counts, and no controls were run
    beats         it counts, and so does the lead over each control
    random        it counts, and the lead over a control whose name begins with `random` does not
    other         it counts, and the lead over a control of another kind does not, over random ones it does

Of controls over which the lead does not count, those that are right at least as often as the method are told apart from
those over which it has a lead that is undecided.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from elicit.evaluation.budget import MATCHED
from elicit.evaluation.metrics.format import percent, signed
from elicit.evaluation.metrics.gap import CEILING, DIRECT, LEAST_GAP
from elicit.evaluation.metrics.verdicts import not_stated as why_not_stated
from probes.statistics import Paired, holm, mcnemar_exact, paired

NO_START, WORSE, NOTHING, UNDECIDED, GAINED = "no start", "worse", "nothing", "undecided", "gained"
NO_VERDICTS = "no verdicts"
UNCONTROLLED, BEATS, RANDOM, OTHER = "uncontrolled", "beats", "random", "other"
BASELINES = (DIRECT, CEILING, "self-consistency")
CEILINGS = (CEILING, "thinking model")  # and what their names begin
LEVEL = 0.05
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
# What `several` says of one method, and of more than one.
OF_SEVERAL = {
    BEATS: ("gains more than each of its controls", "gain more than each of their controls"),
    RANDOM: ("is not shown to gain more than a random control", "are not shown to gain more than a random control"),
    OTHER: ("is not shown to gain more than another control", "are not shown to gain more than another control"),
    UNCONTROLLED: ("gains, but no controls were run: add --controls",) * 2,
    GAINED: ("gains", "gain"),
    UNDECIDED: ("is undecided", "are undecided"),
    NOTHING: ("gains nothing", "gain nothing"),
    WORSE: ("does worse", "do worse"),
    NO_VERDICTS: ("has too few verdicts", "have too few verdicts"),
    NO_START: ("has nothing to be measured from", "have nothing to be measured from"),
}


@dataclass(frozen=True)
class BottomLine:
    """A sentence, and which outcome of the rule it tells."""

    outcome: str
    sentence: str


@dataclass(frozen=True)
class _Lead:
    """The method minus another arm; `counts` is 1 or −1 where it is above or below it, else 0."""

    by: Paired
    counts: int


def bottom_line(
    method: str,
    scores: Mapping[str, Float[np.ndarray, " items"]],
    *,
    start: str = DIRECT,
    recovered: float | None = None,
    seed: int = 0,
    not_stated: str = "",
) -> BottomLine:
    """Decide by the rule above.

    Args:
        method: the arm under test.
        scores: of every arm, the method's among them: 0 or 1 a question, in the same order.
        start: the arm that gains are measured from.
        recovered: which fraction of a known gap the method recovers, where one is known.
        seed: of the bootstrap.
        not_stated: why no accuracy may be stated, if so.
    """
    if not_stated:
        return BottomLine(NO_VERDICTS, not_stated)
    n = len(scores[method])
    right = f"{method} is right in {percent(float(scores[method].mean()))}% of {_questions(n)}"
    if method == start:
        return BottomLine(NO_START, f"{right}; gains of others are measured from it.")
    if start not in scores:
        return BottomLine(NO_START, f"{right}; {start} was not run, so no gain can be measured: add --against {start}.")
    leads = _leads(method, scores, seed)
    gain = leads.pop(start)
    interval = gain.by.interval
    told = f"{_points(gain.by, signed)} on {_questions(n)}"
    if gain.counts < 0:
        return BottomLine(WORSE, f"{method} does worse than {start}: {told}.")
    if not gain.counts:
        if interval.low <= 0 and interval.high < LEAST_GAP:
            return BottomLine(NOTHING, f"{method} gains nothing over {start}: {told}.")
        least = _smallest(n, gain.by.losses, len(leads) + 1)
        seen = (
            f"no lead below {percent(least)} points could be seen" if least else "no lead could be seen: raise --limit"
        )
        return BottomLine(UNDECIDED, f"It is undecided whether {method} gains over {start}: {told}, where {seen}.")
    known = f", {recovered:.2f} of the gap" if recovered is not None else ""
    head = f"{method} gains {_points(gain.by)} over {start}{known}"
    controls = {name: lead for name, lead in leads.items() if not _is_reference(name)}
    if not controls:
        if method in BASELINES:
            return BottomLine(GAINED, f"{head}.")
        return BottomLine(UNCONTROLLED, f"{head}, but no controls were run: add --controls.")
    unbeaten = [name for name, lead in controls.items() if lead.counts < 1]
    if not unbeaten:
        return BottomLine(BEATS, f"{head}, and more than {_beaten(controls)}.")
    equal = [name for name in unbeaten if controls[name].by.difference <= 0]
    undecided = [name for name in unbeaten if name not in equal]
    but = [f"no more than {_named(equal, controls)}"] if equal else []
    but += [f"its lead over {_named(undecided, controls)} is undecided"] if undecided else []
    random = any(name.startswith("random") for name in unbeaten)
    return BottomLine(RANDOM if random else OTHER, f"{head}, but {'; '.join(but)}.")


def of_run(metrics: Mapping[str, Any]) -> BottomLine:
    """The bottom line of a run's metrics."""
    method, arms = metrics["method"], metrics["arms"]
    scores = {name: np.array([arm["scores"][i] for i in arms[method]["scores"]]) for name, arm in arms.items()}
    known = {"recovered": arms[method].get("recovered"), "seed": metrics.get("seed", 0)}
    return bottom_line(method, scores, **known, not_stated=why_not_stated(arms, metrics["items"]))


def several(lines: Mapping[str, BottomLine]) -> str:
    """One sentence on several methods, each with its bottom line; of one its own."""
    if len(lines) == 1:
        return next(iter(lines.values())).sentence
    said = []
    for outcome, (one, more) in OF_SEVERAL.items():
        names = [name for name, line in lines.items() if line.outcome == outcome]
        if names:
            said.append(f"{_word(len(names))} {one if len(names) == 1 else more} ({', '.join(names)})")
    return f"Of {_word(len(lines))} methods {'; '.join(said)}."


def _leads(method: str, scores: Mapping[str, np.ndarray], seed: int) -> dict[str, _Lead]:
    """The method minus each other arm."""
    found = {name: paired(scores[method], other, seed=seed) for name, other in scores.items() if name != method}
    p_values = holm([mcnemar_exact(one.wins, one.losses) for one in found.values()])
    return {
        name: _Lead(one, (one.interval.low > 0) - (one.interval.high < 0) if p < LEVEL else 0)
        for (name, one), p in zip(found.items(), p_values, strict=True)
    }


def _smallest(n: int, losses: int, arms: int) -> float:
    """The smallest lead, in the fraction of questions, that counts with so many losses beside so many arms; 0: none."""
    for wins in range(losses + 1, n - losses + 1):
        if arms * mcnemar_exact(wins, losses) < LEVEL:
            return (wins - losses) / n
    return 0.0


def _is_reference(name: str) -> bool:
    """Whether an arm is no control: a plain baseline or a ceiling."""
    return name in BASELINES or name.startswith(CEILINGS)


def _beaten(controls: Mapping[str, _Lead]) -> str:
    name, closest = min(controls.items(), key=lambda one: one[1].by.difference)
    by = _points(closest.by)
    if len(controls) == 1:
        return f"its one control, {name}: by {by}"
    return f"each of its {_word(len(controls))} controls: {by} more than the closest, {name}"


def _family(name: str) -> str:
    """What draws of one control have in common, in the plural: `random features`, `“begins …”`."""
    begun = re.sub(r"\s+('[^']*'|\"[^\"]*\")$", "", name)
    stem = re.sub(r"\s+\d+$", "", name)
    if begun != name:
        return f"“{begun} …”"
    if stem == name:
        return name
    return f"{stem} controls" if " " not in stem else stem if stem.endswith("s") else f"{stem}s"


def _named(some: Sequence[str], controls: Iterable[str]) -> str:
    """Controls by name; of several draws of one control how many of how many they are."""
    families: dict[str, list[str]] = {}
    for name in controls:
        families.setdefault(_family(name), []).append(name)
    out = []
    for family, members in families.items():
        found = [name for name in some if name in members]
        if not found:
            continue
        if len(members) == 1:
            out.append(f"{found[0]} (the same tokens)" if found[0].endswith(MATCHED) else found[0])
        elif len(found) == len(members):
            out.append(f"all {_word(len(members))} {family}")
        else:
            out.append(f"{_word(len(found))} of {_word(len(members))} {family} ({', '.join(found)})")
    return out[0] if len(out) == 1 else f"{', '.join(out[:-1])} and {out[-1]}"


def _points(by: Paired, form: Callable[[float], str] = percent) -> str:
    low, high = by.interval.pair
    return f"{form(by.difference)} points [{form(low)}, {form(high)}]"


def _word(number: int) -> str:
    return WORDS[number] if number < len(WORDS) else str(number)


def _questions(n: int) -> str:
    return f"{n} question{'s' if n != 1 else ''}"
