"""LoRA layers in few passes while training: PEFT's layers, parameters and mathematics, one autograd step a layer.

PEFT brings a layer's input to the adapter's precision and back and keeps what it makes for autograd; with small ranks
that costs more than the products. Here base and adapter are multiplied in the base's precision and added in place.
tests/training/test_training.py holds both to the same outputs and gradients.

To decode many tokens in float32 on a CPU the adapter is merged into a copy of the weights, which differs by rounding
alone. In bfloat16 it is not: weights that are rounded anew lose much of a small adapter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from elicit.decoding.packed_weights import has_room, is_plain
from elicit.training.recipe import Recipe
from probes.errors import UserError
from probes.files import inner_folder, write_whole
from probes.sealed import save_tensors
from probes.sites import decoder
from steering.adapters import CONFIG, WEIGHTS, Adapter, hash_of_settings
from steering.exchange import Swap, exchanged

# PEFT's own list (`_check_lora_target_modules_mamba`): the kernels of these read the weight of that layer themselves.
REFUSING, REFUSED = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"), "out_proj"


class _LoraLinear(torch.autograd.Function):
    """x Wᵀ + b + s (x Aᵀ) Bᵀ with W and b frozen (arXiv 2106.09685, eq. 3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        # Both lie as (rank, features): with the short side last a product takes several times as long.
        low_a, low_b = a.to(x.dtype), (b.T * scale).to(x.dtype).contiguous()
        middle = flat @ low_a.T
        out = nn.functional.linear(flat, weight, bias).addmm_(middle, low_b)
        ctx.save_for_backward(flat, weight, low_a, low_b, middle)
        ctx.scale = scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, weight, a, b, middle = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        inner = flat @ b.T
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (flat @ weight).addmm_(inner, a).view(*grad.shape[:-1], -1)
        return grad_x, None, None, (inner.T @ x).float(), (middle.T @ flat).T.float() * ctx.scale, None


@contextmanager
def fused(lm: nn.Module) -> Iterator[None]:
    """Inside the context PEFT's plain LoRA layers run as one autograd step each; other layers run as they are."""
    from peft.tuners.lora import Linear

    changed = [m for m in lm.modules() if isinstance(m, Linear) and _plain(m)]
    for module in changed:
        module.forward = partial(_forward, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _plain(module: Any) -> bool:
    """One adapter without dropout, bias or a variant, on a plain linear layer."""
    name = module.active_adapters[0]
    return (
        len(module.active_adapters) == 1
        and type(module.base_layer) is nn.Linear
        and isinstance(module.lora_dropout[name], nn.Identity)
        and module.lora_A[name].bias is None
        and module.lora_B[name].bias is None
        and name not in module.lora_variant
        and not module.disable_adapters
        and not module.merged
    )


def _forward(module: Any, x: Tensor) -> Tensor:
    name, base = module.active_adapters[0], module.base_layer
    a, b, scale = module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name]
    if not torch.is_grad_enabled():  # decoding: the base layer may have packed weights
        return base(x) + (x @ a.to(x.dtype).T) @ (b * scale).to(x.dtype).T  # type: ignore[no-any-return]
    out: Tensor = _LoraLinear.apply(x, base.weight, base.bias, a, b, scale)
    return out


@contextmanager
def merged(swaps: list[Swap]) -> Iterator[None]:
    """Inside the context LoRA layers of float32 weights on a CPU are linear layers of W + s B A, where there is room.

    Args:
        swaps: the layers with their places in a model (`Kept.brought`).
    """
    from peft.tuners.lora import Linear

    found = [one for one in swaps if isinstance(one[3], Linear) and _plain(one[3]) and _full(one[3].base_layer)]
    if not has_room([layer.base_layer for *_, layer in found]):  # type: ignore[misc]
        found = []
    with exchanged([(parent, name, layer, _of_both(layer)) for parent, name, _, layer in found]):
        yield


def _full(base: Any) -> bool:
    return is_plain(base) and base.weight.dtype == torch.float32


@torch.no_grad()
def _of_both(module: Any) -> nn.Linear:
    """The base layer with the adapter in its weights."""
    name, base = module.active_adapters[0], module.base_layer
    out = nn.Linear(base.in_features, base.out_features, device="meta")
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    out.weight = nn.Parameter(torch.addmm(base.weight, b * module.scaling[name], a), requires_grad=False)
    out.bias = base.bias
    return out


def save_adapter(
    lm: PreTrainedModel,
    recipe: Recipe,
    folder: Path,
    base: str,
    dtype: torch.dtype = torch.bfloat16,
    state: dict[str, Tensor] | None = None,
) -> None:
    """The adapter as PEFT saves it, without a place of this machine.

    Args:
        lm, recipe, base: what has PEFT's layers, what made them, and the name of the base.
        folder, dtype: where, and in which precision.
        state: the weights, where they were gathered from several processes; unless given, the model's own.
    """
    from peft import get_peft_model_state_dict

    inner_folder(folder)
    tensors = get_peft_model_state_dict(lm, state_dict=state)
    low = {f"base_model.model.{k}": v.detach().to("cpu", dtype).contiguous() for k, v in tensors.items()}
    targets = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in tensors})
    config = lora_config(lm, recipe, targets, inference_mode=True, base_model_name_or_path=base)
    with TemporaryDirectory() as scratch:
        config.save_pretrained(scratch)
        data = json.loads((Path(scratch) / CONFIG).read_text(encoding="utf-8"))
    data["target_modules"].sort()  # PEFT writes a set, in any order: the same adapter must have the same hash
    save_tensors(low, folder / WEIGHTS, hash_of_settings(data))
    write_whole(folder / CONFIG, json.dumps(data, indent=2, sort_keys=True))


def load_adapter(trained: Mapping[str, nn.Parameter], adapter: Adapter) -> None:
    """Put the weights of an adapter that `save_adapter` wrote into the layers that are trained.

    Raises:
        UserError: an adapter with other layers or of another rank.
    """
    tensors = adapter.tensors()
    names = {name: f"base_model.model.{name.replace('.default.', '.')}" for name in trained}
    if set(names.values()) != set(tensors) or any(tensors[names[n]].shape != p.shape for n, p in trained.items()):
        raise UserError(f"{adapter} has other layers than are trained, or another rank; give the rank it was made with")
    for name, p in trained.items():
        p.data.copy_(tensors[names[name]])


def lora_config(lm: PreTrainedModel, recipe: Recipe, targets: str | list[str] = "all-linear", **more: Any) -> Any:
    """PEFT's configuration of the recipe's adapter; GPT-2 and its like keep their matrices transposed."""
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=targets,
        exclude_modules=_left_out(lm),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in lm.modules()),
        task_type="CAUSAL_LM",
        **more,
    )


def _left_out(lm: PreTrainedModel) -> str | None:
    """Which linear layers get no adapter, as a pattern of their names: those that a text's loss does not reach (towers
    of images and sound), and those that PEFT refuses."""
    inner, head = decoder(lm), lm.get_output_embeddings()
    path = next(name for name, module in lm.named_modules() if module is inner)
    layers = [n for n, m in lm.named_modules() if isinstance(m, nn.Linear) and m is not head]
    patterns = []
    if path and not all(name.startswith(f"{path}.") for name in layers):
        patterns.append(rf"(?!{re.escape(path)}\.).*")
    if lm.config.model_type in REFUSING:
        patterns.append(rf".*\.{REFUSED}")
    return "|".join(patterns) or None
