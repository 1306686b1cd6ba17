"""Give random inputs to every parser and count what comes of them.

    python -m tests.fuzz                              # 1,000,000 inputs for each pure parser; hours
    python -m tests.fuzz --cases 20000 --parsers answers,plans
    python -m tests.fuzz --minutes 10                 # no parser longer than that
    python -m tests.fuzz --write                      # these rows of docs/reference/reliability.md anew

*Read*: the parser gave a value, and what must hold of it holds. *One line*: the error that a person gets. *Escape*:
any other exception, or something that must hold does not. *Slow*: more than two seconds of the processor. Parsers of
files write each input first, and math answers are judged by another process: these take `--minutes` at most. With the
same seed the same inputs are drawn, for each parser alone. Exit code 1 where there was an escape or a slow one; the
first of each place is printed.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Mapping
from types import FrameType

from probes.errors import UserError
from tests.fuzz.parsers import PARSERS, PURE, Parser, shown
from tests.support.reliability import held, put, row

READ, LINE, ESCAPE, SLOW = "read", "one line", "escape", "slow"
OUTCOMES = (READ, LINE, ESCAPE, SLOW)
SECONDS = 2.0  # of the processor, for one input
HEAD = row("parser", "way", "seed", "inputs", *OUTCOMES)
BEGIN = "<!-- begin: python -m tests.fuzz --write -->\n"


class TooSlow(BaseException):  # so that nothing takes it for a fault of the input
    """An input took longer than any may."""


def _alarm(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def tried(parser: Parser, cases: int, seed: int, minutes: float) -> tuple[Counter[str], dict[str, str]]:
    """How often what came of it, and one fault for each place in the code."""
    counts: Counter[str] = Counter()
    faults: dict[str, str] = {}
    rng = random.Random(f"{seed} {parser.name}")
    until = time.monotonic() + 60 * minutes
    before = signal.signal(signal.SIGPROF, _alarm)
    try:
        for _ in range(cases):
            given = parser.given(rng)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            outcome, where = _outcome(parser, given)
            counts[outcome] += 1
            if where:
                faults.setdefault(where, f"{outcome} of {shown(given)}")
            if time.monotonic() > until:
                break
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return counts, faults


def _outcome(parser: Parser, given: object) -> tuple[str, str]:
    """What came of an input, and where it went wrong."""
    try:
        parser.read(given)
        signal.setitimer(signal.ITIMER_PROF, 0)
    except UserError:
        return LINE, ""
    except TooSlow:
        return SLOW, "slow"
    except Exception as error:  # noqa: BLE001  this is what is looked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return ESCAPE, f"{last.filename}:{last.lineno} {error!r:.200}"
    return READ, ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Random inputs for every parser.")
    parser.add_argument("--cases", type=int, default=1_000_000, help="for each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="the most for a parser of files or with a worker")
    parser.add_argument("--parsers", default="", help="parts of names, separated by commas")
    parser.add_argument("--write", action="store_true", help="write the table into the documentation")
    given = parser.parse_args()
    parts = [part for part in given.parsers.split(",") if part]
    chosen = [one for name, one in PARSERS.items() if not parts or any(part in name for part in parts)]
    if not chosen or given.cases < 1 or given.minutes <= 0:
        parser.error(f"{len(chosen)} parsers, {given.cases} cases, {given.minutes} minutes; give at least one of each")
    warnings.simplefilter("ignore")
    print(HEAD)
    wrong, lines = False, {}
    for one in chosen:
        counts, faults = tried(one, given.cases, given.seed, 1e9 if one.way == PURE else given.minutes)
        lines[one.name] = row(one.name, one.way, given.seed, counts.total(), *(counts[name] for name in OUTCOMES))
        print(lines[one.name], flush=True)
        for place, fault in faults.items():
            print(f"  {place}: {fault}", flush=True)
        wrong = wrong or bool(faults)
        if given.write:
            _write(lines)
    return int(wrong)


def _write(lines: Mapping[str, str]) -> None:
    """Put these rows into the page; those of other parsers stay."""
    kept = {line.split(" | ")[0].removeprefix("| "): line for line in held(BEGIN)}
    rows = [found for name in PARSERS if (found := lines.get(name, kept.get(name)))]
    put(BEGIN, "The newest of these rows", [HEAD, row(*["---"] * 3, *["---:"] * (1 + len(OUTCOMES))), *rows])


if __name__ == "__main__":
    sys.exit(main())
