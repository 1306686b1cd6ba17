"""Norms, rotations, activations and the merging of attention's parts, compiled to a kernel or two each.

Each of them is a chain of element-wise operations, and a step starts them one by one in every layer. `torch.compile`
makes one kernel of a chain, for any number of rows. Modules are called as before and keep their hooks: what is compiled
is the inside of those that nothing looks into (a norm; an MLP of plain linear layers), and functions that stand between
them. Matrix products and attention stay those of the libraries.

What was compiled is held against what was not at its first call; what cannot be compiled, or says something else, is
computed as it was, and told.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from functools import cached_property, partial
from inspect import unwrap
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from elicit.decoding.graph import paged_cache
from probes.sites import MLP

ROTATIONS = ("apply_rotary_pos_emb", "apply_rotary_pos_emb_interleave")
VARIANTS = 64  # of one piece: widths, dtypes, one row or several; rows beyond that are no variant
SHARE = 8  # roundings of a value as large as the largest, by which a piece may differ from what it was made of


class Piece:
    """A chain of operations, compiled when it is first called.

    Args:
        name: what it is called in a run's notes.
        eager: what it computes.

    Attributes:
        refused: why it is computed as it was, or "".
    """

    def __init__(self, name: str, eager: Callable[..., Any]) -> None:
        self.name, self.eager, self.refused = name, eager, ""
        self._held_against = False

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        # Without the cache on the disk, which is pickled. Stubs of torch lack the two that keep models apart.
        return torch.compile(  # type: ignore[call-overload,no-any-return]
            unwrap(self.eager), fullgraph=True, dynamic=True, recompile_limit=VARIANTS, isolate_recompiles=True,
            options={"fx_graph_cache": False},
        )  # fmt: skip

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.refused:
            return self.eager(*args, **kwargs)
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        try:
            made = self._compiled(*args, **kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            self.refused = next(iter(str(error).strip().splitlines()), type(error).__name__)
            return self.eager(*args, **kwargs)
        if not self._held_against:
            wanted = self.eager(*args, **kwargs)
            off = _off(made, wanted)
            self._held_against = off is not None
            if off:
                self.refused = f"compiled, it differs by {off:.2g} of its largest value"
                return wanted
        return made


def _off(made: Any, wanted: Any) -> float | None:
    """The largest difference as a share of the largest value, 0 where rounding explains it; None: a value has none."""
    if isinstance(wanted, Tensor):
        made, wanted = (made,), (wanted,)
    worst = 0.0
    for one, other in zip(made, wanted, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return float("inf")
        if not bool(other.isfinite().all()):
            return None
        share = float((one.float() - other.float()).abs().amax()) / (float(other.abs().amax()) or 1.0)
        if not share <= SHARE * torch.finfo(other.dtype).eps:
            worst = max(worst, share) if share == share else float("inf")
    return worst


class Fused:
    """The pieces of a model, which stand in for what they were made of inside the context, and nowhere else.

    Args:
        lm: with the adapter that it decodes with, and with packed weights where it has them.

    Attributes:
        modules: what computes in place of each.
    """

    def __init__(self, lm: PreTrainedModel) -> None:
        self._kept = _PIECES.setdefault(lm, {})
        self.modules = {m: self._piece(type(m), type(m).__name__, type(m).forward) for m in [*_norms(lm), *_mlps(lm)]}
        self._functions = {
            (home, name): self._piece((home.__name__, name), name.strip("_"), vars(home)[name])
            for home, name in _functions(lm)
        }

    def _piece(self, key: Any, name: str, eager: Callable[..., Any]) -> Piece:
        if key not in self._kept:
            self._kept[key] = Piece(name, eager)
        return self._kept[key]

    @property
    def pieces(self) -> list[Piece]:
        """Each of which says whether it was refused."""
        return list(dict.fromkeys([*self.modules.values(), *self._functions.values()]))

    def __enter__(self) -> None:
        for module, piece in self.modules.items():
            module.forward = partial(piece, module)  # type: ignore[method-assign]
        for (home, name), piece in self._functions.items():
            setattr(home, name, piece)

    def __exit__(self, *_: object) -> None:
        for module in self.modules:
            del module.forward
        for (home, name), piece in self._functions.items():
            setattr(home, name, piece.eager)


_PIECES: weakref.WeakKeyDictionary[PreTrainedModel, dict[Any, Piece]] = weakref.WeakKeyDictionary()


def _norms(lm: nn.Module) -> list[nn.Module]:
    """Norms that are written out; torch's own are one kernel as they are."""
    return [
        m for m in lm.modules()
        if type(m).__name__.endswith("Norm") and not _of_torch(m) and _leaf(m) and "forward" not in vars(m)
    ]  # fmt: skip


def _mlps(lm: nn.Module) -> list[nn.Module]:
    """MLPs whose linear layers are torch's own, so that nothing is hooked, adapted or packed inside."""
    named = [m for path, m in lm.named_modules() if path.rpartition(".")[2] in MLP and "forward" not in vars(m)]
    return [m for m in named if not _leaf(m) and all(_plain(one) for one in m.children())]


def _plain(module: nn.Module) -> bool:
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        return False
    return _leaf(module) and (type(module) in (nn.Linear, Conv1D) or not list(module.parameters()))


def _leaf(module: nn.Module) -> bool:
    return not list(module.children())


def _of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _functions(lm: PreTrainedModel) -> list[tuple[ModuleType, str]]:
    """Rotations as the model's own source calls them, and the merging of attention's parts."""
    homes = {type(m).__module__ for m in lm.modules() if type(m).__module__.startswith("transformers.models.")}
    sources = [sys.modules[home] for home in sorted(homes)]
    return [*((home, name) for home in sources for name in ROTATIONS if name in vars(home)), (paged_cache, "_merged")]
