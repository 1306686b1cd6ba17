"""Simulations with a known truth: how often intervals hold it, and how often a verdict is wrong.

Right and wrong answers, gains that differ by seed, unrelated directions and so on are drawn from distributions whose
mean is known, and read by the same functions as real runs (`probes.statistics`, `elicit.evaluation.metrics.gap`,
`probes.shifts`, `experiments.claims.rules`). What is asked: an interval holds the truth in at least 93 of 100 draws; a
condition that is false by a hair is confirmed in at most 2.5, one that is true at the smallest effect of interest is
refused in at most 20.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from elicit.evaluation.metrics.gap import false_positive, recovered
from experiments.claims.rules import CONFIRMED, INTEREST, NOT_CONFIRMED, Condition, Judgement, lead
from probes.shifts import cosine, whitening
from probes.statistics import Interval, auroc_interval, bootstrap_mean, over_seeds, resampled_means, wilson

COVERED, FALSELY_CONFIRMED, FALSELY_REFUSED = 0.93, 0.025, 0.2
SIZES, SEEDS = (32, 200, 1000), (1, 3, 5)
RESAMPLES = 500
# Chances that one arm alone is right, and the other alone.
PAIRS = ((0.2, 0.1), (0.4, 0.1), (0.3, 0.0), (0.1, 0.0), (0.05, 0.05), (0.6, 0.0), (0.9, 0.02), (0.02, 0.03))


class Row(NamedTuple):
    """One simulation: the fraction of draws in which `what` came out, and the bound that it must keep."""

    what: str
    n: int
    seeds: int
    truth: str
    found: float
    asked: str
    kept: bool | None  # None of what is told as a limit and not asked


Draw = Callable[[np.random.Generator], np.ndarray]


def covered(draw: Draw, interval: Callable[[np.ndarray], Interval | None], truth: float, sims: int, seed: int) -> float:
    """The fraction of draws whose interval holds the truth; draws without an interval do not count.

    Equal draws, whatever the order of their questions, have one interval, which is made once.
    """
    rng = np.random.default_rng(seed)
    known: dict[bytes, Interval | None] = {}
    held = defined = 0
    for _ in range(sims):
        values = draw(rng)
        values = values[..., np.lexsort(values.reshape(-1, values.shape[-1]))]
        key = values.tobytes()
        if key not in known:
            known[key] = interval(values)
        found = known[key]
        if found is not None:
            defined += 1
            held += found.low - 1e-9 <= truth <= found.high + 1e-9
    return held / max(1, defined)


def short(found: float, asked: float, draws: int) -> bool:
    """Whether a fraction of so many draws is below what is asked by more than two of its standard errors."""
    return found < asked - 2 * (asked * (1 - asked) / draws) ** 0.5


def pairs(n: int, win: float, loss: float) -> Draw:
    """Differences of two arms on n questions."""
    return lambda rng: rng.choice([1.0, 0.0, -1.0], size=n, p=[win, 1 - win - loss, loss])


def seeds_of(seeds: int, n: int, mean: float, spread: float) -> Draw:
    """Gains on n questions after so many trainings: a training's mean gain is normal around `mean`, questions differ in
    how ready they are, and an answer is right or wrong by chance."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        of_seed = mean + spread * rng.standard_normal((seeds, 1))
        of_question = rng.uniform(-0.2, 0.2, (1, n))
        right = rng.random((seeds, n)) < np.clip(0.2 + of_seed + of_question, 0, 1)
        return right - (rng.random((1, n)) < 0.2).astype(float)

    return draw


def plain_bootstrap(values: np.ndarray) -> Interval:
    """The percentile bootstrap alone, without what is done where few questions deviate."""
    low, high = np.quantile(resampled_means(values[:, None], resamples=RESAMPLES), [0.025, 0.975])
    return Interval(float(low), float(high))


def mean_interval(values: np.ndarray) -> Interval:
    return bootstrap_mean(values, resamples=RESAMPLES)


def seeds_interval(values: np.ndarray) -> Interval:
    return over_seeds(values, resamples=RESAMPLES)


