"""Transcoders in SAELens's folders: they read what an MLP is given and write what it adds (arXiv 2406.11944).

    z = act(x W_enc + b_enc),   ŷ = z W_dec + b_dec (+ W_skip x)

with x the input of layer L's MLP, after its norm, and y what the MLP adds (`L.mlp_out`). So a feature's decoder row is
a direction at `L.mlp_out`, and its activation is read at the MLP's input. A search, `set` and `scale` would have to
read where they write, and refuse it.

Read are those whose input is the MLP module's own (`blocks.L.mlp.hook_in`). What other hook names mean is not the same
point of the model as published: they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from probes.errors import UserError, as_expected
from probes.finite import check_tensors
from probes.sae.autoencoder import check_feature, settings_of, weights_of
from probes.sae.config import TRANSCODERS, current, read_config
from probes.sites import Site, check_site, decoder, sublayer, width

NOT_READ = {
    "ln2.hook_normalized": "the norm's output before its gain, which TransformerLens folds into other weights",
    "hook_mlp_in": "in TransformerLens the stream before the norm",
}


@dataclass(frozen=True, eq=False)
class Transcoder:
    """Weights, fp32: W_enc [d_model, d_sae], b_enc [d_sae], W_dec [d_sae, d_model], b_dec [d_model]; W_skip [out, in].

    `sha256` is the hash of its weights file.
    """

    W_enc: Float[Tensor, "d_model d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d_model"]
    b_dec: Float[Tensor, " d_model"]
    layer: int
    threshold: Float[Tensor, " d_sae"] | None = None
    W_skip: Float[Tensor, "d_model d_model"] | None = None
    name: str = ""
    model: str = ""
    sha256: str = ""

    @property
    def writes(self) -> Site:
        return Site(self.layer, "mlp_out")

    def encode(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_sae"]:
        """Feature activations from what the MLP is given, fp32."""
        z = x.float() @ self.W_enc + self.b_enc
        return z.relu() if self.threshold is None else z.relu() * (z > self.threshold)

    def decode(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_model"]:
        """What features add to the MLP's output; the skip connection is not theirs."""
        return z @ self.W_dec + self.b_dec

    def rebuilt(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The MLP's output as the transcoder has it, with the skip connection."""
        y = self.decode(self.encode(x))
        return y if self.W_skip is None else y + x.float() @ self.W_skip.T

    def row(self, index: int) -> Float[Tensor, " d_model"]:
        """A feature's decoder row: its direction at the MLP's output.

        Raises:
            UserError: no such feature.
        """
        check_feature(index, len(self.W_dec), "transcoder")
        return self.W_dec[index].clone()

    @staticmethod
    def load(folder: Path | str) -> Transcoder:
        """Read a folder that SAELens saved.

        Raises:
            UserError: files missing or broken, tensors of other shapes, an input that is not the MLP's own, another
                width at its output, activations that are normalised on the way in.
        """
        folder = Path(folder).expanduser()
        what = f"the transcoder in {str(folder)!r}"
        settings = settings_of(folder)
        with as_expected(f"the settings of {what}", "fetch or save it again"):
            config = current(settings)
            layer = _checked(config, what)
        held, sha256 = weights_of(folder)
        kind, d_in, d_sae = config["architecture"], config.get("d_in"), config.get("d_sae")
        shapes = {"W_enc": [d_in, d_sae], "b_enc": [d_sae], "W_dec": [d_sae, d_in], "b_dec": [d_in]}
        if TRANSCODERS[kind] == "jumprelu":
            shapes["threshold"] = [d_sae]
        if "skip" in kind:
            shapes["W_skip"] = [d_in, d_in]
        for name, shape in shapes.items():
            found = list(held[name].shape) if name in held else "none"
            if found != shape:
                raise UserError(f"{what} holds {name} of shape {found}, its settings say {shape}; save it again")
        tensors: dict[str, Any] = {name: held[name].float().contiguous() for name in shapes}
        check_tensors(tensors, what, "save it again")
        model = str(config["metadata"].get("model_name") or "")
        return Transcoder(**tensors, layer=layer, name=folder.name, model=model, sha256=sha256)


def is_transcoder(folder: Path) -> bool:
    """Whether a path is a transcoder's folder, by the settings in it.

    Raises:
        UserError: settings that are no JSON, or not as SAELens writes them.
    """
    file = folder / "cfg.json"
    if not file.is_file():
        return False
    settings = read_config(file)
    with as_expected(repr(str(file)), "fetch or save it again"):
        return current(settings)["architecture"] in TRANSCODERS


def _checked(config: dict[str, Any], what: str) -> int:
    """The layer of a transcoder that can be read; refuse others by their settings."""
    if config["architecture"] not in TRANSCODERS:
        raise UserError(f"{what} is of architecture {config['architecture']!r}; expected {', '.join(TRANSCODERS)}")
    if (scaling := config["normalize_activations"]) != "none":
        raise UserError(f"{what} has normalize_activations={scaling!r}; fold it into the weights first")
    metadata = config["metadata"]
    reads, writes = str(metadata.get("hook_name") or ""), str(metadata.get("hook_name_out") or "")
    found = re.fullmatch(r"blocks\.(\d+)\.mlp\.hook_in", reads)
    if not found:
        why = next((f" ({why})" for name, why in NOT_READ.items() if reads.endswith(name)), "")
        raise UserError(f"{what} reads at {reads!r}{why}; expected the MLP's own input, blocks.L.mlp.hook_in")
    if writes != f"blocks.{found[1]}.hook_mlp_out":
        raise UserError(f"{what} writes at {writes!r}; expected blocks.{found[1]}.hook_mlp_out, of the layer it reads")
    if config.get("d_out") != config.get("d_in"):
        raise UserError(f"{what} has d_in {config.get('d_in')} and d_out {config.get('d_out')}; expected the same")
    return int(found[1])


@torch.inference_mode()
def largest(lm: PreTrainedModel, one: Transcoder, texts: Sequence[Sequence[int]]) -> Float[Tensor, " d_sae"]:
    """The largest activation of each feature over texts, their first positions left out.

    Raises:
        UserError: a transcoder of another width or layer than the model's, an MLP whose output is no site.
    """
    if len(one.b_dec) != width(lm):
        raise UserError(f"transcoder {one.name!r} writes {len(one.b_dec)} dimensions and the model has {width(lm)}")
    check_site(lm, one.writes, write=True)
    out = torch.zeros(len(one.b_enc))

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["hidden_states"]
        z = one.encode(x.reshape(-1, x.shape[-1])[1:].cpu())
        if len(z):
            torch.maximum(out, z.amax(0), out=out)

    handle = sublayer(lm, one.writes).register_forward_pre_hook(keep, with_kwargs=True)
    try:
        for text in texts:
            decoder(lm)(input_ids=torch.tensor([list(text)], device=lm.device), use_cache=False)
    finally:
        handle.remove()
    return out
