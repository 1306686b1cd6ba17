"""Whatever happens to a file from elsewhere, what reads it says one line or reads a file; no reader is forgotten."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from probes.errors import UserError
from probes.gguf_header import check_counts
from tests.damage import foreign, states
from tests.damage.damages import DAMAGES, damaged, retyped
from tests.damage.kind import LINE, OTHER, SAME, TRACEBACK, Kind, Reading
from tests.damage.kinds import BY_KIND, KINDS, NOT_FROM_ELSEWHERE, UNTRIED
from tests.damage.readers import found

TRIED = 40  # of each kind; `python -m tests.damage` tries as many as are asked for


def test_every_reader_is_in_the_table() -> None:
    tried = {reader for readers in BY_KIND.values() for reader in readers}
    tables = (tried, set(NOT_FROM_ELSEWHERE), set(UNTRIED))
    assert found() == set().union(*tables), "a reader is new, or gone: put it into tests/damage/kinds.py"
    assert sum(map(len, tables)) == len(found()) and set(BY_KIND) <= set(KINDS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*foreign.KINDS, *states.KINDS], ids=lambda kind: kind.name)
def test_a_damaged_file_is_one_line_or_is_read(kind: Kind, tmp_path: Path) -> None:
    whole = Reading.of(kind, tmp_path)
    rng = random.Random(0)
    seen = set()
    for data in [b"", *(damaged(whole.data, kind.form, rng) for _ in range(TRIED // 10 if kind.dear else TRIED))]:
        outcome, error = whole.after(data)
        assert outcome != TRACEBACK, (kind.name, repr(error), data)
        assert not (kind.sealed and outcome == OTHER), (kind.name, data)
        seen.add(outcome)
    assert whole.after(whole.data)[0] == SAME
    assert seen & {LINE, OTHER}  # the damages are such that a reader notices


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "was", "becomes"),
    [
        ("log of Inspect (.eval)", b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\xff"),  # a version that no zip has
        (
            "SAE to convert (npz)",
            b"PK\x01\x02-\x03-\x00\x00\x00",
            b"PK\x01\x02-\x03-\x00\x01\x00",
        ),  # said to be encrypted
        ("completions of TRL", b"advantage", b"adv\xffntage"),  # a name of a column that is no UTF-8
    ],
)
def test_what_few_damages_find_is_one_line(name: str, was: bytes, becomes: bytes, tmp_path: Path) -> None:
    whole = Reading.of(KINDS[name], tmp_path)
    data = whole.data.replace(was, becomes)
    assert data != whole.data and whole.after(data)[0] == LINE


def test_a_list_that_is_longer_than_its_file_is_not_begun(tmp_path: Path) -> None:
    """`gguf` 0.19 read on past the end until memory was full: a field of text whose type was a list by one bit."""
    whole = Reading.of(KINDS["model (GGUF)"], tmp_path)
    assert whole.after(whole.data[:52] + bytes([whole.data[52] ^ 1]) + whole.data[53:])[0] == LINE
    whole.file.write_bytes(whole.data[:16] + b"\xff" * 8 + whole.data[24:])
    with pytest.raises(UserError, match="go beyond its end"):
        check_counts(whole.file)
    for beginning in (b"", b"GGUF", b"PK" + bytes(40)):  # what it is the reader says
        whole.file.write_bytes(beginning)
        check_counts(whole.file)


def test_the_outcomes_are_told_apart(tmp_path: Path) -> None:
    def read(file: Path) -> str:
        text = file.read_text()
        if text == "a line":
            raise UserError("told")
        if text == "a fault":
            raise KeyError("x")
        return text.strip()

    def make(folder: Path) -> Path:
        (folder / "f").write_text("whole")
        return folder / "f"

    whole = Reading.of(Kind("x", make, read), tmp_path)
    outcomes = [whole.after(data)[0] for data in (b"a line", b"whole ", b"other", b"a fault")]
    assert outcomes == [LINE, SAME, OTHER, TRACEBACK] and (tmp_path / "f").read_text() == "whole"


def test_damages_change_a_file() -> None:
    rng = random.Random(0)
    for damage in DAMAGES:
        assert any(damage(b"0123456789", rng) != b"0123456789" for _ in range(8)), damage
    forms = {"json": b'{"a": [1, {"b": "x"}]}', "jsonl": b'{"a": 1}\n{"b": 2}\n', "toml": b"a = 1\n[b]\nc = 2\n"}
    for form, data in forms.items():
        assert any(retyped(form)(data, rng) != data for _ in range(8)), form
