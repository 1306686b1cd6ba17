"""Reinforcement learning with a reward that can be checked: sample, grade, advantage, loss, step (arXiv 2504.20571).

Where it departs from GRPO as published (arXiv 2402.03300): one example is copied until a rollout is full, and its
copies are groups of their own; the prompt is computed once for all of them. Old log-probabilities are those of the
first update's own forward, so that its ratios are exactly 1; what the sampler's differ by, from rounding, is measured
and not corrected. The policy is trained at the temperature that it is sampled at.

A state is written every `state_every` updates: weights, moments, the curve, and the rollout in the middle of its
updates. Samples and random rewards are functions of (seed, item, sample), and which items a rollout has is one of its
number, so nothing of a generator is kept: a run that was killed ends at the same weights as one that was not, to the
bit. What was sampled since the last state is kept as it is finished (`sampled.py`) and is not sampled again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from elicit.decoding.decoders import Greedy, Sampling
from elicit.decoding.engine import check_training
from elicit.elicited import Elicited
from elicit.models.identity import grounds
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Item, Items
from elicit.training.checkpoint import load_state, read_state, write_state
from elicit.training.output_head import logprobs_and_entropy, summed_loss
from elicit.training.rl import losses
from elicit.training.rl.curve import OnStep, Point
from elicit.training.rl.learner import Learner, learner
from elicit.training.rl.log import LOG, RolloutLog, facts, log_line, of_update
from elicit.training.rl.policy import Batch, logprobs, pieces, prefix_of
from elicit.training.rl.positions import Positions, batch_of
from elicit.training.rl.preflight import Preflight, measured
from elicit.training.rl.rewards import Reward, RewardContext, Rewards, parse
from elicit.training.rl.rollouts import sample
from elicit.training.rl.sampled import SAMPLED, Sampled
from elicit.training.rl.settings import Settings
from elicit.training.rl.trial import check_after_prompts
from elicit.training.saved import due, step_folder
from probes.batching import Padded, left_pad
from probes.errors import UserError
from probes.files import digest, locked, make_folder
from steering.adapters import Tuned

STATE = "rl.safetensors"


@dataclass(frozen=True)
class Trained:
    """What a training made; `adapter` is all weights where all were trained."""

    folder: Path
    adapter: Tuned
    curve: list[Point]
    preflight: Preflight


@dataclass
class Buffer:
    """One rollout, graded, while updates are made on it. `records` become lines of the log."""

    batch: Batch
    records: list[dict[str, Any]]
    facts: dict[str, float]
    old: Float[Tensor, "rows pos"] | None = None
    reference: Float[Tensor, "rows pos"] | None = None
    sampler: list[list[float]] = field(default_factory=list)  # log-probabilities of the tokens that the model chose

    @property
    def advantage(self) -> Float[Tensor, " rows"]:
        return torch.tensor([r["advantage"] for r in self.records], device=self.batch.tokens.device)

    def tensors(self) -> dict[str, Tensor]:
        held = {"old": self.old, "reference": self.reference}
        return {f"buffer/{name}": t for name, t in held.items() if t is not None}


def train(
    model: Model,
    items: Items,
    settings: Settings,
    folder: Path,
    *,
    prompt: Prompt | None = None,
    held_out: Items | None = None,
    held_out_tokens: int = 256,
    rewards: Mapping[str, Reward] | None = None,
    checked: bool = True,
    looked_at: int = 0,
    start: Tuned | None = None,
    on_step: OnStep | None = None,
) -> Trained:
    """Train on a few examples; the same call resumes what was interrupted, and ends at the same weights.

    Args:
        model: the base; it is as it was afterwards.
        items: the examples, one or more.
        settings: how.
        folder: for the state, the rollout log and what comes out.
        prompt: how questions are put.
        held_out, held_out_tokens: items to check on every `settings.check_every` updates, and the limit of their
            answers: with a rollout's own, what other items need more tokens for would count as wrong.
        rewards: rewards of one's own, by name, for `settings.reward`.
        checked: refuse a run that the pre-flight finds no signal for.
        looked_at: examples that the pre-flight looks at, the first ones; 0: all.
        start: what an earlier training made of the base: this one begins there, and KL is to it.
        on_step: called after each update.

    Raises:
        UserError: no usable example; no signal; a start of another rank; a model whose log-probabilities are not its
            own after a prompt that is computed once; a reward that fails; a folder with another training or with a
            process that trains; a loss that is not finite; no room to write.
    """
    check_training(model, adapter=settings.recipe.rank > 0)
    prompt = prompt or Prompt()
    usable(items)
    settings.plan(len(items), 0)
    graders = parse(settings.reward, rewards)
    wanted = identity(model, items, settings, prompt)
    if graders.moving:
        wanted["rewards"] = json.loads(json.dumps([one.identity() for one in graders.moving]))
    if start is not None:
        wanted["start"] = start.sha256
    with ExitStack() as stack:
        make_folder(folder)
        stack.enter_context(locked(folder, "training in"))
        kept = read_state(folder / STATE, wanted)
        student = stack.enter_context(learner(model, settings.recipe, start))
        optimiser = torch.optim.AdamW(
            student.trained.values(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=0.0, foreach=True
        )
        sampled = stack.enter_context(Sampled.open(folder / SAMPLED, digest(wanted)))
        run = _Run(student, items, settings, prompt, graders, sampled)
        check_after_prompts(student.lm, ragged=not bool(run.prompts.mask.all()), segment=settings.segment)
        curve: list[Point] = []
        buffer: Buffer | None = None
        whole = 0
        for one in graders.moving if kept is None else ():
            one.begin(student, {})
        if kept is None:
            preflight = run.preflight(items[: looked_at or None])
            if checked and settings.reward != "none":
                preflight.check(settings.reward)
        else:
            about, tensors = kept
            preflight, curve, whole = Preflight(**about["preflight"]), [Point(*p) for p in about["curve"]], about["log"]
            load_state(student.trained, optimiser, tensors, len(curve))
            for one in graders.moving:
                one.begin(student, tensors)
            buffer = run.buffer(about["buffer"], tensors) if about["buffer"] else None
        run.context = run.reward_context(preflight.wrong)
        log = stack.enter_context(RolloutLog.open(folder / LOG, whole))
        for update in range(len(curve), settings.updates):
            began = time.perf_counter()
            if buffer is None:
                buffer = run.roll_out(update // settings.per_rollout)
            for group in optimiser.param_groups:
                group["lr"] = settings.rate(update)
            found = run.step(buffer, optimiser, update)
            for one in graders.moving:
                one.stepped()
            tokens, seconds = int(buffer.batch.mask.sum()), time.perf_counter() - began
            looks = held_out is not None and due(update + 1, settings.check_every)
            held = run.accuracy(held_out, held_out_tokens) if held_out and looks else None
            told = of_update(buffer.facts, update, settings.per_rollout)
            curve.append(Point(update, **told, **found, tokens=tokens, seconds=seconds, held_out=held))
            if (update + 1) % settings.per_rollout == 0 or update + 1 == settings.updates:
                log.append([{"update": update, **record} for record in buffer.records])
                buffer = None
            about = {"preflight": preflight.to_dict(), "curve": curve, "log": log.size, "buffer": None}
            if buffer is not None:
                about["buffer"] = {"records": buffer.records, "facts": buffer.facts}
            more = buffer.tensors() if buffer is not None else {}
            for one in graders.moving:
                more |= one.tensors()
            if due(update + 1, settings.save_every):
                student.save(step_folder(folder, update + 1))
            if due(update + 1, settings.state_every) or update + 1 == settings.updates:
                write_state(folder / STATE, wanted, student.trained, optimiser, about, more)
                sampled.clear()
            if on_step is not None:
                on_step(curve)
        return Trained(folder, student.save(folder), curve, preflight)


def usable(items: Sequence[Item]) -> None:
    """Refuse examples that cannot be graded.

    Raises:
        UserError: none, or one without an answer.
    """
    if not len(items):
        raise UserError("no example to train on was given; give at least one item that has an answer")
    for item in items:
        if item.answer is None:
            raise UserError(f"{item.id} has no answer, so no reward can be checked; give items that have one")


def identity(model: Model, items: Items, settings: Settings, prompt: Prompt) -> dict[str, Any]:
    """All that decides the weights, as JSON gives it back."""
    found = {
        "recipe": settings.kept(), "base": model.provenance.sha256, "dtype": model.dtype, "task": items.task.name,
        "prompt": prompt.to_dict(), **grounds(items, [model]),
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


class _Run:
    """What stays the same over a training, and the steps of an update."""

    def __init__(
        self,
        student: Learner,
        items: Items,
        settings: Settings,
        prompt: Prompt,
        rewards: Rewards,
        sampled: Sampled | None = None,
    ) -> None:
        self.student, self.items, self.settings, self.prompt, self.rewards = student, items, settings, prompt, rewards
        self.sampled = sampled
        tokenizer = student.model.tokenizer
        # All examples' prompts in one width, so that a rollout of other examples has the same shape.
        self.prompts = left_pad([prompt.ids(item.question, tokenizer) for item in items], student.lm.device)
        self.context = self.reward_context({})

    def reward_context(self, wrong: Mapping[str, str]) -> RewardContext:
        return RewardContext(
            self.items.task, self.prompt, self.student.model.tokenizer, self.student.reference,
            self.settings.max_new_tokens, self.settings.seed, wrong,
        )  # fmt: skip

    def preflight(self, items: Items) -> Preflight:
        with self.student.decoding() as (model, adapter):
            return measured(model, items, self.prompt, self.settings, self.rewards, self.reward_context, adapter)

    def roll_out(self, number: int) -> Buffer:
        """Sample, grade, advantage."""
        settings = self.settings
        chosen, samples = settings.plan(len(self.items), number)
        some = Items(self.items.task, tuple(self.items[n] for n in chosen))
        decoder = Sampling(
            samples, settings.temperature, seed=settings.seed, max_new_tokens=settings.max_new_tokens,
            first_sample=number * samples,
        )  # fmt: skip
        with self.student.decoding() as (model, adapter):
            rollouts = sample(model, some, self.prompt, decoder, settings.rollout_rows, self.sampled, adapter)
        self.rewards.look(rollouts)
        graded = [one for group in rollouts for one in self.rewards.grade(group, self.context)]
        flat = [r for group in rollouts for r in group]
        totals = torch.tensor([one.total for one in graded]).view(settings.groups, settings.group)
        advantages = losses.advantages(totals, settings.advantage).flatten().tolist()
        question = [n for n, group in enumerate(rollouts) for _ in group]
        records = [
            {**log_line(r, one, advantage), "question": chosen[q]}
            for r, q, one, advantage in zip(flat, question, graded, advantages, strict=True)
        ]
        buffer = self.buffer({"records": records, "facts": facts(flat, totals)}, {})
        buffer.sampler = [[x for place, x in enumerate(r.logprob) if place not in r.written] for r in flat]
        if settings.kl:
            with self.student.reference() as lm:
                buffer.reference = logprobs(lm, buffer.batch, settings.part, settings.temperature, settings.segment)
        return buffer

    def buffer(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Buffer:
        """A rollout as tensors, from its records."""
        records = list(about["records"])
        chosen = list(dict.fromkeys(r["question"] for r in records))
        where, said = [chosen.index(r["question"]) for r in records], [r["tokens"] for r in records]
        limit = self.settings.max_new_tokens
        if isinstance(self.prompt, Positions):
            batch = batch_of(self.student.lm, self.prompt, [self.items[n] for n in chosen], where, said, limit)
        else:
            batch = Batch.of(Padded(*(t[chosen] for t in self.prompts)), where, said, limit)
        for row, record in enumerate(records):
            batch.mask[row, record.get("written", [])] = False  # no choice of the model's
        old, reference = (tensors.get(f"buffer/{name}") for name in ("old", "reference"))
        device = batch.mask.device
        return Buffer(
            batch,
            records,
            dict(about["facts"]),
            None if old is None else old.to(device),
            None if reference is None else reference.to(device),
        )

    def step(self, buffer: Buffer, optimiser: Any, update: int) -> dict[str, float]:
        """Loss and step; says what it did.

        Raises:
            UserError: a loss or gradient that is not finite; nothing is changed then.
        """
        settings, batch, lm = self.settings, buffer.batch, self.student.lm
        first = buffer.old is None
        old = torch.zeros(batch.mask.shape, device=batch.mask.device) if buffer.old is None else buffer.old
        ratio, entropy, at_one = torch.ones_like(old), torch.zeros_like(old), torch.zeros_like(old)
        weights = losses.token_weights(batch.mask, settings.aggregate)
        advantage = buffer.advantage[:, None].expand_as(weights)
        if settings.control_weight is not None:  # a surrogate is as many times as large as its advantage
            advantage = advantage * losses.relative_weights(batch.mask, settings.aggregate, settings.control_weight)
        sums = torch.zeros(3, device=old.device)  # loss, KL, |Δ log p| to the sampler
        prefix = prefix_of(lm, batch.prompts)
        leaves = prefix.leaves()
        for rows, part in batch.parts(settings.part):
            for piece in pieces(lm, leaves, part, settings.segment, checkpointing=settings.checkpointing):
                here = rows, piece.columns
                mask = part.mask[:, piece.columns]
                target = part.tokens[:, piece.columns][mask]
                before = None if first else old[here][mask]
                reference = None if buffer.reference is None else buffer.reference[here][mask]
                known = advantage[here][mask], weights[here][mask], before, reference
                loss, logprob, h = summed_loss(
                    lm, piece.hidden, target, settings.temperature, partial(self._loss, *known)
                )
                piece.backward(loss)
                sums[0] += loss.detach()
                if before is None:
                    before = logprob
                    old[here] = old[here].masked_scatter(mask, logprob)
                    at_one[here] = at_one[here].masked_scatter(mask, self._at_one(piece.hidden, target, logprob))
                if reference is not None:
                    sums[1] += losses.k3(logprob, reference).sum()
                ratio[here] = ratio[here].masked_scatter(mask, torch.exp(logprob - before))
                entropy[here] = entropy[here].masked_scatter(mask, h)
        if first:
            sums[2] = self._apart(buffer, at_one)
        prefix.backward(leaves)
        norm = float(nn.utils.clip_grad_norm_(self.student.trained.values(), settings.grad_clip))
        if not math.isfinite(float(sums[0])) or not math.isfinite(norm):
            raise UserError(
                f"update {update}: loss {float(sums[0])}, gradient {norm}; give a learning rate below {settings.lr}"
            )
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        buffer.old = old
        return self._figures(buffer, ratio, entropy, sums, norm, first)

    def _loss(
        self, advantage: Tensor, weight: Tensor, old: Tensor | None, reference: Tensor | None,
        logprob: Tensor, entropy: Tensor, some: slice,
    ) -> Tensor:  # fmt: skip
        """Σ of the weighted losses of some tokens; without old log-probabilities these are the first."""
        settings = self.settings
        before = logprob.detach() if old is None else old[some]
        each = losses.surrogate(logprob, before, advantage[some], settings.clip_low, settings.clip_high)
        if settings.entropy:
            each = each - settings.entropy * entropy
        if reference is not None:
            each = each + settings.kl * losses.k3(logprob, reference[some])
        return (each * weight[some]).sum()

    def _at_one(self, hidden: Tensor, target: Tensor, logprob: Tensor) -> Tensor:
        """Log-probabilities at the decoding loop's temperature, which is 1."""
        if self.settings.temperature == 1:
            return logprob
        return logprobs_and_entropy(self.student.lm, hidden, target, 1.0)[0]

    def _apart(self, buffer: Buffer, at_one: Tensor) -> float:
        """Σ |Δ log p| to the decoding loop's, over tokens that it gave one for."""
        rows = zip(at_one.cpu(), buffer.sampler, buffer.batch.mask.cpu(), strict=True)
        return float(sum((ours[mask][: len(theirs)] - torch.tensor(theirs)).abs().sum() for ours, theirs, mask in rows))

    def _figures(
        self, buffer: Buffer, ratio: Tensor, entropy: Tensor, sums: Tensor, norm: float, first: bool
    ) -> dict[str, float]:
        """The figures of an update; those of each rollout go into its record."""
        settings, mask, advantage = self.settings, buffer.batch.mask, buffer.advantage
        held = losses.clipped(ratio, advantage[:, None].expand_as(ratio), settings.clip_low, settings.clip_high) & mask
        tokens = float(mask.sum())
        for row, record in enumerate(buffer.records):
            real = ratio[row][mask[row]]
            record |= {"ratio": [float(real.min()), float(real.mean()), float(real.max())]}
            record |= {"entropy": float(entropy[row][mask[row]].mean()), "clipped": float(held[row].sum()) / len(real)}
        if first:
            buffer.facts["sampler"] = float(sums[2]) / max(1, sum(map(len, buffer.sampler)))
        return {
            "entropy": float(entropy.sum()) / tokens, "kl": float(sums[1]) / tokens, "low": float(ratio.min()),
            "high": float(ratio.max()), "clipped": float(held.sum()) / tokens, "loss": float(sums[0]), "norm": norm,
        }  # fmt: skip

    def accuracy(self, items: Items, tokens: int) -> list[float]:
        """Of each item whether it is answered rightly, greedily, in at most so many tokens."""
        with self.student.decoding() as (model, adapter):
            handle = Elicited(model, "check", self.prompt, Greedy(tokens), adapter=adapter)
            return [float(trace.correct) for (trace,) in handle.answer(items)]
