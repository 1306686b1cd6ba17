"""Trainings on TRL: the same samples, log and weights as our loop's, the mapping of settings, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from elicit.decoding import Greedy
from elicit.elicited import Elicited
from elicit.methods import critique_ft, fit, one_shot_rlvr
from elicit.models import Model, Prompt
from elicit.tasks import load_task
from elicit.tasks.base import Items
from elicit.training import trl_common
from elicit.training.rl import loop
from elicit.training.rl import trl_grpo as rl
from elicit.training.rl.log import read_log
from elicit.training.rl.loop import Trained
from elicit.training.rl.rewards import parse
from elicit.training.rl.settings import Settings
from elicit.training.rl.trl_rollouts import Bridge
from probes.errors import UserError
from tests.support.thinkers import thinker
from tests.support.toys import toy_task, vowels

pytest.importorskip("trl", reason=f"TRL is not installed; {trl_common.INSTALL}")

TASK = toy_task()
SMALL = Settings(
    updates=4, rollouts=8, group=4, part=4, reward="vowels+0.1*random:0.5", max_new_tokens=6, lr=2e-2, rank=2,
    preflight=8, seed=3, entropy=0.0, advantage="dr-grpo",
)  # fmt: skip


def trained(engine: Any, model: Model, folder: Path, settings: Settings, items: Items, **more: Any) -> Trained:
    found = engine.train(model, items, settings, folder, rewards={"vowels": vowels}, **more)
    assert isinstance(found, Trained)
    return found


@pytest.mark.parametrize(("changed", "count"), [
    ({"kl": 0.05, "check_every": 2}, 1),
    ({"advantage": "rloo", "per_rollout": 2, "clip_high": 0.28, "aggregate": "constant", "grad_clip": 0.1}, 2),
    ({"aggregate": "sequence-mean", "temperature": 0.7, "kl": 0.0}, 4),
])  # fmt: skip
def test_a_training_is_the_same_by_both_engines(
    tiny: Model, tmp_path: Path, changed: dict[str, Any], count: int
) -> None:
    settings = dataclasses.replace(SMALL, **changed)
    held = TASK.dev if settings.check_every else None
    modules = dict(tiny.lm.named_modules())
    mine, theirs = (
        trained(engine, tiny, tmp_path / name, settings, TASK.fit[:count], held_out=held)
        for name, engine in (("ours", loop), ("trl", rl))
    )
    assert dict(tiny.lm.named_modules()) == modules and not tiny.lm.training

    keys = ("item", "sample", "tokens", "text", "answer", "finish", "reward", "parts", "read")
    logs = [[{k: row[k] for k in keys} for row in read_log(one.folder)] for one in (mine, theirs)]
    assert logs[0] == logs[1] and len(logs[0]) == 8 * 4 // settings.per_rollout
    assert mine.preflight == theirs.preflight
    for ours, other in zip(mine.curve, theirs.curve, strict=True):
        for name in ("reward", "accuracy", "mixed", "constant", "tokens", "held_out", "bits"):
            assert getattr(ours, name) == getattr(other, name), name
        for name in ("loss", "norm", "entropy", "kl", "clipped"):
            assert getattr(ours, name) == pytest.approx(getattr(other, name), rel=2e-2, abs=2e-3), name
        assert other.sampler is other.low is other.high is None
    assert mine.adapter is not None and theirs.adapter is not None
    configs = [json.loads((one.adapter.folder / "adapter_config.json").read_text()) for one in (mine, theirs)]
    assert configs[0] == configs[1]
    first, second = (load_file(one.adapter.folder / "adapter_model.safetensors") for one in (mine, theirs))
    assert set(first) == set(second)
    moved = max(float(t.abs().max()) for name, t in first.items() if "lora_B" in name)
    assert moved > 0.02
    for name in first:  # Adam divides by a gradient's own size: rounding shows where a gradient is nearly nothing
        apart = (first[name] - second[name]).abs()
        assert float((apart < 0.02 * moved).float().mean()) > 0.97, name
    answers = [
        Elicited(tiny, "x", decoder=Greedy(6), adapter=one.adapter).answer(TASK.test)[0][0].tokens
        for one in (mine, theirs)
    ]
    assert answers[0] == answers[1]


def test_a_tokenizer_needs_no_token_for_padding_and_none_for_the_end(tiny: Model, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token = None
    settings = dataclasses.replace(SMALL, updates=2)
    bare = dataclasses.replace(tiny, tokenizer=tokenizer)
    mine, theirs = (trained(e, bare, tmp_path / name, settings, TASK.fit[:1]) for name, e in (("o", loop), ("t", rl)))
    assert [row["tokens"] for row in read_log(mine.folder)] == [row["tokens"] for row in read_log(theirs.folder)]
    assert [p.norm for p in mine.curve] == pytest.approx([p.norm for p in theirs.curve], rel=2e-2)
    assert tokenizer.pad_token is None


def ended_by_budget(model: Model, tokens: list[int], budget: int) -> list[int]:
    """Places of marks that end a thought, of one token each, which the model did not choose."""
    begin, end = model.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    within, spent, found = True, 0, []
    for place, token in enumerate(tokens):
        if within and spent == budget:
            assert token == end
            found.append(place)
        spent += within and spent < budget
        within = token == begin if token in (begin, end) else within
    return found


def test_a_budget_of_thought_ends_the_thoughts_of_both_and_is_not_learnt(tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, updates=2, reward="random:0.5", max_new_tokens=16, advantage="rloo")
    prompt, model = Prompt("chat", thought_tokens=4), thinker("deepseek-r1")
    texts, norms = [], []
    for name, engine in (("ours", loop), ("trl", rl)):
        done = engine.train(model, TASK.fit[:1], settings, tmp_path / name, prompt=prompt, checked=False)
        assert isinstance(done, Trained)
        rows = list(read_log(done.folder))
        texts.append([row["text"] for row in rows])
        norms.append([point.norm for point in done.curve])
        by_budget = [ended_by_budget(model, row["tokens"], 4) for row in rows]
        assert [row.get("written", []) for row in rows] == by_budget and any(by_budget)
    assert texts[0] == texts[1]
    assert norms[0] == pytest.approx(norms[1], rel=2e-2)


def test_what_is_finished_is_read_and_not_mixed(tiny: Model, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, updates=1)
    made = trained(rl, tiny, tmp_path, settings, TASK.fit[:1])
    told: list[int] = []
    again = trained(rl, tiny, tmp_path, settings, TASK.fit[:1], on_step=lambda curve: told.append(len(curve)))
    assert not told and again.curve == made.curve and again.preflight == made.preflight
    with pytest.raises(UserError, match=r"holds a training with another trl; give another folder"):
        trained(rl, tiny, tmp_path, settings, TASK.fit[:1], given={"top_entropy_quantile": 0.5})


def config(model: Model, folder: Path, settings: Settings, given: dict[str, Any]) -> Any:
    from trl import GRPOConfig

    return trl_common.arguments(GRPOConfig, rl.options(settings, given), given, model, settings.recipe, folder)


def test_how_settings_become_those_of_trl(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        updates=30, rollouts=32, group=8, per_rollout=4, part=8, advantage="rloo", aggregate="constant", clip_low=0.1,
        clip_high=0.3, kl=0.02, entropy=0.01, lr=3e-4, grad_clip=0.5, seed=11, temperature=0.6, max_new_tokens=48,
    )  # fmt: skip
    args = config(tiny, tmp_path, settings, {})
    assert (args.max_steps, args.generation_batch_size, args.num_generations, args.num_iterations) == (30, 32, 8, 4)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps, args.steps_per_generation) == (8, 4, 4)
    assert (args.epsilon, args.epsilon_high, args.beta, args.entropy_coef) == (0.1, 0.3, 0.02, 0.01)
    assert (args.scale_rewards, args.reward_weights, args.loss_type) == ("none", [8 / 7], "dr_grpo")
    assert not args.use_bias_correction_kl and not args.shuffle_dataset and args.use_cpu and not args.bf16
    assert (args.learning_rate, args.max_grad_norm, args.seed, args.temperature) == (3e-4, 0.5, 11, 0.6)
    assert (args.adam_beta1, args.adam_beta2, args.weight_decay, args.save_strategy) == (0.9, 0.99, 0.0, "no")
    for aggregate, name in (("token-mean", "dapo"), ("sequence-mean", "grpo")):
        made = config(tiny, tmp_path, dataclasses.replace(settings, aggregate=aggregate, advantage="grpo"), {})
        assert (made.loss_type, made.scale_rewards, made.reward_weights) == (name, "group", [1.0])

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert rl.options(settings, {})["gradient_accumulation_steps"] == 2
    assert rl.options(settings, {trl_common.PART: 4})["gradient_accumulation_steps"] == 4
    for broken in ({trl_common.PART: 5}, {trl_common.PART: 0}, {trl_common.PART: 32}):
        with pytest.raises(UserError, match=r"32 rows a step are shared by 2 processes, \d+ a forward; give numbers"):
            rl.options(settings, broken)


def test_what_trl_offers_is_passed_on(tiny: Model, tmp_path: Path) -> None:
    given = {"use_vllm": True, "vllm_mode": "server", "activation_checkpointing": True, trl_common.PART: 2}
    args = config(tiny, tmp_path, SMALL, given)
    assert args.use_vllm and args.vllm_mode == "server" and args.gradient_checkpointing
    assert args.per_device_train_batch_size == 2 and args.gradient_accumulation_steps == 4
    assert config(tiny, tmp_path, SMALL, {"gradient_checkpointing": False}).gradient_checkpointing is False


@pytest.mark.parametrize(("given", "words"), [
    ({"use_vlm": True}, "unknown option of TRL's GRPOConfig 'use_vlm'; did you mean use_vllm"),
    ({"learning_rate": 1e-3}, "'learning_rate' was given and is decided here"),
    ({"beta": 0.1}, "'beta' was given and is decided here"),
    ({"resume_from_checkpoint": "x"}, "decided here"),
    ({"auto_find_batch_size": True}, r"TRL refuses .*\(auto_find_batch_size is not supported"),
])  # fmt: skip
def test_options_that_are_refused(tiny: Model, tmp_path: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as told:
        config(tiny, tmp_path, SMALL, given)
    assert "\n" not in str(told.value)


def test_engines_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown trainer 'tlr'; did you mean trl"):
        trl_common.check("tlr", {})
    with pytest.raises(UserError, match="give trainer=trl"):
        trl_common.check("own", {"use_vllm": True})
    with monkeypatch.context() as patched:
        patched.setenv("WORLD_SIZE", "2")
        with pytest.raises(UserError, match=r"2 processes were launched and trainer is own"):
            trl_common.check("own", {})
        trl_common.check("trl", {})
    with monkeypatch.context() as patched:  # as `accelerate launch --cpu --num_processes 2` leaves it
        patched.setenv("ACCELERATE_USE_CPU", "True")
        patched.setenv("MASTER_PORT", "29500")
        with pytest.raises(UserError, match="give --multi_gpu instead"):
            trl_common.check("trl", {})
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    with pytest.raises(UserError, match=r"TRL is not installed .*pip install 'elicit\[train\]'"):
        trl_common.check("trl", {})


def test_a_data_set_smaller_than_a_step_is_not_taken_for_a_training(tiny: Model, tmp_path: Path) -> None:
    bridge = Bridge(tiny, TASK.fit[:1], SMALL, Prompt(), parse("length"), {})
    assert len(bridge.rows()) == SMALL.updates * SMALL.groups  # one example, copied
    made, _ = rl.trainer(tiny, bridge, tmp_path, {})
    made.train_dataset = made.train_dataset.select([0])
    with pytest.raises(UserError, match="TRL trained 0 of 4 steps"):
        trl_common.run(made, SMALL.updates)


def test_where_trl_generates(tiny: Model, tmp_path: Path) -> None:
    chat = dataclasses.replace(tiny, tokenizer=__import__("copy").deepcopy(tiny.tokenizer))
    chat.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    settings = dataclasses.replace(SMALL, updates=2, reward="length", per_rollout=2)
    bridge = Bridge(chat, TASK.fit[:2], settings, Prompt("chat"), parse("length"), {}, own=False)
    assert bridge.rows()[0]["prompt"] == [{"role": "user", "content": TASK.fit[0].question}]
    made, _ = rl.trainer(chat, bridge, tmp_path, {})
    trl_common.run(made, 2)
    assert bridge.tokens > 0 and math.isfinite(bridge.facts["reward"])

    qa = Bridge(tiny, TASK.fit[:1], SMALL, Prompt(), parse("length"), {}, own=False)
    with pytest.raises(UserError, match="no stop strings"):
        rl.trainer(tiny, qa, tmp_path, {})
    thoughtful = Bridge(chat, TASK.fit[:1], SMALL, Prompt("chat", thought_tokens=4), parse("length"), {}, own=False)
    with pytest.raises(UserError, match="ends no thoughts"):
        rl.trainer(chat, thoughtful, tmp_path, {})
    other = Bridge(chat, TASK.fit[:1], SMALL, Prompt("chat", begin="Well"), parse("length"), {}, own=False)
    with pytest.raises(UserError, match="would read the prompt of fit-0 as other tokens"):
        rl.trainer(chat, other, tmp_path, {})


def test_sharded_weights(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert trl_common.sharded({}) and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="weights are sharded; give 0"):
        trained(rl, tiny, tmp_path, dataclasses.replace(SMALL, check_every=1), TASK.fit[:1], held_out=TASK.dev)


def test_both_methods_take_the_engine(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = toy_task(6)
    options: dict[str, Any] = {
        "reward": "exact+random:0.5", "updates": 2, "rollouts": 8, "group": 4, "rollout_tokens": 6, "rank": 2,
        "pool": 3, "max_new_tokens": 6, "trainer": "trl", "trl": {"top_entropy_quantile": 0.9},
    }  # fmt: skip
    handle = one_shot_rlvr.fit(tiny, task.solved, **options)
    assert handle.adapter is not None and handle.options["asked"]["engine"] == "trl"
    assert not any("sampler" in line for line in one_shot_rlvr.notes(handle.options))
    assert one_shot_rlvr.fit(tiny, task.solved, **options).adapter.sha256 == handle.adapter.sha256  # type: ignore[union-attr]
    with pytest.raises(UserError, match="unknown trainer"):
        one_shot_rlvr.fit(tiny, task.solved, trainer="them")
    with pytest.raises(UserError, match="unknown trainer"):
        fit("one-shot-rlvr", tiny, task.solved, engine="them")  # the older word

    organism = load_task("organism", limit=4)
    small = {"candidates": 4, "steps": 2, "rows": 1, "width": 700, "max_new_tokens": 8, "rank": 2, "lr": 0.01}
    both = [critique_ft.fit(tiny, organism.solved, **small, trainer=trainer) for trainer in ("own", "trl")]
    curves = [one.options["found"]["curve"] for one in both]
    assert curves[0] == pytest.approx(curves[1], abs=2e-3)
    first, second = (load_file(one.adapter.folder / "adapter_model.safetensors") for one in both if one.adapter)
    assert all(torch.allclose(first[k].float(), second[k].float(), atol=2e-3) for k in first)
    with pytest.raises(UserError, match="unknown trainer"):
        critique_ft.fit(tiny, organism.solved, trainer="them")
