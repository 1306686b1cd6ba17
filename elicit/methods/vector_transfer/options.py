"""The choices of `vector-transfer` by name, which its face and its pipeline share."""

from __future__ import annotations

NAME = "vector-transfer"
GATES = ("oracle", "probe", "entropy")
MODES = ("hybrid", "static")
BETWEEN, HEAD = "between", "head"
