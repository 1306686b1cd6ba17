"""`elicit check-steering` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from elicit.decoding import Greedy
from elicit.elicited import Elicited
from elicit.models import Prompt, load_model
from probes.sites import Site
from steering.directions import Direction
from steering.formats import to_gguf
from steering.interventions import Add, Intervention
from tests.support.completions import serving
from tests.support.shell import shell

HOOKS = """
import torch
def right(model, strength=1.0):
    v = strength * torch.ones(model.config.hidden_size, dtype=model.dtype)
    return model.model.layers[2].register_forward_hook(lambda m, a, out: out + v)
def prefill(model, strength=1.0):
    v = strength * torch.ones(model.config.hidden_size, dtype=model.dtype)
    return model.model.layers[2].register_forward_hook(lambda m, a, out: out + v if out.shape[1] > 1 else out)
def nothing(model):
    pass
"""
SHORT = ["--prompt", "A bird", "--prompt", "The long road", "--steps", "2", "--device", "cpu"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(HOOKS)
    return str(path)


@pytest.fixture
def gguf(tmp_path: Path) -> str:
    plan = tuple(Intervention(Add(Direction(torch.ones(32), Site(layer))), 1.0) for layer in (1, 2))
    return str(to_gguf(plan, tmp_path / "v.gguf", "llama"))


def test_a_vector_file_holds(tiny_folder: Path, gguf: str) -> None:
    code, out, err = shell("check-steering", "--model", str(tiny_folder), "--vector", gguf, *SHORT, "--json")
    found = json.loads(out)
    assert code == 0 and found["ok"] and {one["verdict"] for one in found["answers"]} == {"holds"}, (out, err)
    code, out, _ = shell("check-steering", "--model", str(tiny_folder), "--vector", gguf, "--layer", "2", *SHORT)
    assert code == 0 and "written at layer 2;" in out and "twice the strength writes 2 times" in out


def test_ones_own_hooks_beside_the_vector_that_they_mean(tiny_folder: Path, file: str, gguf: str) -> None:
    words = ["check-steering", "--model", str(tiny_folder), "--hooks", f"{file}:right", *SHORT]
    code, out, _ = shell(*words, "--vector", gguf, "--layer", "2")
    assert code == 0 and "1 times what was meant" in out
    code, out, _ = shell(*words, "--vector", gguf)
    assert code == 1 and "faults: another layer" in out
    code, out, _ = shell(*words[:-6], *SHORT, "--strength", "0.5")
    assert code == 0 and "strength 0.5" in out


def test_wrong_hooks_are_exit_code_1(tiny_folder: Path, file: str) -> None:
    code, out, _ = shell("check-steering", "--model", str(tiny_folder), "--hooks", f"{file}:prefill", *SHORT)
    assert code == 1 and "prefill only" in out


def test_a_server(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"steer": {"strength": 1}}')
    with serving(tiny_folder) as url:
        code, out, _ = shell("check-steering", "--endpoint", url, "--model", "t", "--plan", str(tmp_path / "plan.json"))
        assert code == 0 and "batched = single" in out
        code, out, _ = shell("check-steering", "--endpoint", url, "--model", "t", "--plan", '{"other": 1}')
        assert code == 1 and "faults: nothing moved" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one of them says what steers"),
        (["--hooks", "a.py:f", "--endpoint", "http://x"], "one of them says what steers"),
        (["--hooks", "not-there.py:f"], "with a file that is there"),
        (["--hooks", "FILE:absent"], "has no function 'absent'"),
        (["--hooks", "FILE:nothing"], "return what removes them"),
        (["--vector", "GGUF", "--layer", "3"], "steers at 1, 2"),
        (["--vector", "GGUF", "--plan", "{}"], "without --endpoint"),
        (["--endpoint", "http://127.0.0.1:9", "--plan", "{"], "holds no JSON"),
        (["--endpoint", "http://127.0.0.1:9", "--plan", "[1]"], "or the file that holds one"),
        (["--endpoint", "http://127.0.0.1:9", "--plan", '{"a": 1}'], "took no connection"),
        (["--endpoint", "http://127.0.0.1:9", "--plan", '{"a": 1}', "--layer", "2"], "put them into --plan"),
    ],
)
def test_wrong_input_is_one_line(tiny_folder: Path, file: str, gguf: str, words: list[str], said: str) -> None:
    given = [word.replace("FILE", file).replace("GGUF", gguf) for word in words]
    code, out, err = shell("check-steering", "--model", str(tiny_folder), *given)
    assert code == 2 and said in err and err.count("\n") <= 2 and not out, err


@pytest.mark.parametrize(("words", "said"), [
    (["--hooks", "{}:right", "--layer", "2"], "--layer 2 was given without --vector"),
    (["--hooks", "{}:right", "--timeout", "3"], "--timeout 3 was given without --endpoint"),
    (["--endpoint", "http://127.0.0.1:9", "--plan", "{{}}", "--device", "cpu"], "say nothing to a server"),
    (["--endpoint", "http://127.0.0.1:9", "--plan", "{{}}", "--dtype", "float32"], "say nothing to a server"),
])  # fmt: skip
def test_what_would_be_passed_over_is_refused(file: str, words: list[str], said: str) -> None:
    code, out, err = shell("check-steering", *(word.format(file) for word in words))
    assert code == 2 and said in err and err.count("\n") == 1 and not out


def test_one_layer_of_a_plan_that_acts_in_several(tiny_folder: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_folder), dtype="float32", device="cpu")
    plan = (Intervention(Add(Direction(torch.ones(32), Site(1))), 1.0, layers=(1, 2)),)
    Elicited(model, "steer", Prompt(), Greedy(), interventions=plan).save(tmp_path / "bundle")
    words = ["check-steering", "--model", str(tiny_folder), "--vector", str(tmp_path / "bundle"), *SHORT]
    code, out, err = shell(*words, "--layer", "2")
    assert code == 0 and "written at layer 2;" in out, err
    code, _, err = shell(*words, "--layer", "3")
    assert code == 2 and "steers at 1, 2" in err
