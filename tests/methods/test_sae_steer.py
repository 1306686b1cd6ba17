"""`sae-steer` on a tiny model: the search, the intervention, its controls, its cards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit import evaluate
from elicit.elicited import Elicited
from elicit.methods import sae_steer
from elicit.methods.sae_steer import pipeline
from elicit.methods.sae_steer.causal_filter import Candidate
from elicit.methods.sae_steer.contrast import Text, answered, read_contrast
from elicit.methods.sae_steer.falsification import falsify, strongest_tokens, verdict
from elicit.methods.sae_steer.feature_card import card_page, contexts, written
from elicit.methods.sae_steer.options import Search
from elicit.models import Model, Prompt
from elicit.models.prompts import THINK
from elicit.tasks import load_task
from elicit.tasks.base import Task
from probes.capture import capture
from probes.errors import UserError
from probes.sae.load import load_sae
from probes.sae.scores import firing
from steering.hooks import attached
from steering.interventions import Add, Plan
from tests.evaluation.test_batches import Told
from tests.support.saes import save_random_sae


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("chain-sum", limit=8)


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_random_sae(tmp_path_factory.mktemp("sae") / "random"))


def steered(model: Model, task: Task, sae: str, **options: Any) -> Elicited:
    chosen = {"candidates": 2, "strengths": "2", "dev": 4, "read": 6, "checked": False, "max_new_tokens": 8, **options}
    return sae_steer.fit(model, task.solved, sae=sae, **chosen)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_feature_is_found_pushed_and_compared(tiny: Model, task: Task, sae: str, here: Path) -> None:
    handle = steered(tiny, task, sae, strengths="1,4")
    (push,) = handle.interventions
    found = handle.options["found"]
    assert push.what.source.index == found["feature"] and push.unit == "feature_max"
    assert len(found["search"]) == 1 + 2 * 2 and found["search"][0]["strength"] == 0
    best = max(row["accuracy"] for row in found["search"][1:])
    assert found["dev_accuracy"] == best
    assert found["delivered"]["value after"] > found["delivered"]["value before"]
    json.dumps(handle.options)

    others = sae_steer.controls(handle, task.solved)
    size = push.factor * push.what.source.length
    matched = [one for name, one in others.items() if one.interventions and "+ push" not in name]
    assert len(matched) == sae_steer.RANDOM + 3
    for one in matched:
        (control,) = one.interventions
        assert isinstance(control.what, Add) and control.when == push.when and control.sites == push.sites
        assert abs(control.factor) * control.what.source.length == pytest.approx(size, rel=1e-5)
    assert others["sign flipped"].interventions[0].factor == pytest.approx(-push.factor)
    assert others["begins 'To'"].prompt.text("What?").endswith("A: To")
    assert others["cot-prompt + push"].interventions == handle.interventions

    run = evaluate(handle, task.test, against=others, out=here / "run")
    assert {"direct", "cot-prompt", "direct@budget", "cot-prompt@budget", "difference of means"} <= set(
        run.metrics["arms"]
    )
    assert run.metrics["delivery"]["sae-steer"]["tokens_moved"] == len(task.test)
    again = evaluate(handle, task.all, against="direct", out=here / "all")
    assert again.metrics["seen"] == {"sae-steer": {"fitted": 6, "chosen": 4}} and "seen" not in run.metrics
    page = (run.folder / "report.html").read_text()
    assert "The search" in page and f"Feature {found['feature']} of" in page


def test_no_feature_is_its_own_control(tiny: Model, task: Task, sae: str, here: Path) -> None:
    """On Qwen2.5-Coder-0.5B the feature that was found is the best of an irrelevant contrast too."""

    def irrelevant(feature: int) -> str:
        handle = steered(tiny, task, sae, feature=feature)
        (name,) = (name for name in sae_steer.controls(handle, task.solved) if "irrelevant feature" in name)
        return name

    best = int(irrelevant(0).rpartition(" ")[2])
    name = irrelevant(best)
    assert name.startswith("second irrelevant feature ") and int(name.rpartition(" ")[2]) != best


@pytest.mark.parametrize("options", [
    {"change": "set"}, {"change": "scale", "unit": "raw", "strengths": "4"},
    {"change": "scale", "unit": "raw", "strengths": "4", "when": "steps:3"},
])  # fmt: skip
def test_controls_are_as_large_as_what_was_measured(
    tiny: Model, task: Task, sae: str, here: Path, options: dict[str, Any]
) -> None:
    """Against the editor's own count of how far positions were moved, those that it left alone counted as 0."""
    handle = steered(tiny, task, sae, **options)
    on = handle.fitted
    texts = [text.ids for text in on.thoughts] if "when" in options else on.plain
    lengths = [text.prompt for text in (on.thoughts if "when" in options else on.direct)]

    def moved(plan: Plan) -> float:
        total, asked = 0.0, 0
        for ids, length in zip(texts, lengths, strict=True):
            with attached(tiny.lm, [plan], lengths=[length]) as session, torch.inference_mode():
                tiny.lm(torch.tensor([ids]))
            did = session.editor.delivery()
            total += did.positions * did.mean_move
            asked += min(3, len(ids) - length + 1) if "when" in options else 1
        return total / asked

    size = moved(handle.interventions)
    share = handle.options["found"]["delivered"]["share of the stream"]
    assert share * handle.options["found"]["resid_norm"] == pytest.approx(size, rel=1e-3)
    others = sae_steer.controls(handle, task.solved)
    matched = [one for name, one in others.items() if one.interventions and "+ push" not in name]
    assert len(matched) == sae_steer.RANDOM + 3
    for one in matched:
        assert moved(one.interventions) == pytest.approx(size, rel=1e-3)


