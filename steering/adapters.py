"""What a training made of a base that is shared, on inside a context and gone after it: PEFT adapters (LoRA and its
kin), or all of its weights.

The base's modules are exchanged for PEFT's wrapped ones, or for twins that hold the trained weights, and put back, so
that outside the context the base is what it was, to the bit, and two handles on one base cannot see each other's
training. What an adapter writes to the base itself (`bias`, initialisations that take their start out of it) goes to
copies. The modules are kept, so that opening the context again costs nothing; of whole weights those of one training
are, since each is a model.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from probes.description import Base, Part
from probes.errors import UserError
from probes.files import sha256_of
from probes.finite import check_tensors
from probes.sealed import check_tensors_file
from steering.adapter_kinds import check_kind, check_options, writes
from steering.exchange import Kept, Swap, alone, answer_of, exchanged, same, twin

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WHOLE_FILES = ("config.json", "model.safetensors")  # the configuration, and all weights in one file
PICKLED = "adapter_model.bin"
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
SHARE = 1e-5  # of the largest logit, by which an adapted model may differ from PEFT's
MERGED = 0.01  # of what an adapter changes, by which a merged model may differ from the adapted one
_WRAPPED: weakref.WeakKeyDictionary[nn.Module, dict[str, list[Swap]]] = weakref.WeakKeyDictionary()
_ON: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_EXCHANGED: weakref.WeakKeyDictionary[nn.Module, tuple[str, list[Swap]]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Adapter:
    """A folder as PEFT saves it, with safetensors.

    Raises:
        UserError: files missing, cut, or weights that are pickled; a kind that is not of layers
            (`steering.adapter_kinds`).
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        for name in (CONFIG, WEIGHTS):
            if not (self.folder / name).is_file():
                if name == WEIGHTS and (self.folder / PICKLED).is_file():
                    raise UserError(
                        f"{self} holds a pickled {PICKLED}, which is not opened; write it as safetensors "
                        "(docs/reference/files.md shows how)"
                    )
                raise UserError(f"{self} holds no {name}; save one with PEFT's save_pretrained")
        check_kind(self.config, str(self))

    def __str__(self) -> str:
        return f"adapter {str(self.folder)!r}"

    @cached_property
    def config(self) -> dict[str, Any]:
        """What its configuration says."""
        try:
            data = json.loads((self.folder / CONFIG).read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self} has a {CONFIG} that is not JSON ({error}); save or fetch it again") from error
        if not isinstance(data, dict):
            raise UserError(f"{self} has a {CONFIG} that is no object; save or fetch it again")
        return data

    def warn_of_base(self, name: str) -> None:
        """Say so where the configuration names another base than the model `name`; folders' names say nothing."""
        named = str(self.config.get("base_model_name_or_path") or "")
        if _HUB.fullmatch(named) and _HUB.fullmatch(name) and named.lower() != name.lower():
            warnings.warn(f"{self} was made for {named}, and is put on {name}", stacklevel=2)

    @cached_property
    def sha256(self) -> str:
        """Over the weights and the configuration, paths in it aside."""
        total = hashlib.sha256(_settings_text(self.config))
        total.update((self.folder / WEIGHTS).read_bytes())
        return total.hexdigest()

    def description(self, base: Base) -> list[Part]:
        """Its weights as they lie on disk."""
        return [Part("weights of an adapter", 8.0 * (self.folder / WEIGHTS).stat().st_size)]

    def tensors(self) -> dict[str, Tensor]:
        """Its weights, by PEFT's names.

        Raises:
            UserError: a file that is cut, changed or of another kind, NaN or infinity.
        """
        from safetensors.torch import load_file

        own = hash_of_settings(self.config)
        check_tensors_file(self.folder / WEIGHTS, str(self), "train or fetch it again", own)
        try:
            tensors = load_file(self.folder / WEIGHTS)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self} has a {WEIGHTS} that cannot be read ({error}); fetch it again") from error
        check_tensors(tensors, str(self), "train or fetch it again")
        return tensors


def hash_of_settings(config: dict[str, Any]) -> str:
    """SHA-256 of an adapter's configuration, the name of its base aside, which may be a path."""
    return hashlib.sha256(_settings_text(config)).hexdigest()


