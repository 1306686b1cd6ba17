"""All kinds of files, and which of them each reader of the code is tried with."""

from __future__ import annotations

from tests.damage import foreign, runs, states
from tests.damage.kind import Kind

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*runs.KINDS, *foreign.KINDS, *states.KINDS)}

BY_KIND: dict[str, tuple[str, ...]] = {
    "finished run: config.toml": ("elicit/evaluation/run/store.py:Store._read_config",),
    "finished run: items.jsonl": ("elicit/evaluation/run/store.py:Store.items",),
    "finished run: metrics.json": ("elicit/evaluation/run/seal.py:read_metrics",),
    "finished run: samples.parquet": (
        "elicit/evaluation/run/run.py:Run.samples",
        "elicit/methods/cognitive_tools.py:findings",
        "elicit/evaluation/run/table.py:_query",
        "elicit/evaluation/run/table.py:_traces",
    ),
    "unfinished run: samples.jsonl": (
        "elicit/evaluation/run/journal.py:_whole_batches",
        "elicit/evaluation/run/journal.py:row_at",
    ),
    "options (TOML)": ("elicit/cli/run.py:_config",),
    "sweep (TOML)": ("elicit/sweeps/plan.py:read",),
    "task (JSON Lines)": ("elicit/tasks/jsonl.py:_item",),
    "critiques": ("elicit/methods/critique_ft/critique_file.py:_objects",),
    "responses": ("elicit/tasks/responses.py:_response",),
    "texts (JSON Lines)": (
        "elicit/tasks/texts.py:_is_task_file",
        "elicit/tasks/texts.py:_text_of",
    ),
    "texts (Parquet)": ("elicit/tasks/texts.py:_parquet",),
    "manifest of the hub": ("elicit/hub/manifest.py:read",),
    "bundle to push": ("elicit/hub/kinds.py:_about",),
    "adapter to push: weights": ("elicit/hub/kinds.py:_check_tensors",),
    "log of lm-eval": ("elicit/evaluation/run/bounded.py:json_of",),
    "log of Inspect (.eval)": ("elicit/evaluation/run/bounded.py:Zipped.__init__",),
    "completions of TRL": ("elicit/evaluation/run/foreign_rl.py:_table",),
    "step of verl": ("elicit/training/rl/callables.py:verl_log",),
    "SAE: cfg.json": (
        "probes/sae/config.py:read_config",
        "elicit/cli/sae.py:_metadata",
        "elicit/cli/sae.py:_readme",
        "elicit/cli/sae.py:trained_here",
    ),
    "SAE: weights": ("probes/sae/autoencoder.py:weights_of",),
    "SAE to convert (npz)": ("probes/sae/layouts.py:numbers",),
    "SAE to convert (safetensors)": ("probes/sae/convert.py:tensors_of",),
    "control vector (GGUF)": ("steering/formats.py:from_gguf",),
    "bundle: elicited.json": (
        "probes/files.py:read_json",
        "probes/sealed.py:check_tensors_file",
        "probes/sealed.py:read_sealed",
    ),
    "bundle: interventions.json": ("steering/storage.py:read",),
    "bundle: tensors": ("steering/storage.py:read_tensors",),
    "adapter: configuration": ("steering/adapters.py:Adapter.config",),
    "adapter: weights": ("steering/adapters.py:Adapter.tensors",),
    "adapter, compared": ("probes/weights.py:Adapted.pairs",),
    "model, compared": ("probes/weights.py:_opened", "probes/weights.py:Folder.files"),
    "model: quantisation": ("elicit/models/quantised.py:stored",),
    "organism": ("elicit/models/zoo.py:about",),
    "captured activations: manifest": ("probes/activations.py:_shards_of",),
    "captured activations: shard": ("probes/activations.py:shards",),
    "model: config.json": ("elicit/models/loading.py:load_whole", "elicit/models/memory.py:check_described"),
    "model: tokenizer.json": ("elicit/models/loading.py:load_tokenizer",),
    "model: weights": ("elicit/models/memory.py:_shapes",),
    "jobs of a sweep": ("elicit/sweeps/folder.py:Folder.__init__", "elicit/sweeps/folder.py:Folder._read"),
    "comparison": ("elicit/methods/compare.py:_open",),
    "seconds of a fit": ("elicit/methods/compare.py:fit_seconds",),
    "result of an analysis": ("elicit/analysis/base.py:_json",),
    "state of a training": ("elicit/training/checkpoint.py:read_state",),
    "state of an SAE's training": ("probes/sae/train.py:_header", "probes/sae/train.py:_load_state"),
    "lease of a sweep": ("elicit/sweeps/folder.py:Lease.mine",),
    "steered request": ("elicit/cli/check_steering.py:plan_fields",),
    "model (GGUF)": ("elicit/models/gguf.py:_convert",),
    "rollouts of a training": ("elicit/training/rl/log.py:read_log",),
    "sampled answers": ("elicit/training/rl/sampled.py:Sampled.open",),
    "state of TRL's SFT": ("elicit/training/trl_sft.py:_kept",),
    "critiques of a fit: rows": ("elicit/methods/critique_ft/pipeline.py:_kept",),
    "texts of an SAE": ("elicit/methods/sae_steer/corpus.py:_read",),
    "cached activations": ("probes/sae/cache.py:_claim",),
}
"""The readers that each kind is read by: functions that open a format themselves."""

