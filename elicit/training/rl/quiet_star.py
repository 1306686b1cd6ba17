"""Quiet-STaR (arXiv 2403.09629): thoughts at every position of a text that make the next tokens likelier.

At position t of a document G thoughts c of n tokens are sampled after x_≤t and a learned token S; a learned token E
ends each. The next A tokens of the text are then given, and each is predicted from the state without a thought and the
state after it, mixed by a network (`elicit.decoding.mixing`):

    R(c) = Σ_{i < A} log p_talk(x_{t+i+1} | x_≤t, S c E, x_{t+1} … x_{t+i})          sections 4.4.2, 4.4.3
    r(c) = R(c) − mean of R over the position's thoughts
    L    = mean over positions and thoughts of
           − R(c) / A  −  β max(0, r(c)) · 1/n Σ_k log π(c_k | x_≤t, S, c_<k)

The first term trains all there is: weights, S, E and the network. r is a constant of the update, and thoughts that are
worse than their position's mean are left out, as in the paper.

All positions of a part of the batch see their document through a mask (`elicit.training.rl.policy`): the document is
computed once, and rewards and losses come from one forward. The network's last layer begins at 0, so that no reward
differs in the first update.

Departures:
- S and E are trained as rows of `token_scale` times what the optimiser sees (the paper's factor on their gradient);
  they begin as the embedding of "---".
- Thoughts are sampled at, and their log-probabilities taken at, one temperature; the authors' program takes 1 and 3.
- That program adds half of the loss without a thought, which the paper's objective does not have: not here.
- Terms are means, so that β says the same for any length.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from elicit.decoding.decoders import Sampling
from elicit.decoding.engine import Batch as Prompts
from elicit.decoding.engine import decode_batch
from elicit.decoding.loop import StopRule
from elicit.decoding.mixing import Mixing, MixingHead, with_rows
from elicit.decoding.trunk import shares
from elicit.models.model import Model
from elicit.tasks.base import Items
from elicit.training.checkpoint import load_state, read_state, write_state
from elicit.training.output_head import logprobs_and_entropy, summed_loss
from elicit.training.recipe import Recipe, rise
from elicit.training.rl.learner import Learner, learner
from elicit.training.rl.policy import Batch, hidden_states, prefix_of
from elicit.training.rl.positions import Positions
from probes.encoding import encoded
from probes.errors import UserError, above, at_least
from probes.files import locked, make_folder
from probes.sites import width
from steering.adapters import Tuned

STATE, HEAD, TOKENS = "quiet.safetensors", "mixing/", "tokens"
BEGINS_AS = "---"  # what the learned tokens are at the beginning


@dataclass(frozen=True)
class QuietSettings:
    """One update is one step of the optimiser on new thoughts.

    Args:
        updates: steps of the optimiser.
        positions, group: positions of an update, and thoughts of each.
        thought_tokens: n.
        ahead: A.
        policy: β; 0: thoughts are not trained, only what is made of them.
        token_scale: by which the learned tokens' gradient is larger than that of other weights.
        temperature: of thoughts.
        lr, warmup: the learning rate (AdamW, betas 0.9 and 0.99), constant after a linear rise over `warmup` updates.
        rank, alpha: of LoRA on every linear layer but the output head; rank 0 trains all weights.
        grad_clip: the largest norm of the gradient.
        part: positions whose thoughts are sampled and computed together; gradients are accumulated.
        checkpointing: compute each layer again for its gradient.
        state_every: updates between two states that a stopped training resumes from.
        seed: of thoughts, the network and LoRA's initial weights.

    Raises:
        UserError: a value out of range.
    """

    updates: int = 16
    positions: int = 16
    group: int = 2
    thought_tokens: int = 12
    ahead: int = 4
    policy: float = 1.0
    token_scale: float = 10.0
    temperature: float = 1.0
    lr: float = 4e-4
    warmup: int = 2
    rank: int = 8
    alpha: int = 16
    grad_clip: float = 1.0
    part: int = 16
    checkpointing: bool = False
    state_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "positions", "thought_tokens", "ahead", "part", "alpha", "state_every")
        at_least(self, 0, "rank", "warmup", "policy")
        above(self, 0, "temperature", "lr", "grad_clip", "token_scale")
        if self.group < 2:
            raise UserError(
                f"group = {self.group} was given, and a thought is rewarded beside others of its position; give 2 or "
                "more"
            )
        if self.updates < 2:
            raise UserError(
                f"updates = {self.updates} was given; the first update mixes no thought in, so its rewards are never "
                "read: give 2 or more"
            )

    def kept(self) -> dict[str, Any]:
        """As records and identities hold them; how often a state is written decides nothing."""
        return {k: v for k, v in asdict(self).items() if k != "state_every"}

    @property
    def recipe(self) -> Recipe:
        """What prepares the weights."""
        return Recipe(
            self.updates, lr=self.lr, rank=self.rank, alpha=self.alpha, clip=self.grad_clip, seed=self.seed,
            checkpointing=self.checkpointing,
        )  # fmt: skip

    def rate(self, update: int) -> float:
        """The learning rate of an update."""
        return self.lr * rise(update, self.warmup)

    def chosen(self, items: int, update: int) -> list[int]:
        """The positions of an update: the next ones, over and over."""
        return [(update * self.positions + n) % items for n in range(self.positions)]


class QuietPoint(NamedTuple):
    """One update: the loss; log p of an ahead token with and without a thought (nats, means); the mean weight of
    thoughts; the mean |r|; the gradient's norm; tokens that were computed after documents; seconds."""

    update: int
    loss: float
    having: float
    without: float
    weight: float
    reward: float
    norm: float
    tokens: int
    seconds: float


