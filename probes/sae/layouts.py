"""SAEs in other libraries' tensors: which library's they are, and the same as SAELens keeps them.

A layout is known by the names of its tensors; where two share them, by the settings beside the file.

    sparsify              encoder.weight [d_sae, d], W_dec [d_sae, d]: TopK of x − b_dec (eai-sparsify)
    dictionary-learning   seven classes; W_enc [d, d_sae] or encoder.weight [d_sae, d], decoder.weight [d, d_sae]
    Gemma Scope           W_enc [d, d_sae]: JumpReLU of x, which is dictionary-learning's JumpReluAutoEncoder too
    Goodfire              encoder_linear, decoder_linear: ReLU of x
    Qwen Scope            W_enc [d_sae, d], W_dec [d, d_sae]: TopK of x; k stands in the name of the repository
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.errors import UserError

Tensors = dict[str, Tensor]
Settings = dict[str, Any]
LINEAR = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight"}
OWN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
TURNED = ("encoder.weight", "decoder.weight", "encoder_linear.weight", "decoder_linear.weight")


@dataclass(frozen=True)
class Layout:
    """One class of SAEs as its library saves it.

    Args:
        library: whose it is.
        architecture: SAELens's name for it.
        names: SAELens's names of tensors, and its own.
        subtract: whether b_dec is taken off the input.
        turned: those of its matrices that lie the other way.
        marks: further tensors by which it is known.
        besides: further tensors that it may hold.
        told: whether the settings beside it have to say that it is this one.
        k: where its k comes from.
    """

    library: str
    architecture: str
    names: Mapping[str, str]
    subtract: bool
    turned: tuple[str, ...] = TURNED
    marks: frozenset[str] = frozenset()
    besides: frozenset[str] = frozenset()
    told: bool = False
    k: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Any] = lambda held, settings: None

    def holds(self, held: Mapping[str, Tensor]) -> bool:
        own = {*self.names.values(), *self.marks}
        return own <= set(held) <= own | self.besides

    def read(self, held: Mapping[str, Tensor], settings: Mapping[str, Any], what: str) -> tuple[Settings, Tensors]:
        """SAELens's settings, but for the hook point, and tensors."""
        tensors = {
            name: held[own].T if own in self.turned and held[own].ndim == 2 else held[own]
            for name, own in self.names.items()
        }
        if tensors["W_dec"].ndim != 2:
            shape = list(tensors["W_dec"].shape)
            raise UserError(f"{what} holds {self.names['W_dec']} of shape {shape}, which is no matrix; fetch it again")
        d_sae, d_in = tensors["W_dec"].shape
        if "threshold" in tensors and not tensors["threshold"].ndim:
            tensors["threshold"] = tensors["threshold"].expand(d_sae)
        made: Settings = {
            "architecture": self.architecture,
            "d_in": settings.get("d_in", d_in),
            "d_sae": settings.get("num_latents") or d_sae,
            "apply_b_dec_to_input": self.subtract,
            "normalize_activations": "none",
        }
        if self.architecture == "topk":
            made["k"] = self.k(held, settings)
        return made, {name: tensor.float().contiguous() for name, tensor in tensors.items()}


