"""Small SAEs with random weights, in SAELens's folder format."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from probes.sae.autoencoder import save_sealed


def save_random_sae(
    folder: Path, *, layer: int = 2, d_model: int = 32, d_sae: int = 64, k: int = 8, sealed: bool = False
) -> Path:
    """A TopK SAE with unit decoder columns and a tied encoder; `sealed`: with the hashes of those that we save."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, d_model, generator=generator), dim=-1)
    tensors = {
        "W_enc": decoder.T.contiguous(),
        "W_dec": decoder,
        "b_enc": torch.zeros(d_sae),
        "b_dec": torch.zeros(d_model),
    }
    config = {
        "architecture": "topk", "k": k, "d_in": d_model, "d_sae": d_sae, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"hook_name": f"blocks.{layer}.hook_resid_post", "model_name": "tiny"},
    }  # fmt: skip
    if sealed:
        save_sealed(folder, config, tensors)
    else:
        save_file(tensors, folder / "sae_weights.safetensors")
        (folder / "cfg.json").write_text(json.dumps(config))
    return folder
