"""Logs of other programs, as records: one reader for all formats, and what a record must hold.

A format is its line in `FORMATS`: how it is known, and a function that reads a file. What a log does not say is None
and stays unknown; a record that is garbled is refused with its place. Texts are data: they are never run, and what no
text file can hold (half of a surrogate pair) becomes U+FFFD.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from elicit.evaluation.run.foreign_inspect import is_inspect, read_inspect
from elicit.evaluation.run.foreign_lm_eval import is_lm_eval, read_lm_eval
from elicit.evaluation.run.foreign_rl import is_trl, is_verl, read_trl, read_verl
from probes.errors import UserError, unknown

ROUNDING = 1e-4  # by which the logarithm of a probability near 1 may lie above 0


class Wanted(NamedTuple):
    """What a person says of a log: the score and the gold answer to read, by the log's names, "" where it has one."""

    score: str = ""
    gold: str = ""


@dataclass(frozen=True)
class Record:
    """One answer.

    Args:
        item: the question's id.
        sample: its number among the question's answers, from 0.
        prompt: the question as the log has it.
        text: what was said.
        score: by the log's own scorer; None where it gave none.
        answer: that the scorer found; None where the log does not say.
        gold: the right answer, where the log has one text for it.
        tokens: ids of the answer's tokens.
        logprob: the log-probability of each of the answer's tokens, where the log has them.
        spent, prompt_tokens: how many there are, where they were counted.
        finish: `stop`, `length`, or the log's own word.
        metadata: of the question.
    """

    item: str
    sample: int
    prompt: str
    text: str
    score: float | None
    answer: str | None = None
    gold: str | None = None
    tokens: list[int] | None = None
    logprob: list[float] | None = None
    spent: int | None = None
    prompt_tokens: int | None = None
    finish: str = "unknown"
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Log:
    """A log that was read.

    Args:
        format: its name.
        records: in the log's order.
        model, task: their names in the log, "" where it has none.
        settings: of the decoding, by `elicit.decoding.decoders.Elsewhere`'s names.
    """

    format: str
    records: list[Record]
    model: str = ""
    task: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


class Format(NamedTuple):
    """A format: what it is, whether a file is of it, and its reader.

    The reader is called with the file, the score's name and the gold answer's, "" where a person names none, and
    returns the fields of one `Record` after another, and those of the `Log` that the file says.
    """

    summary: str
    known: Callable[[Path], bool]
    read: Callable[[Path, str, str], tuple[Iterator[dict[str, Any]], dict[str, Any]]]


FORMATS: dict[str, Format] = {
    "lm-eval": Format("samples of lm-eval (log_samples), JSON Lines", is_lm_eval, read_lm_eval),
    "inspect": Format("a log of Inspect, .eval or .json of version 2", is_inspect, read_inspect),
    "trl": Format("a file of completions of TRL (log_completions), Parquet", is_trl, read_trl),
    "verl": Format("a file of verl's rollout_data_dir or validation_data_dir, JSON Lines", is_verl, read_verl),
}


def read_log(path: Path, form: str = "", wanted: Wanted | None = None) -> Log:
    """Read a log.

    Args:
        path: of the file.
        form: its format's name; unless given, as the file shows.
        wanted: which score and gold answer, where the log has several.

    Raises:
        UserError: no such file or format, a garbled record, one answer twice, or no score in the whole log.
    """
    if form and form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if not path.is_file():
        raise UserError(f"{str(path)!r} is no file; give a log")
    name = form or next((name for name, one in FORMATS.items() if one.known(path)), "")
    if not name:
        known = "; ".join(f"{name}: {one.summary}" for name, one in FORMATS.items())
        raise UserError(f"{str(path)!r} is of no known format ({known}); give one of those, or --format")
    wanted = wanted or Wanted()
    found, about = FORMATS[name].read(path, wanted.score, wanted.gold)
    records = [_checked(one, f"{path}, answer {n}") for n, one in enumerate(found, start=1)]
    if not records:
        raise UserError(f"{str(path)!r} holds no answers; give a log with samples")
    if all(one.score is None for one in records):
        here = ", or judge each here (--score kind:number, or another kind)" if name == "lm-eval" else ""
        raise UserError(f"no answer in {str(path)!r} has a score; score them with the program that wrote the log{here}")
    seen: set[tuple[str, int]] = set()
    for one in records:
        if (one.item, one.sample) in seen:
            raise UserError(f"{str(path)!r} holds answer {one.sample} to item {one.item!r} twice; write the log again")
        seen.add((one.item, one.sample))
    return Log(name, records, **about)


def _checked(found: Mapping[str, Any], where: str) -> Record:
    """A record of the fields that a reader gives.

    Raises:
        UserError: a field lacks or is of another type.
    """
    one: dict[str, Any] = {name: found.get(name) for name in Record.__dataclass_fields__}
    for name, kinds in _KINDS.items():
        value = one[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise UserError(f"{where}: {name} is {_said(value)}, expected {_WORDS[kinds]}; write the log again")
        if isinstance(value, int) and value < 0:
            raise UserError(f"{where}: {name} is {value}, expected 0 or more; write the log again")
        if isinstance(value, str):
            one[name] = plain_text(value)
    if isinstance(one["score"], int | float) and not math.isfinite(one["score"]):
        one["score"] = None  # how logs write that there is no score
    if one["tokens"] is not None:
        if not isinstance(one["tokens"], list) or not all(type(token) is int for token in one["tokens"]):
            raise UserError(f"{where}: tokens are {_said(one['tokens'])}, expected a list of ids; write the log again")
        if one["spent"] is None:
            one["spent"] = len(one["tokens"])
    if one["logprob"] is not None and not all(_is_logprob(value) for value in one["logprob"]):
        wrong = next(value for value in one["logprob"] if not _is_logprob(value))
        raise UserError(
            f"{where}: a token's log-probability is {_said(wrong)}, expected a number of 0 or less; write the log again"
        )
    return Record(**{**one, "finish": one["finish"] or "unknown", "metadata": one["metadata"] or {}})


_TEXT, _TEXT_OR_NONE, _COUNT = (str,), (str, type(None)), (int, type(None))
_NUMBER = (int, float, type(None))
_WORDS: dict[tuple[type, ...], str] = {
    _TEXT: "text", _TEXT_OR_NONE: "text or nothing", _COUNT: "a number of tokens or nothing",
    _NUMBER: "a number or nothing", (int,): "a number",
}  # fmt: skip
_KINDS: dict[str, tuple[type, ...]] = {
    "item": _TEXT, "sample": (int,), "prompt": _TEXT, "text": _TEXT, "score": _NUMBER, "answer": _TEXT_OR_NONE,
    "gold": _TEXT_OR_NONE, "spent": _COUNT, "prompt_tokens": _COUNT, "finish": _TEXT_OR_NONE,
}  # fmt: skip


def _is_logprob(value: Any) -> bool:
    return type(value) in (int, float) and -math.inf < value < ROUNDING


def plain_text(text: str) -> str:
    """The text as UTF-8 can hold it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _said(value: Any) -> str:
    return "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
