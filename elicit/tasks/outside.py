"""Tasks that another module holds: a Python function of one's own, a task of Inspect, a taskset of verifiers.

    PLACE:FUNCTION                a function that returns rows, or rows and a grader (`outside_python.py`)
    inspect:PLACE@TASK            a function that Inspect's `@task` marks (`outside_inspect.py`)
    verifiers:PLACE@TASKSET       a class of tasksets (`outside_verifiers.py`)

PLACE is a Python file, or a module that can be imported; parameters of the function follow a comma:
`tasks.py:sums,terms=3`. The module is imported and its grader is asked in a process of its own, within the bounds of
the graders' (`worker.py`). Where the module brings a grader, that judges the whole response, as it does at home; `kind`
(any but `whole`) gives it the answer that is found instead.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from elicit.tasks.answers import KINDS, Kind, find_answer
from elicit.tasks.base import Grade, Grader, Item, Task, content_id, mixed, split_of
from elicit.tasks.grading import check_kind, grader_for, infer_kind
from elicit.tasks.worker import Unjudged, Worker, WorkerDied, WorkerHangs
from probes.errors import UserError
from probes.files import sha256_of

FAMILY = "outside"
HOMES = {"inspect": "inspect_ai", "verifiers": "verifiers"}  # each a prefix of a name, and the package that is needed
PYTHON = "python"
LOADING_S = 600.0  # of processor time, to import a module and make its items


class OutsideWorker(Worker):
    """The process that imports what others wrote: `python -m elicit.tasks.outside_process`."""

    def _start(self) -> None:
        self.close()
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "elicit.tasks.outside_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, start_new_session=True,
        )  # fmt: skip
        atexit.register(self.close)
        try:
            bounds = self._exchange("ready", {}, self.start_deadline)
        except Unjudged as error:
            raise UserError(f"the process for tasks of others cannot start ({error}); mend the installation") from error
        self.missing = tuple(name for name, holds in bounds.items() if not holds)


OUTSIDE = OutsideWorker()


def _asked(operation: str, deadline: float | None = None, **arguments: Any) -> Any:
    """The process's result. One that dies or hangs is replaced once."""
    try:
        return OUTSIDE.ask(operation, deadline, **arguments)
    except (WorkerDied, WorkerHangs):
        return OUTSIDE.ask(operation, deadline, **arguments)


class OutsideGrader:
    """The verdict of the module's own grader; answers are grouped by what is found in them, as its gold answers are."""

    def __init__(self, source: dict[str, Any]) -> None:
        self.source = source
        self._score = lru_cache(maxsize=65536)(self._ask)

    @property
    def depends(self) -> dict[str, Any]:
        return {key: value for key, value in self.source.items() if key not in ("family", "votes", "root")}

    def _ask(self, index: int, question: str, gold: str, answer: str) -> Grade:
        try:
            found = _asked("score", **_where(self.source), index=index, question=question, gold=gold, answer=answer)
        except Unjudged as error:
            return Grade(0.0, error.reason)
        if isinstance(found, dict):
            raise UserError(
                f"task {self.source['name']!r} of {self.source['place']!r}: {found['refused']}; let it make the same "
                "items whenever it is called, drawing by its parameter seed"
            )
        return Grade(float(found))

    def grade(self, item: Item, answer: str | None) -> Grade:
        """Raises a UserError where the module makes other items than it made."""
        if answer is None:
            return Grade(0.0)
        return self._score(item.metadata["index"], item.question, item.answer or "", answer)

    def groups(self, answers: Sequence[str]) -> list[int]:
        kind: Kind = self.source["votes"]
        found = [find_answer(answer, kind) for answer in answers]
        said = [one.text if one else answer for one, answer in zip(found, answers, strict=True)]
        return grader_for(kind).groups(said)


