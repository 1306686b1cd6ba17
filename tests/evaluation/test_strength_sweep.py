"""`elicit steer`: the sweep, what it measures, and what a new user may do wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from elicit import load_task
from elicit.cli.steer import HEAD, _rows
from elicit.elicited import Elicited
from elicit.evaluation.side_effects import plain_texts
from elicit.evaluation.strength_sweep import UNSTEERED, Series, dose, series_of, sweep, with_controls
from elicit.models import Model, Prompt, load_model
from elicit.report.dose_response import dose_response
from elicit.tasks.free_text import free_text
from probes.errors import UserError
from probes.likelihood import repeated_fraction
from probes.sites import Site
from steering.directions import Direction
from steering.formats import from_gguf, to_gguf
from steering.interventions import When
from steering.strength import CLOSE, plain_kl
from tests.support.shell import shell


def direction() -> Direction:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    return Direction(vector, Site(2), name="d", resid_norm=6.0)


def test_a_sweep_measures_every_strength_and_its_controls(tiny: Model, tmp_path: Path) -> None:
    items = load_task("chain-sum", limit=5).dev[:5]
    series, strengths = series_of(direction(), when=When.every_step(), controls=2), [0.5, 2.0]
    run = sweep(tiny, items, series, strengths, prompt=Prompt(), max_new_tokens=10, out=tmp_path / "run")
    result = dose(run, tiny, items, series, strengths)
    rows = {(r["series"], r["strength"]): r for r in result["rows"]}
    assert set(rows) == {(UNSTEERED, 0.0), *((s, x) for s in ("d", "random 0", "random 1") for x in strengths)}
    assert rows["d", 2.0]["push"] > 2 * rows["d", 0.5]["push"] > 0 == rows[UNSTEERED, 0.0]["push"]
    assert rows["random 0", 2.0]["push"] == pytest.approx(rows["d", 2.0]["push"], rel=0.5)
    assert rows["d", 2.0]["changed"] > 0 and rows[UNSTEERED, 0.0]["changed"] == 0
    trace = run.traces["d × 2"][items[0].id][0]
    with torch.no_grad():
        ids = Prompt().ids(items[0].question, tiny.tokenizer)
        logits = tiny.lm(input_ids=torch.tensor([ids + trace.tokens])).logits[0, len(ids) - 1 : -1]
    own = torch.nn.functional.cross_entropy(logits, torch.tensor(trace.tokens))
    alone = sweep(tiny, items[:1], series[:1], [2.0], prompt=Prompt(), max_new_tokens=10, out=tmp_path / "one")
    (_, row) = dose(alone, tiny, items[:1], series[:1], [2.0])["rows"]
    assert row["perplexity"] == pytest.approx(float(own.exp()), rel=1e-3)
    assert row["degenerate"] == int(repeated_fraction(trace.tokens) > 0.5 or not trace.text.strip())
    assert json.loads((tmp_path / "run" / "dose.json").read_text())["rows"] == result["rows"]
    figure = dose_response(result)
    assert {t.name for t in figure.data} == {"d", "2 random directions"}
    assert len(run.metrics["delivery"]) == 6


def test_a_series_of_the_name_of_what_is_not_steered_is_refused(tiny: Model, tmp_path: Path) -> None:
    series = series_of(replace(direction(), name=UNSTEERED), when=When.every_step(), controls=0)
    with pytest.raises(UserError, match="a series is named 'unsteered', as what is not steered is"):
        sweep(tiny, load_task("chain-sum", limit=2).test, series, [1.0], prompt=Prompt(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_random_directions_of_several_sites_are_several() -> None:
    plan = tuple(
        series_of(replace(direction(), site=Site(n)), when=When.prompt(), controls=0)[0].plan[0] for n in (1, 2)
    )
    drawn = [one.what.source.vector for one in with_controls(Series("d", plan), 1)[1].plan]
    assert abs(torch.cosine_similarity(*drawn, dim=0)) < 0.5
    assert torch.equal(drawn[0], direction().random_like(0).vector)


def test_a_plan_keeps_its_own_times(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    plan = series_of(direction(), when=When.steps(1), controls=0)[0].plan
    Elicited(tiny, "m", interventions=plan).save(tmp_path / "bundle")
    common = (
        "steer", "--model", str(tiny_folder), "--dtype", "float32", "--limit", "2", "--max-new-tokens", "4", "--random",
        "0", "--strength", "1", "--direction", str(tmp_path / "bundle"),
    )  # fmt: skip
    for more, expected in (((), When.steps(1)), (("--when", "prompt"), When.prompt())):
        out = tmp_path / f"run{len(more)}"
        code, _, err = shell(*common, "--out", str(out), *more, "--json")
        assert code == 0, err
        (one,) = Elicited.load(out / "direction", tiny).interventions
        assert one.when == expected
    code, _, err = shell(*common, "--unit", "resid")
    assert code == 2 and "a plan has units of its own: leave --unit out" in err


def test_free_text_is_not_graded(tiny: Model, tmp_path: Path) -> None:
    items = free_text(["One plus one", "The end"])
    series = [Series("d", series_of(direction(), when=When.steps(2), controls=0)[0].plan)]
    run = sweep(
        tiny, items, series, [1.0], prompt=Prompt("template", template="{question}"), max_new_tokens=6,
        out=tmp_path / "run",
    )  # fmt: skip
    result = dose(run, tiny, items, series, [1.0])
    assert all(r["accuracy"] is None for r in result["rows"])
    assert len(dose_response(result).data) == 3


def test_what_lost_its_verdicts_has_no_accuracy(tiny: Model, tmp_path: Path) -> None:
    items, strengths = load_task("chain-sum", limit=4).dev[:4], [1.0, 2.0]
    series = series_of(direction(), when=When.every_step(), controls=1)
    run = sweep(tiny, items, series, strengths, prompt=Prompt(), max_new_tokens=3, out=tmp_path / "run")
    for lost, without in (("d × 1", 1), ("random 0 × 1", 1), (UNSTEERED, len(run.metrics["arms"]))):
        arm = run.metrics["arms"][lost]
        arm["unjudged"] = {"time": 1}
        result = dose(run, tiny, items, series, strengths)
        (row,) = (r for r in result["rows"] if r["accuracy"] is None)
        assert row["stated"] is False and "interval" not in row
        assert sum("difference" not in r for r in result["rows"]) == without
        of_row = dict(zip(HEAD, _rows(result)[result["rows"].index(row)], strict=True))
        assert of_row["accuracy [95%]"] == f"not stated ({100 * arm['accuracy']:.1f} or more)"
        assert of_row["difference [95%]"] == ""
        drawn = next(list(trace.y) for trace in dose_response(result).data if trace.name == "d")
        assert len(drawn) == 3 - (lost in (UNSTEERED, "d × 1"))
        arm["unjudged"] = {}


def test_along_the_direction_that_was_saved(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same plan under another name, so its run is another one and has a folder of its own."""
    monkeypatch.chdir(tmp_path)
    common = (
        "steer", "--model", str(tiny_folder), "--dtype", "float32", "--limit", "2", "--max-new-tokens", "2",
        "--random", "0", "--strength", "1", "--json",
    )  # fmt: skip
    code, out, err = shell(*common)
    assert code == 0, err
    first = Path(json.loads(out)["run"])
    code, out, err = shell(*common, "--direction", str(first / "direction"))
    assert code == 0, err
    assert Path(json.loads(out)["run"]) != first and json.loads(out)["rows"][1]["series"] == "direction"
    assert json.loads(shell(*common)[1])["run"] == str(first)