@runtime_checkable
class OnStep(Protocol):
    """A callback, called after each update with the whole curve so far."""

    def __call__(self, curve: Sequence[QuietPoint]) -> None: ...


@dataclass(frozen=True)
class QuietTrained:
    """What a training made."""

    folder: Path
    adapter: Tuned
    mixing: Mixing
    curve: list[QuietPoint]


def begun_at(tokenizer: PreTrainedTokenizerBase, lm: PreTrainedModel) -> Float[Tensor, "2 d_model"]:
    """What the learned tokens are at the beginning, as the embedding layer returns it."""
    ids = encoded(tokenizer, BEGINS_AS, special=False)[:1]
    if not ids:
        raise UserError(f"the tokenizer makes no token of {BEGINS_AS!r}, as which thoughts' marks begin; use another")
    embedding: Any = lm.get_input_embeddings()
    with torch.no_grad():
        found: Tensor = embedding(torch.tensor([ids], device=lm.device))[0]
    return found.float().expand(2, -1).clone()


def quiet_positions(documents: Sequence[Sequence[int]], lm: PreTrainedModel) -> Positions:
    """The prompt of positions whose thoughts stand between the tokens behind the model's own."""
    embedding: Any = lm.get_input_embeddings()
    first = len(embedding.weight)
    return Positions("template", documents=tuple(map(tuple, documents)), opening=(first,), closing=(first + 1,))


@dataclass(frozen=True)
class Thoughts:
    """Thoughts of some positions as tensors: G rows a position, in their order."""

    batch: Batch
    base: Int[Tensor, "rows ahead"]  # of each ahead token the place, among all of the documents, that predicts it
    said: Int[Tensor, "rows thought"]
    true: Int[Tensor, "rows ahead"]
    group: int

    @staticmethod
    def of(
        prompt: Positions, items: Items, said: Sequence[Sequence[int]], group: int, ahead: int, device: torch.device
    ) -> Thoughts:
        """Args: the positions, and the tokens of each one's thoughts, position by position."""
        trunk = prompt.trunk(items, ahead - 1)
        places = [(int(item.metadata["document"]), int(item.metadata["position"])) for item in items]
        true = [list(prompt.documents[d][t : t + ahead]) for d, t in places for _ in range(group)]
        rows = [n for n in range(len(places)) for _ in range(group)]
        whole = [[*one, *prompt.closing, *after] for one, after in zip(said, true, strict=True)]
        batch = Batch.leaving(trunk, prompt.opening, rows, whole, len(whole[0]), device)
        batch.mask[:, len(said[0])] = False  # the end of a thought is given
        steps = torch.arange(ahead, device=device)
        assert batch.cut is not None
        base = (batch.question * batch.prompts.ids.shape[1] + batch.cut - 1)[:, None] + steps
        return Thoughts(batch, base, torch.tensor(said, device=device), torch.tensor(true, device=device), group)


