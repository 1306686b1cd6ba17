"""The command line. Only Typer and Rich are imported until a command needs more."""

from __future__ import annotations

import difflib
import errno
import gc
import inspect
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import typer

from elicit.cli.analyse import analyse, analyses
from elicit.cli.check_steering import check_steering
from elicit.cli.compare import compare
from elicit.cli.convert import convert
from elicit.cli.dashboard import dashboard
from elicit.cli.feature import feature, find
from elicit.cli.grade import grade, regrade
from elicit.cli.hub import hub
from elicit.cli.lines import inert_messages, remark, say
from elicit.cli.lists import methods, tasks
from elicit.cli.lm_eval import lm_eval
from elicit.cli.logs import export, import_
from elicit.cli.models import models
from elicit.cli.organism import organism
from elicit.cli.presets import presets
from elicit.cli.report import report
from elicit.cli.run import run
from elicit.cli.sae import sae
from elicit.cli.serve import serve
from elicit.cli.steer import steer
from elicit.cli.sweep import sweep
from probes.errors import ToldElsewhere, UserError, unknown
from probes.files import NO_ROOM, no_room

app = typer.Typer(
    name="elicit",
    help="Fourteen ways to elicit latent reasoning from a base language model, behind one evaluation with controls.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

# Typer carries its own copy of Click from some release on: the class that its errors derive from.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
INTERRUPTED = 130
NOBODY = "Could not determine home directory."  # what pathlib says of ~name
# Two threads that wait for each other spin, in GNU OpenMP's default: beside other work nearly all their time. Here they
# sleep after a fraction of a millisecond, which costs nothing on a quiet machine; sleeping at once took half as long
# again there. It is read when torch is first imported, so it stands here; what the user has set stays.
SPINS = "GOMP_SPINCOUNT", "20000"
# Garbage is looked for after so many new objects, not 700: importing torch and transformers alone makes half a million,
# and a tenth of a short run's time went there.
COLLECTED = 10_000, 10, 10


app.command()(run)
app.command()(tasks)
app.command()(methods)
app.command()(presets)
app.command()(compare)
app.command()(report)
app.command()(grade)
app.command()(regrade)
app.command("import")(import_)
app.command()(export)
app.command()(steer)
app.command()(serve)
app.command()(check_steering)
app.command()(analyse)
app.command()(analyses)
# All that follows is another command line's, `--help` too.
app.command(
    "lm-eval",
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    },
)(lm_eval)
app.add_typer(models)
app.add_typer(organism)
sae.command()(find)
sae.command()(feature)
sae.command()(convert)
sae.command()(dashboard)
app.add_typer(sae)
app.add_typer(sweep)
app.add_typer(hub)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2; Ctrl-C is 130; anything else is a bug."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*SPINS)
    gc.set_threshold(*COLLECTED)
    try:
        with inert_messages():
            _check_given(sys.argv[1:])
            code = app(standalone_mode=False, prog_name="elicit")  # also as `python -m elicit`
        if code == INTERRUPTED:  # Typer's own word for Ctrl-C
            _interrupted()
        sys.exit(code if isinstance(code, int) else 0)
    except ToldElsewhere:
        sys.exit(2)
    except UserError as error:
        _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        _interrupted()
    except UsageError as error:
        told: Any = error
        if type(error).__name__ == "NoArgsIsHelpError":  # no subcommand: the help says all
            if said := told.format_message():  # else Typer has printed it
                say(said)
            sys.exit(2)
        _fail(_usage(told))
    except typer.Exit as error:
        if error.exit_code == INTERRUPTED:
            _interrupted()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _fail(f"{str(error.filename)[:40]}… was given, which is too long for a name or a path; give a shorter one")
        if error.errno not in (*NO_ROOM, errno.EACCES, errno.EROFS):
            raise
        _cannot_write(f" {error.filename!r}" if error.filename else "", str(error.strerror))
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error) == NOBODY:
            _fail("a path was given that begins with ~ and a name that no user has; write the folder out")
        if not (told := no_room(error)):
            raise
        _cannot_write("", told)


def _check_given(words: Sequence[str]) -> None:
    """Refuse an empty text, as of a shell's variable that is not set: many options take it for not given at all.

    Raises:
        UserError: a word that is empty, or an option that ends in its sign of equality.
    """
    if words[:1] == ["lm-eval"]:  # another command line's
        return
    for before, word in pairwise(["", *words]):
        option, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
        if value or (word.startswith("--") and not equals):
            continue
        what = f"{option} was given" if option.startswith("-") else "an argument is"
        raise UserError(f"{what} an empty text; give a value, or leave it out")


def _usage(error: Any) -> str:
    """One line for a mistyped command or option, with the nearest one."""
    message = error.format_message().rstrip(".")
    if hasattr(error, "option_name") and message.startswith("No such option"):
        near = difflib.get_close_matches(error.option_name, _option_names(error), n=2, cutoff=0.5)
        message = f"no option {error.option_name!r}"
        return message + (f"; did you mean {' or '.join(near)}?" if near else "; see --help")
    if message.startswith("No such command"):
        typed = message.split("'")[1]
        return str(unknown("command", typed, list(error.ctx.command.commands)))
    where = f"{error.ctx.command_path}: " if error.ctx else ""
    return f"{where}{message[0].lower()}{message[1:]}; see --help"


def _option_names(error: Any) -> list[str]:
    parameters = error.ctx.command.params if error.ctx else []
    return [name for p in parameters for name in p.opts]


def _fail(message: str) -> None:
    remark(inspect.cleandoc(message))
    sys.exit(2)


def _cannot_write(what: str, why: str) -> None:
    _fail(
        f"cannot write{what}: {why}; finished samples are kept, make room or give another --out, and run the same "
        "command again"
    )


def _interrupted() -> None:
    remark("interrupted; finished samples are kept, the same command resumes from there")
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
