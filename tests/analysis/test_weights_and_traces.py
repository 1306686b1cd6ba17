"""Weight differences of runs and validity of thoughts: planted effects, and effects that only seem so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import elicit
from elicit.analysis import analyse
from elicit.analysis.reasoning.corrupted_traces import Judged, judge, together, valid
from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.models import Model, load_model
from elicit.tasks import load_task
from elicit.tasks.base import Items
from elicit.tasks.organism.language import write
from elicit.tasks.organism.problems import Problem
from elicit.tasks.organism.solver import family_of, solve
from elicit.training.organisms.variants import shuffled, wrong_arithmetic
from probes.errors import UserError
from steering.adapters import Adapter
from tests.support.planted_model import planted
from tests.support.tiny import save_tiny

TASK = "chain-sum:min_terms=2,max_terms=2"


def run_of(handle: Elicited, folder: Path, against: tuple[str, ...] = ()) -> Run:
    return elicit.evaluate(handle, load_task(TASK, limit=3).test, out=folder, against=against)


def lora(tiny_folder: Path, folder: Path, seed: int) -> Adapter:
    torch.manual_seed(seed)
    wrapped = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_folder),
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    wrapped.save_pretrained(folder)
    return Adapter(folder)


def changed(tiny_folder: Path, folder: Path, share: float, size: float) -> Model:
    """A copy in bf16 in which this fraction of all weights is moved."""
    lm = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in lm.parameters():
            moved = torch.rand(parameter.shape, generator=generator) < share
            parameter += (moved * size * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype)
    lm.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return load_model(str(folder), dtype="bfloat16", device="cpu")


def test_adapters_and_what_has_none(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    handle = elicit.methods.direct.fit(tiny, max_new_tokens=2)
    runs = [run_of(handle, tmp_path / "direct")]
    for n in (0, 1):
        one = replace(handle, method="trained", adapter=lora(tiny_folder, tmp_path / f"lora{n}", n))
        runs.append(run_of(one, tmp_path / f"run{n}"))
    result = analyse("weight-difference", runs)
    rows = {row["run"]: row for row in result.table}
    assert rows["direct"]["says"].startswith("does not apply") and len(rows) == 4
    trained = rows["trained (run0)"]
    assert trained["changed tensors"].startswith("4 of")
    assert trained["rank share"] == pytest.approx(2 / 32) and 0.5 < trained["unchanged exactly"] < 1
    both = result.data["overlaps"]["trained (run0) | trained (run1)"]
    assert both["of_one"] > 0.99 and both["chance_of_one"] > 0.99  # whole matrices: chance says the same
    assert result.figure.data and json.dumps(result.data)
    with pytest.raises(UserError, match="none of the runs changed weights"):
        analyse("weight-difference", runs[:1])


def test_sparsity_of_the_format_is_caught_and_a_sparse_change_is_found(tiny_folder: Path, tmp_path: Path) -> None:
    base = changed(tiny_folder, tmp_path / "base", 0.0, 0.0)
    dense = changed(tiny_folder, tmp_path / "dense", 1.0, 2e-4)
    sparse = changed(tiny_folder, tmp_path / "sparse", 0.1, 0.05)
    runs = [run_of(elicit.methods.direct.fit(one, max_new_tokens=2), tmp_path / f"run{n}")
            for n, one in enumerate((base, dense, sparse))]  # fmt: skip
    result = analyse("weight-difference", runs, base=str(tmp_path / "base"))
    rows = {row["run"]: row for row in result.table}
    assert "the base itself" in rows["direct (run0)"]["says"]
    seeming, found = rows["direct (run1)"], rows["direct (run2)"]
    assert seeming["unchanged exactly"] > 0.5  # as it seems: bf16 swallows a small change
    assert seeming["null exactly"] > 0.5 and seeming["says"].startswith("no sparser")
    assert found["unchanged exactly"] > 0.85 and found["null exactly"] < 0.5 and found["says"].startswith("sparser")


def test_weights_that_two_names_share_count_once(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tied", "gpt2")
    models = [changed(folder, tmp_path / f"model{n}", share, 0.05) for n, share in enumerate((0.0, 0.5))]
    assert models[0].lm.config.tie_word_embeddings and "lm_head.weight" in models[0].lm.state_dict()
    run = run_of(elicit.methods.direct.fit(models[1], max_new_tokens=2), tmp_path / "run")
    result = analyse("weight-difference", [run], base=str(tmp_path / "model0"), ranks=False)
    tensors = result.data["differences"]["direct"]["tensors"]
    assert "lm_head.weight" not in tensors
    assert sum(one["n"] for one in tensors.values()) == sum(p.numel() for p in models[0].lm.parameters())


def organism(count: int = 24) -> Items:
    return load_task("organism", limit=count).test


def said(items: Items, form: str, seed: int = 0) -> list[str]:
    """Thoughts of one form on each question."""
    out = []
    for n, item in enumerate(items):
        rng = np.random.default_rng([seed, n])
        steps = solve(item)
        problem = Problem(family_of(item) or "", item.question, item.answer or "", steps)
        if form == "shuffled":
            steps = shuffled(problem, rng)
        elif form == "wrong":
            steps = wrong_arithmetic(problem, rng)
        out.append(f" {write(steps, rng).text}")
    return out


def test_right_and_corrupted_thoughts_are_told_apart() -> None:
    items = organism()
    right = np.ones(len(items), dtype=bool)
    true, mixed = (judge(items, said(items, form), right) for form in ("right", "shuffled"))
    assert true.valid.mean() > 0.95 and true.elsewhere.mean() < 0.1
    assert mixed.valid.mean() < 0.5 and mixed.right.all()
    assert judge(items, said(items, "wrong"), ~right).valid.mean() < 0.1


def test_phrases_that_are_valid_of_anything_are_caught() -> None:
    """They break no rule, as it seems; on another question they break none either."""
    items = organism(8)
    assert not any(
        valid(items, item, f" Let us see. So it is right. {item.answer}") for item in items
    )  # no step at all
    assert valid(items, items[0], " Let us see.") is None
    plain = load_task(TASK, limit=12).test
    empty = [" As 2 + 2 = 4 we see it. The answer is 7." for _ in plain]
    found = judge(plain, empty, np.ones(len(plain), dtype=bool))
    assert found.valid.all() and found.elsewhere.all()  # nothing beyond elsewhere


def test_validity_that_goes_with_a_family_is_not_validity_that_goes_with_right_answers() -> None:
    """One family is easy and its thoughts are always valid: over all questions the two go together, within none."""
    items = organism(48)
    families = [family_of(item) or "" for item in items]
    easy = np.array([family == "sums" for family in families])
    rng = np.random.default_rng(0)
    right = np.where(easy, rng.random(len(items)) < 0.9, rng.random(len(items)) < 0.1)
    found = judge(items, said(items, "right"), right)
    by_family = replace(found, valid=np.where(easy, rng.random(len(items)) < 0.9, rng.random(len(items)) < 0.1))
    seeming = together(by_family, families)
    assert seeming["gap"] > 0.4 and seeming["p"] > 0.05
    planted_pair = replace(found, valid=right & found.readable)
    assert together(planted_pair, families)["p"] < 0.01
    assert np.isnan(together(replace(found, right=np.ones(len(items), dtype=bool)), families)["gap"])


def test_what_is_as_extreme_is_so_beside_what_the_families_give() -> None:
    """One family is easy and valid, one hard and invalid; within each no right answer has the valid thought."""
    families = ["easy"] * 40 + ["hard"] * 40
    right = np.array([True] * 30 + [False] * 10 + [True] * 10 + [False] * 30)
    valid_ = np.array([True] * 20 + [False] * 10 + [True] * 10 + [False] * 10 + [True] * 10 + [False] * 20)
    found = together(Judged(right, valid_, ~valid_, np.ones(80, dtype=bool)), families)
    assert abs(found["gap"]) < 0.05 < found["null low"] and found["p"] < 0.01


def test_a_thought_on_the_only_question_of_its_family_is_held_against_nothing() -> None:
    items = organism(24)
    alone = [item for item in items if family_of(item) == "sums"][:1]
    others = [item for item in items if family_of(item) != "sums"]
    some = Items(items.task, (*alone, *others))
    found = judge(some, said(some, "right"), np.ones(len(some), dtype=bool))
    assert found.valid[0] and found.elsewhere[0] and found.elsewhere[1:].mean() < 0.2


def test_runs_end_to_end(tmp_path: Path) -> None:
    task = load_task("organism", limit=8)
    runs = []
    for n, says in enumerate(({}, {".": "4", ":": "4", "4": "+"})):
        model = planted(tmp_path / f"model{n}", says=says)
        handle = elicit.methods.cot_prompt.fit(model, max_new_tokens=8)
        runs.append(elicit.evaluate(handle, task.test, out=tmp_path / f"run{n}"))
    with pytest.raises(UserError, match="no arm has a thought that can be judged"):
        analyse("corrupted-traces", runs[:1])
    with pytest.raises(UserError, match="different tasks"):
        analyse(
            "corrupted-traces", [runs[0], run_of(elicit.methods.direct.fit(model, max_new_tokens=2), tmp_path / "o")]
        )


def test_a_run_whose_thoughts_hold(tmp_path: Path, tiny: Model) -> None:
    """Answers written into a run's samples: validity and accuracy apart, against the first run."""
    task = load_task("organism", limit=12)
    runs = []
    for name, form in (("right", "right"), ("shuffled", "shuffled")):
        run = elicit.evaluate(
            elicit.methods.direct.fit(tiny, max_new_tokens=2), task.test, out=tmp_path / name, against=()
        )
        texts = said(task.test, form)
        for item, text in zip(task.test, texts, strict=True):
            (trace,) = run.traces["direct"][item.id]
            run.traces["direct"][item.id] = [replace(trace, text=text, answer=item.answer, score=1.0)]
            run.metrics["arms"]["direct"]["scores"][item.id] = 1.0
        runs.append(run)
    result = analyse("corrupted-traces", runs)
    first, second = result.table
    assert first["says"] == "valid thoughts" and second["valid"] < first["valid"] and second["right"] == 1
    _, against = (arm["against the first run"] for arm in result.data["arms"].values())
    assert against["valid"]["holm p"] < 0.05 and against["right"]["holm p"] == 1
    assert result.figure.data
