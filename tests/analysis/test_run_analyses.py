"""Analyses of runs as a user calls them: on planted runs, on real runs of a tiny model, and on what cannot be done."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import elicit
from elicit.analysis import ANALYSES, analyse
from elicit.analysis.behaviour.convergence import ease_of
from elicit.analysis.behaviour.routing import SIGNALS
from elicit.decoding import Branching, Greedy, Sampling, Trace
from elicit.decoding.decoders import Power, Tools
from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.evaluation.run.arms import arms_of
from elicit.models import Model, Prompt
from elicit.tasks.base import Items
from probes.errors import UserError
from probes.sites import Site, width
from steering.directions import Direction
from steering.interventions import Add, Intervention, When
from tests.support.planted import answer, planted, questions, samples
from tests.support.shell import shell
from tests.support.toys import toy_task
from tests.support.unsealed import unsealed

NAMES = ("pass-at-k", "convergence", "correction-harm", "format-share", "reflection", "routing", "distribution-shift")
Right = Callable[[int], bool]
THOUGHT = "First I look at it, then I double-check the number, which is {}."


def handle(model: Model, decoder: Any = None, select: str = "greedy", **more: Any) -> Elicited:
    return Elicited(model, "planted", decoder=decoder or Greedy(), select=select, **more)


def one(items: Items, right: Right, **more: Any) -> dict[str, list[Trace]]:
    return {item.id: [answer(item, right(n), **more)] for n, item in enumerate(items)}


def many(items: Items, p: Sequence[float], n: int, seed: int, **more: Any) -> dict[str, list[Trace]]:
    rng = np.random.default_rng(seed)
    return {item.id: samples(item, list(rng.random(n) < q), **more) for item, q in zip(items, p, strict=True)}


def run_of(folder: Path, model: Model, items: Items, name: str = "cot-prompt", seed: int = 0) -> Run:
    """Short answers right on every fourth question, long ones where a hidden ease allows, and samples of both."""
    ease = np.random.default_rng(99).random(len(items))
    rng = np.random.default_rng(seed)
    long = rng.random(len(items)) < ease
    sampled = Sampling(8, 0.7)
    arms = {
        name: (handle(model), one(items, lambda n: bool(long[n]), text=THOUGHT, size=12)),
        "direct": (handle(model), {
            item.id: [answer(item, n % 4 == 0, delta=0.9 if n % 4 == 0 else 0.1)] for n, item in enumerate(items)
        }),
        "self-consistency": (handle(model, sampled, "vote"), many(items, list(ease * 0.5), 8, 1)),
        f"{name} sampled": (
            handle(model, replace(sampled, seed=seed), "vote", prompt=Prompt().thinking()),
            many(items, [0.95 if n % 2 == 0 else 0.0 for n in range(len(items))], 8, 2 + seed, text=THOUGHT),
        ),
        "cot-decoding": (handle(model, Branching(3), "max"), many(items, list(ease), 3, 3)),
    }  # fmt: skip
    return planted(folder, items, arms)


@pytest.fixture(scope="module")
def runs(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder, items = tmp_path_factory.mktemp("runs"), questions(48)
    return [run_of(folder / name, tiny, items, name, seed) for seed, name in enumerate(("cot-prompt", "steered"), 5)]


def table(result: Any, key: str) -> dict[str, Any]:
    return {row[key]: row for row in result.table}


@pytest.mark.parametrize("name", [n for n in NAMES if n != "distribution-shift"])
def test_each_writes_a_page_and_strict_json(
    name: str, runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown, err = shell("analyse", name, *(str(run.folder) for run in runs), "--json")
    assert code == 0, err
    saved = json.loads(shown)
    assert saved["analysis"] == name and len(saved["notes"]) == 3 and "Null" in saved["notes"][1] and saved["data"]
    assert len({tuple(row) for row in saved["table"]}) == 1  # all rows have the same columns
    page = (Path(saved["folder"]) / f"{name}.html").read_text()
    assert "Plotly.react" in page and "<script src=" not in page


def test_registered() -> None:
    assert {*NAMES, "where-it-acts"} <= set(ANALYSES)


def test_pass_at_k_takes_independent_samples_alone(runs: list[Run]) -> None:
    result = analyse("pass-at-k", runs)
    rows = table(result, "arm")
    assert result.data["base"] == "self-consistency"
    assert rows["cot-prompt sampled"]["reading"].startswith("the base overtakes at k = ")
    assert "branches of a search" in rows["cot-decoding"]["reading"]
    assert "greedy decoding gives one answer" in rows["direct"]["reading"]
    with pytest.raises(UserError, match="unknown sampled arm 'nothing'"):
        analyse("pass-at-k", runs, base="nothing")


def test_other_settings_are_no_pair(tiny: Model, tmp_path: Path) -> None:
    items = questions(6)
    arms = {
        "warm": (handle(tiny, Sampling(4, 1.0)), many(items, [0.5] * 6, 4, 0)),
        "cold": (handle(tiny, Sampling(4, 0.5)), many(items, [0.5] * 6, 4, 1)),
    }
    with pytest.raises(UserError, match=r"cold: sampled otherwise than the base \(temperature 0.5 against 1.0\)"):
        analyse("pass-at-k", [planted(tmp_path / "a", items, arms)])
    single = {"one": (handle(tiny, Sampling(1, 1.0)), many(items, [0.5] * 6, 1, 0))}
    with pytest.raises(UserError, match="one sample a question; draw at least two"):
        analyse("pass-at-k", [planted(tmp_path / "b", items, single)])


@pytest.mark.parametrize(("p", "said"), [(1.0, "all samples are right"), (0.0, "no sample is right")])
def test_all_right_and_all_wrong(tiny: Model, tmp_path: Path, p: float, said: str) -> None:
    items = questions(8)
    arms = {
        name: (handle(tiny, Sampling(4, 1.0, seed=n), "vote"), many(items, [p] * 8, 4, n))
        for n, name in enumerate(("steered", "direct"))
    }
    run = planted(tmp_path / "run", items, arms)
    assert said in analyse("pass-at-k", [run], base="direct").table[0]["reading"]
    assert analyse("correction-harm", [run]).table[0]["reading"] == "equal: no question changed sides"
    assert analyse("format-share", [run]).table[-2]["reading"] == "equal: nothing was gained or lost"
    assert analyse("reflection", [run]).table[0]["reading"] == "no sample reflects"
    assert {row["reading"] for row in analyse("routing", [run]).table} == {
        "equal: both arms are right on the same questions"
    }
    two = [run, planted(tmp_path / "other", items, {"tuned": arms["steered"], "direct": arms["direct"]})]
    if p:
        with pytest.raises(UserError, match="nothing can be newly solved"):
            analyse("convergence", two)
    else:
        assert analyse("convergence", two).table[0]["reading"] == "one of the two solves nothing new"


def test_empty_answers(tiny: Model, tmp_path: Path) -> None:
    items = questions(8)
    silent = {
        item.id: [replace(t, tokens=[], text="", answer=None, span=None, delta=None, score=0.0, entropy=[], logprob=[],
                          top1=[], top2=[], ends=[]) for t in (answer(item, False),)]
        for item in items
    }  # fmt: skip
    arms = {"steered": (handle(tiny), silent), "direct": (handle(tiny), silent)}
    run = planted(tmp_path / "run", items, arms)
    with pytest.raises(UserError, match="all answers of these runs are empty"):
        analyse("reflection", [run])
    assert table(analyse("format-share", [run]), "format")["empty"]["share after"] == "1.000"
    assert analyse("routing", [run]).table[0]["reading"].startswith("equal")


def test_churn_is_read_from_a_twin_or_from_samples(runs: list[Run], tiny: Model, tmp_path: Path) -> None:
    rows = table(analyse("correction-harm", runs), "arm")
    assert (
        rows["self-consistency"]["null from"] == "its samples drawn again"
        and rows["self-consistency"]["null: churn"] > 0
    )
    assert rows["cot-prompt"]["null from"] == "none: deterministic" and rows["cot-prompt"]["null: churn"] == 0
    items = questions(40)
    pair = []
    for seed in (0, 1):
        drawn = many(items, [0.5] * 40, 1, seed)
        arms = {
            "sampled": (handle(tiny, Sampling(1, 1.0, seed=seed)), drawn),
            "direct": (handle(tiny), one(items, bool)),
        }
        pair.append(planted(tmp_path / str(seed), items, arms))
    twins = table(analyse("correction-harm", pair), "arm")
    assert twins["sampled"]["null from"] == "two runs of the arm" and 0.1 < twins["sampled"]["null: churn"] < 0.4


def test_the_same_samples_twice_are_no_twin(tiny: Model, tmp_path: Path) -> None:
    pair = []
    for n in (40, 30):  # questions: arms of the same ones stand once
        items = questions(n)
        drawn = (handle(tiny, Sampling(4, 1.0, seed=0)), many(items, [0.5] * n, 4, 0))
        pair.append(planted(tmp_path / str(n), items, {"sampled": drawn, "direct": (handle(tiny), one(items, bool))}))
    sampled = [row for row in analyse("correction-harm", pair).table if "sampled" in row["arm"]]
    assert len(sampled) == 2
    assert all(row["null from"] == "its samples drawn again" and row["null: churn"] > 0.05 for row in sampled)


@pytest.mark.parametrize(
    "one_draw", [Sampling(1, 1.0), Power(samples=1), Tools((("think", "Think."),), temperature=1.0)]
)
def test_of_one_drawn_answer_no_churn_is_known(one_draw: Any, tiny: Model, tmp_path: Path) -> None:
    """Two draws of one distribution: where nothing tells how often it flips, nothing is beyond that."""
    items = questions(100)
    arms = {
        "again": (handle(tiny, one_draw), many(items, [0.5] * 100, 1, 0)),
        "direct": (handle(tiny), many(items, [0.5] * 100, 1, 1)),
    }
    (row,) = analyse("correction-harm", [planted(tmp_path / "run", items, arms)]).table
    assert row["null from"] == "not known: one drawn answer a question" and np.isnan(row["null: churn"])
    assert row["δc [95%]"] != "–" and row["δc beyond"] == row["δo beyond"] == "–"
    assert row["reading"] == "how much answering again does is not known"


def test_chains_of_power_sampling_are_drawn_again(tiny: Model, tmp_path: Path) -> None:
    items = questions(40)
    arms = {
        "power": (handle(tiny, Power(samples=4), "vote"), many(items, [0.5] * 40, 4, 0)),
        "direct": (handle(tiny, Tools((("think", "Think."),))), one(items, bool)),
    }
    (row,) = analyse("correction-harm", [planted(tmp_path / "run", items, arms)]).table
    assert row["null from"] == "its samples drawn again" and row["null: churn"] > 0.05


@pytest.mark.parametrize("chains", [1, 4])
def test_chains_of_power_sampling_are_samples(chains: int, tiny: Model, tmp_path: Path) -> None:
    items = questions(40)
    arms = {"power": (handle(tiny, Power(samples=chains), "vote"), many(items, [0.5] * 40, chains, 0))}
    (arm,) = arms_of([planted(tmp_path / "run", items, arms)])
    assert {len(traces) for traces in arm.outputs([item.id for item in items])} == {chains}
    assert bool(arm.not_independent) == (chains == 1)


def test_reflection_needs_more_than_one_answer(runs: list[Run]) -> None:
    rows = table(analyse("reflection", runs), "arm")
    assert rows["cot-prompt"]["reading"] == "one answer a question: the rate alone" and rows["cot-prompt"]["rate [95%]"]
    assert rows["cot-prompt sampled"]["reading"] == "no question has samples of both kinds"
    with pytest.raises(UserError, match="unknown list of words 'aha'"):
        analyse("reflection", runs, words="aha")


def test_routing_finds_the_sure_answers(runs: list[Run]) -> None:
    result = analyse("routing", runs[:1])
    assert result.data["long"] == "cot-prompt" and sum(result.data["fitted"]) == 24
    rows = table(result, "gate")
    assert set(rows) == set(SIGNALS)
    for options, said in (
        ({"tolerance": -1.0}, "tolerance of -1.0"),
        ({"short": "cot-prompt", "long": "cot-prompt"}, "given for both arms"),
        ({"short": "nobody"}, "unknown short arm 'nobody'"),
    ):
        with pytest.raises(UserError, match=said):
            analyse("routing", runs, **options)


def test_convergence_reads_difficulty_from_other_arms(runs: list[Run], tiny: Model, tmp_path: Path) -> None:
    result = analyse("convergence", runs)
    (name,) = result.data["pairs"]
    assert name == "cot-prompt & steered" and result.data["pairs"][name]["matched"].p <= 1
    assert not set(result.data["items"]) & {f"q{n}" for n in range(0, 48, 4)}  # direct is right on these
    with pytest.raises(UserError, match="1 mechanism beside 'direct'"):
        analyse("convergence", runs[:1])
    named = analyse("convergence", runs, difficulty="self-consistency")
    (pair,) = named.data["pairs"].values()
    assert pair["matched"].mean != result.data["pairs"][name]["matched"].mean  # other arms, other bins
    # Two sets, all pairs at once: the pair itself.
    assert named.data["together"]["agreement"] == pair["matched_agreement"]
    assert "that self-consistency solve as often" in named.notes[1]
    with pytest.raises(UserError, match="unknown difficulty 'nobody'"):
        analyse("convergence", runs, difficulty="nobody")
    with pytest.raises(UserError, match="unknown name in the items' metadata 'family'"):
        analyse("convergence", runs, within="family")
    items = questions(12)
    bare = [
        planted(
            tmp_path / n,
            items,
            {n: (handle(tiny), one(items, bool)), "direct": (handle(tiny), one(items, lambda n: not n))},
        )
        for n in ("a", "b")
    ]
    assert "no other arm measures difficulty" in analyse("convergence", bare).table[0]["reading"]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "distribution-shift"])
def test_runs_that_do_not_fit_together(name: str, runs: list[Run], tiny: Model, tmp_path: Path) -> None:
    elsewhere = run_of(tmp_path / "elsewhere", tiny, questions(12, first=500))
    with pytest.raises(UserError, match="no item in common"):
        analyse(name, [runs[0], elsewhere])
    metrics = json.loads((unsealed(elsewhere.folder) / "metrics.json").read_text())
    for key, value, said in (
        ("task", "another", "different tasks .*: another"),
        (
            "model",
            {**metrics["model"], "sha256": "0" * 64, "name": "other"},
            "different models .*other, weights 000000000000",
        ),
    ):
        (elsewhere.folder / "metrics.json").write_text(json.dumps({**metrics, key: value}))
        with pytest.raises(UserError, match=said):
            analyse(name, [runs[0], Run.load(elsewhere.folder)])
    with pytest.raises(UserError, match="no run was given"):
        analyse(name, [])


def test_shift_names_its_axes(tiny: Model, tmp_path: Path) -> None:
    def at(folder: str, size: int, first: int, right: int, prompt: Prompt | None = None) -> Run:
        items = questions(40, first, {"size": size})
        prompt = prompt or Prompt()
        mechanism = (handle(tiny, prompt=prompt), one(items, lambda n: n % 10 < right))
        return planted(
            tmp_path / folder, items, {"tuned": mechanism, "direct": (handle(tiny), one(items, lambda n: n % 10 < 2))}
        )

    home, longer, other = at("home", 4, 0, 9), at("longer", 8, 100, 2), at("other", 4, 0, 8, Prompt().thinking())
    again = at("again", 4, 200, 9)
    rows = table(analyse("distribution-shift", [home, longer, other, again]), "away")
    assert rows["longer"]["axes"] == "parameters (size 4 → 8)" and rows["longer"]["reading"] == "the gain falls"
    assert rows["other"]["axes"].startswith("format (") and rows["other"]["fall of gain [95%]"].startswith("0.100 [")
    assert "no shift" in rows["again"]["reading"]
    with pytest.raises(UserError, match="1 run was given"):
        analyse("distribution-shift", [home])
    with pytest.raises(UserError, match="same task, parameters and prompt"):
        analyse("distribution-shift", [home, again])
    with pytest.raises(UserError, match="not every run has the arm 'cot-prompt'; run each with --against cot-prompt"):
        analyse("distribution-shift", [home, longer], baseline="cot-prompt")
    with pytest.raises(UserError, match="unknown run to start from 'nowhere'"):
        analyse("distribution-shift", [home, longer], home="nowhere")


def test_questions_of_one_id_and_other_words_are_no_pair(tiny: Model, tmp_path: Path) -> None:
    items = questions(12)
    asked = tuple(replace(item, question=f"How much is {item.answer}?") for item in items)
    other = Items(replace(items.task, items=asked, source={"family": "toy", "params": {"size": 2}}), asked)
    runs = [
        planted(tmp_path / str(n), some, {
            "m": (handle(tiny), one(some, lambda q: q < 6)), "direct": (handle(tiny), one(some, lambda q: q < 4)),
        })
        for n, some in enumerate((items, other))
    ]  # fmt: skip
    found = analyse("distribution-shift", runs).data["shifts"][0]["gain"][1]
    assert found.high > 0.2  # of twelve questions and twelve others; paired they would be twelve that do not differ
    again = replace(items.task, source={"family": "toy", "params": {"size": 2}})
    runs[1] = planted(tmp_path / "same", Items(again, tuple(items)), {
        "m": (handle(tiny), one(items, lambda q: q < 6)), "direct": (handle(tiny), one(items, lambda q: q < 4)),
    })  # fmt: skip
    paired = analyse("distribution-shift", runs).data["shifts"][0]
    assert paired["null"].interval.pair == [0.0, 0.0] and paired["gain"][1].pair != found.pair


def test_what_spends_a_methods_tokens_is_its_own(tiny: Model, tmp_path: Path) -> None:
    items = questions(12)
    runs = [
        planted(tmp_path / name, items, {
            name: (handle(tiny), one(items, lambda q: q % 2 == 0)),
            "direct": (handle(tiny), one(items, lambda q: False)),
            "vote@budget": (handle(tiny, Sampling(1, 0.7), "vote"), one(items, lambda q, k=k: q < k)),
        })
        for name, k in (("a", 3), ("b", 6), ("c", 9))
    ]  # fmt: skip
    arms = arms_of(runs)
    budgets = [arm for arm in arms if arm.key == "vote@budget"]
    assert [arm.name for arm in budgets] == ["vote@budget", "vote@budget (b)", "vote@budget (c)"]
    assert [sum(arm.right([item.id for item in items])) for arm in budgets] == [3, 6, 9]
    a, b, c = (arm for arm in arms if arm.key in ("a", "b", "c"))
    ids = [item.id for item in items]
    ease = ease_of(arms, (a, b), next(arm for arm in arms if arm.key == "direct"), ids)
    assert ease is not None
    assert ease.tolist() == [(float(c.scores[item]) + float(q < 9)) / 2 for q, item in enumerate(ids)]


def test_where_a_run_states_no_accuracy_an_analysis_says_so(tiny: Model, tmp_path: Path) -> None:
    items = questions(12)
    arms = {"m": (handle(tiny), one(items, lambda q: q < 6)), "direct": (handle(tiny), one(items, lambda q: q < 4))}
    run = planted(tmp_path / "run", items, arms)
    before = analyse("correction-harm", [run]).notes
    run.metrics["arms"]["direct"] |= {"unjudged": {"memory": 5}, "branches_per_item": 1.0}
    *same, said = analyse("correction-harm", [run]).notes
    assert same == before and "5 of 12 answers of direct have no verdict" in said and "count as incorrect" in said


@pytest.fixture(scope="module")
def steered(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], Path]:
    """Real runs: pushed at the first two steps, branched, and plain."""
    folder, items = tmp_path_factory.mktemp("steered"), toy_task(6).test
    vector = torch.randn(width(tiny.lm), generator=torch.Generator().manual_seed(0))
    push = Intervention(Add(Direction(vector, Site(1))), 8.0, when=When(first=0, stop=2))
    handles = {
        "pushed": Elicited(tiny, "pushed", decoder=Greedy(12), interventions=(push,)),
        "branched": elicit.methods.cot_decoding.fit(tiny, k=4, max_new_tokens=12, select="sum", filters=False),
        "plain": elicit.methods.direct.fit(tiny, max_new_tokens=12),
    }
    return [elicit.evaluate(h, items, against=(), out=folder / name) for name, h in handles.items()], folder


def test_where_it_acts_on_real_runs(steered: tuple[list[Run], Path], tiny: Model) -> None:
    runs, _ = steered
    result = analyse("where-it-acts", runs)
    rows = [row for row in result.table if row["arm"] == "pushed" and row["acts"] == "steered"]
    assert {row["of them"] for row in rows} == {"forking tokens", "place in the sentence", "sentences' first tokens"}
    traces = [t for some in runs[0].traces["pushed"].values() for t in some]
    kept = result.data["arms"]["pushed"]
    assert (
        kept["steered"]["acted"]
        == sum(m > 0 for t in traces for m in t.moved)
        == sum(min(2, len(t.tokens)) for t in traces)
    )
    # The argmax of the base, one token at a time, as an oracle.
    changed = 0
    items = {item.id: item for item in runs[0].items}
    plain = Elicited(tiny, "plain")
    for trace in traces:
        prompt = plain.prompt_ids(items[trace.item])
        for place, token in enumerate(trace.tokens):
            with torch.no_grad():
                logits = tiny.lm(input_ids=torch.tensor([[*prompt, *trace.tokens[:place]]])).logits[0, -1]
            changed += int(logits.argmax()) != token
    assert kept["argmax changed"]["acted"] == changed > 0
    branched = result.data["arms"]["cot-decoding"]["argmax changed"]
    assert branched["acted"] <= len(items)  # at most the branching token differs from the greedy one
    assert "which only a prompt changes" in table(result, "arm")["direct"]["reading"]


def test_where_it_acts_refuses_what_does_not_act(steered: tuple[list[Run], Path]) -> None:
    runs, _ = steered
    with pytest.raises(UserError, match="no method of these runs acts on tokens"):
        analyse("where-it-acts", runs[2:])
    with pytest.raises(UserError, match="limit = -1 was given"):
        analyse("where-it-acts", runs, limit=-1)
