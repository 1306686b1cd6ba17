"""`elicit lm-eval` as a user types it: a process of its own once, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from elicit.evaluation.run.foreign_lm_eval import is_lm_eval, read_lm_eval
from tests.support.shell import shell

pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval and what it brings warn of their own matters


@pytest.fixture(scope="module")
def logged(tasks: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command printed, and the folder that it wrote to."""
    out = tmp_path_factory.mktemp("logged")
    model = {
        "pretrained": str(folder),
        "method": "cot-decoding",
        "k": 2,
        "kind": {"sums": "number"},
        "dtype": "float32",
    }
    command = [
        *(sys.executable, "-m", "elicit", "lm-eval", "--model_args", json.dumps(model), "--tasks", "sums", "choices"),
        *("--include_path", str(tasks), "--limit", "2", "--output_path", str(out), "--log_samples"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr, out


def test_a_table_and_samples_are_written(logged: tuple[str, Path]) -> None:
    said, out = logged
    assert "exact_match" in said
    assert said.count("cot-decoding chooses how answers are decoded, which changes no likelihood") == 1
    (file,) = out.rglob("results_*.json")
    results: dict[str, Any] = json.loads(file.read_text())
    assert results["config"]["elicit"]["decoder"] == {"name": "branching", "k": 2, "max_new_tokens": 256}
    assert results["results"]["sums"]["exact_match,last"] in (0.0, 0.5, 1.0)
    assert {path.name.split("_2")[0] for path in out.rglob("samples_*.jsonl")} == {"samples_sums", "samples_choices"}


def test_what_it_logged_is_read(logged: tuple[str, Path]) -> None:
    (sums,), (choices,) = (logged[1].rglob(f"samples_{name}_*.jsonl") for name in ("sums", "choices"))
    assert is_lm_eval(sums)
    found, about = read_lm_eval(sums)
    answers = list(found)
    assert about == {"task": "sums"}
    assert [one["gold"] for one in answers] == ["7", "6"]
    assert answers[0]["prompt"] == "Q: Compute 10 + 11 - 9 + 3 - 8.\nA:"
    assert all(one["score"] in (0.0, 1.0) and one["text"] for one in answers)
    assert [one["gold"] for one in read_lm_eval(choices, "acc")[0]] == ["7", "6"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--tasks", "sumss"], "lm-eval: Tasks not found: sumss"),
        (["--tasks", "sums", "--log_samples"], "lm-eval: Specify --output_path"),
        (["--tasks", "sums", "--model_args", "method=cot-decoding,kk=2"], "'kk'; did you mean k"),
        (["--tasks", "sums", "--output_path", "/proc/nothing/here"], "lm-eval wrote no results to"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, tasks: Path, given: list[str], message: str) -> None:
    known = ["--include_path", str(tasks), "--limit", "1", "--gen_kwargs", "max_gen_toks=2"]
    named = ["--model_args", f"pretrained={folder},dtype=float32"]
    code, _, err = shell("lm-eval", "run", *known, *named, *given)
    (line,) = [line for line in err.splitlines() if line.startswith("elicit: ")]
    assert code == 2
    assert message in line
    assert "Traceback" not in err


def test_what_lm_eval_itself_refuses(folder: Path) -> None:
    code, _, err = shell("lm-eval", "run", "--tasks", "sums", "--model_args", f"pretrained={folder},k=1,2")
    assert code == 2
    assert "expected `key=value`, got '2'" in err


def test_its_help_is_lm_evals() -> None:
    code, out, _ = shell("lm-eval", "--help")
    assert code == 0
    assert "Language Model Evaluation Harness" in out


def test_the_entry_point_is_the_model() -> None:
    import tomllib
    from importlib.metadata import EntryPoint

    from elicit.integrations.lm_eval.model import ElicitLM

    named = tomllib.loads(Path("pyproject.toml").read_text())["project"]["entry-points"]["lm_eval.models"]
    assert EntryPoint("elicit", named["elicit"], "lm_eval.models").load() is ElicitLM
