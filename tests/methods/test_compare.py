"""All methods on the same items: fitted once, resumed, compared; what does not belong together is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from elicit.evaluation import Run
from elicit.evaluation.run.arms import folder_names
from elicit.methods import BASELINES, METHODS, check_options, quick_of
from elicit.methods import compare as together
from elicit.methods.compare import SharedOptions, run_together
from elicit.models import Model, load_model
from elicit.report import compare_runs, head_of, rows_of
from elicit.report.comparison import entries, remarks
from elicit.report.page import render_all
from elicit.tasks import Task, load_task
from probes.errors import UserError
from tests.support.shell import shell
from tests.support.tiny import save_tiny
from tests.support.unsealed import unsealed
from tests.support.written import written_run, written_task

TASK = "chain-sum:min_terms=2,max_terms=2"
NAMES = ("cot-decoding", "direct", "self-consistency")
SHARED = SharedOptions(max_new_tokens=6, controls=True)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(TASK, limit=4)


@pytest.fixture(scope="module")
def folder(tiny: Model, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("all") / "them"
    run_together(tiny, task.test, NAMES, SHARED, out=out)
    return out


def test_each_is_fitted_once_and_found_done(
    folder: Path, tiny: Model, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[str] = []
    fit = together.fit
    monkeypatch.setattr(together, "fit", lambda name, *a, **k: fitted.append(name) or fit(name, *a, **k))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")}
    lines: list[str] = []
    done = run_together(tiny, task.test, [*NAMES, "cot-prompt"], SHARED, out=folder, log=lines.append)
    assert fitted == ["cot-prompt"]  # what was added; the others are done
    assert [run.metrics["method"] for run in done.runs] == ["direct", "self-consistency", "cot-prompt", "cot-decoding"]
    assert before == {path: path.stat().st_mtime_ns for path in before} and len(before) == 3
    assert "1/4 direct: done" in lines and set(done.fit_seconds) == {*NAMES, "cot-prompt"}

    run = folder / "runs" / "cot-decoding"
    whole = (run / "samples.jsonl").read_bytes()
    (run / "metrics.json").unlink()
    (run / "samples.jsonl").write_bytes(whole[: len(whole) // 2])
    again = run_together(tiny, task.test, NAMES, SHARED, out=folder)
    assert fitted == ["cot-prompt"] and len(again.runs) == 3
    assert (run / "samples.jsonl").read_bytes() == whole


def test_another_comparison_is_refused(folder: Path, tiny: Model, task: Task, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another seed, quick; give another --out"):
        run_together(tiny, task.test, NAMES, replace(SHARED, seed=1, quick=True), out=folder)
    with pytest.raises(UserError, match="another items"):
        run_together(tiny, task.test[:2], NAMES, SHARED, out=folder)
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no comparison"):
        run_together(tiny, task.test, NAMES, SHARED, out=tmp_path)
    with pytest.raises(UserError, match="no methods"):
        run_together(tiny, task.test, (), SHARED, out=tmp_path / "new")


def test_a_method_that_refuses_is_left_out_where_it_was_not_named(tiny: Model, task: Task, tmp_path: Path) -> None:
    shared = SharedOptions(max_new_tokens=4)
    done = run_together(tiny, task.test, ["vector-transfer", "direct"], shared, out=tmp_path / "a", optional=True)
    assert [run.metrics["method"] for run in done.runs] == ["direct"]
    assert "no thinking model" in done.left_out["vector-transfer"]
    result = compare_runs(done.runs, left_out=done.left_out)
    assert any(line.startswith("vector-transfer is left out: no thinking model") for line in remarks(result))
    with pytest.raises(UserError, match="no thinking model"):
        run_together(tiny, task.test, ["vector-transfer"], shared, out=tmp_path / "b")


def test_every_methods_short_settings_are_options_that_it_has() -> None:
    for name in METHODS:
        check_options(name, quick_of(name))
        options = SharedOptions(quick=True, max_new_tokens=9).options(name)
        assert options["max_new_tokens"] == 9 and options.items() >= quick_of(name).items()
        assert not quick_of(name).keys() & SharedOptions().options(name).keys()
    fitless = {"cot-decoding", "power-sampling", "no-thinking", "budget-forcing", "cognitive-tools", *BASELINES}
    assert {name for name in METHODS if quick_of(name)} == set(METHODS) - fitless


def test_controls_stand_beside_their_mechanism(folder: Path) -> None:
    runs = [Run.load(folder / "runs" / name) for name in ("cot-decoding", "direct", "self-consistency")]
    arms = entries(runs)
    assert [arm.key for arm in arms][:3] == ["direct", "self-consistency", "cot-prompt"]  # each once
    of = [arm.of for arm in arms]
    assert of[:4] == ["", "", "", ""] and set(of[4:]) == {"cot-decoding"} and arms[3].key == "cot-decoding"
    result = compare_runs(runs, fit_seconds={"cot-decoding": 12.0})
    for row in result["arms"][1:]:
        assert row["corrected"] - row["harmed"] == pytest.approx(row["difference"])
        assert row["holm_p"] >= row["mcnemar_p"]
    shown = rows_of(result)
    assert all(len(row) == len(head_of(result)) for row in shown)
    assert shown[3][-2] == "12" and shown[4][0].startswith("· ")
    json.dumps(result, allow_nan=False)


def test_budgets_of_two_mechanisms_are_two_arms(tiny: Model, tmp_path: Path) -> None:
    items = written_task(6)
    say = {"right": lambda item, b: f"so {item.answer}", "wrong": lambda item, b: "so 99"}
    a = written_run(tiny, tmp_path / "a", items, "a", {"a": say["right"], "direct@budget": say["wrong"]})
    b = written_run(tiny, tmp_path / "b", items, "b", {"b": say["wrong"], "direct@budget": say["right"]})
    arms = entries([a, b, a])
    assert [arm.name for arm in arms] == ["a", "a: direct@budget", "b", "b: direct@budget"]
    rows = compare_runs([a, b], baseline="b")["arms"]
    assert [row["accuracy"] for row in rows] == [1.0, 0.0, 0.0, 1.0]
    assert rows[0]["corrected"] == 1.0 and rows[0]["harmed"] == 0.0


def test_runs_in_folders_of_one_name_keep_their_own_numbers(tiny: Model, tmp_path: Path) -> None:
    items, runs = written_task(6), []
    for seed in (0, 1, 2):
        say = {
            "m": lambda item, b, seed=seed: f"so {item.answer if int(item.id[-1]) <= seed else 99}",
            "direct": lambda item, b: "so 99",
        }
        runs.append(written_run(tiny, tmp_path / f"seed{seed}" / "m", items, "m", say))
    took = {str(run.folder): 10.0 + seed for seed, run in enumerate(runs)}
    result = compare_runs(runs, fit_seconds=took)
    rows = {row["arm"]: row for row in result["arms"] if row["key"] == "m"}
    assert list(rows) == [f"m (seed{seed}/m)" for seed in (0, 1, 2)] == list(result["bottom_lines"])
    own = [run.metrics["arms"]["m"]["accuracy"] for run in runs]
    assert [row["accuracy"] for row in rows.values()] == own and len(set(own)) == 3
    assert [row["fit_seconds"] for row in rows.values()] == [10.0, 11.0, 12.0]
    assert list(folder_names(runs).values()) == ["seed0/m", "seed1/m", "seed2/m"]
    assert folder_names([runs[0], runs[0]]) == {runs[0]: "m"} and folder_names([]) == {}
    page = render_all(runs, result)
    assert all(f">m (seed{seed}/m)<" in page for seed in (0, 1, 2))


def test_what_another_run_lost_decides_nothing_of_a_method(tiny: Model, tmp_path: Path) -> None:
    say = {"right": lambda item, b: f"so {item.answer}", "wrong": lambda item, b: "so 99"}
    items = written_task(6)
    other = written_run(tiny, tmp_path / "a", items, "a", {"a": say["wrong"], "direct": say["wrong"]})
    own = written_run(tiny, tmp_path / "m", items, "m", {"m": say["right"], "direct": say["wrong"]})
    other.metrics["arms"]["a"]["unjudged"] = {"time": 6}
    lines = compare_runs([other, own])["bottom_lines"]
    assert lines["a"].startswith("No accuracy is stated: 6 of 6 answers of a") and "6 of 6" not in lines["m"]
    other.metrics["arms"]["direct"]["unjudged"] = {"time": 6}  # from which gains are measured
    assert "6 of 6 answers of direct" in compare_runs([other, own])["bottom_lines"]["m"]


def test_what_does_not_belong_together_is_said(tiny: Model, tmp_path: Path) -> None:
    say = {"direct": lambda item, b: f"so {item.answer}" + " and more" * int(item.id[-1])}
    whole = written_run(tiny, tmp_path / "whole", written_task(6), "direct", say)
    part = written_run(tiny, tmp_path / "part", written_task(4), "m", {"m": lambda item, b: "so 1"})
    result = compare_runs([whole, part])
    assert result["items"] == 4
    row, spent = result["arms"][0], [whole.outcomes["direct"][i][0].spent for i in part.metrics["arms"]["m"]["scores"]]
    assert row["tokens_per_item"] == sum(spent) / 4 < whole.metrics["arms"]["direct"]["tokens_per_item"]
    assert row["seconds"] is None and "nan" not in str(rows_of(result))
    assert "different items" in result["notes"][0] and f"{tmp_path / 'part'}: 4" in result["notes"][0]

    other = load_model(str(save_tiny(tmp_path / "model", "gpt2")), dtype="float32", device="cpu")
    elsewhere = written_run(other, tmp_path / "other", written_task(6), "direct", say)
    with pytest.raises(UserError, match=r"different models .*whole.*other"):
        compare_runs([whole, elsewhere])

    text = (unsealed(part.folder) / "items.jsonl").read_text()
    (part.folder / "items.jsonl").write_text(text.replace("What is 2", "How much is 2"))
    with pytest.raises(UserError, match=r"'q-2' is another question in .*part"):
        compare_runs([whole, Run.load(part.folder)])
    with pytest.raises(UserError, match="unknown baseline 'dirct'; did you mean direct"):
        compare_runs([whole], baseline="dirct")


def test_all_right_all_wrong_and_one_item_have_a_result(tiny: Model, tmp_path: Path) -> None:
    for size, name in ((1, "one"), (5, "five")):
        right = written_run(
            tiny, tmp_path / name, written_task(size), "m",
            {"m": lambda item, b: f"so {item.answer}", "direct": lambda item, b: "so 99"},
        )  # fmt: skip
        row = compare_runs([right])["arms"][1]
        assert row["difference"] == 1.0 and row["difference_interval"][1] == 1.0 and row["corrected"] == 1.0
        assert row["difference_interval"][0] < 1.0  # so few questions prove little


def test_the_command_fits_compares_and_writes_a_page(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = (
        "compare", "--methods", "direct,cot-decoding", "--model", str(tiny_folder), "--dtype", "float32",
        "--task", TASK, "--limit", "3", "--max-new-tokens", "5", "--out", str(out),
    )  # fmt: skip
    code, text, err = shell(*common, "--json")
    assert code == 0, err
    result = json.loads(text)
    assert result == json.loads((out / "comparison.json").read_text())
    assert [row["arm"] for row in result["arms"]] == ["direct", "cot-decoding"] and result["arms"][1][
        "fit_seconds"
    ] >= 0
    page = (out / "report.html").read_text()
    assert "How it was made" in page and "id='b-index'" in page
    code, text, err = shell(*common)
    assert code == 0 and "1/2 direct: done" in err and "δc" in text and "comparison.json" in text

    code, text, err = shell("report", str(out), "--out", str(tmp_path / "page.html"))
    assert code == 0 and "2 runs" in text, err
    assert "Corrected and harmed" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compare", "--methods", "dirct"), "unknown method 'dirct'; did you mean direct"),
        (("compare", "--methods", "direct", "--limit", "0"), "limit of 0 items"),
        (("compare", "runs/a", "--limit", "3", "--quick", "--controls"), "--limit, --quick, --controls given for runs"),
        (("compare", "runs/a", "--engine-set", "a=1", "--model", "tiny"), "--model, --engine-set given for runs that"),
        (("compare", "--methods", "direct", "--max-new-tokens", "0"), "limit of 0 new tokens"),
        (("report", "nowhere"), "'nowhere' holds no run"),
        (("report",), "missing argument"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], said: str) -> None:
    code, _, err = shell(*arguments)
    assert code == 2 and said in err and err.count("\n") == 1
