"""What happens to files: cuts, flipped bits, pieces lost, doubled, blanked or mixed up, values of another type."""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import tomli_w

OTHERS: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 10**8, 10**30, 0.5, "", "x", "\ud800", [], [1], ["x"], {}, {"a": 1}, float("nan"),
    float("inf"), [[]], [None],
)  # fmt: skip


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flipped(data: bytes, rng: random.Random) -> bytes:
    return flip(data, rng.randrange(8 * len(data)))


def flip(data: bytes, bit: int) -> bytes:
    """One bit is another."""
    place, within = divmod(bit, 8)
    return data[:place] + bytes([data[place] ^ 1 << within]) + data[place + 1 :]


def _piece(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice([1, 2, 8, 64, len(data)]))


def lost(data: bytes, rng: random.Random) -> bytes:
    start, end = _piece(data, rng)
    return data[:start] + data[end:]


def doubled(data: bytes, rng: random.Random) -> bytes:
    start, end = _piece(data, rng)
    return data[:end] + data[start:]


def blanked(data: bytes, rng: random.Random) -> bytes:
    start, end = _piece(data, rng)
    return data[:start] + bytes([rng.choice([0, 255])]) * (end - start) + data[end:]


def written_over(data: bytes, rng: random.Random) -> bytes:
    start, end = _piece(data, rng)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def retyped(form: str) -> Callable[[bytes, random.Random], bytes]:
    """A value, or a whole file or line, becomes one of another type, or is left out; the file stays well-formed."""

    def changed(data: bytes, rng: random.Random) -> bytes:
        if form == "toml":
            held = _with_another(tomllib.loads(data.decode()), rng, [o for o in OTHERS if _in_toml(o)])
            return tomli_w.dumps(held if isinstance(held, dict) else {"x": held}).encode()
        if form == "json":
            return json.dumps(_with_another(json.loads(data), rng, OTHERS)).encode()
        lines = data.splitlines()
        n = rng.randrange(len(lines))
        lines[n] = json.dumps(_with_another(json.loads(lines[n]), rng, OTHERS)).encode()
        return b"\n".join(lines) + b"\n"

    return changed


def _in_toml(value: Any) -> bool:
    return value is not None and value not in ("\ud800", [None])


def _with_another(value: Any, rng: random.Random, others: Any) -> Any:
    places = list(_places(value, ()))
    *path, last = rng.choice(places) or (None,)
    if last is None:
        return rng.choice(others)
    holder = value
    for step in path:
        holder = holder[step]
    if rng.random() < 0.2:
        del holder[last]
    else:
        holder[last] = rng.choice(others)
    return value


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from _places(one, (*path, key))


DAMAGES = (cut, flipped, lost, doubled, blanked, written_over)


def damaged(data: bytes, form: str, rng: random.Random) -> bytes:
    """The file after one damage; where its values have types, every second one is of these."""
    if form and rng.random() < 0.5:
        return retyped(form)(data, rng)
    return rng.choice(DAMAGES)(data, rng)
