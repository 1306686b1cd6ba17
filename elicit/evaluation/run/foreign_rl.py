"""What trainers write of their rollouts: verl's dumps (JSON Lines) and TRL's completions (Parquet).

Neither says which answers are to one question but by its prompt, so a question's id is a hash of that. A file is of one
step, so its answers are samples of one policy. A reward is no verdict until a person says from which one on an answer
is right (`elicit.evaluation.imported`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elicit.evaluation.run.bounded import lines_of, opened
from elicit.tasks.base import content_id
from probes.errors import UserError, unknown

VERL = ("input", "output", "score")  # what every line has; `gts` and `step` in most releases
TRL = ("step", "prompt", "completion", "advantage")
PREDICTED = "pred"  # what several of verl's scorers call the answer that they found
ROWS = 1024


def is_verl(path: Path) -> bool:
    """Whether a file is a dump of verl's, by its first line."""
    if path.suffix not in (".jsonl", ".json"):
        return False
    try:
        _, first = next(lines_of(path))
    except (StopIteration, UserError):  # no line of its own, or none that is an object
        return False
    return all(isinstance(first.get(key), str) for key in VERL[:2])


def read_verl(path: Path, score: str, gold: str) -> tuple[Iterator[dict[str, Any]], dict[str, Any]]:
    """The answers of a dump: `input`, `output`, `gts`, `score`, `step`, and what the reward function added.

    Args:
        path: of the file.
        score: the number to read, e.g. `acc`; `score`, the reward, unless given.
        gold: the field of the gold answer; `gts` unless given.

    Returns:
        The fields of one record after another, and what the file says of all.
    """
    return _of_verl(path, score or "score", gold), {}


def _of_verl(path: Path, score: str, gold: str) -> Iterator[dict[str, Any]]:
    asked: Counter[str] = Counter()
    steps: set[Any] = set()
    for where, line in lines_of(path):
        for key in (*VERL[:2], score, *([gold] if gold else [])):
            if key not in line:
                raise UserError(f"{where}: it has no {key!r}; it has {', '.join(line)}")
        if not isinstance(line["input"], str):
            raise UserError(f"{where}: input is a {type(line['input']).__name__}, expected text; write the log again")
        steps.add(str(line.get("step")))
        if len(steps) > 1:
            raise UserError(f"{where}: of another step than the lines before; give a file of one step")
        yield _numbered(asked, line["input"], {
            "text": line["output"], "score": _reward(line[score], score, where), "gold": _gold(line.get(gold or "gts")),
            "answer": _gold(line.get(PREDICTED)),
        })  # fmt: skip


def is_trl(path: Path) -> bool:
    """Whether a file is of TRL's completions, by its columns."""
    with opened(path) as file:
        if file.read(4) != b"PAR1":
            return False
    return set(TRL[1:3]) <= set(_table(path).schema_arrow.names)


def read_trl(path: Path, score: str, gold: str) -> tuple[Iterator[dict[str, Any]], dict[str, Any]]:
    """The answers of a file of completions: `step`, `prompt`, `completion`, a column a reward function, `advantage`.

    Args:
        path: of the file.
        score: the reward function; may be left out where there is one.
        gold: the column of the gold answer, where a reward function logged one (`log_extra`).

    Returns:
        The fields of one record after another, and what the file says of all.

    Raises:
        UserError: no such column, several reward functions of which none was chosen, rows of several steps.
    """
    import pyarrow.types as kinds

    schema = _table(path).schema_arrow
    for name in TRL[1:3]:
        if name not in schema.names:
            raise UserError(f"{str(path)!r} has no column {name!r}; give a file of TRL's completions")
    rewards = [
        one.name
        for one in schema
        if one.name not in TRL and (kinds.is_floating(one.type) or kinds.is_integer(one.type))
    ]
    if score and score not in rewards:
        raise unknown("reward function", score, rewards)
    if len(rewards) != 1 and not score:
        raise UserError(f"{str(path)!r} has rewards by {', '.join(rewards) or 'no function'}; choose one with --score")
    if gold and gold not in schema.names:
        raise unknown("column", gold, schema.names)
    return _of_trl(path, score or rewards[0], gold), {}


def _of_trl(path: Path, score: str, gold: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    asked: Counter[str] = Counter()
    columns = list(dict.fromkeys([*TRL[1:3], score, *([gold] if gold else [])]))
    table, steps = _table(path), set[Any]()
    if TRL[0] in table.schema_arrow.names and TRL[0] not in columns:
        columns.append(TRL[0])
    try:
        for batch in table.iter_batches(ROWS, columns=columns):
            for row in batch.to_pylist():
                where = f"{path}, row {sum(asked.values()) + 1}"
                steps.add(row.get(TRL[0]))
                if len(steps) > 1:
                    raise UserError(f"{where}: of another step than the rows before; give a file of one step")
                yield _numbered(asked, _messages(row["prompt"], where), {
                    "text": _messages(row["completion"], where), "score": _reward(row[score], score, where),
                    "gold": _gold(row[gold]) if gold else None,
                })  # fmt: skip
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({_line(error)}); write the log again") from error


def _table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        list(file.schema_arrow.names)  # decoded here: one that is no UTF-8 is damage too
        return file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} is no Parquet that can be read ({_line(error)}); give a whole file") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _numbered(asked: Counter[str], prompt: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    number = asked[prompt]
    asked[prompt] += 1
    return {"item": content_id(prompt), "sample": number, "prompt": prompt, **fields}


def _reward(value: Any, name: str, where: str) -> float | None:
    """A reward; None where a function gave none."""
    if value is None or isinstance(value, bool | int | float):
        return None if value is None else float(value)
    raise UserError(f"{where}: {name} is {str(value)[:20]!r}, expected a number; choose another with --score")


def _gold(value: Any) -> str | None:
    """An answer as text; a list or an object as its JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _messages(value: Any, where: str) -> str:
    """A text, or the texts of a conversation's messages."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, dict) and isinstance(one.get("content"), str) for one in value):
        return "\n\n".join(one["content"] for one in value)
    raise UserError(f"{where}: a {type(value).__name__}, expected a text or messages of text; write the log again")
