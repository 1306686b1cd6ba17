"""How a policy is trained: the settings of the loop, checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from elicit.training.recipe import Recipe, rise
from elicit.training.rl.losses import ADVANTAGES, AGGREGATES
from probes.errors import UserError, above, at_least, unknown


@dataclass(frozen=True)
class Settings:
    """One update is one step of the optimiser; a rollout is sampled every `per_rollout` updates.

    Args:
        updates: steps of the optimiser.
        rollouts: rollout batch size: answers sampled for one rollout.
        group: generations of one question that are compared with each other (TRL's `num_generations`).
        per_rollout: updates on one rollout (TRL's `num_iterations`). With 1 every ratio is 1 and no bound acts
            (strictly on-policy).
        reward: of `elicit.training.rl.rewards.NAMES`, terms joined by +.
        temperature: of sampling, and of the policy that is trained.
        max_new_tokens: limit of a rollout.
        advantage: one of `elicit.training.rl.losses.ADVANTAGES`.
        aggregate: how losses of tokens become one, of `elicit.training.rl.losses.AGGREGATES`.
        control_weight: α of DeGRPO, the weight of each rollout's first token, whose surrogate is then normalised apart
            from those of the others (`elicit.training.rl.losses.relative_weights`); None: it is a token as any other.
        clip_low, clip_high: the bounds of the ratio, 1 − low and 1 + high.
        kl, entropy: weights of KL to the base and of the entropy bonus.
        lr, warmup: the learning rate (AdamW, betas 0.9 and 0.99), constant after a linear rise over `warmup` updates.
        rank, alpha: of LoRA on every linear layer but the output head; rank 0 trains all weights.
        grad_clip: the largest norm of the gradient.
        part: micro-batch size: rollouts of one forward and backward; gradients are accumulated.
        checkpointing: keep only each layer's input for the backward pass and compute the rest again
            (arXiv 1604.06174): the same gradients for less memory and about a third more time.
        segment: positions of an answer whose activations are in memory at a time (`elicit.training.rl.policy`); 0: all.
            The same gradients for one more forward.
        rollout_rows: rollouts that are sampled together; 0: all of them.
        save_every: updates between two savings of what is trained (`elicit.training.saved`); 0: none.
        state_every: updates between two states that a stopped training resumes from. A state of all weights is three
            times as large as they are.
        preflight: answers sampled for each example before the first update.
        check_every: updates between two checks on held-out items (greedy, so without random numbers); 0: none.
        seed: of samples, random rewards and LoRA's initial weights.

    Raises:
        UserError: a value out of range.
    """

    updates: int = 16
    rollouts: int = 32
    group: int = 8
    per_rollout: int = 1
    reward: str = "exact"
    temperature: float = 1.0
    max_new_tokens: int = 96
    advantage: str = "grpo"
    aggregate: str = "token-mean"
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.001
    entropy: float = 0.001
    lr: float = 4e-4
    warmup: int = 2
    rank: int = 8
    alpha: int = 16
    grad_clip: float = 1.0
    part: int = 16
    preflight: int = 64
    check_every: int = 0
    seed: int = 0
    checkpointing: bool = False
    segment: int = 0
    rollout_rows: int = 0
    save_every: int = 0
    state_every: int = 1
    control_weight: float | None = None

    def __post_init__(self) -> None:
        at_least(self, 2, "rollouts", "group", "max_new_tokens", "preflight")
        at_least(self, 1, "updates", "per_rollout", "part", "alpha", "state_every")
        at_least(self, 0, "rank", "warmup", "check_every", "kl", "entropy", "segment", "rollout_rows", "save_every")
        above(self, 0, "temperature", "lr", "grad_clip", "clip_high")
        if self.control_weight is not None:
            at_least(self, 0, "control_weight")
        if not 0 < self.clip_low <= 1:
            raise UserError(f"clip_low = {self.clip_low} was given; give a value in (0, 1]")
        for name in ("group", "part"):
            if self.rollouts % getattr(self, name):
                raise UserError(
                    f"rollouts = {self.rollouts} and {name} = {getattr(self, name)} were given; give a {name} that "
                    "divides the rollouts"
                )
        for what, given, known in (
            ("advantage", self.advantage, ADVANTAGES),
            ("aggregate", self.aggregate, AGGREGATES),
        ):
            if given not in known:
                raise unknown(what, given, known)

    def kept(self) -> dict[str, Any]:
        """As records and identities hold them: the later ones where they say something, so that older fits are found.

        How often a state is written decides nothing.
        """
        later = {"checkpointing": False, "segment": 0, "rollout_rows": 0, "save_every": 0, "control_weight": None}
        return {k: v for k, v in asdict(self).items() if k != "state_every" and (k not in later or v != later[k])}

    @property
    def groups(self) -> int:
        return self.rollouts // self.group

    @property
    def recipe(self) -> Recipe:
        """What prepares the weights."""
        return Recipe(self.updates, lr=self.lr, rank=self.rank, alpha=self.alpha, clip=self.grad_clip, seed=self.seed)

    def rate(self, update: int) -> float:
        """The learning rate of an update."""
        return self.lr * rise(update, self.warmup)

    def plan(self, items: int, rollout: int) -> tuple[list[int], int]:
        """Which items a rollout is of, and how many samples of each.

        Few examples are copied until the rollout is full; of many, each rollout takes the next ones.

        Raises:
            UserError: examples that do not divide the groups.
        """
        if items > self.groups:
            return [(rollout * self.groups + n) % items for n in range(self.groups)], self.group
        if self.groups % items:
            raise UserError(
                f"{items} examples were given and a rollout has {self.groups} groups; give a number of examples that "
                "divides the groups, or more examples than groups"
            )
        return list(range(items)), self.rollouts // items
