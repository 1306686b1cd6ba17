"""`elicit analyse` as a user types it, on a tiny model; each analysis's numbers where an oracle is at hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from elicit.analysis import ANALYSES, analyse, options_of, register
from elicit.analysis.base import plain
from elicit.analysis.internals.inputs import last_activations, one_token, token_ids
from elicit.analysis.internals.layer_sweep import separation
from elicit.models import Model
from probes.errors import UserError
from probes.sites import Site
from probes.statistics import bootstrap_mean
from tests.support.shell import shell
from tests.support.tiny import tiny_model
from tests.support.tokenizers import prepending

TASK = "chain-sum:min_terms=2,max_terms=2"
CLEAN, CORRUPTED = "the sum of 2 and 3 is", "the sum of 4 and 3 is"


def elicit(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    return shell(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("logit-lense",), ("unknown analysis 'logit-lense'", "did you mean logit-lens")),
        (("logit-lens", "--answer", "12"), ("answer '12' is 2 tokens ('1', '2')", "give one token")),
        (("logit-lens", "--prompt", " "), ("empty prompt",)),
        (("logit-lens", "--corrupt", "x"), ("logit-lens takes no --corrupt", "--prompt, --answer")),
        (("patching", "--prompt", "a b", "--corrupt", "abcd"), ("3 tokens and the corrupted one 4",)),
        (("patching", "--prompt", "ab", "--corrupt", "ab"), ("are the same",)),
        (("patching", "--prompt", "ab", "--prompt", "cd"), ("2 clean prompts",)),
        (("patching", "--prompt", "ab", "--corrupt", "cb", "--layer", "9"), ("layer 9", "give 0 to 3")),
        (("patching", "--point", "resid"), ("unknown hook point to patch 'resid'", "resid_post")),
        (("activation-pca", "--task", TASK, "--limit", "8", "--layer", "9"), ("layer 9", "give 0 to 3")),
        (("activation-pca", "--task", TASK, "--limit", "3"), ("limit of 3", "at least 8")),
        (("layer-sweep", "--task", TASK, "--point", "resid"), ("unknown hook point 'resid'",)),
        (("layer-sweep", "--task", TASK, "--point", "pattern"), ("no vector a token", "resid_post")),
        (("activation-pca", "--task", TASK, "--layer", "1", "--point", "pattern"), ("no vector a token",)),
        (("layer-sweep", "--task", "nowhere.jsonl"), ("no task file",)),
        (("layer-sweep", "--task", TASK, "--prompt", "chat"), ("needs a chat template",)),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...],
    words: tuple[str, ...],
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *rest = arguments
    code, out, err = elicit(capsys, "analyse", name, "--model", str(tiny_folder), "--device", "cpu", *rest)
    assert code == 2 and not out, err
    assert err.startswith("elicit: ") and err.strip().count("\n") == 0 and all(word in err for word in words), err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("logit-lens", ("--prompt", CLEAN, "--prompt", "one")),
        ("logit-lens", ("--prompt", CLEAN, "--answer", "5")),
        ("patching", ("--prompt", CLEAN, "--corrupt", CORRUPTED, "--answer", "5", "--wrong", "7")),
        ("patching", ("--prompt", CLEAN, "--corrupt", CORRUPTED, "--answer", "5", "--wrong", "7", "--point", "all")),
        ("layer-sweep", ("--task", TASK, "--limit", "12")),
        ("activation-pca", ("--task", TASK, "--limit", "12", "--layer", "1", "--point", "mlp_out")),
    ],
)
def test_each_writes_a_page_and_its_numbers(
    name: str,
    arguments: tuple[str, ...],
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("analyse", name, "--model", str(tiny_folder), "--device", "cpu", "--dtype", "float32", *arguments)
    code, shown, err = elicit(capsys, *command)
    assert code == 0, err
    (folder,) = (tmp_path / "analyses").iterdir()
    assert folder.name.startswith(f"{name}-") and f"{name}.html" in shown
    saved = json.loads((folder / f"{name}.json").read_text())
    assert saved["model"]["sha256"] and saved["seed"] == 0 and saved["table"] and saved["data"] and saved["notes"]
    assert saved["command"].startswith(f"elicit analyse {name} --model ") and arguments[-1] in saved["command"]
    page = (folder / f"{name}.html").read_text()
    assert "<figure class='plot'" in page and "<script src=" not in page
    code, again, err = elicit(capsys, *command, "--json")
    assert code == 0, err
    assert json.loads(again) == {"folder": str(Path("analyses") / folder.name), **saved}  # the same again


def test_list_and_registry(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = elicit(capsys, "analyses", "--json")
    assert code == 0 and {row["analysis"] for row in json.loads(out)} == set(ANALYSES)
    assert options_of("logit-lens").keys() == {"prompt", "answer"}
    twice = ModuleType("twice")
    vars(twice).update(vars(ANALYSES["logit-lens"].module), __name__="twice")
    with pytest.raises(ValueError, match=r"two analyses are called 'logit-lens': .*logit_lens and twice"):
        register(twice)


def test_out_that_is_a_file(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f").write_text("")
    code, _, err = elicit(capsys, "analyse", "logit-lens", "--model", str(tiny_folder), "--out", str(tmp_path / "f"))
    assert code == 2 and "is a file; give a folder" in err


def test_texts_and_tokens(tiny: Model) -> None:
    assert one_token(tiny, "5") == token_ids(tiny, "a5")[1]
    blank = prepending()  # puts one of its own before a text
    assert one_token(dataclasses.replace(tiny, tokenizer=blank), " the") == blank.convert_tokens_to_ids("▁the")
    with pytest.raises(UserError, match="2048 positions"):
        token_ids(tiny, "a" * 2049)
    assert plain({"a": np.float32(1.0), "b": [float("nan")], "c": np.arange(2)}) == {"a": 1.0, "b": [None], "c": [0, 1]}


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "bloom"])
def test_last_activations_against_hidden_states(architecture: str, tiny: Model) -> None:
    lm = tiny_model(architecture)
    model = Model("tiny", lm, tiny.tokenizer, tiny.provenance)
    prompts = [[3, 4, 5], [7], [9, 8, 7, 6, 5, 4], [11, 12, 13]]
    read = last_activations(model, prompts, [Site(0, "resid_pre"), Site(1)])
    for row, ids in enumerate(prompts):
        with torch.no_grad():
            states = lm(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(read[Site(0, "resid_pre")][row], states[0][0, -1])
        torch.testing.assert_close(read[Site(1)][row], states[2][0, -1], rtol=1e-4, atol=1e-4)


def test_separation_knows_signal_from_noise() -> None:
    rng = np.random.default_rng(0)
    fit = np.arange(40) % 2 == 0
    direct, noise = rng.normal(size=(2, 40, 16))
    found = separation(direct, noise + 3.0 * np.eye(16)[2], fit)
    assert found["auroc"] > 0.9 and found["low"] > 0.8 and found["null low"] < 0.5 < found["null high"] < found["auroc"]
    nothing = separation(direct, noise, fit)
    assert nothing["null low"] <= nothing["auroc"] <= nothing["null high"] and nothing["low"] < 0.5 < nothing["high"]
    apart = separation(direct, noise + 99.0, fit)  # in every draw: as far as 20 questions can vouch for it
    assert apart["low"] == pytest.approx(bootstrap_mean(np.ones(20), bounds=(0.0, 1.0)).low)
    assert apart["low"] < 0.9 < apart["auroc"] == apart["high"] == 1
    same = separation(direct, direct, fit)  # no difference at all: every score is equal
    assert same["auroc"] == same["null"] == 0.5 and same["d′"] == 0.0


def test_lens_null_and_unknown_option(tiny: Model) -> None:
    result = analyse("logit-lens", tiny, prompt=["2+2="])
    assert result.table[0]["agrees"] == 1.0 and result.table[-1]["layer"] == "embedding" and len(result.more) == 2
    with pytest.raises(UserError, match="takes no --layer"):
        analyse("logit-lens", tiny, layer=1)
