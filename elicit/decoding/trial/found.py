"""What a trial found, where it is kept, and the way that follows from it."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from elicit.decoding.cache import PADDED, WAYS, ways
from elicit.decoding.trial.checks import (
    Finding,
    Rows,
    added,
    attempt,
    capturing,
    decoded,
    decoding,
    reference,
    steering,
    tried,
)
from elicit.decoding.trial.twin import twin, twin_config
from elicit.models.download import cache_dir
from probes.errors import UserError, as_expected
from probes.sealed import read_sealed, write_sealed
from probes.sites import paused

SCHEMA = 1  # of what is tried; what was found by another is tried again
FULL, HALF = 0.02, 0.25  # how far real weights may be off, in standard deviations of a position's log-probabilities
TRIED = (
    "elicit.decoding.cache", "elicit.decoding.own_cache", "elicit.decoding.shared_prefix", "probes.batching",
    "probes.capture", "probes.clock", "probes.sites", "steering.editor", "steering.hooks",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What was found of a class and a shape.

    Args:
        model: the class.
        subject: what was tried: the twin, or why the model itself.
        decoded: each way, and how far its log-probabilities were off.
        steered: the same with every other prompt steered.
        captured: how far activations of a ragged batch were off.
        seconds: that it took.
    """

    model: str
    subject: str
    decoded: dict[str, Finding]
    steered: dict[str, Finding]
    captured: Finding
    seconds: float

    @staticmethod
    def read(memo: Path) -> Trial:
        """What was kept.

        Raises:
            UserError: a file that is not as it was written.
        """
        with as_expected(f"what was tried of a model ({str(memo)!r})", "remove it"):
            given, _ = read_sealed(memo, "remove it")
            for name in ("decoded", "steered"):
                given[name] = {way: Finding(**one) for way, one in given[name].items()}
            return Trial(**{**given, "captured": Finding(**given["captured"])})

    def first(self, *, steered: bool = False, among: tuple[str, ...] = WAYS) -> str:
        """The first way that was exact, or "". Steering is never tried in a way that was not."""
        found = self.steered if steered else self.decoded
        return next((way for way in among if way in found and found[way].right), "")


@torch.no_grad()
def tried_of(lm: PreTrainedModel, subject: str) -> Trial:
    """Try all there is with this very model.

    Args:
        lm: a twin, or a model of one's own that is small.
        subject: what it is, for the record.
    """
    began = time.perf_counter()
    rows = Rows.of(lm)
    wanted = reference(lm, rows)
    if not wanted.isfinite().any(-1).all():
        raise UserError(f"the forward of {type(lm).__name__} makes no numbers")
    decoded = {way: tried(partial(decoding, lm, rows, way, wanted)) for way in ways(lm)}
    moved = attempt(partial(reference, lm, rows, partial(added, lm)))
    right = [way for way, found in decoded.items() if found.right]
    if isinstance(moved, Finding):
        steered = dict.fromkeys(right, moved)
    else:
        steered = {way: tried(partial(steering, lm, rows, way, wanted, moved)) for way in right}
    captured = tried(partial(capturing, lm, rows))
    return Trial(type(lm).__name__, subject, decoded, steered, captured, round(time.perf_counter() - began, 2))


_TRIALS: weakref.WeakKeyDictionary[PreTrainedModel, Trial] = weakref.WeakKeyDictionary()
_CONFIRMED: weakref.WeakKeyDictionary[PreTrainedModel, dict[str, float]] = weakref.WeakKeyDictionary()


def trial_of(lm: PreTrainedModel, *, again: bool = False) -> Trial:
    """What a trial of this class and shape found; made where none is kept, or `again`.

    Raises:
        UserError: a model whose forward fails, or makes no numbers.
    """
    if again or lm not in _TRIALS:
        _TRIALS[lm] = _kept_or_made(lm, again)
    return _TRIALS[lm]


