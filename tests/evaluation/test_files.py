"""Nothing is removed, overwritten or written through a link but what this suite wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import elicit
from elicit.cli.run import run_one
from elicit.elicited import Elicited
from elicit.evaluation.run import Store
from elicit.evaluation.run.store import CONFIG, METRICS, SAMPLES
from elicit.models import Model
from elicit.training.organisms.make import check_place
from elicit.training.rl.log import RolloutLog
from probes.activations import Shards
from probes.capture import capture
from probes.errors import UserError
from probes.files import locked, make_folder, ours_to_replace, whole_files, write_whole
from probes.sae.cache import remove_cache
from probes.sae.train import standing
from probes.sites import Site
from steering.adapters import Adapter
from tests.support.shell import shell
from tests.support.tiny import tiny_model
from tests.support.toys import toy_task

TEST = toy_task(2).test


@pytest.fixture(scope="module")
def handle(tiny: Model) -> Elicited:
    return elicit.methods.direct.fit(tiny, max_new_tokens=4)


@pytest.fixture
def run(handle: Elicited, tmp_path: Path) -> Path:
    return elicit.evaluate(handle, TEST, against=(), out=tmp_path / "run").folder


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """All that lies in a folder but locks, links as what they point to."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        if path.is_file() else None
        for path in folder.rglob("*") if path.name != ".lock"
    }  # fmt: skip


def refused(call: Callable[[], object], folder: Path, *words: str) -> None:
    """The call ends in one line with these words, and leaves the folder as it was."""
    before = tree(folder)
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert tree(folder) == before


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        b'baseURL = "https://example.org"\n', b"", b"[package]\nname = 'x'\n", b"[identity]\nname = 'me'\n",
        b"schema = 'draft-7'\n[identity]\n[arms]\n", b"schema = [\n", b"\xff\xfe\x00", b"schema = 1\nidentity = ",
        b"a = " + b"[" * 5000,
    ],
)  # fmt: skip
def test_what_holds_no_run_of_ours_is_left_alone(config: bytes, fresh: bool, handle: Elicited, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "thesis.txt").write_text("mine")
    (tmp_path / "config.toml").write_bytes(config)
    call = lambda: elicit.evaluate(handle, TEST, against=(), out=tmp_path, fresh=fresh)  # noqa: E731
    refused(call, tmp_path, "holds no run of ours", "another folder")
    with pytest.raises(UserError) as error:
        call()
    assert "--fresh" not in str(error.value)
    refused(lambda: elicit.Run.load(tmp_path), tmp_path, "holds no run of ours")


@pytest.mark.parametrize("name", ["notes.txt", "analysis/page.html", "elicited/mine.bin", "metrics.json.bak", "empty/"])
def test_fresh_is_refused_where_more_than_a_run_lies(name: str, run: Path, handle: Elicited) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    if name.endswith("/"):
        (run / name).mkdir()
    else:
        (run / name).write_text("mine")
    call = lambda: elicit.evaluate(handle, TEST, against=(), out=run, fresh=True)  # noqa: E731
    refused(call, run, name.rstrip("/"), "nothing was removed")


def test_fresh_starts_over(run: Path, handle: Elicited, tmp_path: Path) -> None:
    before = tree(run)
    metrics = (run / METRICS).stat().st_mtime_ns
    (run / f".{METRICS}.part").write_text("cut")  # an interrupted write
    (run / "steer.html").write_text("<p>")
    again = elicit.evaluate(handle, TEST, against=(), out=run, seed=1, fresh=True)
    assert set(tree(run)) == set(before) and (run / METRICS).stat().st_mtime_ns > metrics
    assert again.metrics["seed"] == 1
    link = tmp_path / "link"  # of a person's own
    link.symlink_to(run, target_is_directory=True)
    assert elicit.evaluate(handle, TEST, against=(), out=link, seed=2, fresh=True).metrics["seed"] == 2
    (run / CONFIG).rename(tmp_path / CONFIG)
    for file in [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]:
        file.unlink()
    (tmp_path / CONFIG).rename(run / CONFIG)
    (run / "elicited").rmdir()
    assert elicit.evaluate(handle, TEST, against=(), out=run, fresh=True).metrics["items"] == 2


