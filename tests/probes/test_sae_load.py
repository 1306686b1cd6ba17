"""SAEs of releases and of hub repositories, through SAELens's loaders and ours.

The hub is a server of this process that answers as the real one does; all that asks it is real.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from probes.sae import SAE
from probes.sae.load import load_sae
from probes.sae.releases import releases
from probes.sites import Site
from tests.probes.test_sae import D_MODEL, D_SAE, X, draw, made, same, told
from tests.probes.test_sae_convert import sparse_coder

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # SAELens and what it imports, at import

GEMMA = "gemma-scope-2-270m-it-res:layer_12_width_16k_l0_small"
LLAMA = "llama_scope_r1_distill:l3r_800m_slimpajama"
QWEN = "qwen-scope-3-1.7b-base-w32k-l50:layer5"
GOODFIRE = "goodfire-llama-3.1-8b-instruct"


def test_the_names_of_releases() -> None:
    assert "layer_12_width_16k_l0_small" in releases()["gemma-scope-2-270m-it-res"].saes
    for name in ("gemma-scope-2-1b-it-res", "gemma-scope-2-270m-it-res-all", LLAMA, QWEN, GOODFIRE):
        release, _, sae_id = name.partition(":")
        assert not sae_id or sae_id in releases()[release].saes
    assert "did you mean llama_scope_r1_distill" in told(lambda: load_sae("llama_scope_r1_distil:l3r"))
    line = told(lambda: load_sae("gemma-scope-2-270m-it-res:layer_12_width_16k_l0_smal"))
    assert "did you mean layer_12_width_16k_l0_small" in line and "gemma-scope-2-270m-it-res" in line
    line = told(lambda: load_sae("llama_scope_r1_distill"))
    assert "holds 96 SAEs" in line and "l0r_800m_slimpajama" in line and line.endswith("…") and len(line) < 250
    assert len(told(lambda: load_sae("llama_scope_r1_distill:zzz"))) < 500
    assert "release:sae_id" in told(lambda: load_sae("zzz"))


def test_without_saelens_releases_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    releases.cache_clear()
    monkeypatch.setattr("probes.sae.releases.find_spec", lambda name: None)
    assert "pip install 'sae-lens" in told(lambda: load_sae(GEMMA))


class Hub:
    """What `hf_hub_download` and Gemma Scope's loader ask of a hub: HEAD and GET, the latter also of ranges."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}  # by repo/path
        self.gated: set[str] = set()
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        repo, _, rest = request.path.lstrip("/").partition("/resolve/main/")
        data = self.files.get(f"{repo}/{rest}", b"")
        commit = hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()[:40]
        headers = {"X-Repo-Commit": commit, "Connection": "close"}
        status = 200
        if repo in self.gated:
            status, headers["X-Error-Code"] = 403, "GatedRepo"
        elif not any(name.startswith(f"{repo}/") for name in self.files):
            status, headers["X-Error-Code"] = 404, "RepoNotFound"
        elif f"{repo}/{rest}" not in self.files:
            status, headers["X-Error-Code"] = 404, "EntryNotFound"
        else:
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            if span := request.headers.get("Range"):
                first, last = span.removeprefix("bytes=").split("-")
                data, status = data[int(first) : int(last) + 1], 206
        if body and status == 200:
            self.asked.append(f"{repo}/{rest}")
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data) if status < 300 else 0)}.items():
            request.send_header(key, value)
        request.end_headers()
        if body and status < 300:
            request.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    served = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield served
    served.server.shutdown()
    served.server.server_close()


