"""The same checks of types in less time, where `--jaxtyping-packages` asks for them.

jaxtyping binds the names of axes around every call and checks parameters twice. Where no annotation of a function holds
an array there is nothing to bind, and beartype alone says the same. A function whose annotations cannot be read yet, or
in whose body arrays are checked, is left to jaxtyping.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

CHECKED = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))
WHOLE = jaxtyping.jaxtyped
ARRAYS = frozenset(name for name, kind in vars(jaxtyping).items() if inspect.isclass(kind) and name[0].isupper())


def install() -> None:
    """Where jaxtyping's import hook stands, let it decorate by `jaxtyped`."""
    if any(type(finder).__module__.startswith("jaxtyping") for finder in sys.meta_path):
        jaxtyping.jaxtyped = jaxtyped


def jaxtyped(fn: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """As jaxtyping's own, for what the import hook decorates: functions and dataclasses."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(fn):
        made = fn.__dict__.get("__init__")
        if dataclasses.is_dataclass(fn) and (hints := plain(made)) is not None:
            made.__annotations__ = dict(hints)
            fn.__init__ = CHECKED(made)  # type: ignore[misc]
            return fn
    elif (hints := plain(fn)) is not None:
        fn.__annotations__ = dict(hints)
        return CHECKED(fn)
    return WHOLE(fn, typechecker=typechecker)


def plain(fn: Any) -> Mapping[str, Any] | None:
    """The annotations of a function where all can be read and none holds an array; else None."""
    if not inspect.isfunction(fn) or ARRAYS & set(fn.__code__.co_names):
        return None
    try:
        hints = {
            name: eval(hint, fn.__globals__) if isinstance(hint, str) else hint
            for name, hint in fn.__annotations__.items()
        }
    except (NameError, AttributeError, TypeError):  # a name that is imported for type checkers alone
        return None
    return None if any(map(holds_array, hints.values())) else hints


def holds_array(hint: Any) -> bool:
    """Whether an annotation has axes somewhere in it."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts = hint if isinstance(hint, list) else (*get_args(hint), getattr(hint, "__bound__", None))
    return any(holds_array(part) for part in parts if part is not None)
