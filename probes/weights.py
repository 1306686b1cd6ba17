"""Differences of two checkpoints, tensor by tensor: how sparse, of what rank, and where (arXiv 2505.11711).

Update sparsity is 1 − ‖θ₁ − θ₀‖₀ / n. What it says depends on the precision: the same pair of checkpoints read 0.02%
unchanged in fp32, 70% at a relative tolerance, 80% after a cast to bf16. So every fraction is given in fp32 (exactly),
at |Δ| ≤ 1e-5, at |Δ| ≤ 1e-3 |θ₀| and after a cast to bf16, with the dtypes of both; and beside each stands that of a
*dense null*: θ₀ plus Gaussian noise of the same norm, rounded as θ₁ is stored. A sparsity that the null has as well is
one of the format and not of the training.

- Rank: singular values of Δ above what rounding to the stored dtypes could make. Stable rank: ‖Δ‖²_F / σ₁².
- Overlap of two differences: fractions of one support that lie in the other, beside what supports of the same sizes
  would share by chance in each tensor, and beside two dense nulls (small weights change first in both, so these overlap
  too).

Checkpoints are folders of safetensors, sharded or not, mappings of tensors, or a base with a LoRA adapter (B·A is added
a matrix at a time). One tensor is in memory at a time, with a few copies in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable
from zlib import crc32

import pandas as pd
import regex
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from probes.errors import UserError, as_expected
from probes.files import read_json
from probes.finite import check_tensors
from probes.lora_start import BESIDE, begins_in_base

ABSOLUTE, RELATIVE = 1e-5, 1e-3
SHARES = ("fp32", "absolute", "relative", "bf16")
PATIENCE = 1.0  # seconds for a pattern of a file, and a name
INDEX, ADAPTER_CONFIG = "model.safetensors.index.json", "adapter_config.json"


@runtime_checkable
class Checkpoint(Protocol):
    """Named tensors that are read one at a time."""

    def shapes(self) -> dict[str, tuple[int, ...]]: ...

    def read(self, name: str) -> Tensor: ...


@dataclass(frozen=True)
class Folder:
    """A folder of safetensors: `model.safetensors`, shards with their index, or whatever else lies there."""

    path: Path

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file of each tensor.

        Raises:
            UserError: no safetensors there, a shard that is missing or broken.
        """
        index = self.path / INDEX
        if index.is_file():
            with as_expected(repr(str(index)), "save or fetch the model again"):
                named = read_json(index, "save or fetch the model again")["weight_map"].values()
                shards = {self.path / name for name in named}
        else:
            shards = set(self.path.glob("*.safetensors"))
        if not shards:
            raise UserError(f"{str(self.path)!r} holds no safetensors; give a folder that save_pretrained wrote")
        out = {}
        for file in sorted(shards):
            for name in _opened(file).keys():  # noqa: SIM118  not a mapping
                out[name] = file
        return out

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(_opened(file).get_slice(name).get_shape()) for name, file in self.files.items()}

    def read(self, name: str) -> Tensor:
        return _opened(self.files[name]).get_tensor(name)


@dataclass(frozen=True)
class Loaded:
    """Tensors that are in memory, as `state_dict` gives them."""

    tensors: Mapping[str, Tensor]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name].detach().cpu()


class Pair(NamedTuple):
    """LoRA's two factors of a matrix by name, their scale, and whether the matrix is stored transposed."""

    a: str
    b: str
    scale: float
    transposed: bool