@pytest.mark.parametrize("change", ["add", "set"])
def test_strengths_are_found_by_kl(tiny: Model, task: Task, sae: str, here: Path, change: str) -> None:
    handle = steered(tiny, task, sae, kl="0.1,0.4", change=change)
    found = handle.options["found"]
    assert found["kl"] in (0.1, 0.4) and len(found["search"]) == 1 + 2 * 2
    others = sae_steer.controls(handle, task.solved)
    run = evaluate(handle, task.test, against=others, out=here / "run")
    effects = run.metrics["side_effects"]
    assert set(effects) == {"sae-steer", *(name for name, one in others.items() if one.interventions)}
    for name, one in effects.items():
        assert one["plain_kl"] == pytest.approx(found["kl"], rel=0.02), name
        assert one["off_target_kl"] > 0 and one["perplexity"][0] == effects["sae-steer"]["perplexity"][0]
        assert 0 <= one["knowledge"][1] <= 1
    page = (run.folder / "report.html").read_text()
    assert "Side effects" in page and f"Strengths reach {found['kl']:g} nats" in page
    loaded = Elicited.load(run.folder / "elicited", tiny)
    again = sae_steer.controls(loaded, task.solved)
    assert {n: one.interventions for n, one in again.items()} == {n: one.interventions for n, one in others.items()}


def test_older_handles_have_controls(tiny: Model, task: Task, sae: str, here: Path) -> None:
    """Those whose options know nothing of a budget of KL."""
    handle = steered(tiny, task, sae)
    kept = {name: one.to_dict() for name, one in sae_steer.controls(handle, task.solved).items()}
    asked = {k: v for k, v in handle.options["asked"].items() if k != "kl"}
    older = replace(handle, options={**handle.options, "asked": asked})
    assert {name: one.to_dict() for name, one in sae_steer.controls(older, task.solved).items()} == kept


def test_a_search_is_one_batch(tiny: Model, task: Task, sae: str, here: Path) -> None:
    told = Told()
    options = {"candidates": 2, "dev": 4, "read": 6, "checked": False, "max_new_tokens": 8}
    sae_steer.fit(tiny, task.solved, told, sae=sae, strengths="1,4", when="last-prompt-token,steps:2", **options)
    assert told.groups == [("answers", 6, 0), ("unsteered and 8 more", 9 * 4, 0)]


