"""The oracle: on the same rollouts our loss and gradient are TRL's; on the same critiques as well."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elicit.models import Model, Prompt, load_model
from elicit.training import Example, Recipe, train, trl_common
from elicit.training import trl_sft as critiques
from elicit.training.recipe import Point
from elicit.training.rl import losses, trl_grpo
from elicit.training.rl.learner import learner
from elicit.training.rl.loop import _Run
from elicit.training.rl.policy import logprobs
from elicit.training.rl.rewards import parse
from elicit.training.rl.settings import Settings
from elicit.training.rl.trl_rollouts import Bridge
from steering.adapters import borrowed
from tests.support.tiny import save_tiny, tiny_model
from tests.support.toys import toy_task

pytest.importorskip("trl", reason=f"TRL is not installed; {trl_common.INSTALL}")

TASK = toy_task()
TWO = TASK.fit[:2]
LIMIT = 7
ANSWERS = [[5, 9, 3], [11], [7, 7, 21, 30, 8, 9, 14], [4, 60, 61], [12, 40], [3, 3, 8, 9], [50], [33, 34, 35, 36, 1]]
REWARDS = [1.0, 0.0, 0.0, 0.5, 0.0, 1.0, 1.0, 0.25]
BASE = Settings(
    updates=1, rollouts=8, group=4, part=8, max_new_tokens=LIMIT, rank=2, entropy=0.0, kl=0.0, grad_clip=1e9, lr=1e-3,
    temperature=0.8,
)  # fmt: skip


def weights(trained: dict[str, Any]) -> None:
    """The same for both sides, and none of them zero."""
    generator = torch.Generator().manual_seed(0)
    for name in sorted(trained):
        trained[name].data = 0.1 * torch.randn(trained[name].shape, generator=generator)


class Kept(torch.optim.Optimizer):
    """Takes no step, and keeps the gradients."""

    def __init__(self, trained: dict[str, Any]) -> None:
        super().__init__(trained.values(), {})
        self.trained, self.grads = trained, {}

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.grads = {name: p.grad.clone() for name, p in self.trained.items()}


def both(model: Model, settings: Settings, off: float, folder: Path) -> tuple[list[Any], list[Any], dict[str, float]]:
    """Loss and gradients of each side, ours first; and what we say of the update.

    Args:
        off: how far old log-probabilities are off: where they are, the bounds act.
    """
    totals = torch.tensor(REWARDS).view(2, 4)
    advantages = losses.advantages(totals, settings.advantage).flatten()
    with learner(model, settings.recipe) as student:
        weights(student.trained)  # type: ignore[arg-type]
        run = _Run(student, TWO, settings, Prompt(), parse("exact"))
        records = [
            {"question": n // 4, "tokens": ids, "advantage": float(a)}
            for n, (ids, a) in enumerate(zip(ANSWERS, advantages, strict=True))
        ]
        buffer = run.buffer({"records": records, "facts": {"sampler": 0.0}}, {})
        now = logprobs(student.lm, buffer.batch, settings.part, settings.temperature)
        noise = torch.randn(now.shape, generator=torch.Generator().manual_seed(1))
        buffer.old = now + off * noise * buffer.batch.mask
        if settings.kl:
            with student.reference() as lm:
                buffer.reference = logprobs(lm, buffer.batch, settings.part, settings.temperature)
        optimiser = Kept(student.trained)
        said = run.step(buffer, optimiser, 0)
    ours = [said["loss"], optimiser.grads]

    bridge = Bridge(model, TWO, settings, Prompt(), parse("exact"), {})
    made, lm = trl_grpo.trainer(model, bridge, folder, {})
    named = {name: p for name, p in lm.named_parameters() if p.requires_grad}
    assert set(named) == set(ours[1])
    weights(named)
    prompts, batch = run.prompts, buffer.batch
    longest = max(map(len, ANSWERS))
    whole = {
        "prompt_ids": prompts.ids[batch.question], "prompt_mask": prompts.mask[batch.question].long(),
        "completion_ids": batch.tokens[:, :longest], "completion_mask": batch.mask[:, :longest].long(),
        "advantages": advantages, "old_per_token_logps": buffer.old[:, :longest],
    }  # fmt: skip
    if buffer.reference is not None:
        whole["ref_per_token_logps"] = buffer.reference[:, :longest]
    made.model.train()
    made.current_gradient_accumulation_steps = made.args.gradient_accumulation_steps
    total = 0.0
    for start in range(0, 8, made.args.per_device_train_batch_size):
        rows = slice(start, start + made.args.per_device_train_batch_size)
        inputs = {name: value[rows] for name, value in whole.items()}
        loss = made.compute_loss(made.model, {**inputs, "num_items_in_batch": batch.mask.sum()})
        loss.backward()
        total += float(loss.detach())
    grads = {name: p.grad for name, p in named.items()}
    return ours, [total, grads], said


def assert_alike(ours: list[Any], theirs: list[Any]) -> None:
    # Terms of size one that cancel: their sum is as exact as their rounding, which processors differ in.
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5, abs=1e-6)
    largest = max(float(grad.abs().max()) for grad in theirs[1].values())
    assert largest > 1e-4
    for name, grad in theirs[1].items():
        assert torch.allclose(ours[1][name], grad, atol=1e-5 * largest), name


@pytest.mark.parametrize("aggregate", losses.AGGREGATES)
@pytest.mark.parametrize("advantage", losses.ADVANTAGES)
@pytest.mark.parametrize("part", [8, 4])
def test_losses_and_gradients_are_the_same(
    tiny: Model, tmp_path: Path, aggregate: str, advantage: str, part: int
) -> None:
    settings = dataclasses.replace(BASE, aggregate=aggregate, advantage=advantage, part=part)
    ours, theirs, said = both(tiny, settings, 0.0, tmp_path)
    assert said["low"] == pytest.approx(1) and said["clipped"] == 0
    assert_alike(ours, theirs)


@pytest.mark.parametrize("aggregate", losses.AGGREGATES)
@pytest.mark.parametrize("high", [0.2, 0.28])
def test_where_the_bounds_act_and_with_kl(tiny: Model, tmp_path: Path, aggregate: str, high: float) -> None:
    settings = dataclasses.replace(BASE, aggregate=aggregate, clip_high=high, kl=0.05, per_rollout=2, part=4)
    ours, theirs, said = both(tiny, settings, 0.25, tmp_path)
    assert 0 < said["clipped"] < 1 and said["kl"] > 1e-3
    assert_alike(ours, theirs)


def test_an_asymmetric_bound_is_another_loss(tiny: Model, tmp_path: Path) -> None:
    (a, _, _), (b, _, _) = (
        both(tiny, dataclasses.replace(BASE, clip_high=high), 0.25, tmp_path) for high in (0.2, 0.28)
    )
    assert a[0] != pytest.approx(b[0], rel=1e-3)


def test_entropy_weighs_the_same_where_a_forward_holds_all_rows(tiny: Model, tmp_path: Path) -> None:
    settings = dataclasses.replace(BASE, entropy=0.1)
    assert_alike(*both(tiny, settings, 0.0, tmp_path)[:2])
    # and else it does not: TRL takes the mean of each forward, or of tokens where we weigh as the loss does
    for other in ({"part": 4}, {"aggregate": "constant"}):
        ours, theirs, _ = both(tiny, dataclasses.replace(settings, **other), 0.0, tmp_path)
        assert ours[0] != pytest.approx(theirs[0], rel=1e-4)
        assert ours[0] == pytest.approx(theirs[0], abs=0.1 * 4.6)  # at most the weight times the largest entropy


def steps(number: int) -> list[Example]:
    """As many examples as no other step has."""
    rng = torch.Generator().manual_seed(number)
    some = torch.randint(1, 90, (3 + number, 12), generator=rng).tolist()
    return [Example(ids[: 4 + n % 3], ids[4 + n % 3 : 12 - n % 2]) for n, ids in enumerate(some)]


def adapter(lm: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in lm.named_parameters() if "lora_" in name}


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model whose configuration has dropout."""
    return load_model(str(save_tiny(tmp_path_factory.mktemp("model") / "gpt2", "gpt2")), dtype="float32", device="cpu")


