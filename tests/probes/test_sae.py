"""SAELens folders and objects read here against SAELens itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from probes.errors import UserError
from probes.sae import SAE
from probes.sae.config import ACTIVATIONS, NOT_READ, check
from probes.sae.load import from_saelens, load_sae
from probes.sites import Site

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # SAELens and what it imports, at import

D_MODEL, D_SAE = 16, 48
WHERE = {
    "hook_name": "blocks.2.hook_resid_post",
    "model_name": "tiny",
    "dataset_path": "some/texts",
    "context_size": 128,
}


def draw(*shape: int, seed: int = 0, scale: float = 0.3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


X = draw(40, D_MODEL, seed=1, scale=1.0)


def filled(sae: Any) -> Any:
    """The same with random parameters, thresholds positive."""
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(sae.named_parameters()):
            drawn = draw(*parameter.shape, seed=seed)
            parameter.copy_(drawn.abs() if name == "threshold" else drawn)
    return sae


def made(architecture: str, **changes: Any) -> Any:
    """A random inference SAE of SAELens's."""
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    metadata = SAEMetadata(**{**WHERE, **changes.pop("metadata", {})})
    cls, config = get_sae_class(architecture)
    k = {"k": 7} if architecture in ("topk", "abstopk") else {}
    return filled(cls(config(d_in=D_MODEL, d_sae=D_SAE, metadata=metadata, **k, **changes)))


def same(ours: SAE, theirs: Any, x: Tensor = X) -> None:
    """Encode, decode and single features equal SAELens's."""
    with torch.no_grad():
        z = theirs.encode(x)
        torch.testing.assert_close(ours.encode(x), z, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.decode(z), theirs.decode(z), rtol=1e-5, atol=1e-5)
        for index in (0, D_SAE - 1, int(z.flatten(0, -2).mean(0).argmax())):
            torch.testing.assert_close(ours.feature(index).read(x), z[..., index], rtol=1e-5, atol=1e-5)
    assert 0 < float((z != 0).float().mean()) < 1


