"""Frozen descriptions as JSON, their tensors as safetensors: written, read back, hashed. Nothing is pickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from probes.errors import UserError, as_expected
from probes.files import make_folder, whole, write_whole


class _Kinds(dict[str, type[Any]]):
    """Classes by name. To a server, which has no `elicit`, go those of `probes` and `steering` alone."""

    def __reduce__(self) -> tuple[Any, ...]:
        own = {name: cls for name, cls in self.items() if cls.__module__.split(".")[0] in ("probes", "steering")}
        return dict, (), None, None, iter(own.items())  # items last: the classes name this table themselves


KINDS = _Kinds()
T = TypeVar("T", bound=type[Any])


def register(cls: T) -> T:
    """Let a dataclass be packed and unpacked under its name."""
    if cls.__name__ in KINDS:
        raise ValueError(f"{cls.__name__} is registered already")
    KINDS[cls.__name__] = cls
    return cls


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What JSON can hold of a description; its tensors go into `tensors`, equal ones once."""
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous()
        key = hashlib.sha256(str((data.dtype, tuple(data.shape))).encode() + _bytes(data)).hexdigest()[:24]
        held = {one.untyped_storage().data_ptr() for one in tensors.values()}
        tensors[key] = data.clone() if data.untyped_storage().data_ptr() in held else data  # safetensors shares nothing
        return {"tensor": key}
    if is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        if KINDS.get(name) is not type(value):
            raise ValueError(f"{name} is not registered")
        kept = {f.name: pack(getattr(value, f.name), tensors) for f in fields(value) if f.init}
        return {"kind": name, **kept}
    if isinstance(value, Mapping):
        return {"map": {str(k): pack(v, tensors) for k, v in value.items()}}
    if isinstance(value, tuple | list):
        return [pack(v, tensors) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{type(value).__name__} cannot be kept as JSON")


def numbers_in(value: Any) -> int:
    """How many numbers the tensors of a description hold, equal tensors once."""
    tensors: dict[str, Tensor] = {}
    pack(value, tensors)
    return sum(one.numel() for one in tensors.values())


def unpack(data: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack`; lists come back as tuples.

    Raises:
        UserError: an unknown kind, a missing tensor, a field that the kind lacks.
    """
    if isinstance(data, list):
        return tuple(unpack(v, tensors) for v in data)
    if not isinstance(data, dict):
        return data
    if set(data) == {"tensor"}:
        if data["tensor"] not in tensors:
            raise UserError(f"tensor {data['tensor']} is named and not there; the file was cut or mixed with another")
        return tensors[data["tensor"]]
    if set(data) == {"map"}:
        return {k: unpack(v, tensors) for k, v in data["map"].items()}
    arguments = dict(data)
    name = arguments.pop("kind", None)
    if name not in KINDS:
        raise UserError(f"kind {name!r} is unknown here; the file was written by another version or is not one of ours")
    known = {f.name for f in fields(KINDS[name])}
    if not set(arguments) <= known:
        raise UserError(f"{name} has no {', '.join(sorted(set(arguments) - known))}; the file is of another version")
    return KINDS[name](**{k: unpack(v, tensors) for k, v in arguments.items()})


def digest(value: Any) -> str:
    """A hash of a description's content, tensors included."""
    return hashlib.sha256(json.dumps(pack(value, {}), sort_keys=True).encode()).hexdigest()[:16]


def _bytes(data: Tensor) -> bytes:
    return data.flatten().view(torch.uint8).numpy().tobytes() if data.numel() else b""


def write(folder: Path, name: str, value: Any) -> list[Path]:
    """`name.json` and, where it has tensors, `name.safetensors`; each appears whole or not at all."""
    from safetensors.torch import save_file

    make_folder(folder)
    tensors: dict[str, Tensor] = {}
    data = pack(value, tensors)
    paths = [folder / f"{name}.json"]
    if tensors:
        paths.insert(0, folder / f"{name}.safetensors")
        with whole(paths[0]) as part:
            save_file(tensors, part)
    write_whole(paths[-1], json.dumps(data, indent=2))
    return paths


def read(folder: Path, name: str) -> Any:
    """What `write` wrote.

    Raises:
        UserError: not there, not JSON, not safetensors, truncated.
    """
    file = folder / f"{name}.json"
    if not file.is_file():
        raise UserError(f"{str(folder)!r} holds no {file.name}; give a folder that was saved here")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(file)!r} is not JSON ({error}); save it again") from error
    held = folder / f"{name}.safetensors"
    tensors = read_tensors(held) if held.is_file() else {}
    with as_expected(repr(str(file)), "save it again"):
        try:
            return unpack(data, tensors)
        except UserError as error:
            raise UserError(f"{str(file)!r}: {error}") from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UserError: not there, not safetensors, truncated.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise UserError(f"{str(file)!r} is not there; give a safetensors file")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{str(file)!r} is not a whole safetensors file ({error}); save or fetch it again") from error