@pytest.mark.parametrize(("model", "checkpointing"), [("tiny", False), ("tiny", True), ("dropping", True)])
def test_critiques_have_the_same_loss_gradient_and_weights(
    model: str, tmp_path: Path, checkpointing: bool, request: pytest.FixtureRequest
) -> None:
    tiny: Model = request.getfixturevalue(model)
    recipe = Recipe(steps=4, rows=6, width=48, part=2, lr=1e-2, warmup=2, rank=2, alpha=4, clip=0.5, seed=5)
    recipe = dataclasses.replace(recipe, checkpointing=checkpointing)
    with borrowed(tiny.lm):
        curve = train(tiny.lm, steps, recipe, tmp_path / "ours", identity={})
        ours = adapter(tiny.lm)
    logged: list[dict[str, float]] = []
    from transformers import TrainerCallback

    class Listener(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                logged.append(dict(logs))

    made, lm = critiques.trainer(tiny, steps, recipe, tmp_path / "trl", {}, callbacks=[Listener()])
    assert made.args.activation_checkpointing == checkpointing
    assert len(made.train_dataset) == 4 * 6  # the longest step has six examples
    trl_common.run(made, 4)
    assert [row["loss"] for row in logged] == pytest.approx([p.loss for p in curve], rel=1e-4)
    assert [row["grad_norm"] for row in logged] == pytest.approx([p.norm for p in curve], rel=1e-3)
    theirs = adapter(lm)
    assert set(ours) == set(theirs) and len({p.step for p in curve}) == len(curve)
    moved = max(float(p.abs().max()) for name, p in ours.items() if "lora_B" in name)
    assert moved > 5e-3
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=5e-3 * moved), name


