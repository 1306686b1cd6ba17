"""The thesis: do all five mechanisms reach the same latent ability?

Confirmed, if all of this holds (ten points, an agreement and a cosine of 0.1 are of interest):

1. reach: each mechanism gains over direct (intervals over questions that hold together with 95%);
2. the same items: over all pairs at once, newly solved items agree more than items dealt out anew among questions of
   one family that the base's own samples get right as often (p < 0.05, interval of the agreement above 0);
3. the same direction: every two mechanisms that move the stream on given texts move it alike: at one layer at least
   their mean shifts have a cosine above 0 in the whitened stream, beyond unrelated directions (p < 0.05 after Holm over
   all layers and pairs; p is a formula, so that no number of layers is too many).

Agreement is 0 at matched chance and 1 where of each two sets of newly solved items the smaller lies in the larger.
Where the mechanisms solve so much or so little that of a pair less than one item says whether they agree beyond
difficulty, part 2 has no room, and the claim is not testable. Difficulty is never read from the mechanisms themselves:
matched on each other, what they share would be taken away. Of mechanisms that move nothing on a given text (the
decoding alone, hybrid decoding) part 3 says nothing, and the line says how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from elicit.analysis.behaviour import convergence
from elicit.analysis.internals import convergence_shift
from elicit.evaluation import Run
from elicit.evaluation.metrics.format import with_interval
from elicit.evaluation.metrics.gap import CEILING, DIRECT, format_gap, recovered
from elicit.models import zoo
from experiments.claims.base import Finding, Study
from experiments.claims.convergence.figure import drawn
from experiments.claims.rules import Condition, Judgement, lead
from experiments.claims.trained import means, points, scores
from probes.errors import UserError
from probes.shifts import Cosine
from probes.statistics import Interval, holm

DIFFICULTY, FAMILY, BINS = "self-consistency", "family", 3


class Shift(NamedTuple):
    """Two mechanisms' shifts at the layer where they stand out most; p is Holm's over all layers and pairs."""

    layer: int
    cosine: Cosine
    p: float

    @property
    def alike(self) -> bool:
        return self.p < 0.05 and self.cosine.value > 0


def measure(study: Study) -> Finding:
    names = [name.strip() for name in study["mechanisms"].split(",")]
    if len(names) < 2:
        raise UserError(f"mechanisms = {study['mechanisms']!r} was given; give at least two, joined by commas")
    runs = study.compared([DIRECT, CEILING, DIFFICULTY, *names])
    arms = [runs[name] for name in names]
    reach = means({n: scores(runs[n]) - scores(runs[DIRECT]) for n in names}, seed=study.seed)
    family = FAMILY if all(FAMILY in item.metadata for item in runs[DIRECT].items) else ""
    solved = convergence.analyse(
        [*arms, runs[DIRECT], runs[DIFFICULTY]], difficulty=DIFFICULTY, within=family, bins=BINS, seed=study.seed
    )
    saes = zoo.saes_for(study["model"])
    inside = convergence_shift.shifts(
        [*arms, runs[DIRECT]],
        limit=study["texts"],
        sae=saes[0] if saes else "",
        seed=study.seed,
        progress=study.told,
    )
    moved = shifted(inside["cosines"])
    together = convergence.PooledAgreement(**solved.data["together"])
    judged = decided({n: scores(runs[n]) for n in names}, scores(runs[DIRECT]), together, moved, study.seed)
    pairs = {pair: solved.data["pairs"][" & ".join(pair)] for pair in combinations(names, 2)}
    beyond = sum(row["reading"] == "more than difficulty explains" for row in solved.table)
    line = (
        f"gain over direct {', '.join(f'{n} {points(*one)}' for n, one in reach.items())} points; agreement of "
        f"newly solved items beyond matched chance {_number(*together.agreement)}, p {together.null.p:.2g}, and "
        f"{beyond} of {len(pairs)} pairs each by itself; {_moved(moved, inside['reasons'])}"
    )
    return Finding(
        judged, line, [_row(pair, one, moved.get(pair), inside) for pair, one in pairs.items()],
        drawn(pairs, together, moved, names),
        [_gap(runs, names, study.seed), *solved.notes, "Cosines: each pair's mean shifts on the same texts (direct's "
         "answers), at the layer where they stand out most, in the stream that is whitened by the base's own "
         "activations; the null is of unrelated directions there; the ceiling is a mechanism against its own other "
         "half of the questions.",
         *(f"{name}: {reason}." for name, reason in inside["reasons"].items())],
        {"reach": {n: {"points": v, "interval": i.pair} for n, (v, i) in reach.items()},
         "together": together._asdict(), "solved": {n: len(s) for n, s in solved.data["solved"].items()},
         "wrong under direct": len(solved.data["items"]),
         "shifts": {" & ".join(pair): one._asdict() for pair, one in moved.items()}},
        list(runs.values()),
    )  # fmt: skip


def shifted(cosines: Mapping[tuple[str, str], Sequence[Cosine]]) -> dict[tuple[str, str], Shift]:
    """Each pair at its layer of the smallest p among those of a cosine above 0, else among the others (of equal ones,
    the largest cosine); pairs without a shift left out."""
    each = [(pair, layer, one) for pair, some in cosines.items() for layer, one in enumerate(some)]
    tested = [(pair, layer, one) for pair, layer, one in each if not np.isnan(one.p)]
    adjusted = holm([one.p for _, _, one in tested])
    out: dict[tuple[str, str], Shift] = {}
    for (pair, layer, one), p in zip(tested, adjusted, strict=True):
        best = out.get(pair)
        if best is None or _alike(one, p) < _alike(best.cosine, best.p):
            out[pair] = Shift(layer, one, p)
    return out


def _alike(one: Cosine, p: float) -> tuple[bool, float, float]:
    """What sorts a pair's layers, the one that decides first."""
    return one.value <= 0, p, -one.value


