"""The door to decoding: a batch of prompts with all that is done to each goes in, generations come out.

An *engine* stands behind the door. It says by name what it can do, and the door refuses the rest. `hf`, the loop of
this suite on a model of `transformers`, is the reference: it can do everything, and the others are held to its texts.
How to add one stands in `elicit/decoding/README.md`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elicit.decoding.decoders import Decoder, Forced, Hybrid, decoder_name
from elicit.decoding.decoders.partner import HybridSteering
from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Generation, Listener, OnStep, Policy, StopRule
from elicit.decoding.mixing import Mixing
from elicit.decoding.thought import ANSWER, Budgeted, Forcing
from elicit.decoding.trunk import Trunk
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.models.thoughts import token_of
from elicit.tasks.statements import THOUGHTS
from probes.errors import UserError, unknown
from steering.adapters import Tuned
from steering.backends import Claims, Rows
from steering.delivery import Delivery
from steering.interventions import Add, Plan, ProjectOut

STATISTICS = ("top2", "entropy", "logprob", "moved")
UNSTEERED: tuple[tuple[str, Plan], ...] = (("", ()),)


@dataclass(frozen=True)
class Batch:
    """Prompts that are decoded together by one decoder; each belongs to an arm, whose plan it follows.

    Args:
        prompts: token ids of each, ragged.
        rng_streams: for each prompt where its random numbers come from, or the id of its item, which with the decoder's
            own seed says so.
        decoder: chooses the tokens.
        stop: where an answer ends.
        arms: a name and a plan each.
        arm_of: for each prompt the number of its arm; None: all follow the first.
        lengths: of the question in each prompt, where prompts hold the beginning of an answer as well. Steps of
            interventions are counted from there, and so is the budget of its thoughts. None: all of a prompt is
            question.
        adapter: on the model while it decodes.
        partner: of hybrid decoding, and of no other.
        mixing: of quiet decoding, and of no other.
        partner_prompts: of a partner with a prompt of its own: token ids of each, as it is asked.
        needs: those of `STATISTICS` without which the caller can do nothing with the generations.
        budgets: of each prompt the tokens that its branches may spend, in their order. Who asks for it keeps no branch
            that spends more with those before it; an engine may end such a branch, or decode it whole.
        trunk: texts that prompts share the beginnings of. An engine may compute those once; the answers are the same.
        listeners: who waits for the answer to each prompt. An engine tells them what it writes as soon as it can; it
            may end the branches of those that are gone, or decode them whole.
        questions: of each prompt the question in it and how it was put, for decoders that put it again.
        rows_at_once: the most branches in flight, of an engine that refills (`Engine.rounds`); None: as it likes.
    """

    prompts: Sequence[Sequence[int]]
    rng_streams: Sequence[RngStream | str]
    decoder: Decoder
    stop: StopRule
    arms: Sequence[tuple[str, Plan]] = UNSTEERED
    arm_of: Sequence[int] | None = None
    lengths: Sequence[int] | None = None
    adapter: Tuned | None = None
    partner: HybridSteering | None = None
    partner_prompts: Sequence[Sequence[int]] | None = None
    mixing: Mixing | None = None
    needs: frozenset[str] = frozenset()
    rows_at_once: int | None = None
    budgets: Sequence[int] | None = None
    listeners: Sequence[Listener] | None = None
    questions: Sequence[tuple[str, Prompt]] | None = None
    trunk: Trunk | None = None

    @property
    def plans(self) -> list[Plan]:
        """Of each arm."""
        return [plan for _, plan in self.arms]

    @property
    def steered(self) -> bool:
        """Whether any arm's plan does anything."""
        return any(self.plans)

    @property
    def rows(self) -> Rows:
        """What is asked of a backend: a row a prompt."""
        return Rows(self.prompts, self.plans, self.arm_of, self.lengths)

    def policy(self, model: Model) -> Policy:
        """What chooses the tokens of these prompts."""
        if self.partner is None:
            policy = self.decoder.policy(self.rng_streams, model.choices)
            if isinstance(self.decoder, Forced):
                return self._forced(model, policy, self.decoder)
            if not self.stop.thought_tokens:
                return policy
            assert self.stop.tokenizer is not None
            branches, budget = self.decoder.branches, self.stop.thought_tokens
            return Budgeted(policy, self.prompts, branches, self.stop.tokenizer, budget, lengths=self.lengths)
        if self.stop.thought_tokens:
            raise UserError("thought_tokens was given with hybrid decoding, which ends no thoughts; leave it out")
        assert isinstance(self.decoder, Hybrid)
        return self.decoder.joint(model, self.partner, self.rng_streams, self.partner_prompts)

    def _forced(self, model: Model, policy: Policy, decoder: Forced) -> Policy:
        """A policy whose thoughts end as budget forcing says."""
        if self.stop.thought_tokens:
            raise UserError("a prompt with thought_tokens was given to budget forcing, which has its own; leave it out")
        ends = dict.fromkeys((begin for begin, _ in THOUGHTS), self.stop.eos_ids)
        for begin, mark in THOUGHTS:
            if (end := token_of(model.tokenizer, mark)) is not None:
                ends[begin] |= {end}
        forcing = Forcing(
            decoder.waits, decoder.word, decoder.final, {**ends, ANSWER: self.stop.eos_ids}, decoder.whole
        )
        budget, lengths = decoder.thought_tokens, self.lengths
        return Budgeted(policy, self.prompts, 1, model.tokenizer, budget, forcing, lengths)


