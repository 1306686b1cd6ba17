"""Natural models in one table: what ended is kept, a second call decodes nothing, and what was not run says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elicit.methods.compare import RUNS
from experiments.natural import table
from experiments.natural.__main__ import main
from experiments.natural.settings import METHODS, MODELS, TASKS

CHEAP = "direct,cot-prompt,cot-decoding"


@pytest.fixture
def asked(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command on a tiny model, in an empty folder, whose results are kept there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS, str(tiny_folder), ("qa",))
    for name, value in (("README", tmp_path / "README.md"), ("RESULT", tmp_path / "natural.json")):
        monkeypatch.setattr(table, name, value)
    (tmp_path / "README.md").write_text(f"Before.\n{table.BEGIN}\nformer\n{table.END}\nAfter.\n")
    rows = [{"id": str(n), "question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(40)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["--model", str(tiny_folder), "--task", "multiarith=sums.jsonl", "--limit", "4", "--max-new-tokens", "6"]
    return [*words, "--methods", CHEAP, "--no-controls"]


def test_what_ended_is_kept_and_found_again(asked: list[str], tiny_folder: Path, tmp_path: Path) -> None:
    main([*asked, "--keep"])
    text = (tmp_path / "README.md").read_text()
    kept = json.loads((tmp_path / "natural.json").read_text())
    (one,) = kept["tables"].values()
    assert [row["arm"] for row in one["arms"]] == CHEAP.split(",") and one["items"] == 4
    assert {"vote", "oracle"} <= {rule["rule"] for rule in one["rules"]}
    assert text.startswith("Before.\n") and text.endswith("After.\n") and "former" not in text
    assert len({line.count("|") for line in text.split("\n\n")[0].splitlines() if line.startswith("|")}) == 1
    assert one["model"]["sha256"][:12] in text and "multiarith=sums.jsonl" in text
    samples = sorted((tmp_path / "runs").glob(f"compare-*/{RUNS}/*/metrics.json"))
    before = [file.stat().st_mtime_ns for file in samples]
    main([*asked, "--ended", "--keep"])
    assert [file.stat().st_mtime_ns for file in samples] == before and len(samples) == 3
    (again,) = table.load()["tables"].values()
    assert again["arms"] == one["arms"]


def test_what_was_not_run_is_named_with_its_command(asked: list[str], tiny_folder: Path) -> None:
    main([*asked, "--keep"])
    left = table.missing(table.load())
    mine = [row for row in left if row[0] == str(tiny_folder)]
    assert {row[1] for row in mine} == {"qa"} and {row[2] for row in mine} == set(TASKS)
    assert set(mine[0][3].split(", ")) == set(METHODS) - set(CHEAP.split(","))
    assert "--prompt qa --task multiarith --methods" in mine[0][5] and mine[0][4] == table.UNKNOWN
    assert mine[1][3] == "all" and mine[1][5].endswith("--task gsm8k`")


def test_the_plan_says_what_is_not_there_yet(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main([*asked, "--plan", "--keep"])
    said = capsys.readouterr().out
    assert all(f"| {name} | at most " in said for name in CHEAP.split(","))
    assert set(next(iter(table.load()["costs"].values()))) == set(CHEAP.split(","))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (["--model", "gemma"], "unknown model"),
        (["--task", "multiarith=none.jsonl"], "there is no file"),
        (["--task", "multiarith,multiarith"], "once"),
        (["--task", "multi"], "unknown task"),
        (["--methods", "directly"], "unknown method"),
        (["--ended"], "has not ended"),
        (["--prompt", "chat"], "is asked by qa"),
        (["--prompt", "thread"], "unknown prompt"),
    ],
)
def test_a_mistake_is_one_line(
    asked: list[str], change: list[str], word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*asked, *change])
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 2 and word in said and "\n" not in said
    assert not (tmp_path / "runs").exists()


def test_what_is_kept_is_what_the_readme_shows() -> None:
    text = table.README.read_text(encoding="utf-8")
    inner = text.partition(table.BEGIN)[2].partition(table.END)[0].strip()
    assert inner == table.shown(table.load()).strip(), "run python -m experiments.natural with --keep"


def test_rows_of_another_time_stand_beside_those_of_now(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*asked, "--keep"])
    (whole,) = table.load()["tables"].values()
    (tmp_path / "natural.json").unlink()
    for some in ("direct,cot-decoding", "direct,cot-prompt"):
        inner = tmp_path / some
        inner.mkdir()
        (inner / "sums.jsonl").write_bytes((tmp_path / "sums.jsonl").read_bytes())
        monkeypatch.chdir(inner)
        main([*asked, "--methods", some, "--keep"])
    (both,) = table.load()["tables"].values()
    assert [row["key"] for row in both["arms"]] == ["direct", "cot-prompt", "cot-decoding"]
    untimed = [{key: value for key, value in row.items() if "seconds" not in key} for row in both["arms"]]
    assert untimed == [{key: value for key, value in row.items() if "seconds" not in key} for row in whole["arms"]]
    assert both["rules"] == whole["rules"] and both["bottom_lines"] == whole["bottom_lines"]
    assert "--methods direct,cot-prompt,cot-decoding" in both["command"]
    kept = table.load()
    next(iter(kept["tables"].values()))["arms"][0]["tokens_per_item"] += 1.0
    table.keep(kept)
    with pytest.raises(SystemExit) as stopped:
        main([*asked, "--methods", "direct", "--keep"])
    assert stopped.value.code == 2 and "run all methods, or take the kept ones out" in capsys.readouterr().err
    assert table.load() == kept
