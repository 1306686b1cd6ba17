"""Models and what they are asked with: names, bytes and hashes, weights, prompts, the SAEs that are shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from elicit.models.model import DEFAULT_MODEL as DEFAULT_MODEL
    from elicit.models.model import Model as Model
    from elicit.models.model import load_model as load_model
    from elicit.models.prompts import Prompt as Prompt
    from elicit.models.prompts import named_prompt as named_prompt
    from elicit.models.zoo import DEFAULT_TASK as DEFAULT_TASK

__getattr__, __dir__ = lazily(
    __name__,
    {
        "DEFAULT_MODEL": "elicit.models.model",
        "Model": "elicit.models.model",
        "load_model": "elicit.models.model",
        "Prompt": "elicit.models.prompts",
        "named_prompt": "elicit.models.prompts",
        "DEFAULT_TASK": "elicit.models.zoo",
    },
)
