"""`manifest.json` of a repository: what was pushed, and the SHA-256 and size of each file.

    {"format": "elicit", "schema": 1, "kind": "bundle", "elicit": "0.1.0",
     "files": {"elicited.json": {"sha256": "…", "bytes": 1234}, …}}

It goes into the same commit as the files that it names, so that the hub never shows one without the other. A repository
without it, or without a file that it names, was filled by something else, or half.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from elicit.hub.kinds import KINDS, Found, Kind
from probes.errors import UserError
from probes.files import sha256_of

NAME, FORMAT, SCHEMA = "manifest.json", "elicit", 1
MOST = 1 << 20  # bytes of a manifest
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Entry(NamedTuple):
    """A file as it was pushed."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a repository holds, by the paths that its files have in the folder."""

    kind: Kind
    files: Mapping[str, Entry]

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.files.values())

    def to_json(self) -> str:
        files = {name: one._asdict() for name, one in sorted(self.files.items())}
        head = {"format": FORMAT, "schema": SCHEMA, "kind": self.kind.name, "elicit": version("elicit")}
        return json.dumps({**head, "files": files}, indent=2) + "\n"

    def check(self, name: str, path: Path, what: str) -> None:
        """Hold a file that was fetched to what was pushed.

        Raises:
            UserError: another size or another hash.
        """
        wanted, size = self.files[name], path.stat().st_size
        if size != wanted.bytes:
            raise UserError(
                f"{name} of {what} has {size} bytes and was pushed with {wanted.bytes}; nothing was kept: "
                "fetch it again, or ask for it to be pushed again"
            )
        if sha256_of(path) != wanted.sha256:
            raise UserError(
                f"{name} of {what} has another SHA-256 than the one it was pushed with; nothing was kept: "
                "fetch it again, or ask for it to be pushed again"
            )


def manifest_of(found: Found) -> Manifest:
    """Of a folder that is about to be pushed."""
    files = {name: Entry(sha256_of(path), path.stat().st_size) for name, path in found.files.items()}
    return Manifest(found.kind, files)


def read(path: Path, what: str) -> Manifest:
    """A repository's manifest.

    Raises:
        UserError: it was written by something else, by a later version, or names files that its kind has not.
    """
    if path.stat().st_size > MOST:
        raise UserError(f"{NAME} of {what} is no manifest of ours; give a repository that was pushed by elicit")
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{NAME} of {what} is not JSON; give a repository that was pushed by elicit") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("files"), dict):
        raise UserError(f"{NAME} of {what} was written by another program; give a repository that elicit pushed")
    kind = KINDS.get(str(data.get("kind")))
    if data.get("schema") != SCHEMA or kind is None:
        raise UserError(
            f"{what} holds a {str(data.get('kind'))!r} of schema {data.get('schema')!r}, which this version "
            f"({version('elicit')}) does not know; install a newer one"
        )
    if unexpected := [name for name in data["files"] if name not in kind.files]:
        raise UserError(
            f"{what} names {unexpected[0]!r}, which no {kind.name} holds; install a newer version of elicit"
        )
    return Manifest(kind, {name: _entry(name, one, what) for name, one in data["files"].items()})


def _entry(name: str, data: Any, what: str) -> Entry:
    sha256, size = (data.get("sha256"), data.get("bytes")) if isinstance(data, dict) else (None, None)
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or type(size) is not int or size < 0:
        raise UserError(f"{NAME} of {what} gives no SHA-256 and size for {name}; ask for it to be pushed again")
    return Entry(sha256, size)
