"""What lm-eval logs of its samples (`--log_samples`): a line for each document and filter, in JSON Lines.

lm-eval scores a document, not an answer: of one that was asked several times (`repeats`) the log does not say whose the
score is. Such answers have scores where a person names the kind of answer, by which each is judged here. What a filter
made of a text is the answer that was found. A task of choices has one answer, the continuation that was the likeliest
(for `acc_norm` by letter); where its score says that another was chosen, by what the log lacks, none is known. Where
choices stand in the context and all continue alike, the context's part that was, and the log has no gold answer.
Documents have the ids that they have as items of this suite (`elicit.tasks.lm_eval`), so that runs of both are paired.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from elicit.evaluation.run.bounded import lines_of, opened
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
    with opened(path) as file:
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
    for where, line in lines_of(path):
        _check(line, where)
        if line["filter"] not in filters:
            filters.append(line["filter"])
        if len(filters) > 1 and not wanted and not kind:
            raise UserError(
                f"{where}: the task has several filters ({', '.join(filters)}, …); choose one, like "
                f"{metric or line['metrics'][0]},{filters[0]}"
            )
        if line["filter"] != (wanted or filters[0]):
            continue
        doc = line["doc"]
        metadata = doc if isinstance(doc, dict) else {"doc": doc}
        about = {"item": ids.of(task, line["doc_id"], doc), "metadata": metadata}
        for answer in _of_line(line, where, "" if kind else metric, kind, gold):
            yield {**about, **answer}
    if wanted and wanted not in filters:
        raise unknown("filter", wanted, filters)


def _check(line: Mapping[str, Any], where: str) -> None:
    for key in _KEYS:
        if key not in line:
            raise UserError(f"{where}: it has no {key!r}; give a file of samples of lm-eval")
    requests = line["arguments"]
    if (
        not isinstance(requests, dict)
        or not requests
        or not all(isinstance(one, dict) and "arg_0" in one for one in requests.values())
    ):
        raise UserError(f"{where}: its arguments are not those of requests; write the log again")
    if not isinstance(line["doc_id"], int):
        raise UserError(f"{where}: its doc_id is {str(line['doc_id'])[:40]!r}, expected a number; write the log again")
    if not isinstance(line["resps"], list) or len(line["resps"]) != len(requests):
        raise UserError(f"{where}: {len(requests)} requests and other responses; write the log again")
    names = line["metrics"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: its metrics are no list of names; write the log again")
    if not isinstance(line["filter"], str):
        raise UserError(f"{where}: its filter is {str(line['filter'])[:40]!r}, expected a name; write the log again")


def _of_line(line: Mapping[str, Any], where: str, metric: str, kind: str, gold: str) -> Iterator[dict[str, Any]]:
    requests, resps, doc = list(line["arguments"].values()), line["resps"], line["doc"]
    right = line["target"]
    if gold:
        fields = doc if isinstance(doc, dict) else {}
        right = fields.get(gold)
        if right is None:
            raise UserError(f"{where}: its document has no {gold!r}; it has {', '.join(fields) or 'no fields'}")
    right = str(right)
    prompt = str(requests[0]["arg_0"])
    if isinstance(requests[0].get("arg_1"), dict):
        texts = resps[0]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{where}: its responses are no list of texts; write the log again")
        logged = None if kind or len(texts) > 1 else _score(line, where, metric)
        found = _filtered(line, texts)
        for sample, text in enumerate(texts):
            score, answer = (logged, found) if not kind else _judged(text, right, kind)  # type: ignore[arg-type]
            yield {"sample": sample, "prompt": prompt, "text": text, "score": score, "answer": answer, "gold": right}
        return
    if kind or len(requests) < 2 or not all("arg_1" in one for one in requests):
        raise UserError(
            f"{where}: a task of likelihoods has no answers; give samples of generate_until or multiple_choice"
        )
    asked = [n for n, one in enumerate(requests) if one["arg_0"] != ""]  # acc_mutual_info asks for bare choices too
    asked = asked or list(range(len(requests)))
    contexts, said = ([str(requests[n][key]) for n in asked] for key in ("arg_0", "arg_1"))
    likely = [_likelihood(resps[n], where) for n in asked]
    if max(likely) == -math.inf:
        raise UserError(f"{where}: no choice has a finite likelihood; write the log again")
    target: str | None = right
    if len(set(said)) == 1 < len(set(contexts)):
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(min(contexts), max(contexts), strict=False))
        prompt = "".join(letter for letter, _ in shared).rpartition(" ")[0]
        said = [context[len(prompt) :] for context in contexts]
        target = right if gold else None
    elif right.isdecimal() and int(right) < len(said):
        target = said[int(right)].strip()
    score, said = _score(line, where, metric), [one.strip() for one in said]
    per_letter = (metric or line["metrics"][0]) == "acc_norm"  # as lm-eval has it: of each choice, a letter's mean
    by = [one / max(1, len(text)) if per_letter else one for one, text in zip(likely, said, strict=True)]
    text = said[by.index(max(by))]
    if score in (0.0, 1.0) and target is not None and (score == 1) != (text == target):
        text = ""  # chosen by another measure, which the log does not hold
    yield {"sample": 0, "prompt": prompt, "text": text, "score": score, "answer": text or None, "gold": target}


def _filtered(line: Mapping[str, Any], texts: Sequence[str]) -> str | None:
    """What the filter made of one answer; None of several, where it is no text, and where it took the whole one."""
    filtered = line.get("filtered_resps")
    if len(texts) > 1 or not isinstance(filtered, list) or len(filtered) != 1 or not isinstance(filtered[0], str):
        return None
    return None if filtered[0].strip() == texts[0].strip() else filtered[0]


def _likelihood(response: Any, where: str) -> float:
    """The log-likelihood of a choice, which lm-eval writes as a number or a text."""
    try:
        found = float(response[0][0])
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise UserError(f"{where}: its responses are no likelihoods; write the log again") from error
    if math.isnan(found) or found == math.inf:
        raise UserError(f"{where}: a likelihood is {found}, of which none is the largest; score the task again")
    return found


def _score(line: Mapping[str, Any], where: str, metric: str) -> float:
    names = line["metrics"]
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
