"""Adapters of every kind of PEFT: equal to PEFT's own model, or refused; the base is what it was, to the bit."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from peft import LoraConfig, PeftType
from peft.tuners.lora.config import KasaConfig, MontecloraConfig
from safetensors.torch import load_file, save_file

from probes.errors import UserError
from probes.lora_start import BESIDE
from steering.adapter_kinds import INITIALISATIONS, LAYERS, OPTIONS, REFUSED
from steering.adapters import CONFIG, PICKLED, WEIGHTS, Adapter, Weights, applied, merge
from tests.support.adapters import (
    IDS,
    base,
    config,
    configuration_alone,
    differences,
    everything,
    logits,
    peers,
    written,
)  # fmt: skip

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # PEFT's own, of what is asked of it here
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
EXACT = 1e-5
STARTS = ("gaussian", "eva", "olora", "pissa", "orthogonal", "mica")
LOST = ("pissa_niter_4", "corda", "lora_ga", "loftq")
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
PATTERNS: dict[str, Any] = dict(rank_pattern={"1.self_attn.q_proj": 2}, alpha_pattern={"v_proj": 3})

LORA: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"starts {v}": ("qwen2", dict(init_lora_weights=v)) for v in STARTS},
    "starts at random": ("qwen2", dict(init_lora_weights=False)),
    "kasa": ("qwen2", dict(kasa_config=KasaConfig())),
    "monteclora": ("qwen2", dict(monteclora_config=MontecloraConfig())),
    "qalora": ("qwen2", dict(use_qalora=True)),
    "bias of all": ("qwen2", dict(bias="all")),
    "bias of its layers": ("qwen2", dict(bias="lora_only")),
    "bias of its own": ("qwen2", dict(lora_bias=True)),
    "bias, transposed": ("gpt2", dict(bias="all", target_modules=["c_attn", "c_proj"], init_lora_weights="pissa")),
    "dora, transposed": ("gpt2", dict(use_dora=True, target_modules=["c_attn"])),
    "dora": ("qwen2", dict(use_dora=True)),
    "dora, pissa": ("qwen2", dict(use_dora=True, init_lora_weights="pissa")),
    "rslora, patterns": ("qwen2", dict(use_rslora=True, **PATTERNS)),
    "one layer": ("qwen2", dict(layers_to_transform=[1])),
    "head and embedding": ("qwen2", dict(target_modules=["embed_tokens", "lm_head", "q_proj"])),
    "head saved": ("qwen2", dict(modules_to_save=["lm_head"])),
    "norms saved": ("qwen2", dict(modules_to_save=["norm"])),
    "MLP saved": ("qwen2", dict(modules_to_save=["mlp"], target_modules="all-linear")),
    "tokens": ("qwen2", dict(trainable_token_indices=[3, 4, 9])),
    "tied: embedding": ("gemma2", dict(target_modules=["embed_tokens"])),
    "tied: head from pissa": ("gemma2", dict(target_modules=["lm_head"], init_lora_weights="pissa")),
    "tied: both as one": ("gemma2", dict(target_modules=["embed_tokens"], ensure_weight_tying=True)),
    "tied: embedding saved": ("gemma2", dict(modules_to_save=["embed_tokens"])),
    "tied: tokens": ("gemma2", dict(trainable_token_indices=[3, 4])),
    "experts": ("gpt_oss", dict(target_modules=[], target_parameters=EXPERTS)),
    "experts, router saved": ("gpt_oss", dict(target_parameters=EXPERTS[:1], modules_to_save=["router"])),
}  # fmt: skip
TIED = {"tied: embedding", "tied: head from pissa", "tied: both as one"}


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def is_right(folder: Path, architecture: str, trained: torch.Tensor, merges: bool = True) -> None:
    """The adapter acts as PEFT's own model does, leaves the base alone, and is merged or refused."""
    peer = peers(architecture, folder)
    scale = float(peer.abs().max())
    assert float((peer - trained).abs().max()) <= EXACT * scale
    lm = base(architecture)
    before, plain = everything(lm), logits(lm)
    for _ in range(2):
        with applied(lm, Adapter(folder)):
            assert float((logits(lm) - peer).abs().max()) <= EXACT
        assert differences(before, everything(lm)) == []
    assert torch.equal(logits(lm), plain)
    assert float((peer - plain).abs().max()) > 1e-2
    other = base(architecture)
    other.requires_grad_(False)
    before = everything(other)
    if not merges:
        with pytest.raises(UserError, match="cannot be merged"):
            merge(other, Adapter(folder))
        assert differences(before, everything(other)) == []
        return
    merge(other, Adapter(folder))
    assert float((logits(other) - peer).abs().max()) <= EXACT * scale
    assert not any(p.requires_grad for p in other.parameters())


