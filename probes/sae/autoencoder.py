"""Sparse autoencoders in SAELens's folder format, and one feature of one, ready to be read and steered along.

    z = act((x − b_dec·apply) W_enc + b_enc),   x̂ = z W_dec + b_dec

with act one of ReLU (`standard`), JumpReLU (`jumprelu`, arXiv 2407.14435: z where z > threshold) and TopK
(`topk`, arXiv 2406.04093). A `gated` SAE (arXiv 2404.16014) is read as the JumpReLU that it equals: with e^r on the
encoder's columns and b_mag as bias, its gate x W_enc + b_gate > 0 says z > b_mag − b_gate e^r. BatchTopK and Matryoshka
SAEs are saved as `jumprelu`. `probes.sae.load` reads the published ones.

A `Feature` holds the columns of one feature; for TopK it also holds the whole encoder, since whether a feature is among
the k largest cannot be told from its own column.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.errors import UserError
from probes.finite import check_tensors
from probes.namings import site_named
from probes.sites import Site

ACTIVATIONS = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk", "gated": "jumprelu"}
NEEDED = {
    "standard": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "jumprelu": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "topk": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "gated": ("W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"),
}
SHAPES = {"W_enc": ("d_model", "d_sae"), "W_dec": ("d_sae", "d_model"), "b_dec": ("d_model",)}  # others: d_sae
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
)
BY_POSITION = "it rescales each position by itself, so no feature has one decoder column; choose an SAE without it"
REMEDIES = {
    "expected_average_only_in": "fold its factor into the weights with SAELens (fold_activation_norm_scaling_factor)",
    "covariance_whitening": "fold it into the weights with SAELens (fold_activation_whitening)",
    "layer_norm": BY_POSITION,
    "constant_norm_rescale": BY_POSITION,
}


@dataclass(frozen=True, eq=False)
class SAE:
    """Weights, fp32: W_enc [d_model, d_sae], b_enc [d_sae], W_dec [d_sae, d_model], b_dec [d_model].

    `model` is the name under which it was trained, `sha256` the hash of its weights file (of the converted tensors
    where there were several files or none), `about` what else is known: dataset, context size, versions.
    """

    W_enc: Float[Tensor, "d_model d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d_model"]
    b_dec: Float[Tensor, " d_model"]
    site: Site
    activation: str = "relu"
    threshold: Float[Tensor, " d_sae"] | None = None
    k: int = 0
    subtract_b_dec: bool = True
    name: str = ""
    model: str = ""
    sha256: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def d_model(self) -> int:
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[1]

    def encode(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_sae"]:
        """Feature activations, fp32."""
        x = x.float() - self.b_dec if self.subtract_b_dec else x.float()
        z = x @ self.W_enc + self.b_enc
        if self.activation == "jumprelu":
            assert self.threshold is not None
            return z * (z > self.threshold) * (z > 0)
        z = z.relu()
        if self.activation == "topk":
            kept = z.topk(self.k, dim=-1)
            z = torch.zeros_like(z).scatter_(-1, kept.indices, kept.values)
        return z

    def decode(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_model"]:
        return z @ self.W_dec + self.b_dec

    def feature(self, index: int, maximum: float | None = None, resid_norm: float | None = None) -> Feature:
        """One feature, with the largest activation that was seen of it.

        Raises:
            UserError: no such feature.
        """
        if not 0 <= index < self.d_sae:
            raise UserError(f"feature {index} was given; the SAE has {self.d_sae}, give 0 to {self.d_sae - 1}")
        topk = self.activation == "topk"
        return Feature(
            index=index,
            encoder=self.W_enc[:, index].clone(),
            decoder=self.W_dec[index].clone(),
            bias=float(self.b_enc[index]),
            center=self.b_dec.clone() if self.subtract_b_dec else None,
            site=self.site,
            activation=self.activation,
            threshold=float(self.threshold[index]) if self.threshold is not None else 0.0,
            k=self.k if topk else 0,
            rivals=self.W_enc if topk else None,
            rival_bias=self.b_enc if topk else None,
            maximum=maximum,
            resid_norm=resid_norm,
            sae=self.name,
        )

    def to(self, device: torch.device | str) -> SAE:
        """The same with its tensors there."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return replace(self, **moved)

    def tensors(self) -> dict[str, Tensor]:
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in held.items() if isinstance(value, Tensor)}

    @staticmethod
    def load(folder: Path | str, device: str = "cpu") -> SAE:
        """Read a folder of SAELens's (`cfg.json`, `sae_weights.safetensors`), its weights in any precision.

        Raises:
            UserError: files missing or broken, tensors missing or of other shapes, and what `check` refuses.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        for file in ("cfg.json", "sae_weights.safetensors"):
            if not (folder / file).is_file():
                raise UserError(f"{str(folder)!r} holds no {file}; give a folder that SAELens saved")
        what = f"the SAE in {str(folder)!r}"
        config = read_config(folder / "cfg.json")
        check(config, what)
        weights = folder / "sae_weights.safetensors"
        try:
            held = load_file(weights)
        except SafetensorError as error:
            raise UserError(f"the weights in {str(folder)!r} are broken ({error}); fetch them again") from error
        with weights.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        return assemble(config, held, what=what, name=folder.name, sha256=sha256).to(device)


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a `cfg.json`.

    Raises:
        UserError: not JSON, or not a table.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
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
    config = current(config)
    if (kind := config["architecture"]) not in ACTIVATIONS:
        raise UserError(f"{what} is of architecture {kind!r}; read here: {', '.join(ACTIVATIONS)}")
    if (scaling := config["normalize_activations"]) != "none":
        remedy = REMEDIES.get(scaling, "fold it into the weights first")
        raise UserError(f"{what} has normalize_activations={scaling!r}; {remedy}")
    site_of(config["metadata"]["hook_name"] or "", what)
    if (config["metadata"].get("model_from_pretrained_kwargs") or {}).get("center_writing_weights"):
        raise UserError(
            f"{what} was trained on a model with centred writing weights, whose stream is not that of the model as "
            "published; choose an SAE with center_writing_weights=False"
        )


def assemble(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, what: str, name: str, sha256: str = ""
) -> SAE:
    """An SAE from SAELens's settings and tensors; what it scales at run time is folded into the weights.

    Raises:
        UserError: what `check` refuses; tensors missing, of other shapes, or with a scale of their own.
    """
    check(config, what)
    config = current(config)
    kind = config["architecture"]
    held = _needed(config, tensors, what)
    threshold = held.get("threshold")
    if kind == "gated":
        scale = held["r_mag"].exp()
        threshold = held["b_mag"] - held["b_gate"] * scale
        held = {**held, "W_enc": held["W_enc"] * scale, "b_enc": held["b_mag"]}
    k: Any = config.get("k") if kind == "topk" else 0
    if kind == "topk":
        if not isinstance(k, int) or not 1 <= k <= config["d_sae"]:
            raise UserError(f"{what} has k={k!r}; expected 1 to {config['d_sae']}, its number of features")
        if config.get("rescale_acts_by_decoder_norm"):
            norms = held["W_dec"].norm(dim=-1).clamp(min=1e-8)  # the same map with unit rows, as SAELens folds it
            held = {
                "W_enc": held["W_enc"] * norms,
                "b_enc": held["b_enc"] * norms,
                "W_dec": held["W_dec"] / norms[:, None],
                "b_dec": held["b_dec"],
            }
    # A threshold may be infinite: such a feature never fires.
    limits = {} if threshold is None else {"threshold": threshold.clamp(-3e38, 3e38)}
    check_tensors({**held, **limits}, what, "fetch or save it again")
    metadata = config["metadata"]
    about = {key: metadata[key] for key in METADATA if metadata.get(key) is not None}
    return SAE(
        W_enc=held["W_enc"],
        b_enc=held["b_enc"],
        W_dec=held["W_dec"],
        b_dec=held["b_dec"],
        site=site_of(metadata["hook_name"]),
        activation=ACTIVATIONS[kind],
        threshold=threshold,
        k=k,
        subtract_b_dec=bool(config.get("apply_b_dec_to_input", True)),
        name=name,
        model=str(about.pop("model_name", "")),
        sha256=sha256,
        about={"architecture": kind, **about},
    )


def _needed(config: Mapping[str, Any], tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The tensors of the architecture, fp32, in the sizes that the settings give."""
    kind = config["architecture"]
    if missing := [key for key in NEEDED[kind] if key not in tensors]:
        raise UserError(
            f"{what} lacks {', '.join(missing)}, which an SAE of architecture {kind!r} needs "
            f"(it holds {', '.join(sorted(tensors)) or 'nothing'}); fetch or save it again"
        )
    scale = tensors.get("scaling_factor", tensors.get("finetuning_scaling_factor"))
    if scale is not None and not torch.allclose(scale.float(), torch.ones_like(scale.float())):
        raise UserError(f"{what} scales its features once more (scaling_factor); fold that into W_dec first")
    sizes = {"d_model": config.get("d_in"), "d_sae": config.get("d_sae")}
    for key in NEEDED[kind]:
        found = list(tensors[key].shape)
        expected = [sizes[size] for size in SHAPES.get(key, ("d_sae",))]
        if found != expected:
            raise UserError(
                f"{what} holds {key} of shape {found}, its settings (d_in {sizes['d_model']}, d_sae {sizes['d_sae']}) "
                f"say {expected}; these files do not belong together: fetch or save it again"
            )
    return {key: tensors[key].detach().float().contiguous() for key in NEEDED[kind]}


