"""The base and what reinforcement learning on one example makes of it, sampled under the same settings.

Several claims read this one run: settings with the same limit, samples, updates, temperature and seed find it done.
"""

from __future__ import annotations

from dataclasses import replace

from elicit.decoding import Sampling
from elicit.evaluation import Run
from elicit.methods import direct
from experiments.claims.base import Study


def sampled(study: Study, max_new_tokens: int) -> Run:
    """A run of the trained model, with its base as the arm `direct`."""
    sampling = Sampling(study["samples"], study["temperature"], max_new_tokens=max_new_tokens, seed=study.seed)
    trained = study.fitted("one-shot-rlvr", updates=study["updates"], max_new_tokens=max_new_tokens, seed=study.seed)
    base = direct.fit(study.model, max_new_tokens=max_new_tokens)
    trained, base = (replace(one, decoder=sampling, select="vote") for one in (trained, base))
    return study.evaluated(trained, {"direct": base}, "sampled")
