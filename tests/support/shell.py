"""A command line in this process: exit code, standard output, standard error."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest
import typer
from typer.core import TyperCommand

from elicit.cli import main
from elicit.cli.terminal import Lines


def shell(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["elicit", *arguments]),
        # Typer gives a command a context of the base class of `typer.Context`, which the type checker refuses.
        patch.object(Lines, "FIRST", 600.0),  # however slow the machine is
        patch.object(TyperCommand, "context_class", typer.Context),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()
