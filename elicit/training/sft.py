"""Training on given targets: LoRA adapters or all weights, one process; on a CPU it resumes to the bit.

One update = draw the step's examples, pack them into rows, loss on the targets' tokens alone, step. Which examples a
step sees depends on its number alone, so nothing of a generator has to be saved: weights, the optimiser's moments and
the number of steps are the whole state, one safetensors file. Nor is anything dropped, whatever dropout the model's
configuration has: a training is decided by its seed, and its losses are those of the model that answers.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from elicit.training.checkpoint import load_state, read_state, write_state
from elicit.training.lora import lora_config
from elicit.training.output_head import logprobs_and_entropy, summed_cross_entropy
from elicit.training.recipe import Example, OnStep, Point, Recipe
from probes.batching import SAME_FULL, SAME_HALF, check_embedded, padding_is_unseen
from probes.description import excess
from probes.errors import UserError
from probes.sites import blocks, decoder
from steering.adapters import borrowed

STATE = "training.safetensors"
Key = tuple[tuple[int, ...], tuple[int, ...]]
Backward = Callable[[PreTrainedModel, Sequence[Example], Recipe, bool], float]
"""Makes the gradient of a step's loss on its examples, and returns that loss (nats); the last argument says whether the
model keeps examples of one row apart (`keeps_apart`)."""


@contextmanager
def to_train(lm: PreTrainedModel, rank: int) -> Iterator[PreTrainedModel]:
    """The model whose weights a training changes: itself for an adapter, given back as it was; for all weights (rank
    0) a copy in float32."""
    if not rank:
        yield copy.deepcopy(lm).float()
        return
    with borrowed(lm):
        yield lm


def packed(examples: Sequence[Example], width: int) -> list[list[Example]]:
    """Rows of at most `width` tokens, several examples in each: first fit, the longest first.

    Raises:
        UserError: an example that is longer than a row, or has no prompt (nothing would predict its first target).
    """
    check_width(examples, width)
    rows: list[list[Example]] = []
    room: list[int] = []
    for e in sorted(examples, key=lambda e: -e.tokens):
        at = next((n for n, left in enumerate(room) if left >= e.tokens), len(rows))
        if at == len(rows):
            rows.append([])
            room.append(width)
        rows[at].append(e)
        room[at] -= e.tokens
    return rows


def check_width(examples: Iterable[Example], width: int) -> None:
    """Refuse examples that no row can hold.

    Raises:
        UserError: one that is longer than a row, or has no prompt (nothing would predict its first target).
    """
    for e in examples:
        if not e.prompt:
            raise UserError("an example without a prompt was given; give each at least one token")
        if e.tokens > width:
            raise UserError(f"an example of {e.tokens} tokens was given and a row holds {width}; give a larger width")


def target_loss(lm: PreTrainedModel, rows: Sequence[Sequence[Example]], width: int) -> Float[Tensor, ""]:
    """Σ cross-entropy (nats) of the targets' tokens, in one forward of packed rows."""
    return summed_cross_entropy(lm, *before_targets(lm, rows, width))


def cross_entropy(
    lm: PreTrainedModel, examples: Sequence[Example], recipe: Recipe, together: bool, share: float = 1.0
) -> float:
    """The mean cross-entropy of all targets' tokens, times a share, with its gradient; a `Backward`."""
    targets = sum(len(e.target) for e in examples)
    total = 0.0
    for rows in _parts(examples, recipe, together):
        loss = share * target_loss(lm, rows, recipe.width) / targets
        loss.backward()
        total += loss.item()
    return total


@torch.no_grad()
def code_length(lm: PreTrainedModel, examples: Sequence[Example], recipe: Recipe, together: bool) -> float:
    """Bits of the targets under a model as it is, each after its prompt.

    Args:
        together: whether the model keeps examples of one row apart (`keeps_apart`).
    """
    nats = 0.0
    for rows in _parts(examples, recipe, together):
        hidden, ids = before_targets(lm, rows, recipe.width)
        nats -= float(logprobs_and_entropy(lm, hidden, ids, 1.0)[0].double().sum())
    return nats / math.log(2)


def excess_bits(
    lm: PreTrainedModel, batch: Callable[[int], list[Example]], recipe: Recipe, curve: Sequence[Point]
) -> float | None:
    """What a training wrote into the weights, at most: the prequential code of its targets less what the trained model
    pays for the same ones (`probes.description.excess`); None of a curve that has no code.

    Args:
        lm: the trained model.
        batch, recipe, curve: of its training, `coded`.
    """
    before = [point.code for point in curve if point.code is not None]
    if len(before) < len(curve):
        return None
    seen = {key(e): e for point in curve for e in batch(point.step)}
    return excess(before, code_length(lm, list(seen.values()), recipe, keeps_apart(lm)))