def sized(monkeypatch: pytest.MonkeyPatch, release: str, **sizes: Any) -> None:
    """Let SAELens's entry of a release, whose sizes are fixed by name, describe tiny weights."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    monkeypatch.setattr(get_pretrained_saes_directory()[release], "config_overrides", sizes)


def pickled(value: Any) -> bytes:
    file = BytesIO()
    torch.save(value, file)
    return file.getvalue()


W = {
    "enc": draw(D_MODEL, D_SAE),
    "b": draw(D_SAE, seed=2),
    "dec": draw(D_SAE, D_MODEL, seed=3),
    "c": draw(D_MODEL, seed=4),
}
THRESHOLD = draw(D_SAE, seed=5).abs()


def pre(x: Tensor) -> Tensor:
    return x @ W["enc"] + W["b"]


def close(ours: SAE, z: Tensor, decoded: Tensor) -> None:
    torch.testing.assert_close(ours.encode(X), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.decode(z), decoded, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.feature(3).read(X), z[:, 3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("described", [True, False])
def test_gemma_scope(hub: Hub, described: bool) -> None:
    place = "google/gemma-scope-2-270m-it/resid_post/layer_12_width_16k_l0_small"
    tensors = {"w_enc": W["enc"], "b_enc": W["b"], "w_dec": W["dec"], "b_dec": W["c"], "threshold": THRESHOLD}
    hub.files[f"{place}/params.safetensors"] = save(tensors)
    if described:
        config = {
            "architecture": "jump_relu",
            "model_name": "gemma-v3-270m-it",
            "hf_hook_point_in": "model.layers.12.output",
        }
        hub.files[f"{place}/config.json"] = json.dumps(config).encode()
    ours = load_sae(GEMMA)
    z = pre(X) * (pre(X) > THRESHOLD)
    close(ours, z, z @ W["dec"] + W["c"])
    assert (ours.site, ours.name, ours.model) == (Site(12), GEMMA, "google/gemma-3-270m-it")
    assert ours.about["context_size"] == 1024 and len(ours.sha256) == 64
    hub.files[f"{place}/params.safetensors"] = save({**tensors, "b_dec": W["c"] + 1})
    assert load_sae(GEMMA).sha256 != ours.sha256
    assert load_sae("google/gemma-scope-2-270m-it:resid_post/layer_12_width_16k_l0_small").d_sae == D_SAE


def test_llama_scope_with_its_scale_folded(hub: Hub) -> None:
    place = "fnlp/Llama-Scope-R1-Distill/800M-Slimpajama-0-OpenR1-Math-220k/L3R"
    config = {"d_model": D_MODEL, "expansion_factor": D_SAE // D_MODEL, "hook_point_in": "blocks.3.hook_resid_post"}
    hub.files[f"{place}/config.json"] = json.dumps(config).encode()
    tensors = {
        "encoder.weight": W["enc"].T,
        "encoder.bias": W["b"],
        "decoder.weight": W["dec"].T,
        "decoder.bias": W["c"],
    }
    tensors["log_jumprelu_threshold"] = THRESHOLD.log()
    hub.files[f"{place}/sae_weights.safetensors"] = save({key: value.contiguous() for key, value in tensors.items()})
    ours = load_sae(LLAMA)

    from sae_lens.loading.pretrained_saes_directory import get_norm_scaling_factor

    scale = get_norm_scaling_factor(*LLAMA.split(":"))
    assert scale is not None and scale > 5
    z = pre(X * scale) * (pre(X * scale) > THRESHOLD)
    close(ours, z, (z @ W["dec"] + W["c"]) / scale)
    assert (ours.site, ours.activation) == (Site(3), "jumprelu")


def test_qwen_scope(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, QWEN.split(":")[0], d_in=D_MODEL, d_sae=D_SAE, activation_fn_kwargs={"k": 7})
    tensors = {"W_enc": W["enc"].T, "b_enc": W["b"], "W_dec": W["dec"].T, "b_dec": W["c"]}
    hub.files["Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer5.sae.pt"] = pickled(tensors)
    ours = load_sae(QWEN)
    kept = pre(X).topk(7)
    z = torch.zeros(len(X), D_SAE).scatter(-1, kept.indices, kept.values.relu())
    close(ours, z, z @ W["dec"] + W["c"])
    assert (ours.site, ours.k, ours.model) == (Site(5), 7, "Qwen/Qwen3-1.7B-Base")
    assert load_sae("Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50:layer5.sae.pt").name == QWEN


def test_goodfire_by_its_release_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, GOODFIRE, d_in=D_MODEL, d_sae=D_SAE)
    tensors = {"encoder_linear.weight": W["enc"].T, "encoder_linear.bias": W["b"], "decoder_linear.weight": W["dec"].T}
    tensors = {key: value.bfloat16() for key, value in {**tensors, "decoder_linear.bias": W["c"]}.items()}
    hub.files["Goodfire/Llama-3.1-8B-Instruct-SAE-l19/Llama-3.1-8B-Instruct-SAE-l19.pth"] = pickled(tensors)
    ours = load_sae(GOODFIRE)
    half = {key: value.bfloat16().float() for key, value in W.items()}
    z = (X @ half["enc"] + half["b"]).relu()
    close(ours, z, z @ half["dec"] + half["c"])
    assert (ours.site, ours.name) == (Site(19), f"{GOODFIRE}:layer_19")


class Code:
    """A pickle that would leave a file behind."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return Path.touch, (self.flag,)


