"""Put one silent fault after another into the suite and say which test sees it.

    python -m tests.mutants                  # all of them; exit code 1 where one lives
    python -m tests.mutants delta,vote       # those whose names begin so
    python -m tests.mutants --write          # the table of tests/mutants/README.md anew
    PYTHONPATH=. .venv-lm-eval/bin/python -m tests.mutants --write   # those of the lm-eval adapter; Inspect likewise

A fault stands in a list of `faults.py`: the lines that it changes, the property that it breaks, and the test files that
state it. Each is tried in a process of its own, forked from one that has loaded torch and transformers: whoever imports
the module gets the changed source, and no file is touched. The test that saw a fault the last time runs first. A fault
that no test sees is printed, as is one whose lines are no longer there.

Tests that start the command line as a process of its own see no fault, and are no test of one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

from tests.mutants.fault import ROOT, Fault
from tests.mutants.faults import FAULTS
from tests.mutants.table import known, write

PASSED, FAILED = 0, 1  # of pytest
BROKEN = 70


class _Changed(SourceFileLoader):
    """A module with another source than its file's."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> Any:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Finder:
    """Finds one module changed."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        where = str(self.path)
        inside = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        loader = _Changed(name, where, self.source)
        return spec_from_file_location(name, where, loader=loader, submodule_search_locations=inside)


class _Seen:
    """Which test failed first."""

    def __init__(self) -> None:
        self.test = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid


def tried(fault: Fault, first: str, folder: Path) -> tuple[int, str]:
    """pytest's exit code with the fault in place, and the test that failed.

    Args:
        fault: what is changed.
        first: the test that saw it last, or "".
        folder: for what the child writes.
    """
    answer = folder / "seen"
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = BROKEN
        try:
            code = _run(fault, first, folder)
        finally:  # what went wrong is in the file of its output
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), answer.read_text(encoding="utf-8") if answer.exists() else ""


def _run(fault: Fault, first: str, folder: Path) -> int:
    """In the child: pytest with the fault in place."""
    sys.meta_path.insert(0, _Finder(fault.module, fault.path, fault.changed))  # type: ignore[arg-type]
    import pytest

    seen, code = _Seen(), PASSED
    options = ["-x", "-q", "-m", "not slow", f"--basetemp={folder / 'tests'}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what was loaded once, for all children
    if fault.needs:  # whose tests know nothing of the suite's own fixtures
        options.append(f"--confcutdir={Path(fault.tests[0]).parent}")
    with (folder / "out").open("w") as out, redirect_stdout(out), redirect_stderr(out):
        for tests in ([first] if first else [], fault.tests):
            if code == PASSED and tests:
                code = int(pytest.main([*options, *tests], plugins=[seen]))
    (folder / "seen").write_text(seen.test, encoding="utf-8")
    return code


def _environment() -> str:
    """The environment that this process runs in, as faults name it."""
    name = Path(sys.prefix).name
    return name.removeprefix(".venv-") if name.startswith(".venv-") else ""


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="?", default="", help="beginnings of names, joined by commas")
    parser.add_argument("--write", action="store_true", help="write the table of README.md")
    args = parser.parse_args(given)
    begins = tuple(filter(None, args.names.split(",")))
    here = _environment()
    chosen = [one for one in FAULTS if one.needs == here and (not begins or one.name.startswith(begins))]
    if not chosen:
        print(
            f"error: no fault of this environment begins with {args.names!r}; give one of "
            f"{', '.join(f.name for f in FAULTS if f.needs == here)}",
            file=sys.stderr,
        )
        return 2
    import pytest  # noqa: F401  # before what it would want to rewrite
    import torch  # loaded once, for all children

    torch.set_num_threads(1)
    os.chdir(ROOT)
    PathFinder.invalidate_caches()
    seen, lives = dict(known()), []
    with tempfile.TemporaryDirectory() as scratch:
        for fault in chosen:
            code, test = tried(fault, seen.get(fault.name, ""), Path(scratch))
            killed = code == FAILED and bool(test)
            print(f"{'killed' if killed else 'LIVES '}  {fault.name}: {test if killed else f'exit {code}'}", flush=True)
            if killed:
                seen[fault.name] = test
            else:
                seen.pop(fault.name, None)
                lives.append(fault.name)
            if args.write:
                write(seen)
    print(f"{len(chosen) - len(lives)} of {len(chosen)} killed")
    return 1 if lives else 0


if __name__ == "__main__":
    sys.exit(main())
