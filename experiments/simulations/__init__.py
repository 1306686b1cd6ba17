"""Simulations with a known truth: how often intervals hold it, and how often a verdict is wrong.

Right and wrong answers, gains that differ by seed, unrelated directions and so on are drawn from distributions whose
mean is known, and read by the same functions as real runs (`probes.statistics`, `probes.auroc`,
`elicit.evaluation.metrics.gap`, `probes.shifts`, `experiments.claims.rules` and `seeds`). What is asked: an interval
holds the truth in at least 93 of 100 draws; a condition that is false by a hair is confirmed in at most 2.5, one that
is true at the smallest effect of interest is refused in at most 20.

Where a question can come out in two or three ways alone, nothing is drawn: the chance of every count of wins and losses
is known, so the rate is a sum (*exact*; counts beyond four standard deviations are left out, and count as missed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from elicit.evaluation.metrics.gap import false_positive, recovered
from experiments.claims.rules import CONFIRMED, FAILS, HOLDS, INTEREST, NOT_CONFIRMED, Condition, lead
from experiments.claims.seeds import pooled
from probes.auroc import auroc_interval
from probes.shifts import cosine, whitening
from probes.statistics import Interval, bootstrap_mean, over_seeds, proportion_interval, resampled_means

COVERED, FALSELY_CONFIRMED, FALSELY_REFUSED = 0.93, 0.025, 0.2
SIZES, SEEDS = (32, 200, 1000), (1, 3, 5)
RESAMPLES = 500
FINER = 5  # times as many draws where a rate of 0.025 is asked
MOST = 13  # conditions of the claim that has most
REACH = 4.0  # standard deviations of a count
# Chances that one arm alone is right, and the other alone.
PAIRS = ((0.2, 0.1), (0.4, 0.1), (0.3, 0.0), (0.1, 0.0), (0.05, 0.05), (0.6, 0.0), (0.9, 0.02), (0.02, 0.03))


@dataclass(frozen=True)
class Row:
    """One simulation: the fraction of cases in which `what` came out, and what is asked of it.

    Args:
        what, n, seeds, truth: the case.
        found: the fraction.
        draws: of the simulation; 0 of one that is exact.
        least, most: what is asked; neither of what is told as a limit.
    """

    what: str
    n: int
    seeds: int
    truth: str
    found: float
    draws: int
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool | None:
        """At face value; None where nothing is asked."""
        if self.least is None and self.most is None:
            return None
        return (self.least or 0.0) <= self.found <= (1.0 if self.most is None else self.most)

    def cells(self) -> tuple[str, ...]:
        """The row of the table, with the simulation's own 95% interval."""
        if self.draws:
            own = "{:.3f} to {:.3f}".format(*proportion_interval(round(self.found * self.draws), self.draws).pair)
        else:
            own = "exact"
        asked = [f"≥ {self.least:g}"] if self.least is not None else []
        asked += [f"≤ {self.most:.2g}"] if self.most is not None else []
        told = {None: "", True: "holds", False: "**does not hold**"}[self.holds]
        return (
            self.what,
            str(self.n),
            str(self.seeds),
            self.truth,
            f"{self.found:.4f}",
            own,
            ", ".join(asked) or "a limit",
            told,
        )


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


def counted(n: int, win: float, loss: float) -> Iterator[tuple[int, int, float]]:
    """Every count of wins and losses among n questions that is not too rare, with its chance."""
    ranges = []
    for p in (win, loss):
        reach = REACH * (n * p * (1 - p)) ** 0.5 + 1
        ranges.append(np.arange(max(0, int(n * p - reach)), min(n, int(n * p + reach) + 1) + 1))
    for wins in ranges[0]:
        losses = ranges[1][wins + ranges[1] <= n]
        chances = stats.multinomial.pmf(
            np.stack([np.full(len(losses), wins), losses, n - wins - losses], axis=1), n, [win, loss, 1 - win - loss]
        )
        for lost, chance in zip(losses, chances, strict=True):
            if chance > 1e-9:
                yield int(wins), int(lost), float(chance)


def differences(n: int, wins: int, losses: int) -> np.ndarray:
    return np.repeat([1.0, 0.0, -1.0], (wins, n - wins - losses, losses))


@cache
def pair_interval(n: int, wins: int, losses: int) -> Interval:
    return bootstrap_mean(differences(n, wins, losses), resamples=RESAMPLES)


