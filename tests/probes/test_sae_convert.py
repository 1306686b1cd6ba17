"""SAEs as their own libraries save them, read and converted here, against the libraries themselves and SAELens."""

from __future__ import annotations

import gc
import hashlib
import json
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from probes.sae import SAE
from probes.sae.convert import convert
from probes.sae.load import load_sae
from probes.sites import Site
from tests.probes.test_sae import D_MODEL, D_SAE, X, draw, filled, made, same, told

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # SAELens and what it imports, at import

K = 7


def sparse_coder(folder: Path, **changes: Any) -> Any:
    """A random one of sparsify's, saved by it."""
    sparsify = pytest.importorskip("sparsify")
    coder = filled(sparsify.SparseCoder(D_MODEL, sparsify.SparseCoderConfig(num_latents=D_SAE, k=K, **changes)))
    coder.save_to_disk(folder)
    return coder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_of_sparsify_equals_sparsify(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = tmp_path / "run" / "layers.2"
    theirs = sparse_coder(folder).to(dtype)
    theirs.save_to_disk(folder)
    (tmp_path / "run" / "config.json").write_text(json.dumps({"model": "owner/tiny"}))
    ours = load_sae(folder)
    theirs = theirs.float()
    with torch.no_grad():
        kept = theirs.encode(X)
        z = torch.zeros(len(X), D_SAE).scatter(-1, kept.top_indices, kept.top_acts)
        torch.testing.assert_close(ours.encode(X), z, rtol=1e-5, atol=1e-5)
        decoded = theirs.decode(kept.top_acts, kept.top_indices)
        torch.testing.assert_close(ours.decode(z), decoded, rtol=1e-5, atol=1e-5)
    for index in (0, 11, D_SAE - 1):
        torch.testing.assert_close(ours.feature(index).read(X), z[:, index], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.feature(index).decoder, theirs.W_dec[index].detach())
    assert (ours.site, ours.model, ours.k, ours.name) == (Site(2), "owner/tiny", K, "layers.2")
    assert ours.sha256 == hashlib.sha256((folder / "sae.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": "groupmax"}, "activation='groupmax': it keeps the largest feature of each group"),
        ({"transcode": True}, "transcode=True: it is a transcoder"),
        ({"skip_connection": True}, "skip_connection=True"),
        ({"signed": True}, "signed=True"),
        ({"d_in": 32}, "these files do not belong together"),
        ({"num_latents": 64}, "these files do not belong together"),
        ({"k": 0}, "k=0"),
        ({"k": "7"}, "k='7'"),
        ({"k": None}, "does not say how many"),
    ],
)
def test_folders_of_sparsify_that_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = tmp_path / "layers.2"
    sparse_coder(folder)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, **changes}))
    line = told(lambda: load_sae(folder))
    assert words in line and str(folder) in line


def test_a_module_of_sparsify_that_its_name_does_not_place_is_placed_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "layers.2.mlp"
    sparse_coder(folder)
    assert "layers.2.mlp" in told(lambda: load_sae(folder))
    assert convert(folder, tmp_path / "made", site="2.mlp_out").site == Site(2, "mlp_out")
    whole = (folder / "sae.safetensors").read_bytes()
    for cut in (0, 100, len(whole) - 1):
        (folder / "sae.safetensors").write_bytes(whole[:cut])
        assert "is cut or no safetensors file" in told(lambda: load_sae(folder))
    (folder / "cfg.json").unlink()
    assert "holds sae.safetensors and no cfg.json" in told(lambda: load_sae(folder))


# dictionary-learning: class, module of it, settings of its making, of its trainer
CLASSES = {
    "AutoEncoder": ("dictionary", {}),
    "AutoEncoderNew": ("dictionary", {}),
    "GatedAutoEncoder": ("dictionary", {}),
    "JumpReluAutoEncoder": ("dictionary", {}),
    "AutoEncoderTopK": ("trainers.top_k", {"k": K}),
    "BatchTopKSAE": ("trainers.batch_top_k", {"k": K}),
    "MatryoshkaBatchTopKSAE": ("trainers.matryoshka_batch_top_k", {"k": K, "group_sizes": [16, 32]}),
}


def dictionary(name: str) -> nn.Module:
    """A random one of dictionary-learning's."""
    module, settings = CLASSES[name]
    library = pytest.importorskip(f"dictionary_learning.{module}")
    made = filled(getattr(library, name)(D_MODEL, D_SAE, **settings))
    if "threshold" in dict(made.named_buffers()):
        made.threshold.fill_(0.4)
    return made


