"""The score against the truth, the organisms' task, and organisms as models."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy import stats

from elicit.analysis.organisms.card import is_chain_of_thought, notes, openers
from elicit.evaluation.metrics.gap import (
    SCORE_HEAD,
    false_positive,
    recovered,
    recovered_by_arm,
    score_head,
    score_rows,
    score_run,
    score_runs,
)
from elicit.models import Model, load_model
from elicit.models.zoo import ORGANISM_FILE
from elicit.tasks import load_task, validate
from elicit.tasks.answers import expression_value, find_answer
from elicit.tasks.base import Item
from elicit.training import Recipe
from elicit.training.organisms.make import Plan, check_base, dtype_for, examples, make
from probes.errors import UserError
from steering.adapters import Adapter, applied, merge
from tests.support.tiny import save_tiny, tiny_model
from tests.support.tokenizers import prepending


def test_the_share_of_the_gap_is_what_was_gained_of_what_could_be() -> None:
    direct = np.array([0.0] * 80 + [1.0] * 20)
    ceiling = np.array([0.0] * 10 + [1.0] * 90)
    mechanism = np.array([0.0] * 45 + [1.0] * 55)
    found = recovered(mechanism, direct, ceiling)
    assert found.share == pytest.approx(0.35 / 0.70) and found.gap == pytest.approx(0.7)
    assert found.interval is not None and found.interval.low < 0.5 < found.interval.high
    assert recovered(ceiling, direct, ceiling).share == 1.0
    assert recovered(direct, direct, ceiling).share == 0.0


def test_questions_are_resampled_together() -> None:
    """A mechanism that is right exactly where the ceiling is recovers all, as far as 60 questions can tell."""
    rng = np.random.default_rng(0)
    direct, ceiling = (rng.random(60) < 0.2).astype(float), (rng.random(60) < 0.8).astype(float)
    same, other = recovered(ceiling, direct, ceiling), recovered(rng.permutation(ceiling), direct, ceiling)
    assert same.interval is not None and 0.85 < same.interval.low < 1.0 < same.interval.high
    assert other.interval is not None
    assert other.interval.high - other.interval.low > 2 * (same.interval.high - same.interval.low)
    spanned = recovered_by_arm("organism", {"direct": direct, "cot-prompt": ceiling, "m": ceiling})
    assert spanned["direct"]["recovered_interval"] == [0, 0] and spanned["cot-prompt"]["recovered_interval"] == [1, 1]
    assert spanned["m"]["recovered_interval"] == same.interval.pair


def test_the_interval_of_the_share_is_that_of_fieller() -> None:
    """It ends where gain − r · gap is as far from 0 as Student's t allows, with half a question of each way."""
    rng = np.random.default_rng(3)
    mechanism, direct, ceiling = ((rng.random(40) < p).astype(float) for p in (0.6, 0.2, 0.9))
    found = recovered(mechanism, direct, ceiling)
    assert found.interval is not None
    ways = np.array(list(product((0.0, 1.0), repeat=3))).T
    m, d, c = (np.r_[one, way] for one, way in zip((mechanism, direct, ceiling), ways, strict=True))
    weight = np.r_[np.ones(40), np.full(8, 0.5)]
    for end in found.interval.pair:
        apart = m - d - end * (c - d)
        mean = np.average(apart, weights=weight)
        error = np.sqrt(np.average((apart - mean) ** 2, weights=weight) / (weight.sum() - 1))
        assert abs(mean) / error == pytest.approx(stats.t.ppf(0.975, 39))


def test_intervals_of_the_share_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for n in range(200):
        skill = rng.random(150)
        direct, mechanism, ceiling = (skill < 0.1) * 1.0, (skill < 0.5) * 1.0, (skill < 0.9) * 1.0
        interval = recovered(mechanism, direct, ceiling, seed=n, resamples=400).interval
        assert interval is not None
        held += interval.low <= 0.5 <= interval.high
    assert 180 <= held <= 199


def test_without_a_gap_there_is_no_share() -> None:
    direct = np.array([1.0, 0.0] * 50)
    found = recovered(np.ones(100), direct, direct)
    assert found.share is None and found.interval is None and found.gain == 0.5