@dataclass(frozen=True)
class Can:
    """What an engine can do; everything else is refused before it is asked.

    Args:
        decoders: names of `elicit.decoding.decoders.DECODERS`.
        statistics: those of `STATISTICS` that it keeps of each token. The others' arrays are left empty: `top1` and
            `top2` of "top2", and those of their own names.
        interventions: kinds of what, when and where, and whether rows may follow different plans; None: no plans.
        adapters: whether it puts one on.
        training: whether it sees weights that change after it was made.
    """

    decoders: frozenset[str] = frozenset({"greedy"})
    statistics: frozenset[str] = frozenset()
    interventions: Claims | None = None
    adapters: bool = False
    training: bool = False


class EngineDied(UserError):
    """Processes that an engine decodes in have ended by themselves. It is closed; the next batch starts others."""


class Engine(ABC):
    """What decodes a batch. One is made for a model when that is first decoded, and kept as long as the model.

    Args:
        model: with its weights, tokenizer, end tokens and device.

    Attributes:
        name: by which it is asked for.
        can: what it can do.
        options: what it may be told (`load_model(…, engine_options=…)`), each with its default.
        rounds: how many times the rows that an evaluation decodes together it is given at once; one that fills the
            place of rows that ended with the next questions is given several.
        notes: what it did otherwise than it was asked, each once; a run keeps them.
    """

    name: str
    can: Can
    options: Mapping[str, Any] = {}
    rounds: int = 1

    def __init__(self, model: Model) -> None:
        self.model = model
        self.notes: list[str] = []

    def note(self, told: str) -> None:
        """Tell once what is done otherwise than it was asked."""
        if told not in self.notes:
            self.notes.append(told)

    @property
    def how(self) -> str:
        """Which of several ways it decodes this model, for the record of a run; "" where there is one."""
        return ""

    @abstractmethod
    def decode(self, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
        """For each prompt its branches, in the decoder's order.

        Args:
            batch: asks for nothing that the engine does not claim.
            on_step: called after every step, with its number and the rows that are still open; an engine that cannot
                say need not call it.

        Raises:
            EngineDied: its processes did.
        """

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """End what it holds besides the model; it begins again when something is decoded."""


ENGINES: dict[str, str | type[Engine]] = {
    "hf": "elicit.decoding.engines.hf:HuggingFaceEngine",
    "int8": "elicit.decoding.engines.int8:Int8Engine",
    "graph": "elicit.decoding.engines.graph:GraphEngine",
    "transformer-lens": "elicit.decoding.engines.lens:TransformerLensEngine",
    "nnsight": "elicit.decoding.engines.nnsight:NNsightEngine",
    "nnsight-remote": "elicit.decoding.engines.nnsight:RemoteEngine",
    "vllm": "elicit.decoding.engines.vllm:VLLMEngine",
}
"""Name → class, or where it lies as `module:Class`; that is imported when a model asks for it."""


def register_engine(name: str, engine: str | type[Engine]) -> None:
    """Add an engine under a name, for `load_model(…, engine=name)`.

    Raises:
        UserError: the name is taken.
    """
    if name in ENGINES:
        raise UserError(f"an engine named {name!r} is registered already; give another name")
    ENGINES[name] = engine


def check_engine(name: str) -> None:
    """Refuse a name that no engine has; one that is written `module:Class` is looked for when it is first used.

    Raises:
        UserError: an unknown name.
    """
    if name not in ENGINES and ":" not in name:
        raise unknown("engine", name, ENGINES, hint="(or module:Class, of one's own)")


def check_engine_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that an engine does not take.

    Raises:
        UserError: an unknown name, a value of another type.
    """
    known = _class_of(name).options if options else {}
    for key, value in options.items():
        if key not in known:
            raise unknown(f"option of the {name} engine", key, known, hint="" if known else "(it takes none)")
        kind = type(known[key])
        if not isinstance(value, int | float if kind is float else kind) or isinstance(value, bool) != (kind is bool):
            raise UserError(f"{key} = {value!r} was given to the {name} engine; give a value like {known[key]!r}")


def engine_of(model: Model) -> Engine:
    """The engine that decodes this model, made when it is first asked for.

    Raises:
        UserError: an unknown name, a class that cannot be imported or is no engine; what the engine refuses.
    """
    kept: dict[str, Engine] = model.kept
    if "engine" not in kept:
        engine = _class_of(model.engine)
        check_engine_options(model.engine, model.engine_options)
        kept["engine"] = engine(model)
    return kept["engine"]


def _class_of(name: str) -> type[Engine]:
    check_engine(name)
    home = ENGINES.get(name, name)
    if not isinstance(home, str):
        return home
    module, _, cls = home.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError) as error:
        raise UserError(f"engine {home!r} cannot be imported ({error}); give module:Class of one that can") from error
    if not (isinstance(found, type) and issubclass(found, Engine)):
        raise UserError(f"{home!r} is no engine; give a subclass of elicit.decoding.engine.Engine")
    return found


def decode_batch(model: Model, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
    """Decode a batch by the model's engine.

    Returns:
        For each prompt its branches.

    Raises:
        UserError: something that the engine does not claim; a plan that should have moved every prompt moved none.
        NotFiniteError: logits that are NaN or infinite, with the arm's name.
    """
    engine = engine_of(model)
    _check(engine, batch)
    return engine.decode(batch, on_step)


def check_training(model: Model, *, adapter: bool = False) -> None:
    """Refuse to train a model whose engine would continue with the weights as they were.

    Args:
        adapter: an adapter alone is trained, and handed to engines that can put one on.

    Raises:
        UserError: it would.
    """
    engine = _class_of(model.engine)
    if not engine.can.training and not (adapter and engine.can.adapters):
        raise UserError(f"the {engine.name} engine does not see weights that are trained; train with the hf engine")


def _check(engine: Engine, batch: Batch) -> None:
    """Refuse by name what an engine does not claim."""
    can, decoder = engine.can, decoder_name(batch.decoder)
    lacks = ""
    if decoder not in can.decoders:
        lacks = f"do {decoder} decoding; it does {', '.join(sorted(can.decoders))}"
    elif missing := sorted(batch.needs - can.statistics):
        lacks = f"keep the statistics {', '.join(missing)}; it keeps {', '.join(sorted(can.statistics)) or 'none'}"
    elif batch.adapter is not None and not can.adapters:
        lacks = "put an adapter on"
    elif batch.steered and can.interventions is None:
        lacks = "carry interventions"
    elif batch.steered and can.interventions is not None:
        lacks = can.interventions.lacking(batch.rows)
    if lacks:
        raise UserError(f"the {engine.name} engine cannot {lacks}; use the hf engine")


def check_delivery(batch: Batch, deliveries: Sequence[Delivery]) -> None:
    """Refuse a batch whose plans did nothing, or made numbers that are not finite; for engines that carry them.

    Args:
        batch: that was decoded.
        deliveries: what was done by the plan of each arm.

    Raises:
        UserError: a plan that should have moved every prompt moved none; one that made NaN or infinity.
    """
    followed = {0} if batch.arm_of is None else set(batch.arm_of)
    for number, (plan, delivery) in enumerate(zip(batch.plans, deliveries, strict=True)):
        # These move every row. A feature that is silent leaves nothing to scale: of that one batch says nothing.
        sure = any(one.when.unconditional and isinstance(one.what, Add | ProjectOut) for one in plan)
        if plan and number in followed and (delivery.not_finite or (sure and not delivery.positions)):
            delivery.check(named(plan))


def named(plan: Plan) -> str:
    """A plan in a message."""
    return "the intervention " + " + ".join(f"{one.describe()['source']} × {one.strength:g}" for one in plan)
