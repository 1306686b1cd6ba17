"""Trial instead of belief: which way a model is decoded, steered and captured is found by doing it.

A class and its configuration say little of how a model treats padding, what its cache holds, or whether its forward
hands arguments on. So a small random twin of it (`twin`) is tried once (`checks`), and what was found is kept by class,
shape and versions of the libraries. Then the first way that was exact is tried with the real weights: two prompts, two
steps, five forwards. A model for which no way is right is refused by its name and the reason.

    way_of(lm)                  # the way that `decode` takes
    way_of(lm, steered=True)
    trial_of(lm)                # all that was found
"""

from __future__ import annotations

from elicit.decoding.trial.checks import Finding, Rows
from elicit.decoding.trial.found import Trial, confirmed, trial_of, way_of

__all__ = ["Finding", "Rows", "Trial", "confirmed", "trial_of", "way_of"]