def test_the_same_search_is_resumed(tiny: Model, task: Task, sae: str, here: Path) -> None:
    first = steered(tiny, task, sae)
    runs = sorted((here / "runs").iterdir())
    again = steered(tiny, task, sae)
    assert sorted((here / "runs").iterdir()) == runs
    assert again.options == first.options and again.interventions == first.interventions


@pytest.mark.parametrize("options", [
    {"change": "set"}, {"change": "scale", "unit": "raw", "strengths": "3"}, {"unit": "resid", "strengths": "0.5"},
    {"when": "steps:3,last-prompt-token"}, {"feature": 5, "unit": "resid", "strengths": "0.5"}, {"step": 1},
    {"find": "reason", "words": "1,2,3,4,5,6,7,8,9,0"}, {"find": "both", "words": "1,2,3,4,5,6,7,8,9,0"},
])  # fmt: skip
def test_ways_to_search_and_to_push(tiny: Model, task: Task, sae: str, here: Path, options: dict[str, Any]) -> None:
    handle = steered(tiny, task, sae, **options)
    if "feature" in options:
        assert handle.options["found"]["feature"] == options["feature"]
    kind = {"set": "set feature", "scale": "scale feature"}.get(options.get("change", ""), "add")
    assert handle.interventions[0].kind == kind
    assert handle.options["found"]["when"] in options.get("when", "last-prompt-token").split(",")


