"""The AUROC: the chance that a right answer scores above a wrong one, over all answers and within each question."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import special, stats

from probes.statistics import SLACK, Interval


def auroc(score: Float[np.ndarray, " n"], positive: Shaped[np.ndarray, " n"]) -> float:
    """Chance that a positive's score is above a negative's, ties counting half; NaN if one class is empty."""
    positive = np.asarray(positive, dtype=bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def auroc_within(
    score: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], question: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " questions"]:
    """The AUROC within each question that has both right and wrong answers, in the order of the questions."""
    if not len(score):
        return np.empty(0)
    order = np.lexsort((score, question))
    score, right, question = score[order], right[order], question[order]
    first = np.r_[True, question[1:] != question[:-1]]  # of a question
    tie = np.cumsum(first | np.r_[True, score[1:] != score[:-1]]) - 1
    n = np.bincount(tie)
    rank = (np.cumsum(n) - (n - 1) / 2)[tie]  # in all; ties share the middle
    starts = np.flatnonzero(first)
    place = np.cumsum(first) - 1
    rank = rank - starts[place]
    positive = np.bincount(place, weights=right)
    negative = np.bincount(place) - positive
    both = (positive > 0) & (negative > 0)
    total = np.bincount(place, weights=rank * right) - positive * (positive + 1) / 2
    found: np.ndarray = total[both] / (positive * negative)[both]
    return found


def auroc_interval(
    score: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    question: Int[np.ndarray, " n"],
    questions: int,
    *,
    confidence: float = 0.95,
) -> Interval | None:
    """The interval of the AUROC over questions, each with any number of answers; None where a class is empty.

    By the structural components of clustered data (Obuchowski 1997, doi 10.2307/2533958): what each question's answers
    add to the AUROC. Student's t is taken of its logit, which keeps it between 0 and 1; a bootstrap holds the truth too
    seldom at some thirty questions. Where no question adds anything, as when all right answers score highest, it
    reaches as far as a fraction of questions that so many would miss.

    Args:
        question: of each answer, a number below `questions`; questions without any answer count as well.
    """
    n_right, n_wrong = int(right.sum()), int((~right).sum())
    if not n_right or not n_wrong or questions < 2:
        return None
    wins = _place(score[right], np.sort(score[~right]))  # of each right answer: the wrong ones below
    losses = 1 - _place(score[~right], np.sort(score[right]))  # of each wrong answer: the right ones above
    value, tail = float(wins.mean()), (1 - confidence) / 2
    added = np.bincount(question[right], weights=(wins - value) / n_right, minlength=questions)
    added += np.bincount(question[~right], weights=(losses - value) / n_wrong, minlength=questions)
    error = float(np.sqrt(questions / (questions - 1) * (added**2).sum()))
    if error < SLACK:
        reach = 1 - tail ** (1 / questions)
        return Interval(value - reach * value, value + reach * (1 - value))
    half = float(special.stdtrit(questions - 1, 1 - tail)) * error / (value * (1 - value))
    low, high = (float(special.expit(special.logit(value) + sign * half)) for sign in (-1, 1))
    return Interval(low, high)


def _place(values: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """The fraction of others, in ascending order, that lies below each value; equal ones count half."""
    below, upto = (np.searchsorted(others, values, side) for side in ("left", "right"))
    found: np.ndarray = (below + upto) / (2 * len(others))
    return found
