"""Logs of Inspect (`inspect_ai.log`, version 2): `.eval`, a zip of JSON, and `.json`.

A sample is one question in one epoch, so epochs are a question's answers. The text is the message that Inspect scored:
the first choice of the last output; reasoning that a provider kept apart stands before it in `<think>` tags. Letters of
a score are numbers as Inspect's `value_to_float` makes them. A sample that failed, was invalidated, or whose verdict
this suite lost, has no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elicit.evaluation.run.bounded import Zipped, opened, whole_json
from probes.errors import UserError

LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
FINISH = {"stop": "stop", "max_tokens": "length", "length": "length", "model_length": "length"}
SETTINGS = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_tokens": "max_new_tokens"}
HEADER, START, SAMPLES = "header.json", "_journal/start.json", "samples/"
ATTACHED = "attachment://"
OURS = "elicit"  # where logs that this suite wrote (`to_inspect.py`) keep what Inspect has no place for
KIND = "elicit_kind"  # and in a sample's metadata the kind of its answer
LOST = "unjudged"  # and in its score's metadata why it has no verdict


def is_inspect(path: Path) -> bool:
    """Whether a file is a log of Inspect, by its beginning."""
    with opened(path) as file:
        begins = file.read(4096)
    if path.suffix == ".eval" or (begins.startswith(b"PK\x03\x04") and START.encode() in begins):
        return True
    return path.suffix == ".json" and all(f'"{key}"'.encode() in begins for key in ("version", "status", "eval"))


def read_inspect(path: Path, score: str, gold: str) -> tuple[Iterator[dict[str, Any]], dict[str, Any]]:
    """The samples of a log.

    Args:
        path: of the log.
        score: the scorer's name, and after a slash the key of its value, where there are several.
        gold: must be "": the target is the gold answer.

    Returns:
        The fields of one record after another, and what the log says of all.

    Raises:
        UserError: a log that was not finished, of another version, or several scores of which none was chosen.
    """
    if gold:
        raise UserError("--gold is of TRL's files; in a log of Inspect the target is the gold answer")
    with opened(path) as file:
        zipped = file.read(2) == b"PK"
    header = _header(path) if zipped else whole_json(path)
    about = _about(header, str(path))
    samples = _members(path) if zipped else _list(header, path)
    return _records(samples, path, score), about


def _header(path: Path) -> Any:
    with Zipped(path) as log:
        if HEADER not in log.names:
            raise UserError(f"{str(path)!r} was not finished (no {HEADER}); finish it with `inspect eval-retry`")
        return log.json(HEADER)


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    with Zipped(path) as log:
        for name in log.names:
            if name.startswith(SAMPLES) and name.endswith(".json"):
                yield f"{path}, {name}", log.json(name)


def _list(log: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    samples = log.get("samples")
    if not isinstance(samples, list):
        raise UserError(f"{str(path)!r} holds no samples; run the evaluation with --log-samples")
    for n, sample in enumerate(samples, start=1):
        yield f"{path}, sample {n}", sample


def _about(header: Any, where: str) -> dict[str, Any]:
    spec = header.get("eval") if isinstance(header, dict) else None
    if not isinstance(spec, dict) or not isinstance(spec.get("task"), str) or not isinstance(spec.get("model"), str):
        raise UserError(f"{where}: no log of Inspect (it names no task and model under 'eval'); give one")
    if header.get("version") != 2:
        raise UserError(f"{where}: log version {header.get('version')}, expected 2; `inspect log convert` it")
    if header.get("status") != "success":
        raise UserError(
            f"{where}: status {str(header.get('status'))[:20]!r}, so its samples are a part; finish it with "
            "`inspect eval-retry`"
        )
    config = spec.get("model_generate_config")
    plan = header.get("plan")
    later = plan.get("config") if isinstance(plan, dict) else None
    given = {**(config if isinstance(config, dict) else {}), **(later if isinstance(later, dict) else {})}
    settings = {
        ours: given[theirs]
        for theirs, ours in SETTINGS.items()
        if isinstance(given.get(theirs), int | float) and not isinstance(given[theirs], bool)
    }
    return {"model": spec["model"], "task": spec["task"], "settings": settings}


def _records(samples: Iterator[tuple[str, Any]], path: Path, score: str) -> Iterator[dict[str, Any]]:
    names: set[str] = set()
    for where, sample in samples:
        if not isinstance(sample, dict):
            raise UserError(f"{where}: a {type(sample).__name__}, expected a sample; write the log again")
        scores = sample.get("scores") or {}
        if not isinstance(scores, dict) or not all(isinstance(one, dict) for one in scores.values()):
            raise UserError(f"{where}: its scores are no objects; write the log again")
        names |= set(scores)
        if len(names) > 1 and not score:
            raise UserError(f"{str(path)!r} has scores by {', '.join(sorted(names))}; choose one with --score")
        yield _record(sample, scores, where, score)
    scorer = score.partition("/")[0]
    if score and scorer not in names:
        raise UserError(f"{str(path)!r} has no score {scorer!r}; it has {', '.join(sorted(names)) or 'none'}")


def _record(sample: Mapping[str, Any], scores: Mapping[str, Any], where: str, score: str) -> dict[str, Any]:
    identifier, epoch = sample.get("id"), sample.get("epoch")
    if not isinstance(identifier, str | int) or not isinstance(epoch, int) or epoch < 1:
        raise UserError(f"{where}: it has no id and epoch; write the log again")
    attached = sample.get("attachments")
    attached = attached if isinstance(attached, dict) else {}
    output = sample.get("output")
    output = output if isinstance(output, dict) else {}
    choices = output.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = first.get("message")
    text = _said(message.get("content"), attached, where) if isinstance(message, dict) else ""
    usage = output.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    scorer, _, key = score.partition("/")
    found = scores.get(scorer or next(iter(scores), ""))
    value, answer = (found.get("value"), found.get("answer")) if found else (None, None)
    beside = found.get("metadata") if found else None
    lost = sample.get("error") or sample.get("invalidation") or (isinstance(beside, dict) and beside.get(LOST))
    if isinstance(value, dict | list) and not (isinstance(value, dict) and key in value):
        kinds = ", ".join(map(str, value)) if isinstance(value, dict) else f"{len(value)} numbers"
        raise UserError(f"{where}: the score has several values ({kinds}); choose one with --score SCORER/KEY")
    if isinstance(value, dict):
        value = value[key]
    elif key:
        raise UserError(f"{where}: the score {scorer!r} has no values by name; give --score {scorer}")
    target = sample.get("target")
    targets = target if isinstance(target, list) else [target] if target else []
    metadata = sample.get("metadata")
    return {
        "item": str(identifier),
        "sample": epoch - 1,
        "prompt": _asked(sample, attached, where),
        "text": text,
        "score": None if lost else _number(value, where),
        "answer": answer,
        "gold": str(targets[0]) if len(targets) == 1 else None,
        "tokens": _tokens(output),
        "logprob": _logprobs(first, where),
        "spent": usage.get("output_tokens"),
        "prompt_tokens": output.get("input_context_tokens", usage.get("input_tokens")),
        "finish": FINISH.get(str(first.get("stop_reason")), "unknown"),
        "metadata": {
            **(metadata if isinstance(metadata, dict) else {}),
            **({"targets": targets} if len(targets) > 1 else {}),
        },
    }


def _tokens(output: Mapping[str, Any]) -> Any:
    """Ids of the answer's tokens, where this suite wrote the log."""
    try:
        return output["metadata"][OURS]["branches"][0]["tokens"]
    except (KeyError, IndexError, TypeError):  # another program's
        return None


