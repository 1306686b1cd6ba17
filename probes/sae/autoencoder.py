"""Sparse autoencoders in SAELens's folder format, and one feature of one, ready to be read and steered along.

    z = act((x − b_dec·apply) W_enc + b_enc),   x̂ = z W_dec + b_dec

with act one of ReLU (`standard`), JumpReLU (`jumprelu`, arXiv 2407.14435: z where z > threshold), TopK (`topk`, arXiv
2406.04093) and AbsTopK (`abstopk`, arXiv 2510.00404: the k largest in size, whatever their sign). `matching_pursuit`
(arXiv 2506.03093) takes the decoder row with the largest product off what is left of x, again and again. A `gated` SAE
(arXiv 2404.16014) is read as the JumpReLU that it equals: with e^r on the encoder's columns and b_mag as bias, its gate
x W_enc + b_gate > 0 says z > b_mag − b_gate e^r. BatchTopK and Matryoshka SAEs are saved as `jumprelu`.
`probes.sae.load` reads the published ones.

A `Feature` holds the columns of one feature; where features compete (TopK, matching pursuit) it also holds the whole
encoder, since whether it is among the k largest cannot be told from its own column.
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

from probes.description import Base, Part, whole_number
from probes.errors import UserError
from probes.files import sha256_of, write_whole
from probes.finite import check_tensors
from probes.sae.config import ACTIVATIONS, METADATA, check, current, read_config, site_of
from probes.sealed import check_tensors_file, save_tensors
from probes.sites import Site

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
NEEDED = {
    "standard": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "jumprelu": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "topk": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "abstopk": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "gated": ("W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"),
    "matching_pursuit": ("W_dec", "b_dec"),
}
COMPETING = ("topk", "abstopk", "matching_pursuit", "matching_pursuit_on")
SHAPES = {"W_enc": ("d_model", "d_sae"), "W_dec": ("d_sae", "d_model"), "b_dec": ("d_model",)}  # others: d_sae


def check_feature(index: int, count: int, what: str = "SAE") -> None:
    """Refuse a feature that is none of so many.

    Raises:
        UserError: no such feature.
    """
    if not 0 <= index < count:
        raise UserError(f"feature {index} was given; the {what} has {count}, give 0 to {count - 1}")


@dataclass(frozen=True, eq=False)
class SAE:
    """Weights, fp32: W_enc [d_model, d_sae], b_enc [d_sae], W_dec [d_sae, d_model], b_dec [d_model].

    Of matching pursuit `k` is the most steps, and each entry of `threshold` the norm of the residual at which it ends;
    it also ends when a step brings no new feature, unless the activation is `matching_pursuit_on`.

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
        if self.activation.startswith("matching_pursuit"):
            assert self.threshold is not None
            return pursue(x, self.W_dec, float(self.threshold[0]), self.k, self.activation == "matching_pursuit")
        z = x @ self.W_enc + self.b_enc
        if self.activation == "jumprelu":
            assert self.threshold is not None
            return z * (z > self.threshold) * (z > 0)
        z = z if self.activation == "abstopk" else z.relu()
        if self.activation in ("topk", "abstopk"):
            kept = z.abs().topk(self.k, dim=-1).indices
            z = torch.zeros_like(z).scatter_(-1, kept, z.gather(-1, kept))
        return z

    def decode(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_model"]:
        return z @ self.W_dec + self.b_dec

    def feature(self, index: int, maximum: float | None = None, resid_norm: float | None = None) -> Feature:
        """One feature, with the largest activation that was seen of it.

        Raises:
            UserError: no such feature.
        """
        check_feature(index, self.d_sae)
        competing = self.activation in COMPETING
        return Feature(
            index=index,
            encoder=self.W_enc[:, index].clone(),
            decoder=self.W_dec[index].clone(),
            bias=float(self.b_enc[index]),
            center=self.b_dec.clone() if self.subtract_b_dec else None,
            site=self.site,
            activation=self.activation,
            threshold=float(self.threshold[index]) if self.threshold is not None else 0.0,
            k=self.k if competing else 0,
            rivals=self.W_enc if competing else None,
            rival_bias=self.b_enc if competing else None,
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
        folder = Path(folder)
        what = f"the SAE in {str(folder)!r}"
        config = settings_of(folder)
        check(config, what)
        held, sha256 = weights_of(folder)
        return assemble(config, held, what=what, name=folder.name, sha256=sha256).to(device)


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings in a folder that SAELens saved.

    Raises:
        UserError: a file that it lacks; settings that are no table.
    """
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(f"{str(folder)!r} holds no {file}; give a folder that SAELens saved")
    return read_config(folder / CONFIG)


def weights_of(folder: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors in a folder that SAELens saved, and the SHA-256 of their file.

    Raises:
        UserError: the file is broken, or it or the settings beside it are not as they were written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights = folder / WEIGHTS
    check_tensors_file(weights, f"the SAE in {str(folder)!r}", "fetch or save it again", sha256_of(folder / CONFIG))
    try:
        held = load_file(weights)
    except SafetensorError as error:
        raise UserError(f"the weights in {str(folder)!r} are broken ({error}); fetch them again") from error
    return held, sha256_of(weights)


def save_sealed(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """SAELens's two files; `cfg.json`, by which a folder counts as whole, comes last.

    The weights carry a hash of themselves and of the settings (`probes.sealed`).
    """
    text = json.dumps(dict(config), indent=2)
    save_tensors(tensors, folder / WEIGHTS, hashlib.sha256(text.encode()).hexdigest())
    write_whole(folder / CONFIG, text)


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
    activation, subtract = ACTIVATIONS[kind], bool(config.get("apply_b_dec_to_input", True))
    if kind == "gated":
        scale = held["r_mag"].exp()
        threshold = held["b_mag"] - held["b_gate"] * scale
        held = {**held, "W_enc": held["W_enc"] * scale, "b_enc": held["b_mag"]}
    k: Any = config.get("k") if kind in ("topk", "abstopk") else 0
    if kind == "matching_pursuit":
        ends, steps = config.get("residual_threshold", 1e-2), config.get("max_iterations")
        k = config["d_in"] if steps is None else steps
        if not isinstance(k, int) or isinstance(k, bool) or k < 1 or not isinstance(ends, int | float):
            raise UserError(f"{what} has max_iterations={steps!r}, residual_threshold={ends!r}; expected numbers")
        held = {**held, "W_enc": held["W_dec"].T.contiguous(), "b_enc": torch.zeros(config["d_sae"])}
        held["b_dec"] = held["b_dec"] * subtract  # SAELens adds it only where it takes it off
        threshold = torch.full((config["d_sae"],), float(ends))
        activation += "" if config.get("stop_on_duplicate_support", True) else "_on"
    if kind in ("topk", "abstopk"):
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= config["d_sae"]:
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
        activation=activation,
        threshold=threshold,
        k=k,
        subtract_b_dec=subtract,
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
        if self.activation in COMPETING and (self.rivals is None or self.rival_bias is None or self.k < 1):
            raise UserError(
                f"{self.activation} feature {self.index} was given without its SAE's encoder and k; use SAE.feature"
            )

    @property
    def name(self) -> str:
        return f"feature {self.index}"

    def description(self, base: Base) -> list[Part]:
        """Its number in an SAE that is at hand."""
        return [Part(self.name, whole_number(1 + self.index))]

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
        if self.activation in COMPETING:
            assert self.rivals is not None and self.rival_bias is not None
            rivals = self.rivals.to(x.device)
            if self.activation.startswith("matching_pursuit"):
                found = pursue(x, rivals.T, self.threshold, self.k, self.activation == "matching_pursuit")
                return found[..., self.index]
            every = x @ rivals + self.rival_bias.to(x.device)
            every = every if self.activation == "abstopk" else every.relu()
            z = every[..., self.index]
            return z * ((every.abs() > z.abs()[..., None]).sum(-1) < self.k)
        z = x @ self.encoder.to(x.device) + self.bias
        return z * (z > self.threshold) * (z > 0) if self.activation == "jumprelu" else z.relu()


def pursue(
    x: Float[Tensor, "*batch d_model"], rows: Float[Tensor, "d_sae d_model"], ends: float, steps: int, until_known: bool
) -> Float[Tensor, "*batch d_sae"]:
    """Matching pursuit: how much of each row was taken off x, the row of the largest product first.

    Args:
        ends: a position is done where the norm of what is left of it is below this, if it is above 0.
        steps: the most rows that are taken off.
        until_known: a position is done too when a step brought no row that was not taken before.
    """
    left = x.reshape(-1, x.shape[-1]).clone()
    z = left.new_zeros(len(left), len(rows))
    done = torch.zeros(len(left), dtype=torch.bool, device=left.device)
    for _ in range(steps):
        best = (left @ rows.T).relu().argmax(-1, keepdim=True)
        chosen = rows[best[:, 0]]
        known = z.gather(-1, best) != 0
        taken = (left * chosen).sum(-1, keepdim=True).relu() * ~done[:, None]
        z.scatter_add_(-1, best, taken)
        left -= taken * chosen
        if until_known:
            done |= (known | (taken == 0))[:, 0]
        if ends > 0:
            done |= left.norm(dim=-1) < ends
        if done.all():
            break
    return z.reshape(*x.shape[:-1], len(rows))
