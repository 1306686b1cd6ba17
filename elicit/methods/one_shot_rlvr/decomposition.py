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

from dataclasses import dataclass

import numpy as np

from elicit.evaluation.metrics.gap import scores_of
from elicit.evaluation.run.run import Run
from probes.errors import UserError
from probes.statistics import Interval, bootstrap_mean

DIRECT, FORMAT, ENTROPY = "direct", "format reward", "entropy only"
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
        UserError: a run without the arms that it needs, or of another method.
    """
    arms = run.metrics["arms"]
    missing = [name for name in (DIRECT, FORMAT, ENTROPY) if name not in arms]
    found = run.metrics["options"].get("found", {})
    if missing or "answers" not in found:
        raise UserError(
            f"the run has no arm {', '.join(missing) or 'trained on an example'}; run one-shot-rlvr with --controls"
        )
    main = run.metrics["method"]
    outcomes = run.outcomes[main]
    scores = {name: scores_of(run.metrics, name) for name in (main, DIRECT, FORMAT, ENTROPY)}
    copies = np.array([float(outcomes[item][0].answer in found["answers"]) for item in arms[main]["scores"]])
    gain = scores[main] - scores[DIRECT]
    parts = {"format": scores[FORMAT] - scores[DIRECT], "entropy": scores[ENTROPY] - scores[DIRECT]}
    for name in without_signal(run):
        del parts[name]
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