def test_fresh_of_a_run_that_is_written_is_refused(run: Path, handle: Elicited) -> None:
    with locked(run, "writing"):
        call = lambda: elicit.evaluate(handle, TEST, against=(), out=run, fresh=True)  # noqa: E731
        refused(call, run, "another process is writing")


def test_a_run_is_locked_until_it_is_finished(run: Path, handle: Elicited, monkeypatch: pytest.MonkeyPatch) -> None:
    def finishing(store: Store, metrics: object) -> None:
        refused(lambda: Store.clear(store.folder), store.folder, "another process is writing")

    monkeypatch.setattr(Store, "finish", finishing)
    (run / METRICS).unlink()
    elicit.evaluate(handle, TEST, against=(), out=run)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", [SAMPLES, "items.jsonl", "report.html", "elicited", "elicited/elicited.json"])
def test_a_run_with_a_link_in_it_is_not_written(
    name: str, fresh: bool, run: Path, handle: Elicited, tmp_path: Path
) -> None:
    (run / METRICS).unlink()
    (run / name).rename(tmp_path / "outside")
    (run / name).symlink_to(tmp_path / "outside")
    call = lambda: elicit.evaluate(handle, TEST, against=(), out=run, fresh=fresh)  # noqa: E731
    refused(call, tmp_path, name)


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="is a link"), locked(tmp_path, "writing"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("planted", ["a.txt", ".a.txt.part"])
def test_a_file_takes_a_links_place(planted: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / planted).symlink_to(tmp_path / "mine")
    write_whole(tmp_path / "a.txt", "ours")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "a.txt").read_text() == "ours" and not (tmp_path / "a.txt").is_symlink()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / planted).symlink_to(tmp_path / "mine")
    with whole_files(tmp_path / "folder") as part:
        (part / "a.txt").write_text("ours")
    assert (tmp_path / "mine").read_text() == "mine" and (tmp_path / "folder" / "a.txt").read_text() == "ours"


def test_what_is_appended_to_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "log").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="is a link"), RolloutLog.open(tmp_path / "log", 0):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def adapter(folder: Path, value: float) -> Adapter:
    folder.mkdir(parents=True)
    save_file({"w": torch.full((2,), value)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1}))
    return Adapter(folder)


