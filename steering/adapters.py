"""What a training made of a base that is shared, on inside a context and gone after it: PEFT adapters (LoRA and its
kin), or all of its weights.

The base's modules are exchanged for PEFT's wrapped ones, or for twins that hold the trained weights, and put back, so
that outside the context the base is what it was, to the bit, and two handles on one base cannot see each other's
training. The modules are kept, so that opening the context again costs nothing; of whole weights those of one training
are, since each is a model.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from probes.errors import UserError
from probes.files import sha256_of
from probes.finite import check_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WHOLE_FILES = ("config.json", "model.safetensors")  # the configuration, and all weights in one file
Swap = tuple[nn.Module, str, nn.Module, nn.Module]  # parent, name, base module, wrapped module
_WRAPPED: weakref.WeakKeyDictionary[nn.Module, dict[str, list[Swap]]] = weakref.WeakKeyDictionary()
_EXCHANGED: weakref.WeakKeyDictionary[nn.Module, tuple[str, list[Swap]]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Adapter:
    """A folder as PEFT saves it, with safetensors.

    Raises:
        UserError: files missing, or weights that are pickled.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        for name in (CONFIG, WEIGHTS):
            if not (self.folder / name).is_file():
                raise UserError(f"adapter {str(self.folder)!r} holds no {name}; save one with PEFT's save_pretrained")

    @cached_property
    def sha256(self) -> str:
        """Over the weights and the configuration, paths in it aside."""
        config = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        config.pop("base_model_name_or_path", None)
        total = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        total.update((self.folder / WEIGHTS).read_bytes())
        return total.hexdigest()


@dataclass(frozen=True)
class Weights:
    """All weights of a model that was trained as a whole: a folder as `save_pretrained` writes it, in one file.

    Raises:
        UserError: files missing, or weights that are pickled or in several files.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        for name in WHOLE_FILES:
            if not (self.folder / name).is_file():
                raise UserError(
                    f"{str(self.folder)!r} holds no {name}; give a folder with all weights of a training in one file"
                )

    @cached_property
    def sha256(self) -> str:
        """As a model that is loaded from this folder has it: over the file's name and its SHA-256."""
        file = self.folder / WHOLE_FILES[1]
        return hashlib.sha256(f"{file.name} {sha256_of(file)}\n".encode()).hexdigest()


Tuned = Adapter | Weights
"""What a training made of a base."""


@contextmanager
def applied(lm: PreTrainedModel, tuned: Tuned | None) -> Iterator[None]:
    """The model with an adapter, or with other weights, inside the context; without one nothing is done.

    Raises:
        UserError: weights that do not fit the model, a kind of adapter that is not a layer beside a layer.
    """
    if tuned is None:
        yield
        return
    swaps = _swaps(lm, tuned)
    for parent, name, base, _ in swaps:
        if getattr(parent, name) is not base:
            raise UserError("an adapter is on already; close its context before another is opened")
    for parent, name, _, wrapped in swaps:
        setattr(parent, name, wrapped)
    try:
        yield
    finally:
        for parent, name, base, _ in swaps:
            setattr(parent, name, base)


@contextmanager
def silent() -> Iterator[None]:
    """Without the progress bars of `transformers`, which are no part of what a command shows."""
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bar:
            logging.enable_progress_bar()


def _swaps(lm: PreTrainedModel, tuned: Tuned) -> list[Swap]:
    """The exchanged modules of a training, made when they are first asked for."""
    if isinstance(tuned, Adapter):
        known = _WRAPPED.setdefault(lm, {})
        if tuned.sha256 not in known:
            known[tuned.sha256] = _wrap(lm, tuned)
        return known[tuned.sha256]
    if lm not in _EXCHANGED or _EXCHANGED[lm][0] != tuned.sha256:
        _EXCHANGED.pop(lm, None)  # before the next ones are read
        _EXCHANGED[lm] = (tuned.sha256, _twins(lm, tuned))
    return _EXCHANGED[lm][1]


