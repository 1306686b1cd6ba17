from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from elicit.tasks import corrupt, hub, load_task, task_names, validate
from elicit.tasks.base import Item
from elicit.tasks.grading import DeadlineExceeded, MathGrader, NumberGrader, Worker, grader_for, infer_kind
from probes.errors import UserError

# Measured, not excused: these have no gold answer of their own, so only the corrupted one can be shown wrong.
WITHOUT_GOLD = {"boxnet", "graph-color", "propositional-logic", "rubiks-cube", "rush-hour"}
# Its scorer grades anything as correct: `evaluate` refuses it.
BROKEN = {"game-of-life-halting", "puzzle24", "coin-flip"}
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


def test_another_seed_has_other_items() -> None:
    """Item i of reasoning-gym is drawn by the seed + i, so that sets of neighbouring seeds are one, shifted by one."""
    one, other = ({i.question for i in load_task("leg-counting", limit=16, seed=seed).items} for seed in (0, 1))
    assert len(one) == 48 and len(one & other) < 4


def test_parameters_are_passed_and_checked() -> None:
    task = load_task("chain-sum:min_terms=3,max_terms=3,min_digits=1,max_digits=1", limit=4)
    assert all(item.question.count("+") + item.question.count(" - ") == 2 for item in task.items)
    with pytest.raises(UserError, match=r"no parameter 'terms'; it has .*max_terms"):
        load_task("chain-sum:terms=3")
    with pytest.raises(UserError, match="answer kind 'nubmer' was given"):
        load_task("gsm8k:kind=nubmer")
    with pytest.raises(UserError, match="no parameter 'kinds'; it has kind"):
        load_task("gsm8k:kinds=math")
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


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("(3 + 5) * 3", True),
        ("3 * 3 + 3 * 5", False),
        ("5 * 5 - 3 / 3", False),
        ("24", False),
        ("(5 + 3) * 3 * 1", False),
    ],
)
def test_an_expression_uses_each_of_its_numbers_once_at_most(answer: str, right: bool) -> None:
    item = Item("i", "make 24 of 3, 3 and 5", None, "test", metadata={"target": 24, "numbers": [3, 3, 5]})
    assert grader_for("expression").grade(item, answer).correct is right


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
    assert infer_kind(["A", "(C)"]) == infer_kind(["a.", "B."]) == infer_kind(["A", "K", "Z"]) == "option"
    assert infer_kind(["x", "y"]) == "text"
    assert infer_kind(["10 cm", "5 m"]) == infer_kind(["18", "5 m"]) == "math"
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


SUBJECTS = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra")


def rows_of(repo: str, config: str | None, split: str) -> list[dict[str, Any]]:
    """Rows with the columns of the hub's data sets."""
    if repo == "EleutherAI/hendrycks_math":
        level = {"level": "Level 3", "type": str(config).replace("_", " ").title()}
        return [{"problem": f"{config} {n}", "solution": rf"so \boxed{{{n}}}", **level} for n in range(120)] + [
            {"problem": "tested 1", "solution": r"\boxed{1}", **level}
        ]
    if repo == "HuggingFaceH4/MATH-500":
        row = {"solution": "", "subject": "Geometry", "unique_id": "test/geometry/1.json"}
        texts = [*range(5), 1]
        return [{"problem": f"tested {n}", "answer": str(n), "level": 1 + n, **row} for n in texts]
    if repo == "math-ai/amc23":
        golds: list[Any] = ["27.0", 36.0, "45"]
        return [{"id": n, "question": f"amc {n}", "answer": gold, "url": ""} for n, gold in enumerate(golds)]
    if repo == "math-ai/minervamath":
        return [{"question": "How hot? ", "answer": r"\frac{1}{2} m v^2"}, {"question": "How far?", "answer": "2.5e3"}]
    if repo == "Hothan/OlympiadBench":
        assert (config, split) == ("OE_TO_maths_en_COMP", "train")
        row = {"solution": ["…"], "subfield": "Algebra", "difficulty": None, "unit": None, "answer_type": "Numerical"}
        golds = [["2"], ["$\\frac{1}{2}$"], ["$1$", "$2$"], None]
        return [{"question": f"olympiad {n}", "final_answer": gold, **row} for n, gold in enumerate(golds)]
    if repo == "ypwang61/One-Shot-RLVR-Datasets":
        assert split == "dsr_sub"
        return [
            {
                "data_source": "deepscaler", "prompt": [{"content": f"deep {n}", "role": "user"}], "ability": "math",
                "reward_model": {"ground_truth": str(n), "style": "rule"}, "extra_info": {"index": n, "split": "train"},
            }
            for n in range(30)
        ]  # fmt: skip
    raise AssertionError(repo)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", rows_of)


def test_a_published_test_set_is_whole_and_nothing_of_it_is_fitted_on(served: None) -> None:
    task = load_task("math-500")
    assert [item.question for item in task.test] == [f"tested {n}" for n in (*range(5), 1)]
    assert len({item.id for item in task.items}) == len(task.items)
    fitted = {item.question for item in (*task.fit, *task.dev)}
    assert not fitted & {item.question for item in task.test} and len(fitted) == 7 * 120
    assert task.source["left_out_of_fit"] == 1
    assert [item.metadata["level"] for item in task.test] == [1, 2, 3, 4, 5, 2]
    assert {item.metadata["subject"] for item in task.test} == {"Geometry"}


