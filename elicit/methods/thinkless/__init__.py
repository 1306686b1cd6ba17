"""`thinkless`: reinforcement learning of when to think, by a token that each answer begins with (arXiv 2505.13379).

Two control tokens say how an answer is given, at once or after thought. A warm-up on the model's own answers of both
modes teaches what they stand for (`warm_up`). Then answers are sampled, control token and all, and rewarded: 1 for a
right short one, 1 − γ for a right one after thought, −1 for a wrong one (`modes`). DeGRPO normalises the control token
and the answer's tokens apart (`elicit.training.rl.losses`), so that what the mode learns depends on no length:

    Σ over rollouts of α L_0 + 1/T Σ_t L_t        GRPO: 1/(T + 1) (L_0 + Σ_t L_t)

What comes out chooses its mode by its first token, greedily, like any other handle. A fit lives in `runs/`, under a
hash of all that decides it, and the same command takes it up to the bit.

Where it departs from the paper:
- No rows are added to the embedding, which bundles, adapters and engines would all have to know of: the control tokens
  are the tokenizer's own `<short>` and `<think>` where it has them, else two spare tokens of it (`control_tokens`), or
  what `short` and `think` say. Their rows are what they were; an adapter learns to write and to read them, and all
  weights (`rank=0`) learn the rows too. The run says which tokens were taken.
- The warm-up's answers are the model's own, told to answer at once and told to think, not those of two other models;
  what did not come to its end is left out, what is wrong is not.
- LoRA at 4e-4 instead of all weights at 1e-6, and tens of updates instead of hundreds; α is 0.01, about one over the
  tokens of a thought here, where the paper's 0.001 goes with thoughts of a thousand. The preset `thinkless-paper` has
  the values of the authors' script.
- KL is to the warmed-up model and, like the entropy bonus, averaged over all tokens alike, as in the authors' code;
  that code averages answers' tokens over the batch, the paper over each answer, as here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from elicit.decoding.decoders import Greedy
from elicit.decoding.engine import check_training
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.description import SIGNAL, base_of, of_rewards, signal
from elicit.evaluation.run.store import folder_for
from elicit.evaluation.seen import SEEN, seen
from elicit.methods.base import NeedsItems, Work, check_own, minutes_elsewhere
from elicit.methods.baselines.at_budget import at_budget, plain
from elicit.methods.thinkless.control_tokens import SPARE, ControlTokens, control_tokens
from elicit.methods.thinkless.gates import as_often, gates
from elicit.methods.thinkless.modes import ModeReward, Modes, collapsed, watching
from elicit.methods.thinkless.record import PLAIN, findings, notes, report_sections
from elicit.methods.thinkless.warm_up import WarmUp, answering, warm_up
from elicit.models.identity import grounds
from elicit.models.model import Model
from elicit.models.prompts import Prompt, prompt_for
from elicit.tasks.base import Items
from elicit.training.recipe import Recipe
from elicit.training.rl.curve import columns, summary
from elicit.training.rl.loop import train
from elicit.training.rl.settings import Settings
from probes.description import Part, one_of
from probes.errors import UserError, unknown

NAME = "thinkless"
SUMMARY = "reinforcement learning of when to think, by a token that each answer begins with"
PAPER = "2505.13379"
NEEDS_ITEMS = True
MODEL = "smollm2-135m-latent"
missing = minutes_elsewhere
QUICK = {"questions": 8, "warm_steps": 12, "updates": 4, "rollouts": 16, "lr": 1e-3}
REWARD = "mode"
BESIDE = 11  # arms that `controls` makes
OBJECTIVES = {"degrpo": "the control token's surrogate apart, with weight α", "grpo": "a token as any other"}
WARM = "warm-up alone"


@dataclass(frozen=True)
class Asked:
    """What is asked for beside the settings of the loop; `fit` says what each means."""

    objective: str
    short: str
    think: str
    gamma: float
    control_weight: float
    questions: int
    warm_steps: int
    warm_rows: int
    warm_lr: float
    check: int
    checked: bool

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise unknown("objective", self.objective, OBJECTIVES)
        for name, ok, expected in (
            (
                "gamma",
                0 <= self.gamma < 2,
                "0 (thinking costs nothing) or more, below 2 (a right answer beats a wrong one)",
            ),
            ("control_weight", 0 <= self.control_weight < math.inf, "0 (the mode is not trained) or more"),
            ("questions", self.questions >= 1, "1 or more"),
            ("warm_steps", self.warm_steps >= 0, "0 (the model knows its control tokens) or more"),
            ("check", self.check >= 1, "1 or more"),
        ):
            if not ok:
                raise UserError(f"{name} = {getattr(self, name)} was given to {NAME}; give {expected}")


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    objective: str = "degrpo",
    short: str = "",
    think: str = "",
    gamma: float = 0.5,
    control_weight: float = 0.01,
    questions: int = 32,
    warm_steps: int = 24,
    warm_rows: int = 4,
    warm_lr: float = 2e-3,
    updates: int = 16,
    rollouts: int = 32,
    group: int = 8,
    per_rollout: int = 1,
    rollout_tokens: int = 128,
    temperature: float = 1.0,
    advantage: str = "dr-grpo",
    aggregate: str = "sequence-mean",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl: float = 0.001,
    entropy: float = 0.001,
    lr: float = 4e-4,
    rank: int = 8,
    part: int = 0,
    rollout_rows: int = 0,
    checkpointing: bool = False,
    segment: int = 0,
    save_every: int = 0,
    state_every: int = 1,
    check: int = 32,
    checked: bool = True,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Elicited:
    """Warm an adapter, or all weights, up on both modes, and train it on the fit items to choose between them.

    Args:
        model: the base; it is as it was afterwards.
        items: items of a task; the fit split is trained on, on the dev split is measured how often is thought (where
            that is empty, on the fit items themselves).
        progress: reports answers, steps and updates.
        objective: how the control token counts, one of `OBJECTIVES`.
        short, think: the control tokens, each one token; "": the tokenizer's own, or spare ones
            (`elicit.methods.thinkless.control_tokens`).
        gamma: γ, what a right answer loses by having thought.
        control_weight: α, the weight of the control token (`degrpo`).
        questions: fit items that are trained on, the first ones.
        warm_steps, warm_rows, warm_lr: of the warm-up (`elicit.training.recipe.Recipe`); 0 steps: none, for a model
            that knows its control tokens.
        rollout_tokens: limit of an answer in training, the control token among it; `max_new_tokens` is that of the
            evaluation.
        updates, rollouts, group, per_rollout, temperature, advantage, aggregate, clip_low, clip_high, kl, entropy, lr,
            rank, rollout_rows, checkpointing, segment, save_every, state_every: as for
            `elicit.training.rl.settings.Settings`.
        part: micro-batch size of the updates; 0 is a group.
        check: dev items on which is measured how often the trained model thinks, at most.
        checked: refuse a run that the pre-flight finds no signal for.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
        seed: of all that is drawn.

    Raises:
        UserError: no usable fit items, no signal, control tokens that cannot be used, a limit below 2 tokens, a prompt
            that begins answers itself; as `elicit.training.rl.loop.train`.
    """
    asked = Asked(
        objective=objective, short=short, think=think, gamma=gamma, control_weight=control_weight, questions=questions,
        warm_steps=warm_steps, warm_rows=warm_rows, warm_lr=warm_lr, check=check, checked=checked,
    )  # fmt: skip
    settings = Settings(
        updates=updates, rollouts=rollouts, group=group, per_rollout=per_rollout, reward=REWARD,
        temperature=temperature, max_new_tokens=rollout_tokens, advantage=advantage, aggregate=aggregate,
        clip_low=clip_low, clip_high=clip_high, kl=kl, entropy=entropy, lr=lr, rank=rank, part=part or group,
        preflight=group, seed=seed, checkpointing=checkpointing, segment=segment, rollout_rows=rollout_rows,
        save_every=save_every, state_every=state_every, control_weight=_weight(objective, control_weight),
    )  # fmt: skip
    if items is None:
        raise NeedsItems(f"{NAME} trains on fit items of a task")
    if max_new_tokens < 2:
        raise UserError(
            f"max_new_tokens = {max_new_tokens} was given to {NAME}; give 2 or more: a control token and an answer"
        )
    check_training(model, adapter=rank > 0)
    tokens, put = control_tokens(model, short, think), prompt_for(model, prompt, items)
    answering(model, put, rollout_tokens - 1)
    if not warm_steps and SPARE in tokens.source:
        raise UserError(
            f"warm_steps = 0 was given and {model.name!r} never writes its control tokens ({tokens.told()}); give steps"
        )
    settings.plan(len(_trained_on(items, questions)), 0)
    warmed = _warmed(model, items, put, tokens, asked, settings, progress)
    return _fitted(NAME, model, items, progress, settings, asked, prompt, max_new_tokens, tokens, warmed)


def _weight(objective: str, alpha: float) -> float | None:
    return alpha if objective == "degrpo" else None


def _trained_on(items: Items, questions: int) -> Items:
    """The fit items that are trained on.

    Raises:
        UserError: there is none that has an answer.
    """
    some = tuple(item for item in items.task.solved if item.answer is not None)[:questions]
    if not some:
        raise UserError(f"task {items.task.name!r} has no fit items with answers to train on; give a task that has")
    return Items(items.task, some)


def _warmed(
    model: Model, items: Items, put: Prompt, tokens: ControlTokens, asked: Asked, settings: Settings,
    progress: Progress | None,
) -> WarmUp | None:  # fmt: skip
    if not asked.warm_steps:
        return None
    recipe = Recipe(
        asked.warm_steps, asked.warm_rows, part=1, lr=asked.warm_lr, warmup=min(4, asked.warm_steps),
        rank=settings.rank, alpha=settings.alpha, clip=settings.grad_clip, seed=settings.seed,
        checkpointing=settings.checkpointing,
    )  # fmt: skip
    some = _trained_on(items, asked.questions)
    return warm_up(model, some, put, tokens, recipe, settings.max_new_tokens, progress)


def _fitted(
    name: str,
    model: Model,
    items: Items,
    progress: Progress | None,
    settings: Settings,
    asked: Asked,
    prompt: str,
    max_new_tokens: int,
    tokens: ControlTokens,
    warmed: WarmUp | None,
) -> Elicited:
    """One arm: its training from the warm-up on, its handle, and how often that thinks."""
    put, some = prompt_for(model, prompt, items), _trained_on(items, asked.questions)
    start = None if warmed is None else warmed.adapter
    decides = [
        settings.kept(), asdict(asked), tokens.to_dict(), None if start is None else start.sha256, put.to_dict(),
        model.provenance.sha256, model.dtype, grounds(some, [model]),
    ]  # fmt: skip
    folder = folder_for(f"{NAME}-fit", items.task.name, model.name, decides)
    modes = Modes(folder, tokens)
    made = train(
        model, some, settings, folder, prompt=put, rewards={REWARD: ModeReward(tokens, asked.gamma)},
        checked=asked.checked and name == NAME, start=start, on_step=watching(progress, name, settings.updates, modes),
    )  # fmt: skip
    curve = modes.curve()
    dev = Items(items.task, tuple(item for item in items.task.items if item.split == "dev"))
    measured = dev[: asked.check] or some
    rate, threshold = as_often(model, made.adapter, put, tokens, measured)
    options = {
        "prompt": prompt,
        "asked": asdict(asked),
        "settings": settings.kept(),
        "found": {
            "folder": folder.name,
            "tokens": tokens.to_dict(),
            "told": tokens.told(),
            "warm-up": {} if warmed is None else warmed.found,
            "preflight": made.preflight.to_dict(),
            "summary": summary(made.curve),
            "curve": columns(made.curve),
            "modes": curve,
            "collapsed": collapsed(curve),
            "rate": rate,
            "threshold": threshold,
            "measured": len(measured),
            "held out": bool(dev),
        },
        SEEN: seen(some, measured),
        **_told(model, put, items, some, asked.warm_steps, summary(made.curve)),
    }
    return Elicited(model, name, put, Greedy(max_new_tokens), adapter=made.adapter, options=options, fitted=warmed)


def _told(
    model: Model, put: Prompt, items: Items, some: Items, warm_steps: int, rewarded: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """The options of an arm that hold what its training was told: the control tokens, the two instructions after which
    the base itself gave what the warm-up learns, the questions, and the rewards; nothing where these were not counted.
    """
    among = len(items.task.solved)
    told = signal("questions", len(some) * one_of(among))
    if rewarded is not None and not (told := of_rewards(rewarded, len(some), among)):
        return {}
    base, asks = base_of(model), answering(model, put, 1).values() if warm_steps else ()
    parts = [Part("control tokens", 2 * one_of(model.choices))]
    parts += [part for one in asks for part in one.prompt.description(base)]
    return {SIGNAL: [part._asdict() for part in parts] + told}


def work(model: Model, items: Items, options: Mapping[str, Any]) -> Work:
    """The answers that the warm-up learns from, the rollouts, as long as they may be, and updates of full rows."""
    put = prompt_for(model, options["prompt"], items)
    handle = Elicited(model, NAME, put, Greedy(options["max_new_tokens"]))
    limit, group, rollouts = options["rollout_tokens"], options["group"], options["rollouts"]
    asked = [len(put.ids(item.question, model.tokenizer)) for item in items]
    recipe = Recipe(
        options["updates"], rollouts, max(asked) + limit, options["part"] or group, rank=options["rank"],
        checkpointing=options["checkpointing"],
    )  # fmt: skip
    some = _trained_on(items, options["questions"])
    warm = answering(model, put, limit - 1) if options["warm_steps"] else {}
    drawn = group * len(some) + rollouts * math.ceil(options["updates"] / options["per_rollout"])
    answers = [*((one, len(some)) for one in warm.values()), (replace(handle, decoder=Greedy(limit)), drawn)]
    return Work(
        handle, answers, recipe, (BESIDE, 1),
        "the steps of the warm-up and the reference of KL are not in it",
    )  # fmt: skip


def controls(
    handle: Elicited, items: Items | None = None, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Elicited]:
    """The same training by plain GRPO, the warm-up alone, the trained model with its mode chosen otherwise, and the
    baselines, plain and with as many tokens.

    Gates choose the first token alone, all that follows is the trained model's: by a coin of the rate at which it
    thinks on dev items; by the entropy of its first token, both control tokens left out, from the threshold on that has
    that rate there; and always one mode.

    Raises:
        UserError: a handle of another method, no items.
    """
    check_own(handle, NAME)
    if items is None:
        raise NeedsItems(f"the controls of {NAME} train on fit items of a task")
    model, options, limit = handle.model, handle.options, handle.decoder.max_new_tokens
    settings, asked, found = Settings(**options["settings"]), Asked(**options["asked"]), options["found"]
    tokens = control_tokens(model, asked.short, asked.think)
    warmed = handle.fitted if isinstance(handle.fitted, WarmUp) else None
    if warmed is None and asked.warm_steps:
        warmed = _warmed(model, items, handle.prompt, tokens, asked, settings, progress)
    out = plain(handle, items)
    other = replace(settings, control_weight=_weight("grpo", asked.control_weight))
    if asked.objective == "degrpo":
        grpo = replace(asked, objective="grpo")
        out[PLAIN] = _fitted(PLAIN, model, items, progress, other, grpo, options["prompt"], limit, tokens, warmed)
    if warmed is not None:
        some = _trained_on(items, asked.questions)
        told = _told(model, handle.prompt, items, some, asked.warm_steps, None)
        out[WARM] = replace(handle, method=WARM, adapter=warmed.adapter, options=told, fitted=None)
    told = {SIGNAL: options[SIGNAL]} if SIGNAL in options else {}
    for name, decoder in gates(tokens, found["rate"], found["threshold"], limit, seed).items():
        out[name] = replace(handle, method=name, decoder=decoder, options=told, fitted=None)
    return out | at_budget(handle, items, seed)


__all__ = ["NAME", "PAPER", "SUMMARY", "controls", "findings", "fit", "missing", "notes", "report_sections", "work"]