class Losses(NamedTuple):
    """Sums over rows: the loss of ahead tokens, that of thoughts; and without a gradient log p of each ahead token
    with and without a thought, w of each, r of each thought."""

    ahead: Float[Tensor, ""]
    thoughts: Float[Tensor, ""]
    having: Float[Tensor, "rows ahead"]
    without: Float[Tensor, "rows ahead"]
    weight: Float[Tensor, "rows ahead"]
    reward: Float[Tensor, " rows"]


def losses(
    lm: PreTrainedModel,
    head: MixingHead,
    states: Float[Tensor, "documents pos d_model"],
    hidden: Float[Tensor, "n d_model"],
    thoughts: Thoughts,
    temperature: float,
) -> Losses:
    """The two sums, and what they are made of.

    Args:
        lm, head: with what is trained.
        states: of the documents, without thoughts.
        hidden: of the rows, the states that choose their thoughts' tokens and the ahead tokens.
        thoughts: the rows.
        temperature: of thoughts.
    """
    (rows, ahead), said = thoughts.true.shape, thoughts.said.shape[1]
    each = hidden.view(rows, said + ahead, -1)
    own, after = each[:, :said].flatten(0, 1), each[:, said:].flatten(0, 1)
    before = states.flatten(0, 1).index_select(0, thoughts.base.flatten())
    true = thoughts.true.flatten()
    talked, having, _ = summed_loss(lm, head(before, after), true, 1.0, lambda logprob, entropy, some: -logprob.sum())
    without, _ = logprobs_and_entropy(lm, before.detach(), true, 1.0)
    totals = having.view(-1, thoughts.group, ahead).sum(-1)
    reward = (totals - totals.mean(1, keepdim=True)).flatten()
    worth = reward.clamp(min=0).repeat_interleave(said)
    chosen, _, _ = summed_loss(
        lm, own, thoughts.said.flatten(), temperature, lambda logprob, entropy, some: -(worth[some] * logprob).sum()
    )
    with torch.no_grad():
        weight = head.weight(before, after).view(rows, ahead)
    return Losses(talked, chosen, having.view(rows, ahead), without.view(rows, ahead), weight, reward)


