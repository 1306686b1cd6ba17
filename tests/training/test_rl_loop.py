"""The loop on a tiny model: a toy is learned, the base is left alone, and what was stopped ends at the same bits."""

from __future__ import annotations

import dataclasses
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elicit.decoding import Greedy
from elicit.elicited import Elicited
from elicit.methods.one_shot_rlvr.example_selection import choose
from elicit.models import Model
from elicit.tasks.base import Items
from elicit.training.rl import rollouts
from elicit.training.rl.curve import Point
from elicit.training.rl.log import LOG, read_log
from elicit.training.rl.loop import STATE, Trained, train
from elicit.training.rl.rewards import RewardContext, Rollout
from elicit.training.rl.sampled import SAMPLED
from elicit.training.rl.settings import Settings
from probes.description import reward_bits
from probes.errors import UserError
from probes.files import locked
from probes.sites import decoder
from steering.adapters import Adapter, Weights
from steering.storage import read_tensors
from tests.support.toys import toy_task, vowels

TASK = toy_task()
ONE = TASK.fit[:1]
SMALL = Settings(
    updates=6, rollouts=8, group=4, part=4, per_rollout=1, reward="vowels+0.1*random:0.5", max_new_tokens=6, lr=2e-2,
    rank=2, preflight=8, seed=3,
)  # fmt: skip


def trained(model: Model, folder: Path, settings: Settings = SMALL, items: Items = ONE, **more: Any) -> Trained:
    return train(model, items, settings, folder, rewards={"vowels": vowels}, **more)


def state(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / STATE)


def plain(curve: Sequence[Point]) -> list[Point]:
    return [point._replace(seconds=0.0) for point in curve]


def assert_equal(one: Trained, other: Trained) -> None:
    """To the bit: weights, moments, what is kept of a rollout; the curve, the log, the adapter."""
    first, second = state(one.folder), state(other.folder)
    assert set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)
    assert plain(one.curve) == plain(other.curve)
    assert (one.folder / LOG).read_bytes() == (other.folder / LOG).read_bytes()
    if one.adapter is not None and other.adapter is not None:
        assert one.adapter.sha256 == other.adapter.sha256


def test_a_toy_is_learned_and_the_base_is_left_alone(tiny: Model, tmp_path: Path) -> None:
    before = {name: p.detach().clone() for name, p in tiny.lm.named_parameters()}
    wanted = {name: p.requires_grad for name, p in tiny.lm.named_parameters()}
    attention = tiny.lm.config._attn_implementation
    shapes = set()
    hook = decoder(tiny.lm).register_forward_pre_hook(
        lambda _, __, kwargs: shapes.add(tuple(kwargs["input_ids"].shape)) if torch.is_grad_enabled() else None,
        with_kwargs=True,
    )
    settings = dataclasses.replace(SMALL, updates=20, rollouts=16, group=8, part=8, reward="vowels", check_every=10)
    seen: list[int] = []
    made = trained(tiny, tmp_path, settings, held_out=TASK.dev, on_step=lambda curve: seen.append(len(curve)))
    hook.remove()
    assert len(shapes) == 2  # the prompt and a part of the completions, in every update

    rewards = [p.reward for p in made.curve]
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.2
    assert seen == list(range(1, 21)) and [p.held_out is not None for p in made.curve] == [
        n in (9, 19) for n in range(20)
    ]
    assert all(p.low == p.high == 1.0 and p.clipped == 0 for p in made.curve)  # on-policy: not nearly, exactly
    assert all(p.sampler < 1e-4 for p in made.curve)
    assert made.curve[0].kl < 1e-6 < 1e-3 < made.curve[-1].kl

    assert {n: p.requires_grad for n, p in tiny.lm.named_parameters()} == wanted
    assert all(torch.equal(p, before[name]) for name, p in tiny.lm.named_parameters())
    assert tiny.lm.config._attn_implementation == attention and not hasattr(tiny.lm, "peft_config")
    assert made.adapter is not None
    texts = []
    for adapter in (None, made.adapter):
        handle = Elicited(tiny, "x", decoder=Greedy(6), adapter=adapter)
        texts.append(handle.answer(ONE)[0][0].text)
    assert sum(c in "aeiou0123456789" for c in texts[1]) > sum(c in "aeiou0123456789" for c in texts[0])


def test_the_log_has_a_line_a_rollout(tiny: Model, tmp_path: Path) -> None:
    made = trained(tiny, tmp_path, dataclasses.replace(SMALL, per_rollout=3))
    lines = list(read_log(tmp_path))
    assert [line["update"] for line in lines] == [2] * 8 + [5] * 8
    assert [line["sample"] for line in lines] == list(range(16))
    for line in lines:
        assert set(line["parts"]) == {"vowels", "random:0.5"} and len(line["tokens"]) <= 6
        assert line["ratio"][0] <= line["ratio"][1] <= line["ratio"][2] and line["ratio"] != [1.0, 1.0, 1.0]
    for start in range(0, 16, 4):
        assert abs(sum(line["advantage"] for line in lines[start : start + 4])) < 1e-5
    # new ratios only after a rollout's first update
    assert [p.low == p.high == 1.0 for p in made.curve] == [True, False, False] * 2
    assert made.curve[1].reward == made.curve[0].reward != made.curve[3].reward
    # a reward tells its bits once, however many updates use it
    rollouts = [lines[start : start + 8] for start in (0, 8)]
    told = [reward_bits([[line["reward"] for line in some[n : n + 4]] for n in (0, 4)]) for some in rollouts]
    assert [p.bits for p in made.curve] == pytest.approx([told[0], 0, 0, told[1], 0, 0]) and min(told) > 0