def _kept_or_made(lm: PreTrainedModel, again: bool) -> Trial:
    memo = _memo(lm)
    if not again and memo is not None and memo.is_file():
        return Trial.read(memo)
    small = attempt(lambda: _ran(twin(lm)))
    with paused(lm):
        found = (
            tried_of(lm, f"the model itself, since a twin cannot be built: {small.reason}")
            if isinstance(small, Finding)
            else tried_of(small, "a random twin of the same class and configuration")
        )
    if memo is not None:
        with suppress(OSError):  # where nothing can be kept it is tried again
            memo.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(memo, asdict(found))
    return found


@torch.inference_mode()
def _ran(lm: PreTrainedModel) -> PreTrainedModel:
    lm(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    return lm


def _memo(lm: PreTrainedModel) -> Path | None:
    """Where a trial's findings are kept; None where what the class does cannot be told by its source."""
    try:
        source = inspect.getsource(sys.modules[type(lm).__module__])
        small = twin_config(lm.config).to_dict()
    except (OSError, TypeError, KeyError, ValueError, AttributeError):
        return None
    given = [SCHEMA, type(lm).__qualname__, source, small, lm.config._attn_implementation, ways(lm)]
    given += [torch.__version__, transformers.__version__, _own_source()]
    name = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return cache_dir() / "trials" / f"{type(lm).__name__}-{name}.json"


@cache
def _own_source() -> str:
    """Of what is tried and what tries it, hashed."""
    names = [name for name in sys.modules if name.startswith(f"{__package__}.")]
    files = [sys.modules[name].__file__ or "" for name in sorted({*names, *TRIED})]
    return hashlib.sha256("".join(Path(file).read_text(encoding="utf-8") for file in files).encode()).hexdigest()


def way_of(lm: PreTrainedModel, *, steered: bool = False, shared: bool = True) -> str:
    """The way in which a model is decoded, the first that its twin's trial and its own weights found exact.

    Args:
        steered: whether interventions act meanwhile.
        shared: whether the attention may be exchanged.

    Raises:
        UserError: no way is right; the class and the reasons are named.
    """
    found = trial_of(lm)
    among = [way for way in ways(lm) if shared or way != "shared-prefix"]
    for way in among:
        if found.first(steered=steered, among=(way,)) and confirmed(lm, way) <= _limit(lm):
            return way
    raise UserError(refusal(lm, found, among, steered))


def refusal(lm: PreTrainedModel, found: Trial, among: Sequence[str], steered: bool) -> str:
    """Why no way is right, in one line."""
    table = found.steered if steered and found.steered else found.decoded
    told = "; ".join(dict.fromkeys(f"{table[way]}" for way in among if way in table))
    what = "steered" if steered and found.first() else "decoded"
    return (
        f"{type(lm).__name__} cannot be {what} as its own forward would have it ({told or 'no way was exact'}); "
        "use another model, or see `elicit models check`"
    )


def _limit(lm: PreTrainedModel) -> float:
    return FULL if lm.dtype in (torch.float32, torch.float64) else HALF


@torch.inference_mode()
def confirmed(lm: PreTrainedModel, way: str) -> float:
    """How far the real weights are off in a way: two ragged prompts, two cached steps, five forwards, done once.

    Returns:
        The root mean square of the difference of log-probabilities, the largest over positions, in standard deviations
        of the position's own; infinity where it cannot be done, and 0 where the model makes no numbers, which whoever
        decodes will be told.
    """
    known = _CONFIRMED.setdefault(lm, {})
    if way in known:
        return known[way]
    if way == "uncached":
        return 0.0
    rows = Rows.of(lm).pair(alike=way not in PADDED)
    with paused(lm):
        wanted = reference(lm, rows, at_once=True)
        found = attempt(partial(decoded, lm, rows, way))
    if isinstance(found, Finding):  # the twin lacks what stands in the way here
        known[way] = math.inf
        return known[way]
    if not (found.isfinite().any(-1).all() and wanted.isfinite().any(-1).all()):
        return 0.0
    difference = (found - wanted).nan_to_num(0.0).square().mean(-1).sqrt()
    known[way] = float((difference / wanted.std(-1).clamp(min=1e-3)).max())
    return known[way]
