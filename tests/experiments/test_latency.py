"""Mechanisms by latency: what ended is kept and found again, what follows from it, and the picture of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from elicit.evaluation.metrics.gap import CEILING, DIRECT
from elicit.models import load_model
from experiments.organisms.latency import cells, table
from experiments.organisms.latency.__main__ import main
from experiments.organisms.latency.cells import LATENCIES, LATENT, METHODS, SEEDS, TWINS, chosen, grid, least_fall
from experiments.organisms.latency.picture import FROM, TO, up
from probes.statistics import Interval

N = 40
SVG = "{http://www.w3.org/2000/svg}"


def digits(right: int, n: int = N) -> str:
    return "1" * right + "0" * (n - right)


def some(rights: dict[str, int]) -> dict[str, Any]:
    """Kept cells of which each has so many right answers, with a gap of 4 to 36 on all organisms but two twins."""
    spans = {
        model: {"sha256": "0" * 64, DIRECT: digits(4), CEILING: digits(4 if model in TWINS[:3] else 36)}
        for model in (*LATENCIES.values(), *TWINS)
    }
    made = {}
    for name, right in rights.items():
        method, model, seed = name.split(":")
        made[name] = {
            "method": method, "model": model, "seed": int(seed), "right": digits(right), "tokens": 80.0,
            "cpu_seconds": 120.0, "made": "2026-11-29",
        }  # fmt: skip
    return {"settings": table.SETTINGS, "spans": spans, "cells": made}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page, its numbers and its picture in an empty folder, where the command runs as well."""
    monkeypatch.chdir(tmp_path)
    for name, file in (("README", "README.md"), ("RESULT", "latency.json"), ("PICTURE", "new/gap.svg")):
        monkeypatch.setattr(table, name, tmp_path / file)
    (tmp_path / "README.md").write_text(f"Before.\n{table.BEGIN}\nformer\n{table.END}\nAfter.\n")
    return tmp_path


def test_the_grid_holds_each_cell_once_and_begins_with_the_ends() -> None:
    every = grid()
    assert len(set(every)) == len(every)
    assert len(every) == (len(LATENCIES) + len(TWINS)) * ((len(METHODS) - 1) * len(SEEDS) + 1)
    first = [cell.model for cell in every[: 2 * len(METHODS)]]
    assert set(first) == {LATENCIES[0.02], LATENCIES[0.3]} and {cell.seed for cell in every[:35]} == {0}
    assert [str(cell) for cell in chosen("sae-steer:latent:1,cot-decoding:latent")] == [
        "cot-decoding:latent:0", "sae-steer:latent:1"
    ]  # fmt: skip
    assert len(chosen("critique-ft")) == 21 and chosen("") == every


def test_so_many_questions_see_the_fall_that_is_said() -> None:
    """Of draws in which a mechanism recovers the whole gap at one latency, and so much less at another, 80% show it."""
    fall, rng, seen = least_fall(N), np.random.default_rng(0), 0

    def drawn(p: float) -> str:
        return "".join(map(str, (rng.random(N) < p).astype(int)))

    for _ in range(200):
        kept = some({"sae-steer:latent-p02:0": 0, "sae-steer:latent-p30:0": 0})
        for model, right in (("latent-p02", 0.92 - fall * 0.82), ("latent-p30", 0.92)):
            kept["spans"][model] = {DIRECT: drawn(0.1), CEILING: drawn(0.92)}
            kept["cells"][f"sae-steer:{model}:0"]["right"] = drawn(right)
        found = table.fall(kept, "sae-steer")
        assert found is not None
        seen += found.interval.low > 0
    assert 0.7 < seen / 200 < 0.9, (fall, seen)
    assert least_fall(160) < least_fall(40) < 0.4


def test_fractions_are_of_the_right_gap() -> None:
    kept = some({"sae-steer:latent-p02:0": 20, "sae-steer:latent-p30:0": 36, "sae-steer:absent:0": 12})
    assert table.found(kept, "sae-steer", "latent-p02").value == pytest.approx(0.5)  # type: ignore[union-attr]
    assert table.found(kept, "sae-steer", "absent").value == pytest.approx(0.25)  # type: ignore[union-attr]
    assert table.found(kept, "sae-steer", LATENT) is None and table.fall(kept, "cot-decoding") is None
    less = table.fall(kept, "sae-steer")
    assert less is not None and less.value == pytest.approx(0.5) and 0 < less.interval.low < 0.5 < less.interval.high
    assert table.asked(kept, "absent")[0] == 0 and table.asked(kept, "missing-skill")[0] == 1  # type: ignore[index]


def test_seeds_that_differ_widen_the_interval() -> None:
    one = table.found(some({"critique-ft:latent:0": 20}), "critique-ft", "latent")
    alike, apart = (
        table.found(some({f"critique-ft:latent:{n}": right for n, right in enumerate(rights)}), "critique-ft", "latent")
        for rights in ((20, 20, 20), (12, 20, 28))
    )
    assert one and alike and apart
    assert alike.value == apart.value == one.value and alike.interval.pair == pytest.approx(one.interval.pair)
    assert apart.interval.low < one.interval.low and apart.interval.high > one.interval.high