@pytest.mark.parametrize(("per_rollout", "rank", "stopped"), [(1, 2, 3), (3, 2, 2), (3, 2, 4), (2, 0, 3)])
def test_an_interrupted_training_ends_at_the_bits_of_one_that_was_not(
    tiny: Model, tmp_path: Path, per_rollout: int, rank: int, stopped: int
) -> None:
    settings = dataclasses.replace(SMALL, per_rollout=per_rollout, rank=rank, lr=2e-2 if rank else 1e-3)
    whole = trained(tiny, tmp_path / "whole", settings)

    def stop(curve: Sequence[Point]) -> None:
        if len(curve) == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tiny, tmp_path / "cut", settings, on_step=stop)
    with (tmp_path / "cut" / LOG).open("a") as log:
        log.write('{"update": 99, "of": "an update that was not finish')
    assert_equal(trained(tiny, tmp_path / "cut", settings), whole)
    assert isinstance(whole.adapter, Adapter if rank else Weights)
    if not rank:
        assert (tmp_path / "whole" / "model" / "model.safetensors").is_file()


def test_a_stopped_update_goes_on_with_the_rollouts_that_were_sampled(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SMALL, updates=2, rollout_rows=2)
    calls: list[int] = []
    last = [0]
    respond = rollouts.respond

    def stops(*given: Any, **more: Any) -> Any:
        if len(calls) == last[0]:
            raise KeyboardInterrupt
        calls.append(1)
        return respond(*given, **more)

    monkeypatch.setattr(rollouts, "respond", stops)
    last[0] = -1
    whole = trained(tiny, tmp_path / "whole", settings)
    needed = len(calls)  # the pre-flight's four, and four of each update
    calls.clear()
    last[0] = 7
    with pytest.raises(KeyboardInterrupt):
        trained(tiny, tmp_path / "cut", settings)
    sampled = tmp_path / "cut" / SAMPLED
    assert len(sampled.read_bytes().splitlines()) == 3
    with sampled.open("ab") as file:
        file.write(b'{"a line that was not finish')
    calls.clear()
    last[0] = -1
    assert_equal(trained(tiny, tmp_path / "cut", settings), whole)
    assert len(calls) == needed - 3 and not sampled.exists()


