"""What lm-eval logs of its samples (`--log_samples`): a line for each document and filter, in JSON Lines.

lm-eval scores a document, not an answer: of one that was asked several times (`repeats`) the log does not say whose the
score is. Such answers have scores where a person names the kind of answer, by which each is judged here. A task of
choices has one answer, the continuation that was the likeliest. Documents have the ids that they have as items of this
suite (`elicit.tasks.lm_eval`), so that runs of both are paired.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elicit.tasks.answers import KINDS, Kind, find_answer
from elicit.tasks.base import Item
from elicit.tasks.grading import check_kind, grader_for
from elicit.tasks.lm_eval import SampleIds
from probes.errors import UserError, unknown

_NAME = re.compile(r"samples_(.+)_\d{4}-\d\d-\d\dT[\d.-]+\.jsonl")
_KEYS = ("doc_id", "doc", "target", "arguments", "resps", "filter", "metrics")
JUDGED = "kind:"  # before the kind by which answers are judged here


def is_lm_eval(path: Path) -> bool:
    """Whether a file is such a log, by its first line."""
    if path.suffix not in (".jsonl", ".json"):
        return False
    with path.open("rb") as file:
        begins = file.readline(1 << 20)
    return begins.startswith(b'{"doc_id": ') and b'"arguments": ' in begins


def read_lm_eval(path: Path, score: str = "", gold: str = "") -> tuple[Iterator[dict[str, Any]], dict[str, Any]]:
    """The answers of a log.

    Args:
        path: of the file.
        score: `metric`, or `metric,filter` where the task has several filters; may be left out where there is one of
            each. `kind:number` (or another kind of answer) judges each answer here.
        gold: the document's field of the gold answer; the task's target unless given.

    Returns:
        For each answer its item, sample, prompt, text, score, answer, gold and metadata; and what the file says of all.

    Raises:
        UserError: one that is garbled, with its line's number; a score that is not there, or one of several;
            a task of likelihoods alone, which has no answers.
    """
    named = _NAME.fullmatch(path.name)
    task = named[1] if named else path.stem
    return _answers(path, task, score, gold), {"task": task}


def _answers(path: Path, task: str, score: str, gold: str) -> Iterator[dict[str, Any]]:
    metric, _, wanted = score.partition(",")
    kind = metric.removeprefix(JUDGED) if metric.startswith(JUDGED) else ""
    if kind:
        check_kind(kind, KINDS)
    ids = SampleIds()
    filters: list[str] = []
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            where = f"{path}, line {number}"
            line = _line(text, where)
            if line["filter"] not in filters:
                filters.append(line["filter"])
            if len(filters) > 1 and not wanted and not kind:
                raise UserError(
                    f"{where}: the task has several filters ({', '.join(filters)}, …); choose one, like "
                    f"{metric or line['metrics'][0]},{filters[0]}"
                )
            if line["filter"] != (wanted or filters[0]):
                continue
            about = {"item": ids.of(task, line["doc_id"], line["doc"]), "metadata": line["doc"]}
            for answer in _of_line(line, where, "" if kind else metric, kind, gold):
                yield {**about, **answer}
    if wanted and wanted not in filters:
        raise unknown("filter", wanted, filters)


def _line(text: bytes, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({str(error)[:60]}); write the log again") from error
    if not isinstance(line, dict):
        raise UserError(f"{where}: a {type(line).__name__}, expected an object; give a file of samples of lm-eval")
    for key in _KEYS:
        if key not in line:
            raise UserError(f"{where}: it has no {key!r}; give a file of samples of lm-eval")
    requests = line["arguments"]
    if not isinstance(requests, dict) or not all(isinstance(one, dict) and "arg_0" in one for one in requests.values()):
        raise UserError(f"{where}: its arguments are not those of requests; write the log again")
    if not isinstance(line["doc"], dict) or not isinstance(line["metrics"], list) or not line["metrics"]:
        raise UserError(f"{where}: its doc is no object or its metrics no list; write the log again")
    if not isinstance(line["resps"], list) or len(line["resps"]) != len(requests):
        raise UserError(f"{where}: {len(requests)} requests and other responses; write the log again")
    return line


def _of_line(line: Mapping[str, Any], where: str, metric: str, kind: str, gold: str) -> Iterator[dict[str, Any]]:
    requests, resps = list(line["arguments"].values()), line["resps"]
    right = line["doc"].get(gold) if gold else line["target"]
    if gold and right is None:
        raise UserError(f"{where}: its document has no {gold!r}; it has {', '.join(line['doc'])}")
    right = str(right)
    prompt = str(requests[0]["arg_0"])
    if isinstance(requests[0].get("arg_1"), dict):
        if not isinstance(resps[0], list):
            raise UserError(f"{where}: its responses are {resps[0]!r}, expected a list; write the log again")
        texts = [str(text) for text in resps[0]]
        logged = None if kind or len(texts) > 1 else _score(line, where, metric)
        for sample, text in enumerate(texts):
            score, answer = (logged, None) if not kind else _judged(text, right, kind)  # type: ignore[arg-type]
            yield {"sample": sample, "prompt": prompt, "text": text, "score": score, "answer": answer, "gold": right}
        return
    if kind or len(requests) < 2 or "arg_1" not in requests[0]:
        raise UserError(
            f"{where}: a task of likelihoods has no answers; give samples of generate_until or multiple_choice"
        )
    said = [str(one["arg_1"]) for one in requests]
    try:
        likely = [float(one[0][0]) for one in resps]
    except (ValueError, TypeError, IndexError) as error:
        raise UserError(f"{where}: its responses are no likelihoods; write the log again") from error
    best = said[likely.index(max(likely))].strip()
    right = said[int(right)].strip() if right.isdigit() and int(right) < len(said) else right
    score = _score(line, where, metric)
    yield {"sample": 0, "prompt": prompt, "text": best, "score": score, "answer": best, "gold": right}


def _score(line: Mapping[str, Any], where: str, metric: str) -> float:
    names = [str(name) for name in line["metrics"]]
    if metric and metric not in names:
        raise unknown("metric", metric, names)
    if not metric and len(names) != 1:
        raise UserError(f"{where}: the task has several metrics ({', '.join(names)}); choose one")
    value = line.get(metric or names[0])
    if not isinstance(value, int | float):
        raise UserError(f"{where}: {metric or names[0]} is {value!r}, expected a number; choose another metric")
    return float(value)


def _judged(text: str, gold: str, kind: Kind) -> tuple[float, str | None]:
    """The verdict on an answer, whose gold answer may stand at the end of a solution; and the answer."""
    stated, said = find_answer(gold, kind), find_answer(text, kind)
    item = Item("", "", stated.text if stated else gold, "test")
    answer = said.text if said else None
    return grader_for(kind).grade(item, answer).score, answer
