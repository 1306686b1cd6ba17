"""Many prompts that begin as one text: the text is computed once, and each prompt leaves it at a place of its own.

The positions of a document, each with a thought after it, are such prompts (`elicit.training.rl.positions`; the token-
parallel generation of Quiet-STaR, arXiv 2403.09629, section 4.2). Keys and values of a text are made in one forward; a
row sees those of its own beginning through a mask, and its own tokens as any other row does. So n positions cost n
tokens once, where n prompts cost n² / 2.

What is decoded is what the prompts alone would give (tests/decoding/test_trunk.py). A model with a sliding window that
does not reach over all of it, or one that is not decoded as `shared-prefix`, decodes the prompts as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.decoding.cache import SharedPrefixState, supports_shared_prefix
from probes.batching import right_pad


@dataclass(frozen=True)
class Trunk:
    """Texts, and where prompts leave them: prompt i begins with the first `cut[i]` tokens of `texts[of[i]]`.

    What follows there is as long in all prompts, and at least one token. Prompts of one text stand together, in the
    order of the texts, and each text has one.

    Raises:
        ValueError: they do not.
    """

    texts: Sequence[Sequence[int]]
    of: Sequence[int]
    cut: Sequence[int]

    def __post_init__(self) -> None:
        if list(self.of) != sorted(self.of) or set(self.of) != set(range(len(self.texts))):
            raise ValueError("prompts of a trunk stand in the order of its texts, each of which has one")
        if any(not 1 <= cut <= len(self.texts[n]) for n, cut in zip(self.of, self.cut, strict=True)):
            raise ValueError("a prompt sees at least one token of its text, and no more than it has")

    def after(self, prompts: Sequence[Sequence[int]]) -> int:
        """Tokens of each prompt after what it shares.

        Raises:
            ValueError: prompts that do not begin as their texts, or go on for unequal lengths.
        """
        left = {len(prompt) - cut for prompt, cut in zip(prompts, self.cut, strict=True)}
        if len(left) != 1 or min(left) < 1:
            raise ValueError(f"prompts of a trunk go on for one number of tokens, at least 1; these for {sorted(left)}")
        for prompt, n, cut in zip(prompts, self.of, self.cut, strict=True):
            if list(prompt[:cut]) != list(self.texts[n][:cut]):
                raise ValueError("a prompt of a trunk does not begin as its text does")
        return left.pop()


def can_leave(model: PreTrainedModel, tokens: int) -> bool:
    """Whether a model that is decoded as `shared-prefix` sees all of so many tokens."""
    window = getattr(model.config.get_text_config(decoder=True), "sliding_window", None)
    return window is None or window >= tokens


def shares(model: PreTrainedModel, tokens: int) -> bool:
    """Whether prompts of so many tokens can share a text in a forward of the model's own."""
    return supports_shared_prefix(model) and can_leave(model, tokens)


class TrunkState(SharedPrefixState):
    """`KVState` of the prompts of a trunk.

    Args:
        model: that decodes.
        max_new_tokens: limit of each row.
        trunk: the texts.
        after: tokens of each prompt that are its own.
    """

    def __init__(self, model: PreTrainedModel, max_new_tokens: int, trunk: Trunk, after: int) -> None:
        super().__init__(model, max_new_tokens + after)
        self.trunk, self.after = trunk, after

    def prefill(
        self, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Float[Tensor, "questions vocab"]:
        """As `KVState`: a forward of the texts, then the prompts' own tokens, a row each."""
        device = ids.device
        texts = right_pad(self.trunk.texts, device)
        self.model(
            input_ids=texts,
            attention_mask=torch.ones_like(texts),
            use_cache=True,
            logits_to_keep=torch.tensor([texts.shape[1] - 1], device=device),
            shared_prefix=self.cache,
            **{self.name: self.cache},
        )
        cut = torch.tensor(list(self.trunk.cut), device=device)
        self.cache.leave(torch.tensor(list(self.trunk.of), device=device), cut)
        self.next_position = cut
        for column in range(ids.shape[1] - self.after, ids.shape[1]):
            logits = self.step(ids[:, column])
        return logits

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        self.cache.again(question)
        self.next_position = self.next_position[question]
