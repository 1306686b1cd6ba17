"""`cot-decoding`: branch at the first token, choose by the answer's confidence (arXiv 2402.10200).

Decoding step 0 opens the k most likely first tokens; each branch continues greedily. The confidence of a branch is
Δ, the mean over the *answer's* tokens of p(top-1) − p(top-2), after softmax at temperature 1, on raw logits
(section 2.2, eq. 1). `max` takes the branch with the largest Δ, `sum` the equivalence class with the largest sum
of Δ. The paper's filters (empty, cut at the limit, ends with "?") are on; what they drop is counted.

Where the paper is silent or differs:
- Δ of the branching token, where it is part of the answer: p(token) − p(best other token), which is negative
  for every branch but the greedy one (`elicit.decoding.trace.token_margins`); the paper's formula read to the letter
  would lend all branches the greedy token's margin, and reproductions give it 0. Both stand beside Δ in every sample
  and among the readings of a run (`elicit.decoding.trace.other_deltas`).
- equivalence of answers is the grader's (1,234 = 1234.00), not equality of strings.
- where the filters leave no branch, the greedy path answers, and the run counts how often.
- branches are distinct and deterministic, not samples: `coverage@k` by rank is reported and pass@k is not.
"""

from __future__ import annotations

from typing import Any

from elicit.decoding.decoders import Branching
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.budget import MATCHED
from elicit.methods.baselines import self_consistency
from elicit.methods.baselines.at_budget import at_budget, plain
from elicit.models.model import Model
from elicit.models.prompts import prompt_for
from elicit.tasks.base import Items
from probes.errors import UserError

NAME = "cot-decoding"
SUMMARY = "branch over the top-k first tokens, choose by the answer's confidence margin"
PAPER = "2402.10200"


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    k: int = 10,
    select: str = "max",
    span: str = "last",
    filters: bool = True,
    prompt: str = "qa",
    max_new_tokens: int = 256,
) -> Elicited:
    """Nothing is fitted: the handle is the decoder with its selection.

    Args:
        model: the base.
        items: only for `prompt="few-shot"`.
        k: branches.
        select: `max` or `sum`, or any other rule of `elicit.decoding.selection` that can choose.
        span: `last` (the last number, option or box on the path) or `prompted` ("So the answer is",
            found back on the path).
        filters: drop paths that are empty, cut at the limit, or end with "?".
        prompt: a name of `elicit.models.prompts.FORMATS` or a template file.
        max_new_tokens: limit of each branch.

    Raises:
        UserError: k below 1 or above the vocabulary; unknown names.
    """
    if not 1 <= k <= model.choices:
        raise UserError(f"k = {k} branches were asked for; give a k from 1 to the vocabulary's {model.choices}")
    options = {"k": k, "select": select, "span": span, "filters": filters, "prompt": prompt}
    return Elicited(
        model,
        NAME,
        prompt_for(model, prompt, items),
        Branching(k, max_new_tokens),
        select=select,
        span=span,
        filters=filters,
        options=options,
    )


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """The baselines as they are, and each with the tokens that the branches spent.

    The other controls (vote, mean log-probability, a random branch, the oracle) are read from the same
    branches and stand in every run.
    """
    model = handle.model
    shared: dict[str, Any] = {"prompt": handle.options["prompt"], "max_new_tokens": handle.decoder.max_new_tokens}
    out = plain(handle, items)
    out[self_consistency.NAME] = self_consistency.fit(model, items, **shared, seed=seed)
    out |= at_budget(handle, items, seed)
    out[self_consistency.NAME + MATCHED] = self_consistency.matched(model, items, **shared, seed=seed)
    return out
