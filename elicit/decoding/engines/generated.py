"""What an engine on `generate` of `transformers` needs, so that it chooses, ends and keeps tokens as the loop does.

`Chooser` stands among the logits processors: it sees the logits of each step, lets the decoder's policy choose and
leaves `generate` no other token. `replayed` does the same afterwards, for an engine that can only hand back greedy
tokens with their logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from elicit.decoding.engine import Batch
from elicit.decoding.loop import Generation, OnStep, Record, Rows
from elicit.decoding.parts import without
from elicit.models.model import Model
from probes.confidence import top2
from steering import backends

Moved = Callable[[], Float[Tensor, "rows pos"] | None]


class Chooser(LogitsProcessor):
    """Chooses the tokens of a batch, of which each row is a branch of a prompt (see `rows_of`).

    Args:
        model, batch: what is decoded.
        moved: how far the last forward's positions were moved, where plans are carried.
        on_step: called after every step.
    """

    def __init__(self, model: Model, batch: Batch, moved: Moved = lambda: None, on_step: OnStep | None = None) -> None:
        self.branches, self.moved, self.on_step = batch.decoder.branches, moved, on_step
        prompts = len(batch.prompts)
        self.policy = batch.policy(model)
        self.rows = Rows(np.repeat(np.arange(prompts), self.branches), np.tile(np.arange(self.branches), prompts))
        self.record = Record(self.rows, batch.decoder.max_new_tokens, batch.stop, model.lm, listeners=batch.listeners)
        self.live = np.arange(len(self.rows.question))
        self.never = torch.tensor(model.unlisted, dtype=torch.long)
        self.step = 0

    def __call__(
        self, input_ids: Int[Tensor, "rows pos"], scores: Float[Tensor, "rows vocab"]
    ) -> Float[Tensor, "rows vocab"]:
        if self.step and self.on_step is not None:
            self.on_step(self.step, int((self.live >= 0).sum()))
        scores = without(scores, self.never)
        top = top2(scores)
        if self.step == 0:
            tokens = self.policy.first(scores[:: self.branches]).reshape(-1)
        else:
            tokens = self.policy.next(scores, top, self.rows, self.step)
        moved = self.moved()
        if moved is not None and self.step == 0:
            self.record.prompt_moved[:] = (moved[:, :-1] > 0).sum(-1).cpu().numpy()
        still = self.record.append(self.live, self.step, tokens, scores, top, moved, None)
        self.live = np.where(np.isin(self.live, still), self.live, -1)
        self.step += 1
        return torch.full_like(scores, float("-inf")).scatter_(1, tokens[:, None], 0.0)

    @property
    def finished(self) -> list[list[Generation]]:
        """For each prompt its branches."""
        return self.record.finished()

    def arguments(self, vocab_size: int) -> dict[str, Any]:
        """Of `generate`: this chooser, where it stops, and nothing else that touches a logit.

        What is not among them `generate` takes from the model's `generation_config`, which has to be a bare one
        (`steering.backends.huggingface.own_settings_out`).
        """
        ends = [int(i) for i in self.record.eos]
        return {
            "max_new_tokens": self.record.limit,
            "do_sample": False,
            "logits_processor": [self],
            "stopping_criteria": [_Finished(self)],
            "eos_token_id": ends or [vocab_size],  # one that is never written: the model's own would come in for none
            "pad_token_id": 0,
            "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0,
        }


class _Finished(StoppingCriteria):
    """Ends the rows that the chooser's record has ended, also at a stop string."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser

    def __call__(self, input_ids: Int[Tensor, "rows pos"], scores: Any, **kwargs: Any) -> Bool[Tensor, " rows"]:
        return torch.from_numpy(self.chooser.live < 0).to(input_ids.device)


def rows_of(batch: Batch) -> backends.Rows:
    """A row a branch, for an engine that does not share prompts."""
    number = [n for n in range(len(batch.prompts)) for _ in range(batch.decoder.branches)]
    arms, lengths = batch.arm_of, batch.lengths
    return backends.Rows(
        [batch.prompts[n] for n in number],
        batch.plans,
        None if arms is None else [arms[n] for n in number],
        None if lengths is None else [lengths[n] for n in number],
    )


def replayed(
    model: Model,
    batch: Batch,
    tokens: Int[Tensor, "rows steps"],
    logits: Float[Tensor, "rows steps vocab"],
    moved: Sequence[Float[Tensor, "rows pos"] | None] = (),
) -> list[list[Generation]]:
    """Generations from greedy tokens, one row a prompt: cut where the rule ends them, with statistics of the logits.

    Args:
        model, batch: what was decoded.
        tokens: of each row and step; anything after a row's end.
        logits: that chose them, as the model gave them.
        moved: how far each step's forward was moved, where plans were carried.
    """
    rows = Rows(np.arange(len(tokens)), np.zeros(len(tokens), dtype=np.int64))
    record = Record(rows, batch.decoder.max_new_tokens, batch.stop, model.lm, listeners=batch.listeners)
    live = np.arange(len(tokens))
    logits = without(logits, torch.tensor(model.unlisted, dtype=torch.long))
    for step in range(tokens.shape[1]):
        share = moved[step] if moved else None
        if share is not None and step == 0:
            record.prompt_moved[:] = (share[:, :-1] > 0).sum(-1).cpu().numpy()
        still = record.append(live, step, tokens[:, step], logits[:, step], top2(logits[:, step]), share, None)
        live = np.where(np.isin(live, still), live, -1)
    return record.finished()