def test_the_first_items_that_are_fitted_on_are_of_all_subjects(served: None) -> None:
    task = load_task("math-500")
    for items in (task.fit[:16], task.dev[:16], load_task("math-500", limit=16).fit):
        subjects = Counter(item.metadata["subject"] for item in items)
        assert len(subjects) > 4 and max(subjects.values()) < 9
        assert all(item.metadata["level"] == 3 for item in items)
    assert [i.id for i in load_task("math-500", limit=16).fit] == [i.id for i in task.fit[:16]]


def test_a_file_that_is_sorted_is_fitted_on_in_another_order(tmp_path: Path) -> None:
    lines = [{"question": f"{s} {n}", "answer": n, "subject": s, "level": n % 5} for s in SUBJECTS for n in range(40)]
    task = load_task(str(write(tmp_path / "sorted.jsonl", *lines)))
    assert len({item.metadata["subject"] for item in task.fit[:16]}) > 4
    order = [line["question"] for line in lines]
    tested = [order.index(item.question) for item in task.test]
    assert tested == sorted(tested)
    again = load_task(str(write(tmp_path / "other.jsonl", *lines[::-1])))
    assert [item.id for item in again.fit] == [item.id for item in task.fit]
    stated = load_task(str(write(tmp_path / "stated.jsonl", *({**line, "split": "fit"} for line in lines))))
    assert len({item.metadata["subject"] for item in stated.fit[:16]}) > 4
    plain = [{"question": line["question"], "answer": 1, "split": "fit"} for line in lines]
    kept = load_task(str(write(tmp_path / "plain.jsonl", *plain)))
    assert [item.question for item in kept.fit] == order  # who states the splits and no subjects states the order too


@pytest.mark.parametrize(
    ("name", "golds"),
    [("amc23", ["27.0", "36", "45"]), ("minerva", [r"\frac{1}{2} m v^2", "2.5e3"]),
     ("olympiadbench", ["2", r"\frac{1}{2}", "1, 2"]), ("dsr-sub", ["0", "1", "2", "3", "4", "1"])],
)  # fmt: skip
def test_benchmarks_are_read_from_the_columns_that_they_have(name: str, golds: list[str], served: None) -> None:
    task = load_task(name)
    assert [item.answer for item in task.test] == golds and name in task_names()
    assert len(task.fit) and len(task.dev)
    if name == "dsr-sub":
        assert {item.question for item in (*task.fit, *task.dev)} == {f"deep {n}" for n in range(30)}


def test_rows_of_gsm8k_and_math_are_read_as_they_are_published(tmp_path: Path) -> None:
    worked = "She has 3 + 4 = <<3+4=7>>7.\n#### "
    rows = [{"question": f"q{n}", "answer": f"{worked}{gold}"} for n, gold in enumerate(("1,234", "12", "-3"))]
    task = load_task(str(write(tmp_path / "gsm.jsonl", *rows)))
    assert task.kind == "number" and validate(task.all).ok
    by_question = {item.question: item for item in task.items}
    assert [by_question[f"q{n}"].answer for n in range(3)] == ["1,234", "12", "-3"]
    assert by_question["q1"].metadata["solution"] == f"{worked}12"
    rows = [
        {"problem": f"p{n}", "level": "Level 5", "type": "Algebra", "solution": rf"first \boxed{{9}}, then ${solved}$."}
        for n, solved in enumerate((r"\boxed{\frac{1}{2}}", r"\boxed 7", r"\fbox{x^2}"))
    ]
    task = load_task(str(write(tmp_path / "math.jsonl", *rows)))
    assert task.kind == "math" and {i.question: i.answer for i in task.items} == {
        "p0": r"\frac{1}{2}",
        "p1": "7",
        "p2": "x^2",
    }
    assert all((i.metadata["subject"], i.metadata["level"]) == ("Algebra", 5) for i in task.items)
    row = {
        "problem": "p",
        "answer": "4",
        "solution": r"\boxed{5}",
        "subject": "Geometry",
        "level": 2,
        "unique_id": "test/1",
    }
    (item,) = load_task(str(write(tmp_path / "500.jsonl", row))).items
    assert (item.answer, item.metadata["subject"], item.metadata["level"]) == ("4", "Geometry", 2)
    with pytest.raises(UserError, match="line 1: no 'answer'"):
        load_task(str(write(tmp_path / "none.jsonl", {"problem": "p", "solution": "no box"})))


def test_lines_end_at_line_ends_alone_and_an_id_may_be_0(tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_bytes(
        b"\xef\xbb\xbf" + '{"id": 0, "question": "a\u2028b", "answer": 1}\r\n{"question": "c", "answer": 2}'.encode()
    )
    assert {(i.id, i.question) for i in load_task(str(file)).items} >= {("0", "a\u2028b")}
    file.write_bytes('{"question": "é", "answer": 1}'.encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        load_task(str(file))


def test_the_one_example_is_a_task_without_a_network() -> None:
    (item,) = load_task("pi1").fit
    assert item.id == "pi1" and item.answer == "12.8" and r"within \boxed{}." in item.question
    assert validate(load_task("pi1").fit).ok
