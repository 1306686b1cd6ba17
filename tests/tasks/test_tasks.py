from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from elicit.tasks import corrupt, hub, load_task, task_names, validate
from elicit.tasks.base import Item
from elicit.tasks.grading import DeadlineExceeded, MathGrader, NumberGrader, Worker, infer_kind
from probes.errors import UserError

# Measured, not excused: these have no gold answer of their own, so only the corrupted one can be shown wrong.
WITHOUT_GOLD = {"boxnet", "graph-color", "propositional-logic", "rubiks-cube", "rush-hour"}
# Its scorer grades anything as correct: `evaluate` refuses it.
BROKEN = {"game-of-life-halting"}
NEEDS_PARAMETERS = {"composite"}
SLOW = {"futoshiki", "knight-swap", "sokoban"}  # seconds an entry; the command in the README covers them


def reasoning_gym_names() -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted({n.replace("_", "-") for n in DATASETS} - NEEDS_PARAMETERS - SLOW)


@pytest.mark.parametrize("name", reasoning_gym_names())
def test_gold_is_right_and_corrupted_gold_is_wrong(name: str) -> None:
    task = load_task(name, limit=2)
    proof = validate(task.all, 6)
    assert len({item.id for item in task.items}) == len(task.items)
    if name in BROKEN:
        assert not proof.ok
    elif name in WITHOUT_GOLD:
        assert proof.checked == 0 and proof.without_gold == 6
    else:
        assert proof.ok and proof.checked == 6, proof


def test_items_are_the_same_in_every_process_and_whatever_the_limit() -> None:
    script = (
        "from elicit.tasks import load_task; import json, sys;"
        "t = load_task('polynomial-multiplication', limit=3);"
        "print(json.dumps([[i.id, i.split, i.question] for i in t.items]))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    small, large = load_task("chain-sum", limit=3), load_task("chain-sum", limit=9)
    assert {i.id for i in small.items} <= {i.id for i in large.items}
    assert not {i.question for i in large.fit} & {i.question for i in large.test}


def test_parameters_are_passed_and_checked() -> None:
    task = load_task("chain-sum:min_terms=3,max_terms=3,min_digits=1,max_digits=1", limit=4)
    assert all(item.question.count("+") + item.question.count(" - ") == 2 for item in task.items)
    with pytest.raises(UserError, match=r"no parameter 'terms'; it has .*max_terms"):
        load_task("chain-sum:terms=3")
    with pytest.raises(UserError, match="key=value"):
        load_task("chain-sum:terms")
    with pytest.raises(UserError, match="at least 1"):
        load_task("chain-sum", limit=0)
    with pytest.raises(UserError, match="did you mean chain-sum"):
        load_task("chain-summ")
    assert {"gsm8k", "math-500", "multiarith", "aime24", "aime25", "chain-sum"} <= set(task_names())


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_a_file_is_a_task(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        {"id": "a", "question": "1+1?", "answer": "2", "split": "test"},
        "",
        {"question": "2+2?", "answer": 4, "split": "fit"},
    )
    task = load_task(str(path))
    assert task.kind == "number" and [i.id for i in task.test] == ["a"]
    assert task.fit[0].answer == "4" and len(task.fit[0].id) == 12
    assert load_task(f"{path}:kind=math").kind == "math"
    with pytest.raises(UserError, match="no dev items"):
        _ = task.dev


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('{"question": "x", "answer"', "line 2: not JSON"),
        ('["x"]', "line 2: a list"),
        ('{"question": "x"}', "line 2: no 'answer'"),
        ('{"question": "  ", "answer": "1"}', "line 2: no 'question'"),
        ('{"id": "a", "question": "x", "answer": "1"}', "line 2: id 'a' stands on line 1"),
        ('{"question": "x", "answer": "1", "split": "training"}', "line 2: split 'training'"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, word: str) -> None:
    path = write(tmp_path / "t.jsonl", {"id": "a", "question": "q", "answer": "1"}, line)
    with pytest.raises(UserError, match=word):
        load_task(str(path))


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("1/3", "0.33", False),
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac{1}{2}", r"\frac{2}{4}", True),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)", True),
        ("x^2+1", "1+x^2", True),
        ("x^2+1", "x^2", False),
        ("6", "7", False),
        (r"\sqrt{2}", "1.4142", False),
    ],
)
def test_math_is_compared_by_meaning(gold: str, answer: str, right: bool) -> None:
    item = Item("i", "q", gold, "test")
    assert MathGrader().grade(item, answer).correct is right
    assert MathGrader().grade(item, None).correct is False
    assert (MathGrader().groups([gold, answer]) == [0, 0]) is right


def test_groups_are_equivalence_classes() -> None:
    assert NumberGrader().groups(["1,234", "7", "1234.00", "7.0", "none"]) == [0, 1, 0, 1, 4]


def test_a_worker_that_hangs_is_killed_and_replaced() -> None:
    worker = Worker(deadline=1.0)
    assert worker.ask("math_value", deadline=600.0, text="1") == ["number", "0x1", "0x1"]
    with pytest.raises(DeadlineExceeded):
        worker.ask("spin")
    assert worker.process is None
    assert worker.ask("math_value", deadline=600.0, text="2") == ["number", "0x2", "0x1"]
    with pytest.raises(RuntimeError, match="TypeError"):
        worker.ask("math_value", deadline=600.0)
    worker.close()


def test_kinds_are_seen_in_the_gold_answers() -> None:
    assert infer_kind(["1", "2,000", "3.5"]) == "number"
    assert infer_kind(["A", "(C)"]) == "option"
    assert infer_kind([r"\frac12", "3"]) == "math"
    assert infer_kind(["yes", "no"]) == "text"


def test_corruption_changes_the_value() -> None:
    for gold in ("7", "100", "0.5", "True", "no", "A", "b c d", "DRL", "", r"\frac{1}{2}"):
        assert corrupt(gold) != gold


def test_hub_rows_are_read() -> None:
    assert hub._gsm8k({"question": "q", "answer": "a\n#### 1,234"}) == ("q", "1,234")
    assert hub._multiarith({"question": " q ", "final_ans": "7"}) == ("q", "7")
    assert hub._math_train({"problem": "p", "solution": r"so \boxed{\frac{1}{2}}."}) == ("p", r"\frac{1}{2}")
    assert hub._math_train({"problem": "p", "solution": "none"}) is None
    row = {"problem": "p", "answer": "033", "url": "https://x/2022_AIME_I_Problems"}
    assert hub._aime_of("2022")(row) == ("p", "33") and hub._aime_of("2023")(row) is None


def test_a_benchmark_without_a_network_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "from elicit.cli import main; import sys; sys.argv = ['elicit', 'tasks', 'gsm8k']; main()"
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and "hub could not be reached" in done.stderr