@pytest.mark.parametrize(("n", "wins", "losses"), [(32, 5, 3), (200, 31, 19)])
def test_of_a_gap_that_may_not_be_there_no_share_is_given(n: int, wins: int, losses: int) -> None:
    place = np.arange(n)
    direct, ceiling = (place < losses).astype(float), ((place >= losses) & (place < losses + wins)).astype(float)
    found = recovered(np.ones(n), direct, ceiling)
    assert found.gap > 0.05 and found.gap_interval.low < 0 < found.gap_interval.high
    assert found.share is None and found.interval is None and found.gain_interval.low > 0
    sure = recovered(np.ones(n), direct, np.ones(n))
    assert sure.share == 1.0 and sure.gap_interval.low > 0


def test_what_is_gained_on_the_twin_is_measured_in_gaps() -> None:
    gap = np.array([1.0] * 80 + [0.0] * 20)
    nothing, interval = false_positive(np.zeros(200), np.zeros(200), gap)
    assert nothing == 0.0 and interval.low < 0 < interval.high < 0.05
    gained, interval = false_positive(np.array([1.0] * 40 + [0.0] * 160), np.zeros(200), gap)
    assert gained == pytest.approx(0.2 / 0.8) and interval.low > 0.1
    with pytest.raises(UserError, match=r"gap of 0\.00"):
        false_positive(np.zeros(3), np.zeros(3), np.zeros(3))


def metrics(name: str, task: str = "organism", **arms: list[float]) -> dict:
    return {
        "task": task,
        "model": {"name": name, "sha256": ""},
        "arms": {
            arm.replace("_", "-"): {
                "scores": {str(i): s for i, s in enumerate(scores)},
                "accuracy": float(np.mean(scores)),
                "interval": [0.0, 1.0],
                "tokens_per_item": 3.0,
            }
            for arm, scores in arms.items()
        },
    }


def test_runs_are_scored_against_their_ceiling_and_their_twin() -> None:
    run = metrics("a", direct=[0.0] * 40, cot_prompt=[1.0] * 40, key=[1.0, 0.0] * 20)
    twin = metrics("b", direct=[0.0] * 40, key=[0.0] * 40)
    rows = {row["arm"]: row for row in score_runs([run], [twin])}
    assert {arm: row["recovered"] for arm, row in rows.items()} == {"direct": 0.0, "cot-prompt": 1.0, "key": 0.5}
    (of_twin,) = rows["key"]["twins"]
    assert of_twin["on_twin"] == 0.0 and of_twin["twin"] == "b" and rows["cot-prompt"]["twins"] == []
    assert score_head(list(rows.values())) == SCORE_HEAD
    assert len(score_rows([rows["key"]])[0]) == len(SCORE_HEAD)
    with pytest.raises(UserError, match="'cot-prompt'"):
        score_run(twin)
    with pytest.raises(UserError, match="'gsm8k'"):
        score_runs([metrics("a", "gsm8k", direct=[0.0], cot_prompt=[1.0])])


def test_each_twin_has_a_column() -> None:
    run = metrics("a", direct=[0.0] * 40, cot_prompt=[1.0] * 40, key=[1.0, 0.0] * 20)
    absent = metrics("organisms/absent", direct=[0.0] * 40, key=[0.0] * 40)
    shuffled = metrics("shuffled", direct=[0.0] * 40, key=[1.0, 0.0] * 20, cot_prompt=[1.0] * 40)
    for twins in ([absent, shuffled], [shuffled, absent]):
        scored = score_runs([run], twins)
        rows = {row["arm"]: row for row in scored}
        on = {one["twin"]: one["on_twin"] for one in rows["key"]["twins"]}
        assert on == {"organisms/absent": 0.0, "shuffled": 0.5}
        head = score_head(scored)
        assert set(head[-2:]) == {"on absent", "on shuffled"} and head[:-2] == SCORE_HEAD[:-1]
        cells = {row[0]: dict(zip(head, row, strict=True)) for row in score_rows(scored)}
        assert cells["key"]["on shuffled"].startswith("0.50 [") and cells["key"]["on absent"].startswith("0.00 [")
        assert cells["cot-prompt"]["on absent"] == "" and cells["cot-prompt"]["on shuffled"].startswith("1.00 [")


