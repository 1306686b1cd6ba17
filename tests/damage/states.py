"""States that the suite leaves behind and reads again: of trainings, fits, sweeps and comparisons."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from safetensors.torch import save_file

from elicit.analysis.base import Analysis, load, save
from elicit.hub.kinds import found
from elicit.methods.compare import SCHEMA, _open, fit_seconds
from elicit.methods.critique_ft.examples import Row
from elicit.methods.critique_ft.pipeline import DONE, ROWS, _kept
from elicit.methods.sae_steer.corpus import _read
from elicit.models.quantised import stored
from elicit.models.zoo import ORGANISM_FILE, about
from elicit.sweeps.folder import Folder
from elicit.sweeps.plan import Job
from elicit.training import checkpoint, trl_sft
from elicit.training.rl.log import LOG, read_log
from elicit.training.rl.sampled import Sampled
from probes import weights
from probes.sae.cache import _claim
from probes.sae.train import _header
from tests.damage.foreign import of_adapter, of_bundle, written
from tests.damage.kind import Kind

WANTED = {"model": "x", "recipe": {"rate": 0.1}}
PLAN = {"schema": SCHEMA, "model": "x"}
POINT = [1, 2.5, 0.1, 40, 1.5]


def tensors(name: str, state: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save_file({"weight/a": torch.ones(2, 2)}, folder / name, {"state": json.dumps(state)})
        return folder / name

    return make


def to_push(file: Path) -> Any:
    scratch = file.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return found(file.parent, scratch).about


def comparison(folder: Path) -> Path:
    _open(folder / "c", PLAN)
    return folder / "c" / "plan.json"


def sweep(folder: Path) -> Path:
    Folder.plan(folder / "s", [Job("run", {"method": "direct", "seed": 1})])
    return folder / "s" / "jobs.json"


def analysis(folder: Path) -> Path:
    save(Analysis("pass-at-k", [{"k": 1, "pass": 0.5}], go.Figure(), ["a note"], {"x": [1.5]}), folder, {})
    return folder / "pass-at-k.json"


def read_analysis(file: Path) -> Any:
    one = load(file)
    return one.name, one.table, one.notes, one.data


def critiques(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        row = Row("a", "1 + 1?", "3", "1 + 1 is 2", False, "1 + 1 is 3")
        (folder / ROWS).write_text(json.dumps(row.to_dict()) + "\n")
        (folder / DONE).write_text(json.dumps({"a": 0}))
        return folder / name

    return make


def read_sampled(file: Path) -> Any:
    with Sampled.open(file, "x") as sampled:
        return sampled.known


def checkpoint_files(folder: Path) -> Path:
    save_file({"a.weight": torch.ones(2, 3)}, folder / "model.safetensors")
    return folder / "model.safetensors"


KINDS = (
    Kind("bundle to push", of_bundle("elicited.json"), to_push, "json"),
    Kind("adapter to push: weights", of_adapter("adapter_model.safetensors"), to_push),
    Kind("model, compared", checkpoint_files, lambda f: weights.Folder(f.parent).files),
    Kind("model: quantisation", written("config.json", {"quantization_config": None, "a": 1}),
         lambda f: stored(f.parent, "x"), "json"),
    Kind("organism", written(ORGANISM_FILE, {"base_name": "x", "base": "0"}), lambda f: about(str(f.parent)), "json"),
    Kind("comparison", comparison, lambda f: _open(f.parent, PLAN), "json", sealed=True),
    Kind("seconds of a fit", written("fit.json", {"seconds": 1.5}), fit_seconds, "json"),
    Kind("jobs of a sweep", sweep, lambda f: Folder(f.parent).jobs, "json"),
    Kind("result of an analysis", analysis, read_analysis, "json"),
    Kind("state of a training", tensors("s.safetensors", [WANTED, {"steps": 3}]),
         lambda f: checkpoint.read_state(f, WANTED)),
    Kind("state of an SAE's training", tensors("s.safetensors", WANTED), _header),
    Kind("rollouts of a training", written(LOG, {"item": "a", "reward": 1.0}, {"item": "b"}),
         lambda f: list(read_log(f.parent)), "jsonl"),
    Kind("sampled answers", written("sampled.jsonl", {"x": [[{"text": "a"}]]}, {"y": []}), read_sampled, "jsonl"),
    Kind("state of TRL's SFT", written(trl_sft.STATE, [POINT, POINT]), lambda f: trl_sft._kept(f.parent), "json"),
    Kind("critiques of a fit: rows", critiques(ROWS), lambda f: _kept(f.parent), "jsonl"),
    Kind("critiques of a fit: problems", critiques(DONE), lambda f: _kept(f.parent), "json"),
    Kind("texts of an SAE", written("texts.jsonl", {"about": 1}, [0, [[[1, 2], 1, "plain", "a"]]]),
         lambda f: _read(f, {"about": 1}), "jsonl"),
    Kind("cached activations", written("cache.json", {"digest": "0"}), lambda f: _claim(f.parent, "0"), "json",
         sealed=True),
)  # fmt: skip