@dataclass(frozen=True)
class Adapted:
    """A base with a LoRA adapter merged in fp32, a matrix at a time."""

    base: Checkpoint
    folder: Path

    @cached_property
    def held(self) -> Folder:
        return Folder(self.folder)

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """For each matrix that the adapter changes its factors.

        Raises:
            UserError: no adapter, another kind than LoRA, a start that is taken out of the base, tensors beside its
                factors, a matrix that the base lacks.
        """
        file = self.folder / ADAPTER_CONFIG
        if not file.is_file():
            raise UserError(f"{str(self.folder)!r} holds no {ADAPTER_CONFIG}; give a folder that PEFT saved")
        config = read_json(file, "save or fetch the adapter again")
        with as_expected(repr(str(file)), "save or fetch the adapter again"):
            return self._pairs(config)

    def _pairs(self, config: dict[str, Any]) -> dict[str, Pair]:
        if config.get("peft_type") != "LORA" or config.get("use_dora"):
            kind = "DoRA" if config.get("use_dora") else config.get("peft_type")
            raise UserError(f"{str(self.folder)!r} is an adapter of kind {kind}; give LoRA, or merge it and give both")
        if begins_in_base(config):
            start = config.get("init_lora_weights")
            by = f"init_lora_weights {start!r}" if start not in BESIDE else "a kasa_config"
            raise UserError(
                f"{str(self.folder)!r} has {by}, by which PEFT takes the adapter's start out of "
                "the base when it loads it; merge it with PEFT and give both models"
            )
        shapes, out = self.base.shapes(), {}
        for name, shape in self.held.shapes().items():
            module, factor, rest = name.removeprefix("base_model.model.").rpartition(".lora_A")
            if not factor or rest != ".weight":
                if ".lora_B.weight" in name:
                    continue
                raise UserError(f"adapter tensor {name!r} is no factor of LoRA; merge the adapter and give both models")
            if f"{module}.weight" not in shapes:
                raise UserError(
                    f"the adapter changes {module!r}, which the base lacks; give the base it was trained on"
                )
            out[f"{module}.weight"] = Pair(
                name, name.replace(".lora_A.", ".lora_B."), _scale(config, module, shape[0]),
                bool(config.get("fan_in_fan_out")),
            )  # fmt: skip
        return out

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.base.shapes()

    def read(self, name: str) -> Tensor:
        before = self.base.read(name)
        if name not in self.pairs:
            return before
        pair = self.pairs[name]
        change = pair.scale * (self.held.read(pair.b).float() @ self.held.read(pair.a).float())
        change = change.T if pair.transposed else change
        if change.shape != before.shape:
            raise UserError(
                f"the adapter's {name!r} is {_shape(change.shape)} and the base's {_shape(before.shape)}; give the "
                "base that it was trained on"
            )
        return before.float() + change


Given = Checkpoint | Mapping[str, Tensor] | Path | str


@dataclass(frozen=True)
class Differences:
    """One row a tensor, and the same fractions over all of them (`n` weighted)."""

    table: pd.DataFrame
    summary: dict[str, Any]


def opened(given: Given, base: Given | None = None) -> Checkpoint:
    """A checkpoint; a folder with an adapter is put on `base`.

    Raises:
        UserError: a folder without safetensors, an adapter without a base.
    """
    if isinstance(given, Checkpoint):
        return given
    if isinstance(given, Mapping):
        return Loaded(given)
    path = Path(given).expanduser()
    if not path.is_dir():
        raise UserError(f"{str(given)!r} is no folder; give one with safetensors")
    if (path / ADAPTER_CONFIG).is_file():
        if base is None:
            raise UserError(f"{str(given)!r} is an adapter and no base was given; give the base that it was trained on")
        return Adapted(opened(base), path)
    return Folder(path)


def differences(before: Given, after: Given, *, ranks: bool = True, seed: int = 0) -> Differences:
    """What changed from one checkpoint to another.

    Args:
        before: the checkpoint that was trained on.
        after: what came out: a checkpoint of the same names and shapes, or the folder of a LoRA adapter on `before`.
        ranks: whether singular values are computed, the slowest part.
        seed: of the dense null.

    Returns:
        For each tensor its dtypes, `n`, fractions unchanged (`fp32`, `absolute`, `relative`, `bf16`) and those of the
        null (`null_…`), norms of the change, and for matrices `rank`, `stable_rank` and `full_rank`.

    Raises:
        UserError: checkpoints of other configurations, a file that cannot be read; weights that are packed in whole
            numbers, or NaN.
    """
    rows = [_row(name, *pair, ranks, seed) for name, pair in _pairs(opened(before), opened(after, before))]
    table = pd.DataFrame(rows).set_index("tensor")
    n = table["n"].sum()
    shares = {key: float((table[key] * table["n"]).sum() / n) for key in _share_names()}
    dtypes = {side: sorted(set(table[side])) for side in ("dtype_before", "dtype_after")}
    norm = float((table["norm"] ** 2).sum() ** 0.5)
    changed = table[table["norm"] > 0]
    summary = {"tensors": len(table), "changed_tensors": len(changed), "n": int(n), **dtypes, **shares, "norm": norm}
    if "rank" in changed:
        summary["mean_rank_share"] = float((changed["rank"] / changed["full_rank"]).mean())
    return Differences(table, summary)


