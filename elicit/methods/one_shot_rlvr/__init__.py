"""`one-shot-rlvr`: reinforcement learning on one example (arXiv 2504.20571), with its spurious rewards (2506.10947).

One fit item is copied to fill each rollout; answers are sampled, graded and compared within their group, and an
adapter is trained to make the better ones likelier (`elicit.training.rl.loop`). What comes out answers greedily, like
any other handle. A fit lives in `runs/`, under a hash of all that decides it, and the same command takes it up to the
bit.

Where the papers are silent or differ:
- LoRA at 4e-4 instead of all weights at 1e-6 (`rank=0` and that `lr`, in the preset `one-shot-rlvr-paper`): tens of
  updates instead of hundreds (at 1e-3 the example's own numbers are learned by heart and the skill is lost; at 2e-4
  twenty updates are too few). Temperature 1 instead of 0.6: a rare way to answer is seen as often as the base takes it.
- The example is chosen by `elicit.methods.one_shot_rlvr.example_selection`'s `working` rule; `history` is the paper's.
- A random reward acts through the bounds of the ratio alone, which a strictly on-policy run never meets: it stands
  among the controls both ways.
- Before the first update a pre-flight measures whether there is anything to learn from, and refuses a run without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.description import SIGNAL, of_rewards
from elicit.evaluation.run.run import Run
from elicit.evaluation.run.store import folder_for
from elicit.evaluation.seen import SEEN, seen
from elicit.methods.base import NeedsItems, Work, check_counts, check_own, minutes_elsewhere
from elicit.methods.baselines import direct
from elicit.methods.baselines.at_budget import at_budget, plain
from elicit.methods.one_shot_rlvr.decomposition import COMPONENTS, ENTROPY, FORMAT, decompose, without_signal
from elicit.methods.one_shot_rlvr.example_selection import choose, pool_of
from elicit.models.identity import grounds
from elicit.models.model import Model
from elicit.models.prompts import prompt_for
from elicit.tasks.base import Item, Items
from elicit.tasks.grading import MathGrader, NumberGrader
from elicit.tasks.hub import PI1
from elicit.training import trl_common
from elicit.training.recipe import Recipe
from elicit.training.rl.curve import columns, figure, summary, telling
from elicit.training.rl.loop import train
from elicit.training.rl.rewards import parse
from elicit.training.rl.settings import Settings
from probes.errors import UserError, as_expected, unknown
from probes.figures import noted, table
from probes.files import make_folder
from probes.inert import escaped
from probes.sealed import read_sealed, write_sealed

NAME = "one-shot-rlvr"
SUMMARY = "reinforcement learning with a verifiable reward on one example"
PAPER = "2504.20571"
NEEDS_ITEMS = True
MODEL = "smollm2-135m-latent"
missing = minutes_elsewhere
QUICK = {"updates": 5, "pool": 8, "lr": 1e-3}
BOXED = "format:boxed"
SEVERAL = 4  # updates a rollout, where a random reward is to act through the bounds
# What each control is trained with instead; all else is the same.
SPURIOUS: dict[str, dict[str, Any]] = {
    "format reward": {"reward": "format"},
    "random reward": {"reward": "random:0.5", "per_rollout": 1},
    f"random reward, {SEVERAL} updates a rollout": {"reward": "random:0.5", "per_rollout": SEVERAL},
    "entropy only": {"reward": "none", "kl": 0.0},
}


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    example: str = "",
    examples: int = 1,
    select: str = "working",
    pool: int = 16,
    reward: str = "exact",
    spurious: str = "",
    updates: int = 16,
    rollouts: int = 32,
    group: int = 8,
    per_rollout: int = 1,
    rollout_tokens: int = 96,
    temperature: float = 1.0,
    advantage: str = "grpo",
    aggregate: str = "token-mean",
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
    check_every: int = 0,
    check: int = 32,
    checked: bool = True,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
    trainer: str = "own",
    trl: dict[str, Any] = trl_common.NOTHING,
) -> Elicited:
    """Choose an example among the fit items and train an adapter, or all weights, on it.

    Args:
        model: the base; it is as it was afterwards.
        items: items of a task; the fit split is trained on, the dev split is checked on, the test split is not touched.
        progress: reports each update.
        example: ids of the examples, joined by commas, instead of choosing; `pi1` is the paper's own, on any task of
            numbers or mathematics.
        examples, select, pool: how many are chosen, how (`elicit.methods.one_shot_rlvr.example_selection.SELECTS`) and
            among how many fit items.
        reward: of `elicit.training.rl.rewards.NAMES`, terms joined by +.
        spurious: rewards, joined by commas, that are trained with as further controls (`majority,incorrect`).
        rollout_tokens: limit of an answer in training; `max_new_tokens` is that of the evaluation.
        updates, rollouts, group, per_rollout, temperature, advantage, aggregate, clip_low, clip_high, kl, entropy, lr,
            rank, rollout_rows, checkpointing, segment: as for `elicit.training.rl.settings.Settings`.
        part: micro-batch size of the updates; 0 is a group.
        save_every: updates between two savings of what is trained, each a handle of its own then
            (`elicit.training.saved.saved_steps`, `elicit analyse saved-steps`); 0: none.
        state_every: updates between two states that a stopped training resumes from.
        check_every, check: updates between two looks at dev items, and how many.
        checked: refuse a run that the pre-flight finds no signal for.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
        seed: of all that is drawn.
        trainer, trl: what trains (`elicit.training.trl_common.TRAINERS`), and TRL's own options where that does.

    Raises:
        UserError: no usable fit items, no signal, unknown names; as `elicit.training.rl.loop.train`.
    """
    if items is None:
        raise NeedsItems(f"{NAME} trains on fit items of a task")
    check_counts(NAME, examples=examples, pool=pool, check=check)
    trl_common.check(trainer, trl)
    if segment and trainer != "own":
        raise UserError(f"segment = {segment} was given and TRL computes answers whole; give segment=0 or trainer=own")
    settings = Settings(
        updates=updates, rollouts=rollouts, group=group, per_rollout=per_rollout, reward=reward,
        temperature=temperature, max_new_tokens=rollout_tokens, advantage=advantage, aggregate=aggregate,
        clip_low=clip_low, clip_high=clip_high, kl=kl, entropy=entropy, lr=lr, rank=rank, part=part or group,
        check_every=check_every, seed=seed, checkpointing=checkpointing, segment=segment,
        rollout_rows=rollout_rows, save_every=save_every, state_every=state_every,
    )  # fmt: skip
    asked: dict[str, Any] = {
        "example": example,
        "examples": examples,
        "select": select,
        "pool": pool,
        "check": check,
        "checked": checked,
    }
    if trainer != "own":
        asked |= {"engine": trainer, "trl": trl}  # the record's word
    parse("+".join(_listed(spurious)) or "none")
    handle = _fitted(NAME, model, items, progress, settings, asked, prompt, max_new_tokens)
    return replace(handle, options={**handle.options, "spurious": spurious}) if spurious else handle


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _fitted(
    name: str,
    model: Model,
    items: Items,
    progress: Progress | None,
    settings: Settings,
    asked: Mapping[str, Any],
    prompt: str,
    max_new_tokens: int,
) -> Elicited:
    """One arm: its example, its training, its handle."""
    put = prompt_for(model, prompt, items)
    on_step = telling(progress, name, settings.updates)
    folder = _folder(model, items, settings, asked, prompt)
    with trl_common.first_alone(model):
        chosen, rows = _chosen(model, items, settings, asked, prompt, folder, progress)
    dev = items.task.split("dev")[: asked["check"]] if settings.check_every else None
    put_to = {
        "prompt": put,
        "held_out": dev,
        "held_out_tokens": max_new_tokens,
        "checked": asked["checked"],
        "on_step": on_step,
    }
    if "engine" in asked:
        from elicit.training.rl import trl_grpo as trl

        made = trl.train(model, chosen, settings, folder, given=asked["trl"], **put_to)
    else:
        made = train(model, chosen, settings, folder, **put_to)
    found: dict[str, Any] = {
        "folder": folder.name,
        "examples": [item.id for item in chosen],
        "answers": [item.answer for item in chosen],
        "questions": [item.question for item in chosen],
        "pool": rows,
        "preflight": made.preflight.to_dict(),
        "summary": summary(made.curve),
        "curve": columns(made.curve),
    }
    options: dict[str, Any] = {"prompt": prompt, "asked": dict(asked), "settings": settings.kept(), "found": found}
    options[SEEN] = seen(chosen)
    if told := of_rewards(found["summary"], len(chosen), len(items.task.solved)):
        options[SIGNAL] = told
    return Elicited(model, name, put, Greedy(max_new_tokens), adapter=made.adapter, options=options)


def _folder(model: Model, items: Items, settings: Settings, asked: Mapping[str, Any], prompt: str) -> Path:
    """Where a fit lives: named after all that decides it, so not after how many items the task holds beyond those."""
    solved, names = items.task.solved, _named(asked, items)
    seen = [i for i in _known(items) if i.id in names] if names else pool_of(solved, asked["examples"], asked["pool"])
    looked_at = items.task.split("dev")[: asked["check"]] if settings.check_every else ()
    stands_on = grounds(Items(items.task, (*seen, *looked_at)), [model])
    decides = [settings.kept(), dict(asked), prompt, model.provenance.sha256, model.dtype, items.task.name, stands_on]
    return folder_for(f"{NAME}-fit", items.task.name, model.name, decides)


def _known(items: Items) -> list[Item]:
    """The examples that can be named: the fit items and, where the task's grader can judge it, the paper's own."""
    solved = list(items.task.solved)
    judged = isinstance(items.task.grader, NumberGrader | MathGrader)
    return [*solved, PI1] if judged and PI1 not in solved else solved


def _named(asked: Mapping[str, Any], items: Items) -> list[str]:
    """The ids of the examples that were named, if any. An id may hold commas: the longest that is known is meant."""
    known, parts, out = {item.id for item in _known(items)}, str(asked["example"]).split(","), list[str]()
    while parts:
        joined = (",".join(parts[:n]).strip() for n in range(len(parts), 0, -1))
        name = next((one for one in joined if one in known), parts[0].strip())
        out += [name] if name else []
        parts = parts[max(1, name.count(",") + 1) :]
    return out


def _kept_choice(file: Path, by_id: Mapping[str, Item]) -> tuple[list[Item], list[dict[str, Any]]]:
    """The examples of an interrupted fit, and the pool that they were chosen from.

    Raises:
        UserError: a file that is not as it was written.
    """
    with as_expected(repr(str(file)), "remove it, and the examples are chosen again"):
        kept, _ = read_sealed(file, "remove it, and the examples are chosen again")
        return [by_id[name] for name in kept["examples"]], [dict(row) for row in kept["pool"]]


def _chosen(
    model: Model,
    items: Items,
    settings: Settings,
    asked: Mapping[str, Any],
    prompt: str,
    folder: Path,
    progress: Progress | None,
) -> tuple[Items, list[dict[str, Any]]]:
    """The examples that were named, or those of the best score, which is kept with the fit."""
    solved = items.task.solved
    if names := _named(asked, items):
        by_id = {item.id: item for item in _known(items)}
        for name in names:
            if name not in by_id:
                raise unknown("example (a fit item's id)", name, by_id)
        return Items(items.task, tuple(by_id[name] for name in names)), []
    by_id = {item.id: item for item in solved}
    file = folder / "selection.json"
    if file.is_file():
        examples, rows = _kept_choice(file, by_id)
        return Items(items.task, tuple(examples)), rows
    found = choose(
        model, solved, settings, how=asked["select"], count=asked["examples"], pool=asked["pool"],
        prompt=prompt_for(model, prompt, items), folder=folder / "pool",
        on_step=telling(progress, "selection", settings.updates) if asked["select"] == "history" else None,
    )  # fmt: skip
    make_folder(folder)
    write_sealed(file, {"examples": [item.id for item in found.items], "pool": found.rows})
    return found.items, found.rows


def work(model: Model, items: Items, options: Mapping[str, Any]) -> Work:
    """The pool's and the pre-flight's samples and the rollouts, as long as answers that are asked to think, and updates
    of rows that are full."""
    rollouts, tokens, group = (options[key] for key in ("rollouts", "rollout_tokens", "group"))
    put = prompt_for(model, options["prompt"], items)
    longest = max(len(put.ids(item.question, model.tokenizer)) for item in items)
    update = Settings(rollouts=rollouts, group=group, part=options["part"] or group).part
    recipe = Recipe(
        options["updates"], rollouts, longest + tokens, update, rank=options["rank"],
        checkpointing=options["checkpointing"],
    )  # fmt: skip
    asked = Elicited(model, NAME, put.thinking(), Greedy(options["max_new_tokens"]))
    sampled = replace(asked, decoder=Greedy(tokens))
    answers = options["pool"] * group + rollouts * math.ceil(options["updates"] / options["per_rollout"])
    return Work(
        asked, [(sampled, answers)], recipe, (len(SPURIOUS) + 4, len(SPURIOUS)),
        "the reference of KL and looks at dev items are not in it",
    )  # fmt: skip


def controls(
    handle: Elicited, items: Items | None = None, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Elicited]:
    """The same training with rewards that know nothing of the truth, beside the baselines, plain and with as many
    tokens.

    The format is the task's: a box where answers are mathematical expressions, else an equation. They see the same
    example for the same number of updates, and are trained whatever their pre-flight says: an arm without a signal
    stays the base, and its record says so.

    Raises:
        UserError: a handle of another method, no items.
    """
    check_own(handle, NAME)
    if items is None:
        raise NeedsItems(f"the controls of {NAME} train on fit items of a task")
    model, options, limit = handle.model, handle.options, handle.decoder.max_new_tokens
    settings = Settings(**options["settings"])
    asked = {**options["asked"], "example": ",".join(options["found"]["examples"]), "checked": False}
    out = plain(handle, items)
    by_id = {item.id: item for item in (*items.task.items, *_known(items))}
    boxed = all(items.task.kind_of(by_id[name]) == "math" for name in options["found"]["examples"])
    more = {f"{reward} reward": {"reward": reward} for reward in _listed(options.get("spurious", ""))}
    for name, instead in (SPURIOUS | more).items():
        other = replace(settings, **instead | ({"reward": BOXED} if boxed and name == FORMAT else {}))
        out[name] = _fitted(name, model, items, progress, other, asked, options["prompt"], limit)
    return out | at_budget(handle, items, seed)


def notes(options: Mapping[str, Any]) -> list[str]:
    """The example, what the pre-flight said, when it was solved, and what went unused."""
    found, settings = options["found"], options["settings"]
    before, after = found["preflight"], found["summary"]
    at = after.get("saturation")
    out = [
        f"Trained on {', '.join(found['examples'])} (answer {', '.join(found['answers'])}): {after['updates']} "
        f"updates of {settings['rollouts']} rollouts, reward {settings['reward']}, in {after['seconds']:.0f} s.",
        f"Pre-flight on {before['answers']} answers of the base: the reward was read in {before['read']:.0%}, "
        f"{before['right']:.0%} right, {before['mixed']:.0%} of groups mixed.",
        f"Saturated at update {at} (reward at least 0.95 from there on)."
        if at is not None
        else f"Not saturated: the last reward is {after['last reward']:.2f}.",
        f"{after['groups without variance']:.0%} of groups were without variance; {after['constant answers']:.0%} of "
        f"the last answers were one and the same; {after['clipped']:.1%} of tokens were clipped.",
    ]
    if "sampler" in after:
        out.append(f"The sampler's log-probabilities are {after['sampler']:.4f} nats from the loss's.")
    return out


def report_sections(options: Mapping[str, Any]) -> list[Any]:
    """For the report: the training, and the examples that were not taken."""
    found = options["found"]
    note = "On the example; entropy of the policy at the right. Rewards saturate where the example is solved."
    out: list[Any] = [("Training", note, figure(found["curve"], found["summary"].get("saturation")))]
    if found["pool"]:
        rows = [(row["item"], f"{row['score']:.3g}", f"{row['variance']:.3f}") for row in found["pool"]]
        out += [
            f"<h2>The pool, by {escaped(options['asked']['select'])}</h2>",
            table(("item", "score", "variance"), rows, main=0),
        ]
    return out


def findings(run: Run) -> list[str]:
    """For the report of a run with controls: where the gain comes from."""
    from elicit.evaluation.metrics.format import signed, with_interval

    if not {direct.NAME, FORMAT, ENTROPY} <= set(run.metrics["arms"]):
        return []
    title = "<h2>Where the gain comes from</h2>"
    if not run.store.keeps_items:
        return [
            title,
            noted("Not told: the run is of an older version, which kept no questions to compare answers to."),
        ]
    found = decompose(run, seed=run.metrics["seed"])
    parts = [name for name in COMPONENTS if name in found]
    rows = [(name, with_interval(found[name].value, found[name].interval.pair, signed)) for name in parts]
    note = (
        f"Points of accuracy, paired by question; {found['copied'].value:.0%} of answers are the example's own. The "
        f"remainder is what {', '.join(parts[1:-1])} do not give."
    )
    note += "".join(f" The part of {part} is left out: {why}." for part, why in without_signal(run).items())
    return [title, noted(note), table(("part", "points [95%]"), rows)]
