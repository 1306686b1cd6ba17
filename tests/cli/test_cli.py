"""Each command as a new user would type it, typos included: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from elicit.evaluation.run.journal import Journal
from tests.support.shell import shell

TASK = "chain-sum:min_terms=2,max_terms=2"
Done = subprocess.CompletedProcess[str]


def process(*arguments: str, cwd: Path | None = None, **env: str) -> Done:
    """The command in a process of its own, where importing alone takes seconds: the few that show it whole."""
    return subprocess.run(
        [sys.executable, "-m", "elicit", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **env},
        check=False,
    )


def elicit(*arguments: str, cwd: Path | None = None) -> Done:
    """The same through `main` in this process."""
    with chdir(cwd or "."):
        return Done(arguments, *shell(*arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rum",), ("unknown command 'rum'", "did you mean run")),
        (("run", "--modl", "x"), ("no option '--modl'", "--model")),
        (("run", "--method", "cot"), ("unknown method 'cot'", "cot-decoding")),
        (("run", "--limit", "0"), ("limit of 0", "at least 1")),
        (("run", "--limit", "x"), ("--limit",)),
        (("run", "--seed", "-1"), ("--seed", "greater than or equal to 0")),
        (("run", "--max-new-tokens", "0"), ("limit of 0 new tokens",)),
        (("run", "--against", "direkt"), ("unknown baseline 'direkt'", "did you mean direct")),
        (("run", "--set", "k"), ("--set 'k'", "key=value")),
        (("run", "--task", ""), ("--task was given an empty text", "leave it out")),
        (("run", "--against="), ("--against was given an empty text", "leave it out")),
        (("compare", "", "runs"), ("an argument is an empty text",)),
        (("run", "--set", "k=ten"), ("k = 'ten'", "expected int")),
        (("run", "--task", "nowhere.jsonl"), ("no task file 'nowhere.jsonl'",)),
        (("run", "--split", "train"), ("unknown split 'train'", "fit, dev, test or all")),
        (("run", "--model", "smollm"), ("unknown model 'smollm'", "smollm2-135m")),
        (("run", "--method", "sae-steer", "--size", "fulll"), ("unknown size 'fulll'", "did you mean full")),
        (("run", "--size", "full"), ("method 'cot-decoding'", "--limit")),
        (("run", "--seed", "0", "--seeds", "0,1"), ("seed 0 and seeds 0,1", "one of them")),
        (("compare", "--methods", "direct", "--seed", "0", "--seeds", "0,1"), ("without --seed",)),
        (
            ("compare", "--methods", "self-consistency"),
            ("the baseline 'direct' is none of --methods self-consistency",),
        ),
        (
            ("compare", "--methods", "direct", "--baseline", "dirct", "--seeds", "0,1"),
            ("the baseline 'dirct' is none",),
        ),
        (("compare", "runs/a", "--dry-run"), ("--methods",)),
        (("run", "--config", "none.toml"), ("none.toml", "cannot be read")),
        (("compare",), ("nothing to compare",)),
        (("compare", "nowhere"), ("'nowhere' holds no run",)),
        (("tasks", "chain-summ"), ("did you mean chain-sum",)),
        (("run", "--model", "a" * 300), ("too long for a name or a path; give a shorter one",)),
        (("compare", "a" * 300), ("too long for a name or a path; give a shorter one",)),
        (("sae", "card", "--sae", "a" * 300), ("too long for a name or a path; give a shorter one",)),
        (("run", "--model", "~nobody-here/x"), ("a name that no user has; write the folder out",)),
        (("sae", "card", "--sae", "~nobody-here/x"), ("a name that no user has; write the folder out",)),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path) -> None:
    done = elicit(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("elicit: ") and done.stderr.strip().count("\n") == 0, done.stderr
    assert not done.stdout and all(word in done.stderr for word in words), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("group", [(), ("organism",), ("sae",), ("sweep",), ("hub",)])
def test_a_group_without_a_command_is_answered_by_its_help(group: tuple[str, ...]) -> None:
    done = elicit(*group)
    assert done.returncode == 2 and not done.stderr
    assert "Commands" in done.stdout and " ".join(("Usage: elicit", *group, "[OPTIONS] COMMAND")) in done.stdout


@pytest.mark.parametrize("arguments", [("run", "--modl", "x"), ("run", "--model", "smollm")])
def test_a_process_says_the_same(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Before anything heavy is imported, and after: neither an import nor the interpreter's end adds a word."""
    done, told = process(*arguments, cwd=tmp_path), elicit(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (told.returncode, told.stdout, told.stderr)
    assert done.returncode == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "20000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)
def test_threads_that_wait_sleep_unless_the_user_would_have_them_spin(given: dict[str, str], spins: str) -> None:
    """Set before torch is imported, which reads it once; and by the command alone, not by `import elicit`."""
    code = "import elicit, os, sys; print(os.environ.get('GOMP_SPINCOUNT')); " + (
        "import elicit.cli; sys.argv = ['elicit', 'methods', '--json']; heavy = 'torch' in sys.modules\n"
        "try: elicit.cli.main()\nexcept SystemExit: print(os.environ.get('GOMP_SPINCOUNT'), heavy)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")} | given
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    first, *_, last = done.stdout.splitlines()
    assert first == str(given.get("GOMP_SPINCOUNT")) and last == f"{spins} False"


