"""Files that people bring: from other programs, from other machines, from an editor."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from elicit.cli.run import _config, _fill
from elicit.elicited import Elicited
from elicit.evaluation.run.foreign import read_log
from elicit.hub import manifest
from elicit.methods.critique_ft import critique_file
from elicit.models import Model, load_model
from elicit.models.prompts import named_prompt
from elicit.sweeps import plan
from elicit.tasks.registry import load_task
from elicit.tasks.responses import read_responses
from elicit.tasks.texts import documents
from elicit.training.rl.callables import verl_log
from probes.activations import shards
from probes.sae.convert import tensors_of
from probes.sae.load import load_sae
from probes.sealed import save_tensors
from probes.sites import Site
from probes.weights import Adapted, Folder
from steering.adapters import WEIGHTS, Adapter, hash_of_settings
from steering.directions import Direction
from steering.formats import from_gguf, to_gguf
from steering.interventions import Add, Intervention, When
from steering.storage import digest
from tests.damage.kind import Kind
from tests.support.saes import save_random_sae
from tests.support.tiny import save_tiny

LOGS = Path(__file__).parents[1] / "evaluation" / "logs"


def written(name: str, *lines: Any) -> Callable[[Path], Path]:
    """A file of these lines; objects as JSON."""

    def make(folder: Path) -> Path:
        file = folder / name
        file.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines))
        return file

    return make


def copied(name: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(LOGS / name, folder))


@cache
def _model_folder() -> Path:
    return save_tiny(Path(tempfile.mkdtemp(prefix="elicit-damage-")) / "model")


@cache
def model() -> Model:
    return load_model(str(_model_folder()), dtype="float32", device="cpu")


def of_model(name: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copytree(_model_folder(), folder / "model")) / name


def read_model(file: Path) -> Any:
    found = load_model(str(file.parent), dtype="float32", device="cpu")
    ids = torch.tensor([[5, 6, 7]])
    return found.provenance.sha256, found.tokenizer("a b")["input_ids"], found.lm(ids).logits.tolist()


def read_config(file: Path) -> Any:
    given = {"model": "", "method": "x", "limit": 8, "seed": 0, "out": Path("x"), "setting": None, "batch_rows": None}
    _fill(given, set(), file.name, _config(file))
    return given


def _plan() -> tuple[Intervention, ...]:
    direction = Direction(torch.linspace(-1.0, 1.0, 32), Site(1), name="push")
    return (Intervention(Add(direction), 1.0, when=When.every_step()),)


def of_bundle(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        if name.startswith("adapter/"):
            of_adapter(name)(folder.parent)
            Elicited(model(), "trained", adapter=Adapter(folder.parent)).save(folder)
        else:
            Elicited(model(), "steer", interventions=_plan()).save(folder)
        return folder / name

    return make


def read_bundle(file: Path) -> Any:
    folder = file.parents[1] if file.parent.name == "adapter" else file.parent
    found = Elicited.load(folder, model())
    return found.to_dict(), found.adapter.tensors() if isinstance(found.adapter, Adapter) else None


def of_sae(name: str, sealed: bool = False) -> Callable[[Path], Path]:
    return lambda folder: save_random_sae(folder / "sae", d_sae=8, k=2, sealed=sealed) / name


def read_sae(file: Path) -> Any:
    sae = load_sae(file.parent)
    return str(sae), sae.encode(torch.linspace(-1, 1, 32)).tolist()


def of_adapter(name: str, sealed: bool = False) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        at = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
        tensors = {f"{at}A.weight": torch.ones(2, 32), f"{at}B.weight": torch.ones(32, 2)}
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
        if sealed:
            save_tensors(tensors, folder / WEIGHTS, hash_of_settings(config))
        else:
            save_file(tensors, folder / WEIGHTS)
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder / name

    return make


def read_adapter(file: Path) -> Any:
    adapter = Adapter(file.parent)
    return adapter.sha256, {name: t.tolist() for name, t in adapter.tensors().items()}


def read_pairs(file: Path) -> Any:
    found = Adapted(Folder(_model_folder()), file.parent)
    return found.pairs


def gguf_vector(folder: Path) -> Path:
    direction = Direction(torch.linspace(-1.0, 1.0, 32), Site(1), name="push")
    return to_gguf((Intervention(Add(direction), 1.0),), folder / "v.gguf", "llama")


def rollouts(folder: Path) -> Path:
    pq.write_table(pa.table({"text": ["one text", "another"]}), folder / "t.parquet")
    return folder / "t.parquet"


def arrays(folder: Path) -> Path:
    np.savez(folder / "params.npz", W_enc=np.ones((3, 4), np.float32), b=np.zeros(4, np.float32))
    return folder / "params.npz"


def tensors(folder: Path) -> Path:
    save_file({"W": torch.ones(2, 3), "b": torch.zeros(2)}, folder / "sae.safetensors")
    return folder / "sae.safetensors"


def capture(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save_file({"row": torch.zeros(2), "2.resid_post": torch.ones(2, 4)}, folder / "00000.safetensors")
        (folder / "activations.json").write_text(json.dumps({"shards": ["00000.safetensors"]}))
        return folder / name

    return make


ITEM = {"id": "a", "question": "What is 1 + 1?", "answer": "2", "split": "test"}
CRITIQUE = {"question": "What is 1 + 1?", "candidate": "It is 3.", "critique": "1 + 1 is 2. Conclusion: wrong [END]"}
LM_EVAL = {
    "doc_id": 3, "doc": {"question": "3 + 1?", "answer": "4"}, "target": "so #### 4",
    "arguments": {"gen_args_0": {"arg_0": "Q: 3 + 1?\nA:", "arg_1": {"until": ["\n"]}}},
    "resps": [[" 4"]], "filtered_resps": [" 4"], "filter": "last", "metrics": ["exact_match"], "exact_match": 1.0,
}  # fmt: skip
FETCHED = {
    "format": "elicit", "schema": 1, "kind": "bundle", "elicit": "0.1.0",
    "files": {"elicited.json": {"sha256": "0" * 64, "bytes": 12}},
}  # fmt: skip
SWEEP = 'analyses = []\n[axes]\nmethod = ["direct"]\nseed = [0, 1]\n[axes.options]\nk = [4, 8]\n[run]\nlimit = 2\n'
RUN = 'model = "tiny"\nlimit = 3\nseed = 1\nout = "runs/x"\n[options]\nk = 4\nname = "a"\n'

KINDS = (
    Kind("options (TOML)", written("c.toml", RUN), read_config, "toml"),
    Kind("sweep (TOML)", written("s.toml", SWEEP), plan.read, "toml"),
    Kind("task (JSON Lines)", written("t.jsonl", ITEM, {**ITEM, "id": "b", "question": "And 2 + 2?", "answer": 4}),
         lambda file: load_task(str(file)).items, "jsonl"),
    Kind("prompt template", written("t.txt", "Q: {question}\nA:"),
         lambda f: named_prompt(str(f), model().tokenizer, [])),
    Kind("critiques", written("c.jsonl", CRITIQUE, CRITIQUE), lambda f: critique_file.load(f).entries, "jsonl"),
    Kind("responses", written("r.jsonl", {"gold": "4", "response": "It is 4.", "kind": "number"}),
         read_responses, "jsonl"),
    Kind("texts (JSON Lines)", written("t.jsonl", {"text": "one"}, {"text": "two"}),
         lambda f: list(documents(str(f))), "jsonl"),
    Kind("texts (Parquet)", rollouts, lambda f: list(documents(str(f)))),
    Kind("manifest of the hub", written("manifest.json", FETCHED), lambda f: manifest.read(f, "x"), "json"),
    Kind("log of lm-eval", written("samples_sums_2026-11-28T07-00-00.1.jsonl", LM_EVAL), read_log, "jsonl"),
    Kind("log of Inspect (.eval)", copied("base.eval"), read_log),
    Kind("log of Inspect (.json)", copied("reasoning.json"), read_log, "json"),
    Kind("completions of TRL", copied("trl_one.parquet"), read_log),
    Kind("rollouts of verl", copied("verl/0.jsonl"), read_log, "jsonl"),
    Kind("step of verl", copied("verl/0.jsonl"), verl_log, "jsonl"),
    Kind("SAE: cfg.json", of_sae("cfg.json"), read_sae, "json"),
    Kind("SAE: weights", of_sae("sae_weights.safetensors"), read_sae),
    Kind("SAE of ours: cfg.json", of_sae("cfg.json", sealed=True), read_sae, "json", sealed=True),
    Kind("SAE of ours: weights", of_sae("sae_weights.safetensors", sealed=True), read_sae, sealed=True),
    Kind("SAE to convert (npz)", arrays, lambda f: tensors_of(f, f.name)),
    Kind("SAE to convert (safetensors)", tensors, lambda f: tensors_of(f, f.name)),
    Kind("control vector (GGUF)", gguf_vector, lambda f: digest(from_gguf(f))),
    Kind("bundle: elicited.json", of_bundle("elicited.json"), read_bundle, "json", sealed=True),
    Kind("bundle: interventions.json", of_bundle("interventions.json"), read_bundle, "json", sealed=True),
    Kind("bundle: tensors", of_bundle("interventions.safetensors"), read_bundle, sealed=True),
    Kind("bundle: adapter's configuration", of_bundle("adapter/adapter_config.json"), read_bundle, "json",
         sealed=True),
    Kind("bundle: adapter's weights", of_bundle("adapter/adapter_model.safetensors"), read_bundle, sealed=True),
    Kind("adapter of ours: configuration", of_adapter("adapter_config.json", sealed=True), read_adapter, "json",
         sealed=True),
    Kind("adapter of ours: weights", of_adapter("adapter_model.safetensors", sealed=True), read_adapter, sealed=True),
    Kind("adapter: configuration", of_adapter("adapter_config.json"), read_adapter, "json"),
    Kind("adapter: weights", of_adapter("adapter_model.safetensors"), read_adapter),
    Kind("adapter, compared", of_adapter("adapter_config.json"), read_pairs, "json"),
    Kind("captured activations: manifest", capture("activations.json"), lambda f: list(shards(f.parent)), "json"),
    Kind("captured activations: shard", capture("00000.safetensors"), lambda f: list(shards(f.parent))),
    Kind("model: config.json", of_model("config.json"), read_model, "json"),
    Kind("model: generation_config.json", of_model("generation_config.json"), read_model, "json"),
    Kind("model: tokenizer_config.json", of_model("tokenizer_config.json"), read_model, "json"),
    Kind("model: tokenizer.json", of_model("tokenizer.json"), read_model, "json"),
    Kind("model: weights", of_model("model.safetensors"), read_model),
)  # fmt: skip
