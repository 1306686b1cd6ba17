"""Logs as lm-eval 0.4.13 writes them; `tests/lm_eval` reads what it wrote here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elicit.evaluation.run.foreign_lm_eval import is_lm_eval, read_lm_eval
from probes.errors import UserError


def written(doc: int, texts: list[str], score: float, **changed: Any) -> dict[str, Any]:
    return {
        "doc_id": doc,
        "doc": {"question": f"{doc} + 1?", "answer": str(doc + 1)},
        "target": f"so #### {doc + 1}",
        "arguments": {"gen_args_0": {"arg_0": f"Q: {doc} + 1?\nA:", "arg_1": {"until": ["\n"]}}},
        "resps": [texts],
        "filtered_resps": [texts[0]],
        "filter": "last",
        "metrics": ["exact_match"],
        "exact_match": score,
        **changed,
    }


def chosen(likely: list[float], gold: int) -> dict[str, Any]:
    requests = {f"gen_args_{n}": {"arg_0": "Q: 1 + 1?\nA:", "arg_1": f" {n}"} for n in range(len(likely))}
    responses = [[[str(one), "False"]] for one in likely]
    line = written(0, [""], 1.0, arguments=requests, resps=responses, target=str(gold), metrics=["acc", "acc_norm"])
    return {**line, "acc": float(likely.index(max(likely)) == gold), "acc_norm": 0.0}


def log(tmp_path: Path, *lines: Any) -> Path:
    file = tmp_path / "samples_sums_of_one_2026-11-28T07-00-00.123456.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return file


def test_answers_are_read_with_their_scores(tmp_path: Path) -> None:
    file = log(tmp_path, written(3, [" 4"], 1.0), written(4, [" 6"], 0.0))
    assert is_lm_eval(file)
    found, about = read_lm_eval(file)
    one, two = found
    assert about == {"task": "sums_of_one"}
    assert one == {
        "item": one["item"], "metadata": {"question": "3 + 1?", "answer": "4"}, "sample": 0, "text": " 4",
        "prompt": "Q: 3 + 1?\nA:", "score": 1.0, "answer": None, "gold": "so #### 4",
    }  # fmt: skip
    assert one["item"].startswith("sums_of_one-")
    assert two["item"] != one["item"]
    assert two["score"] == 0.0


def test_of_several_answers_each_is_judged_where_their_kind_is_named(tmp_path: Path) -> None:
    file = log(tmp_path, written(3, [" 4", " it is 5.", "no"], 1.0))
    assert [one["score"] for one in read_lm_eval(file)[0]] == [None, None, None]
    judged = list(read_lm_eval(file, "kind:number")[0])
    assert [(one["sample"], one["score"], one["answer"]) for one in judged] == [
        (0, 1.0, "4"),
        (1, 0.0, "5"),
        (2, 0.0, None),
    ]
    assert [one["gold"] for one in read_lm_eval(file, "kind:number", "answer")[0]] == ["4"] * 3


def test_of_choices_the_likeliest_is_the_answer(tmp_path: Path) -> None:
    file = log(tmp_path, chosen([-2.5, -1.5, -9.0], 1))
    (one,) = read_lm_eval(file, "acc")[0]
    assert (one["text"], one["answer"], one["gold"], one["score"]) == ("1", "1", "1", 1.0)


def test_of_several_filters_one_is_read(tmp_path: Path) -> None:
    file = log(tmp_path, written(3, [" 4"], 1.0), written(3, [" 4"], 0.0, filter="strict"))
    assert [one["score"] for one in read_lm_eval(file, "exact_match,strict")[0]] == [0.0]
    with pytest.raises(UserError, match=r"several filters \(last, strict, …\); choose one, like exact_match,last"):
        list(read_lm_eval(file)[0])
    with pytest.raises(UserError, match="unknown filter 'strictly'; did you mean strict"):
        list(read_lm_eval(file, "exact_match,strictly")[0])


@pytest.mark.parametrize(
    ("line", "score", "message"),
    [
        ("{", "", "line 1: not JSON"),
        ("[]", "", "line 1: a list, expected an object"),
        ({"doc_id": 1}, "", "line 1: it has no 'doc'"),
        (written(1, ["2"], 1.0, arguments=[]), "", "its arguments are not those of requests"),
        (written(1, ["2"], 1.0, resps=[]), "", "1 requests and other responses"),
        (written(1, ["2"], 1.0), "acc", "unknown metric 'acc'"),
        (written(1, ["2"], 1.0, exact_match=[1, 2]), "", r"exact_match is \[1, 2\], expected a number"),
        (written(1, ["2"], 1.0, metrics=["f1", "acc"]), "", r"several metrics \(f1, acc\)"),
        (written(1, ["2"], 1.0), "kind:numbers", "answer kind 'numbers'"),
        (chosen([-1.0, -2.0], 0), "kind:number", "a task of likelihoods has no answers"),
        ({**chosen([-1.0, -2.0], 0), "resps": [[["x"]], [["y"]]]}, "acc", "its responses are no likelihoods"),
    ],
)
def test_what_is_garbled_is_named_with_its_line(tmp_path: Path, line: Any, score: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(read_lm_eval(log(tmp_path, line), score)[0])
