"""The settings of an SAE, as SAELens writes them in `cfg.json`: read, brought to its newest form, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.errors import UserError, as_expected
from probes.namings import site_named
from probes.sites import Site

ACTIVATIONS = {
    "standard": "relu",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "abstopk": "abstopk",
    "gated": "jumprelu",
    "matching_pursuit": "matching_pursuit",
}
TRANSCODER = (
    "it reads what the MLP is given and writes at its output, so no feature can be read and steered at one site; "
    "elicit steer --sae FOLDER --feature N steers along one's decoder row"
)
TRANSCODERS = {
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
NOT_READ = {
    **dict.fromkeys(TRANSCODERS, TRANSCODER),
    "temporal": "its features are read from all tokens before as well, not from one position",
}
# Before SAELens 6 these stood beside the sizes, not under `metadata`.
METADATA = (
    "model_name",
    "hook_name",
    "hf_hook_name",
    "dataset_path",
    "context_size",
    "prepend_bos",
    "exclude_special_tokens",
    "seqpos_slice",
    "neuronpedia_id",
    "model_class_name",
    "model_from_pretrained_kwargs",
    "training_architecture",
    "sae_lens_version",
    "sae_lens_training_version",
    "converted_from",
)
BY_POSITION = "it rescales each position by itself, so no feature has one decoder column; choose an SAE without it"
REMEDIES = {
    "expected_average_only_in": "fold its factor into the weights with SAELens (fold_activation_norm_scaling_factor)",
    "covariance_whitening": "fold it into the weights with SAELens (fold_activation_whitening)",
    "layer_norm": BY_POSITION,
    "constant_norm_rescale": BY_POSITION,
}


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a `cfg.json`.

    Raises:
        UserError: not JSON, or not a table.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is not JSON ({error}); fetch or save the SAE again") from error
    if not isinstance(config, dict):
        raise UserError(f"{str(path)!r} holds a {type(config).__name__}; expected the settings that SAELens saves")
    return config


def current(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as SAELens 6 writes them, whichever version wrote these (its `handle_pre_6_0_config`)."""
    new = {"architecture": "standard", **config}
    given = config.get("metadata")
    metadata = {key: config[key] for key in METADATA if key in config} | (given if isinstance(given, dict) else {})
    metadata.setdefault("hook_name", config.get("hook_point"))
    activation = config.get("activation_fn", config.get("activation_fn_str")) or "relu"
    if activation == "topk":
        kwargs = config.get("activation_fn_kwargs") or {}
        new.update(architecture="topk", k=kwargs.get("k", config.get("k")))
    elif activation != "relu":
        new["architecture"] = f"{new['architecture']} with {activation}"
    scaling = {None: "none", False: "none", True: "expected_average_only_in"}
    normalization = config.get("normalize_activations")
    return {**new, "normalize_activations": scaling.get(normalization, normalization), "metadata": metadata}


def check(config: Mapping[str, Any], what: str) -> None:
    """Refuse by its settings an SAE that cannot be read here; `what` names it in the message.

    Raises:
        UserError: another architecture, activations normalised on the way in, a hook point outside the residual stream.
    """
    with as_expected(f"the settings of {what}", "fetch or save the SAE again"):
        _check(current(config), what)


def _check(config: dict[str, Any], what: str) -> None:
    if (kind := config["architecture"]) not in ACTIVATIONS:
        why = f": {NOT_READ[kind]}" if kind in NOT_READ else ""
        raise UserError(f"{what} is of architecture {kind!r}{why}; read here: {', '.join(ACTIVATIONS)}")
    if (scaling := config["normalize_activations"]) != "none":
        remedy = REMEDIES.get(scaling, "fold it into the weights first")
        raise UserError(f"{what} has normalize_activations={scaling!r}; {remedy}")
    site_of(config["metadata"]["hook_name"] or "", what)
    if (config["metadata"].get("model_from_pretrained_kwargs") or {}).get("center_writing_weights"):
        raise UserError(
            f"{what} was trained on a model with centred writing weights, whose stream is not that of the model as "
            "published; choose an SAE with center_writing_weights=False"
        )


def site_of(hook_name: str, what: str = "the SAE") -> Site:
    """The site of a `hook_name`; `what` names the SAE in the message.

    Raises:
        UserError: a hook point that is neither the residual stream nor added to it.
    """
    try:
        return site_named(hook_name, "sae-lens")
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
