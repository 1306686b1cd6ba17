"""Logs of other programs as a run: an arm each, on the same questions, with the log's own verdicts.

The analyses that need questions, texts and verdicts read such a run as any other. It keeps no tokens and no weights,
and what needs them refuses it by name (`elicit.evaluation.run.arms`). What the log does not count is not counted; an
answer that the log gave no score counts as incorrect and stands among those without a verdict. Where the log does not
say which answer its scorer found, the answer is found as in any run, which decides votes and no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elicit.decoding.decoders import Elsewhere, decoder_to_dict
from elicit.decoding.trace import Trace
from elicit.evaluation.budget import MATCHED
from elicit.evaluation.metrics.run_metrics import START, compute
from elicit.evaluation.run.arms import FOREIGN
from elicit.evaluation.run.foreign import Log, Record, Wanted, read_log
from elicit.evaluation.run.foreign_inspect import KIND
from elicit.evaluation.run.provenance import made_by
from elicit.evaluation.run.run import Run
from elicit.evaluation.run.store import PARQUET, REPORT, Store, folder_for
from elicit.evaluation.run.table import outcomes
from elicit.models.identity import SCHEMA, hash_of_items
from elicit.tasks.answers import KINDS, Kind, find_answer
from elicit.tasks.base import Item, Items, Task
from elicit.tasks.grading import check_kind, grader_for, infer_kind
from probes.errors import UserError
from probes.files import check_folder, sha256_of

FAMILY = "log"  # of the task
BY_LOG = "the log"  # how such an answer was found, and whose verdicts they are
NO_VERDICT = "log"  # why an answer has none
BATCH = 1024


@dataclass(frozen=True)
class _Chosen:
    """What metrics need of a handle."""

    select: str
    decoder: Elsewhere


@dataclass(frozen=True)
class Verdicts:
    """How a log's numbers become verdicts.

    Args:
        score, gold: which, where a log has several (`Wanted`).
        right: the number from which on an answer is right; unless given, numbers in [0, 1] of which 1 is right.
        kind: of the answers; unless given, as the gold answers show.
    """

    score: str = ""
    gold: str = ""
    right: float | None = None
    kind: Kind | None = None


def import_logs(
    files: Mapping[str, Path],
    out: Path | None = None,
    *,
    form: str = "",
    verdicts: Verdicts | None = None,
    task: str = "",
    model: str = "",
    shared: bool = False,
    page: Callable[[Run], str] | None = None,
) -> Run:
    """Read logs into a run; the first is the arm under test.

    Args:
        files: by the name of their arm.
        out: the run's folder; derived from the logs' hashes unless given.
        form: the logs' format; unless given, as each shows.
        verdicts: which numbers are read, and what they mean.
        task, model: names, where the logs have none or others are wanted.
        shared: whether only the questions are kept that all logs hold.
        page: draws the run.

    Returns:
        The run; nothing is written where a log is refused.

    Raises:
        UserError: a log that cannot be read, numbers that are no verdicts, logs of different questions.
    """
    verdicts = verdicts or Verdicts()
    if not files:
        raise UserError("no log was given; give at least one")
    for name in files:
        if not name.strip() or MATCHED in name or not name.isprintable() or set("[]") & set(name):
            raise UserError(f"{name!r} cannot name an arm; write NAME=FILE with a name without {MATCHED} and brackets")
    if verdicts.kind:
        check_kind(verdicts.kind, KINDS)
    if verdicts.right is not None and not math.isfinite(verdicts.right):
        raise UserError(f"right = {verdicts.right} was given; give a finite number, like 1")
    logs = {name: read_log(path, form, Wanted(verdicts.score, verdicts.gold)) for name, path in files.items()}
    scores = {name: _verdicts(log, files[name], verdicts) for name, log in logs.items()}
    items = _items(logs, files, verdicts.kind, task, shared)
    first = next(iter(logs.values()))
    main = next(iter(files))
    about = {"name": model or first.model or "not named by the log", "sha256": "", "dtype": ""}
    arms = {name: _arm(name, log, files[name]) for name, log in logs.items()}
    identity = {
        "schema": SCHEMA, "items": hash_of_items(items), "grader": {"name": BY_LOG}, "method": main,
        "model": about["name"], "task": items.task.name, "seed": 0, "verdicts": vars(verdicts),
        "arms": [f"{name} {arm[FOREIGN]['sha256']}" for name, arm in arms.items()],
    }  # fmt: skip
    folder = out or folder_for(main, items.task.name, "log", identity)
    check_folder(folder)
    config = {"identity": identity, "execution": {}, "arms": arms, "task": items.task.source, "made": made_by()}
    store = Store.open(folder, config)
    if store.metrics is not None:
        return Run(store)
    with store.writing() as journal:
        store.write_items(items)
        for name, log in logs.items():
            traces = _traces(log, scores[name], items)
            for number, place in enumerate(range(0, len(traces), BATCH)):
                if (name, number) not in journal.done:
                    journal.append(name, number, traces[place : place + BATCH])
        store.write_table([item.id for item in items])
        told = outcomes(folder / PARQUET)
        start = next((name for name in files if name != main), "")
        extra = {
            "seconds": {}, "seed": 0, "model": about, "options": {}, "imported": _sources(arms), START: start
        }  # fmt: skip
        chosen = {name: (name, _Chosen(arm["select"], _decoder(logs[name]))) for name, arm in arms.items()}
        metrics = compute(chosen, told, items, extra=extra, start=start)
        run = Run(store, metrics, told)
        if page is not None:
            store.write(REPORT, page(run))
        store.finish(metrics)
    return run


def _verdicts(log: Log, path: Path, verdicts: Verdicts) -> list[float | None]:
    """Each answer's score in [0, 1], of which 1 is right; None where the log gave none."""
    given = [one.score for one in log.records]
    if verdicts.right is not None:
        return [None if score is None else float(score >= verdicts.right) for score in given]
    known = [score for score in given if score is not None]
    outside = next((score for score in known if not 0 <= score <= 1), None)
    if outside is not None or (max(known) < 1 and any(known)):
        why = "and a verdict lies in [0, 1]" if outside is not None else "and none of 1, which is right"
        raise UserError(
            f"{str(path)!r} has a score of {max(known) if outside is None else outside:g}, {why}; give --right, the "
            "score from which on an answer is right, or choose another with --score"
        )
    return given


