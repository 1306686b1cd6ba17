"""Whether a model's weights fit into the memory that is free, asked before they are read.

The system kills a process that takes more than there is, minutes later and without a word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from probes.errors import UserError

MEMINFO = Path("/proc/meminfo")
DRAWN = 1 << 26  # weights that may be drawn at random before a model is refused, to say which they are
PACKED = 16  # weights in one element of a quantised file: two bits each in a number of 32
# A limit that is set from outside, and what is used of it: of control groups in their second and first version.
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory.stat")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
    ),
)
# Of a configuration, under all the names that types of models and GGUF files have for them.
LAYERS = {"num_hidden_layers", "num_layers", "n_layers", "n_layer", "block_count"}
SIZES = {
    "vocab_size", "hidden_size", "d_model", "n_embd", "intermediate_size", "ffn_dim", "n_inner", "num_attention_heads",
    "num_heads", "n_head", "n_heads", "num_key_value_heads", "head_dim", "num_local_experts", "num_experts",
    "n_routed_experts", "moe_intermediate_size", "embedding_length", "feed_forward_length", "head_count",
    "head_count_kv", "key_length", "value_length", "expert_count",
}  # fmt: skip


def free_bytes(device: torch.device) -> int | None:
    """What is free on a device, memory that the system can take back included; None where the system does not say.

    On a CPU the smaller of what the machine has and what a limit from outside (of a container) leaves.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or not MEMINFO.is_file():
        return None
    told = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    return min([int(told["MemAvailable"].split()[0]) * 1024, *_left_by_limits()])


def _left_by_limits() -> list[int]:
    """Of each limit from outside what is left; files that it can drop (`inactive_file`) count as free."""
    left = []
    for limit, used, stat in LIMITS:
        if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
            stats = dict(line.split() for line in stat.read_text().splitlines()) if stat.is_file() else {}
            dropped = int(stats.get("total_inactive_file", stats.get("inactive_file", 0)))
            left.append(max(0, int(most) - int(used.read_text()) + dropped))
    return left


def weight_bytes(folder: Path, dtype: torch.dtype | None) -> int:
    """Of a model's safetensors in a dtype, from their headers; copies under other names, which are not read, aside.

    None: as they are stored, as quantised weights are.
    """
    if dtype is None:
        return sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
    return sum(math.prod(s) for file in folder.glob("model*.safetensors") for s in _shapes(file)) * dtype.itemsize


def _shapes(file: Path) -> list[list[int]]:
    """Of a file's tensors, from its header."""
    with safe_open(file, "pt") as opened:
        return [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118


def cache_bytes(lm: PreTrainedModel, rows: int, tokens: int) -> int:
    """The keys and values that attention keeps of so many rows of so many tokens, where every layer keeps all."""
    config = lm.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    wide = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * config.num_hidden_layers * kept * wide * lm.dtype.itemsize * rows * tokens


def check_described(name: str, folder: Path, quantised: bool) -> None:
    """Refuse a `config.json` that `check_sizes` or `check_built` refuses."""
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    parts = [told, *(one for one in told.values() if isinstance(one, dict))]
    shapes = [shape for file in folder.glob("*.safetensors") for shape in _shapes(file)]
    check_sizes(name, parts, shapes)
    check_built(name, AutoConfig.from_pretrained(folder), shapes, PACKED if quantised else 1)


def check_sizes(name: str, described: Iterable[Mapping[str, Any]], shapes: Sequence[Sequence[int]]) -> None:
    """Refuse a configuration with more layers than its file has tensors, or a size below 0 or beyond all of their
    elements.

    A model is built as it is described before its weights are looked at, however large that is.

    Args:
        name: of the model.
        described: the configuration, or its parts, by key.
        shapes: of all tensors.

    Raises:
        UserError: that.
    """
    elements = sum(map(math.prod, shapes))
    for part in described:
        for keys, most, held in ((LAYERS, len(shapes), "tensors"), (SIZES, elements, "elements")):
            for key in keys & part.keys():
                if isinstance(part[key], int | float) and not 0 <= part[key] <= most:
                    raise UserError(
                        f"the configuration of {name!r} says {key} {part[key]}, and its weights are of {most} {held}; "
                        "fetch or save weights and configuration again, together"
                    )


def check_built(name: str, config: PreTrainedConfig, shapes: Iterable[Sequence[int]], packed: int = 1) -> None:
    """Refuse a configuration whose model is far larger than its file: what a file lacks would be drawn, however large.

    Args:
        name: of the model.
        config: of it.
        shapes: of all tensors.
        packed: how many weights one element may hold.

    Raises:
        UserError: that.
    """
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config)
    described, held = sum(p.numel() for p in built.parameters()), sum(map(math.prod, shapes))
    if described > 2 * packed * held + DRAWN:
        raise UserError(
            f"the configuration of {name!r} is of a model of {described:,} weights, and its file holds {held:,} "
            "elements; fetch or save weights and configuration again, together"
        )


def check_room(name: str, folder: Path, dtype: torch.dtype | None, device: torch.device) -> None:
    """Refuse a model that is larger than the memory it would go through or stay in.

    Raises:
        UserError: that.
    """
    needed, held = (
        weight_bytes(folder, dtype),
        "its quantised form" if dtype is None else str(dtype).removeprefix("torch."),
    )
    for place in (torch.device("cpu"), device):
        free = free_bytes(place)
        if free is not None and needed > free:
            raise UserError(
                f"{name!r} needs {needed / 1e9:.2f} GB in {held} and {free / 1e9:.2f} GB "
                f"are free on {place.type}; free some, give a smaller model or another dtype (a thinking model may be "
                "an adapter, which shares the base's weights)"
            )