def test_what_was_not_run_is_named_with_its_cost_and_command() -> None:
    kept = some({"cot-decoding:latent:0": 30, "sae-steer:latent:0": 30})
    rows = {row[0]: row for row in table.missing(kept)}
    assert set(rows) == set(METHODS)
    assert (
        rows["cot-decoding"][1].startswith("seed 0: latent-p02, latent-p30, absent") and rows["cot-decoding"][2] == "12"
    )
    assert "; seeds 1, 2: latent-p02" in rows["sae-steer"][1] and rows["sae-steer"][2] == "40"
    assert rows["critique-ft"][2] == table.UNKNOWN and "--left --keep --cells critique-ft`" in rows["critique-ft"][3]
    text = table.shown(kept)
    assert "| not run |" in text and all(model in text for model in (*LATENCIES.values(), *TWINS))
    kept["cells"]["sae-steer:surface:0"] = {
        "method": "sae-steer", "model": "surface", "seed": 0, "refused": "no SAE fits", "cpu_seconds": 1.0,
        "made": "2026-11-29",
    }  # fmt: skip
    assert "- sae-steer on surface, seed 0 refuses: no SAE fits" in table.shown(kept)
    assert not table.missing(some({str(cell): 20 for cell in grid()}))


def test_the_picture_has_a_mark_for_each_number() -> None:
    every = some({str(cell): 20 for cell in grid()})
    full = ElementTree.fromstring(table.drawn(every))
    marks = list(full.iter(f"{SVG}path"))
    lines = list(full.iter(f"{SVG}polyline"))
    assert len(marks) == 7 * len(METHODS) + len(METHODS) and len(lines) == len(METHODS)
    few = ElementTree.fromstring(table.drawn(some({"sae-steer:latent:0": 20})))
    assert len(list(few.iter(f"{SVG}path"))) == 1 + len(METHODS) and not list(few.iter(f"{SVG}polyline"))
    assert up(FROM) > up(0) > up(1) > up(TO) == up(TO + 1) and Interval(FROM, TO)


def test_what_ended_is_kept_and_found_again(page: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "load_model", lambda name, dtype: load_model(str(tiny_folder), dtype=dtype))
    for name, value in (("QUESTIONS", 4), ("SOLVED", 8), ("TOKENS", 6)):
        monkeypatch.setattr(cells, name, value)
    words = ["--cells", "cot-decoding:absent,sae-steer:absent:0"]
    main([*words, "--keep"])
    kept = json.loads((page / "latency.json").read_text())
    one, refused = kept["cells"]["cot-decoding:absent:0"], kept["cells"]["sae-steer:absent:0"]
    assert len(one["right"]) == 4 and set(one["right"]) <= set("01") and one["cpu_seconds"] > 0
    assert "right" not in refused and refused["refused"]  # the shipped SAE is of another model
    assert set(kept["spans"]) == {LATENT, "absent"} and len(kept["spans"]["absent"][CEILING]) == 4
    text = (page / "README.md").read_text()
    assert text.startswith("Before.\n") and text.endswith("After.\n") and "former" not in text
    assert (page / "new/gap.svg").read_text().endswith("</svg>\n")
    files = sorted(page.glob("runs/*/runs/*/metrics.json"))
    before = [file.stat().st_mtime_ns for file in files]
    main([*words[:1], "cot-decoding:absent", "--keep"])
    assert [file.stat().st_mtime_ns for file in files] == before and len(files) >= 3
    again = json.loads((page / "latency.json").read_text())
    assert again["cells"]["cot-decoding:absent:0"] == one and "sae-steer:absent:0" in again["cells"]


def test_the_plan_tells_what_is_kept_what_not_and_the_power(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.keep(some({"cot-decoding:latent:0": 30}))
    main(["--plan", "--cells", "cot-decoding"])
    said = capsys.readouterr().out
    assert "show a fall of 0.3" in said
    assert "| cot-decoding:latent:0 | kept | 2 processor minutes |" in said
    assert "| cot-decoding:absent:0 | not run | 2 processor minutes |" in said and not (page / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cells", "cot-decoding:latent:1"], "unknown cell"),
        (["--cells", "sae"], "METHOD"),
        (["--cells", ","], "joined"),
    ],
)
def test_a_mistake_is_one_line(page: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    err = capsys.readouterr().err.strip()
    assert stopped.value.code == 2 and said in err and "\n" not in err and not (page / "runs").exists()


def test_numbers_of_other_settings_are_not_mixed(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (page / "latency.json").write_text(json.dumps({"settings": {"questions": 8}, "spans": {}, "cells": {}}))
    with pytest.raises(SystemExit):
        main(["--draw"])
    assert "remove it" in capsys.readouterr().err and "former" in (page / "README.md").read_text()


def test_page_and_picture_are_of_what_is_kept() -> None:
    inner = table.README.read_text(encoding="utf-8").partition(table.BEGIN)[2].partition(table.END)[0].strip()
    assert inner == table.shown(table.load()).strip(), f"run {table.COMMAND} --draw"
    assert table.PICTURE.read_text(encoding="utf-8") == table.drawn(table.load()), f"run {table.COMMAND} --draw"