def _items(logs: Mapping[str, Log], files: Mapping[str, Path], kind: Kind | None, task: str, shared: bool) -> Items:
    """The questions of all logs, in the first one's order."""
    found = {name: _questions(log, files[name]) for name, log in logs.items()}
    (first, asked), *others = found.items()
    kept = [item for item in asked if all(item in other for _, other in others)]
    if not kept:
        raise UserError(
            f"{', '.join(str(path) for path in files.values())} have no question in common; give logs of one task"
        )
    for name, other in others:
        apart = len(asked.keys() ^ other.keys())
        if apart and not shared:
            raise UserError(
                f"{str(files[first])!r} and {str(files[name])!r} are of different questions ({apart} stand in one "
                f"alone, {len(kept)} in all logs); give --shared to keep those of all"
            )
        for item in kept:
            if (asked[item].prompt, asked[item].gold) != (other[item].prompt, other[item].gold):
                raise UserError(
                    f"item {item!r} is another question, or has another gold answer, in {str(files[name])!r} than in "
                    f"{str(files[first])!r}; give logs of the same questions"
                )
    wanted = kind or infer_kind([asked[item].gold for item in kept])
    kinds = {item: asked[item].metadata.get(KIND) for item in kept}
    log = logs[first]
    name = task or log.task or log.format
    questions = tuple(
        Item(
            item,
            asked[item].prompt,
            asked[item].gold,
            "test",
            {key: value for key, value in asked[item].metadata.items() if key != KIND},
            wanted if kind or kinds[item] not in KINDS else kinds[item],
        )
        for item in kept
    )
    source = {"family": FAMILY, "format": log.format}
    return Items(Task(name, questions, grader_for(wanted), wanted, source), questions)


def _questions(log: Log, path: Path) -> dict[str, Record]:
    """The first record of each item; the others must ask the same."""
    out: dict[str, Record] = {}
    for one in log.records:
        first = out.setdefault(one.item, one)
        if (one.prompt, one.gold) != (first.prompt, first.gold):
            raise UserError(
                f"item {one.item!r} of {str(path)!r} is another question, or has another gold answer, in answer "
                f"{one.sample} than in answer {first.sample}; give a log in which an id is one question"
            )
    return out


def _decoder(log: Log) -> Elsewhere:
    counts: dict[str, int] = {}
    for one in log.records:
        counts[one.item] = counts.get(one.item, 0) + 1
    return Elsewhere(max(counts.values()), **log.settings)


def _arm(name: str, log: Log, path: Path) -> dict[str, Any]:
    decoder = _decoder(log)
    source = {"format": log.format, "file": path.name, "sha256": sha256_of(path), "model": log.model}
    return {
        "method": name, "source": name, "select": "vote" if decoder.branches > 1 else "greedy", "span": "found",
        "filters": False, "prompt": {}, "options": {}, "decoder": decoder_to_dict(decoder), FOREIGN: source,
    }  # fmt: skip


def _sources(arms: Mapping[str, Any]) -> dict[str, str]:
    """For each arm what it was read from, in words."""
    told = {name: arm[FOREIGN] for name, arm in arms.items()}
    return {
        name: f"{one['file']} ({one['format']}{', model ' + one['model'] if one['model'] else ''}, "
        f"SHA-256 {one['sha256'][:12]}…)"
        for name, one in told.items()
    }


def _traces(log: Log, scores: Sequence[float | None], items: Items) -> list[Trace]:
    """The answers to these questions, those of one together and in their order."""
    place = {item.id: n for n, item in enumerate(items)}
    kinds = {item.id: items.task.kind_of(item) for item in items}
    pairs = [(one, score) for one, score in zip(log.records, scores, strict=True) if one.item in place]
    pairs.sort(key=lambda pair: (place[pair[0].item], pair[0].sample))
    return [_trace(one, score, kinds[one.item]) for one, score in pairs]


def _trace(one: Record, score: float | None, kind: Kind) -> Trace:
    answer, found_by = one.answer, BY_LOG
    if answer is None:
        found = find_answer(one.text, kind)
        answer, found_by = (found.text, found.found_by) if found else (None, "")
    return Trace(
        item=one.item, index=one.sample, text=one.text, answer=answer, found_by=found_by, score=score or 0.0,
        unjudged=NO_VERDICT if score is None else "", finish=one.finish,
        spent=-1 if one.spent is None else one.spent,
        prompt_tokens=-1 if one.prompt_tokens is None else one.prompt_tokens,
        dropped="" if answer is not None else "no answer", span=None, delta=None,
        tokens=[], ends=[], top1=[], top2=[], entropy=[], logprob=[], logged=one.logprob or [],
    )  # fmt: skip
