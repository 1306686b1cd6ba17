"""States that the suite leaves behind and reads again: of trainings, fits, sweeps and comparisons."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from safetensors.torch import load_file, save_file

from elicit.analysis.base import Analysis, load, save
from elicit.cli.check_steering import plan_fields
from elicit.decoding.trial.checks import Finding
from elicit.decoding.trial.found import Trial
from elicit.hub.kinds import found
from elicit.methods.compare import SCHEMA, _open, fit_seconds
from elicit.methods.critique_ft.examples import Row
from elicit.methods.critique_ft.pipeline import DONE, ROWS, _kept
from elicit.methods.one_shot_rlvr import _kept_choice
from elicit.methods.sae_steer.corpus import _read
from elicit.methods.thinkless.control_tokens import ControlTokens
from elicit.methods.thinkless.modes import Modes
from elicit.models.gguf import _convert
from elicit.models.quantised import stored
from elicit.models.zoo import ORGANISM_FILE, about
from elicit.sweeps.folder import Folder, Lease
from elicit.sweeps.plan import Job
from elicit.tasks.base import Item
from elicit.training import checkpoint, trl_sft
from elicit.training.rl import trl_grpo
from elicit.training.rl.curve import Point
from elicit.training.rl.log import LOG, read_log
from elicit.training.rl.preflight import Preflight
from elicit.training.rl.sampled import Sampled
from probes import weights
from probes.files import make_folder
from probes.sae import train as sae_train
from probes.sae.cache import _claim
from probes.sealed import write_sealed
from tests.damage.foreign import of_adapter, of_bundle, of_model, written
from tests.damage.kind import Kind
from tests.support.gguf_files import write_gguf

WANTED = {"model": "x", "recipe": {"rate": 0.1}}
PLAN = {"schema": SCHEMA, "model": "x"}
ASKED = Item("a", "1 + 1?", "2", "fit")
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


def read_rollouts(file: Path) -> Any:
    modes = Modes(file.parent, ControlTokens(3, 4, ("<short>", "<think>"), ("given", "given")))
    modes.update()
    return list(read_log(file.parent)), modes.rows


def checkpoint_files(folder: Path) -> Path:
    save_file({"a.weight": torch.ones(2, 3)}, folder / "model.safetensors")
    return folder / "model.safetensors"


def trial(folder: Path) -> Path:
    found = Trial("Llama", "a twin", {"own": Finding(0.0)}, {"own": Finding(None, "why")}, Finding(1e-6), 1.5)
    write_sealed(folder / "trial.json", asdict(found))
    return folder / "trial.json"


def choice(folder: Path) -> Path:
    write_sealed(folder / "selection.json", {"examples": ["a"], "pool": [{"id": "a", "score": 0.5}]})
    return folder / "selection.json"


def lease(folder: Path) -> Path:
    path = sweep(folder).parent
    held = Folder(path).claim(Folder(path).jobs[0].key)
    assert held is not None
    return Path(shutil.copy(held.path, folder / held.token))


LOOKED_AT = Preflight(8, 1.0, 0.5, 0.5, -1.0, 0.5, {"1": 0.5}, {"a": "3"})


def preflight(folder: Path) -> Path:
    write_sealed(folder / "preflight.json", LOOKED_AT.to_dict())
    return folder / "preflight.json"


def grpo(folder: Path) -> Path:
    of_adapter("adapter_config.json")(make_folder(folder / trl_grpo.ADAPTER))
    about = {"identity": WANTED, "curve": [[0] * len(Point._fields)], "preflight": LOOKED_AT.to_dict()}
    write_sealed(folder / trl_grpo.STATE, about)
    return folder / trl_grpo.STATE


def sae_state(folder: Path) -> Path:
    sae, silent = torch.nn.Linear(2, 2), torch.zeros(2, dtype=torch.long)
    optimiser = torch.optim.Adam(sae.parameters())
    sae(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    sae_train._save(folder / "s.safetensors", WANTED, sae, optimiser, silent, [sae_train.Point(1.0, 0.5, 0.0)])
    return folder / "s.safetensors"


def read_sae_state(file: Path) -> Any:
    sae, silent = torch.nn.Linear(2, 2), torch.zeros(2, dtype=torch.long)
    optimiser = torch.optim.Adam(sae.parameters())
    curve = sae_train._load_state(file, WANTED, sae, optimiser, silent)
    return curve, sae.weight.tolist(), optimiser.state_dict(), silent


def gguf_model(folder: Path) -> Path:
    file = of_model("model.safetensors")(folder)
    return write_gguf(folder / "model.gguf", load_file(file))


def read_gguf_model(file: Path) -> Any:
    with tempfile.TemporaryDirectory() as scratch:
        _convert(file, Path(scratch) / "model")
        return {name: t.tolist() for name, t in load_file(Path(scratch) / "model" / "model.safetensors").items()}


def training_state(folder: Path) -> Path:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimiser = torch.optim.Adam([weight])
    weight.sum().backward()
    optimiser.step()
    checkpoint.write_state(folder / "s.safetensors", WANTED, {"a": weight}, optimiser, {"steps": 3})
    return folder / "s.safetensors"


KINDS = (
    Kind("bundle to push", of_bundle("elicited.json"), to_push, "json", sealed=True),
    Kind("adapter to push: weights", of_adapter("adapter_model.safetensors"), to_push),
    Kind("model, compared", checkpoint_files, lambda f: weights.Folder(f.parent).files),
    Kind("model: quantisation", written("config.json", {"quantization_config": None, "a": 1}),
         lambda f: stored(f.parent, "x"), "json"),
    Kind("organism", written(ORGANISM_FILE, {"base_name": "x", "base": "0"}), lambda f: about(str(f.parent)), "json"),
    Kind("comparison", comparison, lambda f: _open(f.parent, PLAN), "json", sealed=True),
    Kind("seconds of a fit", written("fit.json", {"seconds": 1.5}), fit_seconds, "json"),
    Kind("jobs of a sweep", sweep, lambda f: Folder(f.parent).jobs, "json"),
    Kind("result of an analysis", analysis, read_analysis, "json"),
    Kind("state of a training", training_state, lambda f: checkpoint.read_state(f, WANTED), sealed=True),
    Kind("state of an older training", tensors("s.safetensors", [WANTED, {"steps": 3}]),
         lambda f: checkpoint.read_state(f, WANTED)),
    Kind("state of an SAE's training", sae_state, read_sae_state, sealed=True),
    Kind("state of an SAE's older training", tensors("s.safetensors", WANTED), sae_train._header),
    Kind("state of TRL's GRPO", grpo, lambda f: trl_grpo._kept(f.parent, WANTED), "json", sealed=True),
    Kind("pre-flight of TRL's GRPO", preflight, trl_grpo._read_preflight, "json", sealed=True),
    Kind("examples of a fit", choice, lambda f: _kept_choice(f, {"a": ASKED}), "json", sealed=True),
    Kind("trial of a model", trial, Trial.read, "json", sealed=True),
    Kind("lease of a sweep", lease, lambda f: Lease(f, f.name).mine, "json"),
    Kind("steered request", written("plan.json", {"layer": 1, "vector": [0.5]}), lambda f: plan_fields(str(f)), "json"),
    Kind("model (GGUF)", gguf_model, read_gguf_model, dear=True),
    Kind("rollouts of a training", written(LOG, *({"update": 0, "tokens": [n], "score": 1} for n in (3, 4))),
         read_rollouts, "jsonl"),
    Kind("sampled answers", written("sampled.jsonl", {"x": [[{"text": "a"}]]}, {"y": []}), read_sampled, "jsonl"),
    Kind("state of TRL's SFT", written(trl_sft.STATE, [POINT, POINT]), lambda f: trl_sft._kept(f.parent), "json"),
    Kind("critiques of a fit: rows", critiques(ROWS), lambda f: _kept(f.parent), "jsonl"),
    Kind("critiques of a fit: problems", critiques(DONE), lambda f: _kept(f.parent), "json"),
    Kind("texts of an SAE", written("texts.jsonl", {"about": 1}, [0, [[[1, 2], 1, "plain", "a"]]]),
         lambda f: _read(f, {"about": 1}), "jsonl"),
    Kind("cached activations", written("cache.json", {"digest": "0"}), lambda f: _claim(f.parent, "0"), "json",
         sealed=True),
)  # fmt: skip
