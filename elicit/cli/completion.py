"""Names that the shell completes (`elicit --install-completion`), read at each Tab: nothing heavy is imported."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r'^NAME = "([^"]+)"$', re.MULTILINE)


def methods() -> list[str]:
    """The names that the modules of methods give themselves, read and not imported: that would cost seconds."""
    files = (Path(__file__).parents[1] / "methods").rglob("*.py")
    return sorted(name for file in files for name in _NAME.findall(file.read_text(encoding="utf-8")))


def models() -> list[str]:
    from elicit.models.zoo import ALIASES, ORGANISMS, WEIGHTS

    return [*WEIGHTS, *ORGANISMS, *ALIASES]


def presets() -> list[str]:
    return sorted(path.stem for path in (Path(__file__).parents[1] / "presets").glob("*.toml"))


def tasks() -> list[str]:
    """Without reasoning-gym's data sets, whose names a process of their own is asked for."""
    from elicit.models.zoo import DEFAULT_TASK
    from elicit.tasks.hub import TASKS

    return ["organism", *TASKS, DEFAULT_TASK.partition(":")[0]]