def train_quietly(
    model: Model,
    items: Items,
    documents: Sequence[Sequence[int]],
    settings: QuietSettings,
    folder: Path,
    *,
    identity: dict[str, Any],
    on_step: OnStep | None = None,
) -> QuietTrained:
    """Train on positions; the same call resumes what was interrupted, and ends at the same weights.

    Args:
        model: the base; it is as it was afterwards.
        items: positions (`elicit.training.rl.positions.positions`), each with `settings.ahead` tokens after it.
        documents: that they are of.
        settings: how.
        folder: for the state and what comes out.
        identity: what else decides the weights.
        on_step: called after each update.

    Raises:
        UserError: another engine than hf; a model that cannot share texts; a folder with another training or with a
            process that trains; a loss that is not finite; no room to write.
    """
    if model.engine != "hf":
        raise UserError(f"quiet-star was given engine {model.engine!r}, which knows no learned tokens; use hf")
    longest = max(map(len, documents)) + settings.thought_tokens + 2 + settings.ahead
    if not shares(model.lm, longest):
        raise UserError(
            f"{type(model.lm).__name__} cannot compute a text of {longest} tokens once for thoughts at all of its "
            "positions; use a model with plain attention, or a smaller document_tokens"
        )
    wanted = json.loads(json.dumps({"recipe": settings.kept(), **identity}))
    with ExitStack() as stack:
        make_folder(folder)
        stack.enter_context(locked(folder, "training in"))
        kept = read_state(folder / STATE, wanted)
        prompt = quiet_positions(documents, model.lm)
        begun = begun_at(model.tokenizer, model.lm)
        student = stack.enter_context(learner(model, settings.recipe))
        head = MixingHead(width(model.lm), settings.seed).to(model.lm.device)
        tokens = nn.Parameter(begun / settings.token_scale)
        trained = student.trained | {HEAD + name: p for name, p in head.named_parameters()} | {TOKENS: tokens}
        optimiser = torch.optim.AdamW(
            trained.values(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=0.0, foreach=True
        )
        curve: list[QuietPoint] = []
        if kept is not None:
            curve = [QuietPoint(*point) for point in kept[0]]
            load_state(trained, optimiser, kept[1], len(curve))
        run = _Run(student, head, tokens, prompt, settings)
        for update in range(len(curve), settings.updates):
            for group in optimiser.param_groups:
                group["lr"] = settings.rate(update)
            curve.append(run.update(items, update, trained, optimiser))
            if (update + 1) % settings.state_every == 0 or update + 1 == settings.updates:
                write_state(folder / STATE, wanted, trained, optimiser, curve)
            if on_step is not None:
                on_step(curve)
        found = {name: p.detach().cpu().clone() for name, p in head.state_dict().items()}
        mixing = Mixing((tokens.detach() * settings.token_scale).cpu(), found)
        return QuietTrained(folder, student.save(folder), mixing, curve)


class _Run:
    """What stays the same over a training, and an update."""

    def __init__(
        self, student: Learner, head: MixingHead, tokens: nn.Parameter, prompt: Positions, settings: QuietSettings
    ) -> None:
        self.student, self.head, self.tokens, self.prompt, self.settings = student, head, tokens, prompt, settings

    def thoughts(self, items: Items, update: int) -> Thoughts:
        """Sample the thoughts of some positions."""
        settings, prompt = self.settings, self.prompt
        decoder = Sampling(
            settings.group, settings.temperature, seed=settings.seed, max_new_tokens=settings.thought_tokens,
            first_sample=update * settings.group,
        )  # fmt: skip
        asked = Prompts(
            [prompt.before(item.question) for item in items], [item.id for item in items], decoder,
            StopRule(frozenset()), trunk=prompt.trunk(items),
        )  # fmt: skip
        rows = self.tokens.detach() * settings.token_scale
        with self.student.decoding() as (model, _), with_rows(model.lm, rows):
            made = decode_batch(model, asked)
        said = [one.tokens.tolist() for branches in made for one in branches]
        return Thoughts.of(prompt, items, said, settings.group, settings.ahead, model.lm.device)

    def update(self, items: Items, update: int, trained: dict[str, nn.Parameter], optimiser: Any) -> QuietPoint:
        """Thoughts, loss and step.

        Raises:
            UserError: a loss or gradient that is not finite; nothing is changed then.
        """
        began, settings = time.perf_counter(), self.settings
        chosen = settings.chosen(len(items), update)
        rows = settings.positions * settings.group
        total, computed, found = 0.0, 0, []
        for start in range(0, len(chosen), settings.part):
            some = Items(items.task, tuple(items[n] for n in chosen[start : start + settings.part]))
            thoughts = self.thoughts(some, update)
            loss, one = self.part(thoughts, rows)
            total, computed = total + loss, computed + thoughts.batch.tokens.numel()
            found.append(one)
        norm = float(nn.utils.clip_grad_norm_(trained.values(), settings.grad_clip))
        if not math.isfinite(total) or not math.isfinite(norm):
            raise UserError(f"update {update}: loss {total}, gradient {norm}; give a learning rate below {settings.lr}")
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        having, without, weight = (
            float(torch.cat([getattr(one, name) for one in found]).mean()) for name in ("having", "without", "weight")
        )
        reward = float(torch.cat([one.reward for one in found]).abs().mean())
        seconds = time.perf_counter() - began
        return QuietPoint(update, total, having, without, weight, reward, norm, computed, seconds)

    def part(self, thoughts: Thoughts, rows: int) -> tuple[float, Losses]:
        """The loss of some of an update's rows, backwards."""
        settings, lm, batch = self.settings, self.student.lm, thoughts.batch
        prefix = prefix_of(lm, batch.prompts, every=True)
        leaves = prefix.leaves()
        with with_rows(lm, self.tokens * settings.token_scale):
            hidden = hidden_states(lm, leaves, batch, checkpointing=settings.checkpointing)
        found = losses(lm, self.head, leaves.tensors[-1], hidden, thoughts, settings.temperature)
        loss = found.ahead / (rows * settings.ahead)
        loss = loss + settings.policy * found.thoughts / (rows * settings.thought_tokens)
        torch.autograd.backward(loss)
        prefix.backward(leaves)
        return float(loss.detach()), found