def overlap(before: Given, one: Given, other: Given, *, tolerance: float = ABSOLUTE, seed: int = 0) -> Differences:
    """How far two trainings of one checkpoint changed the same weights.

    Args:
        before: the checkpoint that both were trained on.
        one, other: what came out.
        tolerance: a weight counts as changed where |Δ| is above it.

    Returns:
        For each tensor and over all: the sizes of both supports, the fraction of each that lies in the other
        (`of_one`, `of_other`), what chance would give, and the fractions between two dense nulls of the same norms. A
        fraction of an empty support is not defined: None.

    Raises:
        UserError: as `differences`.
    """
    start = opened(before)
    pairs = zip(_pairs(start, opened(one, before)), _pairs(start, opened(other, before)), strict=True)
    rows = []
    for (name, (first, one_after)), (_, (_, other_after)) in pairs:
        supports = [_support(first, after, tolerance) for after in (one_after, other_after)]
        nulls = [
            _support(first, _null(first, a, name, seed + i), tolerance) for i, a in enumerate((one_after, other_after))
        ]
        sizes, null_sizes = [int(s.sum()) for s in supports], [int(s.sum()) for s in nulls]
        rows.append({
            "tensor": name, "n": first.numel(), "one": sizes[0], "other": sizes[1],
            "both": int((supports[0] & supports[1]).sum()), "by_chance": sizes[0] * sizes[1] / max(1, first.numel()),
            "null_one": null_sizes[0], "null_other": null_sizes[1], "null_both": int((nulls[0] & nulls[1]).sum()),
        })  # fmt: skip
    table = pd.DataFrame(rows).set_index("tensor")
    summary: dict[str, Any] = {"tolerance": tolerance, **_shared(table.sum().to_dict())}
    shared = pd.DataFrame([_shared(row) for row in table.to_dict("records")], index=table.index)
    return Differences(shared, summary)


def _shared(counts: Mapping[Any, Any]) -> dict[str, Any]:
    """Counts of supports as fractions of each other."""

    def share(part: str, whole: str) -> float | None:
        return float(counts[part] / counts[whole]) if counts[whole] else None

    return {
        **{key: int(counts[key]) for key in ("n", "one", "other", "both")},
        "of_one": share("both", "one"),
        "of_other": share("both", "other"),
        "chance_of_one": share("by_chance", "one"),
        "chance_of_other": share("by_chance", "other"),
        "null_of_one": share("null_both", "null_one"),
        "null_of_other": share("null_both", "null_other"),
    }


def _share_names() -> list[str]:
    return [*SHARES, *(f"null_{name}" for name in SHARES)]


