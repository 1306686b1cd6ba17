"""Adapters as PEFT writes them, for tiny models: one of every kind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from steering.adapters import WEIGHTS
from tests.support.tiny import tiny_model

IDS = torch.arange(3, 15)[None]
TWO = ["q_proj", "v_proj"]
NEEDED: dict[str, dict[str, Any]] = {  # where rank and targets are not enough
    "ADALORA": dict(init_r=4, target_r=2, total_step=10),
    "BOFT": dict(boft_block_size=4),
    "C3A": dict(block_size=8, target_modules=["q_proj", "o_proj"]),
    "FOURIERFT": dict(n_frequency=50),
    "IA3": dict(target_modules=["v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "LN_TUNING": dict(target_modules=["input_layernorm", "norm"]),
    "OFT": dict(r=0, oft_block_size=8),
    "OSF": dict(effective_rank=8),
    "ROAD": dict(group_size=8),
    "SHADOW": dict(r=4),
    "TRAINABLE_TOKENS": dict(token_indices=[3, 4, 5], target_modules=None),
    "VBLORA": dict(num_vectors=8, vector_length=8, topk=2),
    "WAVEFT": dict(n_frequency=50),
    "CPT": dict(cpt_token_ids=[3, 4], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 2]),
    "XLORA": dict(adapters={}),
}


def config(kind: str, **more: Any) -> Any:
    """A configuration of this kind, by PEFT."""
    made: Any = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
    known = {"r": 4, "target_modules": TWO, "num_virtual_tokens": 3, **NEEDED.get(kind, {}), **more}
    fields = made.__dataclass_fields__
    return made(task_type="CAUSAL_LM", **{k: v for k, v in known.items() if k in fields or k in more})


def base(architecture: str) -> PreTrainedModel:
    """A tiny model of one's own, with biases where its kind has them."""
    lm = copy.deepcopy(tiny_model(architecture))
    drawn = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in lm.named_parameters():
            if name.endswith("bias"):
                p.normal_(0, 0.3, generator=drawn)
    return lm


def written(folder: Path, architecture: str, configured: Any, **how: Any) -> Tensor:
    """An adapter, trained a little and saved; what the trained model answers."""
    drawn = torch.Generator().manual_seed(1)
    model = get_peft_model(base(architecture), configured).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=drawn), alpha=0.05)
    model.save_pretrained(str(folder), **how)
    return logits(model)


def configuration_alone(folder: Path, configured: Any) -> Path:
    """A configuration as PEFT writes it, beside weights that nobody is to read."""
    configured.save_pretrained(str(folder))
    save_file({"x": torch.zeros(1)}, folder / WEIGHTS)
    return folder


def logits(lm: Callable[..., Any]) -> Tensor:
    with torch.no_grad():
        found: Tensor = lm(input_ids=IDS).logits
    return found.clone()


def peers(architecture: str, folder: Path) -> Tensor:
    """What PEFT's own model answers with the adapter."""
    torch.manual_seed(int.from_bytes(folder.name.encode()[-4:]))  # nothing may hang on it
    return logits(PeftModel.from_pretrained(base(architecture), str(folder)).eval())


def everything(lm: PreTrainedModel) -> dict[str, Any]:
    """All that is to be the same after an adapter: values, modules, hooks, flags, attributes."""
    held: dict[str, Any] = {"config": lm.config.to_dict()}
    for name, value in lm.state_dict().items():
        held[f"values {name}"] = value.clone()
    for path, module in lm.named_modules():
        about: Any = [id(module), module.training, sorted(vars(module)), id(module.forward.__func__)]
        held[f"module {path}"] = [*about, dict(module._forward_hooks), dict(module._forward_pre_hooks)]
    for name, p in lm.named_parameters(remove_duplicate=False):
        held[f"parameter {name}"] = [id(p), p.requires_grad]
    return held


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    def differs(a: Any, b: Any) -> bool:
        return not torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a != b

    return sorted(name for name in {*before, *after} if differs(before.get(name), after.get(name)))