def trained(name: str) -> dict[str, Any]:
    """The `config.json` that its training writes."""
    trainer = {"dict_class": name, "activation_dim": D_MODEL, "dict_size": D_SAE, "layer": 2, "lm_name": "owner/tiny"}
    trainer |= {"submodule_name": "resid_post_layer_2"} | ({"k": K} if "TopK" in name else {})
    return {"trainer": trainer, "buffer": {"ctx_len": 128, "io": "out"}}


def equal(ours: SAE, theirs: Any) -> None:
    with torch.no_grad():
        z = theirs.encode(X)
        torch.testing.assert_close(ours.encode(X), z, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.decode(z), theirs.decode(z), rtol=1e-5, atol=1e-5)
        for index in (0, 11, D_SAE - 1):
            torch.testing.assert_close(ours.feature(index).read(X), z[:, index], rtol=1e-5, atol=1e-5)
    assert 0 < float((z != 0).float().mean()) < 1


@pytest.mark.parametrize("name", CLASSES)
def test_dictionary_learning_equals_itself_and_saelens_reads_what_was_made(tmp_path: Path, name: str) -> None:
    from sae_lens import SAE as Theirs

    theirs = dictionary(name)
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "ae.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(trained(name)))
    ours = convert(tmp_path, tmp_path / "made")
    equal(ours, theirs)
    same(ours, Theirs.load_from_disk(tmp_path / "made"))
    same(load_sae(tmp_path / "made"), Theirs.load_from_disk(tmp_path / "made"))
    assert (ours.site, ours.model) == (Site(2), "owner/tiny")
    source = (tmp_path / "ae.safetensors").read_bytes()
    assert ours.about["converted_from"] == {
        "file": "ae.safetensors",
        "layout": name,
        "sha256": hashlib.sha256(source).hexdigest(),
    }


def test_a_pickled_one_is_opened_by_the_interpreter_that_is_named(tmp_path: Path) -> None:
    theirs = dictionary("AutoEncoderTopK")
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps(trained("AutoEncoderTopK")))
    line = told(lambda: load_sae(tmp_path))
    assert "ae.pt' is pickled" in line and f"elicit sae convert {tmp_path} --out FOLDER" in line
    said: list[str] = []
    equal(convert(tmp_path, tmp_path / "made", python=sys.executable, say=said.append), theirs)
    assert len(said) == 1 and said[0].startswith(f"{sys.executable} -I ") and str(tmp_path / "ae.pt") in said[0]
    assert "cannot be run" in told(lambda: convert(tmp_path, tmp_path / "x", python=str(tmp_path / "python")))
    assert "was not converted by /bin/false" in told(lambda: convert(tmp_path, tmp_path / "x", python="/bin/false"))
    assert not (tmp_path / "x").exists()


