"""Whether a model's weights fit into the memory that is free, asked before they are read.

The system kills a process that takes more than there is, minutes later and without a word.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from probes.errors import UserError

MEMINFO = Path("/proc/meminfo")
# A limit that is set from outside, and what is used of it: of control groups in their second and first version.
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory.stat")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
    ),
)


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
    total = 0
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "pt") as opened:
            total += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    return total * dtype.itemsize


def cache_bytes(lm: PreTrainedModel, rows: int, tokens: int) -> int:
    """The keys and values that attention keeps of so many rows of so many tokens, where every layer keeps all."""
    config = lm.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    wide = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * config.num_hidden_layers * kept * wide * lm.dtype.itemsize * rows * tokens


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
