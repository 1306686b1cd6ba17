"""The process behind `elicit.tasks.outside`: it imports what others wrote, makes their items and asks their graders.

Requests and replies, and the bounds within which they are answered, are those of `elicit.tasks.grader_process`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import math
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from elicit.tasks import grader_process, outside_inspect, outside_python, outside_verifiers
from elicit.tasks.outside_base import Outside, Refused


def module_of(place: str, root: str) -> Any:
    """A module by its name, or of a Python file, which is registered under its stem."""
    if root not in sys.path:
        sys.path.insert(0, root)
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(root) / Path(place).name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Refused(f"{place!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def member_of(place: str, root: str, name: str) -> Any:
    """What a module calls by a name."""
    module = module_of(place, root)
    if not hasattr(module, name):
        known = [one for one, what in vars(module).items() if callable(what) and not one.startswith("_")]
        near = difflib.get_close_matches(name, known)
        told = f"nearest are {', '.join(near)}" if near else f"it has {', '.join(known)[:200] or 'no function'}"
        raise Refused(f"{place!r} has no {name!r}; {told}")
    return getattr(module, name)


@lru_cache(maxsize=8)
def _opened(given: str) -> Outside:
    asked = json.loads(given)
    openers = {
        "python": outside_python.opened, "inspect": outside_inspect.opened, "verifiers": outside_verifiers.opened
    }  # fmt: skip
    found = member_of(asked["place"], asked["root"], asked["name"])
    outside: Outside = openers[asked["home"]](found, asked["params"], asked["seed"], asked["limit"])
    return outside


def _key(**asked: Any) -> str:
    return json.dumps(asked, sort_keys=True)


def rows(**asked: Any) -> dict[str, Any]:
    """The items, or why the task cannot be honoured."""
    try:
        found = _opened(_key(**asked))
        return {"rows": json.loads(json.dumps(found.rows, default=str)), "own": found.own}
    except Refused as error:
        return {"refused": str(error)}


def score(index: int, question: str, gold: str, answer: str, **asked: Any) -> float | dict[str, str]:
    """A verdict, or why there can be none: this process, which may have been begun anew, has another item there.

    Raises:
        ValueError: it is no number in [0, 1].
    """
    found = _opened(_key(**asked))
    row = found.rows[index] if index < len(found.rows) else {}
    if row.get("question") != question or gold not in (row.get("gold"), row.get("answer")):
        return {"refused": f"its item {index} is another one than before, so that no answer to it can be judged"}
    value = float(found.score(index, answer))
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"the grader said {value}, expected a number from 0 to 1")
    return value


def _open(index: int, question: str, gold: str, answer: str, **asked: Any) -> None:
    _opened(_key(**asked))


if __name__ == "__main__":
    grader_process.OPERATIONS |= {"rows": rows, "score": score}
    grader_process.PREPARED["score"] = _open  # to import a module is not the fault of the answer that comes first
    grader_process.main()
