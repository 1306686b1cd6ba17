"""The configurations of `experiments/vector_transfer`: their keys, their options, and their fits on tiny pairs."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM

from elicit import evaluate, load_model, load_task
from elicit.cli import app as cli
from elicit.cli.presets import preset
from elicit.methods import check_options, fit, get
from elicit.models import Model, named_prompt
from elicit.models import model as model_module
from elicit.models.zoo import ALIASES, WEIGHTS
from elicit.tasks import task_names
from steering.adapters import Adapter
from tests.support.hybrid_parts import save_lora
from tests.support.tiny import save_tiny

FOLDER = Path(__file__).parents[2] / "experiments" / "vector_transfer"
FILES = sorted(FOLDER.glob("*.toml"))


def configured(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    return data, data.pop("options")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of the pairs' architecture."""
    return save_tiny(tmp_path_factory.mktemp("hub") / "base", "qwen2")


def smaller(options: dict[str, Any]) -> dict[str, Any]:
    """The same options with sizes that fit a tiny model, which has no gap."""
    sizes = {"layers": "1,2", "categories": "2", "read": 24, "dev": 4, "max_new_tokens": 24, "checked": False}
    return {**options, **sizes}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_key_is_known(file: Path, qwen: Path) -> None:
    data, options = configured(file)
    known = inspect.signature(cli.run).parameters
    assert {key.replace("-", "_") for key in data} <= known.keys()
    get(data["method"])
    check_options(data["method"], options)
    assert data["model"] in {**WEIGHTS, **ALIASES} and data["task"] in task_names()
    named_prompt(data["prompt"], load_model(str(qwen)).tokenizer)
    assert max(options["read"], options["dev"]) <= data["limit"]  # of each split
    assert f"elicit run --config experiments/vector_transfer/{file.name}" in file.read_text(encoding="utf-8")


@pytest.mark.long
def test_the_natural_pair_is_fitted_as_the_hub_serves_it(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thinking model has other weights, a longer table of embeddings and a special token of its own."""
    data = preset("vector-transfer-orz-0.5b")["run"]
    options = {**data.pop("options"), "partner_prompt": "qa"}  # a tiny tokenizer has no chat template
    lm = AutoModelForCausalLM.from_pretrained(qwen)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    lm.resize_token_embeddings(lm.config.vocab_size + 7)
    lm.save_pretrained(tmp_path / "thinking")
    tokenizer = load_model(str(qwen)).tokenizer
    tokenizer.add_tokens(AddedToken("<think>", special=True))
    tokenizer.save_pretrained(tmp_path / "thinking")
    served = {ALIASES[data["model"]]: qwen, options["partner"]: tmp_path / "thinking"}
    monkeypatch.setattr(model_module, "hub_snapshot", lambda repo, revision, patterns: served[repo])
    model = load_model(data["model"], dtype="float32", device="cpu")
    task = load_task("chain-sum", limit=24)
    handle = fit(data["method"], model, task.solved, **smaller(options))
    assert handle.partner is not None and isinstance(handle.partner.model, Model)
    assert handle.partner.bias is not None  # trained first, where vectors are optimised
    assert handle.options["asked"]["windows"] == "0"
    found = handle.options["found"]
    assert found["layer"] in (1, 2) and found["steered"] > 0


def test_a_copy_of_the_base_is_an_adapter_on_its_weights(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, options = configured(FOLDER / "qwen2.5-coder-0.5b.toml")
    monkeypatch.chdir(tmp_path)
    save_lora(qwen, Path(options["partner"]))
    model = load_model(str(qwen), dtype="float32", device="cpu")
    before = {name: value.clone() for name, value in model.lm.state_dict().items()}
    task = load_task("chain-sum", limit=24)
    handle = fit(data["method"], model, task.solved, **smaller(options))
    assert handle.partner is not None and isinstance(handle.partner.model, Adapter)
    assert handle.options["found"]["partner_sha256"] == handle.partner.model.sha256
    controls = get(data["method"]).controls(handle, task.solved)
    chosen = {name: controls[name] for name in ("thinking model", "token substitution")}
    assert chosen["thinking model"].adapter == handle.partner.model
    run = evaluate(handle, task.test[:3], against=chosen, out=tmp_path / "run")
    thinking, substituted = ([t.tokens for ts in run.traces[name].values() for t in ts] for name in chosen)
    assert thinking == substituted
    plain = [[t.tokens for t in ts] for ts in controls["direct"].answer(task.test[:3])]
    assert plain != [[t] for t in thinking]
    assert all(torch.equal(value, before[name]) for name, value in model.lm.state_dict().items())