def test_the_table_has_every_kind_of_the_installed_peft() -> None:
    assert {kind.value for kind in PeftType} == LAYERS | set(REFUSED)
    assert not LAYERS & set(REFUSED)


def test_the_table_has_every_initialisation_of_the_installed_peft() -> None:
    named = {str(v) for one in get_args(get_type_hints(LoraConfig)["init_lora_weights"]) for v in get_args(one)}
    unlisted = {"lora_ga"}  # which its type leaves out
    assert {v.split("_[")[0] for v in named} | unlisted == {
        *(v for v in BESIDE if isinstance(v, str)), "olora", "pissa", *INITIALISATIONS,
    }  # fmt: skip


def test_the_page_lists_what_is_read_and_what_is_refused() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    lines = page.partition("## Adapters")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    listed = {kind: row[1:] for row in rows for kind in row[0].split(", ") if kind.isupper()}
    assert set(listed) == LAYERS | set(REFUSED)
    assert all(bool(row[0]) == (kind in LAYERS) for kind, row in listed.items())
    for name in (*OPTIONS, *INITIALISATIONS):
        assert name in "".join(listed["LORA"] + listed["PVERA"])


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_each_kind_of_layers(kind: str, tmp_path: Path) -> None:
    folder = tmp_path
    is_right(folder, "qwen2", written(folder, "qwen2", config(kind)))
    lm = base("qwen2")
    with torch.no_grad(), applied(lm, Adapter(folder)):
        both = lm(torch.cat([IDS, IDS + 20]), use_cache=False).logits
        part = lm(IDS[:, :-2], use_cache=False).logits  # without the other row and what comes later
    assert float((part - both[:1, :-2]).abs().max()) <= EXACT


@pytest.mark.parametrize("name", LORA)
def test_each_option_of_lora(name: str, tmp_path: Path) -> None:
    architecture, options = LORA[name]
    made = config("LORA", fan_in_fan_out=architecture == "gpt2", **options)
    is_right(tmp_path, architecture, written(tmp_path, architecture, made), name not in TIED)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
def test_embeddings_that_were_saved_whole(architecture: str, tmp_path: Path) -> None:
    """As PEFT saves them where the vocabulary was resized."""
    trained = written(tmp_path, architecture, config("LORA"), save_embedding_layers=True)
    tensors = load_file(tmp_path / WEIGHTS)
    changed = {name: one + 0.2 if "embed" in name or "lm_head" in name else one for name, one in tensors.items()}
    save_file(changed, tmp_path / WEIGHTS)
    assert not torch.equal(peers(architecture, tmp_path), trained)
    is_right(tmp_path, architecture, peers(architecture, tmp_path))


def started(how: str) -> Any:
    made = config("LORA")
    made.init_lora_weights = how
    return made


REFUSALS: dict[str, Callable[[], Any]] = {
    **{kind: lambda kind=kind: config(kind) for kind in REFUSED},
    "alora_invocation_tokens": lambda: config("LORA", alora_invocation_tokens=[5]),
    "layer_replication": lambda: config("LORA", layer_replication=[[0, 2], [1, 4]]),
    "sample_at_inference": lambda: config("PVERA", sample_at_inference=True),
    **{f"init_lora_weights '{v}": lambda v=v: started(v) for v in LOST},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_layers_is_refused_by_name(name: str, tmp_path: Path) -> None:
    configuration_alone(tmp_path, REFUSALS[name]())
    with pytest.raises(UserError, match=name) as told:
        Adapter(tmp_path)
    assert "\n" not in str(told.value)
    assert "{" not in str(told.value)


def changed(folder: Path, **more: Any) -> Path:
    """An adapter whose configuration says more."""
    written(folder, "qwen2", config("LORA"))
    file = folder / CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **more}), encoding="utf-8")
    return folder


def test_options_that_are_refused_are_peft_s() -> None:
    known = set(LoraConfig.__dataclass_fields__) | set(config("PVERA").__dataclass_fields__)
    assert set(OPTIONS) <= known


def test_configurations_of_others(tmp_path: Path) -> None:
    folder = changed(tmp_path, new_option=None, other_option=False)
    trained = peers("qwen2", folder)
    file = folder / CONFIG
    sha256 = Adapter(folder).sha256
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # as editors of Windows write it
    lm = base("qwen2")
    with applied(lm, Adapter(folder)):
        assert float((logits(lm) - trained).abs().max()) <= EXACT
    assert Adapter(folder).sha256 == sha256
    changed(folder, new_option=3, peft_version="0.99.0")
    with (
        pytest.raises(UserError, match=r"does not know \(new_option\); install peft==0.99.0, which wrote it"),
        applied(lm, Adapter(folder)),
    ):
        pass
    for text, match in (("{", "that is not JSON"), ("[]", "that is no object"), ("{}", "of the kind None")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=match):
            Adapter(folder)


