"""Rewards of a thought by what comes next in a text: no verifier, and every position of a document has one.

`rlp`, information gain (arXiv 2510.01265, eq. 2 to 8, algorithm 1). At position t of a document a thought c is sampled from
π_θ(· | x_≤t). With φ the moving average of the weights,

    r(c) = log p_θ(x_{t+1} | x_≤t, c) − log p_φ(x_{t+1} | x_≤t)        in nats
    φ ← τ φ + (1 − τ) θ    after each update; φ = θ at the beginning

The baseline sees neither thought nor marks. Both terms are constants of the update: the gradient goes through the
thought's tokens alone, by the clipped surrogate with the advantage G / (G − 1) (r − mean r) of the G thoughts of a
position (eq. 7; `rloo` of `losses.advantages`) and the mean over each thought's tokens (eq. 8; `sequence-mean`).

Departures:
- φ is the average of what is trained. For LoRA that is the factors A and B, whose product is not the average of
  products; φ is then not to the bit what an average of all weights would be.
- A thought stands between an opening and a closing, which bases do not know as tokens of their own; a thought that does
  not write the closing before the limit gets it. An end token ends a thought and is not put before the next token.
- Log-probabilities of the next token are those at temperature 1, whatever thoughts are sampled at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from elicit.training.output_head import logprobs_and_entropy
from elicit.training.rl.learner import Learner
from elicit.training.rl.policy import Batch, logprobs
from elicit.training.rl.positions import Positions
from elicit.training.rl.rewards import RewardContext, Rollout
from probes.batching import left_pad
from probes.errors import UserError
from probes.sites import decoder

ROWS = 64  # texts of one forward without gradient
KEPT = "average/"


class InformationGain:
    """What a thought tells about the next token, beside a moving average that did not think (`Moving`).

    Args:
        prompt: the positions.
        limit: tokens of a thought at most.
        decay: τ.
    """

    def __init__(self, prompt: Positions, limit: int, decay: float) -> None:
        if not 0 <= decay <= 1:
            raise UserError(f"decay = {decay} was given; give a value from 0 (the last weights) to 1 (the first ones)")
        self.prompt, self.limit, self.decay = prompt, limit, decay
        self.student: Learner | None = None
        self.average: dict[str, Tensor] = {}
        self.found: dict[tuple[str, int], float] = {}

    def identity(self) -> dict[str, Any]:
        return {"reward": "rlp", "decay": self.decay}

    def begin(self, student: Learner, kept: Mapping[str, Tensor]) -> None:
        self.student = student
        self.average = {
            name: kept[KEPT + name].to(p.device) if kept else p.detach().clone() for name, p in student.trained.items()
        }

    def look(self, rollouts: Sequence[Sequence[Rollout]]) -> None:
        having = self.having(rollouts)
        without = self.without(rollouts)
        self.found = {
            (r.item.id, r.sample): float(value - before)
            for group, values, before in zip(rollouts, having, without, strict=True)
            for r, value in zip(group, values, strict=True)
        }

    def __call__(self, rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        return [self.found[r.item.id, r.sample] for r in rollouts]

    def stepped(self) -> None:
        assert self.student is not None
        for name, p in self.student.trained.items():
            self.average[name].lerp_(p.detach(), 1 - self.decay)

    def tensors(self) -> dict[str, Tensor]:
        return {KEPT + name: tensor for name, tensor in self.average.items()}

    @torch.no_grad()
    def having(self, rollouts: Sequence[Sequence[Rollout]]) -> list[list[float]]:
        """log p_θ(next | context, thought) of each thought of each position."""
        assert self.student is not None
        tokenizer = self.student.model.tokenizer
        flat = [(n, r) for n, group in enumerate(rollouts) for r in group]
        prompts = left_pad(
            [self.prompt.ids(group[0].item.question, tokenizer) for group in rollouts], self.student.lm.device
        )
        after = [[*closed(r, self.prompt), int(r.item.metadata["next"])] for _, r in flat]
        room = self.limit + len(self.prompt.closing) + 1
        batch = Batch.of(prompts, [n for n, _ in flat], after, room)
        last = torch.tensor([len(tokens) - 1 for tokens in after], device=batch.mask.device)
        only = torch.zeros_like(batch.mask).scatter_(1, last[:, None], True)  # the next token alone meets the head
        scored = logprobs(self.student.lm, Batch(prompts, batch.question, batch.tokens, only), ROWS, 1.0)
        values = iter(scored.gather(1, last[:, None])[:, 0].tolist())
        return [[next(values) for _ in group] for group in rollouts]

    @torch.no_grad()
    def without(self, rollouts: Sequence[Sequence[Rollout]]) -> list[float]:
        """log p_φ(next | context) of each position: a forward of each document that they are of."""
        assert self.student is not None
        items = [group[0].item for group in rollouts]
        with self.averaged() as lm:
            return next_logprobs(
                lm, self.prompt.documents, [(i.metadata["document"], i.metadata["position"]) for i in items]
            )

    @contextmanager
    def averaged(self) -> Iterator[PreTrainedModel]:
        """The average's weights stand in the model inside the context."""
        assert self.student is not None
        own = {name: p.data for name, p in self.student.trained.items()}
        try:
            for name, p in self.student.trained.items():
                p.data = self.average[name]
            yield self.student.lm
        finally:
            for name, p in self.student.trained.items():
                p.data = own[name]


