"""The process behind `elicit.tasks.grading.Worker`: one request a line, one reply a line, until its input ends.

Standard output carries replies alone: what the libraries print goes to standard error.

What it judges is written by a model and may be anything, so it is bounded, by the system and not by its own code, which
a long computation in C keeps from running: each request by processor time, all of it by memory, and it ends with the
process that started it. `ready` says which of these bounds hold on this platform.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

MEMORY = 4 * 2**30  # bytes of address space: ten times what the dearest expression that was tried took
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def bound_processor_time(seconds: float) -> bool:
    """End this process once it has computed for so long from now on; 0 lifts that. Whether the platform can."""
    if not hasattr(signal, "setitimer"):
        return False
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends it, whatever is computed
    signal.setitimer(signal.ITIMER_PROF, seconds)
    return True


def bound_memory(most: int) -> bool:
    """Let allocations beyond `most` bytes fail. Whether the platform does; macOS knows the limit and ignores it."""
    if sys.platform != "linux":
        return False
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    return True


def end_with_parent() -> bool:
    """End this process when the one that started it does, however that ends. Whether the platform can."""
    if sys.platform == "linux" and not ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        return True
    return watch_parent()


def watch_parent() -> bool:
    """The same by looking every second, where an orphan gets another parent."""
    if os.name != "posix":
        return False
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return True


DIGITS = 60  # that values are worked out to; half of them make the key
_POINTS = 3


def math_value(text: str, name: str = "") -> list[str] | None:
    """What an expression is worth, as a key that equal expressions share; None where math-verify reads none.

    A rational is itself, a constant its value to 30 digits, and anything else its values where its variables stand for
    fixed numbers, one of them negative.

    Args:
        text: in LaTeX or plain.
        name: a variable for which the expression is set to 0 and solved, where it is linear in it; `=` for the relation
            that it is 0 itself, whatever it is multiplied by.
    """
    import sympy
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    # Units are off already, and of those that math-verify would take off, c, g, h, l, m, s, t are variables here.
    latex = LatexExtractionConfig(boxed_match_priority=0)
    latex = dataclasses.replace(
        latex, normalization_config=dataclasses.replace(latex.normalization_config, units=False)
    )
    configs = [latex, ExprExtractionConfig()]
    found = parse(f"\\boxed{{{text}}}", configs, parsing_timeout=None)  # type: ignore[arg-type]
    value = found[0] if found else None
    if not isinstance(value, sympy.Expr):
        return None
    if value.atoms(sympy.Float):
        value = sympy.nsimplify(value, rational=True)
    value = value.subs({symbol: sympy.I for symbol in value.free_symbols if str(symbol) == "i"}).doit()
    if name not in ("", "="):
        variable = next((symbol for symbol in value.free_symbols if str(symbol) == name), None)
        slope = None if variable is None else sympy.diff(value, variable)
        if variable is None or slope is None or slope == 0 or variable in slope.free_symbols:
            return None
        value = -(value.subs(variable, 0)) / slope
    if isinstance(value, sympy.Rational):
        return ["number", hex(value.p), hex(value.q)]
    values = _values(value)
    if values is None:
        return None
    if name == "=":
        scale = next((v for v in values if v != 0), None)
        return None if scale is None else ["relation", *(_written(v / scale) for v in values)]
    if len({_written(v) for v in values}) == 1:
        exact = _fraction(values[0])
        return (
            ["number", hex(exact.numerator), hex(exact.denominator)]
            if exact is not None
            else ["constant", _written(values[0])]
        )
    return ["function", *map(_written, values)]


def _values(expression: Any) -> list[Any] | None:
    """The value at each point, or None where there is none."""
    import mpmath
    import sympy

    out = []
    for point in range(_POINTS):
        at = {symbol: _place(str(symbol), point) for symbol in expression.free_symbols}
        number = expression.evalf(DIGITS, subs=at, maxn=4 * DIGITS)
        if not number.is_number or number.has(sympy.nan, sympy.zoo, sympy.oo):
            return None
        real, imaginary = number.as_real_imag()
        with mpmath.workdps(DIGITS):
            value = mpmath.mpc(mpmath.mpf(str(real.evalf(DIGITS))), mpmath.mpf(str(imaginary.evalf(DIGITS))))
        out.append(value)
    return out


def _place(symbol: str, point: int) -> Any:
    """The number that a variable stands for at a point, from its name."""
    import sympy

    drawn = int.from_bytes(hashlib.blake2b(f"{symbol} {point}".encode(), digest_size=6).digest(), "big")
    place = sympy.Float(1 + drawn / 2**48, DIGITS)
    return -place if point == _POINTS - 1 else place


def _written(value: Any) -> str:
    """A complex value to half of the digits that it was worked out to; what is as small as the error is 0."""
    import mpmath

    with mpmath.workdps(DIGITS):
        size = abs(value)
        parts = [
            part if abs(part) > size * mpmath.mpf(10) ** -40 and size > mpmath.mpf(10) ** -45 else mpmath.mpf(0)
            for part in (value.real, value.imag)
        ]
        return " ".join(mpmath.nstr(part, DIGITS // 2) for part in parts)


def _fraction(value: Any) -> Fraction | None:
    """The fraction that a value is, where its denominator is small."""
    import mpmath

    with mpmath.workdps(DIGITS):
        if abs(value.imag) > mpmath.mpf(10) ** -40:
            return None
        exact = Fraction(mpmath.nstr(value.real, DIGITS - 5))
        near = exact.limit_denominator(10**6)
        return near if abs(exact - near) <= max(Fraction(1), abs(exact)) / 10**45 else None


def reasoning_gym_names() -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS)


def reasoning_gym_parameters(dataset: str) -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted(f.name for f in dataclasses.fields(DATASETS[dataset][1]) if f.name not in ("seed", "size"))


@cache
def _dataset(dataset: str, seed: int, params: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(dataset, seed=seed, **json.loads(params))


@lru_cache(maxsize=4096)
def _entry(dataset: str, seed: int, params: str, index: int) -> Any:
    return _dataset(dataset, seed, params)[index]


def reasoning_gym_entries(
    dataset: str, seed: int, params: dict[str, Any], start: int, stop: int
) -> list[tuple[str, str | None]]:
    key = json.dumps(params, sort_keys=True)
    entries = [_entry(dataset, seed, key, index) for index in range(start, stop)]
    return [(e["question"], None if e["answer"] is None else str(e["answer"])) for e in entries]


def reasoning_gym_score(dataset: str, seed: int, params: dict[str, Any], index: int, answer: str) -> float:
    key = json.dumps(params, sort_keys=True)
    score = float(_dataset(dataset, seed, key).score_answer(answer, _entry(dataset, seed, key, index)))
    if not math.isfinite(score):
        raise ValueError(f"the scorer said {score}")
    return score


def ready() -> dict[str, bool]:
    """Which bounds hold."""
    return {
        "processor time": hasattr(signal, "setitimer"),
        "memory": bound_memory(MEMORY),
        "life after the run": end_with_parent(),
    }


def spin() -> None:
    """Computes for ever: what the deadline is tested with."""
    while True:
        pass


def swell(size: int) -> int:
    """Takes so many bytes: what the bound of memory is tested with."""
    return len(bytearray(size))


OPERATIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        ready,
        spin,
        swell,
        math_value,
        reasoning_gym_names,
        reasoning_gym_parameters,
        reasoning_gym_entries,
        reasoning_gym_score,
    )
}


def _load_math_verify(**_: Any) -> None:
    import math_verify  # noqa: F401
    import mpmath  # noqa: F401


def _load_entry(dataset: str, seed: int, params: dict[str, Any], index: int, **_: Any) -> None:
    _entry(dataset, seed, json.dumps(params, sort_keys=True), index)


# What an operation needs is made before its time counts: it is not the fault of the answer that happens to come first.
PREPARED: dict[str, Callable[..., None]] = {"math_value": _load_math_verify, "reasoning_gym_score": _load_entry}


def _reply(operation: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
    try:
        if operation in PREPARED:
            PREPARED[operation](**arguments)
    except Exception as error:  # noqa: BLE001  told to the parent, which raises it there
        return {"unready": f"{type(error).__name__}: {error}"}
    bound_processor_time(seconds)
    try:
        return {"result": OPERATIONS[operation](**arguments)}
    except MemoryError:
        return {"memory": f"{operation} needs more than the {MEMORY / 2**30:g} GiB that it is given"}
    except Exception as error:  # noqa: BLE001  as above
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        bound_processor_time(0)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library in C prints there without asking `sys`
    requests = os.fdopen(os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # who asks a person is answered at once, and takes no request for an answer
    for line in requests:
        replies.write(json.dumps(_reply(*json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
