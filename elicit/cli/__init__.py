"""The command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from elicit.cli.app import main as main

__getattr__, __dir__ = lazily(
    __name__,
    {
        "main": "elicit.cli.app",
    },
)