def _settings_text(config: dict[str, Any]) -> bytes:
    return json.dumps({k: v for k, v in config.items() if k != "base_model_name_or_path"}, sort_keys=True).encode()


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

    def description(self, base: Base) -> list[Part]:
        """All of them as they lie on disk."""
        return [Part("all weights", 8.0 * (self.folder / WHOLE_FILES[1]).stat().st_size)]

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
        UserError: weights that do not fit the model, an adapter that computes something else here than in PEFT.
    """
    if tuned is None:
        yield
        return
    on = UserError("an adapter is on already; close its context before another is opened")
    if lm in _ON:
        raise on
    swaps = _swaps(lm, tuned)
    for parent, name, base, _ in swaps:
        if getattr(parent, name) is not base:
            raise on
    _ON.add(lm)
    try:
        with exchanged(swaps):
            yield
    finally:
        _ON.discard(lm)


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
    """The exchanged modules of a training, made when they are first asked for.

    They are kept, so their tensors are ordinary ones also where that is within inference mode.
    """
    with torch.inference_mode(False):
        return _kept_swaps(lm, tuned)


def _kept_swaps(lm: PreTrainedModel, tuned: Tuned) -> list[Swap]:
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
        if all(p is None for p in module._parameters.values()):
            continue
        parent, _, name = path.rpartition(".")
        swaps.append((lm.get_submodule(parent), name, module, twin(module, made)))
    return swaps


def merge(lm: PreTrainedModel, adapter: Adapter) -> None:
    """Add an adapter to the weights of a model that nobody else holds, for good, in the weights' precision.

    What was merged is held to the adapted model; in 16 bits, where weights are rounded anew, it is not.

    Raises:
        UserError: weights that do not fit the model, an adapter that cannot be merged; the model is what it was.
    """
    kept = Kept(lm, weights=True)
    try:
        with alone(lm):
            plain = answer_of(lm, lm)
            wrapped = _load(lm, adapter)
            if tied := _tied(lm):
                raise UserError(
                    f"{adapter} cannot be merged: its layers at {' and '.join(tied)} act on a weight that "
                    f"{type(lm).__name__} uses in two places, and merged they would act in both; put it on instead"
                )
            adapted = answer_of(wrapped, lm)
            wrapped.merge_and_unload()
            merged = answer_of(lm, lm)
        off, change = (float((one - adapted).abs().max()) for one in (merged, plain))
        if lm.dtype.itemsize > 2 and off > MERGED * change + SHARE * float(adapted.abs().max()):
            raise UserError(
                f"{adapter} cannot be merged into {type(lm).__name__}: logits differ by {off:.1g} from those of the "
                "adapted model; put it on instead"
            )
    except BaseException:
        kept.put_back()
        raise
    if hasattr(lm, "peft_config"):
        del lm.peft_config
    lm.requires_grad_(False)


def _tied(lm: PreTrainedModel) -> list[str]:
    """PEFT's layers on a weight that several modules share; those of single tokens act in all of them."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    uses: dict[int, set[int]] = {}
    for module in lm.modules():
        for p in module._parameters.values():
            uses.setdefault(id(p), set()).add(id(module))
    return [
        path
        for path, layer in lm.named_modules()
        if isinstance(layer, BaseTunerLayer)
        and not isinstance(layer, TrainableTokensLayer)
        and any(len(uses[id(p)]) > 1 for p in layer.get_base_layer()._parameters.values() if p is not None)
    ]


def _load(lm: PreTrainedModel, adapter: Adapter) -> Any:
    """PEFT's wrapper around a model, whose layers it exchanges in place."""
    try:
        import peft
    except ImportError as error:
        raise UserError("an adapter was given and peft is not installed; pip install peft") from error
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    names = set(adapter.tensors())
    kind: Any = PEFT_TYPE_TO_CONFIG_MAPPING.get(adapter.config["peft_type"])
    if kind is None:
        raise UserError(
            f"{adapter} is of the kind {adapter.config['peft_type']}, which peft {peft.__version__} does not know; "
            "pip install a newer one"
        )
    check_options(adapter.config, {one.name for one in fields(kind)}, peft.__version__, str(adapter))
    try:
        with warnings.catch_warnings():  # peft asks transformers for an attribute by its old name
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            warnings.filterwarnings("error", message="Found missing adapter keys")  # layers that would do nothing
            config = peft.PeftConfig.from_peft_type(
                **{k: v for k, v in adapter.config.items() if k != "runtime_config"}
            )
            wrapped = peft.PeftModel.from_pretrained(
                lm, str(adapter.folder), config=config, autocast_adapter_dtype=False
            )
        if unused := sorted(names - _taken(wrapped)):
            raise ValueError(f"no layer takes {unused[0]}")
    except Exception as error:  # whatever PEFT says of a file that does not fit
        told = str(error).strip().splitlines() or [type(error).__name__]
        reason = told[1].strip() if told[0].endswith(":") and len(told) > 1 else told[0]  # torch's heading says nothing
        named = adapter.config.get("base_model_name_or_path")
        raise UserError(
            f"{adapter} does not fit {type(lm).__name__} ({reason[:200]}); "
            f"use the base that it was trained on{f', {named!r}' if named else ''}"
        ) from error
    return wrapped


def _taken(wrapped: Any) -> set[str]:
    """The names of weights that PEFT has a place for; it passes over others, and such an adapter would act in part."""
    from peft import get_peft_model_state_dict

    whole = {name for name, _ in wrapped.named_parameters(remove_duplicate=False)}  # embeddings that were saved whole
    return whole | set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))


@contextmanager
def borrowed(lm: PreTrainedModel) -> Iterator[Kept]:
    """Train an adapter inside the context; after it the model is what it was, to the bit, and frozen."""
    kept = Kept(lm, weights=False)
    try:
        yield kept
    finally:
        kept.put_back()
        lm.requires_grad_(False)


def _wrap(lm: PreTrainedModel, adapter: Adapter) -> list[Swap]:
    """PEFT's modules and those whose places they take, held to what PEFT's own model computes."""
    names = [name for name, _ in lm.named_parameters(remove_duplicate=False)]
    with alone(lm):
        plain = answer_of(lm, lm)
        kept = Kept(lm, weights=writes(adapter.config, adapter.tensors(), names))
        try:
            peers = answer_of(_load(lm, adapter), lm)
            kept.separate()
            swaps = kept.brought()
            for _, _, _, brought in swaps:
                brought.requires_grad_(False)
        finally:
            kept.put_back()
        with exchanged(swaps):
            ours = answer_of(lm, lm)
        after = answer_of(lm, lm)
    if not same(after, plain, SHARE):
        raise RuntimeError(f"{adapter} changed the base; load the base anew")
    if not swaps or not same(ours, peers, SHARE):
        raise UserError(
            f"{adapter} computes something else with its layers alone than in PEFT's own model (logits differ by "
            f"{float((ours - peers).abs().max()):.1g}); merge it into the base with PEFT and load that"
        )
    for _, _, _, brought in swaps:
        brought.train(lm.training)
    return swaps
