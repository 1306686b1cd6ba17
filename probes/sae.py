"""Sparse autoencoders in SAELens's folder format, and one feature of one, ready to be read and pushed.

    z = act((x − b_dec·apply) W_enc + b_enc),   x̂ = z W_dec + b_dec

with act one of ReLU (`standard`), JumpReLU (`jumprelu`, arXiv 2407.14435: z where z > threshold) and TopK
(`topk`, arXiv 2406.04093). A `Feature` holds the columns of one feature; for TopK it also holds the whole encoder,
since whether a feature is among the k largest cannot be told from its own column.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.errors import UserError
from probes.sites import Site

ACTIVATIONS = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk"}


@dataclass(frozen=True, eq=False)
class SAE:
    """Weights: W_enc [d_model, d_sae], b_enc [d_sae], W_dec [d_sae, d_model], b_dec [d_model]."""

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

    @staticmethod
    def load(folder: Path | str, device: str = "cpu") -> SAE:
        """Read a folder of SAELens's (`cfg.json`, `sae_weights.safetensors`).

        Raises:
            UserError: files missing or broken, an architecture or a normalisation that is not read here.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        for file in ("cfg.json", "sae_weights.safetensors"):
            if not (folder / file).is_file():
                raise UserError(f"{str(folder)!r} holds no {file}; give a folder that SAELens saved")
        config: dict[str, Any] = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
        kind = config.get("architecture", "standard")
        if kind not in ACTIVATIONS:
            raise UserError(f"an SAE of architecture {kind!r} was given; read here: {', '.join(ACTIVATIONS)}")
        if (scaling := config.get("normalize_activations", "none")) not in ("none", None):
            raise UserError(f"an SAE with normalize_activations={scaling!r} was given; fold it into the weights first")
        try:
            held = {k: v.float() for k, v in load_file(folder / "sae_weights.safetensors", device=device).items()}
        except SafetensorError as error:
            raise UserError(f"the weights in {str(folder)!r} are broken ({error}); fetch them again") from error
        W_dec = held["W_dec"]
        if config.get("rescale_acts_by_decoder_norm"):
            norms = W_dec.norm(dim=-1)  # the same map with unit decoder rows, as SAELens folds it
            held = {**held, "W_enc": held["W_enc"] * norms, "b_enc": held["b_enc"] * norms}
            W_dec = W_dec / norms[:, None]
        metadata = config.get("metadata", {})
        return SAE(
            W_enc=held["W_enc"],
            b_enc=held["b_enc"],
            W_dec=W_dec,
            b_dec=held["b_dec"],
            site=site_of(metadata.get("hook_name") or config.get("hook_name") or ""),
            activation=ACTIVATIONS[kind],
            threshold=held.get("threshold"),
            k=int(config.get("k", 0)),
            subtract_b_dec=bool(config.get("apply_b_dec_to_input", True)),
            name=folder.name,
        )


def site_of(hook_name: str) -> Site:
    """The site of a hook's name: `blocks.12.hook_resid_post`, or a Hugging Face block, `model.layers.12`."""
    head, _, last = hook_name.rpartition(".")
    if last.isdigit():
        return Site(int(last), "resid_post")
    if not head:
        raise UserError(f"the SAE names the hook point {hook_name!r}; expected one like blocks.12.hook_resid_post")
    return Site.parse(hook_name)


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
            return z * (z >= every.kthvalue(every.shape[-1] - self.k + 1, dim=-1).values)
        z = x @ self.encoder.to(x.device) + self.bias
        return z * (z > self.threshold) * (z > 0) if self.activation == "jumprelu" else z.relu()
