"""`elicit steer` with options that do not go together: one line, before anything is decoded. What it does: see
tests/evaluation/test_strength_sweep.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from steering.formats import from_gguf
from tests.support.saes import save_random_sae
from tests.support.shell import shell

TEXT = ("--prompt", "1 + 1 =")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def common(tiny_folder: Path) -> list[str]:
    return [
        "steer", "--model", str(tiny_folder), "--dtype", "float32", "--device", "cpu", "--limit", "2",
        "--strength", "1", "--max-new-tokens", "2", "--random", "1",
    ]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), [
    ([*TEXT, "--split", "test"], "--split given with --prompt"),
    ([*TEXT, "--split", "test", "--format", "chat"], "--split, --format given with --prompt"),
    ([*TEXT, "--sae", "s", "--split", "test"], "--split given with --prompt"),
    (["--sae", "s", "--feature", "-3"], "--feature -3 was given; give a number from 0"),
    (["--point", "pattern"], "can be read and not written"),
    (["--gguf", "v.gguf", "--layer", "0"], "a vector at 0.resid_post was given"),
    (["--gguf", "v.gguf", "--point", "attn_out"], "a vector at 3.attn_out was given"),
    (["--when", "everywhere:3"], "when = 'everywhere:3' was given; everywhere takes no number"),
    (["--contrast", "latin.txt,plain.txt"], "'latin.txt' is not text in UTF-8 (byte 3)"),
    (["--contrast", "plain.txt,blank.txt"], "'blank.txt' holds no text"),
])  # fmt: skip
def test_a_mistake_is_one_line_before_anything_is_decoded(common: list[str], words: list[str], said: str) -> None:
    Path("latin.txt").write_bytes("café\n".encode("latin-1"))
    Path("plain.txt").write_text("one two\n")
    Path("blank.txt").write_text("\n \n")
    code, out, err = shell(*common, *words)
    assert code == 2 and said in err and err.count("\n") == 1 and not out
    assert not Path("runs").exists() and not Path("v.gguf").exists()


def test_a_control_vector_into_a_new_folder(common: list[str]) -> None:
    code, _, err = shell(*common, *TEXT, "--gguf", "new/folder/v.gguf")
    assert code == 0, err
    assert len(from_gguf("new/folder/v.gguf")) == 1


def test_the_layer_of_a_model_of_one_layer_is_its_own(common: list[str], tiny_folder: Path) -> None:
    lm = AutoModelForCausalLM.from_pretrained(tiny_folder, num_hidden_layers=1)
    lm.save_pretrained("one")
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained("one")
    code, out, err = shell(*common[:2], "one", *common[3:], *TEXT)
    assert code == 0 and "× 1" in out, err


def test_lines_of_a_contrast_end_at_line_ends_alone(common: list[str]) -> None:
    """A mark of the encoding at the beginning of a file, and separators within a line, are no part of the texts."""
    found = []
    for name, text in (("marked", "\ufeffone\u2028two\nsix"), ("plain", "one\u2028two\nsix")):
        Path(f"{name}.txt").write_text(text, encoding="utf-8")
        Path("other.txt").write_text("three\nfour")
        code, out, err = shell(*common, *TEXT, "--contrast", f"{name}.txt,other.txt", "--json", "--out", name)
        assert code == 0, err
        found.append(json.loads(out)["rows"][1]["push"])
    assert found[0] == found[1]


@pytest.mark.parametrize("settings", [
    '{"activation_fn": "topk", "activation_fn_kwargs": [1]}', '{"architecture": ["transcoder"]}',
    '{"normalize_activations": []}',
])  # fmt: skip
def test_settings_of_an_sae_that_are_not_as_expected(common: list[str], settings: str) -> None:
    (save_random_sae(Path("bad")) / "cfg.json").write_text(settings)
    code, out, err = shell(*common, *TEXT, "--sae", "bad", "--feature", "3")
    assert code == 2 and "is not as expected" in err and err.count("\n") == 1 and not out
