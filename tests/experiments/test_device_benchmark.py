"""The measurements that a GPU is for, run on a CPU so that they are known to work where a card is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.benchmarks import device
from experiments.benchmarks.device_rows import MEASURES, Bench


def test_each_measurement_measures() -> None:
    bench = Bench("tiny", "cpu")
    found = {row: measure(bench, "hf") for row, measure in MEASURES.items()}
    assert set(found) == {*device.MOST, *device.LATER}
    assert all(found[row]["tok_s"] > 0 for row in found if row not in ("parts", "profile", "same-tokens"))
    assert found["same-tokens"] == {"alike": 1.0, "whole": 1.0}
    assert found["profile"]["operators"] > 50 and found["profile"]["ms"] > 0  # of one step of four layers
    assert bench.of("graph+fuse").engine_options == {"fuse": True} and not bench.of("graph").engine_options
    assert found["unequal"]["rows"] == found["cot-decoding"]["rows"] == 6


def test_one_run_keeps_what_was_found_and_why_the_rest_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device.main(
        ["--device", "cpu", "--shapes", "tiny", "--engine", "hf,missing", "--rows", "cot-decoding,floor",
         "--before", str(device.HERE), "--out", str(tmp_path / "kept")]
    )  # fmt: skip
    kept = json.loads((tmp_path / "kept.json").read_text())
    by = {(one["row"], one["column"]): one for one in kept["found"]}
    assert by["cot-decoding", "hf"]["tok_s"] > 0 and by["cot-decoding", "before"]["tok_s"] > 0
    assert "unknown engine 'missing'" in by["cot-decoding", "missing"]["error"]
    assert "GPU" not in kept["made"]["device"] and kept["made"]["torch"]
    text = (tmp_path / "kept.md").read_text()
    assert "| model |  | before | hf | missing |" in text and text in capsys.readouterr().out


def test_the_program_is_one_of_the_measurements(tiny_folder: Path) -> None:
    program = f"--methods direct --model {tiny_folder} --limit 2 --max-new-tokens 4 --dtype float32"
    found = device.compare(device.HERE, "cpu", "hf", program, 500.0)
    assert found["seconds"] > 0 and found["accuracy"] == {"direct": 0.0}
    told = device.tables([{"row": "compare", "shape": "", "column": "hf", **found}], {"device": "none"}, program)
    assert f"| hf | {found['seconds']} | direct 0.0 |" in told


def test_measurements_stand_in_the_order_of_their_worth_and_stop_when_time_is_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = device.plan(["1.5b", "7b"], device.ENGINES, [*device.MOST, "compare", *device.LATER], before=True)
    rows = [one.row for one in asked]
    assert rows.index("compare") > max(n for n, one in enumerate(asked) if one.row == "floor")
    assert rows.index("profile") > rows.index("compare")
    assert [one.column for one in asked if (one.row, one.shape) == ("cot-decoding", "7b")] == [
        *device.ENGINES, "before",
    ]  # fmt: skip
    assert [one.column for one in asked if (one.row, one.shape) == ("same-tokens", "7b")] == ["graph", "graph+fuse"]
    assert [one.column for one in asked if one.row == "compare"] == ["hf", "graph"]
    device.main(["--device", "cpu", "--shapes", "tiny", "--engine", "hf", "--seconds", "0"])
    assert "- tiny cot-decoding (hf), tiny generate (hf), " in capsys.readouterr().out
