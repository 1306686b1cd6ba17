"""`elicit grade` and `elicit regrade`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import elicit
from elicit.evaluation.regrade import regrade
from elicit.evaluation.run.store import SAMPLES
from elicit.evaluation.seen import SEEN, seen
from elicit.evaluation.side_effects import SIDE_EFFECTS
from elicit.models import Model
from elicit.report.run_section import notes
from elicit.tasks import grading, load_task
from elicit.tasks.answers import FOUND_BY
from probes.errors import UserError
from tests.evaluation.test_identity import task_file
from tests.support.shell import shell
from tests.support.unsealed import unsealed


def written(folder: Path, *lines: object) -> Path:
    file = folder / "responses.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def test_responses_are_graded_in_their_order(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"gold": "72", "response": r"So \boxed{72}. (In 2 steps.)"},
        {"gold": 3, "response": "The answer is 4, since 3 + 1 = 4."},
        {"gold": "B", "response": "I choose (B).", "kind": "option"},
        {"gold": "5", "response": "<think>5?"},
    )
    code, out, err = shell("grade", str(file), "--json")
    assert code == 0 and err == ""
    assert [json.loads(line) for line in out.splitlines()] == [
        {"answer": "72", "found_by": "box", "right": True, "why": "the same as 72, as number"},
        {"answer": "4", "found_by": "answer is", "right": False, "why": "not 3, as number"},
        {"answer": "B", "found_by": "phrase", "right": True, "why": "the same as B, as option"},
        {"answer": None, "found_by": "none", "right": False, "why": "no answer of kind number"},
    ]
    code, out, _ = shell("grade", str(file))
    assert code == 0 and "2 of 4 are right; answers were found: 1 by box" in " ".join(out.split())
    code, out, _ = shell("grade", str(file), "--kind", "last-number", "--json")
    assert [json.loads(line)["answer"] for line in out.splitlines()] == ["2", "4", "B", "5"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: a list"),
        ({"response": "5"}, "line 2: no 'gold'"),
        ({"gold": "5"}, "line 2: no 'response'"),
        ({"gold": "5", "response": "5", "kind": "nubmer"}, "line 2: answer kind 'nubmer' was given"),
    ],
)
def test_a_line_that_cannot_be_graded_is_named(tmp_path: Path, line: object, words: str) -> None:
    code, out, err = shell("grade", str(written(tmp_path, {"gold": "5", "response": "5"}, line)))
    assert code == 2 and words in err and err.count("\n") == 1 and out == ""


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'{"gold": "\xe9", "response": ""}')
    for file, words in (("none", "cannot be read"), ("latin", "no UTF-8"), ("empty", "holds no responses")):
        (tmp_path / "empty").touch()
        code, _, err = shell("grade", str(tmp_path / file))
        assert code == 2 and words in err and err.count("\n") == 1
    assert shell("grade", str(tmp_path / "empty"), "--kind", "x")[0] == 2


def test_a_run_is_graded_anew_into_a_run_of_its_own(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = load_task(f"{task_file(tmp_path)}:kind=text")
    handle = elicit.methods.cot_decoding.fit(tiny, task.solved, k=3, max_new_tokens=6)
    handle = replace(handle, options={**handle.options, SEEN: seen(task.test), SIDE_EFFECTS: {"plain_kl": 0.5}})
    old = elicit.evaluate(handle, task.test, against=["direct"])
    before = {path: path.read_bytes() for path in sorted(old.folder.iterdir()) if path.is_file()}
    assert regrade(old).folder == old.folder  # nothing to do
    monkeypatch.setattr(grading, "VERSION", "another")
    code, out, err = shell("regrade", str(old.folder), "--json")
    assert code == 0, err
    new = elicit.Run.load(json.loads(out)["run"])
    assert {path: path.read_bytes() for path in before} == before and new.folder != old.folder
    assert list(new.store.batches()) == list(old.store.batches())  # the same code reads the same
    assert new.metrics["arms"] == old.metrics["arms"] and new.metrics["readings"] == old.metrics["readings"]
    assert all(new.metrics[name] == old.metrics[name] for name in (SEEN, SIDE_EFFECTS))
    assert (new.folder / "report.html").is_file() and new.store.config["regraded"]["from"] == old.folder.name
    assert elicit.evaluate(handle, task.test, against=["direct"]).folder.resolve() == new.folder.resolve()  # its own
    monkeypatch.setattr(grading, "VERSION", "a third")
    with pytest.raises(UserError, match="the run's own folder"):
        regrade(old, old.folder)


def test_the_report_names_the_bare_rule(tiny: Model, tmp_path: Path) -> None:
    handle = elicit.methods.direct.fit(tiny, max_new_tokens=12)
    for kind in ("number", "last-number"):
        task = load_task(f"{task_file(tmp_path)}:kind={kind}")
        run = elicit.evaluate(handle, task.test, against=(), out=tmp_path / kind)
        metrics = run.metrics["arms"]["direct"]["found_by"]
        assert sum(metrics.values()) == 3 and set(metrics) <= {*FOUND_BY, "none"}
        told = "\n".join(notes(run.metrics))
        assert "Answers were found: direct " in told
        assert ("the rule of arXiv 2402.10200" in told) == ("last number" in metrics)
        assert kind == "last-number" or "last number" not in metrics


def test_answers_of_an_older_run_are_read_anew(tiny: Model, tmp_path: Path) -> None:
    """As an older version left them: without saying how they were found, and found otherwise."""
    task = load_task(f"{task_file(tmp_path)}:kind=text")
    old = elicit.evaluate(
        elicit.methods.direct.fit(tiny, max_new_tokens=6), task.test, against=(), out=tmp_path / "old"
    )
    lines = [json.loads(line) for line in (unsealed(old.folder) / SAMPLES).read_text().splitlines()]
    for line in lines:
        line.update(answer=None, span=None, delta=None, dropped="no answer")
        line.pop("found_by", None)
    (old.folder / SAMPLES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = (old.folder / "config.toml").read_text()
    (old.folder / "config.toml").write_text(config.replace(grading.VERSION, "1"))
    new = regrade(elicit.Run.load(old.folder), tmp_path / "new")
    found = [trace for traces in new.traces["direct"].values() for trace in traces]
    assert all((trace.answer is None) == (trace.span is None) == (trace.delta is None) for trace in found)
    assert any(trace.answer for trace in found) and sum(new.metrics["arms"]["direct"]["found_by"].values()) == 3