def unfit(folder: Path) -> dict[str, Callable[[], object]]:
    """Ways to spoil an adapter of qwen2, with what is said of it."""
    file = folder / WEIGHTS
    tensors = load_file(file)
    name = min(tensors)
    deeper = {key.replace("layers.1.", "layers.9."): one for key, one in tensors.items()}
    return {
        "cannot be read": lambda: file.write_bytes(file.read_bytes()[:-9]),
        "that cannot be read .* fetch it again": lambda: file.write_bytes(b"PK\x03\x04 not this format"),
        "holds NaN": lambda: save_file({**tensors, name: tensors[name] * torch.nan}, file),
        "no layer takes": lambda: save_file(
            {**tensors, name.replace("layers.0.", "layers.9."): tensors[name] + 0}, file
        ),
        "does not fit .*; use the base that it was trained on, 'far/away'": lambda: save_file(deeper, file),
        "does not fit .*size mismatch": lambda: save_file({**tensors, name: tensors[name][:, :-1].contiguous()}, file),
        "does not fit .*Target modules": lambda: changed(folder, target_modules=["nowhere"]),
        "does not fit": lambda: changed(folder, r="four"),
    }


@pytest.mark.parametrize("number", range(8))
def test_files_that_do_not_fit_leave_the_base_alone(number: int, tmp_path: Path) -> None:
    changed(tmp_path, base_model_name_or_path="far/away")
    match, spoil = list(unfit(tmp_path).items())[number]
    spoil()
    lm = base("qwen2")
    lm.requires_grad_(False)
    before = everything(lm)
    for act in (lambda: applied(lm, Adapter(tmp_path)).__enter__(), lambda: merge(lm, Adapter(tmp_path))):
        with pytest.raises(UserError, match=match) as told:
            act()
        assert "\n" not in str(told.value)
        assert differences(before, everything(lm)) == []


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    written(tmp_path, "qwen2", config("LORA"))
    (tmp_path / WEIGHTS).rename(tmp_path / PICKLED)
    with pytest.raises(UserError, match=r"pickled adapter_model\.bin, which is not opened"):
        Adapter(tmp_path)


def test_the_page_s_lines_write_pickled_weights_as_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "qwen2", config("LORA"))
    tensors = load_file(tmp_path / WEIGHTS)
    torch.save(tensors, tmp_path / PICKLED)
    (tmp_path / WEIGHTS).unlink()
    page = (Path(__file__).parents[2] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    code = page.partition("## Adapters")[2].partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert load_file(tmp_path / WEIGHTS).keys() == tensors.keys()
    Adapter(tmp_path).tensors()


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_kept_of_a_training_is_no_tensor_of_inference_mode(whole: bool, tmp_path: Path) -> None:
    """One that was put on first within it could not be packed by a later decoding."""
    lm = base("qwen2")
    if whole:
        lm.save_pretrained(tmp_path)
    else:
        written(tmp_path, "qwen2", config("LORA", bias="all", modules_to_save=["lm_head"]))
    tuned = Weights(tmp_path) if whole else Adapter(tmp_path)
    with torch.inference_mode(), applied(lm, tuned):
        pass
    with applied(lm, tuned):
        assert not any(p.is_inference() for p in (*lm.parameters(), *lm.buffers()))


def test_exceptions_second_adapters_and_hooks(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    written(one, "qwen2", config("LORA", bias="all", modules_to_save=["lm_head"], init_lora_weights="pissa"))
    written(two, "qwen2", config("LORA"))
    lm = base("qwen2").to(torch.bfloat16)
    seen: list[int] = []
    lm.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    before, plain = everything(lm), logits(lm)
    seen.clear()
    with pytest.raises(ZeroDivisionError), applied(lm, Adapter(one)):
        raise ZeroDivisionError
    assert seen == []  # an adapter is tried unseen
    assert differences(before, everything(lm)) == []
    with applied(lm, Adapter(one)):
        first = logits(lm)
        with pytest.raises(UserError, match="an adapter is on already"), applied(lm, Adapter(two)):
            pass
        assert torch.equal(logits(lm), first)
    with applied(lm, Adapter(two)):
        assert not torch.equal(logits(lm), first)
    with applied(lm, Adapter(one)):
        assert torch.equal(logits(lm), first)
    assert differences(before, everything(lm)) == []
    assert torch.equal(logits(lm), plain)
