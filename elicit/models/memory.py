"""Whether a model's weights fit into the memory that is free, asked before they are read.

The system kills a process that takes more than there is, minutes later and without a word.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import safe_open

from probes.errors import UserError

MEMINFO = Path("/proc/meminfo")


def free_bytes(device: torch.device) -> int | None:
    """What is free on a device, memory that the system can take back included; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or not MEMINFO.is_file():
        return None
    told = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    return int(told["MemAvailable"].split()[0]) * 1024


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