def test_k_beyond_the_vocabulary_and_an_empty_question(tiny_folder: Path, tmp_path: Path) -> None:
    common = ("run", "--model", str(tiny_folder), "--task", TASK, "--limit", "2")
    done = elicit(*common, "--set", "k=98", cwd=tmp_path)
    assert done.returncode == 2 and "1 to the vocabulary's 97" in done.stderr
    done = elicit(*common, "--max-new-tokens", "5000", cwd=tmp_path)
    assert done.returncode == 2 and "positions" in done.stderr
    task = tmp_path / "t.jsonl"
    task.write_text('{"question": "a", "answer": "1"}\n{"question": "b", "answer"\n')
    done = elicit("run", "--model", str(tiny_folder), "--task", str(task), cwd=tmp_path)
    assert done.returncode == 2 and "line 2: not JSON" in done.stderr


def test_a_full_disk_is_told(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ("run", "--model", str(tiny_folder), "--task", TASK, "--limit", "2", "--max-new-tokens", "4")
    done = elicit(*common, "--out", "/dev/full/run")
    assert done.returncode == 2 or "Not a directory" in done.stderr

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x/samples.jsonl")

    def quota(*_: Any, **__: Any) -> None:  # as safetensors tells it, whose error is no OSError
        raise RuntimeError("Error while serializing: I/O error: Disk quota exceeded (os error 122)")

    for name, stopped, why in (("r", full, "No space left on device"), ("q", quota, "Disk quota exceeded")):
        monkeypatch.setattr(Journal, "append", stopped)
        done = elicit(*common, "--out", str(tmp_path / name), "--json")
        assert done.returncode == 2 and f": {why}; finished samples are kept" in done.stderr
        assert done.stderr.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("options = 3", ("options = 3", "expected a table")),
        ("[options]\nk = 1979-05-27", ("options.k", "expected text, a number, a list or a table")),
        ("[options.k]\na = 1", ("option k = {'a': 1}", "expected int")),
        ("[options.k]\na = [1979-05-27]", ("options.k", "expected text, a number, a list or a table")),
        ('batch_rows = "x"', ("batch_rows = 'x'", "expected int")),
        ("batch_rows = 0", ("batch_rows = 0", "at least 1")),
        ("device_map = 3", ("device_map = 3", "expected str")),
        ("out = 5", ("out = 5", "expected str")),
        ("limit = true", ("limit = True", "expected int")),
        ("seed = -1", ("seed -1", "from 0 on")),
        ("max_new_tokens = 3\nmax-new-tokens = 4", ("are one option", "give one of them")),
        ('model = "\udce9"', ("run.toml", "is not TOML")),
        ('task = ""', ("run.toml: task = ''", "leave the line out")),
        ("a = " + "[" * 5000, ("run.toml", "is not TOML")),
    ],
)  # fmt: skip
def test_options_of_a_file_have_types(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(text.encode(errors="surrogateescape"))
    done = elicit("run", "--config", "run.toml", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_run_compare_and_config(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        f'model = "{tiny_folder}"\ntask = "{TASK}"\nlimit = 6\nmax-new-tokens = 8\nagainst = "direct,cot-prompt"\n'
        'out = "a"\n[options]\nk = 3\nselect = "sum"\n'
    )
    done = process("run", "--config", "run.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["bottom_line"].startswith("It is undecided whether cot-decoding gains over direct: ")
    assert metrics["items"] == 6 and list(metrics["arms"]) == ["cot-decoding", "direct", "cot-prompt"]
    assert metrics["arms"]["cot-decoding"]["branches_per_item"] == 3 and metrics["options"]["select"] == "sum"
    done = elicit(
        "run",
        "--config",
        "run.toml",
        "--limit",
        "4",
        "--method",
        "self-consistency",
        "--set",
        "samples=2",
        "--out",
        "b",
        cwd=tmp_path,
    )
    assert done.returncode == 2 and "option of self-consistency" in done.stderr
    text = (tmp_path / "run.toml").read_text().replace('k = 3\nselect = "sum"', "samples = 2")
    (tmp_path / "run.toml").write_text(text)
    done = elicit(
        "run", "--config", "run.toml", "--method", "self-consistency", "--limit", "4", "--out", "b", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert done.stdout.strip().startswith("It is undecided whether self-consistency gains over direct:")
    done = elicit("compare", "a", "b", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert result["items"] == 4 and result["baseline"] == "direct"
    assert {row["arm"] for row in result["arms"]} == {"cot-decoding", "direct", "cot-prompt", "self-consistency"}
    (tmp_path / "run.toml").write_text("limits = 3\n")
    done = elicit("run", "--config", "run.toml", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean limit" in done.stderr


def test_lists() -> None:
    for command in ("models", "tasks", "methods"):
        done = elicit(command, "--json")
        assert done.returncode == 0 and len(json.loads(done.stdout)) >= 4
    shown = json.loads(elicit("tasks", "leg-counting", "--json").stdout)
    assert shown["validation"]["gold_right"] == shown["validation"]["checked"] > 0
    shown = json.loads(elicit("methods", "cot-decoding", "--json").stdout)
    assert shown["options"][0] == {"options": {"k": 10}, "what": "branches."} and shown["paper"] == "2402.10200"
    done = elicit("analyses", "convergence-shift")
    assert done.returncode == 0 and "reference=direct" in done.stdout and "nulls, halves and bootstrap" in done.stdout
    for command, typo, meant in (("methods", "sae-ster", "sae-steer"), ("analyses", "routin", "routing")):
        done = elicit(command, typo)
        assert done.returncode == 2 and f"did you mean {meant}" in done.stderr and not done.stdout


def test_a_model_is_checked(tiny_folder: Path, tmp_path: Path) -> None:
    done = elicit("models", "check", str(tiny_folder), "--dtype", "float32", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["way"] == said["steered_way"] == "shared-prefix" and said["padding_is_unseen"]
    assert all(0 < said["decoded"][way]["off"] < 2e-3 for way in ("shared-prefix", "per-row", "uncached"))
    done = elicit("models", "check", str(tmp_path))
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1


def test_controls_are_the_methods_own(tiny_folder: Path, tmp_path: Path) -> None:
    done = elicit(
        "run", "--controls", "--model", str(tiny_folder), "--dtype", "float32", "--task", TASK, "--limit", "2",
        "--max-new-tokens", "4", "--set", "k=3", "--out", str(tmp_path / "run"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain = ["direct", "cot-prompt", "self-consistency"]
    assert list(json.loads(done.stdout)["arms"]) == ["cot-decoding", *plain, *(f"{name}@budget" for name in plain)]


def completed(words: str, at: int) -> list[str]:
    done = process(_ELICIT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(at))
    assert done.returncode == 0 and not done.stderr
    return done.stdout.split()


def test_the_shell_completes_names() -> None:
    from elicit.cli import completion
    from elicit.methods import METHODS

    assert sorted(completion.methods()) == sorted(METHODS)
    assert completed("elicit s", 1) == ["steer", "serve", "sae", "sweep"]
    assert completed("elicit run --method co", 3) == ["cognitive-tools", "cot-decoding", "cot-prompt"]
    assert "smollm2-135m-latent" in completed("elicit steer --model smol", 3)
    assert completed("elicit tasks org", 2) == ["organism"]


def test_help_and_completion_import_nothing_heavy() -> None:
    code = (
        "import sys; from elicit.cli import completion; completion.models(), completion.tasks(), completion.methods()\n"
        "from elicit.cli.app import app; print({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