def _parts(examples: Sequence[Example], recipe: Recipe, together: bool) -> Iterator[list[list[Example]]]:
    """The rows of each forward, all of one shape."""
    rows = packed(examples, recipe.width) if together else [[e] for e in examples]
    rows += [[]] * (-len(rows) % recipe.part)
    return (rows[start : start + recipe.part] for start in range(0, len(rows), recipe.part))


def before_targets(
    lm: PreTrainedModel, rows: Sequence[Sequence[Example]], width: int
) -> tuple[Float[Tensor, "n d_model"], Int[Tensor, " n"]]:
    """The hidden state that chooses each token of the targets, and that token.

    Positions begin anew at each example, from which `transformers` knows that none sees another.

    Raises:
        UserError: an example that is longer than a row, or has no prompt.
    """
    check_width((e for row in rows for e in row), width)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    places = torch.zeros(len(rows), width, dtype=torch.long)
    labelled = torch.zeros(len(rows), width, dtype=torch.bool)
    for n, row in enumerate(rows):
        at = 0
        for e in row:
            ids[n, at : at + e.tokens] = torch.tensor([*e.prompt, *e.target])
            places[n, at : at + e.tokens] = torch.arange(e.tokens)
            labelled[n, at + len(e.prompt) : at + e.tokens] = True
            at += e.tokens
        places[n, at:] = torch.arange(width - at)  # padding: one more example, without a target
    ids, places, labelled = (x.to(lm.device) for x in (ids, places, labelled))
    hidden = decoder(lm)(input_ids=ids, position_ids=places, use_cache=False)[0]
    at_targets = labelled[:, 1:].flatten().nonzero()[:, 0]
    return hidden[:, :-1].flatten(0, 1)[at_targets], ids[:, 1:].flatten()[at_targets]


@torch.no_grad()
def keeps_apart(lm: PreTrainedModel) -> bool:
    """Whether the model keeps examples of one row apart: tried, since some build their mask without positions.

    One whose state runs through padding runs through a neighbour as well, though in 16 bits what that changes may be
    within rounding.
    """
    first, second = torch.arange(8)[None] % 5 + 5, torch.arange(8)[None] % 3 + 5
    # Products of fp32 weights are made in fp32 here also where they are trained in bf16: what is heard stands out.
    with torch.autocast(lm.device.type, enabled=False):
        if not padding_is_unseen(lm):
            return False
        alone = decoder(lm)(input_ids=second.to(lm.device), use_cache=False)[0]
        places = torch.arange(8).repeat(2)[None].to(lm.device)
        both = torch.cat([first, second], 1).to(lm.device)
        after = decoder(lm)(input_ids=both, position_ids=places, use_cache=False)[0][:, 8:]
    off = (after.float() - alone.float()).norm(dim=-1) / alone.float().norm(dim=-1).clamp(min=1e-6)
    return bool(off.max() < (SAME_FULL if torch.finfo(after.dtype).bits > 16 else SAME_HALF))


def train(
    lm: PreTrainedModel,
    batch: Callable[[int], list[Example]],
    recipe: Recipe,
    folder: Path,
    *,
    identity: dict[str, Any],
    save_every: int = 10,
    on_step: OnStep | None = None,
    coded: bool = False,
    backward: Backward = cross_entropy,
) -> list[Point]:
    """Train in place; what was saved in `folder` by the same call is resumed, and ends at the same weights.

    Args:
        lm: for LoRA in the precision that its frozen weights are to have; for all weights in fp32. It has PEFT's
            layers afterwards where the recipe has a rank.
        batch: the examples of a step, a function of its number alone.
        recipe: how.
        folder: for the state.
        identity: what else decides the result (data, base); a state of another is refused.
        save_every: steps between two states.
        on_step: called after each step.
        coded: whether each example is paid for under the model as it is before it is first trained on: the prequential
            code of the targets (`Point.code`), for one forward more of each example. The training is the same.
        backward: what makes the gradient of a step; unless given, of the mean cross-entropy of its targets' tokens.

    Returns:
        The training curve.

    Raises:
        UserError: a folder with the state of another training; a token that the model has no row for; a loss that is
            not finite.
    """
    wanted = json.loads(json.dumps({"recipe": recipe.kept(), **identity}))
    trained = prepare(lm, recipe)
    optimiser = torch.optim.AdamW(
        trained.values(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, foreach=True
    )
    curve: list[Point] = []
    if (kept := read_state(folder / STATE, wanted)) is not None:
        curve = [Point(*point) for point in kept[0]]
        load_state(trained, optimiser, kept[1], len(curve))
    paid = {key(e) for step in range(len(curve)) for e in batch(step)} if coded else set()
    lm.eval()  # without dropout; checkpointing here does not ask for training mode
    with quick(lm, recipe), checkpointed(lm) if recipe.checkpointing else nullcontext():
        together = keeps_apart(lm)  # else each example has a row of its own
        for step in range(len(curve), recipe.steps):
            began = time.perf_counter()
            examples = batch(step)
            check_embedded(lm, [[*e.prompt, *e.target] for e in examples])
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step)
            code = None
            if coded:
                unpaid = {key(e): e for e in examples if key(e) not in paid}
                code = code_length(lm, list(unpaid.values()), recipe, together)
                paid |= unpaid.keys()
            loss, norm = _update(lm, examples, list(trained.values()), optimiser, recipe, together, backward)
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise UserError(
                    f"step {step}: loss {loss}, gradient {norm}; give a smaller learning rate than {recipe.lr}"
                )
            tokens = sum(e.tokens for e in examples)
            curve.append(Point(step, loss, norm, tokens, time.perf_counter() - began, code))
            if on_step is not None:
                on_step(step, loss, tokens / curve[-1].seconds)
            if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
                write_state(folder / STATE, wanted, trained, optimiser, curve)
    return curve