def coverage(sims: int, seed: int = 0) -> Iterator[Row]:
    """How often intervals over questions hold the truth."""

    def row(what: str, n: int, truth: str, held: float, asked: bool = True) -> Row:
        return Row(
            what,
            n,
            1,
            truth,
            held,
            f"≥ {COVERED}" if asked else "a limit",
            not short(held, COVERED, sims) if asked else None,
        )

    for n in SIZES:
        for win, loss in PAIRS:
            draw, told = pairs(n, win, loss), f"{win - loss:+.2f} ({win:g} won, {loss:g} lost)"
            yield row("difference of two arms", n, told, covered(draw, mean_interval, win - loss, sims, seed))
        for p in (0.03, 0.3, 0.5, 0.97):
            held = covered(
                lambda rng, n=n, p=p: (rng.random(n) < p).astype(float),  # type: ignore[misc]
                lambda right: wilson(int(right.sum()), len(right)), p, sims, seed,
            )  # fmt: skip
            yield row("accuracy (Wilson)", n, f"{p:g}", held)
        for a, b in ((0.3, 3.0), (2.0, 2.0), (0.1, 6.0)):
            held = covered(
                lambda rng, n=n, a=a, b=b: rng.binomial(16, rng.beta(a, b, n)) / 16,  # type: ignore[misc]
                lambda rates: bootstrap_mean(rates, bounds=(0.0, 1.0), resamples=RESAMPLES), a / (a + b), sims, seed,
            )  # fmt: skip
            yield row("rate over 16 samples a question", n, f"{a / (a + b):.2f}", held)
        held = covered(lambda rng, n=n: 0.5 + rng.standard_normal(n), mean_interval, 0.5, sims, seed)  # type: ignore[misc]
        yield row("nats, normal", n, "0.5", held)
        held = covered(lambda rng, n=n: rng.exponential(0.5, n), mean_interval, 0.5, sims, seed)  # type: ignore[misc]
        yield row("nats, exponential", n, "0.5", held, n > 32)
        for direct, ceiling, skill in ((0.1, 0.9, 0.5), (0.1, 0.9, 0.85), (0.3, 0.7, 0.4)):
            held = covered(arms(n, direct, skill, ceiling), share, (skill - direct) / (ceiling - direct), sims, seed)
            told = f"{(skill - direct) / (ceiling - direct):.2f} of {ceiling - direct:.1f}"
            yield row("fraction of the gap", n, told, held)
        held = covered(arms(n, 0.1, 0.15, 0.9), on_twin, 0.05 / 0.8, sims // 2, seed)
        yield row("gain on the twin, in gaps", n, "0.06 of 0.8", held)
        held = covered(lambda rng, n=n: scored(n, rng), auroc, NORMAL_AUROC, max(20, sims // 10), seed)  # type: ignore[misc]
        yield row("AUROC, five answers a question", n, f"{NORMAL_AUROC:.2f}", held)


def seeded(sims: int, seed: int = 0) -> Iterator[Row]:
    """How often intervals over seeds and questions hold the truth."""
    for n in SIZES:
        for seeds in SEEDS:
            for spread in (0.0, 0.05, 0.15) if seeds > 1 else (0.0,):
                held = covered(seeds_of(seeds, n, 0.3, spread), seeds_interval, 0.3, sims, seed)
                told = f"+0.30, seeds ± {spread:g}"
                yield Row(
                    "gain over seeds and questions",
                    n,
                    seeds,
                    told,
                    held,
                    f"≥ {COVERED}",
                    not short(held, COVERED, sims),
                )
            if seeds > 1:
                held = covered(works_or_not(seeds, n), seeds_interval, 0.3, sims, seed)
                yield Row("the same, a seed works or does not", n, seeds, "+0.6 or 0, as likely", held, "a limit", None)
        one = covered(one_seed(n, 0.3, 0.15), mean_interval, 0.3, sims, seed)
        yield Row("one seed, read as if it spoke of all", n, 1, "+0.30, seeds ± 0.15", one, "a limit", None)


def verdicts(sims: int, seed: int = 0) -> Iterator[Row]:
    """How often a verdict is wrong: false by a hair and confirmed, true at the effect of interest and refused."""

    def row(what: str, n: int, truth: str, found: float, most: float) -> Row:
        return Row(what, n, 1, truth, found, f"≤ {most}", not short(1 - found, 1 - most, sims // 2))

    for n in SIZES:
        for shared in (0.05, 0.15, 0.4):
            name = f"a lead, {shared:g} lost"
            found = decided(n, [(shared, shared)], 0.0, sims, seed)
            yield row(f"falsely confirmed: {name}", n, "0", found[CONFIRMED], FALSELY_CONFIRMED)
            found = decided(n, [(shared + INTEREST, shared)], 0.0, sims, seed)
            yield row(f"falsely refused: {name}", n, f"{INTEREST:+g}", found[NOT_CONFIRMED], FALSELY_REFUSED)
        for shared in (0.0, 0.1):
            name = f"at most ten points less, {shared:g} won"
            found = decided(n, [(shared, shared + 0.1)], 0.1, sims, seed)
            yield row(f"falsely confirmed: {name}", n, "-0.1", found[CONFIRMED], FALSELY_CONFIRMED)
            found = decided(n, [(max(shared, 0.02), max(shared, 0.02))], 0.1, sims, seed)
            yield row(f"falsely refused: {name}", n, "0", found[NOT_CONFIRMED], FALSELY_REFUSED)
        found = decided(n, [(0.15, 0.15)] + [(0.6, 0.0)] * 3, 0.0, sims // 2, seed)
        yield row("falsely confirmed: four leads, one false", n, "0, +0.6", found[CONFIRMED], FALSELY_CONFIRMED)
        for count in (4, 9):
            found = decided(n, [(0.25, 0.15)] * count, 0.0, sims // 2, seed)
            yield row(f"falsely refused: {count} leads", n, f"{INTEREST:+g}", found[NOT_CONFIRMED], FALSELY_REFUSED)
        yield seen(n, sims, seed)


def seen(n: int, sims: int, seed: int) -> Row:
    """Whether the effect that is said to be seen at 80% power is."""
    rng = np.random.default_rng(seed)
    told = np.median([condition(pairs(n, 0.2, 0.1)(rng)).seen for _ in range(200)])
    loss = 0.1
    found = np.mean([condition(pairs(n, loss + told, loss)(rng)).interval.low > 0 for _ in range(sims // 2)])
    kept = abs(float(found) - 0.8) <= 0.15
    return Row("effect told as seen at 80% power", n, 1, f"{told:+.2f}", float(found), "0.8 ± 0.15", kept)


def directions(sims: int, seed: int = 0) -> Iterator[Row]:
    """How often two unrelated shifts are called alike, by a stream of 64 dimensions of which a few hold most."""
    for samples in (64, 400):
        rng = np.random.default_rng(seed)
        spread = np.arange(1, 65) ** -1.0
        called, strict = [], []
        for one in range(max(4, sims // 100)):
            turn = np.linalg.qr(rng.standard_normal((64, 64)))[0]
            white = whitening((rng.standard_normal((samples, 64)) * spread) @ turn, seed=one)
            first, second = ((rng.standard_normal((100, 64)) * spread) @ turn @ white.root for _ in range(2))
            p = np.array([white.p(float(value)) for value in cosine(first, second)])
            called.append((p < 0.05).mean())
            strict.append((p < 0.05 / 150).mean())
        for told, most, found in (("p < 0.05", 0.05, called), ("p < 0.05 over 150 tests", 0.05 / 150, strict)):
            rate = float(np.mean(found))
            yield Row(f"unrelated directions called alike, {told}", samples, 1, "0", rate, f"≤ {most:.2g}",
                      rate <= most + 3 * (most / (100 * len(found))) ** 0.5)  # fmt: skip


def decided(n: int, chances: list[tuple[float, float]], margin: float, sims: int, seed: int) -> dict[str, float]:
    """How often a claim of these leads has each verdict; the arms are drawn apart."""
    rng = np.random.default_rng(seed)
    known: dict[bytes, Condition] = {}
    out: dict[str, float] = {CONFIRMED: 0.0, NOT_CONFIRMED: 0.0}
    for _ in range(sims):
        conditions = []
        for win, loss in chances:
            values = np.sort(pairs(n, win, loss)(rng))
            key = values.tobytes()
            if key not in known:
                known[key] = condition(values, margin)
            conditions.append(known[key])
        verdict = Judgement(tuple(conditions)).verdict
        out[verdict] = out.get(verdict, 0.0) + 1 / sims
    return out


def condition(difference: np.ndarray, margin: float = 0.0) -> Condition:
    """The lead of one arm, where a question is right in it alone, in the other alone, or in neither."""
    return lead(
        "a lead", (difference > 0).astype(float), (difference < 0).astype(float), margin=margin, resamples=RESAMPLES
    )


def arms(n: int, direct: float, method: float, ceiling: float) -> Draw:
    """Scores of three arms on questions that are as hard for all, with a tenth of the answers redrawn."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        ease = np.where(rng.random((3, n)) < 0.1, rng.random((3, n)), rng.random((1, n)))
        return (ease < np.array([[direct], [method], [ceiling]])).astype(float)

    return draw


def share(scores: np.ndarray) -> Interval | None:
    direct, method, ceiling = scores
    return recovered(method, direct, ceiling, resamples=RESAMPLES).interval


def on_twin(scores: np.ndarray) -> Interval:
    direct, method, ceiling = scores
    return false_positive(method, direct, ceiling - direct, resamples=RESAMPLES)[1]


NORMAL_AUROC = 0.76  # of two normal scores one standard deviation apart


def scored(n: int, rng: np.random.Generator) -> np.ndarray:
    """Scores of five answers a question, which are right by chance and then score one higher."""
    right = rng.random((5, n)) < 0.4
    return np.stack([rng.standard_normal((5, n)) + right, right.astype(float)]).reshape(10, n)


def auroc(values: np.ndarray) -> Interval | None:
    score, right = values.reshape(2, 5, -1)
    question = np.tile(np.arange(score.shape[1]), 5)
    return auroc_interval(score.ravel(), right.ravel() > 0, question, score.shape[1], resamples=300)


def works_or_not(seeds: int, n: int) -> Draw:
    def draw(rng: np.random.Generator) -> np.ndarray:
        works = rng.random((seeds, 1)) < 0.5
        return (rng.random((seeds, n)) < 0.6 * works).astype(float)

    return draw


def one_seed(n: int, mean: float, spread: float) -> Draw:
    return lambda rng: seeds_of(1, n, mean, spread)(rng)[0]
