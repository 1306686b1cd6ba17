"""Does reasoning emerge more where next-token reasoning (RPT) leaves out its filter, and if so, why?

Arms, all with as many thoughts of as many tokens on the same documents, in the same number of updates, positions drawn
in random order:

    all      every position
    filter   those whose next token the proxy is unsure of: `min_entropy` nats and more
    random   as many positions as `filter`, drawn at random
    first    as many, all of the first documents
    rlp      every position, rewarded by information gain

The primary figure is how many more of the held-out questions are right after `all` than after `filter`, both asked
plainly and decoded greedily, paired by question; ten points are of interest. Confirmed, each by its 95% interval over
questions (and seeds):

1. more are right after `all` than under direct: something emerges;
2. more are right after `all` than after `filter`.

Not testable: neither of the two gains anything over direct, so that nothing emerged which a filter could help or
hinder. RLP stands beside; no condition reads it.

Why is asked with the same rule where `random` and `first` were run and the primary condition holds. *Breadth*: both
are right more often than `filter`, so that as many positions do better where sure ones are among them. *Number*: `all`
is right more often than `random`, and neither `random` nor `first` by ten points more often than `filter`. Else open.
This rule was written before the first training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.evaluation.metrics.format import with_interval
from experiments.claims.base import Finding, Study
from experiments.claims.proxy_filter.documents import mixed, written
from experiments.claims.reading import dot, lead_of
from experiments.claims.rules import FAILS, HOLDS, Condition, Judgement, lead
from experiments.claims.trained import scores, trained
from probes.dots import Dot, dot_plot
from probes.errors import UserError, unknown

DIRECT, RLP = "direct", "rlp"
ALL, FILTER, RANDOM, FIRST = "all", "filter", "random", "first"
BREADTH, NUMBER, OPEN_WHY = "breadth", "number", "open"
# By what an arm's positions are chosen; None: every one is taken.
FILTERED = {ALL: None, FILTER: "entropy", RANDOM: "random", FIRST: "first", RLP: None}
LONGEST = 320  # tokens of a document: none is cut
Right = Mapping[str, Float[np.ndarray, " items"]]


def measure(study: Study) -> Finding:
    names = arms_of(study["arms"])
    documents = mixed(study.model, study.task(), study["documents"], study.seed)
    text = written(documents, study.runs / "claims")
    direct = study.compared([DIRECT])[DIRECT]
    handles = {name: fitted(study, name, str(text)) for name in names}
    runs = {DIRECT: direct} | {name: study.evaluated(one, {}, f"proxy-{name}") for name, one in handles.items()}
    right = {name: scores(run) for name, run in runs.items()}
    judged = decided(right, study.seed)
    primary = judged.conditions[1].measured
    gains = {name: lead_of(right[name], right[DIRECT], DIRECT, study.seed) for name in names}
    figure = dot_plot(
        names, {"lead over direct": [dot(one) for one in gains.values()]},
        nulls={"null: filtered at random, as many positions": [
            dot(gains[RANDOM]) if name == FILTER and RANDOM in gains else Dot(float("nan")) for name in names]},
        title="Next-token reasoning with and without its filter", x="lead over direct, fraction of questions",
    )  # fmt: skip
    told = "; ".join(f"{name} {one}" for name, one in gains.items())
    return Finding(
        judged, f"without the filter over with it {primary} (primary); {told} points; why: {why(right, study.seed)}",
        [row(name, run, handles.get(name), gains) for name, run in runs.items()], figure,
        [f"{len(documents)} documents, a third each worked, bare and unrelated; every arm: {study['updates']} updates "
         f"of {study['positions']} positions with {study['group']} thoughts of at most {study['thought_tokens']} "
         f"tokens, {tokens_of(handles[names[0]]):,} tokens of thoughts.",
         f"The filter keeps positions of {study['min_entropy']:g} nats and more for {study['proxy']}: "
         f"{handles[FILTER].options['found']['positions']} of {handles[ALL].options['found']['positions']}.",
         f"Not run: {', '.join(name for name in FILTERED if name not in names) or 'nothing'}."],
        {name: {"scores": one.tolist()} for name, one in right.items()}, list(runs.values()),
    )  # fmt: skip


def arms_of(given: str) -> list[str]:
    """The arms of a setting, by their names.

    Raises:
        UserError: an unknown one, or not both that the primary figure is of.
    """
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in FILTERED:
            raise unknown("arm", name, FILTERED)
    if not {ALL, FILTER} <= set(names):
        raise UserError(f"arms = {given!r} was given; give {ALL} and {FILTER} at least, which the claim is about")
    return names


def options(study: Study, name: str, text: str) -> dict[str, Any]:
    """What `rlp` is fitted with for an arm: all arms have all in common but which positions, and what is rewarded."""
    by = FILTERED[name]
    chosen = {} if by is None else {"filter_by": by, "proxy": study["proxy"], "min_entropy": study["min_entropy"]}
    objective = {"objective": "rlp"} if name == RLP else {"objective": "rpt", "predicts": "greedy"}
    same = {key: study[key] for key in ("documents", "updates", "positions", "group", "thought_tokens", "lr")}
    return {"text": text, "document_tokens": LONGEST, "order": "drawn", "checked": False, **same, **objective, **chosen}


def fitted(study: Study, name: str, text: str) -> Elicited:
    """The trained handle of an arm.

    Raises:
        UserError: as `elicit.methods.rlp.fit`.
    """
    return trained(study, RLP, **options(study, name, text))


def tokens_of(handle: Elicited) -> int:
    """How many tokens an arm's thoughts may have in all."""
    settings = handle.options["settings"]
    return int(-(-settings["updates"] // settings["per_rollout"]) * settings["rollouts"] * settings["max_new_tokens"])


def decided(right: Right, seed: int = 0) -> Judgement:
    """The conditions; `right`: scores of direct and of the arms on the same questions."""
    gained = [name for name in (ALL, FILTER) if lead_of(right[name], right[DIRECT], DIRECT, seed).interval.low > 0]
    return Judgement(
        (
            lead("without the filter over direct", right[ALL], right[DIRECT], seed=seed),
            lead("without the filter over with it", right[ALL], right[FILTER], seed=seed),
        ),
        () if gained else ("training gained nothing, neither with the filter nor without",),
    )


def why(right: Right, seed: int = 0) -> str:
    """Whether breadth or the number of positions explains what the filter costs; open where nothing is to explain."""
    if not {RANDOM, FIRST} <= set(right):
        return f"{OPEN_WHY} ({RANDOM} and {FIRST} were not run)"

    def over(one: str, other: str) -> Condition:
        return lead(f"{one} over {other}", right[one], right[other], seed=seed)

    if over(ALL, FILTER).outcome != HOLDS:
        return f"{OPEN_WHY} (there is no lead to explain)"
    few = [over(name, FILTER).outcome for name in (RANDOM, FIRST)]
    if few == [HOLDS, HOLDS]:
        return BREADTH
    return NUMBER if over(ALL, RANDOM).outcome == HOLDS and few == [FAILS, FAILS] else OPEN_WHY


def row(name: str, run: Run, handle: Elicited | None, gains: Mapping[str, Any]) -> dict[str, str]:
    """What is told of an arm; `gains`: leads over direct, by arm."""
    arm = run.metrics["arms"][run.metrics["method"]]
    found = None if handle is None else handle.options["found"]
    return {
        "arm": name, "right [95%]": with_interval(arm["accuracy"], arm["interval"]),
        "lead over direct [95%]": gains[name].points if name in gains else "–",
        "tokens": f"{arm['tokens_per_item']:.0f}",
        "positions": "–" if found is None else str(found["positions"]),
        "thoughts' tokens": "–" if found is None else f"{found['summary']['tokens']:,}",
        "groups with a difference": "–" if found is None else f"{1 - found['summary']['groups without variance']:.0%}",
        "last reward": "–" if found is None else f"{found['summary']['last reward']:+.3f}",
        "training, s": "–" if found is None else f"{found['summary']['seconds']:.0f}",
    }  # fmt: skip