def _logprobs(choice: Mapping[str, Any], where: str) -> list[Any] | None:
    """The log-probability of each token of the answer, where the provider gave them."""
    logged = choice.get("logprobs")
    if logged is None:
        return None
    content = logged.get("content") if isinstance(logged, dict) else None
    if not isinstance(content, list) or not all(isinstance(one, dict) and "logprob" in one for one in content):
        raise UserError(f"{where}: its logprobs are no list of tokens with their 'logprob'; write the log again")
    return [one["logprob"] for one in content] or None


def _number(value: Any, where: str) -> float | None:
    if value is None or isinstance(value, bool | int | float):
        return None if value is None else float(value)
    if not isinstance(value, str):
        raise UserError(
            f"{where}: the score is a {type(value).__name__}, expected a number; choose another with --score"
        )
    if value in LETTERS:
        return LETTERS[value]
    if value.lower() in WORDS:
        return WORDS[value.lower()]
    try:
        return float(value)
    except ValueError as error:
        raise UserError(f"{where}: the score {value[:20]!r} is no number; choose another with --score") from error


def _asked(sample: Mapping[str, Any], attached: Mapping[str, Any], where: str) -> str:
    given = sample.get("input")
    if isinstance(given, list):
        said = [_said(one.get("content"), attached, where) for one in given if isinstance(one, dict)]
        given = "\n\n".join(said)
    if not isinstance(given, str):
        raise UserError(f"{where}: it has no input; write the log again")
    choices = sample.get("choices")
    lettered = [f"{chr(ord('A') + n)}) {one}" for n, one in enumerate(choices)] if isinstance(choices, list) else []
    return "\n".join([_whole(given, attached), *lettered])


def _said(content: Any, attached: Mapping[str, Any], where: str) -> str:
    """The text of a message: of its parts the texts, reasoning in tags, and of others their type in brackets."""
    if isinstance(content, str):
        return _whole(content, attached)
    if not isinstance(content, list):
        raise UserError(f"{where}: a message has no content; write the log again")
    out = []
    for part in content:
        if not isinstance(part, dict):
            raise UserError(f"{where}: a part of a message is a {type(part).__name__}; write the log again")
        kind = part.get("type")
        if kind == "text":
            out.append(_whole(str(part.get("text", "")), attached))
        elif kind == "reasoning" and not part.get("redacted"):
            out.append(f"<think>\n{_whole(str(part.get('reasoning', '')), attached)}\n</think>\n\n")
        else:
            out.append(f"[{kind}]")
    return "".join(out)


def _whole(text: str, attached: Mapping[str, Any]) -> str:
    """A text that the log keeps apart, in its place."""
    return str(attached.get(text.removeprefix(ATTACHED), text)) if text.startswith(ATTACHED) else text
