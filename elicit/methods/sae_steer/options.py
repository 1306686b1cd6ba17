"""The options of a search for one feature, and the strengths that they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elicit.evaluation.side_effects import plain_texts
from elicit.methods.sae_steer.causal_filter import CHANGES, FINDS, Candidate
from elicit.models.model import Model
from probes.errors import UserError, unknown
from probes.sae.scores import REASONING_WORDS
from steering.interventions import UNITS, When
from steering.strength import at_kl, parse_budgets


@dataclass(frozen=True)
class Search:
    """The options of a search; `elicit.methods.sae_steer.fit` says what they mean."""

    sae: str
    feature: int
    find: str
    instruction: str
    words: str
    candidates: int
    strengths: str
    unit: str
    change: str
    when: str
    dev: int
    read: int
    step: int
    checked: bool
    max_new_tokens: int
    seed: int
    kl: str = ""

    def __post_init__(self) -> None:
        if min(self.candidates, self.dev, self.read) < 1 or self.step not in (0, 1):
            raise UserError(
                f"candidates {self.candidates}, dev {self.dev}, read {self.read}, step {self.step} were given; give at "
                "least 1 of each, and step 0 or 1"
            )
        for what, given, known in (
            ("way to find a feature", self.find, FINDS),
            ("change", self.change, CHANGES),
            ("unit of strength", self.unit, UNITS),
        ):
            if given not in known:
                raise unknown(what, given, known)
        self.numbers(), self.whens()
        if self.budgets() and self.change == "scale":
            raise UserError("kl and change=scale were given; a feature that is silent cannot be scaled: add or set it")

    def numbers(self) -> list[float]:
        try:
            out = [float(part) for part in self.strengths.split(",")]
        except ValueError as error:
            raise UserError(f"strengths {self.strengths!r} were given; give numbers like 1,2,4") from error
        if 0 in out or len({f"{x:g}" for x in out}) < len(out):
            raise UserError(f"strengths {self.strengths!r} were given; give distinct ones, without 0")
        return out

    def budgets(self) -> list[float]:
        """KL in nats that strengths are sought for; none where the strengths are given."""
        return parse_budgets(self.kl)

    def strengths_of(self, one: Candidate, model: Model) -> dict[float, float | None]:
        """The strengths at which a candidate is tried, each with its budget of KL, if there is one."""
        if not self.budgets():
            return dict.fromkeys(self.numbers())
        plan = (one.intervention(1.0, unit=self.unit, change=self.change, when=When.everywhere()),)
        texts = plain_texts(model)
        return {at_kl(model.lm, plan, nats, texts)[0].strength: nats for nats in self.budgets()}

    def whens(self) -> list[str]:
        out = [part.strip() for part in self.when.split(",")]
        for one in out:
            When.parse(one)
        if len(set(out)) < len(out):
            raise UserError(f"when = {self.when!r} was given; give each time once")
        return out

    def vocabulary(self) -> Sequence[str]:
        return [w.strip() for w in self.words.split(",") if w.strip()] or REASONING_WORDS