def _k_held(held: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Any:
    """dictionary-learning's: a tensor, which its first versions did not save."""
    return int(held["k"]) if "k" in held and held["k"].numel() == 1 else _trainer(settings).get("k", settings.get("k"))


def _k_set(_: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Any:
    return settings.get("k")


KEPT = frozenset({"k", "threshold"})
LAYOUTS = {
    "sparsify": Layout(
        "eai-sparsify", "topk", {**OWN, "W_enc": "encoder.weight", "b_enc": "encoder.bias"}, subtract=True, k=_k_set
    ),
    "AutoEncoder": Layout("dictionary-learning", "standard", {**LINEAR, "b_dec": "bias"}, subtract=True),
    "AutoEncoderNew": Layout(
        "dictionary-learning", "standard", {**LINEAR, "b_dec": "decoder.bias"}, subtract=False, told=True
    ),
    "GatedAutoEncoder": Layout(
        "dictionary-learning", "gated",
        {
            "W_enc": "encoder.weight", "r_mag": "r_mag", "b_gate": "gate_bias", "b_mag": "mag_bias",
            "W_dec": "decoder.weight", "b_dec": "decoder_bias",
        },
        subtract=True,
    ),
    "JumpReluAutoEncoder": Layout(
        "Gemma Scope, dictionary-learning", "jumprelu", {**OWN, "threshold": "threshold"}, subtract=False
    ),
    "AutoEncoderTopK": Layout(
        "dictionary-learning", "topk", {**LINEAR, "b_dec": "b_dec"}, subtract=True, besides=KEPT, told=True, k=_k_held
    ),
    "BatchTopKSAE": Layout(
        "dictionary-learning", "jumprelu", {**LINEAR, "b_dec": "b_dec", "threshold": "threshold"}, subtract=True,
        besides=KEPT, told=True,
    ),
    "MatryoshkaBatchTopKSAE": Layout(
        "dictionary-learning", "jumprelu", {**OWN, "threshold": "threshold"}, subtract=True,
        marks=frozenset({"group_sizes"}), besides=KEPT,
    ),
    "Goodfire": Layout(
        "Goodfire", "standard",
        {
            "W_enc": "encoder_linear.weight", "b_enc": "encoder_linear.bias",
            "W_dec": "decoder_linear.weight", "b_dec": "decoder_linear.bias",
        },
        subtract=False,
    ),
    "Qwen Scope": Layout("Qwen Scope", "topk", OWN, subtract=False, turned=("W_enc", "W_dec"), k=_k_set),
}  # fmt: skip
# Settings of sparsify under which an SAE is something else than is read here.
UNLIKE = {
    "activation": ("groupmax", "it keeps the largest feature of each group"),
    "transcode": (True, "it is a transcoder: it reads at one point of the model and writes at another"),
    "skip_connection": (True, "it adds a linear map of its input"),
    "signed": (True, "it keeps the largest features of either sign"),
}


def as_saelens(held: Mapping[str, Tensor], settings: Mapping[str, Any], what: str) -> tuple[Settings, Tensors, str]:
    """SAELens's settings, but for the hook point, SAELens's tensors, and the name of the layout.

    Args:
        held: the tensors of the file.
        settings: what stands beside it: `cfg.json` of sparsify, `config.json` of dictionary-learning, k of others.
        what: names the file in messages.

    Raises:
        UserError: a layout that is not known, that two share, or that is known and not read.
    """
    for key, (value, why) in UNLIKE.items():
        if settings.get(key) == value:
            raise UserError(f"{what} has {key}={value!r}: {why}, which is not read here; choose another")
    told = _trainer(settings).get("dict_class")
    fitting = [name for name, layout in LAYOUTS.items() if layout.holds(held)]
    if told is not None:
        if told not in LAYOUTS:
            classes = [name for name, layout in LAYOUTS.items() if "dictionary-learning" in layout.library]
            raise UserError(f"{what} is of the class {told!r}; read here: {', '.join(classes)}")
        if told not in fitting:
            known = ", ".join(sorted(held)) or "nothing"
            raise UserError(f"{what} holds {known}, which is no {told} as its config.json says; fetch both again")
        fitting = [told]
    elif any(LAYOUTS[name].told for name in fitting):
        raise UserError(
            f"{what} may be one of several ({', '.join(fitting)}); put the config.json beside it that was saved with it"
        )
    if not fitting:
        raise UserError(
            f"{what} holds {', '.join(sorted(held)[:8]) or 'nothing'}, which no library that is known here saves "
            f"({', '.join(dict.fromkeys(layout.library for layout in LAYOUTS.values()))}); convert it to SAELens's form"
        )
    name = fitting[0]
    made, tensors = LAYOUTS[name].read(held, settings, what)
    if made["architecture"] == "topk" and made["k"] is None:
        raise UserError(f"{what} does not say how many features it keeps; give k")
    if name == "Qwen Scope" and held["W_enc"].shape[0] != held["b_enc"].shape[0]:
        raise UserError(f"{what} holds tensors as SAELens names them and no settings; put its cfg.json beside it")
    return made, tensors, name


def _trainer(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    trainer = settings.get("trainer")
    return trainer if isinstance(trainer, Mapping) else {}


def numbers(path: str, what: str) -> Tensors:
    """The arrays of an `.npz` file, without unpickling any.

    Raises:
        UserError: cut, another kind of file, or arrays of objects.
    """
    import zipfile
    import zlib

    import numpy as np

    try:
        # Opened here: of a file that is cut, NumPy leaves its own open.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as held:
            return {name: torch.from_numpy(np.ascontiguousarray(held[name])) for name in held.files}
    except (
        ValueError, EOFError, OSError, AttributeError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
        raise UserError(f"{what} is cut or no file of arrays ({reason}); fetch it again") from error