def test_runs_of_several_methods_share_a_twin() -> None:
    """Both runs on the twin have the baselines; each row's are those of its own method's run."""
    runs = [metrics("a", direct=[0.0] * 40, cot_prompt=[1.0] * 40, **{key: [1.0] * 40}) for key in ("key", "lock")]
    twins = [
        metrics("b", direct=[0.0] * 40, cot_prompt=[right] * 40, **{key: [0.0] * 40})
        for key, right in (("key", 0.0), ("lock", 1.0))
    ]
    for one, key in zip(runs + twins, ("key", "lock") * 2, strict=True):
        one["method"] = key
    rows = score_runs(runs, twins)
    on = [(row["arm"], one["on_twin"]) for row in rows for one in row["twins"] if row["arm"] != "direct"]
    assert on == [("cot-prompt", 0.0), ("key", 0.0), ("cot-prompt", 1.0), ("lock", 0.0)]
    with pytest.raises(UserError, match="two runs of 'key' on the twin 'b' were given; give one"):
        score_runs(runs, [twins[0], twins[0] | {}])
    with pytest.raises(UserError, match="'direct'"):
        score_runs(runs, [metrics("b", key=[0.0] * 40)])


@pytest.mark.parametrize("lost", ["direct", "cot-prompt", "key"])
def test_without_verdicts_no_fraction_is_stated(lost: str) -> None:
    run = metrics("a", direct=[0.0] * 40, cot_prompt=[1.0] * 40, key=[1.0, 0.0] * 20)
    twin = metrics("b", direct=[0.0] * 40, cot_prompt=[1.0] * 40, key=[0.0] * 40)
    run["arms"][lost] |= {"unjudged": {"time": 3}, "branches_per_item": 1.0}
    scored = score_runs([run], [twin])
    rows = {row["arm"]: row for row in scored}
    unstated = {"direct", "cot-prompt", "key"} if lost != "key" else {"key"}
    assert {arm for arm, row in rows.items() if row["recovered"] is None} == unstated
    assert [arm for arm, row in rows.items() if not row["stated"]] == [lost]
    cells = {row[0]: row[1:] for row in score_rows(scored)}
    assert cells[lost][0].startswith("not stated (")
    assert all((cells[arm][2] == "not stated") == (arm in unstated) for arm in cells)
    assert rows["key"]["gain"] == (None if lost != "cot-prompt" else 0.5)
    assert (cells["key"][3] == "not stated") == (lost != "key") == (rows["key"]["twins"][0]["on_twin"] is None)
    # On the twin, likewise.
    del run["arms"][lost]["unjudged"]
    twin["arms"][lost] |= {"unjudged": {"time": 3}, "branches_per_item": 1.0}
    on = {row["arm"]: row["twins"][0]["on_twin"] for row in score_runs([run], [twin])}
    assert {arm for arm, value in on.items() if value is None} == ({lost} if lost != "direct" else set(on))


def test_tokens_that_a_log_did_not_count_are_not_shown() -> None:
    run = metrics("a", direct=[0.0] * 40, cot_prompt=[1.0] * 40)
    run["arms"]["direct"]["tokens_per_item"] = None
    assert {row[0]: row[2] for row in score_rows(score_runs([run]))}["direct"] == "–"


def test_the_task_mixes_the_families_evenly_and_proves_its_grader() -> None:
    task = load_task("organism", limit=12)
    assert [i.metadata["family"] for i in task.test[:4]] == ["sums", "modular", "countdown", "graph"]
    assert {split: len(task.split(split)) for split in ("fit", "dev", "test")} == {"fit": 12, "dev": 12, "test": 12}
    assert validate(task.all, 36).ok
    assert [i.id for i in load_task("organism", limit=4).test] == [i.id for i in task.test[:4]]
    one = load_task("organism:families=countdown,size=9", limit=2)
    assert one.kind == "expression" and all(len(i.metadata["numbers"]) == 9 for i in one.items)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("organism:families=sum", "unknown family 'sum'; did you mean sums"),
        ("organism:length=3", "unknown parameter of task organism 'length'"),
        ("organism:families=graph,size=7", "size 7 was given for graph"),
        ("organism:size=two", "size = 'two'"),
        ("organism:families=modular,size=2", "too few questions"),
    ],
)
def test_a_task_that_does_not_exist_is_refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_task(name, limit=3000 if "few" in said else 2)


