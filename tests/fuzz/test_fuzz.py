"""Whatever models, files and people write, a parser gives a value or says one line; the counting itself is right."""

from __future__ import annotations

import pytest

from probes.errors import UserError
from tests.fuzz.__main__ import ESCAPE, LINE, READ, SLOW, tried
from tests.fuzz.parsers import FILE, PARSERS, PURE, Parser

CASES = {PURE: 150, FILE: 40}  # `python -m tests.fuzz` draws a million; the other process judges in its own tests


@pytest.mark.parametrize("parser", [one for one in PARSERS.values() if one.way in CASES], ids=lambda one: one.name)
def test_a_parser_reads_or_says_one_line(parser: Parser) -> None:
    counts, faults = tried(parser, CASES[parser.way], seed=1, minutes=10)
    assert counts.total() == CASES[parser.way] and set(counts) <= {READ, LINE} and not faults, faults
    assert counts[READ]  # the inputs are such that some are read


def test_the_outcomes_are_told_apart() -> None:
    def read(number: int) -> None:
        if number == 1:
            raise UserError("told")
        assert number != 2, "an invariant"
        while number == 3:
            pass

    numbers = iter(range(4))
    counts, faults = tried(Parser("x", lambda rng: next(numbers), read), 4, seed=0, minutes=10)
    assert counts == {READ: 1, LINE: 1, ESCAPE: 1, SLOW: 1} and len(faults) == 2, (counts, faults)


def test_with_the_same_seed_the_same_inputs_are_drawn() -> None:
    drawn: list[list[object]] = [[], []]
    for held in drawn:
        one = PARSERS["answers"]
        tried(Parser(one.name, one.given, held.append), 20, seed=3, minutes=10)
    assert drawn[0] == drawn[1] and len(drawn[0]) == 20


@pytest.mark.parametrize("name", ["9" * 5000, "x" * 5000 + ":{", "~nobody-of-this-name/x"])
def test_what_can_be_no_path_names_no_file(name: str) -> None:
    from elicit.models.prompts import _parsed
    from elicit.tasks.registry import load_task
    from probes.files import file_named

    assert file_named(name) is None and _parsed(name)[1] == {}
    with pytest.raises(UserError):
        load_task(name)
