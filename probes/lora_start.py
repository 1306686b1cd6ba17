"""Where a LoRA begins: beside the base, or in a part that PEFT takes out of the base's weights when it loads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BESIDE = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights` that leave the base's weights alone."""


def begins_in_base(config: Mapping[str, Any]) -> bool:
    """Whether the base with an adapter of these settings is not the base plus the adapter's product."""
    return config.get("init_lora_weights") not in BESIDE or bool(config.get("kasa_config"))