def decided(
    right: Mapping[str, Float[np.ndarray, " items"]],
    direct: Float[np.ndarray, " items"],
    together: convergence.PooledAgreement,
    moved: Mapping[tuple[str, str], Shift],
    seed: int = 0,
) -> Judgement:
    """The conditions.

    Args:
        right: scores of each mechanism.
        direct: of direct answers to the same questions.
        together: the agreement of all pairs at once.
        moved: each pair that moves the stream, at its layer.
        seed: of the bootstrap.
    """
    nan, pairs = float("nan"), len(right) * (len(right) - 1) / 2
    agreement = together.agreement if together.room >= pairs else (nan, Interval(nan, nan))
    return Judgement((
        *(lead(f"{name} gains over direct", one, direct, together=len(right), seed=seed)
          for name, one in right.items()),
        Condition("newly solved items agree beyond difficulty", *agreement, p=together.null.p,
                  chance=together.null.interval.high, unit=""),
        *(Condition(f"{' & '.join(pair)} move the stream alike", one.cosine.value,
                    Interval(one.cosine.low, one.cosine.high), p=one.p,
                    chance=one.cosine.null_high, unit="") for pair, one in moved.items()),
    ))  # fmt: skip


def _moved(moved: Mapping[tuple[str, str], Shift], reasons: Mapping[str, str]) -> str:
    said = ", ".join(f"{' & '.join(pair)} {_cosine(one)}" for pair, one in moved.items())
    alike = sum(one.alike for one in moved.values())
    return f"{alike} of {len(moved)} pairs move the stream alike ({said}), {len(reasons)} mechanisms do not move it"


def _row(
    pair: tuple[str, str], one: Mapping[str, Any], moved: Shift | None, inside: Mapping[str, Any]
) -> dict[str, Any]:
    raised = inside["features"].get(pair)
    return {
        "pair": " & ".join(pair), "newly solved": f"{one['sizes'][0]}, {one['sizes'][1]}", "shared": one["shared"],
        "matched chance": f"{one['matched'].mean:.1f}", "agreement [95%]": _number(*one["matched_agreement"]),
        "cosine [95%]": "–" if moved is None else _cosine(moved), "layer": "–" if moved is None else moved.layer,
        "ceiling": "–" if moved is None else f"{np.mean(moved.cosine.ceiling):.2f}",
        "features shared": "–" if raised is None else f"{raised.shared:.2f} (chance {raised.null:.2f})",
    }  # fmt: skip


def _cosine(moved: Shift) -> str:
    one = moved.cosine
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}] (null {one.null_low:.2f} to {one.null_high:.2f})"


def _number(value: float, interval: Interval) -> str:
    return "–" if np.isnan(value) else f"{value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _gap(runs: Mapping[str, Run], names: Sequence[str], seed: int) -> str:
    """Of each mechanism what it gets right, and the fraction of the gap to the ceiling."""
    said = []
    for name in (DIRECT, CEILING, *names):
        arm = runs[name].metrics["arms"][name]
        found = recovered(scores(runs[name]), scores(runs[DIRECT]), scores(runs[CEILING]), seed=seed)
        gap = f", {format_gap(found.share, found.interval.pair)} of the gap" if found.share and found.interval else ""
        said.append(f"{name} {with_interval(arm['accuracy'], arm['interval'])}{gap}")
    return f"Right in %: {'; '.join(said)}."
