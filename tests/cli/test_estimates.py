"""What a job will take, told before it begins: commands that say it alone, and those that refuse for want of room."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer.main
from safetensors.torch import save_file

from elicit import cli
from elicit.cli import estimates
from elicit.cli.app import app
from elicit.cli.terminal import Lines
from elicit.decoding import StopRule
from elicit.decoding.decoders import Greedy, Power, PowerRollouts, Sampling
from elicit.decoding.engine import Batch, decode_batch
from elicit.decoding.pace import StepCost
from elicit.elicited import Elicited
from elicit.evaluation import forecast as forecasts
from elicit.evaluation.evaluator import evaluate, foretold
from elicit.evaluation.forecast import Tried, forecast
from elicit.methods import options_of
from elicit.models import Model, memory
from elicit.tasks.registry import load_task
from elicit.training.forecast import forecast_training
from elicit.training.recipe import Recipe
from probes.errors import UserError
from probes.estimate import Estimate, check_room
from tests.support.saes import save_random_sae
from tests.support.shell import shell

pytestmark = pytest.mark.usefixtures("one_thread")
KEYS = {"seconds", "memory", "disk", "most", "beside"}


class Free(NamedTuple):
    total: int
    used: int
    free: int


def bare(model: Model, limit: int = 8) -> Elicited:
    return Elicited(model, "direct", decoder=Greedy(limit))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_estimate_is_one_line_and_adds_up() -> None:
    first, then = Estimate(90.0, 2 * 10**9, 10**9, beside="x"), Estimate(30.0, 10**9, 10**9, most=True)
    both = first + then
    assert both.line == "at most 2.0 min, 2.00 GB of memory beside the model's, 2.00 GB of disk; x"
    assert first.line.startswith("about 1.5 min")


def test_what_has_no_room_is_refused_with_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = Estimate(1.0, 1000, 1000)
    room: dict[str, Any] = {"what": "the job", "for_disk": "give less", "for_memory": "give fewer"}
    check_room(needed, tmp_path / "a" / "b", None, **room)
    with pytest.raises(UserError, match=r"the job needs .* of memory .*; give fewer"):
        check_room(needed, tmp_path, 999, **room)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Free(1000, 1, 999))
    with pytest.raises(UserError, match=r"of disk and .* are free at .*; give less"):
        check_room(needed, tmp_path / "a" / "b", None, **room)


def test_a_batch_takes_the_steps_that_were_tried() -> None:
    cost = StepCost(1.0, 0.5)  # of 2 rows 2 s, of 20 rows 11 s, of 10 rows 6 s
    tried = Tried(2, 2, 3.0, [(2.0, 2), (1.5, 1)], {}, whole=True)
    assert tried.seconds(20, 20, 99, cost) == pytest.approx(30.0 + 11.0 + 6.0)
    cut = Tried(2, 2, 3.0, [(2.0, 2), (1.5, 1)], {}, whole=False)
    assert cut.seconds(2, 2, 6, cost) == pytest.approx(3.0 + 2.0 + 4 * 1.5)  # five steps after the first token


def test_a_forecast_grows_with_questions_and_branches(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasts, "WORTH_TELLING", 0.0)
    monkeypatch.setattr(StepCost, "measured", staticmethod(lambda model, rows: StepCost(0.0, 1.0)))
    monkeypatch.setattr(
        forecasts,
        "_tried",
        lambda group, items, cost: Tried(1, 1, 0.0, [(1.0, 1)], dict.fromkeys(group, 10.0), whole=True),
    )
    items = load_task("chain-sum", limit=40).test
    one = {"direct": bare(tiny)}
    few, many = (forecast([one], {}, items[:n], 8) for n in (8, 32))
    assert many.seconds == pytest.approx(4 * few.seconds) and many.memory == few.memory
    shared = forecast([{**one, "other": bare(tiny)}], {}, items[:8], 8)
    assert shared.seconds == pytest.approx(2 * few.seconds)
    sampler = Elicited(tiny, "direct@budget", decoder=Sampling(1, max_new_tokens=8), select="vote")
    matched = forecast([one], {"direct@budget": (sampler, "direct")}, items[:8], 8)
    assert matched.seconds > few.seconds and matched.disk > few.disk


@pytest.mark.parametrize(
    ("decoder", "exactly"),
    [
        (Power(1.5, block=3, moves=0, max_new_tokens=7), True),
        (Power(1.5, block=3, moves=4, max_new_tokens=7), False),
        (PowerRollouts(1.5, candidates=2, rollouts=2, horizon=3, max_new_tokens=6), True),
        (PowerRollouts(1.5, candidates=2, rollouts=0, max_new_tokens=6), True),
    ],
)
def test_power_sampling_takes_at_most_its_steps(tiny: Model, decoder: Any, exactly: bool) -> None:
    batch = Batch([[5, 6, 7]], ["a"], decoder, StopRule(frozenset()))
    decode_batch(tiny, replace(batch, decoder=Greedy(2)))  # the trial of the model's cache is no answer's
    forwards = []
    handle = tiny.lm.register_forward_hook(lambda *_: forwards.append(1))
    try:
        decode_batch(tiny, batch)
    finally:
        handle.remove()
    assert 0 < len(forwards) <= decoder.steps
    assert not exactly or len(forwards) == decoder.steps


def test_a_forecast_knows_the_moves_of_chains_and_what_rollouts_look_at(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasts, "WORTH_TELLING", 0.0)
    monkeypatch.setattr(StepCost, "measured", staticmethod(lambda model, rows: StepCost(0.0, 1.0)))
    items = load_task("chain-sum", limit=4).test

    def by(decoder: Any) -> dict[str, Elicited]:
        return {"power-sampling": Elicited(tiny, "power-sampling", decoder=decoder)}

    chains = {moves: by(Power(1.5, block=4, moves=moves, max_new_tokens=8)) for moves in (1, 3, 9)}
    one, few, many = (forecasts._tried(group, items, StepCost(0.01, 0.001)) for group in chains.values())
    assert few.spent["power-sampling"] == 2 * one.spent["power-sampling"]  # one move is tried of each
    run = evaluate(chains[1]["power-sampling"], items)
    spent = [trace.spent for (trace,) in run.traces["power-sampling"].values()]
    assert one.spent["power-sampling"] == sum(spent) / len(spent)
    assert many.again and all(n for _, n in many.steps)
    cut = Tried(2, 2, 3.0, [(2.0, 2), (1.0, 1)], {}, whole=False, again=True)
    assert cut.seconds(2, 2, 6, StepCost(1.0, 0.5)) == pytest.approx(3.0 + 2.0 + 1.0 + 2.0 + 1.0 + 2.0)

    monkeypatch.setattr(forecasts, "_tried", lambda group, items, cost: one)
    seconds = {moves: forecast([group], {}, items, 8).seconds for moves, group in chains.items()}
    assert seconds[3] == pytest.approx(2 * seconds[1]) and seconds[9] == pytest.approx(5 * seconds[1])

    monkeypatch.setattr(forecasts, "WORTH_TELLING", float("inf"))
    far = [
        forecast([by(PowerRollouts(1.5, 2, rollouts, horizon, max_new_tokens=8))], {}, items, 8)
        for rollouts, horizon in ((2, 1), (2, 4), (4, 4))
    ]
    assert far[0].seconds < far[1].seconds < far[2].seconds and far[1].memory < far[2].memory
    assert len({one.disk for one in far}) == 1


def test_a_forecast_leaves_the_samples_as_they_are(tiny: Model, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasts, "WORTH_TELLING", 0.0)
    items, told = load_task("chain-sum", limit=3).test, []
    run = evaluate(bare(tiny), items, out=here / "a", before=told.append)
    again = evaluate(bare(tiny), items, out=here / "b")
    assert run.traces == again.traces
    assert len(told) == 1 and told[0].seconds > 0 and not told[0].most
    evaluate(bare(tiny), items, out=here / "a", before=told.append)
    assert told[-1].beside == "it is finished"


def test_batches_are_as_large_as_there_is_memory_for(tiny: Model, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = load_task("chain-sum", limit=4).test
    one = forecasts._bytes(bare(tiny), items, 1)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3 * one)
    run = evaluate(bare(tiny), items, out=here / "a")
    assert run.store.config["execution"]["batch_rows"] == 2
    with pytest.raises(UserError, match=r"--batch-rows 2 \(batch_rows\)"):
        evaluate(bare(tiny), items, out=here / "b", batch_rows=4)
    monkeypatch.setattr(memory, "free_bytes", lambda device: one - 1)
    with pytest.raises(UserError, match="max-new-tokens"):
        evaluate(bare(tiny), items, out=here / "b")
    assert not (here / "b").exists()


def test_a_run_without_disk_is_refused_before_it_begins(
    tiny: Model, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Free(10, 9, 1))
    items = load_task("chain-sum", limit=4).test
    with pytest.raises(UserError, match="of disk"):
        foretold(bare(tiny), items, {})
    with pytest.raises(UserError, match="of disk"):
        evaluate(bare(tiny), items, out=here / "a", before=lambda needed: None)
    assert not list(here.iterdir())


@pytest.mark.parametrize(("rank", "checkpointing"), [(2, False), (0, False), (2, True)])
def test_a_training_is_forecast_and_leaves_the_base(tiny: Model, rank: int, checkpointing: bool) -> None:
    before = {name: p.detach().clone() for name, p in tiny.lm.named_parameters()}
    recipe = Recipe(steps=10, rows=4, width=16, part=2, rank=rank, checkpointing=checkpointing)
    needed = forecast_training(tiny, recipe)
    assert needed.seconds > 0 and not needed.most
    after = dict(tiny.lm.named_parameters())
    assert after.keys() == before.keys() and all(torch.equal(before[name], after[name]) for name in before)
    if rank == 0:
        assert needed.memory > 16 * tiny.lm.num_parameters()


def test_keeping_inputs_alone_takes_less_memory(tiny: Model) -> None:
    whole, inputs = (
        forecast_training(tiny, Recipe(steps=2, rows=2, width=64, part=2, rank=2, checkpointing=on)).memory
        for on in (False, True)
    )
    assert inputs < whole


def test_all_weights_without_room_are_refused(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(UserError, match="rank above 0"):
        forecast_training(tiny, Recipe(steps=2, rank=0))


COMMANDS = [
    ("run", "--limit", "2", "--set", "k=2"),
    ("run", "--method", "direct", "--against", "none", "--limit", "2"),
    ("run", "--method", "critique-ft", "--limit", "2", "--controls", "--set", "steps=2", "--set", "width=64"),
    ("run", "--method", "one-shot-rlvr", "--limit", "2", "--set", "rollout_tokens=4"),
    ("run", "--method", "sae-steer", "--limit", "2", "--controls"),
    ("run", "--method", "rlp", "--limit", "2", "--set", "thought_tokens=4", "--set", "positions=4"),
    ("run", "--method", "quiet-star", "--limit", "2", "--set", "thought_tokens=4", "--set", "positions=4"),
    ("run", "--method", "backward-reasoning", "--limit", "2", "--controls", "--set", "answer_tokens=8"),
    ("run", "--method", "dpo-teacher", "--limit", "2", "--set", "answer_tokens=8", "--set", "samples=2"),
    ("run", "--method", "vector-transfer", "--limit", "2"),
    ("run", "--method", "power-sampling", "--limit", "2", "--controls", "--set", "moves=3"),
    ("run", "--method", "power-sampling", "--limit", "2", "--set", "form=rollouts"),
    ("compare", "--methods", "direct,cot-decoding", "--limit", "2", "--seeds", "0,1"),
    ("steer", "--limit", "2", "--layer", "1", "--strength", "0.1", "--random", "1"),
    ("organism", "card", "--limit", "2"),
    ("organism", "make", "--arm", "latent", "--rows", "1", "--steps", "2"),
    ("analyse", "layers", "--limit", "8"),
    ("organism", "taxonomy", "--thoughts", "30", "--resamples", "2"),
    ("sae", "find", "--read", "2", "--task", "chain-sum"),
    ("sae", "feature", "3", "--read", "2", "--task", "chain-sum"),
    ("sae", "card", "--tokens", "500", "--context", "16", "--sources", "chain-sum+samples"),
    ("sae", "dashboard", "--tokens", "500", "--context", "16", "--sources", "samples"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c[:3]))
def test_a_dry_run_says_what_a_command_takes_and_writes_nothing(
    command: tuple[str, ...], tiny_folder: Path, sae: str, here: Path
) -> None:
    model = "--base" if command[1] == "make" else "--model"
    without = ("analyse layers", "organism make", "organism taxonomy", "sae card", "sae dashboard")
    short = () if " ".join(command[:2]) in without else ("--max-new-tokens", "4")
    if command[0] == "sae":
        short += (sae,) if command[1] == "dashboard" else ("--sae", sae)
    code, said, err = shell(*command, model, str(tiny_folder), *short, "--device", "cpu", "--dry-run", "--json")
    assert code == 0, err
    found = json.loads(said)
    assert found.keys() == KEYS and found["seconds"] > 0
    assert not list(here.iterdir())


def test_a_dry_run_counts_every_seed(tiny_folder: Path, here: Path) -> None:
    words = ("run", "--method", "direct", "--against", "none", "--limit", "2", "--max-new-tokens", "4")
    disk = []
    for seeds in ((), ("--seeds", "0,1,2")):
        where = "--model", str(tiny_folder), "--device", "cpu"
        code, said, err = shell(*words, *where, *seeds, "--dry-run", "--json")
        assert (code, err) == (0, "")
        disk.append(json.loads(said)["disk"])
    assert disk[1] == 3 * disk[0] and not list(here.iterdir())


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_random_sae(tmp_path_factory.mktemp("sae") / "random"))


FILES = [
    ("grade", "responses.jsonl"),
    ("report", "run"),
    ("regrade", "run"),
    ("sae", "convert", "ae.safetensors", "--site", "1.resid_post", "--out", "made"),
]


@pytest.fixture(scope="module")
def with_files(tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> Path:
    """A folder with what those commands read."""
    folder = tmp_path_factory.mktemp("files")
    gold = [{"gold": n, "response": f"The answer is {n}."} for n in range(20)]
    (folder / "responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in gold))
    evaluate(bare(tiny), load_task("chain-sum", limit=4).test, out=folder / "run")
    shapes = {"encoder.weight": (8, 4), "encoder.bias": (8,), "decoder.weight": (4, 8), "bias": (4,)}
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, folder / "ae.safetensors")
    return folder


@pytest.mark.parametrize("command", FILES, ids=lambda c: " ".join(c[:2]))
def test_a_dry_run_of_what_reads_files_writes_nothing(
    command: tuple[str, ...], with_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_files)
    before = {str(path): path.stat().st_mtime_ns for path in with_files.rglob("*")}
    code, said, err = shell(*command, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(said).keys() == KEYS
    assert {str(path): path.stat().st_mtime_ns for path in with_files.rglob("*")} == before


@pytest.mark.parametrize("command", [FILES[0], FILES[1], FILES[3]], ids=lambda c: " ".join(c[:2]))
def test_what_reads_files_shows_what_it_does(
    command: tuple[str, ...], with_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(with_files, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    shown: list[str] = []
    monkeypatch.setattr(Lines, "add_task", lambda self, what, *more, **fields: shown.append(what))
    monkeypatch.setattr(Lines, "update", lambda self, task, **fields: None)
    code, _, err = shell(*command)
    assert code == 0, err
    assert shown


PIECES = {"counted", "fetch_bar", "run_bars", "step_bar"}  # of elicit/cli/terminal.py, and what is made of them


def test_each_long_command_shows_its_work_in_the_one_way() -> None:
    for file in Path(cli.__path__[0]).glob("*.py"):
        functions = {f.name: f for f in ast.walk(ast.parse(file.read_text())) if isinstance(f, ast.FunctionDef)}
        named = {name: {n.id for n in ast.walk(one) if isinstance(n, ast.Name)} for name, one in functions.items()}
        for name, one in functions.items():
            if not any(a.arg == "dry_run" for a in one.args.args):
                continue
            reached = {name}
            while more := {f for r in reached for f in named[r] & functions.keys()} - reached:
                reached |= more
            assert PIECES & set().union(*(named[r] for r in reached)), f"{file.name}: {name}"


ENDS_IN_SECONDS = {
    "a list of what there is": "tasks, methods, presets, analyses, models, organism arms, sweep schema",
    "a few forwards": "check-steering, models check",
    "reads each line of a file once": "import, export, organism score, sweep status, sweep plan",
    "as long as the network": "hub push, hub pull",
    "until it is stopped, or as long as its jobs": "serve, sweep work",
    "another command line": "lm-eval",
}


def test_each_command_says_what_it_takes_or_ends_in_seconds() -> None:
    def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
        if name and (not hasattr(group, "commands") or group.invoke_without_command):
            yield name, group
        for word, one in getattr(group, "commands", {}).items():
            yield from commands(one, f"{name} {word}".strip())

    found = dict(commands(typer.main.get_command(app)))
    short = [name for names in ENDS_IN_SECONDS.values() for name in names.split(", ")]
    without = {name for name, one in found.items() if not any("--dry-run" in p.opts for p in one.params)}
    assert sorted(short) == sorted(without)
    assert {"run", "compare", "sae card", "report", "grade"} <= found.keys() - without


def test_work_is_asked_with_the_options_of_its_fit() -> None:
    """What a fit takes is reckoned from options that it has."""
    for name in ("sae-steer", "vector-transfer", "critique-ft", "one-shot-rlvr"):
        assert {"prompt", "max_new_tokens"} <= options_of(name).keys()


def test_a_job_that_counts_is_ended_when_enough_was_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 1.0, 3.0, 6.0])
    monkeypatch.setattr(estimates.time, "perf_counter", lambda: next(now))
    watch = estimates.Watched(as_json=True)
    watch("questions", 0, 10)
    watch("questions", 1, 10)
    with pytest.raises(estimates.typer.Exit):
        watch("questions", 2, 10)
    assert json.loads(capsys.readouterr().out)["seconds"] == pytest.approx(6.0 + 8 * 2.5)