def key(example: Example) -> Key:
    """What tells examples apart."""
    return tuple(example.prompt), tuple(example.target)


def prepare(lm: PreTrainedModel, recipe: Recipe) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    if recipe.rank:
        from peft import inject_adapter_in_model

        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            inject_adapter_in_model(lora_config(lm, recipe), lm)
        for name, parameter in lm.named_parameters():
            parameter.requires_grad_("lora_" in name)
            if "lora_" in name:
                parameter.data = parameter.data.float()
    else:
        train_all(lm)
    return {name: p for name, p in lm.named_parameters() if p.requires_grad}


def train_all(lm: PreTrainedModel) -> None:
    """All weights that a text's loss reaches are trained, and no others: towers of images and sound stay as is."""
    reached = {id(p) for part in (decoder(lm), lm.get_output_embeddings()) for p in part.parameters()}
    for parameter in lm.parameters():
        parameter.requires_grad_(id(parameter) in reached)


@contextmanager
def quick(lm: PreTrainedModel, recipe: Recipe) -> Iterator[None]:
    """What makes a step fast: fused LoRA layers, or bf16 products of fp32 weights; on a CPU attention by products,
    whose gradient is several times as fast as that of the flash kernel there, and few passes over memory."""
    from elicit.training.few_passes import few_passes
    from elicit.training.lora import fused

    full = lm.dtype == torch.float32 and not recipe.rank
    # Autocast would keep the first step's bf16 copies of weights that change.
    low = torch.autocast(lm.device.type, torch.bfloat16, cache_enabled=False) if full else None
    before = lm.config._attn_implementation
    if lm.device.type == "cpu":
        lm.set_attn_implementation("eager")
    try:
        with fused(lm), few_passes(lm), low or nullcontext():
            yield
    finally:
        lm.set_attn_implementation(before)


@contextmanager
def checkpointed(lm: PreTrainedModel) -> Iterator[None]:
    """Inside the context each layer keeps its input alone and is computed again for its gradient."""
    layers = list(blocks(lm))
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _update(
    lm: PreTrainedModel,
    examples: Sequence[Example],
    trained: list[nn.Parameter],
    optimiser: Any,
    recipe: Recipe,
    together: bool,
    backward: Backward,
) -> tuple[float, float]:
    total = backward(lm, examples, recipe, together)
    norm = float(nn.utils.clip_grad_norm_(trained, recipe.clip))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return total, norm


def check_some(examples: Sequence[Any]) -> None:
    """Refuse to draw from nothing, which would go on for ever.

    Raises:
        UserError: no examples.
    """
    if not examples:
        raise UserError("no example to train on was given; give at least one")


def batches(some: Sequence[Example], rows: int, width: int, seed: int) -> Callable[[int], list[Example]]:
    """The examples of a step, a function of its number: as many as `rows` rows hold, drawn without repetition.

    Whatever the targets are, a step has as many rows, so that all controls see nearly as many tokens.

    Raises:
        UserError: no examples.
    """
    check_some(some)

    def batch(step: int) -> list[Example]:
        rng = np.random.default_rng([seed, step])
        out: list[Example] = []
        while True:
            for i in rng.permutation(len(some)):
                if len(packed([*out, some[int(i)]], width)) > rows:
                    return out
                out.append(some[int(i)])

    return batch
