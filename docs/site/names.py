"""Docstrings say what belongs together in one line (`clean, corrupted: …`); the API has a line a parameter."""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^Args:\n(?:[ ]{4,}.*\n?|\n)+", re.M)


class EachName(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = SECTION.sub(lambda found: apart(found[0]), obj.docstring.value)


def apart(section: str) -> str:
    """The section with an entry for each name."""
    head, *entries = re.split(r"\n(?=[ ]{4}\S)", section)
    return "\n".join([head, *(line for entry in entries for line in _apart(entry))])


def _apart(entry: str) -> list[str]:
    names, colon, text = entry.partition(":")
    several = [name.strip() for name in names.split(",")]
    if not all(name.isidentifier() for name in several):
        return [entry]
    return [f"    {name}{colon}{text}" for name in several]