def closed(rollout: Rollout, prompt: Positions) -> list[int]:
    """A thought's tokens with its closing: its own, where it wrote one."""
    if rollout.finish == "stop":
        return rollout.tokens
    return [*(rollout.tokens[:-1] if rollout.finish == "eos" else rollout.tokens), *prompt.closing]


@torch.no_grad()
def next_logprobs(
    lm: PreTrainedModel, documents: Sequence[Sequence[int]], places: Sequence[tuple[int, int]]
) -> list[float]:
    """log p(x_{t+1} | x_≤t) at (document, t), in nats, one forward a document."""
    out = {}
    wanted = sorted({document for document, _ in places})
    for start in range(0, len(wanted), ROWS):
        some = wanted[start : start + ROWS]
        hidden, ids = read(lm, [documents[n] for n in some])
        here = [(row, at) for row, n in enumerate(some) for document, at in places if document == n]
        rows, columns = torch.tensor(here, device=ids.device).T
        values = logprobs_and_entropy(lm, hidden[rows, columns - 1], ids[rows, columns], 1.0)[0].tolist()
        out.update({(some[row], at): value for (row, at), value in zip(here, values, strict=True)})
    return [out[place] for place in places]


def read(lm: PreTrainedModel, texts: Sequence[Sequence[int]]) -> tuple[Float[Tensor, "rows pos d_model"], Tensor]:
    """Final states at every position of some texts, padded at the right, and their ids."""
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(list(text))
    ids = ids.to(lm.device)
    return decoder(lm)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)[0], ids


class Shuffled:
    """The control: another reward's values, of another position each time; they say nothing of the thought.

    Each position gets the values of one other position of the same rollout, in their order: a group's values stay
    together, so that advantages are distributed as they were.

    Args:
        reward: whose values.
        seed: of the order, with the rollout's number.
    """

    def __init__(self, reward: InformationGain, seed: int) -> None:
        self.reward, self.seed = reward, seed
        self.found: dict[tuple[str, int], float | None] = {}

    def identity(self) -> dict[str, Any]:
        return {"shuffled": self.reward.identity()}

    def begin(self, student: Learner, kept: Mapping[str, Tensor]) -> None:
        self.reward.begin(student, kept)

    def look(self, rollouts: Sequence[Sequence[Rollout]]) -> None:
        if len(rollouts) < 2:
            raise UserError(
                "1 position was given a rollout, whose reward cannot be exchanged; give positions of 2 or more"
            )
        self.reward.look(rollouts)
        order = np.random.default_rng([self.seed, abs(rollouts[0][0].sample)]).permutation(len(rollouts))
        self.found = {}
        for to, source in zip(order, np.roll(order, 1), strict=True):
            for r, other in zip(rollouts[int(to)], rollouts[int(source)], strict=True):
                self.found[r.item.id, r.sample] = self.reward.found[other.item.id, other.sample]

    def __call__(self, rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        return [self.found[r.item.id, r.sample] for r in rollouts]

    def stepped(self) -> None:
        self.reward.stepped()

    def tensors(self) -> dict[str, Tensor]:
        return self.reward.tensors()
