"""Logs as lm-eval 0.4.13 writes them; `tests/lm_eval` reads what it wrote here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elicit.evaluation.run.foreign import read_log
from elicit.evaluation.run.foreign_lm_eval import is_lm_eval, read_lm_eval
from probes.errors import UserError


def written(number: int, texts: list[str], score: float, **changed: Any) -> dict[str, Any]:
    return {
        "doc_id": number,
        "doc": {"question": f"{number} + 1?", "answer": str(number + 1)},
        "target": f"so #### {number + 1}",
        "arguments": {"gen_args_0": {"arg_0": f"Q: {number} + 1?\nA:", "arg_1": {"until": ["\n"]}}},
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


def test_of_choices_the_answer_is_that_of_the_measure_that_scores(tmp_path: Path) -> None:
    """The likeliest text, by letter the likeliest, and one that only the log's own measure knows."""
    said, likely = (" yes", " no, it certainly is not"), (-3.0, -4.0)
    requests = {f"gen_args_{n}": {"arg_0": "Is it?", "arg_1": one} for n, one in enumerate(said)}
    line = written(
        0, [""], 1.0, arguments=requests, resps=[[[str(one), "False"]] for one in likely], target="1",
        metrics=["acc", "acc_norm", "acc_other"], acc=0.0, acc_norm=1.0, acc_other=1.0,
    )  # fmt: skip
    answers = [next(read_lm_eval(log(tmp_path, line), name)[0]) for name in line["metrics"]]
    assert [one["answer"] for one in answers] == ["yes", "no, it certainly is not", None]
    assert [one["score"] for one in answers] == [0.0, 1.0, 1.0] and {one["gold"] for one in answers} == {said[1][1:]}


def log(tmp_path: Path, *lines: Any) -> Path:
    file = tmp_path / "samples_sums_of_one_2026-11-28T07-00-00.123456.jsonl"
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    file.write_text(text, errors="surrogateescape")
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


def test_where_several_answers_have_no_score_the_way_to_judge_them_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no answer in .* has a score; .*, or judge each here .--score kind:number"):
        read_log(log(tmp_path, written(3, [" 4", " 5"], 1.0)))


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
        ("\udcff", "", "line 1: not JSON"),
        ({"doc_id": 1}, "", "line 1: it has no 'doc'"),
        (written(1, ["2"], 1.0, arguments=[]), "", "its arguments are not those of requests"),
        (written(1, ["2"], 1.0, resps=[]), "", "1 requests and other responses"),
        (written(1, ["2"], 1.0, resps=[], arguments={}), "", "its arguments are not those of requests"),
        (written(1, ["2"], 1.0, resps=["2"]), "", "its responses are no list of texts"),
        (written(1, ["2"], 1.0, resps=[[None]]), "", "its responses are no list of texts"),
        (written(1, ["2"], 1.0, metrics=[]), "", "its metrics are no list of names"),
        (written(1, ["2"], 1.0, filter=["last"]), "", r"its filter is \"\['last'\]\", expected a name"),
        (chosen([-1.0, float("nan")], 0), "acc", "line 1: a likelihood is nan"),
        (chosen([float("inf"), -1.0], 0), "acc", "a likelihood is inf"),
        (chosen([-float("inf")] * 2, 0), "acc", "no choice has a finite likelihood"),
        ({**chosen([-1.0, -2.0], 0), "resps": [{}, {}]}, "acc", "its responses are no likelihoods"),
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


@pytest.mark.parametrize("doc", ["three and one", ["3", "1"], None, 4])
def test_a_document_need_not_be_an_object(tmp_path: Path, doc: Any) -> None:
    file = log(tmp_path, written(3, [" 4"], 1.0, doc=doc), written(4, [" 4"], 1.0, doc=doc))
    found = read_log(file).records
    assert [one.metadata for one in found] == [{"doc": doc}] * 2
    assert found[0].item != found[1].item
    with pytest.raises(UserError, match="line 1: its document has no 'answer'; it has no fields"):
        list(read_lm_eval(file, "", "answer")[0])


def test_what_a_filter_made_of_a_text_is_the_answer(tmp_path: Path) -> None:
    shapes: list[Any] = [["4"], [["4"]], "4", [], [" it is 4 "], ["[invalid]"], None]
    lines = [written(n, [" it is 4"], 1.0, filtered_resps=shape) for n, shape in enumerate(shapes)]
    lines.append(written(9, [" it is 4", " it is 5"], 1.0, filtered_resps=["4"]))  # of which answer is not said
    file = log(tmp_path, *lines)
    assert [one["answer"] for one in read_lm_eval(file)[0]] == ["4", *[None] * 4, "[invalid]", None, None, None]


def test_one_document_twice_is_refused_and_two_of_one_content_are_two(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds answer 0 to item 'sums_of_one-\w+' twice"):
        read_log(log(tmp_path, written(3, [" 4"], 1.0), written(3, [" 4"], 1.0)))
    same = {"doc": {"question": "3 + 1?"}, "target": "4"}
    found = read_log(log(tmp_path, written(3, [" 4"], 1.0, **same), written(5, [" 4"], 0.0, **same))).records
    assert found[1].item == f"{found[0].item}-2"


def test_a_log_that_was_cut_between_its_lines_has_blank_ones(tmp_path: Path) -> None:
    file = log(tmp_path, "", written(3, [" 4"], 1.0), "  ", written(4, [" 4"], 0.0))
    assert len(read_log(file, "lm-eval").records) == 2


def test_bare_choices_that_mutual_information_asks_for_are_no_answers(tmp_path: Path) -> None:
    line = {**chosen([-2.5, -1.5, -0.1, -0.2], 1), "acc": 1.0}
    for n in (2, 3):
        line["arguments"][f"gen_args_{n}"] = {"arg_0": "", "arg_1": f"{n - 2}"}
    (one,) = read_lm_eval(log(tmp_path, line), "acc")[0]
    assert (one["text"], one["gold"], one["prompt"]) == ("1", "1", "Q: 1 + 1?\nA:")


def test_choices_may_stand_in_the_context(tmp_path: Path) -> None:
    line = chosen([-2.5, -1.5], 1)
    for n, name in enumerate(("Edna", "Eve")):
        line["arguments"][f"gen_args_{n}"] = {"arg_0": f"It was {name}", "arg_1": " who left."}
    (one,) = read_lm_eval(log(tmp_path, {**line, "target": "who left."}), "acc")[0]
    assert (one["prompt"], one["text"], one["answer"], one["gold"]) == ("It was", "Eve", "Eve", None)
