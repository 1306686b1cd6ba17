"""Arms that share batches: each answers as it does alone, and a run that was stopped finds the same batches again."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from elicit import Run, evaluate
from elicit.decoding import Branching, Decoder, Greedy, Sampling
from elicit.decoding.progress import Silent
from elicit.elicited import Elicited, answer_together
from elicit.evaluation.batches import batches, sharing
from elicit.evaluation.run import Store
from elicit.evaluation.run.store import CONFIG, SAMPLES
from elicit.models import Model, Prompt
from elicit.tasks import load_task
from elicit.tasks.base import Task
from probes.errors import UserError
from probes.sae.load import load_sae
from probes.sites import Site
from steering.adapters import Adapter
from steering.directions import Direction
from steering.interventions import Add, Gate, Intervention, Plan, ScaleFeature, When
from tests.support.saes import save_random_sae

EARLY = 3  # the step at which one arm's rows end


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("chain-sum", limit=10)


def push(strength: float = 4.0, when: When | None = None, seed: int = 0) -> Plan:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    return (Intervention(Add(Direction(vector, Site(1), name="d")), strength, when=when or When.every_step()),)


def ending(model: Model) -> Plan:
    """A small push, and then one along the end token's own row of the output head."""
    (end,) = model.eos_ids
    vector = model.lm.get_output_embeddings().weight[end].detach().clone()
    return (*push(0.1), Intervention(Add(Direction(vector, Site(3), name="end")), 1e3, when=When(first=EARLY)))


def arms(model: Model, decoder: Decoder | None = None) -> dict[str, Elicited]:
    """Steered and unsteered, in prompts of several lengths, one whose rows end early."""
    plain = Elicited(model, "direct", decoder=decoder or Greedy(14))
    thinking = replace(plain, prompt=plain.prompt.thinking())
    gate = Gate(torch.randn(32, generator=torch.Generator().manual_seed(5)), Site(0))
    out = {
        "pushed": replace(plain, interventions=push()),
        "direct": plain,
        "harder": replace(plain, interventions=push(9.0)),
        "thinking": thinking,
        "both": replace(thinking, interventions=push()),
        "once": replace(plain, interventions=push(30.0, When.last_prompt_token(), seed=1)),
        "gated": replace(plain, interventions=push(8.0, When.every_step().gated(gate), seed=2)),
        "ends": replace(plain, interventions=ending(model)),
        "begins": replace(plain, prompt=replace(plain.prompt, begin="To")),
    }
    return {name: replace(one, method=name) for name, one in out.items()}


@pytest.mark.parametrize(
    "decoder", [Greedy(14), Branching(3, 10), Sampling(2, max_new_tokens=10)], ids=["greedy", "branching", "sampling"]
)
def test_handles_answer_together_as_they_do_alone(tiny: Model, task: Task, decoder: Decoder) -> None:
    asked = [(one, task.test[n % 3 : 4 + n % 4]) for n, one in enumerate(arms(tiny, decoder).values())]
    for (one, items), together in zip(asked, answer_together(asked), strict=True):
        alone = one.answer(items)
        assert [len(branches) for branches in together] == [decoder.branches] * len(items)
        for a, b in zip([t for ts in together for t in ts], [t for ts in alone for t in ts], strict=True):
            assert (a.item, a.index, a.tokens, a.finish, a.spent) == (b.item, b.index, b.tokens, b.finish, b.spent)
            assert (a.answer, a.score, a.prompt_moved) == (b.answer, b.score, b.prompt_moved)
            assert a.logprob == pytest.approx(b.logprob, rel=1e-3, abs=1e-3)
            assert a.moved == pytest.approx(b.moved, rel=1e-3, abs=1e-4)
            assert len(a.moved) == (len(a.tokens) if one.interventions else 0)
            if one.method == "ends" and decoder == Greedy(14):
                assert a.finish == "eos" and a.spent == EARLY + 1


