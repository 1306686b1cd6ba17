"""The map of selecting and creating: readings come out each way, cells are in order, it runs on a tiny model."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from elicit.analysis.behaviour.pass_at_k import Samples
from elicit.elicited import Elicited
from elicit.models import Model, load_model
from experiments.selects_or_creates import __main__ as command
from experiments.selects_or_creates import small
from experiments.selects_or_creates.reading import (
    CREATES,
    NARROWS,
    NOTHING,
    SELECTS,
    UNDECIDED,
    Leads,
    leads,
    mean,
    read,
    row,
)
from probes.errors import UserError
from probes.statistics import Interval


def samples(n: int, right: list[int]) -> Samples:
    return Samples(np.full(len(right), n), np.array(right), np.full(len(right), -1))


def reading(base: list[int], trained: list[int], n: int = 64) -> str:
    return str(row(leads([(samples(n, base), samples(n, trained))], n // 2), together=1)["reading"])


def test_a_cell_is_read_each_way() -> None:
    many = 60
    assert reading([0] * many, [40] * many) == CREATES
    assert reading([20] * many, [0] * 40 + [64] * 20) == NARROWS
    assert reading([20] * many, [60] * many) == SELECTS
    assert reading([30] * many, [30] * many) == NOTHING
    assert reading([0, 64] * 3, [64, 0] * 3) == UNDECIDED
    assert reading([6] * many, [14] * many, n=16) == f"{SELECTS} (k = 8, below 32)"
    assert read(Interval(-0.2, 0.3), Interval(-0.05, 0.05)) == UNDECIDED


def test_leads_are_pass_at_1_and_at_the_largest_k() -> None:
    found = leads([(samples(4, [1, 0] * 20), samples(4, [4, 0] * 20))], 2)
    assert found.first[0] == pytest.approx([0.75, 0.0] * 20) and found.last[0] == pytest.approx([0.5, 0.0] * 20)
    seeds = Leads(np.tile(found.first, (3, 1)) + np.array([[0.0], [0.1], [0.2]]), np.tile(found.last, (3, 1)), 2)
    one, three = (mean(values, 1)[1] for values in (seeds.first[:1], seeds.first))
    assert row(seeds, 2)["seeds"] == 3 and one.pair != three.pair
    assert mean(seeds.first, 9)[1].low <= three.low and mean(seeds.first, 9)[1].high >= three.high


def given(**more: str) -> Namespace:
    return Namespace(**{"organisms": "absent,latent", "trained": "edge,in range", "asked": "familiar", **more})


def test_cells_come_in_the_order_of_their_cost() -> None:
    names = [cell.name for cell in command.cells(given())]
    assert names[:2] == ["latent / in range / familiar", "absent / in range / familiar"]
    assert names[2:] == ["latent / edge / familiar", "absent / edge / familiar"]
    assert len(command.cells(given(**{key: str(value) for key, value in command.FULL.items()}))) == 27
    with pytest.raises(UserError, match="unknown trained 'egde'"):
        command.cells(given(trained="egde"))


def test_of_several_seeds_the_mean_is_shown(tiny: Model) -> None:
    def found(before: float, after: float) -> Elicited:
        return Elicited(
            tiny, "m", options={"found": {"preflight": {"reward": before}, "summary": {"last reward": after}}}
        )

    pairs = [(samples(4, [1, 1]), samples(4, [2, 2])), (samples(4, [1, 1]), samples(4, [4, 4]))]
    cell, more = command.Cell("latent", "in range", "familiar"), Namespace(samples=4, seeds="0,1")
    kept = command.kept(cell, pairs, [found(0.1, 0.3), found(0.3, 0.5)], more, tiny)
    assert kept["pass"]["base"]["1"] == pytest.approx(0.25) and kept["pass"]["trained"]["1"] == pytest.approx(0.75)
    assert kept["reward"] == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize("wrong", ["--limit=-3", "--samples=1", "--updates=-1", "--examples=-1", "--seeds=x"])
def test_numbers_that_leave_nothing_are_one_line(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["run", "--quick", wrong])
    assert ended.value.code == 2 and wrong.split("=")[1] in capsys.readouterr().err


def test_it_runs_resumes_and_is_shown(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "HERE", tmp_path)
    monkeypatch.setattr(command, "ORGANISMS", {"latent": str(tiny_folder), "absent": str(tiny_folder)})
    with pytest.raises(SystemExit) as ended:
        command.main(["table"])
    assert ended.value.code == 2 and "no cell is kept" in capsys.readouterr().err
    few = ["--quick", "--limit", "4", "--samples", "4", "--updates", "1", "--examples", "4", "--max-new-tokens", "6"]
    command.main(["run", *few])
    kept = json.loads((tmp_path / "map.json").read_text(encoding="utf-8"))
    assert list(kept) == ["latent / in range / familiar", "absent / in range / familiar"]
    assert all(len(one["samples"][0]["base"]["n"]) == 4 for one in kept.values())
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*.safetensors")}
    command.main(["run", *few])
    assert before == {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert "(k = 2, below 32)" in capsys.readouterr().out


def test_small_organisms_are_made_from_nothing_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "HERE", tmp_path)
    monkeypatch.setattr(small, "KEPT", tmp_path / "small")
    with pytest.raises(SystemExit) as ended:
        command.main(["run", "--small"])
    assert ended.value.code == 2 and "selects_or_creates make first" in capsys.readouterr().err
    monkeypatch.setattr(small, "RECIPE", replace(small.RECIPE, steps=2, rows=2, part=2))
    command.main(["make"])
    about = json.loads((tmp_path / "small" / "latent" / "organism.json").read_text(encoding="utf-8"))
    assert about["arm"] == "latent" and about["families"] == ["sums", "countdown"] and about["recipe"]["rank"] == 0
    small.write_base(tmp_path / "again")
    assert about["base"] == load_model(str(tmp_path / "again"), dtype="float32", device="cpu").provenance.sha256
    before = {path: path.read_bytes() for path in (tmp_path / "small").rglob("*") if path.is_file()}
    command.main(["make"])
    assert before == {path: path.read_bytes() for path in (tmp_path / "small").rglob("*") if path.is_file()}
    few = ["--limit", "2", "--samples", "2", "--updates", "1", "--examples", "8", "--max-new-tokens", "4"]
    command.main(["run", "--small", "--organisms", "latent", "--trained", "edge", "--asked", "longer", *few])
    kept = json.loads((tmp_path / "small-map.json").read_text(encoding="utf-8"))
    assert kept["latent / edge / longer"]["model"]["name"] == "small/latent"  # and no path of a machine
    assert list(kept) == ["latent / edge / longer"] and (tmp_path / "small-figure.json").is_file()
    assert not (tmp_path / "map.json").exists()


def test_the_tokenizer_of_small_organisms_writes_what_it_reads() -> None:
    tokenizer = small.tokenizer()
    text = "Q: Reach 15 with two of 4, 16 and 11.\nA: (é) Let's see: 15 - 4 = 11."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert {len(tokenizer(f"{before}{n}")["input_ids"]) for n in range(100) for before in ("", " ")} == {1}