def _twins(lm: PreTrainedModel, weights: Weights) -> list[Swap]:
    """For each module with parameters of its own another that has the trained ones and shares all else with it."""
    place = f"the weights in {str(weights.folder)!r}"
    before = {name: p.shape for name, p in lm.named_parameters()}
    try:
        with silent():
            read: Any = type(lm).from_pretrained(
                weights.folder, dtype=lm.dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise UserError(
            f"{place} do not fit {type(lm).__name__} ({str(error).splitlines()[0]}); train them again"
        ) from error
    other, about = read
    after = dict(other.named_parameters())
    if before != {name: p.shape for name, p in after.items()} or about["missing_keys"] or about["unexpected_keys"]:
        raise UserError(f"{place} are of another model than the base; use the base that they were trained from")
    check_tensors(after, place, "train them again")
    made: dict[int, nn.Parameter] = {}  # what two modules share, such as a tied output head, they share again
    for name, p in lm.named_parameters():
        made[id(p)] = nn.Parameter(after[name].detach().to(p.device), requires_grad=False)
    swaps: list[Swap] = []
    for path, module in lm.named_modules():
        own = {name: p for name, p in module._parameters.items() if p is not None}
        if not own:
            continue
        twin = copy.copy(module)
        twin.__dict__["_parameters"] = {**module._parameters, **{name: made[id(p)] for name, p in own.items()}}
        parent, _, name = path.rpartition(".")
        swaps.append((lm.get_submodule(parent), name, module, twin))
    return swaps


def merge(lm: PreTrainedModel, adapter: Adapter) -> None:
    """Add an adapter to the weights of a model that nobody else holds, for good, in the weights' precision.

    Raises:
        UserError: weights that do not fit the model.
    """
    _load(lm, adapter).merge_and_unload()
    for parameter in lm.parameters():
        parameter.requires_grad_(False)


def _load(lm: PreTrainedModel, adapter: Adapter) -> Any:
    """PEFT's wrapper around a model, whose layers it exchanges in place."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UserError("an adapter was given and peft is not installed; pip install peft") from error
    from safetensors.torch import load_file

    check_tensors(load_file(adapter.folder / WEIGHTS), f"adapter {str(adapter.folder)!r}", "train or fetch it again")
    training = lm.training
    try:
        with warnings.catch_warnings():  # peft asks transformers for an attribute by its old name
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            warnings.filterwarnings("error", message="Found missing adapter keys")  # layers that would do nothing
            wrapped = PeftModel.from_pretrained(lm, str(adapter.folder), autocast_adapter_dtype=False)
        if unused := _unused(wrapped, adapter):
            raise ValueError(f"no layer takes {unused[0]}")
    except (RuntimeError, ValueError, TypeError, KeyError, UserWarning) as error:
        raise UserError(
            f"adapter {str(adapter.folder)!r} does not fit {type(lm).__name__} ({str(error).splitlines()[0][:200]}); "
            "use the base that it was trained on"
        ) from error
    return wrapped.train(training)


def _unused(wrapped: Any, adapter: Adapter) -> list[str]:
    """The weights that PEFT passed over, for layers that the model lacks; such an adapter would act in part."""
    from peft import get_peft_model_state_dict
    from peft.utils.constants import EMBEDDING_LAYER_NAMES
    from safetensors import safe_open

    with safe_open(adapter.folder / WEIGHTS, "pt") as opened:
        kept = {name for name in opened.keys() if not any(one in name for one in EMBEDDING_LAYER_NAMES)}  # noqa: SIM118
    return sorted(kept - set(get_peft_model_state_dict(wrapped, save_embedding_layers=False)))


def swaps_of(lm: PreTrainedModel, before: Mapping[str, nn.Module]) -> list[Swap]:
    """PEFT's layers that are on, with the modules of `before` in whose places they stand."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    swaps: list[Swap] = []
    for path, module in list(lm.named_modules()):
        if path in before and before[path] is not module and isinstance(module, BaseTunerLayer):
            parent, _, name = path.rpartition(".")
            assert isinstance(module, nn.Module)
            swaps.append((lm.get_submodule(parent), name, before[path], module))
    return swaps


def take_off(lm: PreTrainedModel, before: Mapping[str, nn.Module]) -> list[Swap]:
    """Exchange PEFT's layers for the modules that stood in their places; what was exchanged."""
    swaps = swaps_of(lm, before)
    for parent, name, base, layer in swaps:
        layer.requires_grad_(False)
        setattr(parent, name, base)
    if hasattr(lm, "peft_config"):  # else PEFT takes the next adapter for a second one on the same layers
        del lm.peft_config
    return swaps


@contextmanager
def borrowed(lm: PreTrainedModel) -> Iterator[None]:
    """Train an adapter inside the context; after it the model is what it was, to the bit, and frozen."""
    before, training = dict(lm.named_modules()), lm.training
    try:
        yield
    finally:
        take_off(lm, before)
        lm.requires_grad_(False)
        lm.train(training)


def _wrap(lm: PreTrainedModel, adapter: Adapter) -> list[Swap]:
    before = dict(lm.named_modules())
    try:
        _load(lm, adapter)
    finally:
        swaps = take_off(lm, before)
    left = {p for p, m in lm.named_modules() if before.get(p) is not m}
    if left or not swaps:
        raise UserError(
            f"adapter {str(adapter.folder)!r} changes more than single layers ({', '.join(sorted(left)[:3])}); "
            "merge it into the base with PEFT and load that"
        )
    return swaps