def test_an_adapter_is_saved_where_it_is_named_and_over_no_other(tiny: Model, tmp_path: Path) -> None:
    handle = Elicited(tiny, "x", adapter=adapter(tmp_path / "one", 1.0))
    place = tmp_path / "bundle" / "adapter"
    place.mkdir(parents=True)
    (tmp_path / "mine").write_text("mine")
    (place / "adapter_config.json").symlink_to(tmp_path / "mine")
    refused(lambda: handle.save(tmp_path / "bundle"), tmp_path, "another adapter")
    (place / "adapter_config.json").unlink()
    (place / "adapter_config.json").symlink_to(tmp_path / "one" / "adapter_config.json")
    handle.save(tmp_path / "bundle")  # a link to the same is replaced
    assert not (place / "adapter_config.json").is_symlink()
    adapter(tmp_path / "mine-too" / "adapter", 2.0)
    refused(lambda: handle.save(tmp_path / "mine-too"), tmp_path, "another adapter")
    Elicited(tiny, "x", adapter=adapter(tmp_path / "two", 2.0)).save(tmp_path / "bundle")  # of a bundle: over it
    assert Adapter(place).sha256 == Adapter(tmp_path / "two").sha256
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "adapter").symlink_to(tmp_path / "one")
    (tmp_path / "three").symlink_to(tmp_path / "two")
    other = Elicited(tiny, "x", adapter=Adapter(tmp_path / "three"))
    refused(lambda: other.save(tmp_path / "linked"), tmp_path, "is a link")


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below", "x" * 300, "/proc/none/run", "dangling"])
def test_a_folder_that_cannot_be_made_is_one_line(place: str, handle: Elicited, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    refused(lambda: make_folder(tmp_path / place), tmp_path, "folder")
    out = str(tmp_path / place)
    given = {"limit": 1, "max_new_tokens": 1, "seed": 0, "batch_rows": None, "out": tmp_path / place}
    if place != "/proc/none/run":  # seen when it is made
        refused(lambda: run_one(given, quiet=True, show=None), tmp_path, "folder")
    for command in (
        ["compare", "--methods", "direct", "--model", "no-such"],
        ["analyse", "pass-at-k", str(tmp_path)], ["steer", "--model", "no-such"], ["organism", "card"],
        ["organism", "make", "--arm", "latent"],
    ):  # fmt: skip
        if place != "/proc/none/run":
            code, _, err = shell(*command, "--out", out)
            assert code == 2 and err.count("\n") == 1 and "folder" in err, err
    refused(lambda: elicit.evaluate(handle, TEST, against=(), out=tmp_path / place), tmp_path, "folder")


def test_no_folder_is_left_by_a_limit_beyond_the_models_positions(tiny: Model, tmp_path: Path) -> None:
    handle = elicit.methods.direct.fit(tiny, max_new_tokens=100_000)
    refused(lambda: elicit.evaluate(handle, TEST, against=(), out=tmp_path / "run"), tmp_path, "positions")


def test_pages_and_numbers_are_written_over_ours_alone(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    commands = {
        "report.html": ["report", str(run), "--analyses", "none", "--out", str(out / "report.html")],
        "comparison.json": ["compare", str(run), "--out", str(out)],
        "routing.json": ["analyse", "routing", str(run), "--out", str(out)],
        "feature.html": ["sae", "feature", "0", "--sae", "no", "--out", str(out / "feature.html")],
        "c.gguf": ["steer", "--gguf", str(out / "c.gguf")],
    }
    for name, command in commands.items():
        (out / name).write_text('{"mine": 1}')
        code, _, err = shell(*command)
        assert code == 2 and "was not written by elicit" in err and err.count("\n") == 1, err
        assert (out / name).read_text() == '{"mine": 1}'
        (out / name).unlink()
    for _ in range(2):
        assert shell(*commands["report.html"])[0] == 0
        assert shell(*commands["comparison.json"], "--baseline", "direct")[0] == 0
    with pytest.raises(UserError, match="is a folder"):
        ours_to_replace(out, "x")
    with pytest.raises(UserError, match="not written by elicit"):
        ours_to_replace(Path("/dev/null"), "")


def test_an_sae_and_an_organism_begin_in_a_folder_of_their_own(tmp_path: Path) -> None:
    made = {"recipe": {}}
    assert not standing(tmp_path / "new", made) and not standing(tmp_path, made)
    check_place(tmp_path)
    (tmp_path / "activations").mkdir()
    assert not standing(tmp_path, made)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "sae_weights.safetensors").write_text("mine")
    refused(lambda: standing(tmp_path, made), tmp_path, "README.md", "another folder")
    refused(lambda: check_place(tmp_path), tmp_path, "another folder")


def test_kept_activations_go_and_what_lies_beside_them_stays(tmp_path: Path) -> None:
    place = tmp_path / "3.resid_post"
    for chunk in ("00000", "00001"):
        capture(tiny_model("llama"), [[5, 6, 7]], [Site(0)], out=place / chunk)
    (place / "cache.json").write_text("{}")
    (place / "00001" / "mine.txt").write_text("mine")
    remove_cache(place)
    assert set(tree(tmp_path)) == {"3.resid_post", "3.resid_post/00001", "3.resid_post/00001/mine.txt"}
    (tmp_path / "00000.safetensors").write_text("mine")
    refused(lambda: Shards(tmp_path), tmp_path, "holds a capture already")
