"""A user's mistake, told in one line."""

from __future__ import annotations

from probes.errors import UserError, at_least, unknown

__all__ = ["UserError", "at_least", "unknown"]