@pytest.fixture(scope="module")
def lora(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    folder = tmp_path_factory.mktemp("lora")
    lm = AutoModelForCausalLM.from_pretrained(tiny_folder)
    get_peft_model(lm, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).save_pretrained(folder)
    return Adapter(folder)


def test_only_what_agrees_is_decoded_together(tiny: Model, task: Task, lora: Adapter) -> None:
    plain = Elicited(tiny, "direct", decoder=Greedy(8))
    handles = {
        "direct": plain,
        "longer": replace(plain, decoder=Greedy(9)),
        "pushed": replace(plain, interventions=push(), select="vote"),
        "no stop": replace(plain, prompt=Prompt("template", template="{question}")),
        "adapted": replace(plain, adapter=lora),
        "sampled": replace(plain, decoder=Sampling(1, max_new_tokens=8)),
        "adapted and pushed": replace(plain, adapter=lora, interventions=push()),
    }
    assert sharing(handles) == [
        ["direct", "pushed"], ["longer"], ["no stop"], ["adapted", "adapted and pushed"], ["sampled"],
    ]  # fmt: skip
    with pytest.raises(ValueError, match="one batch_key"):
        answer_together([(handles["direct"], task.test), (handles["adapted"], task.test)])
    pair = [(handles[name], task.test[:3]) for name in ("adapted", "adapted and pushed")]
    for (one, items), together in zip(pair, answer_together(pair), strict=True):
        assert [t.tokens for (t,) in together] == [t.tokens for (t,) in one.answer(items)]


@given(size=st.integers(1, 100))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_batches_hold_every_question_once_and_the_longest_first(tiny: Model, task: Task, size: int) -> None:
    handles, items = arms(tiny), task.test
    made = batches(handles, items, size)
    assert made == batches(handles, items, size)
    rows = [[(name, i) for name, indices in batch.items() for i in indices] for batch in made]
    flat = [one for batch in rows for one in batch]
    assert sorted(flat) == sorted((name, i) for name in handles for i in range(len(items)))
    assert all(len(batch) == size for batch in rows[:-1]) and 1 <= len(rows[-1]) <= size
    lengths = [[len(handles[name].prompt_ids(items[i])) for name, i in batch] for batch in rows]
    assert all(min(a) >= max(b) for a, b in pairwise(lengths))


class Told(Silent):
    """What was told of each group of arms."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, int, int]] = []
        self.done: list[int] = []

    def arm(self, name: str, questions: int, done: int) -> None:
        self.groups.append((name, questions, done))
        self.done.append(done)

    def advance(self, questions: int, tokens: int) -> None:
        assert tokens >= questions
        self.done[-1] += questions


def compared(model: Model, task: Task, folder: Path, told: Told | None = None) -> Run:
    first, *others = arms(model).values()
    against = {one.method: one for one in others} | {"branching": replace(first, decoder=Branching(2, 6))}
    return evaluate(first, task.test, against=against, out=folder, batch_rows=16, progress=told)


@pytest.fixture(scope="module")
def run(tiny: Model, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return compared(tiny, task, tmp_path_factory.mktemp("runs") / "whole")


def test_a_run_decodes_its_arms_together_and_they_answer_as_apart(
    tiny: Model, task: Task, run: Run, tmp_path: Path
) -> None:
    """Apart is what the same run does where its configuration is from before arms shared batches."""
    told = Told()
    again = compared(tiny, task, tmp_path / "again", told)
    count = len(task.test)
    assert told.groups == [("pushed and 8 more", 9 * count, 0), ("branching", count, 0)]
    assert told.done == [9 * count, count]
    assert (again.folder / SAMPLES).read_bytes() == (run.folder / SAMPLES).read_bytes()
    of_batch: dict[int, set[str]] = {}
    for line in (run.folder / SAMPLES).read_text().splitlines():
        of_batch.setdefault(json.loads(line)["batch"], set()).add(json.loads(line)["source"])
    assert max(len(names - {"branching"}) for names in of_batch.values()) > 1
    assert set(run.metrics["seconds"]) == set(run.metrics["arms"]) and sum(run.metrics["seconds"].values()) > 0
    assert set(run.metrics["delivery"]) == {"pushed", "harder", "both", "once", "gated", "ends", "branching"}

    config = Store.read(run.folder).config
    assert config["execution"].pop("together") is True
    (tmp_path / "apart").mkdir()
    (tmp_path / "apart" / CONFIG).write_text(tomli_w.dumps(config))
    told = Told()
    apart = compared(tiny, task, tmp_path / "apart", told)
    assert [name for name, _, _ in told.groups] == list(run.metrics["arms"])
    for source, by_item in run.traces.items():
        for item, traces in by_item.items():
            assert [t.tokens for t in traces] == [t.tokens for t in apart.traces[source][item]]
    left_out = {"seconds", "delivery", "readings", "calibration"}
    assert {k for k, v in run.metrics.items() if v != apart.metrics[k]} <= left_out


def cut_at(tiny: Model, task: Task, run: Run, folder: Path, size: int) -> Told:
    folder.mkdir()
    (folder / CONFIG).write_bytes((run.folder / CONFIG).read_bytes())
    (folder / SAMPLES).write_bytes((run.folder / SAMPLES).read_bytes()[:size])
    told = Told()
    again = compared(tiny, task, folder, told)
    assert (folder / SAMPLES).read_bytes() == (run.folder / SAMPLES).read_bytes()
    assert {k: v for k, v in again.metrics.items() if k != "seconds"} == {
        k: v for k, v in run.metrics.items() if k != "seconds"
    }
    return told


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_resumed_equals_uninterrupted(
    tiny: Model, task: Task, run: Run, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    whole = (run.folder / SAMPLES).stat().st_size
    cut_at(tiny, task, run, tmp_path_factory.mktemp("cut") / "run", int(share * whole))


def test_a_batch_that_was_cut_between_two_arms_is_the_same_batch_again(
    tiny: Model, task: Task, run: Run, tmp_path: Path
) -> None:
    lines = (run.folder / SAMPLES).read_bytes().splitlines(keepends=True)
    heads = [(data["batch"], data["source"]) for data in map(json.loads, lines)]
    between = next(n for n, (a, b) in enumerate(pairwise(heads), 1) if a[0] == b[0] and a != b)
    told = cut_at(tiny, task, run, tmp_path / "run", sum(map(len, lines[:between])))
    assert told.groups[0][2] == 0 < between  # the batch is not done, though one of its arms is written


def test_what_does_nothing_or_breaks_is_named_among_those_that_work(tiny: Model, task: Task) -> None:
    fine = replace(Elicited(tiny, "fine", decoder=Greedy(4)), interventions=push())
    for plan, word in ((push(1e-12), "d × 1e-12 changed nothing"), (push(1e38), r"d × 1e\+38 made \d+ positions NaN")):
        with pytest.raises(UserError, match=word):
            answer_together([(fine, task.test[:2]), (replace(fine, interventions=plan), task.test[:2])])


def test_a_few_rows_that_happen_not_to_be_moved_are_no_error(tiny: Model, task: Task, tmp_path: Path) -> None:
    """A batch may hold few rows of an arm: a prompt without that position, a feature that is silent in them."""
    for when, sure in ((When.prompt(500), False), (When.prompt(0), True), (When(-9, -5), False), (When(), True)):
        assert when.unconditional is sure
    one = Elicited(tiny, "far", decoder=Greedy(3), interventions=push(when=When.prompt(500)))
    assert not one.answer(task.test[:1])[0][0].prompt_moved
    feature = load_sae(str(save_random_sae(tmp_path / "sae"))).feature(3)
    silent = replace(feature, activation="relu", encoder=torch.zeros(32), bias=-1.0)
    scaled = replace(one, interventions=(Intervention(ScaleFeature(silent), 2.0, when=When()),))
    assert not any(scaled.answer(task.test[:1])[0][0].moved)
    with pytest.raises(UserError, match="moved nothing in 1 questions"):
        evaluate(scaled, task.test[:1], out=tmp_path / "run")
