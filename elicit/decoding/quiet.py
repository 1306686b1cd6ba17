"""Answers before whose tokens the model thinks, and is not heard (Quiet-STaR, arXiv 2403.09629).

Before a token is chosen all rows write a thought greedily, between two learned tokens, and its prediction is mixed with
the one that there is without it (`elicit.decoding.mixing`). Then the thought is forgotten: neither later thoughts nor
the answer see it. So a thought costs a forward for each of its tokens and its marks, and no place in the context; they
count as tokens that were spent.

Departures: a thought before each token is the paper's, and dear; `every` has one before every so many tokens, or before
the first alone. Thoughts are greedy, as where the authors infer, and nothing ends one early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.decoding.decoders.greedy import GreedyPolicy
from elicit.decoding.decoders.quiet import Quiet
from elicit.decoding.engine import Batch
from elicit.decoding.loop import Generation, OnStep, decode
from elicit.decoding.mixing import MixingHead, with_rows
from elicit.decoding.parts import without
from elicit.decoding.ready import check_ready
from elicit.decoding.trial import way_of
from elicit.decoding.trunk import Trunk, TrunkState, can_leave
from elicit.models.model import Model
from probes.clock import cache_argument
from probes.errors import UserError
from probes.likelihood import output_logits
from probes.sites import decoder as decoder_of


class QuietState(TrunkState):
    """`KVState` of prompts whose rows think before they go on.

    Args:
        model: that decodes, which knows the two tokens.
        max_new_tokens: limit of each row.
        prompts: token ids of each, at least two.
        decoder: when, and how long.
        head: what mixes.
        mark: id of the token that begins a thought; the next one ends it.
        unlisted: ids that are never chosen.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        max_new_tokens: int,
        prompts: Sequence[Sequence[int]],
        decoder: Quiet,
        head: MixingHead,
        mark: int,
        unlisted: Sequence[int] = (),
    ) -> None:
        trunk = Trunk([prompt[:-1] for prompt in prompts], range(len(prompts)), [len(prompt) - 1 for prompt in prompts])
        super().__init__(model, max_new_tokens + decoder.beside, trunk, 1)
        self.decoder, self.head, self.mark = decoder, head, mark
        self.never = torch.tensor(list(unlisted), dtype=torch.long, device=model.device)
        self.number = 0  # of the token that is chosen next

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        plain = self._appended(tokens)
        number, self.number = self.number, self.number + 1
        if not self.decoder.thinks(number):
            return output_logits(self.model, plain)
        length, position = self.cache.length, self.next_position
        after = self._appended(torch.full_like(tokens, self.mark))
        for _ in range(self.decoder.thought_tokens):
            after = self._appended(without(output_logits(self.model, after), self.never).argmax(-1))
        after = self._appended(torch.full_like(tokens, self.mark + 1))
        self.cache.length, self.next_position = length, position
        return output_logits(self.model, self.head(plain, after))

    def _appended(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows d_model"]:
        """The final states of tokens that are put behind the rows."""
        decoder = decoder_of(self.model)
        out: Tensor = decoder(
            input_ids=tokens[:, None],
            attention_mask=self.no_mask,
            position_ids=self.next_position[:, None],
            use_cache=True,
            shared_prefix=self.cache,
            **{cache_argument(decoder): self.cache},
        )[0]
        self.next_position = self.next_position + 1
        return out[:, -1]


@torch.inference_mode()
def quiet_answers(model: Model, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
    """The answer to each prompt; the tokens of thoughts count as spent.

    Raises:
        UserError: no mixing head, interventions, a budget of thoughts, a prompt of one token, a model whose cache
            cannot be taken back; as `elicit.decoding.loop.decode`.
    """
    decoder, mixing, lm = batch.decoder, batch.mixing, model.lm
    assert isinstance(decoder, Quiet)
    if mixing is None:
        raise UserError("quiet decoding was given no mixing head; give Elicited(mixing=…) one that was trained")
    if batch.steered:
        raise UserError("quiet thoughts were given interventions, which thoughts do not carry; leave one of them out")
    if batch.stop.thought_tokens:
        raise UserError("thought_tokens was given with quiet thoughts, which end by themselves; leave it out")
    if min(map(len, batch.prompts)) < 2:
        raise UserError("a prompt of fewer than 2 tokens was given to quiet decoding; give longer ones")
    longest = max(map(len, batch.prompts)) + decoder.max_new_tokens + decoder.beside
    check_ready(lm, longest)
    if way_of(lm) != "shared-prefix" or not can_leave(lm, longest):
        raise UserError(
            f"{type(lm).__name__} keeps a state from which a thought of a text of {longest} tokens cannot be taken "
            "back; use a model with plain attention"
        )
    head, tokens = mixing.on(lm)
    with with_rows(lm, tokens) as mark:
        made = decode(
            lm, batch.prompts, GreedyPolicy(), max_new_tokens=decoder.max_new_tokens, stop=batch.stop, on_step=on_step,
            unlisted=model.unlisted, listeners=batch.listeners,
            opened=lambda prompts: QuietState(
                lm, decoder.max_new_tokens, prompts, decoder, head, mark, model.unlisted
            ),
        )  # fmt: skip
    return [
        [replace(one, spent=one.spent + decoder.beside * decoder.thoughts(one.spent)) for one in branches]
        for branches in made
    ]