@pytest.mark.parametrize(("options", "words"), [
    ({"checked": True}, "does not describe"),
    ({"feature": 64}, "the SAE has 64, give 0 to 63"),
    ({"strengths": "1,x"}, "give numbers like 1,2,4"),
    ({"strengths": "0,1"}, "without 0"),
    ({"strengths": "1,1.0000001"}, "give distinct ones"),
    ({"when": "steps:3, steps:3"}, "give each time once"),
    ({"strengths": "1e30"}, "NaN or infinite"),
    ({"when": "first"}, "unknown when"),
    ({"find": "contrats"}, "did you mean contrast"),
    ({"change": "clamp"}, "unknown change"),
    ({"words": "zyzzyva", "find": "reason"}, "none of the words zyzzyva occurs"),
    ({"kl": "0.1,x"}, "numbers of nats"),
    ({"kl": "-1"}, "distinct positive numbers"),
    ({"kl": "1", "change": "scale"}, "add or set it"),
    ({"dev": 0}, "give at least 1 of each"),
    ({"step": 2}, "step 0 or 1"),
])  # fmt: skip
def test_what_is_refused(tiny: Model, task: Task, sae: str, here: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        steered(tiny, task, sae, **options)


def test_strengths_that_kl_makes_equal_are_refused(
    tiny: Model, task: Task, sae: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Search, "strengths_of", lambda *_: {2.0: 0.1, 2.0000001: 0.2})
    with pytest.raises(UserError, match=r"strengths .* were given; give distinct ones"):
        steered(tiny, task, sae, kl="0.1,0.2")
    assert not (here / "runs").exists()


def test_answers_without_a_first_token_are_not_contrasted_at_it(
    tiny: Model, task: Task, sae: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ending(*given: Any) -> list[Text]:
        first, *others = answered(*given)
        return [first if given[3] > 1 else replace(first, ids=first.ids[: first.prompt]), *others]

    monkeypatch.setattr(pipeline, "answered", ending)
    with pytest.raises(UserError, match="1 of 6 answers without the instruction are too short for step 1"):
        steered(tiny, task, sae, step=1)
    steered(tiny, task, sae, step=0)


def test_saes_that_are_refused(tiny: Model, task: Task, tmp_path: Path, here: Path) -> None:
    with pytest.raises(UserError, match="no SAE comes with"):
        steered(tiny, task, "")
    with pytest.raises(UserError, match="reads 16 dimensions"):
        steered(tiny, task, str(save_random_sae(tmp_path / "narrow", d_model=16)))
    with pytest.raises(UserError, match="layer"):
        steered(tiny, task, str(save_random_sae(tmp_path / "deep", layer=9)))
    with pytest.raises(UserError, match="give items"):
        sae_steer.fit(tiny, None, sae=str(tmp_path / "narrow"))


def test_reading_is_of_the_positions_that_it_names(tiny: Model, task: Task, sae: str) -> None:
    one = load_sae(sae)
    thoughts = answered(tiny, task.fit, Prompt().asked(THINK), 8)
    plain = [Prompt().ids(item.question, tiny.tokenizer) for item in task.fit]
    (found,) = read_contrast(tiny, thoughts, plain, [one.site]).values()
    direct = capture(tiny.lm, [text.ids[: text.prompt] for text in thoughts], [one.site], last=1)
    assert direct is not None
    assert torch.allclose(found.positive, direct.values[one.site][direct.row.argsort()], atol=1e-5)
    assert int(found.position.min()) == 1 and len(found.thoughts) == len(found.text) == len(found.position)
    tables = [list(range(len(text.ids))) for text in thoughts]
    assert torch.equal(found.labels(tables), found.position)


def test_cards(tiny: Model, task: Task, sae: str) -> None:
    one = load_sae(sae)
    thoughts = answered(tiny, task.fit, Prompt().asked(THINK), 8)
    plain = [Prompt().ids(item.question, tiny.tokenizer) for item in task.fit]
    (found,) = read_contrast(tiny, thoughts, plain, [one.site]).values()
    fires = firing(one, found.thoughts)
    index = int(fires.density.argmax())
    feature = Candidate(one, index, 0.0, fires, found).feature()

    shown = contexts(feature, found, thoughts)
    assert shown[0].value == pytest.approx(feature.largest(), rel=1e-4)
    assert [c.value for c in shown] == sorted((c.value for c in shown), reverse=True)

    up, down = written(tiny, feature, count=5)
    assert up[0][1] > 0 > down[0][1] and len(up) == 5

    card = falsify(tiny, feature, task.fit, Prompt(), THINK, found, thoughts)
    assert set(card) >= {"contrast", "paraphrase", "template", "irrelevant", "injection", "verdict"}
    page = card_page(tiny, one, feature, found, thoughts, card)
    assert f"Feature {index}" in page and "What could falsify it" in page
    assert set(strongest_tokens(feature.read(found.thoughts), found, thoughts, 3)) <= {
        t for x in thoughts for t in x.tokens
    }


def test_verdicts() -> None:
    card = {
        "contrast": 2.0,
        "paraphrase": 0.9,
        "template": 0.8,
        "irrelevant": 0.1,
        "injection": 0.2,
        "injected tokens": [],
    }
    assert verdict(card) == []
    bad = {**card, "paraphrase": 0.1, "template": 0.0, "irrelevant": 0.7, "injection": 0.9, "injected tokens": ["So"]}
    said = verdict(bad)
    assert len(said) == 4 and "'So'" in said[3]
    assert verdict({**card, "contrast": -1.0}) == ["it does not fire more with the instruction on these questions"]


def test_what_a_search_read_is_its_own(tiny: Model, sae: str, here: Path) -> None:
    """Two tasks with the same ids and other questions, fitted in turn: each handle has its own controls, also when it
    is loaded again."""
    tasks = []
    for name, sign in (("sums", "+"), ("products", "*")):
        rows = [
            {"id": f"{split}{n}", "question": f"What is {n} {sign} {n + 3}?", "answer": str(n), "split": split}
            for split in ("fit", "dev", "test")
            for n in range(6)
        ]
        (here / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tasks.append(load_task(str(here / f"{name}.jsonl")))
    handles = [steered(tiny, one, sae) for one in tasks]
    assert handles[0].options["found"]["maximum"] != handles[1].options["found"]["maximum"]
    for handle, one in zip(handles, tasks, strict=True):
        kept = {name: c.to_dict() for name, c in sae_steer.controls(handle, one.solved).items()}
        loaded = Elicited.load(handle.save(here / one.name), tiny)
        assert loaded.fitted is None and handle.fitted is not None
        assert {name: c.to_dict() for name, c in sae_steer.controls(loaded, one.solved).items()} == kept
    other = sae_steer.controls(handles[0], tasks[1].solved)["difference of means"]
    assert other.interventions != sae_steer.controls(handles[0], tasks[0].solved)["difference of means"].interventions
    assert other.fitted is None