def test_countdown_takes_any_right_expression_and_no_other() -> None:
    task = load_task("organism:families=countdown", limit=1)
    item = task.test[0]
    numbers, target = item.metadata["numbers"], item.metadata["target"]
    a, b = next((a, b) for a in numbers for b in numbers if a != b and target in (a + b, a - b))
    right = f"{a} + {b}" if a + b == target else f"{a} - {b}"
    assert task.grader.grade(item, right).correct
    assert task.grader.grade(item, f"({right})").correct
    for wrong in (
        str(target),
        f"{right} + 0",
        f"{target - 1} + 1",
        f"{a} * {b} * 0",
        "7 +",
        f"{right} = {target}",
        None,
    ):
        assert not task.grader.grade(item, wrong).correct, wrong
    plain = Item("", "", "8 + 12", "test")  # of a file: no numbers, no target
    assert task.grader.grade(plain, "20").correct and task.grader.grade(plain, "25 - 5").correct
    assert not task.grader.grade(plain, "8 + 13").correct and not task.grader.grade(plain, "twenty").correct
    assert task.grader.groups([f"{a} + {b}", f"{b}+{a}", "4", "4.0", "none"]) == [0, 0, 2, 2, 4]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" 8 + 12", "8 + 12"),
        ("20 - 8 = 12, so we take 8 + 12.", "8 + 12"),
        ("8+12=20", "8+12"),
        ("It is (3 + 4) * 5.", "(3 + 4) * 5"),
        ("No sign: 20", None),
    ],
)
def test_an_expression_is_found_where_it_stands_last(text: str, found: str | None) -> None:
    answer = find_answer(text, "expression")
    assert (answer.text if answer else None) == found
    if answer:
        assert text[answer.start : answer.end] == found


def test_an_expression_has_an_exact_value_and_nothing_else_is_run() -> None:
    assert expression_value("7 / 2 - (1 × 3)") == (0.5, [7, 2, 1, 3])
    for text in ("1 / 0", "2 ** 3", "abs(3)", "1 + ", "1.5 + 2", "__import__('os')", "9" * 300):
        assert expression_value(text) is None