@cache
def pair_lead(n: int, wins: int, losses: int, margin: float) -> Condition:
    return condition(differences(n, wins, losses), margin)


def outcomes(n: int, win: float, loss: float, margin: float = 0.0) -> dict[str, float]:
    """How often the lead of one arm over another has each outcome (exact)."""
    out = {HOLDS: 0.0, FAILS: 0.0}
    for wins, losses, chance in counted(n, win, loss):
        outcome = pair_lead(n, wins, losses, margin).outcome
        out[outcome] = out.get(outcome, 0.0) + chance
    return out


def decided(n: int, chances: list[tuple[float, float]], margin: float = 0.0) -> dict[str, float]:
    """How often a claim of these leads, whose arms are drawn apart, is confirmed and not confirmed (exact)."""
    each = [outcomes(n, win, loss, margin) for win, loss in chances]
    return {
        CONFIRMED: float(np.prod([one[HOLDS] for one in each])),
        NOT_CONFIRMED: 1 - float(np.prod([1 - one[FAILS] for one in each])),
    }


def pairs(n: int, win: float, loss: float) -> Draw:
    """Differences of two arms on n questions."""
    return lambda rng: rng.choice([1.0, 0.0, -1.0], size=n, p=[win, 1 - win - loss, loss])


def seeds_of(seeds: int, n: int, mean: float, spread: float) -> Draw:
    """Gains on n questions after so many trainings: a training's mean gain is normal around `mean`, questions differ in
    how ready they are, and an answer is right or wrong by chance. Chances end at 0 and 1, which moves their mean; what
    is right before moves with it, so that the gain is `mean`."""
    points = stats.norm.ppf((np.arange(999) + 0.5) / 999)[:, None] * spread, np.linspace(-0.15, 0.15, 301)
    before = float(np.clip(0.4 + mean + points[0] + points[1], 0, 1).mean()) - mean

    def draw(rng: np.random.Generator) -> np.ndarray:
        of_seed = mean + spread * rng.standard_normal((seeds, 1))
        of_question = rng.uniform(-0.15, 0.15, (1, n))
        right = rng.random((seeds, n)) < np.clip(0.4 + of_seed + of_question, 0, 1)
        return right - (rng.random((1, n)) < before).astype(float)

    return draw


def plain_bootstrap(values: np.ndarray) -> Interval:
    """The percentile bootstrap alone."""
    low, high = np.quantile(resampled_means(values[:, None], resamples=RESAMPLES), [0.025, 0.975])
    return Interval(float(low), float(high))


def mean_interval(values: np.ndarray) -> Interval:
    return bootstrap_mean(values, resamples=RESAMPLES)


def seeds_interval(values: np.ndarray) -> Interval:
    return over_seeds(values, resamples=RESAMPLES)


