"""What a result was made with: the command, the versions, the processor. Kept with a run, shown in its report."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("elicit", "torch", "transformers", "peft", "numpy")


def made_by() -> dict[str, Any]:
    """The command that this process is, and what it runs on."""
    return {"command": command(), "environment": environment()}


def command() -> str:
    """The command line, as a shell takes it; of anything but `elicit` itself the name of the program."""
    program = Path(sys.argv[0])
    if program.name in ("elicit", "elicit.exe") or program.parts[-2:] == ("elicit", "__main__.py"):
        return shlex.join(["elicit", *sys.argv[1:]])
    return f"from Python ({program.name or 'interactive'})"


def environment() -> dict[str, Any]:
    """Versions and processors."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if cuda else [],
    }


def _cpu() -> str:
    """The processor's own name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