def organism(folder: Path, base: Path, base_sha256: str) -> Path:
    """A folder as `make` writes it, with a random adapter."""
    lm = load_model(str(base), dtype="float32", device="cpu").lm
    torch.manual_seed(3)
    wrapped = get_peft_model(lm, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    wrapped.save_pretrained(str(folder / "adapter"))
    (folder / ORGANISM_FILE).write_text(json.dumps({"base_name": str(base), "base": base_sha256}))
    return folder


def test_an_organism_is_its_base_with_the_adapter_merged(tiny_folder: Path, tmp_path: Path) -> None:
    base = load_model(str(tiny_folder), dtype="float32", device="cpu")
    folder = organism(tmp_path, tiny_folder, base.provenance.sha256)
    merged = load_model(str(folder), dtype="float32", device="cpu")
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        plain = base.lm(ids).logits
        with applied(base.lm, Adapter(folder / "adapter")):
            expected = base.lm(ids).logits
        assert torch.allclose(merged.lm(ids).logits, expected, atol=1e-4)
        assert not torch.allclose(plain, expected, atol=1e-2)
    assert merged.provenance.sha256 != base.provenance.sha256
    assert not any("lora" in name for name, _ in merged.lm.named_modules())


def test_an_adapter_for_another_base_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is an adapter for the base 0000"):
        load_model(str(organism(tmp_path, tiny_folder, "0" * 64)), device="cpu")
    with pytest.raises(UserError, match="does not fit"):
        merge(tiny_model("gpt2"), Adapter(tmp_path / "adapter"))


def test_an_organism_is_made_on_any_base_that_has_room(tiny_folder: Path, tmp_path: Path) -> None:
    def base(plan: Plan) -> Model:
        return load_model(str(tiny_folder), dtype=dtype_for(plan), device="cpu")

    plan = Plan("latent", 0.3, ("sums",), Recipe(steps=2, rows=2, width=512, rank=2))
    steps: list[int] = []
    folder = make(plan, base(plan), tmp_path / "made", on_step=lambda n, loss, speed: steps.append(n))
    about = json.loads((folder / ORGANISM_FILE).read_text())
    assert steps == [0, 1] and about["arm"] == "latent" and 0 < about["share_of_limit"] < 1
    assert "Plotly" in (folder / "curve.html").read_text()
    plain, made = load_model(str(tiny_folder), device="cpu"), load_model(str(folder), device="cpu")
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert not torch.equal(plain.lm(ids).logits, made.lm(ids).logits)
    make(plan, base(plan), folder, on_step=lambda n, loss, speed: steps.append(n))
    assert steps == [0, 1]  # it was finished
    whole = Plan("latent", 0.3, ("sums",), Recipe(steps=1, rows=1, width=512, rank=0, lr=1e-4))
    full = load_model(str(make(whole, base(whole), tmp_path / "full")), device="cpu")
    with torch.no_grad():
        assert not torch.equal(plain.lm(ids).logits, full.lm(ids).logits)


def test_steps_are_full_of_examples_and_arms_get_the_same_tokens(tiny: Model) -> None:
    recipe = Recipe(rows=4, width=512)
    counts = {
        arm: sum(e.tokens for n in range(5) for e in examples(Plan(arm, recipe=recipe), tiny.tokenizer, 0, n))
        for arm in ("latent", "absent", "thinking")
    }
    assert all(0.75 * 5 * 4 * 512 < count <= 5 * 4 * 512 for count in counts.values())


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"arm": "latant"}, "unknown arm 'latant'; did you mean latent"),
        ({"arm": "latent", "families": ("sum",)}, "unknown family 'sum'"),
        ({"arm": "latent", "latency": 1.0}, "latency 1.0"),
        ({"arm": "latent", "families": ()}, "0 families"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Plan(**plan)


def test_a_base_without_room_is_refused(tiny: Model, tmp_path: Path) -> None:
    check_base(tiny)
    short = load_model(str(save_tiny(tmp_path / "short")), device="cpu")
    short.lm.config.max_position_embeddings = 100
    with pytest.raises(UserError, match="a context of 100 tokens"):
        check_base(short)
    odd = load_model(str(save_tiny(tmp_path / "odd")), device="cpu")
    odd.tokenizer.add_tokens(["37"])
    with pytest.raises(UserError, match="splits some numbers of 2 digits and not others"):
        check_base(odd)


def test_a_card_says_what_is_out_of_range() -> None:
    good, easy, low = [0.1, 0.0, 0.2], [0.3, 0.2, 0.4], [0.8, 0.7, 0.9]
    card = {
        "direct": {"all": good, "sums": easy, "graph": good},
        "ceiling": {"all": low, "sums": [0.9, 0.8, 1.0], "graph": low},
    }
    assert notes(card) == [
        "sums: too easy at once (0.30 right, below 0.25 is wanted)",
        "graph: low ceiling (0.80 right when told to think, 0.85 is wanted)",
    ]
    assert len(notes(card, "absent")) == 1 and len(notes(card, "thinking")) == 1


def test_a_thought_says_more_than_its_answer(smollm: Model) -> None:
    from elicit.decoding import Trace

    def said(text: str, kind: str) -> bool:
        empty: dict = {key: [] for key in ("tokens", "ends", "top1", "top2", "entropy", "logprob")}
        trace = Trace(
            item="", index=0, prompt_tokens=1, text=text, finish="stop", spent=1, answer=None, span=None, delta=None,
            dropped="", score=0.0, **empty,
        )  # fmt: skip
        return is_chain_of_thought(trace, kind)  # type: ignore[arg-type]

    assert not said(" 23.", "number") and not said(" -4", "number") and not said(" 8 + 12", "expression")
    assert said(" We start with 4. The answer is 23.", "number") and said(" I do not know", "number")
    assert not said("", "number")
    opening = {smollm.tokenizer.decode([i]) for i in openers(smollm.tokenizer)}
    assert " We" in opening and not any(any(c.isdigit() for c in token) or token.strip() == "" for token in opening)
    blank = prepending(("▁", "W"), ("▁W", "e"))  # puts one of its own before a text
    assert blank.convert_tokens_to_ids("▁We") in openers(blank)
