"""What docstrings say of arguments, found by their names."""

from __future__ import annotations

from typing import Any

from elicit.analysis import ANALYSES
from elicit.methods import METHODS
from probes.docstrings import Told, told_of

KINDS = ("one", "two")


def there(rows: int, width: int, lr: float) -> None:
    """Told of here.

    Args:
        rows, width: batch size,
            and length.
        lr: a rate: of learning.
    """


def here(rows: int, lr: float, kind: str, given: Any, unsaid: int) -> None:
    """Told of there.

    Args:
        given: not asked for.
        rows, lr: as for `tests.probes.test_docstrings.there`.
        kind: one of `KINDS`, or of `tests.probes.test_docstrings.KINDS`; `NOT_A_LIST` and `NOWHERE` stay.
    """


NOT_A_LIST = 3


def test_arguments_are_told_of_as_they_are_asked_for() -> None:
    assert told_of(here, ["lr", "kind", "rows"]) == [
        Told(["rows"], "batch size, and length."),
        Told(["lr"], "a rate: of learning."),
        Told(["kind"], "one of `one`, `two`, or of `one`, `two`; `NOT_A_LIST` and `NOWHERE` stay."),
    ]
    assert told_of(there, ["width", "rows"])[0].names == ["rows", "width"]
    assert told_of(here, ["unsaid", "given"]) == [Told(["given"], "not asked for."), Told(["unsaid"], "")]


def test_every_option_of_a_method_or_an_analysis_is_told_of() -> None:
    for function, options in [
        *((method.fit, method.options) for method in METHODS.values()),
        *((one.analyse, one.options) for one in ANALYSES.values()),
    ]:
        told = told_of(function, options)
        assert sorted(name for one in told for name in one.names) == sorted(options), function
        assert all(one.text.endswith((".", ")")) and "as for `" not in one.text for one in told), function