def _pairs(before: Checkpoint, after: Checkpoint) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Both checkpoints' tensors of floating point, one name at a time; others (positions, masks) are the same in both.

    Raises:
        UserError: a name that one of them lacks, another shape; whole numbers that differ, as of quantised weights;
            NaN or infinity; nothing of floating point.
    """
    old, new = before.shapes(), after.shapes()
    if alone := sorted(set(old) ^ set(new)):
        raise UserError(
            f"{len(alone)} tensors stand in one checkpoint alone ({', '.join(alone[:3])}); give two of one "
            "configuration"
        )
    for name in old:
        if old[name] != new[name]:
            raise UserError(
                f"{name!r} is {_shape(old[name])} in one checkpoint and {_shape(new[name])} in the other; give two of "
                "one configuration"
            )
    met = False
    for name in sorted(old):
        first, second = before.read(name), after.read(name)
        if not (first.is_floating_point() and second.is_floating_point()):
            if first.dtype != second.dtype or not torch.equal(first, second):
                raise UserError(
                    f"{name!r} is {_dtype(first)} and {_dtype(second)} and differs; packed weights cannot be compared: "
                    "give both checkpoints in floating point"
                )
            continue
        check_tensors({name: first}, "the checkpoint before", "give another")
        check_tensors({name: second}, "the checkpoint after", "give another")
        met = True
        yield name, (first, second)
    if not met:
        raise UserError("the checkpoints hold no tensor of floating point; give two of a model")


def _row(name: str, before: Tensor, after: Tensor, ranks: bool, seed: int) -> dict[str, Any]:
    change = after.float() - before.float()
    norm, whole = float(torch.linalg.vector_norm(change)), float(torch.linalg.vector_norm(before.float()))
    out: dict[str, Any] = {
        "tensor": name, "shape": _shape(before.shape), "n": before.numel(),
        "dtype_before": _dtype(before), "dtype_after": _dtype(after),
        **_unchanged(before, after),
        **{f"null_{k}": v for k, v in _unchanged(before, _null(before, after, name, seed)).items()},
        "norm": norm, "relative_norm": norm / whole if whole else math.inf if norm else 0.0,
    }  # fmt: skip
    if ranks and before.ndim == 2:
        rank, stable = _ranks(change, after)
        out |= {"rank": rank, "stable_rank": stable, "full_rank": min(before.shape)}
    return out


def _unchanged(before: Tensor, after: Tensor) -> dict[str, float]:
    """The fractions of weights that did not change, by each reading."""
    if not before.numel():
        return dict.fromkeys(SHARES, 1.0)
    old, new = before.float(), after.float()
    size = (new - old).abs()
    same = (size == 0, size <= ABSOLUTE, size <= RELATIVE * old.abs(), old.bfloat16() == new.bfloat16())
    return {name: float(one.double().mean()) for name, one in zip(SHARES, same, strict=True)}


def _null(before: Tensor, after: Tensor, name: str, seed: int) -> Tensor:
    """θ₀ and Gaussian noise of the change's norm, rounded as θ₁ is stored."""
    generator = torch.Generator().manual_seed(crc32(f"{seed} {name}".encode()))  # 32 bits are all that it reads
    noise = torch.randn(before.shape, generator=generator)
    length = torch.linalg.vector_norm(noise)
    if length > 0:
        noise *= torch.linalg.vector_norm(after.float() - before.float()) / length
    return noise.add_(before.float()).to(after.dtype)


def _support(before: Tensor, after: Tensor, tolerance: float) -> Bool[Tensor, "..."]:
    return (after.float() - before.float()).abs() > tolerance


def _ranks(change: Float[Tensor, "m n"], after: Float[Tensor, "m n"]) -> tuple[int, float]:
    """Numerical and stable rank.

    Rounding θ₁ to its dtype moves an entry by at most u |θ₁|, u half a unit in the last place. The largest singular
    value of such noise is below u rms(θ₁) (√m + √n); what is smaller, or smaller than svdvals' own error, counts for 0.
    """
    sigma = torch.linalg.svdvals(change)
    if not len(sigma) or sigma[0] == 0:
        return 0, 0.0
    m, n = change.shape
    unit = torch.finfo(after.dtype).eps / 2
    rms = float(torch.linalg.vector_norm(after.float())) / math.sqrt(m * n)
    rounding = unit * rms * (math.sqrt(m) + math.sqrt(n))
    floor = max(rounding, max(m, n) * torch.finfo(torch.float32).eps * float(sigma[0]))
    return int((sigma > floor).sum()), float((sigma**2).sum() / sigma[0] ** 2)


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """LoRA's alpha / r, or alpha / √r; the first pattern that fits a module's name goes before the whole: a regular
    expression for the end of the name, from a dot on, as PEFT reads it."""
    patterns = config.get("alpha_pattern") or {}
    try:
        fitting = [v for k, v in patterns.items() if regex.match(rf"(.*\.)?({k})$", module, timeout=PATIENCE)]
    except (regex.error, TimeoutError) as error:
        raise ValueError(f"alpha_pattern holds what is no pattern, or takes too long: {list(patterns)}") from error
    alpha = fitting[0] if fitting else config["lora_alpha"]
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _shape(shape: Any) -> str:
    return "×".join(str(side) for side in shape)


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{str(file)!r} is not a whole safetensors file ({error}); save or fetch it again") from error