def named(name: str) -> tuple[str, str, str] | None:
    """What a name stands for: whose task, the place, the name there; None where it is none of these."""
    home, colon, rest = name.partition(":")
    if colon and home in HOMES:
        place, at, inside = rest.rpartition("@")
        if not at or not place or not inside:
            raise UserError(f"task {name!r} was given; write {home}:PLACE@NAME, PLACE a Python file or a module")
        return home, place, inside
    place, colon, inside = name.rpartition(":")
    if colon and inside.isidentifier() and (place.endswith(".py") or _is_module(place)):
        return PYTHON, place, inside
    return None


def _is_module(name: str) -> bool:
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def load(name: str, found: tuple[str, str, str], limit: int | None, seed: int, params: dict[str, Any]) -> Task:
    """The items of a task that another module holds, with its grader.

    Args:
        name: as it was written, for messages.
        found: as `named` has it.
        limit, seed: for a function of one's own that takes them.
        params: of the function; `kind` is the kind of answer.

    Raises:
        UserError: no such module or name, a package that is not installed, what cannot be honoured (by name).
    """
    home, place, inside = found
    package = HOMES.get(home)
    if package and find_spec(package) is None:
        raise UserError(f"task {name!r} needs the package {package!r}; install it")
    rest = {key: value for key, value in params.items() if key != "kind"}
    root, digest = _home_of(name, place)
    source: dict[str, Any] = {
        "family": FAMILY, "home": home, "place": place, "name": inside, "params": rest, "seed": seed, "root": root,
        **({"sha256": digest} if digest else {}), **({"version": version(package)} if package else {}),
    }  # fmt: skip
    if limit is not None:
        source["limit"] = limit
    try:
        told = _asked("rows", LOADING_S, **_where(source))
    except Unjudged as error:
        why = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
        raise UserError(f"task {name!r} cannot be loaded ({why}); mend it, or use another task") from error
    if "refused" in told:
        raise UserError(f"task {name!r}: {told['refused']}; use another task")
    rows, own = told["rows"], told["own"]
    if not rows:
        raise UserError(f"task {name!r} has no items; use another task")
    votes = infer_kind([row["gold"] for row in rows])
    kind = params.get("kind") or ("whole" if own else votes)
    check_kind(kind, KINDS)
    items = [_item(row, index, kind) for index, row in enumerate(rows)]
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise UserError(f"task {name!r} has two items with the id {item.id!r}; give each its own")
        seen.add(item.id)
    source |= {"votes": votes, "own": own}
    grader: Grader = OutsideGrader(source) if own else grader_for(kind)
    stated = {item.id for item, row in zip(items, rows, strict=True) if row.get("split")}
    return Task(inside, mixed(items, stated), grader, kind, source)


def grader_of(source: dict[str, Any]) -> OutsideGrader:
    """The grader of a task again, from the task's source, with the module as it is now."""
    path = Path(source["root"], Path(source["place"]).name)
    now = {"sha256": sha256_of(path)} if source["place"].endswith(".py") and path.is_file() else {}
    return OutsideGrader({**source, **now})


def _item(row: dict[str, Any], index: int, kind: Kind) -> Item:
    question = row["question"]
    answer = row["gold"] if kind != "whole" else row["answer"]
    split = row.get("split") or split_of(question)
    return Item(
        row.get("id") or content_id(question), question, answer, split, {**row["metadata"], "index": index}, kind
    )


def _home_of(name: str, place: str) -> tuple[str, str]:
    """Where a module is imported from, and the hash of its file."""
    path = Path(place).expanduser()
    if place.endswith(".py"):
        if not path.is_file():
            raise UserError(f"task {name!r}: there is no file {place!r}; give one, or a module that can be imported")
        return str(path.parent.resolve()), sha256_of(path)
    spec = find_spec(place) if _is_module(place) else None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise UserError(f"task {name!r}: no module {place!r} can be imported; give one, or a Python file")
    origin = Path(spec.origin)
    up = place.count(".") + (origin.name == "__init__.py")
    return str(origin.parents[up]), sha256_of(origin)


def _where(source: dict[str, Any]) -> dict[str, Any]:
    """What the process is told to find the task."""
    return {key: source.get(key) for key in ("home", "place", "name", "params", "seed", "limit", "root")}
