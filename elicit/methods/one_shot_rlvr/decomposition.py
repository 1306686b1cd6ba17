"""Where the gain of a run comes from: format, entropy, answer copying, and what remains.

Question by question, with s the score of an arm:

    format    = s(trained on a format reward) − s(direct)
    entropy   = s(trained on the entropy bonus alone) − s(direct)
    copying   = [ s(trained on the truth) − s(direct) ] where the answer given is the example's own
    remainder = s(trained on the truth) − s(direct) − format − entropy − copying

Copying is a bound from above: some questions have the example's answer. They add up to the gain by construction; each
has a bootstrap interval over questions. An arm whose training had no signal (a reward that was the same in every group,
a bonus of 0) says nothing of its part, which is left out then. Format and entropy may reach the same answers, so the
remainder can be negative: then what truth taught was to be had without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from elicit.evaluation.metrics.gap import scores_of
from elicit.evaluation.run.run import Run
from elicit.tasks.answers import KINDS, Kind, find_answer
from elicit.tasks.base import Item
from elicit.tasks.grading import check_kind, grader_for
from probes.errors import UserError
from probes.statistics import Interval, bootstrap_mean

DIRECT, FORMAT, ENTROPY = "direct", "format reward", "entropy only"
TRAINED = "trained"
COMPONENTS = ("gain", "format", "entropy", "answer copying", "remainder")


@dataclass(frozen=True)
class Fraction:
    """A part of the gain in accuracy, with its 95% interval."""

    value: float
    interval: Interval


def decompose(run: Run, *, seed: int = 0) -> dict[str, Fraction]:
    """The parts of the gain but those `without_signal`, and `copied`: the fraction of answers that are the example's
    own.

    Args:
        run: of `one-shot-rlvr` with its controls.

    Raises:
        UserError: a run without the arms that it needs, or of another method; one of an older version, which keeps no
            questions.
    """
    arms = run.metrics["arms"]
    missing = [name for name in (DIRECT, FORMAT, ENTROPY) if name not in arms]
    found = run.metrics["options"].get("found", {})
    if missing or "answers" not in found:
        raise UserError(
            f"the run has no arm {', '.join(missing) or 'trained on an example'}; run one-shot-rlvr with --controls"
        )
    main = run.metrics["method"]
    scores = {name: scores_of(run.metrics, name) for name in (main, DIRECT, FORMAT, ENTROPY)}
    copies = copied(run, main, found["answers"]).astype(float)
    return _parts(scores[main], scores, copies, without_signal(run), seed)


def copied(run: Run, arm: str, answers: Sequence[str]) -> Bool[np.ndarray, " items"]:
    """Whether an arm's answer to each question means the same as one of these, those of the examples, to the grader.

    Raises:
        UserError: a run of an older version, which keeps no questions.
    """
    same, said = run.items.task.grader.groups, run.outcomes[arm]
    given = [said[item][0].answer for item in run.metrics["arms"][arm]["scores"]]
    return np.array([one is not None and any(same([own, one])[1] == 0 for own in answers) for one in given])


def decompose_completions(
    completions: Mapping[str, Sequence[str]],
    golds: Sequence[str],
    example_answer: str,
    *,
    kind: Kind = "math",
    seed: int = 0,
) -> dict[str, Fraction]:
    """The same of completions that anybody sampled, from whatever trainings.

    Args:
        completions: by arm, one completion a question, in the same order: `trained` (on the truth) and `direct` (the
            base); `format reward` and `entropy only` where there are such trainings that had a signal.
        golds: the questions' right answers.
        example_answer: the answer of the example that `trained` was trained on.
        kind: of the answers.
        seed: of the bootstrap.

    Raises:
        UserError: an arm that is missing, unknown or of another length; no questions.
    """
    check_kind(kind, KINDS)
    lost, more = {TRAINED, DIRECT} - set(completions), set(completions) - {TRAINED, DIRECT, FORMAT, ENTROPY}
    if lost or more:
        given = ", ".join(completions) or "none"
        raise UserError(f"arms {given} were given; give {TRAINED} and {DIRECT}, and maybe {FORMAT} and {ENTROPY}")
    for name, some in completions.items():
        if len(some) != len(golds) or not golds:
            raise UserError(
                f"{len(some)} completions of {name} were given for {len(golds)} gold answers; give one each"
            )
    grader = grader_for(kind)
    items = [Item(str(n), "", gold, "test") for n, gold in enumerate(golds)]
    answers = {
        name: [found.text if (found := find_answer(text, kind)) else None for text in some]
        for name, some in completions.items()
    }
    scores = {
        name: np.array([grader.grade(item, answer).score for item, answer in zip(items, some, strict=True)])
        for name, some in answers.items()
    }
    example = Item("example", "", example_answer, "fit")
    copies = np.array([float(grader.grade(example, answer).correct) for answer in answers[TRAINED]])
    without = {part for part, arm in (("format", FORMAT), ("entropy", ENTROPY)) if arm not in completions}
    return _parts(scores[TRAINED], scores, copies, without, seed)


def _parts(
    trained: Float[np.ndarray, " questions"],
    scores: Mapping[str, Float[np.ndarray, " questions"]],
    copies: Float[np.ndarray, " questions"],
    without: Collection[str],
    seed: int,
) -> dict[str, Fraction]:
    gain = trained - scores[DIRECT]
    arms = {"format": FORMAT, "entropy": ENTROPY}
    parts = {name: scores[arm] - scores[DIRECT] for name, arm in arms.items() if name not in without}
    parts["answer copying"] = gain * copies
    values = {"gain": gain, **parts, "remainder": gain - sum(parts.values())}
    found_parts = {name: Fraction(float(v.mean()), bootstrap_mean(v, seed=seed)) for name, v in values.items()}
    copied = Fraction(float(copies.mean()), bootstrap_mean(copies, bounds=(0.0, 1.0), seed=seed))
    return found_parts | {"copied": copied}


def without_signal(run: Run) -> dict[str, str]:
    """The parts whose arm was taught nothing of what it stands for, and why."""
    arms = run.store.config["arms"]
    out = {}
    if arms[FORMAT]["options"]["found"]["summary"]["groups without variance"] >= 1.0:
        out["format"] = "its reward was the same for all answers of every group"
    if arms[ENTROPY]["options"]["settings"]["entropy"] == 0.0:
        out["entropy"] = "the bonus was 0"
    return out
