"""How an experiment is called from the shell: a mistake of whoever calls is one line and exit code 2."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from elicit.cli.compare import COMPARISON
from probes.errors import UserError, as_expected

Result = TypeVar("Result")


def called(name: str, main: Callable[[], Result]) -> Result:
    """What a command returns; a `UserError` ends the process with one line and exit code 2.

    Args:
        name: of the experiment, or another word, before the line.
        main: the command.
    """
    try:
        return main()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def comparison_in(folder: Path) -> dict[str, Any]:
    """What `elicit compare` wrote in a folder.

    Raises:
        UserError: nothing, or not as it was written.
    """
    file = folder / COMPARISON
    if not file.is_file():
        raise UserError(f"{str(folder)!r} holds no {COMPARISON}; give the folder that `elicit compare --out` wrote")
    with as_expected(repr(str(file)), "make it again"):
        return dict(json.loads(file.read_text(encoding="utf-8")))
