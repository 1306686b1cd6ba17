"""Lines that the shell shows as they are; all of a command's text goes through here or `elicit.cli.terminal`.

Text of models, files and servers is data (`probes.inert`): nothing of it moves the cursor, colours what follows or
reorders it.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from probes.inert import inert, one_line


def say(text: str) -> None:
    """Text on standard output."""
    print(inert(text), flush=True)


def remark(text: str) -> None:
    """One line about what goes on, on standard error, under the program's name."""
    print(f"elicit: {one_line(text)}", file=sys.stderr, flush=True)


def show_json(value: Any, **layout: Any) -> None:
    """A value as JSON on standard output: in ASCII, what is none is written out."""
    print(json.dumps(value, **layout).replace("\x7f", "\\u007f"), flush=True)


@contextmanager
def inert_messages() -> Iterator[None]:
    """What Python itself prints: warnings and lines of logs, within; the traceback of a bug, from here on."""
    told, made = warnings.formatwarning, logging.getLogRecordFactory()

    class Record(logging.LogRecord):
        def getMessage(self) -> str:
            return inert(super().getMessage())

    def formatted(*warning: Any, **more: Any) -> str:
        return inert(told(*warning, **more))

    sys.excepthook = _bug
    warnings.formatwarning = formatted
    logging.setLogRecordFactory(Record)
    try:
        yield
    finally:
        warnings.formatwarning = told
        logging.setLogRecordFactory(made)


def _bug(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    print(inert("".join(traceback.format_exception(kind, error, at))), file=sys.stderr, end="")
