"""SAEs and features as a user types them; training and its card: tests/probes/test_sae_train.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.saes import save_random_sae
from tests.support.shell import shell


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_random_sae(tmp_path_factory.mktemp("sae") / "random"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def common(sae: str, tiny_folder: Path) -> list[str]:
    return [
        "--sae",
        sae,
        "--model",
        str(tiny_folder),
        "--task",
        "chain-sum",
        "--device",
        "cpu",
        "--max-new-tokens",
        "8",
    ]


def test_features_are_ranked(common: list[str]) -> None:
    code, out, _ = shell("sae", "find", *common, "--read", "6", "--top", "3", "--json")
    found = json.loads(out)["features"]
    assert code == 0 and len(found) == 3
    assert [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True)
    code, out, _ = shell("sae", "find", *common, "--read", "6", "--top", "3", "--how", "reason", "--words", "1,2,3,4,5")
    assert code == 0 and "next: elicit sae feature" in out


def test_a_feature_has_a_card(common: list[str], tmp_path: Path) -> None:
    file = tmp_path / "new" / "card.html"
    code, out, _ = shell("sae", "feature", "19", *common, "--read", "6", "--out", str(file), "--json")
    assert code == 0 and json.loads(out)["feature"] == 19
    page = file.read_text()
    assert "Feature 19" in page and "https://" not in page.split("<script")[0]


@pytest.mark.parametrize(("words", "said"), [
    (["feature", "64"], "feature 64 was given; the SAE has 64"),
    (["feature", "1", "--sae", "gemma-scope-2b-pt-rez:x"], "did you mean"),
    (["feature", "1", "--sae", ""], "--sae was given an empty text"),
    (["find", "--how", "contrasts"], "did you mean contrast"),
    (["find", "--top", "0"], "give at least 1"),
])  # fmt: skip
def test_what_is_refused(common: list[str], words: list[str], said: str, tmp_path: Path) -> None:
    code, out, err = shell("sae", words[0], *common, *words[1:])
    assert code == 2 and said in err and err.count("\n") == 1 and not out
    assert not list(tmp_path.iterdir())


def test_an_sae_of_another_library_is_converted(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    g = torch.Generator().manual_seed(0)
    tensors = {"encoder.weight": torch.randn(64, 32, generator=g), "encoder.bias": torch.randn(64, generator=g)}
    tensors |= {"decoder.weight": torch.randn(32, 64, generator=g), "bias": torch.randn(32, generator=g)}
    save_file(tensors, "ae.safetensors")
    code, out, _ = shell("sae", "convert", "ae.safetensors", "--site", "2.resid_post", "--out", "made", "--json")
    found = json.loads(out)
    assert code == 0 and found["converted_from"]["layout"] == "AutoEncoder" and found["features"] == 64
    code, out, _ = shell("sae", "convert", "ae.safetensors", "--site", "2.resid_post", "--out", "made")
    assert code == 0 and "sae: made" in out
    for words, told in (
        (["ae.safetensors", "--out", "x"], "give site, like 12.resid_post"),
        (["ae.safetensors", "--out", "x", "--site", "2.hook_z"], "hook_z"),
        (["ae.safetensors", "--out", "x", "--site", "2.resid_post", "--k", "-1"], "k -1 was given"),
        (["none.pt", "--out", "x", "--site", "2.resid_post"], "is not there"),
    ):
        code, out, err = shell("sae", "convert", *words)
        assert code == 2 and told in err and err.count("\n") == 1 and not out
    assert not Path("x").exists()


def test_a_feature_is_steered_by_dose(common: list[str], tmp_path: Path) -> None:
    code, out, _ = shell(
        "steer", *common, "--strength", "0.5,2", "--unit", "feature_max", "--random", "2", "--limit", "6",
        "--unchecked", "--when", "last-prompt-token", "--out", str(tmp_path / "dose"), "--json",
    )  # fmt: skip
    rows = json.loads(out)["rows"]
    assert code == 0 and len({r["series"] for r in rows if r["control"]}) == 2
    named = next(r for r in rows if r["series"].startswith("feature ") and r["strength"] == 2)
    assert named["push"] > 0 and (tmp_path / "dose" / "steer.html").is_file()


def test_a_run_of_the_mechanism(sae: str, tiny_folder: Path) -> None:
    """With its controls, and beside them what is named with --against and is none of them."""
    settings = [f"sae={sae}", "checked=false", "candidates=2", "strengths=2", "dev=4", "read=6"]
    command = [
        *("run", "--method", "sae-steer", "--model", str(tiny_folder)),
        *("--task", "chain-sum", "--limit", "6", "--max-new-tokens", "8", "--device", "cpu", "--json"),
        *("--controls", "--against", "self-consistency,direct"),
        *(word for setting in settings for word in ("--set", setting)),
    ]  # fmt: skip
    code, out, error = shell(*command)
    assert code == 0, error
    result = json.loads(out)
    assert result["method"] == "sae-steer" and {"sign flipped", "direct@budget"} <= set(result["arms"])
    assert list(result["arms"])[-1] == "self-consistency" and list(result["arms"]).count("direct") == 1
    assert result["options"]["found"]["strength"] == 2.0
    assert json.loads(shell(*command)[1])["arms"] == result["arms"]


@pytest.mark.parametrize(("words", "said"), [
    (["--sparsity", "3"], "--sparsity 3 was given; topk has none"),
    (["--architecture", "batchtopk", "--sparsity", "0.5"], "--sparsity 0.5 was given; batchtopk has none"),
    (["--architecture", "standard", "--k", "7"], "--k 7 was given; standard has none"),
])  # fmt: skip
def test_what_an_architecture_does_not_have_is_refused(words: list[str], said: str) -> None:
    code, out, err = shell("sae", "train", *words)
    assert code == 2 and said in err and err.count("\n") == 1 and not out
    assert not list(Path().iterdir())


def test_words_are_of_reason_score_alone(common: list[str]) -> None:
    code, out, err = shell("sae", "find", *common, "--words", "wait")
    assert code == 2 and "--words wait was given; contrast looks for none" in err and err.count("\n") == 1 and not out


@pytest.mark.parametrize(("words", "said"), [
    (["--context", "-1"], "tokens 100000, context -1: give at least 1 and 8"),
    (["--context", "0"], "tokens 100000, context 0: give at least 1 and 8"),
    (["--tokens", "0"], "tokens 0, context 128: give at least 1 and 8"),
])  # fmt: skip
def test_a_page_of_features_over_no_texts(sae: str, tiny_folder: Path, words: list[str], said: str) -> None:
    Path("texts.txt").write_text("".join(f"line {n} is a sentence\n\n" for n in range(100)))
    code, out, err = shell("sae", "dashboard", sae, "--model", str(tiny_folder), "--sources", "texts.txt", *words)
    assert code == 2 and said in err and err.count("\n") == 1 and not out
    assert not Path("runs").exists()


def test_a_page_of_all_features(sae: str, tiny_folder: Path) -> None:
    Path("texts.txt").write_text("".join(f"line {n} is a sentence\n\n" for n in range(100)))
    words = ["--model", str(tiny_folder), "--sources", "texts.txt", "--tokens", "400", "--features", "top:500"]
    code, out, err = shell("sae", "dashboard", sae, *words, "--device", "cpu", "--json")
    assert code == 0, err
    assert len(json.loads(out)["features"]) == 64


def test_two_features_are_named_for_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sae_lens")
    name = "neuronpedia:gemma-2-2b/20-gemmascope-res-16k/123"
    monkeypatch.setattr("elicit.models.saes.open_sae", lambda _: pytest.fail("an SAE was opened"))
    code, out, err = shell("sae", "dashboard", name, "--features", "3,4")
    assert code == 2 and "--features 3,4 were given; the first names its feature" in err and err.count("\n") == 1
    assert not out