class Code:
    """A pickle that would leave a file behind."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return Path.touch, (self.flag,)


def test_code_in_a_pickle_is_run_in_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    file = tmp_path / "ae.pt"
    torch.save({"encoder.weight": Code(tmp_path / "run")}, file)
    assert "holds more than tensors" in told(lambda: convert(file, tmp_path / "x", site="2.resid_post"))
    objects = np.array([Code(tmp_path / "run")], dtype=object)
    np.savez(tmp_path / "params.npz", W_enc=objects)
    assert "cut or no file of arrays" in told(
        lambda: convert(tmp_path / "params.npz", tmp_path / "x", site="2.resid_post")
    )
    (tmp_path / "params.npz").write_bytes(pickle.dumps({"W_enc": objects}))
    assert "cut or no file of arrays" in told(
        lambda: convert(tmp_path / "params.npz", tmp_path / "x", site="2.resid_post")
    )
    assert not (tmp_path / "run").exists() and not (tmp_path / "x").exists()


W = {"W_enc": draw(D_MODEL, D_SAE), "b_enc": draw(D_SAE, seed=2), "W_dec": draw(D_SAE, D_MODEL, seed=3)}
W |= {"b_dec": draw(D_MODEL, seed=4)}
THRESHOLD = draw(D_SAE, seed=5).abs()


def close(ours: SAE, z: Tensor) -> None:
    torch.testing.assert_close(ours.encode(X), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.decode(z), z @ W["W_dec"] + W["b_dec"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.feature(3).read(X), z[:, 3], rtol=1e-5, atol=1e-5)


def scope(
    tmp_path: Path, repository: str = "gemma-scope-2b-pt-res", place: str = "layer_2/width_16k/average_l0_71"
) -> Path:
    folder = tmp_path / repository / place
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in {**W, "threshold": THRESHOLD}.items()})
    return folder


def test_gemma_scope_is_read_and_placed_by_its_path(tmp_path: Path) -> None:
    folder = scope(tmp_path)
    ours = load_sae(folder)
    pre = X @ W["W_enc"] + W["b_enc"]
    close(ours, pre * (pre > THRESHOLD))
    assert (ours.site, ours.model, ours.activation) == (Site(2), "google/gemma-2-2b", "jumprelu")
    assert ours.sha256 == hashlib.sha256((folder / "params.npz").read_bytes()).hexdigest()
    at_mlp = load_sae(scope(tmp_path, "gemma-scope-9b-it-mlp"))
    assert (at_mlp.site, at_mlp.model) == (Site(2, "mlp_out"), "google/gemma-2-9b-it")
    assert "hook_z" in told(lambda: load_sae(scope(tmp_path, "gemma-scope-2b-pt-att")))
    other = scope(tmp_path, "gemma-scope-2b-pt-transcoders")
    for read in (lambda: load_sae(other), lambda: convert(other, tmp_path / "never", site="2.mlp_out")):
        assert "is a transcoder of Gemma Scope" in told(read)
    nowhere = scope(tmp_path, "downloads")
    line = told(lambda: load_sae(nowhere))
    assert "does not say where in the model it is" in line and "--site 12.resid_post" in line
    close(convert(nowhere, tmp_path / "made", site="2.resid_post", model="mine"), pre * (pre > THRESHOLD))
    assert load_sae(tmp_path / "made").model == "mine"
    whole = (folder / "params.npz").read_bytes()
    for cut in (0, 100, len(whole) // 2, len(whole) - 1):
        (folder / "params.npz").write_bytes(whole[:cut])
        assert "is cut or no file of arrays" in told(lambda: load_sae(folder))


def test_goodfire_and_qwen_scope(tmp_path: Path) -> None:
    names = {"encoder_linear.weight": W["W_enc"].T, "encoder_linear.bias": W["b_enc"]}
    names |= {"decoder_linear.weight": W["W_dec"].T, "decoder_linear.bias": W["b_dec"]}
    save_file({k: v.contiguous() for k, v in names.items()}, tmp_path / "goodfire.safetensors")
    pre = X @ W["W_enc"] + W["b_enc"]
    where = {"site": "blocks.2.hook_resid_post"}
    close(convert(tmp_path / "goodfire.safetensors", tmp_path / "a", **where), pre.relu())
    file = tmp_path / "SAE-Res-Qwen3-W32K-L0_7" / "layer2.safetensors"
    file.parent.mkdir()
    turned = {**W, "W_enc": W["W_enc"].T.contiguous(), "W_dec": W["W_dec"].T.contiguous()}
    save_file(turned, file)
    kept = pre.topk(7)
    z = torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())
    close(convert(file, tmp_path / "b", **where), z)
    save_file(turned, tmp_path / "layer2.safetensors")
    assert "give k" in told(lambda: convert(tmp_path / "layer2.safetensors", tmp_path / "c", **where))
    close(convert(tmp_path / "layer2.safetensors", tmp_path / "c", k=7, **where), z)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "may be one of several (AutoEncoderTopK"),
        (lambda f: set_trainer(f, dict_class="GatedAutoEncoder"), "is no GatedAutoEncoder as its config.json says"),
        (lambda f: set_trainer(f, dict_class="IdentityDict"), "of the class 'IdentityDict'; read here: AutoEncoder,"),
        (lambda f: set_trainer(f, submodule_name="attn_layer_2"), "does not say where in the model it is; give site"),
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: save_file({"a": torch.ones(2)}, f / "ae.safetensors"), "holds a, which is no AutoEncoderTopK"),
        (lambda f: alone(f, {"a": torch.ones(2)}), "holds a, which no library that is known here"),
        (lambda f: save_file({}, f / "ae.safetensors"), "holds nothing, which is no"),
        (lambda f: set_tensor(f, "decoder.weight", torch.ones(4)), "of shape [4], which is no matrix"),
        (lambda f: set_tensor(f, "encoder.bias", torch.ones(4)), "b_enc of shape [4]"),
        (lambda f: set_tensor(f, "b_dec", torch.full((D_MODEL,), torch.nan)), "NaN or infinity in b_dec"),
        (lambda f: set_tensor(f, "k", torch.tensor(99)), "k=99; expected 1 to 48"),
        (lambda f: (f / "more.pt").write_text(""), "holds not one file with tensors but ae.safetensors, more.pt"),
        (lambda f: (f / "ae.safetensors").unlink(), "but none"),
    ],
)  # fmt: skip
def test_files_that_are_refused(tmp_path: Path, change: Callable[[Path], object], words: str) -> None:
    folder = tmp_path / "ae"
    folder.mkdir()
    theirs = dictionary("AutoEncoderTopK")
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, folder / "ae.safetensors")
    (folder / "config.json").write_text(json.dumps(trained("AutoEncoderTopK")))
    change(folder)
    site = "" if "site" in words else "2.resid_post"
    assert words in told(lambda: convert(folder, tmp_path / "made", site=site))
    assert not (tmp_path / "made").exists()


def alone(folder: Path, tensors: dict[str, Tensor]) -> None:
    (folder / "config.json").unlink()
    save_file(tensors, folder / "ae.safetensors")


def set_trainer(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["trainer"] |= changes
    (folder / "config.json").write_text(json.dumps(config))


def set_tensor(folder: Path, name: str, value: Tensor) -> None:
    from safetensors.torch import load_file

    save_file({**load_file(folder / "ae.safetensors"), name: value}, folder / "ae.safetensors")


def test_nothing_of_anybody_else_is_written_over(tmp_path: Path) -> None:
    folder = scope(tmp_path)
    made("standard").save_model(tmp_path / "own")
    before = (tmp_path / "own" / "cfg.json").read_bytes()
    assert "is left alone" in told(lambda: convert(folder, tmp_path / "own"))
    assert (tmp_path / "own" / "cfg.json").read_bytes() == before
    assert "already" in told(lambda: convert(tmp_path / "own", tmp_path / "x"))
    assert "is not there" in told(lambda: convert(tmp_path / "none", tmp_path / "x"))
    assert "site: the hook point 'twelve'" in told(lambda: convert(folder, tmp_path / "x", site="twelve"))
    for _ in range(2):  # its own it writes over
        assert convert(folder, tmp_path / "made").d_sae == D_SAE


def test_a_k_that_the_file_has_itself_or_cannot_have(tmp_path: Path) -> None:
    """It was taken in the file's place, or passed over."""
    sparse_coder(tmp_path / "layers.2")
    assert f"says itself that it keeps {K} features" in told(
        lambda: convert(tmp_path / "layers.2", tmp_path / "x", k=K - 2)
    )
    assert convert(tmp_path / "layers.2", tmp_path / "same", k=K).k == K
    for kind, said in (("AutoEncoderTopK", f"keeps {K} features"), ("AutoEncoder", "of architecture 'standard'")):
        folder = tmp_path / kind
        folder.mkdir()
        held = {k: v.contiguous() for k, v in dictionary(kind).state_dict().items()}
        save_file(held, folder / "ae.safetensors")
        (folder / "config.json").write_text(json.dumps(trained(kind)))
        assert said in told(lambda folder=folder: convert(folder, tmp_path / "x", site="2.resid_post", k=K + 2))
    assert not (tmp_path / "x").exists()


def test_a_k_that_nobody_else_says(tmp_path: Path) -> None:
    """dictionary-learning's first versions kept it neither in the file nor, in some trainers, beside it."""
    held = {k: v.contiguous() for k, v in dictionary("AutoEncoderTopK").state_dict().items() if k != "k"}
    save_file(held, tmp_path / "ae.safetensors")
    config = trained("AutoEncoderTopK")
    config["trainer"].pop("k", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = tmp_path / "ae.safetensors"
    assert "give k" in told(lambda: convert(source, tmp_path / "x", site="2.resid_post"))
    assert convert(source, tmp_path / "made", site="2.resid_post", k=K).k == K


def test_a_file_that_is_cut_is_closed_again(tmp_path: Path) -> None:
    file = scope(tmp_path) / "params.npz"
    file.write_bytes(file.read_bytes()[:200])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        assert "is cut or no file of arrays" in told(lambda: load_sae(file.parent))
        gc.collect()
    assert not [one for one in caught if issubclass(one.category, ResourceWarning) and file.name in str(one.message)]