def told(call: Callable[[], object]) -> str:
    """The one line that the user is told."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_architecture_of_saelens_is_read_or_refused_by_name() -> None:
    """A new one of theirs fails here."""
    import sae_lens  # noqa: F401  # fills the registry
    from sae_lens.registry import SAE_CLASS_REGISTRY

    assert set(SAE_CLASS_REGISTRY) == set(ACTIVATIONS) | set(NOT_READ)
    assert not set(ACTIVATIONS) & set(NOT_READ)
    for architecture, reason in NOT_READ.items():
        config = {"architecture": architecture, "d_in": D_MODEL, "d_sae": D_SAE, "metadata": WHERE}
        line = told(lambda config=config: check(config, "the SAE"))  # type: ignore[misc]
        assert repr(architecture) in line and reason in line


@pytest.mark.parametrize("architecture", ACTIVATIONS)
@pytest.mark.parametrize("subtract", [True, False])
def test_a_folder_equals_saelens(tmp_path: Path, architecture: str, subtract: bool) -> None:
    theirs = made(architecture, apply_b_dec_to_input=subtract)
    theirs.save_model(tmp_path / "mine")
    ours = load_sae(tmp_path / "mine")
    same(ours, theirs)
    same(from_saelens(theirs), theirs)
    assert (ours.site, ours.name, ours.model) == (Site(2), "mine", "tiny")
    assert ours.sha256 == hashlib.sha256((tmp_path / "mine" / "sae_weights.safetensors").read_bytes()).hexdigest()
    assert ours.about["dataset_path"] == "some/texts" and ours.about["context_size"] == 128
    assert ours.about["architecture"] == architecture


@pytest.mark.parametrize("settings", [{}, {"stop_on_duplicate_support": False}, {"max_iterations": 3}])
@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_matching_pursuit_ends_where_saelens_ends_it(
    tmp_path: Path, settings: dict[str, Any], threshold: float
) -> None:
    theirs = made("matching_pursuit", residual_threshold=threshold, **settings)
    with torch.no_grad():
        theirs.W_dec /= theirs.W_dec.norm(dim=-1, keepdim=True)
    theirs.save_model(tmp_path)
    same(load_sae(tmp_path), theirs)
    same(load_sae(tmp_path), theirs, X.reshape(4, 10, D_MODEL))


@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
def test_decoder_norms_are_folded(tmp_path: Path, architecture: str) -> None:
    theirs = made(architecture, rescale_acts_by_decoder_norm=True)
    theirs.save_model(tmp_path)
    ours = load_sae(tmp_path)
    same(ours, theirs)
    torch.testing.assert_close(ours.W_dec.norm(dim=-1), torch.ones(D_SAE))


@pytest.mark.parametrize(
    "architecture",
    ["standard", "jumprelu", "topk", "abstopk", "gated", "batchtopk", "matryoshka_batchtopk", "matching_pursuit"],
)
def test_one_in_training_is_read_as_it_would_be_saved(tmp_path: Path, architecture: str) -> None:
    from sae_lens import SAE as Theirs
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata

    cls, config = get_sae_training_class(architecture)
    extra: dict[str, Any] = {"k": 7} if "topk" in architecture else {}
    if architecture.startswith("matryoshka"):
        extra["matryoshka_widths"] = [16, 32, 48]
    theirs = filled(cls(config(d_in=D_MODEL, d_sae=D_SAE, metadata=SAEMetadata(**WHERE), **extra)))
    if "batchtopk" in architecture:
        theirs.topk_threshold.fill_(0.4)
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    ours = from_saelens(theirs)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, before[name])
    theirs.save_inference_model(tmp_path)
    with torch.no_grad():
        theirs.W_enc.zero_()  # training goes on
    same(ours, Theirs.load_from_disk(tmp_path))
    same(load_sae(tmp_path), Theirs.load_from_disk(tmp_path))
    assert ours.activation == ACTIVATIONS.get(architecture, "jumprelu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_become_thirty_two(tmp_path: Path, dtype: torch.dtype) -> None:
    made("jumprelu").to(dtype).save_model(tmp_path)
    ours = load_sae(tmp_path)
    assert {tensor.dtype for tensor in ours.tensors().values()} == {torch.float32}
    same(ours, made("jumprelu").to(dtype).to(torch.float32))


def test_a_folder_of_an_old_saelens(tmp_path: Path) -> None:
    """Before version 6 the metadata stood beside the sizes, and TopK was an activation of the standard SAE."""
    from sae_lens import SAE as Theirs

    theirs = made("topk")
    theirs.save_model(tmp_path)
    old = {"d_in": D_MODEL, "d_sae": D_SAE, "dtype": "float32", "architecture": "standard", **WHERE}
    old |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 7}, "normalize_activations": False}
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    same(load_sae(tmp_path), Theirs.load_from_disk(tmp_path))
    assert load_sae(tmp_path).model == "tiny" and load_sae(tmp_path).about["architecture"] == "topk"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"architecture": "transcoder"},
            "'transcoder': it reads what the MLP is given and writes at its output.*; read here: stan",
        ),
        ({"architecture": "matching_pursuit", "max_iterations": 0}, "max_iterations=0"),
        ({"architecture": "batchtopk"}, "architecture 'batchtopk'"),
        ({"activation_fn": "tanh-relu"}, "standard with tanh-relu"),
        ({"normalize_activations": "layer_norm"}, "choose an SAE without it"),
        ({"normalize_activations": "constant_norm_rescale"}, "choose an SAE without it"),
        ({"normalize_activations": "expected_average_only_in"}, "fold_activation_norm_scaling_factor"),
        ({"normalize_activations": True}, "expected_average_only_in"),
        ({"metadata": {"hook_name": "blocks.2.attn.hook_z"}}, "hook point 'blocks.2.attn.hook_z'"),
        ({"metadata": {"hook_name": "blocks.2.hook_resid_mid"}}, "points: resid_pre"),
        ({"metadata": {"hook_name": "model.layers.2.mlp.experts.3"}}, "expected the residual stream"),
        ({"metadata": {}}, "hook point ''"),
        ({"metadata": {**WHERE, "model_from_pretrained_kwargs": {"center_writing_weights": True}}}, "centred"),
        ({"d_in": 32}, r"say \[32, 48\]"),
        ({"d_sae": None}, "d_sae None"),
        ({"architecture": "jumprelu"}, r"lacks threshold.*holds W_dec, W_enc, b_dec, b_enc"),
        ({"architecture": "topk"}, "k=None; expected 1 to 48"),
        ({"architecture": "topk", "k": 49}, "k=49"),
        ({"architecture": "topk", "k": True}, "k=True; expected 1 to 48"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    made("standard").save_model(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UserError, match=words):
        load_sae(tmp_path)
    assert str(tmp_path) in told(lambda: load_sae(tmp_path))


def test_files_that_are_refused(tmp_path: Path) -> None:
    sae = made("standard")
    sae.save_model(tmp_path)
    config, weights = tmp_path / "cfg.json", tmp_path / "sae_weights.safetensors"
    whole = weights.read_bytes()
    for cut in (0, 4, 100, len(whole) - 1):
        weights.write_bytes(whole[:cut])
        assert "are broken" in told(lambda: load_sae(tmp_path))
    tensors = {name: tensor.contiguous() for name, tensor in sae.state_dict().items()}
    save_file({**tensors, "W_dec": tensors["W_dec"].T.contiguous()}, weights)
    assert "W_dec of shape [16, 48]" in told(lambda: load_sae(tmp_path))
    save_file({**tensors, "scaling_factor": torch.full((D_SAE,), 2.0)}, weights)
    assert "scaling_factor" in told(lambda: load_sae(tmp_path))
    save_file({**tensors, "scaling_factor": torch.ones(D_SAE)}, weights)
    same(load_sae(tmp_path), sae)
    for text, word in (("{", "is not JSON"), ("[]", "holds a list"), ("\udcff", "is not JSON")):
        config.write_bytes(text.encode(errors="surrogateescape"))
        assert word in told(lambda: load_sae(tmp_path))
    config.unlink()
    assert "holds no cfg.json" in told(lambda: load_sae(tmp_path))
    assert "is no folder" in told(lambda: load_sae(str(weights)))
    assert "is no folder" in told(lambda: load_sae(tmp_path / "nothing"))
