"""The worked examples of Markdown pages, to be run as a reader would."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

MOST_LINES = 80


def examples(page: Path) -> list[str]:
    """The Python blocks of a page, which is short."""
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES, page
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def module_of(source: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that the test's end takes away again."""
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
    return module
