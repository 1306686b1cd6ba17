"""What TRL's trainer calls: the decoding loop of this suite for samples, its rewards and its log for grades.

A rollout is a function of its number (`Settings.plan`), so that every process knows which samples of which items are
its own, and the first one knows whose are whose when it grades them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from elicit.decoding.answering import read
from elicit.decoding.decoders import Sampling
from elicit.decoding.engine import Batch, decode_batch
from elicit.decoding.loop import StopRule, stop_at
from elicit.models.model import Model
from elicit.models.processes import first, rank
from elicit.models.prompts import Prompt
from elicit.tasks.base import Item, Items
from elicit.training import trl_common
from elicit.training.rl import losses
from elicit.training.rl.log import RolloutLog, facts, log_line
from elicit.training.rl.rewards import RewardContext, Rewards, Rollout
from elicit.training.rl.rollouts import graded_rollout, in_parts, written
from elicit.training.rl.settings import Settings
from probes.errors import UserError
from probes.offsets import decoded


class Bridge:
    """What TRL calls: `draw` samples this process's rollouts, `reward` grades everybody's."""

    def __init__(
        self,
        model: Model,
        items: Items,
        settings: Settings,
        prompt: Prompt,
        rewards: Rewards,
        wrong: Mapping[str, str],
        *,
        own: bool = True,
    ) -> None:
        self.model, self.items, self.settings, self.prompt, self.rewards = model, items, settings, prompt, rewards
        self.ids = {item.id: prompt.ids(item.question, model.tokenizer) for item in items}
        self.own = own  # whether `draw` is called: else TRL puts the prompts and generates
        self.context = reward_context(model, items, settings, prompt, wrong)
        self.log: RolloutLog | None = None
        self.facts: dict[str, float] = {}
        self.tokens = 0

    def rollout(self, number: int) -> list[tuple[Item, int]]:
        """The item and the number of each sample of a rollout, in order."""
        chosen, samples = self.settings.plan(len(self.items), number)
        return [(self.items[n], number * samples + s) for n in chosen for s in range(samples)]

    def rows(self) -> list[dict[str, Any]]:
        """The data set: a row for each group of each rollout, so that one pass through it is the training."""
        rollouts = -(-self.settings.updates // self.settings.per_rollout)
        groups = [self.rollout(n)[:: self.settings.group] for n in range(rollouts)]
        return [{"prompt": self._put(item)} for some in groups for item, _ in some]

    def _put(self, item: Item) -> Any:
        """A prompt as TRL takes it: messages, or text."""
        if self.prompt.base == "chat" and not self.own:
            return self.prompt.messages(item.question)
        return self.prompt.text(item.question, self.model.tokenizer)

    def check_readable(self) -> None:
        """Refuse prompts that TRL, where it generates, would turn into other tokens.

        Raises:
            UserError: there is one, or one with a budget of thought, which TRL does not end.
        """
        if self.prompt.thought_tokens:
            raise UserError(
                "weights are sharded and TRL's own generation ends no thoughts; leave thought_tokens out of the prompt"
            )
        tokenizer = self.model.tokenizer
        for item in self.items:
            put = self._put(item)
            if isinstance(put, str):
                read = tokenizer(put)["input_ids"]
            else:
                made: Any = tokenizer.apply_chat_template(put, add_generation_prompt=True, return_dict=True)
                read = made["input_ids"]
            if list(read) != self.ids[item.id]:
                raise UserError(f"TRL would read the prompt of {item.id} as other tokens; give another prompt")

    def draw(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """TRL's `rollout_func`: this process's part of the rollouts, by the decoding loop."""
        state = trainer.accelerator
        number = trainer.state.global_step // self.settings.per_rollout
        mine = self.rollout(number)[state.process_index * len(prompts) :][: len(prompts)]
        lm = trl_common.inner(state.unwrap_model(trainer.model))
        model = replace(self.model, lm=lm)
        drawn: dict[tuple[str, int], tuple[list[int], list[float]]] = {}
        wanted: dict[str, list[int]] = {}
        for item, sample in mine:
            wanted.setdefault(item.id, []).append(sample)
        # Items of which the same samples are wanted are decoded together.
        for start, count in dict.fromkeys((some[0], len(some)) for some in wanted.values()):
            together = [name for name, some in wanted.items() if (some[0], len(some)) == (start, count)]
            decoder = Sampling(
                count, self.settings.temperature, seed=self.settings.seed, first_sample=start,
                max_new_tokens=self.settings.max_new_tokens,
            )  # fmt: skip
            most = max(1, self.settings.rollout_rows // len(together)) if self.settings.rollout_rows else count
            for part in in_parts(decoder, most):
                with evaluating(lm):
                    found = decode_batch(
                        model,
                        Batch(
                            prompts=[self.ids[name] for name in together],
                            rng_streams=together,
                            decoder=part,
                            stop=StopRule(
                                self.model.eos_ids,
                                self.prompt.stop,
                                self.model.tokenizer,
                                thought_tokens=self.prompt.thought_tokens,
                            ),
                            needs=frozenset({"logprob"}),
                        ),
                    )
                for name, branches in zip(together, found, strict=True):
                    for sample, g in zip(part.sample_ids, branches, strict=True):
                        end = [] if g.end is None else [g.end]
                        drawn[name, sample] = [*g.tokens.tolist(), *end], [*g.logprob.tolist(), *(0.0 for _ in end)]
        both = [drawn[item.id, sample] for item, sample in mine]
        return {
            "prompt_ids": [self.ids[item.id] for item, _ in mine],
            "completion_ids": [ids for ids, _ in both],
            "env_mask": [self._chosen(item, ids) for (item, _), (ids, _) in zip(mine, both, strict=True)],
            "logprobs": [logprob for _, logprob in both],  # TRL keeps them, and uses those of vLLM alone
        }

    def reward(self, completion_ids: Sequence[Sequence[int]], trainer_state: Any, **_: Any) -> list[float]:
        """TRL's reward function: the totals of this process's rollouts."""
        from accelerate.utils import broadcast_object_list, gather_object

        everybody = gather_object([list(ids) for ids in completion_ids])
        found: list[Any] = [None]
        if first():
            found = [self.graded(trainer_state.global_step, everybody)]
        broadcast_object_list(found)
        start = rank() * len(completion_ids)
        totals: list[float] = found[0][start : start + len(completion_ids)]
        return totals

    def graded(self, update: int, completions: Sequence[list[int]]) -> list[float]:
        """Grade a whole rollout and write it down."""
        settings = self.settings
        plan = self.rollout(update // settings.per_rollout)
        rollouts = [self._judged(item, sample, ids) for (item, sample), ids in zip(plan, completions, strict=True)]
        by_item = {item.id: [r for r in rollouts if r.item is item] for item, _ in plan}
        graded = [one for some in by_item.values() for one in self.rewards.grade(some, self.context)]
        totals = torch.tensor([one.total for one in graded]).view(settings.groups, settings.group)
        advantages = losses.advantages(totals, settings.advantage).flatten().tolist()
        self.facts, self.tokens = facts(rollouts, totals), sum(len(r.tokens) for r in rollouts)
        if self.log is not None:
            lines = zip(rollouts, graded, advantages, strict=True)
            self.log.append([{"update": update, **log_line(*one)} for one in lines])
        return [one.total for one in graded]

    def _judged(self, item: Item, sample: int, ids: list[int]) -> Rollout:
        end = ids[-1] if ids and ids[-1] in self.model.eos_ids else None
        tokens = ids if end is None else ids[:-1]
        finish = "eos" if end is not None else "length"
        if self.prompt.stop and stop_at(decoded(self.model.tokenizer, tokens), self.prompt.stop) is not None:
            finish = "stop"
        tokenizer, kind = self.model.tokenizer, self.items.task.kind_of(item)
        said = read(tokenizer, tokens, self.prompt.stop, kind, self.prompt.begun(item.question, tokenizer))
        return graded_rollout(
            self.items, item, said, sample, tokens, end=end, finish=finish, logprob=[],
            written=self._written(item, tokens),
        )  # fmt: skip

    def _written(self, item: Item, tokens: list[int]) -> list[int]:
        return written(self.prompt, self.model.tokenizer, self.ids[item.id], tokens)

    def _chosen(self, item: Item, tokens: list[int]) -> list[int]:
        """1 for each token that the model chose, as TRL's mask of the environment's tokens has it."""
        given = set(self._written(item, tokens))
        return [int(place not in given) for place in range(len(tokens))]


def reward_context(
    model: Model, items: Items, settings: Settings, prompt: Prompt, wrong: Mapping[str, str]
) -> RewardContext:
    """What rewards may look at: the base is whole beside what is trained."""
    return RewardContext(
        items.task, prompt, model.tokenizer, lambda: nullcontext(model.lm), settings.max_new_tokens, settings.seed,
        wrong,
    )  # fmt: skip


@contextmanager
def evaluating(lm: PreTrainedModel) -> Iterator[None]:
    """In evaluation mode inside the context, with the cache that a trainer turns off and without its autocast, which
    accelerate puts around the forward of a model that is trained as a whole."""
    training, cache, forward = lm.training, lm.config.use_cache, vars(lm).get("forward")
    lm.eval()
    lm.config.use_cache = True
    if forward is not None and "_original_forward" in vars(lm):
        lm.forward = vars(lm)["_original_forward"]
    try:
        yield
    finally:
        if forward is not None:
            lm.forward = forward
        lm.train(training)
        lm.config.use_cache = cache