@pytest.mark.parametrize("form", ["zip", "plain"])
def test_code_in_a_pickle_is_not_run(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    flag = tmp_path / "run"
    content = {"encoder_linear.weight": Code(flag)}
    place = "Goodfire/Llama-3.1-8B-Instruct-SAE-l19/Llama-3.1-8B-Instruct-SAE-l19.pth"
    hub.files[place] = pickled(content) if form == "zip" else pickle.dumps(content)
    assert "holds more than tensors" in told(lambda: load_sae(GOODFIRE))
    asked = list(hub.asked)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set" in told(lambda: load_sae(GOODFIRE))
    assert hub.asked == asked and not flag.exists()


def test_broken_files_of_a_release(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, GOODFIRE, d_in=D_MODEL, d_sae=D_SAE)
    place = "Goodfire/Llama-3.1-8B-Instruct-SAE-l19/Llama-3.1-8B-Instruct-SAE-l19.pth"
    tensors = {"encoder_linear.weight": W["enc"].T, "encoder_linear.bias": W["b"], "decoder_linear.weight": W["dec"].T}
    whole = pickled({**tensors, "decoder_linear.bias": W["c"]})
    lacking, other = pickled(tensors), pickled({**tensors, "decoder_linear.bias": W["b"]})
    for data in (b"", whole[:10], whole[: len(whole) // 2], whole[:-1], lacking, other):
        hub.files[place] = data
        line = told(lambda: load_sae(GOODFIRE))
        assert "could not be read" in line or "holds more than tensors" in line


def test_a_repository_in_saelens_own_format(hub: Hub, tmp_path: Path) -> None:
    theirs = made("jumprelu")
    theirs.save_model(tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        hub.files[f"someone/saes/layer_2/{file.name}"] = file.read_bytes()
        hub.files[f"someone/one/{file.name}"] = file.read_bytes()
    ours = load_sae("someone/saes:layer_2")
    same(ours, theirs)
    assert ours.name == "someone/saes:layer_2"
    assert ours.sha256 == hashlib.sha256((tmp_path / "saved" / "sae_weights.safetensors").read_bytes()).hexdigest()
    same(load_sae("someone/one"), theirs)


def test_a_repository_of_sparsify(hub: Hub, tmp_path: Path) -> None:
    theirs = sparse_coder(tmp_path / "layers.2")
    for file in (tmp_path / "layers.2").iterdir():
        hub.files[f"someone/coders/layers.2/{file.name}"] = file.read_bytes()
    ours = load_sae("someone/coders:layers.2")
    assert (ours.name, ours.site, ours.k) == ("someone/coders:layers.2", Site(2), theirs.cfg.k)
    assert torch.equal(ours.W_dec, theirs.W_dec.detach())


def test_what_cannot_be_read_is_refused_before_its_weights(hub: Hub, tmp_path: Path) -> None:
    assert "hook_z" in told(lambda: load_sae("gemma-scope-2b-pt-att:layer_0/width_16k/average_l0_104"))
    made("standard", metadata={"hook_name": "blocks.0.attn.hook_z"}).save_model(tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        hub.files[f"someone/saes/z/{file.name}"] = file.read_bytes()
    assert "hook_z" in told(lambda: load_sae("someone/saes:z"))
    assert hub.asked == ["someone/saes/z/cfg.json"]


def test_errors_of_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.files["someone/saes/layer_2/cfg.json"] = b"{}"
    assert "no such repository" in told(lambda: load_sae("someone/other:layer_2"))
    assert "holds no layer_3/cfg.json" in told(lambda: load_sae("someone/saes:layer_3"))
    assert "no repository has such a name" in told(lambda: load_sae("/not/a/folder"))
    hub.gated = {"someone/saes", "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "google/gemma-scope-2-270m-it"}
    for name in ("someone/saes:layer_2", GOODFIRE, GEMMA):
        assert "is gated: accept its licence" in told(lambda name=name: load_sae(name))  # type: ignore[misc]
    hub.gated = set()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "could not be reached" in told(lambda: load_sae("someone/saes:layer_2"))
    assert "could not be reached" in told(lambda: load_sae(GOODFIRE))
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    assert "could not be reached" in told(lambda: load_sae(GEMMA))
