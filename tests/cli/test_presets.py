"""Presets: every key and option is one, what else is given wins, and each runs on a random model of its class."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from elicit.cli import app as cli
from elicit.cli import completion
from elicit.cli.options import PROMPT_DETAILS
from elicit.cli.presets import page, preset
from elicit.evaluation.run.run import Run
from elicit.methods import METHODS, check_options
from elicit.models import model as model_module
from elicit.models.prompts import FORMATS
from elicit.models.zoo import ALIASES
from elicit.tasks.hub import TASKS
from elicit.training import trl_common
from tests.support.chats import FAMILIES
from tests.support.saes import save_random_sae
from tests.support.shell import shell
from tests.support.tiny import save_tiny

NAMES = completion.presets()
CLASSES = {  # of the model that each preset names
    "cognitive-tools-qwen2.5-7b": "qwen2",
    "budget-forcing-r1-qwen-7b": "qwen2",
    "cot-decoding-mistral-7b": "mistral", "critique-ft-paper": "qwen2", "no-thinking-r1-qwen-32b": "qwen2",
    "one-shot-rlvr-paper": "qwen2",
    "backward-reasoning-mistral-7b": "mistral",
    "dpo-teacher-mistral-7b": "mistral",
    "quiet-star-paper": "mistral",
    "rlp-paper": "qwen3",
    "rpt-r1-qwen-14b": "qwen2",
    "thinkless-paper": "qwen2",
    "sae-steer-gemma-3-4b": "gemma3", "sae-steer-llama-3.1-8b": "llama", "vector-transfer-orz-0.5b": "qwen2",
}  # fmt: skip
# What makes a run of each small enough for a tiny model; everything else is the preset's.
SMALL: dict[str, list[str]] = {
    "cognitive-tools-qwen2.5-7b": ["call_tokens=6"],
    "budget-forcing-r1-qwen-7b": ["thought_tokens=3", "waits=0"],  # the tiny tokenizer has no token </think>
    "cot-decoding-mistral-7b": [],
    "critique-ft-paper": ["steps=2", "rows=1", "width=600", "save_every=1", "lr=1e-3"],
    "no-thinking-r1-qwen-32b": ["samples=2"],
    "one-shot-rlvr-paper": [
        "updates=2", "rollouts=8", "group=4", "part=4", "rollout_rows=5", "rollout_tokens=6", "save_every=1",
        "checked=false", "reward=exact+random:0.5", "example=pi1",
    ],
    "backward-reasoning-mistral-7b": [
        "filtered=false", "answer_tokens=6", "steps=2", "rows=2", "part=1", "rank=2", "lr=1e-3",
    ],
    "dpo-teacher-mistral-7b": ["keep=random", "samples=3", "answer_tokens=6", "steps=2", "rows=2", "lr=1e-3"],
    "quiet-star-paper": [
        "documents=4", "document_tokens=40", "thought_tokens=3", "positions=6", "part=3", "updates=2", "lr=1e-4",
    ],
    "rlp-paper": [
        "documents=4", "document_tokens=40", "thought_tokens=4", "positions=6", "group=2", "part=2", "rollout_rows=5",
        "updates=2", "save_every=1",
    ],
    "rpt-r1-qwen-14b": [
        "documents=4", "document_tokens=40", "thought_tokens=4", "positions=6", "group=2", "part=2", "rollout_rows=5",
        "updates=2", "save_every=1", "min_entropy=0.01", "predicts=greedy", "checked=false",
    ],
    "thinkless-paper": [
        "short=s", "think=t", "updates=2", "rollouts=8", "group=4", "part=4", "rollout_rows=5", "rollout_tokens=6",
        "save_every=1", "checked=false",
    ],
    "sae-steer-gemma-3-4b": ["sae=saes/one", "candidates=1", "strengths=1", "dev=2", "read=4", "checked=false"],
    "sae-steer-llama-3.1-8b": ["sae=saes/one", "candidates=1", "strengths=1", "dev=2", "read=4", "checked=false"],
    "vector-transfer-orz-0.5b": [
        "layers=1,2", "categories=2", "read=24", "dev=2", "checked=false", "coefficients=0.5",
    ],
}  # fmt: skip


def test_all_are_there_and_refer_to_what_exists() -> None:
    assert set(CLASSES) == set(NAMES) == set(SMALL)
    known = inspect.signature(cli.run).parameters
    for name in NAMES:
        about = preset(name)
        run = about["run"]
        options = {k: v for k, v in run["options"].items() if k not in PROMPT_DETAILS}
        assert {key.replace("-", "_") for key in run} - {"options"} <= known.keys()
        assert run["method"] in METHODS and run["prompt"] in FORMATS
        check_options(run["method"], options)
        assert run["task"].partition(":")[0] in TASKS
        assert run["model"] in ALIASES or "/" in run["model"]
        assert all(one["paper"] and one["preset"] and {*one} == {"what", "paper", "read", "preset"}
                   for one in about["settings"])  # fmt: skip
        # What a paper says is read somewhere; what nobody read says so.
        for one in about["settings"]:
            assert one["read"] or one["paper"].startswith(("not stated", "not looked up")), one
        assert re.fullmatch(r"\d{4}\.\d{5}", about["paper"])
        assert "$" not in page(name, about) and page(name, about).count("\n| ") == len(about["settings"]) + 2


def test_presets_are_listed_and_shown() -> None:
    code, out, _ = shell("presets", "--json")
    assert code == 0 and [row["preset"] for row in json.loads(out)] == NAMES
    code, out, _ = shell("presets", "one-shot-rlvr-paper")
    assert code == 0 and "rank=0" in out and "73.6" in out and "(script of the authors" in out
    code, out, _ = shell("presets", "critique-ft-paper", "--json")
    assert code == 0 and json.loads(out)["run"]["options"]["rank"] == 0


@pytest.mark.parametrize("command", [("run", "--preset"), ("presets",)])
def test_an_unknown_preset_is_one_line(command: tuple[str, ...]) -> None:
    code, out, err = shell(*command, "cot-decoding-mistal")
    assert (code, out) == (2, "")
    assert err.startswith("elicit: unknown preset 'cot-decoding-mistal'; did you mean cot-decoding-mistral-7b")
    assert err.count("\n") == 1


def test_what_else_is_given_wins(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text("limit = 3\nmax-new-tokens = 6\n[options]\nk = 4\n")
    common = ("run", "--preset", "cot-decoding-mistral-7b", "--model", str(tiny_folder), "--task", "chain-sum",
              "--dtype", "float32", "--json", "--config", "run.toml")  # fmt: skip
    code, out, err = shell(*common, "--limit", "2")
    assert code == 0, err
    found = json.loads(out)
    assert (found["items"], found["options"]["k"], found["options"]["select"]) == (2, 4, "sum")
    code, out, err = shell(*common, "--limit", "2", "--set", "k=3", "--set", "select=max")
    assert code == 0, err
    found = json.loads(out)
    assert (found["options"]["k"], found["options"]["select"]) == (3, "max")
    Path("run.toml").write_text("limits = 3\n")
    assert shell(*common)[2].startswith("elicit: unknown key of run.toml 'limits'; did you mean limit")
    Path("run.toml").write_text('preset = "x"\n')
    assert "unknown key of run.toml 'preset'" in shell(*common)[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of mathematics, an SAE, and the authors' critiques as a file of theirs has them."""
    monkeypatch.chdir(tmp_path)
    splits = [("fit", 24), ("dev", 3), ("test", 2)]
    items = [
        {"id": f"{split}-{n}", "question": f"What is {n + 2} + {m}?", "answer": str(n + m + 2), "split": split}
        for m, (split, count) in enumerate(splits)
        for n in range(count)
    ]
    Path("task.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    save_random_sae(tmp_path / "saes" / "one")
    told = [
        {"messages": [
            {"role": "user", "content": f"Please critique.\nQuestion:\nWhat is 4 + 4?\nSolution:\n{n}"},
            {"role": "assistant", "content": f"4 + 4 = 8. Conclusion: {'right' if n == 8 else 'wrong'} [END]"},
        ]}
        for n in range(3, 11)
    ]  # fmt: skip
    Path("DSR-CFT-p0.jsonl").write_text("".join(json.dumps(one) + "\n" for one in told))
    return tmp_path


def served(name: str, folder: Path) -> Path:
    """A random model of the preset's class, with a chat template as that family has one."""
    made = save_tiny(folder, CLASSES[name])
    tokenizer = AutoTokenizer.from_pretrained(made)
    if name.startswith(("quiet", "sae-steer-gemma")):  # a window in which thoughts and the last token see what differs
        config = json.loads((made / "config.json").read_text())
        (made / "config.json").write_text(json.dumps({**config, "sliding_window": 4096}))
    family = {"gemma3": "gemma", "llama": "llama-3"}.get(CLASSES[name], "qwen2.5")
    family = "deepseek-r1" if "-r1-" in name else family
    tokenizer.chat_template = FAMILIES[family].template.replace("{{ bos_token }}", "")
    tokenizer.save_pretrained(made)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_in_all_but_the_download(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def hub_snapshot(repo: str, revision: Any, patterns: Any) -> Path:
        asked.append(repo)
        folder = here / re.sub(r"\W", "-", repo)
        return folder if folder.is_dir() else served(name, folder)

    monkeypatch.setattr(model_module, "hub_snapshot", hub_snapshot)
    run = preset(name)["run"]
    limit, tokens = ("24", "24") if name.startswith("vector") else ("2", "6")
    small = [word for pair in SMALL[name] for word in ("--set", pair)]
    code, out, err = shell(
        "run", "--preset", name, "--task", "task.jsonl:kind=math", "--limit", limit, "--max-new-tokens", tokens,
        "--dtype", "float32", "--device", "cpu", "--json", "--controls", "--out", "made", *small,
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert asked[0] == ALIASES.get(run["model"], run["model"])
    made = Run.load(Path("made"))
    arms = made.metrics["arms"]
    assert found["method"] == run["method"] and len(arms) > 3
    changed = {pair.partition("=")[0] for pair in SMALL[name]}
    kept = made.metrics["options"]
    said = {**kept.get("asked", {}), **kept.get("settings", {}), **kept}
    for option, value in run["options"].items():  # all else is the preset's
        if option not in changed and option in said:
            assert said[option] == value, option
    assert run["prompt"] in kept["prompt"]
    if run["options"].get("rank") == 0:
        assert "weights" in made.store.config["arms"][run["method"]]
    if name == "one-shot-rlvr-paper":
        rewards = {arm: made.store.config["arms"][arm]["options"]["settings"]["reward"]
                   for arm in ("format reward", "majority reward", "incorrect reward")}  # fmt: skip
        assert set(rewards.values()) == {"format:boxed", "majority", "incorrect"}
        assert kept["found"]["examples"] == ["pi1"]


@pytest.mark.parametrize("name", ["one-shot-rlvr-paper", "critique-ft-paper"])
def test_trained_presets_run_on_trl(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason=f"TRL is not installed; {trl_common.INSTALL}")
    model = served(name, here / "model")
    monkeypatch.setattr(model_module, "hub_snapshot", lambda repo, revision, patterns: model)
    small = [word for pair in SMALL[name] for word in ("--set", pair)]
    code, _, err = shell(
        "run", "--preset", name, "--task", "task.jsonl:kind=math", "--limit", "2", "--max-new-tokens", "6",
        "--dtype", "float32", "--device", "cpu", "--json", "--trainer", "trl", *small,
    )  # fmt: skip
    assert code == 0, err
    assert sorted(path.name for path in Path("runs").glob("*/steps/*")) or list(Path("runs").glob("*/*/steps/*"))


def test_the_commands_that_are_shown_parse() -> None:
    for name in NAMES:
        words = shlex.split(preset(name)["launch"])
        given = words[words.index("elicit") + 1 :]
        assert given[0] == "run" and given[given.index("--preset") + 1] == name
        for word in (w for w in given if w.startswith("--")):
            assert word.removeprefix("--").replace("-", "_") in {*inspect.signature(cli.run).parameters, "set"}
