"""Any handle as a model of lm-eval: likelihoods under its interventions, answers by its own decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from elicit.integrations.lm_eval.model import ElicitLM as ElicitLM

__getattr__, __dir__ = lazily(__name__, {"ElicitLM": "elicit.integrations.lm_eval.model"})