def coverage(sims: int, seed: int = 0) -> Iterator[Row]:
    """How often intervals over questions hold the truth."""

    def row(what: str, n: int, truth: str, found: float, asked: bool = True, *, draws: int = sims) -> Row:
        return Row(what, n, 1, truth, found, draws, COVERED if asked else None)

    for n in SIZES:
        for win, loss in PAIRS:
            found = sum(
                chance
                for wins, losses, chance in counted(n, win, loss)
                for one in [pair_interval(n, wins, losses)]
                if one.low - 1e-9 <= win - loss <= one.high + 1e-9
            )
            yield row("difference of two arms", n, f"{win - loss:+.2f} ({win:g} won, {loss:g} lost)", found, draws=0)
        every = np.array([proportion_interval(k, n).pair for k in range(n + 1)])
        held = {
            p: float(stats.binom.pmf(np.arange(n + 1), n, p) @ ((every[:, 0] <= p) & (p <= every[:, 1])))
            for p in np.linspace(0.001, 0.999, 999).round(3)
        }
        for p in (0.03, 0.3, 0.5, 0.97):
            yield row("accuracy", n, f"{p:g}", held[p], draws=0)
        least = min(held, key=lambda p: held[p])
        yield row("accuracy, the worst of 999 truths", n, f"{least:g}", held[least], draws=0)
        for a, b in ((0.3, 3.0), (2.0, 2.0), (0.1, 6.0)):
            found = covered(
                lambda rng, n=n, a=a, b=b: rng.binomial(16, rng.beta(a, b, n)) / 16,  # type: ignore[misc]
                lambda rates: bootstrap_mean(rates, bounds=(0.0, 1.0), resamples=RESAMPLES), a / (a + b), sims, seed,
            )  # fmt: skip
            yield row("rate over 16 samples a question", n, f"{a / (a + b):.2f}", found)
        found = covered(lambda rng, n=n: 0.5 + rng.standard_normal(n), mean_interval, 0.5, sims, seed)  # type: ignore[misc]
        yield row("nats, normal", n, "0.5", found)
        found = covered(lambda rng, n=n: rng.exponential(0.5, n), mean_interval, 0.5, sims, seed)  # type: ignore[misc]
        yield row("nats, exponential", n, "0.5", found)
        for direct, ceiling, skill in ((0.1, 0.9, 0.5), (0.1, 0.9, 0.85), (0.3, 0.7, 0.4), (0.05, 0.95, 0.93)):
            truth = (skill - direct) / (ceiling - direct)
            found = covered(arms(n, direct, skill, ceiling), share, truth, sims, seed)
            yield row("fraction of the gap", n, f"{truth:.2f} of {ceiling - direct:.1f}", found)
        found = covered(arms(n, 0.1, 0.15, 0.9), on_twin, 0.05 / 0.8, sims, seed)
        yield row("gain on the twin, in gaps", n, "0.06 of 0.8", found)
        for apart in (1.0, 2.0):
            truth = float(stats.norm.cdf(apart / 2**0.5))
            found = covered(lambda rng, n=n, d=apart: scored(n, d, rng), auroc, truth, sims, seed)  # type: ignore[misc]
            yield row("AUROC, five answers a question", n, f"{truth:.2f}", found)


def seeded(sims: int, seed: int = 0) -> Iterator[Row]:
    """How often intervals over seeds and questions hold the truth."""
    for n in SIZES:
        for seeds in SEEDS:
            for spread in (0.0, 0.05, 0.15) if seeds > 1 else (0.0,):
                draw, told = seeds_of(seeds, n, 0.2, spread), f"+0.20, seeds ± {spread:g}"
                found = covered(draw, seeds_interval, 0.2, sims, seed)
                yield Row("gain over seeds and questions", n, seeds, told, found, sims, COVERED)
                if seeds > 1:
                    found = covered(draw, intervals_alone, 0.2, sims, seed)
                    yield Row("the same, of each seed's interval alone", n, seeds, told, found, sims, COVERED)
            if seeds > 1:
                found = covered(works_or_not(seeds, n), seeds_interval, 0.3, sims, seed)
                yield Row("the same, a seed works or does not", n, seeds, "+0.6 or 0, as likely", found, sims)
        found = covered(lambda rng, n=n: seeds_of(1, n, 0.2, 0.15)(rng)[0], mean_interval, 0.2, sims, seed)  # type: ignore[misc]
        yield Row("one seed, read as if it spoke of all", n, 1, "+0.20, seeds ± 0.15", found, sims)


def verdicts(sims: int, seed: int = 0) -> Iterator[Row]:
    """How often a verdict is wrong: false by a hair and confirmed, true at the effect of interest and refused."""
    for n in SIZES:
        for shared in (0.05, 0.15, 0.4):
            name = f"a lead, {shared:g} lost"
            yield wrong("confirmed", name, n, "0", decided(n, [(shared, shared)]))
            yield wrong("refused", name, n, f"{INTEREST:+g}", decided(n, [(shared + INTEREST, shared)]))
        for shared in (0.0, 0.1):
            name = f"at most ten points less, {shared:g} won"
            yield wrong("confirmed", name, n, "-0.1", decided(n, [(shared, shared + 0.1)], 0.1))
            yield wrong("refused", name, n, "0", decided(n, [(max(shared, 0.02), max(shared, 0.02))], 0.1))
        found = decided(n, [(0.15, 0.15)] + [(0.6, 0.0)] * 3)
        yield wrong("confirmed", "four leads, one false", n, "0, +0.6", found)
        for count in (4, 8):
            yield wrong("refused", f"{count} leads", n, f"{INTEREST:+g}", decided(n, [(0.25, 0.15)] * count))
        found = decided(n, [(0.25, 0.15)] * MOST)[NOT_CONFIRMED]
        yield Row(f"falsely refused: {MOST} leads, all at d", n, 1, f"{INTEREST:+g}", found, 0)
        yield seen(n)
        for seeds in SEEDS[1:]:
            for spread in (0.0, 0.15):
                told = f"a lead, seeds ± {spread:g}"
                for kind, mean in (("confirmed", 0.0), ("refused", INTEREST)):
                    draws = FINER * sims if kind == "confirmed" else sims
                    found = decided_over_seeds(seeds_of(seeds, n, mean, spread), draws, seed)
                    yield wrong(kind, told, n, f"{mean:+g}", found, seeds, draws)


