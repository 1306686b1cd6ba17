"""SAELens folders read here against SAELens itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit.errors import UserError
from probes.sae import SAE
from probes.sites import Site

WHERE = {"hook_name": "blocks.2.hook_resid_post"}


def saved(folder: Path, architecture: str, **changes: Any) -> Any:
    """A random SAE that SAELens made and saved."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    shape = {"d_in": 32, "d_sae": 96, "metadata": SAEMetadata(**WHERE), **changes}
    made: dict[str, Any] = {
        "standard": lambda: StandardSAE(StandardSAEConfig(**shape)),
        "jumprelu": lambda: JumpReLUSAE(JumpReLUSAEConfig(**shape)),
        "topk": lambda: TopKSAE(TopKSAEConfig(k=7, **shape)),
    }
    sae = made[architecture]()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn.abs() if name == "threshold" else drawn)
    sae.save_model(folder)
    return sae


@pytest.mark.filterwarnings("ignore::UserWarning")  # SAELens and what it imports, at import
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk"])
@pytest.mark.parametrize("subtract", [True, False])
def test_encode_and_decode_equal_saelens(tmp_path: Path, architecture: str, subtract: bool) -> None:
    theirs = saved(tmp_path, architecture, apply_b_dec_to_input=subtract)
    ours = SAE.load(tmp_path)
    assert ours.site == Site(2)
    x = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        z = theirs.encode(x)
        torch.testing.assert_close(ours.encode(x), z, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.decode(ours.encode(x)), theirs.decode(z), rtol=1e-4, atol=1e-3)
        for index in (0, 50):
            torch.testing.assert_close(ours.feature(index).read(x), z[:, index], rtol=1e-4, atol=1e-4)
    assert 0 < float((z > 0).float().mean()) < 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "standard")
    config = json.loads((tmp_path / "cfg.json").read_text())
    for changes, word in (
        ({"architecture": "transcoder"}, "'transcoder'"),
        ({"normalize_activations": "layer_norm"}, "fold it"),
    ):
        (tmp_path / "cfg.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError, match=word):
            SAE.load(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="broken"):
        SAE.load(tmp_path)
    with pytest.raises(UserError, match=r"no cfg\.json"):
        SAE.load(tmp_path / "nothing")
