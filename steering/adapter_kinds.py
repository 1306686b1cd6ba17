"""Which adapters of PEFT are read, and which are refused before anything is loaded, and why.

A kind is read where PEFT's layers alone compute it: they are exchanged for the base's (`steering.adapters`), and PEFT's
own wrapper around the model, which adds tokens or looks at a whole prompt, is gone round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from probes.errors import UserError
from probes.lora_start import begins_in_base

LAYERS = frozenset([
    "ADALORA", "ADAMSS", "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "FROD", "GLORA", "GRALORA", "HIRA",
    "HRA", "IA3", "LN_TUNING", "LOHA", "LOKR", "LORA", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "PVERA",
    "RANDLORA", "ROAD", "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT",
])  # fmt: skip
"""Kinds that are read."""

_TOKENS = "it puts tokens of its own before every prompt"
REFUSED = {
    "PROMPT_TUNING": _TOKENS,
    "MULTITASK_PROMPT_TUNING": _TOKENS,
    "P_TUNING": _TOKENS,
    "CPT": _TOKENS,
    "PREFIX_TUNING": "it puts keys and values of its own before those of every prompt",
    "CARTRIDGE": "it puts keys and values of its own before those of every prompt",
    "ADAPTION_PROMPT": "it puts attention of its own in the place of the model's, of another computation than it",
    "XLORA": "it mixes several adapters, by weights that a second pass over the prompt computes",
    "POLY": "it asks with each prompt for the number of a task",
    "LILY": "it mixes its weights by all tokens of a forward, later ones, padding and other rows too",
    "SHADOW": "it computes a second model beside the layers",
}
"""Kinds that are not layers of one row's past, and what they are instead."""

OPTIONS = {
    "alora_invocation_tokens": "it acts from its invocation tokens on, which PEFT's own wrapper alone looks for",
    "layer_replication": "it repeats layers of the base",
    "arrow_config": "it chooses among several adapters, whose folders it names",
    "sample_at_inference": "it draws random numbers at each pass",
}
"""Options of a kind that is read which make it one that is not."""

_PLAIN = "save it again with PEFT's path_initial_model_for_weight_conversion, which makes it a plain LoRA"
INITIALISATIONS = {
    "pissa_niter": ("is taken out of the base by a random decomposition, another one at each loading", _PLAIN),
    "corda": ("is taken out of the base with statistics that its folder lacks", _PLAIN),
    "lora_ga": ("is taken out of the base with gradients that its folder lacks", _PLAIN),
    "loftq": ("belongs to a base that it rounded", "train it on the base as it is"),
}
"""Beginnings of `init_lora_weights` that loading cannot repeat; each with what to do."""


def check_kind(config: Mapping[str, Any], place: str) -> None:
    """Refuse by its configuration what is no adapter of layers; `place` names it.

    Raises:
        UserError: such a kind, option or initialisation, or none of PEFT's.
    """
    kind = config.get("peft_type")
    kind = kind if kind is None else str(kind)
    if kind not in LAYERS | set(REFUSED):
        raise UserError(
            f"{place} is of the kind {kind!r}, which is none of PEFT's that are known here; "
            "give an adapter that PEFT's save_pretrained wrote, of a kind that docs/reference/files.md lists"
        )
    if kind in REFUSED:
        raise UserError(
            f"{place} is of the kind {kind}, which cannot be put on or merged: {REFUSED[kind]}; "
            "give one of layers, like LoRA"
        )
    for option, why in OPTIONS.items():
        if config.get(option):
            raise UserError(
                f"{place} has the option {option}, with which it cannot be put on or merged: {why}; give one without it"
            )
    start = config.get("init_lora_weights")
    for name, (why, remedy) in INITIALISATIONS.items():
        if isinstance(start, str) and start.lower().startswith(name):
            raise UserError(f"{place} has init_lora_weights {start!r}, which {why}; {remedy}")


def check_options(config: Mapping[str, Any], known: Iterable[str], version: str, place: str) -> None:
    """Refuse options that the installed PEFT passes over; those that are off do nothing.

    Raises:
        UserError: such an option.
    """
    strange = sorted(name for name in set(config) - set(known) if config[name] not in (None, False, "", [], {}))
    if strange:
        wrote = config.get("peft_version")
        raise UserError(
            f"{place} has options that PEFT {version} does not know ({', '.join(strange[:3])}); "
            + (f"install peft=={wrote}, which wrote it" if wrote else "take them out if they mean nothing")
        )


def writes(config: Mapping[str, Any], tensors: Iterable[str], parameters: Iterable[str]) -> bool:
    """Whether loading may write to the base's own weights.

    Args:
        config: the adapter's.
        tensors: the names of its file.
        parameters: of the base.
    """
    if begins_in_base(config):
        return True
    own = {name.replace(".base_layer", "") for name in tensors}
    return config.get("bias", "none") != "none" or any(
        name == one or name.endswith(f".{one}") for one in parameters for name in own
    )