def site_of(hook_name: str, what: str = "the SAE") -> Site:
    """The site of a `hook_name`; `what` names the SAE in the message.

    Raises:
        UserError: a hook point that is neither the residual stream nor added to it.
    """
    try:
        return site_named(hook_name, "sae-lens")
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


@dataclass(frozen=True, eq=False)
class Feature:
    """One SAE feature: z = act((x − center)·encoder + bias), and the decoder column that it writes."""

    index: int
    encoder: Float[Tensor, " d_model"]
    decoder: Float[Tensor, " d_model"]
    bias: float
    site: Site
    center: Float[Tensor, " d_model"] | None = None
    activation: str = "relu"
    threshold: float = 0.0
    k: int = 0
    rivals: Float[Tensor, "d_model d_sae"] | None = None
    rival_bias: Float[Tensor, " d_sae"] | None = None
    maximum: float | None = None
    resid_norm: float | None = None
    sae: str = ""

    def __post_init__(self) -> None:
        for value in (self.encoder, self.decoder):
            if not bool(value.isfinite().all()):
                raise UserError(f"feature {self.index} of {self.sae!r} holds NaN or infinity; fetch the SAE again")
        if self.activation == "topk" and (self.rivals is None or self.rival_bias is None or self.k < 1):
            raise UserError(f"TopK feature {self.index} was given without its SAE's encoder and k; use SAE.feature")

    @property
    def name(self) -> str:
        return f"feature {self.index}"

    @property
    def d_model(self) -> int:
        return len(self.decoder)

    @property
    def length(self) -> float:
        return float(self.decoder.norm())

    def largest(self) -> float:
        if self.maximum is None:
            raise UserError(f"feature {self.index} does not know its largest activation; give SAE.feature a maximum")
        return self.maximum

    def scale_of_stream(self) -> float:
        if self.resid_norm is None:
            raise UserError(f"feature {self.index} does not know the residual norm at {self.site}; set resid_norm")
        return self.resid_norm

    def to(self, device: torch.device) -> Feature:
        """The same with its tensors there."""
        moved = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def read(self, h: Float[Tensor, "*batch d_model"]) -> Float[Tensor, " *batch"]:
        """The feature's activation, fp32."""
        x = h.float()
        if self.center is not None:
            x = x - self.center.to(x.device)
        if self.activation == "topk":
            assert self.rivals is not None and self.rival_bias is not None
            every = (x @ self.rivals.to(x.device) + self.rival_bias.to(x.device)).relu()
            z = every[..., self.index]
            return z * ((every > z[..., None]).sum(-1) < self.k)
        z = x @ self.encoder.to(x.device) + self.bias
        return z * (z > self.threshold) * (z > 0) if self.activation == "jumprelu" else z.relu()