NOT_FROM_ELSEWHERE: dict[str, str] = {
    "elicit/analysis/base.py:save": "a figure of this process",
    "elicit/cli/presets.py:preset": "shipped with the package",
    "elicit/decoding/vllm/worker.py:EngineExtension.choosing_begin": "from this process to its own workers",
    "elicit/evaluation/run/to_inspect.py:_log": "a copy of what is there",
    "elicit/integrations/lm_eval/arguments.py:parsed": "an argument of the command",
    "elicit/integrations/lm_eval/asking.py:Words.__init__": "a copy of what is there",
    "elicit/integrations/lm_eval/model.py:ElicitLM.__init__": "an argument of the command",
    "elicit/integrations/serve/app.py:_json": "a request, no file",
    "elicit/models/model.py:Model.encoding_sha256": "a tokenizer of this process",
    "elicit/models/model.py:_from_zoo": "of the cache, written with the weights beside it",
    "elicit/models/processes.py:Processes._gather": "from one process of a command to another",
    "elicit/models/prompts.py:Prompt.text": "an argument of the command, checked where it is given",
    "elicit/tasks/given.py:value_of": "an argument of the command",
    "elicit/tasks/grader_process.py:_dataset": "from this process to its own worker",
    "elicit/tasks/grader_process.py:main": "from this process to its own worker",
    "elicit/tasks/outside_process.py:_opened": "from this process to its own worker",
    "elicit/tasks/worker.py:Worker._exchange": "from a worker of this process",
    "elicit/training/lora.py:save_adapter": "a folder that PEFT wrote just before",
    "probes/figure_files.py:_drawn": "a figure of this process",
    "probes/figure_files.py:numbers": "a figure of this process",
    "probes/figures.py:inert_figure": "a figure of this process",
    "probes/sae/load.py:_from_release": "SAELens's own loader, within `_readable`",
    "probes/sae/train.py:_finish": "a folder that SAELens wrote just before",
    "steering/adapters.py:_load": "weights whose configuration was read by `Adapter` before",
    "steering/adapters.py:_twins": "a configuration of this process",
    "probes/sealed.py:_sort_header": "a file that was written just before",
    "steering/backends/nnsight.py:NNsight.__init__": "a model of this process",
    "steering/backends/vllm_worker.py:SteeringExtension.steering_begin": "from this process to its own workers",
    "steering/check/completions.py:Server._read": "a response, no file",
}
"""Readers of what this process or one of its own made; each with where its data are from."""

UNTRIED: dict[str, str] = {
    "steering/backends/nnsight.py:own_settings": "of a model on a server; see tests/steering/test_own_settings.py",
}
"""Readers of files that damages are not tried on; each with why."""
