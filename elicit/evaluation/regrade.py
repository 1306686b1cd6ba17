"""Read the answers of a finished run anew and judge them anew, into a run of its own; the old one stays as it is.

What was sampled is taken over. What follows from it is made again as `evaluate` makes it: answers, spans, Δ, verdicts,
metrics. The new run has the identity that `evaluate` would give it now, so that the same command finds it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from elicit.decoding.answering import found_in
from elicit.decoding.decoders import Decoder, decoder_from_dict
from elicit.decoding.trace import DIGITS, Trace, filter_path, other_deltas, token_margins
from elicit.evaluation.description import DESCRIPTION
from elicit.evaluation.metrics.gap import DIRECT
from elicit.evaluation.metrics.run_metrics import START, compute
from elicit.evaluation.run.provenance import made_by
from elicit.evaluation.run.run import Run
from elicit.evaluation.run.store import PARQUET, REPORT, Store, as_kept, folder_for
from elicit.evaluation.run.table import outcomes
from elicit.evaluation.seen import SEEN
from elicit.evaluation.side_effects import SIDE_EFFECTS
from elicit.tasks.answers import token_span
from elicit.tasks.base import Items, check_grader, validate
from elicit.tasks.grading import identity_of
from probes.errors import UserError
from probes.estimate import Estimate, check_room
from probes.files import check_folder

# Of the old metrics, beside what is computed anew.
_KEPT = (
    "seconds",
    "seed",
    "model",
    "options",
    "scorer_unbounded",
    "decoding_notes",
    "delivery",
    "imported",
    "processes",
    "size",
    DESCRIPTION,
    START,
    SEEN,
    SIDE_EFFECTS,
)


SECONDS = 2.0  # of judging, before it is told how long all of it takes


@dataclass(frozen=True)
class _Chosen:
    """What metrics need of a handle."""

    select: str
    decoder: Decoder


def forecast(run: Run, out: Path | None = None) -> Estimate:
    """What regrading takes, after judging answers for `SECONDS`.

    Args:
        run: a finished run.
        out: as for `regrade`.

    Raises:
        UserError: no disk for a second run of this size; items without a gold answer.
    """
    items, config = _with_gold(run), run.store.config
    disk = sum(file.stat().st_size for file in run.folder.rglob("*") if file.is_file())
    check_room(
        Estimate(0.0, disk=disk), out or run.folder, None, what="the new run", for_disk="give an --out that has room"
    )
    if as_kept(identity_of(items.task.grader)) == config["identity"].get("grader"):
        return Estimate(0.0, beside="it is graded by the present version already")
    handles = {handle["source"]: handle for handle in config["arms"].values()}
    by_id = {item.id: item for item in items}
    began, done = time.perf_counter(), 0
    for source, trace in ((source, trace) for source, _, traces in run.store.batches() for trace in traces):
        _read(trace, items, by_id[trace.item], handles[source])
        done += 1
        if time.perf_counter() - began > SECONDS:
            break
    each = (time.perf_counter() - began) / max(1, done)
    return Estimate(each * _answers(run), disk=disk, beside="the statistics and the page follow")


def regrade(
    run: Run,
    out: Path | None = None,
    page: Callable[[Run], str] | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> Run:
    """The run with its answers found and judged by the present version.

    Args:
        run: a finished run.
        out: the new run's folder; unless given, where `evaluate` would put it, beside the old one.
        page: draws the new run.
        progress: called with the answers done, and of how many.

    Returns:
        The new run; the given one where it is of the present version already.

    Raises:
        UserError: a run that keeps no questions, a grader that fails its own gold, a folder with something else.
    """
    items = _with_gold(run)
    found = validate(items)
    check_grader(items, found)
    config = run.store.config
    identity = {**config["identity"], "grader": as_kept(identity_of(items.task.grader))}
    if identity == config["identity"]:
        return run
    made = folder_for(identity["method"], identity["task"], run.metrics["model"]["name"], identity)
    folder = out or run.folder.parent / made.name
    check_folder(folder)
    if folder.resolve() == run.folder.resolve():
        raise UserError(f"--out {str(folder)!r} is the run's own folder, which is kept; give another")
    graded = {"from": run.folder.name, "grader": config["identity"].get("grader", {})}
    store = Store.open(folder, {**config, "identity": identity, "made": made_by(), "regraded": graded})
    if store.metrics is not None:
        return Run(store)
    handles = {handle["source"]: handle for handle in config["arms"].values()}
    by_id = {item.id: item for item in items}
    with store.writing() as journal:
        store.write_items(items)
        if (run.folder / "elicited").is_dir():
            shutil.copytree(run.store.bundle, folder / "elicited", dirs_exist_ok=True)
        done, answers = 0, _answers(run)
        for source, batch, traces in run.store.batches():
            progress("answers", done, answers)
            done += len(traces)
            if (source, batch) not in journal.done:
                read = [_read(t, items, by_id[t.item], handles[source]) for t in traces]
                journal.append(source, batch, read)
        store.write_table([item.id for item in items])
        told = outcomes(folder / PARQUET)
        extra = {"validation": vars(found), **{k: run.metrics[k] for k in _KEPT if k in run.metrics}}
        arms = {
            name: (handle["source"], _Chosen(handle["select"], decoder_from_dict(handle["decoder"])))
            for name, handle in config["arms"].items()
        }
        start = run.metrics.get(START, DIRECT)
        metrics = compute(arms, told, items, seed=run.metrics["seed"], extra=extra, start=start)
        new = Run(store, metrics, told)
        if page is not None:
            store.write(REPORT, page(new))
        store.finish(metrics)
    return new


def _answers(run: Run) -> int:
    return sum(len(traces) for of in run.outcomes.values() for traces in of.values())


def _with_gold(run: Run) -> Items:
    """The items of a run, each of which has a gold answer where it is from a log."""
    without = sum(item.answer is None for item in run.items)
    if without and "imported" in run.metrics:
        raise UserError(
            f"{without} items of {str(run.folder)!r} have no gold answer in the log, so they cannot be judged; "
            "import it again with --gold, where the log has them"
        )
    return run.items


def changes(old: Run, new: Run) -> dict[str, dict[str, Any]]:
    """For each arm its accuracy before and after, and how many answers became right or wrong."""
    out = {}
    for name, arm in new.metrics["arms"].items():
        source = new.store.config["arms"][name]["source"]
        before, after = ([t.correct for i in new.items for t in run.outcomes[source][i.id]] for run in (old, new))
        pairs = list(zip(before, after, strict=True))
        out[name] = {
            "before": old.metrics["arms"][name]["accuracy"],
            "after": arm["accuracy"],
            "answers": len(pairs),
            "became right": sum(b and not a for a, b in pairs),
            "became wrong": sum(a and not b for a, b in pairs),
        }
    return out


def _read(trace: Trace, items: Items, item: Any, handle: Mapping[str, Any]) -> Trace:
    """A trace with its answer found and judged anew; one that was asked for its answer keeps it."""
    if handle["span"] != "prompted":
        found = found_in(trace.text, items.task.kind_of(item), trace.begun, trace.start)
        span = token_span(trace.ends, found) if found and trace.tokens else None
        delta = trace.delta  # of the unrounded statistics, where it is of the same tokens
        if span != trace.span:
            delta = None if span is None else _delta(trace, span)
        answer, found_by = (found.text, found.found_by) if found else (None, "")
        if span != trace.span or trace.delta_greedy is None:  # runs of older versions have none
            branched = span if handle["decoder"]["name"] == "branching" else None
            top1, top2, logprob = (np.array(v) for v in (trace.top1, trace.top2, trace.logprob))
            greedy, zero = other_deltas(top1, top2, delta, logprob, branched)
            trace = replace(trace, delta_greedy=greedy, delta_zero=zero)
        trace = replace(trace, answer=answer, found_by=found_by, span=span, delta=delta)
    own = trace.text[trace.start :]
    dropped = filter_path(own, trace.finish, trace.answer)
    grade = items.task.judge(item, trace.answer, own)
    return replace(
        trace,
        dropped=dropped if handle["filters"] or trace.answer is None else "",
        score=grade.score,
        unjudged=grade.unjudged,
    )


def _delta(trace: Trace, span: tuple[int, int]) -> float:
    margins = token_margins(np.array(trace.top1), np.array(trace.top2), np.array(trace.logprob))
    return round(float(margins[span[0] : span[1]].mean()), DIGITS)
