"""The verdicts of claims that are read from runs come out both ways: on planted effects, and where there is nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elicit.decoding import Branching, Greedy, Sampling, Trace
from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.models import Model
from elicit.tasks.base import Items
from elicit.training.organisms import variants as organisms
from experiments.claims import decoding, distribution, formats, one_feature, reflection, vectors_and_gate, when_not_how
from experiments.claims.base import Finding, claim, study_of
from experiments.claims.reading import Lead
from experiments.claims.record import measured
from experiments.claims.rules import CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE, UNDECIDED, VERDICTS
from probes.statistics import Interval
from tests.support.planted import answer, planted, questions, samples

SIZE = 48
CLEAN, FALSE = (Lead("direct on the twin", low + 0.05, Interval(low, low + 0.1)) for low in (-0.05, 0.2))
UNSURE = Lead("direct on the twin", 0.05, Interval(-0.1, 0.2))
THOUGHT = "First we look at all of it, and then we have {}."


@pytest.fixture
def plant(tiny: Model, tmp_path: Path) -> Callable[..., Run]:
    """A run whose arms are right on the first so many of the questions, or say what is given."""
    made: list[Run] = []

    def run(
        arms: Mapping[str, Any], items: Items | None = None, decoders: Mapping[str, Any] | None = None, **more: Any
    ) -> Run:
        asked = questions(SIZE) if items is None else items
        put: dict[str, tuple[Elicited, Mapping[str, Sequence[Trace]]]] = {}
        for name, what in arms.items():
            decoder = (decoders or {}).get(name, Greedy())
            select = {Branching: "max", Sampling: "vote"}.get(type(decoder), "greedy")
            said = {i.id: [answer(i, n < what, **more)] for n, i in enumerate(asked)} if isinstance(what, int) else what
            put[name] = Elicited(tiny, "planted", decoder=decoder, select=select), said
        made.append(planted(tmp_path / f"run{len(made)}", asked, put))
        return made[-1]

    return run


def shown(finding: Finding) -> str:
    """The verdict, of a finding that can be kept: with a line, a table of equal columns and a figure with a null."""
    assert finding.line and len({tuple(row) for row in finding.table}) == 1
    assert any("null" in str(trace.name) for trace in finding.figure.data)
    return finding.verdict


TRANSFER = {
    "vector-transfer": 44, "direct": 4, "thinking model": 46, "random categories": 20, "random positions": 6,
    "as many tokens substituted": 12, "random candidates": 22,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "twin", "verdict"),
    [
        ({}, CLEAN, CONFIRMED),
        ({"vector-transfer": 30, "random categories": 30}, CLEAN, NOT_CONFIRMED),
        ({"vector-transfer": 30, "random positions": 30}, CLEAN, NOT_CONFIRMED),
        ({"as many tokens substituted": 45}, CLEAN, NOT_TESTABLE),  # so good that nothing could lead it,
        ({"vector-transfer": 18, "random categories": 6}, CLEAN, NOT_CONFIRMED),
        ({}, FALSE, NOT_CONFIRMED),
        ({}, UNSURE, UNDECIDED),  # so wide an interval holds what would speak against it
        ({"random categories": 39}, CLEAN, UNDECIDED),
        ({"thinking model": 5}, CLEAN, NOT_TESTABLE),
    ],
)
def test_vectors_and_gate(plant: Callable[..., Run], changed: dict[str, int], twin: Lead, verdict: str) -> None:
    finding = vectors_and_gate.found(plant(TRANSFER | changed), twin)
    assert shown(finding) == verdict
    if verdict == CONFIRMED:
        assert "over random categories, the best rival" in finding.line
        recovered = {row["arm"]: row["gap recovered [95%]"] for row in finding.table}
        assert recovered["direct"] == "0.00 [0.00, 0.00]" and recovered["thinking model"] == "1.00 [1.00, 1.00]"


def test_other_vectors_stand_beside_those_that_decide(plant: Callable[..., Run]) -> None:
    by_kind = {
        kind: vectors_and_gate.found(plant(TRANSFER | changed), CLEAN)
        for kind, changed in {"optimised": {}, "means": {"random categories": 39}}.items()
    }
    both = vectors_and_gate.together(by_kind)
    assert shown(both) == CONFIRMED and both.judged == by_kind["optimised"].judged and len(both.runs) == 2
    assert [row["vectors"] for row in both.table] == ["optimised"] * len(TRANSFER) + ["means"] * len(TRANSFER)
    assert both.notes[-1].startswith("With vectors `means`, which decide nothing here: undecided (open: over random ")


def branches(items: Items, right: int, sure: bool) -> dict[str, list[Trace]]:
    """Five branches a question, `right` of them right thoughts, which Δ tells from the bare answers, or does not."""
    rng = np.random.default_rng(0)
    out = {}
    for item in items:
        out[item.id] = [
            answer(item, n < right, THOUGHT if n < right else "{}", n, 0.9 - 0.1 * n if sure else rng.uniform())
            for n in range(5)
        ]
    return out


@pytest.mark.parametrize(
    ("right", "sure", "budget", "twin", "verdict"),
    [
        (1, True, 8, CLEAN, CONFIRMED),  # the vote follows the four that are wrong
        (4, True, 8, CLEAN, NOT_TESTABLE),  # the vote is always right
        (3, False, 8, CLEAN, NOT_CONFIRMED),  # and better
        (1, True, 48, CLEAN, NOT_TESTABLE),  # as many tokens are always right
        (1, True, 8, FALSE, NOT_CONFIRMED),
    ],
)
def test_decoding(plant: Callable[..., Run], right: int, sure: bool, budget: int, twin: Lead, verdict: str) -> None:
    arms = {"cot-decoding": branches(questions(SIZE), right, sure), "direct": 4, "direct@budget": budget}
    finding = decoding.found(plant(arms, decoders={"cot-decoding": Branching(5)}), twin)
    assert shown(finding) == verdict
    if right == 1:
        assert finding.data["thoughts"] == [1.0, 0.2]


FEATURE = {
    "sae-steer": 45, "direct": 4, "cot-prompt": 45, "random feature 7": 8, "difference of means": 10, "begins 'To'": 6,
    "sign flipped": 45,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "told", "twin", "verdict"),
    [
        ({}, 0, CLEAN, CONFIRMED),
        ({"sae-steer": 36, "cot-prompt": 36, "begins 'To'": 36}, 0, CLEAN, NOT_CONFIRMED),
        ({"sae-steer": 36, "cot-prompt": 36, "difference of means": 35}, 0, CLEAN, NOT_CONFIRMED),
        ({"random feature 7": 46}, 0, CLEAN, NOT_TESTABLE),
        ({"sae-steer": 30}, 0, CLEAN, NOT_CONFIRMED),  # less than chain-of-thought
        ({}, 40, CLEAN, NOT_CONFIRMED),  # the push does nothing against the prompt
        ({}, 0, FALSE, NOT_CONFIRMED),
    ],
)
def test_one_feature(plant: Callable[..., Run], changed: dict[str, int], told: int, twin: Lead, verdict: str) -> None:
    against = plant({"sae-steer": 40, "at-once": told})
    finding = one_feature.found(plant(FEATURE | changed), against, twin, 0.1)
    assert shown(finding) == verdict and finding.table[-1]["arm"] == "told to answer at once"


def drawn(items: Items, share: float, seed: int) -> dict[str, list[Trace]]:
    """Eight samples a question, so many of them right thoughts and the others wrong bare answers."""
    rng = np.random.default_rng(seed)
    out = {}
    for item in items:
        thinks = rng.random(8) < share
        out[item.id] = [answer(item, bool(t), THOUGHT if t else "{}", n) for n, t in enumerate(thinks)]
    return out


@pytest.mark.parametrize(
    ("base", "trained", "verdict"),
    [
        (0.2, 0.95, CONFIRMED),
        (0.2, 0.2, NOT_CONFIRMED),
        (0.2, 0.45, NOT_CONFIRMED),  # it rises, and the others live
        (0.0, 0.95, UNDECIDED),  # the base is not seen to have it
        (0.0, 0.0, NOT_TESTABLE),
    ],
)
def test_formats(plant: Callable[..., Run], base: float, trained: float, verdict: str) -> None:
    decoders = dict.fromkeys(("one-shot-rlvr", "direct"), Sampling(8, 1.0))
    items = questions(SIZE)
    arms = {"one-shot-rlvr": drawn(items, trained, 1), "direct": drawn(items, base, 2)}
    finding = formats.found(plant(arms, decoders=decoders))
    assert shown(finding) == verdict
    if verdict == CONFIRMED:
        assert finding.data["winner"] == "prose" and finding.data["wordings"]["direct"][0] == 1.0


def reflecting(rate: float, gain: float, seed: int = 0) -> reflection.Samples:
    """Sixteen samples of each question; the right ones are 0.3 of all, and so many more of those that reflect."""
    rng = np.random.default_rng(seed)
    some = rng.random(SIZE * 16) < rate
    right = rng.random(len(some)) < 0.3 + gain * some
    return reflection.Samples(np.repeat(np.arange(SIZE), 16), some, right, some | (rng.random(len(some)) < 0.2))


@pytest.mark.parametrize(
    ("samples_", "known", "verdict"),
    [
        (reflecting(0.1, 0.5), reflecting(0.1, 0.5), CONFIRMED),
        (reflecting(0.1, 0.0, 3), reflecting(0.1, 0.5), UNDECIDED),  # no more often right, as far as they tell
        (reflecting(0.1, -0.3), reflecting(0.1, 0.5), NOT_CONFIRMED),
        (reflecting(0.8, 0.5), reflecting(0.1, 0.5), NOT_CONFIRMED),  # not seldom
        (reflecting(0.0, 0.0), reflecting(0.1, 0.5), NOT_TESTABLE),  # never: no stronger verdict than seldom
        (reflecting(0.1, 0.5), reflecting(0.0, 0.0), NOT_TESTABLE),  # the measure is blind
    ],
)
def test_reflection(samples_: reflection.Samples, known: reflection.Samples, verdict: str) -> None:
    steered = reflecting(0.6, 0.5)
    finding = reflection.found({"words": samples_}, {"organism": known, "steered": steered})
    assert shown(finding) == verdict
    assert any(note.startswith("steered against") and "points" in note for note in finding.notes)
    blind = known.reflecting.sum() == 0
    assert reflection.found({"words": samples_}, {}).verdict == (CONFIRMED if blind else verdict)


def test_reflection_in_few_questions_is_not_testable() -> None:
    some = np.zeros((SIZE, 16), dtype=bool)
    some[:3] = [True, *[False] * 15]
    some[3:12] = True  # whole questions reflect: there is nothing to compare within them
    few = reflection.Samples(np.repeat(np.arange(SIZE), 16), some.ravel(), some.ravel(), some.ravel())
    assert reflection.found({"words": few}, {}).verdict == NOT_TESTABLE


@pytest.mark.parametrize("family", ["sums", "modular", "countdown", "graph"])
def test_going_back_is_told_as_the_solver_did_it(family: str) -> None:
    agreed = []
    for n in range(100):
        rng = np.random.default_rng([n])
        problem = organisms.draw_from("test", family, rng)
        thought = organisms.think("thinking", problem, rng, "all")
        truth = any(s.behaviour in ("check", "backtrack") for s in thought.sentences)
        agreed.append(reflection.goes_back(thought.text) == truth)
    assert np.mean(agreed) >= 0.97


@pytest.mark.parametrize(
    ("away", "verdict"),
    [
        ({"length": (10, 4), "task": (8, 4), "format": (10, 4)}, CONFIRMED),
        ({"length": (48, 4), "task": (8, 4), "format": (10, 4)}, NOT_CONFIRMED),  # accuracy holds
        ({"length": (10, 4), "task": (44, 44), "format": (10, 4)}, UNDECIDED),  # so do thoughts: questions are easy
        ({"length": (10, 4), "task": (8, 4), "format": (44, 4)}, NOT_CONFIRMED),
    ],
)
def test_distribution(plant: Callable[..., Run], away: dict[str, tuple[int, int]], verdict: str) -> None:
    home = plant({"cot-prompt": 45, "direct": 4})
    shifts = []
    for n, (axis, (thinks, at_once)) in enumerate(away.items()):
        items = None if axis == "format" else questions(SIZE, 100 * (n + 1))
        run = plant({"cot-prompt": thinks, "direct": at_once}, items)
        shifts += [distribution.Shift(axis, "near", home), distribution.Shift(axis, "far", run)]
    finding = distribution.found(home, [s for s in shifts if s.what == "far" or s.axis == "format"])
    assert shown(finding) == verdict
    assert len(finding.judged.conditions) == 6


def routed(plant: Callable[..., Run], sure: bool, first: int) -> Run:
    """Short answers are right on every second question, and surest there, or as sure everywhere."""
    items = questions(SIZE, first)
    rng = np.random.default_rng(first)
    short = {
        item.id: [answer(item, n % 2 == 0, delta=0.9 - 0.8 * (n % 2) if sure else rng.uniform())]
        for n, item in enumerate(items)
    }
    long = {item.id: [answer(item, True, THOUGHT, size=30)] for item in items}
    return plant({"cot-prompt": long, "direct": short}, items)


@pytest.mark.parametrize(
    ("changed", "sure", "verdict"),
    [
        ({}, True, CONFIRMED),
        ({}, False, NOT_CONFIRMED),  # a random gate does as well
        ({"vector-transfer": 30, "random positions": 30}, True, NOT_CONFIRMED),
        ({"random candidates": 45}, True, NOT_TESTABLE),
        ({"vector-transfer": 16}, True, NOT_CONFIRMED),
        ({"thinking model": 4}, True, NOT_TESTABLE),
    ],
)
def test_when_not_how(plant: Callable[..., Run], changed: dict[str, int], sure: bool, verdict: str) -> None:
    finding = when_not_how.found(plant(TRANSFER | changed), [routed(plant, sure, n) for n in (1000, 2000)], 0.1)
    assert shown(finding) == verdict
    (gate,) = [one for one in finding.judged.conditions if one.name == "the gate against a random one"]
    assert (gate.outcome == "holds") == sure


@pytest.mark.parametrize("name", ["decoding", "distribution", "reflection"])
def test_what_needs_no_fit_runs_on_any_model(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model": str(tiny_folder), "limit": 8, "max_new_tokens": 6}
    changes |= {
        "decoding": {"twin": ""},
        "distribution": {"lengths": "6"},
        "reflection": {"organism": "", "samples": 2, "sampled_tokens": 6, "limit": 4},
    }[name]
    told: list[str] = []
    record = measured(study_of(claim(name), changes=changes, runs=tmp_path, log=told.append))
    record.write(tmp_path / "found")
    assert record.verdict in ((NOT_TESTABLE,) if name == "distribution" else VERDICTS[1:]), record.line
    assert f"**{record.verdict}**" in (tmp_path / "found" / "README.md").read_text()
    again = measured(study_of(claim(name), changes=changes, runs=tmp_path))
    assert (again.line, again.table, again.data) == (record.line, record.table, record.data)


def test_samples_of_a_run_are_told_apart(plant: Callable[..., Run]) -> None:
    from elicit.evaluation.run.arms import arms_of

    items = questions(6)
    said = {item.id: samples(item, [True, False]) for item in items}
    said["q0"][0] = answer(items[0], True, "Wait, let me check again: we really have {} of them.")
    (arm,) = arms_of([plant({"direct": said}, items, {"direct": Sampling(2, 1.0)})])
    found = reflection.Samples.of(arm, lambda text: "check again" in text)
    assert found.reflecting.sum() == 1 and found.right.sum() == 6 and found.thought.sum() == 1
    assert len(found.thoughts().question) == 1 and found.by_question()[0] == 0.5