def test_from_the_shell(tiny_folder: Path, tmp_path: Path) -> None:
    common = ("steer", "--model", str(tiny_folder), "--dtype", "float32", "--limit", "3", "--max-new-tokens", "6")
    code, out, _ = shell(
        *common, "--strength", "0.5,1", "--random", "1", "--out", str(tmp_path / "run"), "--gguf",
        str(tmp_path / "v.gguf"), "--json",
    )  # fmt: skip
    assert code == 0
    result = json.loads(out)
    assert len(result["rows"]) == 5
    page = (tmp_path / "run" / "steer.html").read_text()
    assert "Manipulation check" in page and "<script src" not in page
    (one,) = from_gguf(tmp_path / "v.gguf")
    assert one.sites == (Site(3),)
    for source in (tmp_path / "v.gguf", tmp_path / "run" / "direction"):
        code, out, err = shell(*common, "--direction", str(source), "--strength", "1", "--out",
                               str(tmp_path / source.stem), "--prompt", "Q: 1 + 1 =", "--json")  # fmt: skip
        assert code == 0, err
        rows = json.loads(out)["rows"]
        assert rows[1]["push"] > 0 and [r["series"] for r in rows[2:]] == ["random 0", "random 1", "random 2"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--strength", "0.5,x"), "separated by commas"),
        (("--strength", "0,1"), "without 0"),
        (("--layer", "9"), "give 0 to 3"),
        (("--point", "resid_mid"), "did you mean resid_"),
        (("--when", "each-step"), "every-step"),
        (("--when", "steps:x"), "like steps:8"),
        (("--unit", "norm"), "unit"),
        (("--how", "mean"), "did you mean means"),
        (("--contrast", "qa"), "positive,negative"),
        (("--contrast", "qa-kot,qa"), "qa-cot"),
        (("--contrast", "qa,qa"), "do not differ"),
        (("--direction", "none.gguf"), "not there"),
        (("--strenght", "1"), "did you mean --strength"),
        (("--feature", "5"), "--feature given without --sae"),
        (("--unchecked",), "--unchecked given without --sae"),
        (("--feature", "5", "--unchecked"), "--feature, --unchecked given without --sae"),
        (("--sae", "s", "--layer", "3", "--point", "mlp_out"), "--layer, --point given with --sae"),
        (("--sae", "s", "--how", "pca"), "--how given with --sae"),
        (("--sae", "s", "--contrast", "qa,chat"), "--contrast given with --sae"),
        (("--direction", "d", "--layer", "3"), "--layer given with --direction"),
        (
            ("--direction", "d", "--layer", "3", "--contrast", "qa,chat", "--how", "foo", "--point", "bar"),
            "--contrast, --how, --layer, --point given with --direction",
        ),
        (("--direction", "d", "--feature", "3"), "--feature given without --sae"),
        (("--direction", "d", "--sae", "s"), "give one of them"),
    ],
)
def test_mistakes_are_one_line(tiny_folder: Path, tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    code, out, err = shell(
        "steer", "--model", str(tiny_folder), "--dtype", "float32", "--limit", "2", "--max-new-tokens", "4", "--out",
        str(tmp_path / "run"), *arguments,
    )  # fmt: skip
    assert code == 2 and out == ""
    assert word in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_vector_of_another_width_is_refused(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    narrow = replace(direction(), vector=torch.ones(16))
    plan = series_of(narrow, when=When.everywhere(), controls=0)[0].plan
    file = to_gguf(plan, tmp_path / "n.gguf", "llama")
    code, _, err = shell("steer", "--model", str(tiny_folder), "--direction", str(file), "--limit", "2", "--out",
                         str(tmp_path / "run"))  # fmt: skip
    assert code == 2 and "width 16" in err and not (tmp_path / "run").exists()


def test_a_strength_by_budget(tiny_folder: Path, tmp_path: Path) -> None:
    common = ("steer", "--model", str(tiny_folder), "--dtype", "float32", "--limit", "2", "--max-new-tokens", "2")
    where = ("--random", "0", "--layer", "1", "--out", str(tmp_path / "kl"))
    code, out, _ = shell(*common, *where, "--kl", "0.1", "--json")
    result = json.loads(out)
    (strength,) = {row["strength"] for row in result["rows"]} - {0.0}
    assert code == 0 and result["kl"] == {"0.1": strength}
    model = load_model(str(tiny_folder), dtype="float32", device="cpu")
    plan = Elicited.load(tmp_path / "kl" / "direction", model).interventions
    assert plain_kl(model.lm, tuple(one.times(strength) for one in plan), plain_texts(model)) == pytest.approx(
        0.1, rel=CLOSE
    )
    for words, told in (
        (["--kl", "0.1", "--strength", "0.2"], "--strength 0.2 and --kl 0.1 were given; give one of them"),
        (["--kl", "much"], "kl 'much' was given; give numbers of nats"),
        (["--kl", ","], "--kl ',' was given; give numbers of nats"),
    ):
        code, out, err = shell(*common, *words)
        assert code == 2 and told in err and err.count("\n") == 1 and not out
