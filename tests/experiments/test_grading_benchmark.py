from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import grading

PAIRS = [
    {"id": "a", "kind": "number", "gold": "3", "response": "3", "verdict": True, "source": "own"},
    {"id": "b", "kind": "number", "gold": "3", "response": "4", "verdict": False, "source": "own"},
    {"id": "c", "kind": "number", "gold": "3", "response": "x", "verdict": True, "source": "a model"},
    {"id": "d", "kind": "text", "gold": "x", "response": "x", "verdict": True, "source": "own"},
]


def test_verdicts_are_counted_against_those_by_hand() -> None:
    assert grading.ours(PAIRS) == {"a": True, "b": False, "c": False, "d": True}
    assert grading.counted(PAIRS, {"a": False, "b": True, "c": True}) == (3, 1, 1, 1)
    rows = grading.rows(PAIRS, {"one": dict.fromkeys("abcd", True), "numbers": {"a": True, "b": False}})
    assert rows == [
        ["number", "models", "one", "1", "1.000", "0", "0"],
        ["number", "people", "one", "2", "0.500", "1", "0"],
        ["number", "people", "numbers", "2", "1.000", "0", "0"],
        ["text", "people", "one", "1", "1.000", "0", "0"],
    ]


def test_others_speak_from_their_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    script = tmp_path / "grader.py"
    script.write_text(
        "import json, sys\n"
        "for line in open(sys.argv[1]):\n"
        "    print(json.dumps({'id': json.loads(line)['id'], 'grader': 'all', 'right': True}))\n"
    )
    monkeypatch.setattr(grading, "OTHERS", script)
    assert grading.pairs_of(file) == PAIRS
    assert grading.others(sys.executable, file) == {"all": dict.fromkeys("abcd", True)}
