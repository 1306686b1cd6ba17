"""Can a thought be rewarded by the information that it brings on the answer, without anything that checks answers?

Confirmed, each by its 95% interval over questions (0.1 nats and ten points are of interest):

1. thoughts earn the reward: the base's own ones (asked to think) make the right answer likelier, to the scorer that the
   reward reads (the base, bare prompt), and more so than filler and than another question's thought, both as long;
2. training on it opens the skill: more questions are right than under direct;
3. and than after the same training on the gain of filler, as long as each thought.

Against it speaks a filler that earns as much, or whose gain teaches as much: then length is what is rewarded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from elicit.analysis.reasoning import information_gain
from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.evaluation.metrics.format import with_interval
from elicit.models import Prompt
from elicit.tasks.base import Items
from elicit.training.rl.information_gain import FILLER, NULLS, as_long, gains
from elicit.training.rl.loop import train
from elicit.training.rl.rewards import RewardContext, Rollout
from elicit.training.rl.settings import Settings
from experiments.claims.base import Finding, Study
from experiments.claims.rules import Condition, Judgement, few, lead
from experiments.claims.trained import RLVR, means, points, scores, trained
from probes.errors import UserError
from probes.files import digest
from probes.statistics import Interval

REWARD, CONTROL = "information-gain", "filler-gain"
READER = "the base, bare prompt"  # whose gain the reward is, as the analysis names it
EARNED = ("gain", NULLS[2], NULLS[0])
Read = Mapping[str, tuple[float, Interval]]


def measure(study: Study) -> Finding:
    runs = study.compared(["direct", "cot-prompt"])
    handle = trained(study, RLVR, reward=REWARD, examples=study["examples"], select="first")
    runs[REWARD] = study.evaluated(handle, {}, REWARD)
    runs[CONTROL] = study.evaluated(_control(study, handle), {}, CONTROL)
    found = information_gain.analyse(
        [runs["cot-prompt"], runs[REWARD]], limit=study["limit"], seed=study.seed, progress=study.told
    )  # fmt: skip
    if (row := f"cot-prompt, {READER}") not in found.data["rows"]:
        raise UserError(f"{study.model.name} says no thoughts where it is asked to think; give a model that does")
    earned = found.data["rows"][row]
    right = {name: scores(run) for name, run in runs.items()}
    read = summarised(earned, right, seed=study.seed)
    arms = {name: run.metrics["arms"][run.metrics["method"]] for name, run in runs.items()}
    table = [
        {"arm": name, "right [95%]": with_interval(arm["accuracy"], arm["interval"]),
         "tokens": f"{arm['tokens_per_item']:.0f}", "last reward": _last(runs[name])}
        for name, arm in arms.items()
    ]  # fmt: skip
    accuracy = ", ".join(f"{name} {points(*read[name])} points" for name in list(read)[len(EARNED) :])
    return Finding(
        decided(read, right, earned["items"], study.seed),
        f"nats a token of the answer that thoughts earn {_nats(read['gain'])}, beyond filler "
        f"{_nats(read[NULLS[2]])}, beyond another question's thought {_nats(read[NULLS[0]])}; {accuracy}",
        table, found.figure,
        [f"Trained on {', '.join(handle.options['found']['examples'])}; no grader was asked.",
         f"{earned['items']} thoughts of the base were read; what is left of the gain when the answer's string is "
         f"masked in them, less filler: {_nats(_pair(earned['left when masked']))}.", *found.notes],
        {name: {"value": v, "interval": i.pair} for name, (v, i) in read.items()}, list(runs.values()),
    )  # fmt: skip


class Filler:
    """The reward of the control: what filler brings, as long as each thought."""

    def __call__(self, rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        filler = list(context.tokenizer(FILLER, add_special_tokens=False)["input_ids"])
        said = [as_long(filler, len(one.chain_of_thought)) for one in rollouts]
        with context.reference() as lm:
            return list(gains(lm, context.tokenizer, context.prompt, [one.item for one in rollouts], said))


def _control(study: Study, handle: Elicited) -> Elicited:
    """The same training on the gain of filler."""
    items = {item.id: item for item in study.task().solved}
    some = Items(study.task(), tuple(items[name] for name in handle.options["found"]["examples"]))
    settings = Settings(**{**handle.options["settings"], "reward": CONTROL})
    folder = study.runs / "claims" / f"{CONTROL}-{digest([handle.options['found']['folder'], settings.reward])}"
    study.log(f"{CONTROL}: training")
    made = train(
        study.model, some, settings, folder, prompt=Prompt(), rewards={CONTROL: Filler()}, checked=False,
        on_step=lambda curve: study.progress.training(
            CONTROL, len(curve), settings.updates, f"reward {curve[-1].reward:.2f}"
        ),
    )  # fmt: skip
    kept = {"found": {"summary": {"last reward": made.curve[-1].reward}}}
    return replace(handle, method=CONTROL, adapter=made.adapter, options=kept)


def summarised(
    earned: Mapping[str, Any], found: Mapping[str, Float[np.ndarray, " items"]], *, seed: int = 0
) -> dict[str, tuple[float, Interval]]:
    """What the rule reads: of the reward in nats a token, and of accuracy.

    Args:
        earned: as `information_gain.summarised` gives it.
        found: scores of direct, of the trained and of its control.
        seed: of the bootstrap.
    """
    values = {"over direct": found[REWARD] - found["direct"], "over training on filler": found[REWARD] - found[CONTROL]}
    read = {"gain": _pair(earned["gain"]), **{null: _pair(earned["beyond"][null]) for null in EARNED[1:]}}
    return read | means(values, together=1, seed=seed)


def decided(read: Read, right: Mapping[str, Float[np.ndarray, " items"]], thoughts: int, seed: int = 0) -> Judgement:
    """The conditions; `right`: the scores of `summarised`, `thoughts`: how many were read."""
    said = dict(zip(EARNED, ("thoughts earn", "beyond filler", "beyond another question's thought"), strict=True))
    return Judgement(
        (
            *(Condition(said[name], *read[name], unit="nats") for name in EARNED),
            lead("over direct", right[REWARD], right["direct"], seed=seed),
            lead("over training on filler", right[REWARD], right[CONTROL], seed=seed),
        ),
        tuple(few(thoughts, "thoughts that were read")),
    )


def _pair(one: Mapping[str, float]) -> tuple[float, Interval]:
    return one["mean"], Interval(one["low"], one["high"])


def _nats(read: tuple[float, Interval]) -> str:
    return f"{read[0]:.2f} [{read[1].low:.2f}, {read[1].high:.2f}]"


def _last(run: Run) -> str:
    found = run.metrics["options"].get("found")
    return "–" if found is None else f"{found['summary']['last reward']:.2f}"
