"""Where vLLM reads weights from, and which adapters it puts on them."""

from __future__ import annotations

from pathlib import Path

from elicit.models.download import cache_dir
from elicit.models.model import Model
from probes.errors import UserError
from probes.files import locked, make_folder
from steering.adapters import Adapter, Tuned

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, that vLLM has kernels for


def rank_of(adapter: Tuned) -> int:
    """The rank that vLLM is started for, so that it takes an adapter.

    Raises:
        UserError: a kind that it does not take.
    """
    if not isinstance(adapter, Adapter):
        raise UserError("the vllm engine exchanges no whole weights; use the hf engine, or load the trained folder")
    config = adapter.config
    lacks = [name for name in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern") if config.get(name)]
    if config["peft_type"] != "LORA":
        lacks.append(str(config["peft_type"]))
    if config.get("bias", "none") != "none":
        lacks.append(f"bias = {config['bias']}")
    if config["peft_type"] == "LORA" and config["r"] > RANKS[-1]:
        lacks.append(f"rank {config['r']}")
    if lacks:
        raise UserError(f"the vllm engine puts no adapter on with {', '.join(lacks)}; use the hf engine")
    return next(rank for rank in RANKS if rank >= config["r"])


def folder_of(model: Model) -> Path:
    """A folder that vLLM reads the model's weights from."""
    kind, _, rest = model.provenance.source.partition(" ")
    own = Path(model.lm.name_or_path or "")
    if kind in ("folder", "hub") and " + adapter" not in rest and (own / "config.json").is_file():
        return own
    made = cache_dir() / "vllm" / f"{model.provenance.sha256[:32]}-{model.dtype}"
    make_folder(made)
    with locked(made, "writing weights to"):
        if not (made / "whole").is_file():
            model.lm.save_pretrained(made)
            (made / "whole").touch()
    return made