def test_a_failure_in_the_middle_of_an_update_loses_nothing(tiny: Model, tmp_path: Path) -> None:
    whole = trained(tiny, tmp_path / "whole")
    calls = []

    def fails(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        calls.append(1)
        if len(calls) == 5:  # the pre-flight and three rollouts went well
            raise OSError("the judge is gone")
        return vowels(rollouts, context)

    with pytest.raises(UserError, match=r"reward 'vowels' failed on fit-0 \(OSError: the judge is gone\)"):
        train(tiny, ONE, SMALL, tmp_path / "cut", rewards={"vowels": fails})
    assert not hasattr(tiny.lm, "peft_config")
    assert_equal(trained(tiny, tmp_path / "cut"), whole)


KILLED = """
import os, signal, sys, time
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)
from elicit.models import load_model
from tests.training.test_rl_loop import SMALL, assert_equal, trained
import dataclasses
model = load_model(sys.argv[1], dtype="float32", device="cpu")
folder, settings = Path(sys.argv[2]), dataclasses.replace(SMALL, updates=12, per_rollout=2)
rng = np.random.default_rng(0)
state = folder / "cut" / "rl.safetensors"
def age():
    return state.stat().st_mtime_ns if state.exists() else 0
kills = 0
for n in range(4):
    child = os.fork()
    if child == 0:
        trained(model, folder / "cut", settings)
        os._exit(0)
    before, wait = age(), int(rng.integers(1, 3))
    while wait and os.waitpid(child, os.WNOHANG)[0] == 0:
        if age() != before:
            before, wait = age(), wait - 1
        time.sleep(0.001)
    time.sleep(float(rng.random()) * 0.05)
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
    except (ProcessLookupError, ChildProcessError):
        pass
made = trained(model, folder / "cut", settings)
whole = trained(model, folder / "whole", settings)
assert_equal(made, whole)
print("killed", kills)
"""


def test_killed_again_and_again_it_ends_at_the_same_bits(tiny_folder: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", KILLED, str(tiny_folder), str(tmp_path)], capture_output=True, text=True, timeout=1500,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    assert int(found.stdout.split()[-1]) >= 2


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """Files cannot grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_without_room_the_last_state_stays(tiny: Model, tmp_path: Path) -> None:
    whole = trained(tiny, tmp_path / "whole")

    def stop(curve: Sequence[Point]) -> None:
        if len(curve) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tiny, tmp_path / "cut", on_step=stop)
    kept = (tmp_path / "cut" / STATE).read_bytes()
    for size in (len(kept) // 2, (tmp_path / "cut" / LOG).stat().st_size + 10):  # no room for the state, for the log
        with no_room(size), pytest.raises(UserError, match=r"cannot be written .* make room and run the same") as told:
            trained(tiny, tmp_path / "cut")
        assert "\n" not in str(told.value)
        assert (tmp_path / "cut" / STATE).read_bytes() == kept
        assert not [p for p in (tmp_path / "cut").iterdir() if p.name.endswith(".part")]
    assert_equal(trained(tiny, tmp_path / "cut"), whole)


def test_what_is_refused(tiny: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no example to train on"):
        trained(tiny, tmp_path, items=Items(TASK, ()))
    without = Items(TASK, (dataclasses.replace(ONE[0], answer=None),))
    with pytest.raises(UserError, match="fit-0 has no answer"):
        trained(tiny, tmp_path, items=without)
    with pytest.raises(UserError, match="could be read in none of 8 answers"):
        trained(tiny, tmp_path, dataclasses.replace(SMALL, reward="boxed"))
    with pytest.raises(UserError, match=r"is 0\.00 in every group"):
        trained(tiny, tmp_path, dataclasses.replace(SMALL, reward="format:boxed"))
    assert not (tmp_path / STATE).exists()
    trained(tiny, tmp_path, dataclasses.replace(SMALL, updates=1))
    with pytest.raises(UserError, match="holds a training with another items, lr;"):
        trained(tiny, tmp_path, dataclasses.replace(SMALL, updates=1, lr=1e-2), TASK.fit[1:2])
    with locked(tmp_path, "training in"), pytest.raises(UserError, match="another process is training"):
        trained(tiny, tmp_path)
    (tmp_path / LOG).write_text("")
    with pytest.raises(UserError, match="has 0 bytes and its training wrote"):
        trained(tiny, tmp_path, dataclasses.replace(SMALL, updates=1))


def test_a_run_without_a_signal_stays_the_base(tiny: Model, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, updates=2, reward="format:boxed", kl=0.0, entropy=0.0)
    made = trained(tiny, tmp_path, settings, checked=False)
    assert all(p.norm == 0 and p.mixed == 0 for p in made.curve)
    low = [t for name, t in state(tmp_path).items() if name.startswith("weight/") and "lora_B" in name]
    assert low and all(t.abs().max() == 0 for t in low)


def test_the_entropy_bonus_alone_raises_entropy(tiny: Model, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, updates=12, reward="none", kl=0.0, entropy=0.5)
    curve = trained(tiny, tmp_path, settings).curve
    assert curve[-1].entropy > curve[0].entropy + 0.1


def test_kl_to_the_base_is_a_penalty(tiny: Model, tmp_path: Path) -> None:
    curves = [trained(tiny, tmp_path / str(kl), dataclasses.replace(SMALL, kl=kl)).curve for kl in (1e-4, 3.0)]
    free, held = (curve[-1].kl for curve in curves)
    assert 0 < held < free / 2


def test_several_examples_and_their_order(tiny: Model, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, updates=3)
    trained(tiny, tmp_path / "two", settings, TASK.fit[:2])
    lines = list(read_log(tmp_path / "two"))
    assert [line["item"] for line in lines[:8]] == ["fit-0"] * 4 + ["fit-1"] * 4
    trained(tiny, tmp_path / "four", settings, TASK.fit)
    lines = list(read_log(tmp_path / "four"))
    assert [line["item"] for line in lines[::4]] == ["fit-0", "fit-1", "fit-2", "fit-3", "fit-0", "fit-1"]


def test_examples_are_chosen(tiny: Model, tmp_path: Path) -> None:
    for how in ("working", "samples", "history", "first"):
        found = choose(tiny, TASK.fit, SMALL, how=how, count=2, pool=3, epochs=2, folder=tmp_path / how)
        assert len(found.items) == 2 and len(found.rows) == 3
        assert [row["score"] for row in found.rows] == sorted((row["score"] for row in found.rows), reverse=True)
    assert [item.id for item in found.items] == ["fit-0", "fit-1"]
    with pytest.raises(UserError, match="unknown way to select"):
        choose(tiny, TASK.fit, SMALL, how="best")
    with pytest.raises(UserError, match="9 examples were asked for and 'toy' has 4"):
        choose(tiny, TASK.fit, SMALL, count=9)


def test_the_state_is_json_beside_tensors(tiny: Model, tmp_path: Path) -> None:
    made = trained(tiny, tmp_path, dataclasses.replace(SMALL, updates=2))
    from safetensors import safe_open

    with safe_open(tmp_path / STATE, "pt") as opened:
        wanted, about = json.loads(opened.metadata()["state"])
    assert wanted["recipe"]["lr"] == 2e-2 and len(about["curve"]) == 2
    assert about["preflight"] == made.preflight.to_dict()
