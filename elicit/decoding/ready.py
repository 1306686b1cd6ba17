"""What is refused before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.batching import check_embedded
from probes.errors import UserError


def check_prompts(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Refuse prompts that cannot be answered.

    Raises:
        UserError: as `decode`.
    """
    if not prompts:
        raise UserError("no prompts given; give at least one")
    if max_new_tokens < 1:
        raise UserError(f"a limit of {max_new_tokens} new tokens was given; give at least 1")
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise UserError(f"prompt {i} is empty; give at least one token")
    check_embedded(model, prompts, tokenizer)
    check_ready(model, max(len(p) for p in prompts) + max_new_tokens)


def check_ready(model: PreTrainedModel, longest: int) -> None:
    """Refuse a model that has no room for so many positions, or is being trained.

    Raises:
        UserError: one of the two.
    """
    positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if positions and longest > positions:
        raise UserError(
            f"a prompt and its answer need {longest} positions, {type(model).__name__} has {positions}; "
            "shorten the prompt or lower max_new_tokens"
        )
    if model.training:
        raise UserError("the model is in training mode; call model.eval() first")
