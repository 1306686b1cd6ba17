"""Options of `elicit analyse` that an analysis would pass over. What the analyses do: see tests/analysis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.shell import shell


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("words", "said"), [
    (["pass-at-k", "run", "--model", "smollm2-135m"], "--model given to pass-at-k, which loads what its runs name"),
    (["pass-at-k", "run", "--dtype", "bfloat16", "--device-map", "auto"], "--dtype, --device-map given to pass-at-k"),
    (["logit-lens", "--seed", "3"], "logit-lens takes no --seed; it takes --prompt, --answer"),
    (["logit-lens", "--set", "seed=3"], "logit-lens takes no --seed"),
    (["bits-to-elicit", "run", "--seed", "3"], "bits-to-elicit takes no --seed"),
    (["patching", "--layer", "1", "--set", "layer=2"], "--layer and --set layer=… were given; give one of them"),
])  # fmt: skip
def test_what_would_be_passed_over_is_refused(words: list[str], said: str) -> None:
    code, out, err = shell("analyse", *words)
    assert code == 2 and said in err and err.count("\n") == 1 and not out
    assert not list(Path().iterdir())


def test_the_command_on_a_page_makes_the_same_again(tiny_folder: Path) -> None:
    common = ["analyse", "logit-lens", "--model", str(tiny_folder), "--device", "cpu", "--prompt", "1 + 1 ="]
    code, out, err = shell(*common, "--json")
    assert code == 0, err
    command = json.loads(out)["command"]
    assert "--seed" not in command
    code, _, err = shell("analyse", "patching", "--model", str(tiny_folder), "--device", "cpu", "--prompt", "ab",
                         "--corrupt", "cb", "--answer", "1", "--wrong", "2", "--set", "seed=5", "--json")  # fmt: skip
    assert code == 0, err
