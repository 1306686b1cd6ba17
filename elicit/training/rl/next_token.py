"""Rewards of a thought by what comes next in a text: no verifier, and every position of a document has one.

`rlp`, information gain (arXiv 2510.01265, eq. 2 to 8, algorithm 1). At position t of a document a thought c is sampled
from π_θ(· | x_≤t). With φ the moving average of the weights,

    r(c) = log p_θ(x_{t+1} | x_≤t, c) − log p_φ(x_{t+1} | x_≤t)        in nats
    φ ← τ φ + (1 − τ) θ    after each update; φ = θ at the beginning

The baseline sees neither thought nor marks. Both terms are constants of the update: the gradient goes through the
thought's tokens alone, by the clipped surrogate with the advantage G / (G − 1) (r − mean r) of the G thoughts of a
position (eq. 7; `rloo` of `losses.advantages`) and the mean over each thought's tokens (eq. 8; `sequence-mean`).

`rpt`, next-token reasoning (arXiv 2506.08007, section 3): 1 where the prediction that follows a thought is the text
that comes next, up to the end of one of its tokens, else 0:

    r = 1 if y = x̄[: l] and l ∈ L, else 0      x̄ the bytes that come next, l = |y|, L where their tokens end

with GRPO's advantage and the mean over all tokens. The prediction y is what stands in the last closed box after the
thought (`boxed`), exactly, spaces included; a box nowhere is a reward that is not read.

Departures:
- φ is the average of what is trained. For LoRA that is the factors A and B, whose product is not the average of
  products; φ is then not to the bit what an average of all weights would be.
- A thought stands between an opening and a closing, which bases do not know as tokens of their own; in `rlp` a thought
  that does not write the closing before the limit gets it. An end token ends a thought and is not put before the next
  token.
- Log-probabilities of the next token are those at temperature 1, whatever thoughts are sampled at.
- Text is compared as characters, so that no prediction ends within one.
- `greedy`, for bases that write no boxes: y is the likeliest next token after the thought and its closing.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.training.output_head import logprobs_and_entropy
from elicit.training.rl.learner import Learner
from elicit.training.rl.policy import Batch, hidden_states, logprobs, prefix_of
from elicit.training.rl.positions import Positions, batch_of
from elicit.training.rl.rewards import RewardContext, Rollout
from probes.batching import right_pad
from probes.errors import UserError, unknown
from probes.likelihood import output_logits
from probes.offsets import decoded
from probes.sites import decoder

ROWS = 64  # texts of one forward without gradient
TOP = 16  # likeliest tokens whose entropy filters positions
KEPT = "average/"
PREDICTS = {
    "boxed": "what stands in the last closed box after the thought",
    "greedy": "the likeliest token after the thought and its closing",
}


class Looked(ABC):
    """A reward that looks at all rollouts of an update, and then says what it found (`Moving`).

    Args:
        prompt: the positions.
        limit: tokens of a thought at most.
    """

    name = ""

    def __init__(self, prompt: Positions, limit: int) -> None:
        self.prompt, self.limit = prompt, limit
        self.student: Learner | None = None
        self.found: dict[tuple[str, int], float | None] = {}

    def identity(self) -> dict[str, Any]:
        return {"reward": self.name}

    def begin(self, student: Learner, kept: Mapping[str, Tensor]) -> None:
        self.student = student

    @abstractmethod
    def look(self, rollouts: Sequence[Sequence[Rollout]]) -> None:
        """Fill `found` for all rollouts of an update."""

    def __call__(self, rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        return [self.found[r.item.id, r.sample] for r in rollouts]

    def stepped(self) -> None:  # noqa: B027  # most do not move
        """Nothing moves unless a reward says what."""

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def after(self, rollouts: Sequence[Sequence[Rollout]], *, following: bool) -> tuple[Batch, Int[Tensor, " rows"]]:
        """Thoughts with their closings after their positions, and the column of each row's last token.

        Args:
            rollouts: of each position.
            following: whether the next token stands after them.
        """
        assert self.student is not None
        flat = [(n, r) for n, group in enumerate(rollouts) for r in group]
        said = [[*closed(r, self.prompt), *([int(r.item.metadata["next"])] if following else [])] for _, r in flat]
        batch = batch_of(
            self.student.lm,
            self.prompt,
            [group[0].item for group in rollouts],
            [n for n, _ in flat],
            said,
            self.limit + len(self.prompt.closing) + 1,
        )
        last = torch.tensor([len(tokens) - 1 for tokens in said], device=batch.mask.device)
        only = torch.zeros_like(batch.mask).scatter_(1, last[:, None], True)  # this one alone meets the head
        return replace(batch, mask=only), last


class InformationGain(Looked):
    """`rlp`: what a thought tells about the next token, beside a moving average that did not think.

    Args:
        prompt, limit: as `Looked`.
        decay: τ.
    """

    name = "rlp"

    def __init__(self, prompt: Positions, limit: int, decay: float) -> None:
        if not 0 <= decay <= 1:
            raise UserError(f"decay = {decay} was given; give a value from 0 (the last weights) to 1 (the first ones)")
        super().__init__(prompt, limit)
        self.decay = decay
        self.average: dict[str, Tensor] = {}

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "decay": self.decay}

    def begin(self, student: Learner, kept: Mapping[str, Tensor]) -> None:
        super().begin(student, kept)
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
        batch, last = self.after(rollouts, following=True)
        scored = logprobs(self.student.lm, batch, ROWS, 1.0)
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
    ids = right_pad(texts, lm.device)
    return decoder(lm)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)[0], ids


class PrefixMatch(Looked):
    """`rpt`: whether the prediction after a thought is what comes next.

    Args:
        prompt, limit: as `Looked`.
        predicts: one of `PREDICTS`.
    """

    name = "rpt"

    def __init__(self, prompt: Positions, limit: int, predicts: str = "boxed") -> None:
        if predicts not in PREDICTS:
            raise unknown("way to predict", predicts, PREDICTS)
        super().__init__(prompt, limit)
        self.predicts = predicts

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "predicts": self.predicts}

    def look(self, rollouts: Sequence[Sequence[Rollout]]) -> None:
        flat = [r for group in rollouts for r in group]
        values = [self.boxed(r) for r in flat] if self.predicts == "boxed" else self.greedy(rollouts)
        self.found = {(r.item.id, r.sample): value for r, value in zip(flat, values, strict=True)}

    def boxed(self, rollout: Rollout) -> float | None:
        """By the last box after the thought; None where there is none."""
        assert self.student is not None
        _, mark, said = rollout.text.rpartition(self.prompt.closed_by)
        prediction = last_box(said) if mark else None
        if prediction is None:
            return None
        document, at = self.prompt.documents[rollout.item.metadata["document"]], rollout.item.metadata["position"]
        return float(is_prefix(prediction, self.student.model.tokenizer, document, at))

    @torch.no_grad()
    def greedy(self, rollouts: Sequence[Sequence[Rollout]]) -> list[float | None]:
        """By the likeliest next token after the thought."""
        assert self.student is not None
        batch, _ = self.after(rollouts, following=False)
        prefix, lm = prefix_of(self.student.lm, batch.prompts), self.student.lm
        # A token's state is the one that chooses the next: the column after the last of what was said.
        moved = replace(batch, mask=batch.mask.roll(1, 1))
        said = torch.empty_like(batch.question)
        for rows, part in moved.parts(ROWS):
            said[rows] = output_logits(lm, hidden_states(lm, prefix, part)).argmax(-1)
        true = [int(r.item.metadata["next"]) for group in rollouts for r in group]
        return [float(one == following) for one, following in zip(said.tolist(), true, strict=True)]


def last_box(text: str) -> str | None:
    """What stands in the last closed `\\boxed{…}`, as it is written there; None without one."""
    for begin in reversed([found.end() for found in re.finditer(r"\\boxed\{", text)]):
        depth = 1
        for end in range(begin, len(text)):
            depth += (text[end] == "{") - (text[end] == "}")
            if not depth:
                return text[begin:end]
    return None


def is_prefix(prediction: str, tokenizer: Any, document: Sequence[int], at: int) -> bool:
    """Whether a prediction is the text from token `at` of a document on, up to the end of one of its tokens."""
    if not prediction:
        return False
    before = [int(token) for token in document[at - 1 : at]]  # a first token may be written without its space
    head = len(decoded(tokenizer, before))
    for end in range(at + 1, len(document) + 1):
        text = decoded(tokenizer, [*before, *map(int, document[at:end])])[head:]
        if text == prediction and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            return True
        if len(text) > len(prediction) + 4:  # tokens of one character may each look like one
            return False
    return False


@torch.inference_mode()
def entropies(lm: PreTrainedModel, documents: Sequence[Sequence[int]], top: int = TOP) -> list[list[float]]:
    """Of each document, for each token from its second one on, the entropy (nats) of the `top` likeliest tokens in its
    place, whose probabilities are made to add up to 1 (the filter of arXiv 2506.08007, section 3.3)."""
    out: list[list[float]] = []
    for start in range(0, len(documents), ROWS):
        some = documents[start : start + ROWS]
        hidden, _ = read(lm, some)
        for row, ids in enumerate(some):
            found: list[float] = []
            for normed in hidden[row, : len(ids) - 1].split(256):
                logits = output_logits(lm, normed)
                logp = logits.topk(min(top, logits.shape[-1])).values.log_softmax(-1)
                found += (-(logp.exp() * logp).sum(-1)).tolist()
            out.append(found)
    return out


class Shuffled(Looked):
    """The control: another reward's values, of another position each time; they say nothing of the thought.

    Each position gets the values of one other position of the same rollout, in their order: a group's values stay
    together, so that advantages are distributed as they were.

    Args:
        reward: whose values.
        seed: of the order, with the rollout's number.
    """

    name = "shuffled"

    def __init__(self, reward: Looked, seed: int) -> None:
        super().__init__(reward.prompt, reward.limit)
        self.reward, self.seed = reward, seed

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "of": self.reward.identity()}

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

    def stepped(self) -> None:
        self.reward.stepped()

    def tensors(self) -> dict[str, Tensor]:
        return self.reward.tensors()
