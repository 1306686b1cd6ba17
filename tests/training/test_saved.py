"""Trainings of all weights, and what is saved in between: as handles, in bundles and runs, by both trainers."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from elicit import evaluate, load_model
from elicit.decoding import Greedy
from elicit.elicited import Elicited
from elicit.evaluation.run.arms import handle_of
from elicit.methods import critique_ft, one_shot_rlvr
from elicit.models import Model, Prompt
from elicit.tasks import load_task
from elicit.training import trl_common
from elicit.training.recipe import Recipe
from elicit.training.rl import loop, policy
from elicit.training.rl.log import read_log
from elicit.training.rl.loop import Trained
from elicit.training.rl.settings import Settings
from elicit.training.saved import save_trained, saved_steps
from probes.batching import left_pad
from probes.errors import UserError
from steering.adapters import Adapter, Weights, applied
from tests.support.tiny import ARCHITECTURES, save_tiny
from tests.support.toys import toy_task, vowels

TASK = toy_task()
SMALL = Settings(
    updates=4, rollouts=8, group=4, part=4, reward="vowels+0.1*random:0.5", max_new_tokens=6, lr=2e-2, rank=2,
    preflight=8, seed=3, entropy=0.0, advantage="dr-grpo",
)  # fmt: skip
WHOLE = dataclasses.replace(SMALL, rank=0, lr=1e-3, kl=0.05)


def trained(engine: Any, model: Model, folder: Path, settings: Settings, **more: Any) -> Trained:
    found = engine.train(model, TASK.fit[:1], settings, folder, rewards={"vowels": vowels}, **more)
    assert isinstance(found, Trained)
    return found


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model.lm(torch.arange(5, 25)[None]).logits)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"bloom"}))
def test_other_weights_are_on_inside_the_context_and_gone_after_it(architecture: str, tmp_path: Path) -> None:
    model = load_model(str(save_tiny(tmp_path / "base", architecture)), dtype="float32", device="cpu")
    modules, before = dict(model.lm.named_modules()), logits(model)
    lm = copy.deepcopy(model.lm)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    weights = save_trained(lm, model.tokenizer, Recipe(rank=0), tmp_path, "base")
    assert isinstance(weights, Weights)
    alone = load_model(str(weights.folder), dtype="float32", device="cpu")
    assert weights.sha256 == alone.provenance.sha256
    with applied(model.lm, weights):
        assert torch.equal(logits(model), logits(alone)) and not torch.equal(logits(model), before)
        with pytest.raises(UserError, match="on already"), applied(model.lm, weights):
            pass
    assert torch.equal(logits(model), before) and dict(model.lm.named_modules()) == modules


def test_weights_of_another_model_are_refused(tiny: Model, tmp_path: Path) -> None:
    other = load_model(str(save_tiny(tmp_path / "other", "gpt_neox")), dtype="float32", device="cpu")
    weights = save_trained(other.lm, other.tokenizer, Recipe(rank=0), tmp_path, "other")
    assert isinstance(weights, Weights)
    with pytest.raises(UserError, match=r"do not fit|of another model"), applied(tiny.lm, weights):
        pass
    (weights.folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"holds no config\.json"):
        Weights(weights.folder)


def test_a_training_of_all_weights_is_a_handle(tiny: Model, tmp_path: Path) -> None:
    made = trained(loop, tiny, tmp_path / "fit", WHOLE)
    assert isinstance(made.adapter, Weights) and made.adapter.folder == tmp_path / "fit" / "model"
    handle = Elicited(tiny, "trained", decoder=Greedy(6), adapter=made.adapter)
    alone = load_model(str(made.adapter.folder), dtype="float32", device="cpu")
    said = [trace.tokens for (trace,) in handle.answer(TASK.test)]
    assert said == [trace.tokens for (trace,) in Elicited(alone, "x", decoder=Greedy(6)).answer(TASK.test)]

    handle.save(tmp_path / "bundle")
    loaded = Elicited.load(tmp_path / "bundle", tiny)
    assert isinstance(loaded.adapter, Weights) and loaded.adapter.sha256 == made.adapter.sha256
    assert [trace.tokens for (trace,) in loaded.answer(TASK.test)] == said
    other = trained(loop, tiny, tmp_path / "more", dataclasses.replace(WHOLE, updates=5))
    assert handle.decode_key != dataclasses.replace(handle, adapter=other.adapter).decode_key
    (tmp_path / "bundle" / "model" / "model.safetensors").write_bytes(
        (other.adapter.folder / "model.safetensors").read_bytes()
    )
    with pytest.raises(UserError, match=r"the model in .* is not the one that elicited.json names"):
        Elicited.load(tmp_path / "bundle", tiny)


def test_a_killed_training_of_all_weights_ends_at_the_same_weights(tiny: Model, tmp_path: Path) -> None:
    settings = dataclasses.replace(WHOLE, state_every=2, save_every=2)
    whole = trained(loop, tiny, tmp_path / "whole", settings)

    class Killed(Exception):
        pass

    def kill(curve: Any) -> None:
        if len(curve) == 3:
            raise Killed

    with pytest.raises(Killed):
        trained(loop, tiny, tmp_path / "cut", settings, on_step=kill)
    again = trained(loop, tiny, tmp_path / "cut", settings)
    assert again.adapter.sha256 == whole.adapter.sha256
    assert list(read_log(again.folder)) == list(read_log(whole.folder))
    for step in ("000002", "000004"):
        first, second = (Weights(one.folder / "steps" / step / "model") for one in (whole, again))
        assert first.sha256 == second.sha256
    assert second.sha256 == whole.adapter.sha256


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen2", "gpt_neox"])
def test_layers_that_are_computed_again_give_the_same_gradients(architecture: str, tmp_path: Path) -> None:
    model = load_model(str(save_tiny(tmp_path / "base", architecture)), dtype="float32", device="cpu")
    lm = model.lm
    lm.requires_grad_(True)
    prompts = left_pad([[5, 6, 7, 8], [9, 10]], lm.device)
    batch = policy.Batch.of(prompts, [0, 0, 1, 1], [[11, 12, 13, 0], [14], [15, 16], [17, 18, 19]], 6)
    found = []
    for checkpointing in (False, True):
        lm.zero_grad()
        prefix = policy.prefix_of(lm, prompts)
        leaves = prefix.leaves()
        hidden = policy.hidden_states(lm, leaves, batch, checkpointing=checkpointing)
        hidden.pow(2).sum().backward()
        prefix.backward(leaves)
        found.append({name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None})
    lm.requires_grad_(False)
    assert found[0].keys() == found[1].keys() and len(found[0]) > 10
    assert all(torch.equal(grad, found[1][name]) for name, grad in found[0].items())
    assert all("forward" not in vars(module) for module in lm.modules())


def test_what_memory_is_saved_by_changes_no_sample(tiny: Model, tmp_path: Path) -> None:
    plain = trained(loop, tiny, tmp_path / "plain", SMALL)
    small = dataclasses.replace(SMALL, rollout_rows=3, checkpointing=True)
    saving = trained(loop, tiny, tmp_path / "saving", small)
    logs = [[(r["item"], r["sample"], r["tokens"]) for r in read_log(one.folder)] for one in (plain, saving)]
    assert logs[0] == logs[1]
    assert "rollout_rows" not in SMALL.kept() and small.kept()["rollout_rows"] == 3
    assert Settings(**SMALL.kept()) == SMALL
    assert [p.loss for p in plain.curve] == pytest.approx([p.loss for p in saving.curve], abs=1e-5)


OPTIONS: dict[str, Any] = {
    "reward": "exact+random:0.5", "updates": 2, "rollouts": 8, "group": 4, "rollout_tokens": 6, "rank": 0, "lr": 1e-3,
    "pool": 3, "max_new_tokens": 6, "save_every": 1,
}  # fmt: skip


def test_one_shot_rlvr_trains_all_weights_beside_its_controls(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = toy_task(6)
    handle = one_shot_rlvr.fit(tiny, task.solved, **OPTIONS)
    others = one_shot_rlvr.controls(handle, task.solved)
    arms = {name: others[name] for name in ("direct", *one_shot_rlvr.SPURIOUS)}
    assert all(isinstance(arms[name].adapter, Weights) for name in one_shot_rlvr.SPURIOUS)
    run = evaluate(handle, task.test, against=arms)
    assert run.store.config["arms"]["one-shot-rlvr"]["weights"] == handle.adapter.sha256  # type: ignore[union-attr]
    loaded = handle_of(run, tiny)
    assert loaded.adapter is not None and loaded.adapter.sha256 == handle.adapter.sha256  # type: ignore[union-attr]
    said = {name: [t.tokens for (t,) in run.traces[run.store.config["arms"][name]["source"]].values()] for name in arms}
    assert said["direct"] == [t.tokens for (t,) in others["direct"].answer(task.test)]
    again = evaluate(handle, task.test, against=arms, fresh=True)  # `--fresh` knows the files of the bundle
    assert again.folder == run.folder
    steps = saved_steps(loaded)
    assert list(steps) == [1, 2]
    assert steps[2].adapter.sha256 == handle.adapter.sha256 != steps[1].adapter.sha256  # type: ignore[union-attr]


def test_critique_ft_trains_all_weights(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    organism = load_task("organism", limit=4)
    before = {name: value.clone() for name, value in tiny.lm.state_dict().items()}
    small = {"candidates": 4, "steps": 2, "rows": 1, "width": 700, "max_new_tokens": 8, "rank": 0, "lr": 1e-3}
    handle = critique_ft.fit(tiny, organism.solved, **small, save_every=1)
    assert isinstance(handle.adapter, Weights) and "All weights, 2 steps" in critique_ft.notes(handle.options)[1]
    assert all(torch.equal(value, before[name]) for name, value in tiny.lm.state_dict().items())
    steps = saved_steps(handle)
    assert list(steps) == [1, 2] and steps[2].adapter.sha256 == handle.adapter.sha256  # type: ignore[union-attr]
    lora = critique_ft.fit(tiny, organism.solved, **{**small, "rank": 2}, save_every=2)
    assert isinstance(saved_steps(lora)[2].adapter, Adapter)
    with pytest.raises(UserError, match="nothing was saved in the middle of the training of critique-ft"):
        saved_steps(critique_ft.fit(tiny, organism.solved, **{**small, "rank": 2}))
    control = critique_ft.fit(tiny, organism.solved, **small, targets="unrelated")
    assert isinstance(control.adapter, Weights) and control.adapter.sha256 != handle.adapter.sha256
    if pytest.importorskip("trl", reason=f"TRL is not installed; {trl_common.INSTALL}"):
        other = critique_ft.fit(tiny, organism.solved, **small, save_every=1, trainer="trl")
        assert list(saved_steps(other)) == [1, 2]
        assert other.options["found"]["curve"] == pytest.approx(handle.options["found"]["curve"], abs=2e-2)
        assert saved_steps(other)[2].adapter.sha256 == other.adapter.sha256  # type: ignore[union-attr]


def test_both_trainers_train_all_weights_alike(tiny: Model, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason=f"TRL is not installed; {trl_common.INSTALL}")
    from elicit.training.rl import trl_grpo

    settings = dataclasses.replace(WHOLE, save_every=2, rollout_rows=4)
    mine, theirs = (
        trained(engine, tiny, tmp_path / name, settings, prompt=Prompt())
        for name, engine in (("ours", loop), ("trl", trl_grpo))
    )
    logs = [[(r["item"], r["sample"]) for r in read_log(one.folder)] for one in (mine, theirs)]
    assert logs[0] == logs[1]
    first, second = (next(read_log(one.folder))["tokens"] for one in (mine, theirs))
    assert first == second
    assert isinstance(theirs.adapter, Weights)
    assert theirs.curve[0].kl == pytest.approx(0, abs=1e-3)  # the reference is the base
    assert theirs.curve[-1].kl > 0.01
    assert theirs.curve[0].loss == pytest.approx(mine.curve[0].loss, abs=2e-2)
    before = tiny.lm.state_dict()
    moved = []
    for one in (mine, theirs):  # bf16 products: the second rollout already differs in some tokens
        kept = load_file(one.folder / "steps" / "000002" / "model" / "model.safetensors")
        moved.append(torch.cat([(kept[name] - before[name]).flatten() for name in sorted(kept)]))
    assert float(torch.nn.functional.cosine_similarity(*moved, dim=0)) > 0.5
    told: list[int] = []
    trained(trl_grpo, tiny, tmp_path / "trl", settings, prompt=Prompt(), on_step=lambda curve: told.append(1))
    assert not told