@pytest.mark.parametrize("architecture", ["gpt2", "bloom", "llama"])  # modules, their numbers, numbers alone
def test_a_model_without_dropout_answers_the_same_in_training_mode(architecture: str) -> None:
    lm = copy.deepcopy(tiny_model(architecture))
    for module in lm.modules():
        for name in {"hidden_dropout", "attention_dropout"} & vars(module).keys():
            if isinstance(vars(module)[name], float):
                setattr(module, name, 0.5)
    ids = torch.arange(5, 25)[None]
    expected = lm(ids).logits
    assert not torch.equal(lm.train()(ids).logits, expected)
    trl_common.without_dropout(lm)
    assert torch.equal(lm.train()(ids).logits, expected)


def test_what_is_saved_has_the_dropout_of_the_base(dropping: Model, tmp_path: Path) -> None:
    recipe = Recipe(steps=1, rows=2, width=48, part=2, rank=0)
    critiques.train(dropping, lambda step: steps(0), recipe, tmp_path, identity={})
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert saved["attn_pdrop"] == dropping.lm.config.attn_pdrop == 0.1


def test_a_point_is_what_a_step_of_trl_was(tiny: Model, tmp_path: Path) -> None:
    recipe = Recipe(steps=2, rows=6, width=48, part=2, lr=1e-2, rank=2, alpha=4)
    told: list[int] = []
    before = {name: p.clone() for name, p in tiny.lm.named_parameters()}
    modules = dict(tiny.lm.named_modules())

    def trained() -> list[Point]:
        return critiques.train(tiny, steps, recipe, tmp_path, identity={}, on_step=lambda step, *_: told.append(step))

    curve = trained()
    assert told == [0, 1] and [p.tokens for p in curve] == [sum(e.tokens for e in steps(n)) for n in (0, 1)]
    assert all(isinstance(p, Point) for p in curve) and curve[0].loss > 0
    assert dict(tiny.lm.named_modules()) == modules and "forward" not in vars(tiny.lm)
    assert all(torch.equal(p, before[name]) for name, p in tiny.lm.named_parameters())
    assert trained() == curve and told == [0, 1]