def wrong(kind: str, what: str, n: int, truth: str, found: dict[str, float], seeds: int = 1, draws: int = 0) -> Row:
    """The row of a false verdict."""
    verdict, most = {"confirmed": (CONFIRMED, FALSELY_CONFIRMED), "refused": (NOT_CONFIRMED, FALSELY_REFUSED)}[kind]
    return Row(f"falsely {kind}: {what}", n, seeds, truth, found[verdict], draws, most=most)


def seen(n: int) -> Row:
    """Whether the effect that is said to be seen at 80% power, of what is to be expected, is."""
    told = pair_lead(n, round(0.2 * n), round(0.1 * n), 0.0).seen
    found = sum(c for wins, lost, c in counted(n, 0.1 + told, 0.1) if pair_interval(n, wins, lost).low > 0)
    return Row("effect told as seen at 80% power", n, 1, f"{told:+.2f}", found, 0, 0.7, 0.9)


def decided_over_seeds(draw: Draw, sims: int, seed: int) -> dict[str, float]:
    """How often one lead over several seeds holds and fails."""
    rng, unread = np.random.default_rng(seed), Interval(float("nan"), float("nan"))  # a seed's own interval is not used
    found = []
    for _ in range(sims):
        each = [Condition("a lead", float(one.mean()), unread, by_question=one) for one in draw(rng)]
        found.append(pooled(each, resamples=RESAMPLES).outcome)
    return {CONFIRMED: found.count(HOLDS) / sims, NOT_CONFIRMED: found.count(FAILS) / sims}


def directions(sims: int, seed: int = 0) -> Iterator[Row]:
    """How often two unrelated shifts are called alike, by a stream of 64 dimensions of which a few hold most."""
    for samples in (64, 400):
        rng = np.random.default_rng(seed)
        spread = np.arange(1, 65) ** -1.0
        p: list[float] = []
        for one in range(max(4, sims // 20)):
            turn = np.linalg.qr(rng.standard_normal((64, 64)))[0]
            white = whitening((rng.standard_normal((samples, 64)) * spread) @ turn, seed=one)
            first, second = ((rng.standard_normal((100, 64)) * spread) @ turn @ white.root for _ in range(2))
            p += [white.p(float(value)) for value in cosine(first, second)]
        for told, most in (("p < 0.05", 0.05), ("p < 0.05 over 150 tests", 0.05 / 150)):
            rate = float(np.mean(np.array(p) < most))
            yield Row(f"unrelated directions called alike, {told}", samples, 1, "0", rate, len(p), most=most)


def condition(difference: np.ndarray, margin: float = 0.0) -> Condition:
    """The lead of one arm, where a question is right in it alone, in the other alone, or in neither."""
    return lead(
        "a lead", (difference > 0).astype(float), (difference < 0).astype(float), margin=margin, resamples=RESAMPLES
    )


def intervals_alone(values: np.ndarray) -> Interval:
    """Over seeds, from each seed's value and interval without its questions."""
    each = [Condition("", float(one.mean()), mean_interval(one)) for one in values]
    return pooled(each, resamples=RESAMPLES).interval


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


def scored(n: int, apart: float, rng: np.random.Generator) -> np.ndarray:
    """Scores of five answers a question, which are right by chance and then score higher."""
    right = rng.random((5, n)) < 0.4
    return np.stack([rng.standard_normal((5, n)) + apart * right, right.astype(float)]).reshape(10, n)


def auroc(values: np.ndarray) -> Interval | None:
    score, right = values.reshape(2, 5, -1)
    question = np.tile(np.arange(score.shape[1]), 5)
    return auroc_interval(score.ravel(), right.ravel() > 0, question, score.shape[1])


def works_or_not(seeds: int, n: int) -> Draw:
    def draw(rng: np.random.Generator) -> np.ndarray:
        works = rng.random((seeds, 1)) < 0.5
        return (rng.random((seeds, n)) < 0.6 * works).astype(float)

    return draw
