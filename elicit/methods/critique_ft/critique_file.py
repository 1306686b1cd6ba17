"""Critiques from a file: JSON Lines or one JSON array, in our fields or in the authors' two formats.

    {"question": …, "candidate": …, "critique": …}
    {"instruction": …, "input": "Question:\\n…\\nSolution:\\n…", "output": …}          arXiv 2501.17703, WebInstruct-CFT
    {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}   arXiv 2506.03295

A critique that comes to no conclusion is left out and counted; a line that cannot be read is an error with its number.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from elicit.methods.critique_ft.critic import Critique, OneByOne, read
from elicit.tasks.base import Item
from probes.errors import UserError
from probes.files import sha256_of

FIELDS = ("question", "candidate", "critique")
_INPUT = re.compile(
    r"\s*(?:.*?\n)??Question:\s*\n(?P<question>.*?)\n\s*(?:Student's )?Solution:\s*\n(?P<candidate>.*)", re.S
)


class Entry(NamedTuple):
    """One critique of a file."""

    question: str
    candidate: str
    critique: Critique


@dataclass(frozen=True)
class CritiqueFile(OneByOne):
    """The entries of a file, `unusable` ones left out; as a source it knows the candidates that stand in it."""

    path: Path
    entries: tuple[Entry, ...]
    unusable: int
    sha256: str

    @property
    def identity(self) -> str:
        return f"file {self.sha256}"

    def __call__(self, item: Item, candidate: str) -> Critique:
        for entry in self.entries:
            if (entry.question, entry.candidate) == (item.question, candidate):
                return entry.critique
        raise UserError(f"{str(self.path)!r} holds no critique of this candidate of {item.id}; give one that does")


def load(path: Path | str) -> CritiqueFile:
    """Read a file of critiques.

    Raises:
        UserError: no such file, a line that is no critique (its number is given), a file without a usable one.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"critique file {str(path)!r} is not there; give a JSON Lines file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"critique file {str(path)!r} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    entries, unusable = [], 0
    for where, data in _objects(path, text):
        question, candidate, said = _fields(where, data)
        critique = read(said)
        if critique is None:
            unusable += 1
        else:
            entries.append(Entry(question, candidate, critique))
    if not entries:
        raise UserError(
            f"critique file {str(path)!r} holds no usable critique ({unusable} come to no conclusion); each must say "
            "'Conclusion: right' or 'Conclusion: wrong'"
        )
    return CritiqueFile(path, tuple(entries), unusable, sha256_of(path))


def _objects(path: Path, text: str) -> list[tuple[str, Any]]:
    """The objects of a file, each with the place where it stands."""
    if text.lstrip().startswith("["):
        try:
            return [(f"{path}, entry {n}", data) for n, data in enumerate(json.loads(text), start=1)]
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}); mend the array") from error
    out = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                out.append((where, json.loads(line)))
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{where}: not JSON ({error.msg}, column {error.colno}); mend or remove the line"
                ) from error
    return out


def _fields(where: str, data: Any) -> tuple[str, str, str]:
    """Question, candidate and critique of one object."""
    if not isinstance(data, dict):
        raise UserError(f"{where}: a {type(data).__name__}, expected an object with {', '.join(FIELDS)}")
    if set(FIELDS) <= set(data):
        found = [data[field] for field in FIELDS]
    else:
        asked, said = _asked(where, data)
        parts = _INPUT.fullmatch(asked)
        if parts is None:
            raise UserError(f"{where}: no 'Question:' with a 'Solution:' in the input; add them or remove the line")
        found = [parts["question"].strip(), parts["candidate"].strip(), said]
    for field, value in zip(FIELDS, found, strict=True):
        if not isinstance(value, str) or (not value.strip() and field != "candidate"):
            raise UserError(f"{where}: {field} is {value!r}, expected text; mend or remove the line")
    return found[0], found[1], found[2]


def _asked(where: str, data: dict[str, Any]) -> tuple[str, Any]:
    """Input and output of the authors' formats."""
    if "input" in data and "output" in data:
        return str(data["input"]), data["output"]
    messages = data.get("messages")
    if isinstance(messages, list) and all(isinstance(m, dict) for m in messages):
        by_role = {m.get("role"): m.get("content") for m in messages}
        if isinstance(by_role.get("user"), str) and "assistant" in by_role:
            return by_role["user"], by_role["assistant"]
    raise UserError(f"{where}: neither {', '.join(FIELDS)} nor input and output nor messages; give one of these")
