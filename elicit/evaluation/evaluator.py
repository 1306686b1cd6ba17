"""`evaluate`: one handle and its baselines on the same items, into one resumable run.

An *arm* is a handle under a name. Arms that differ only in the rule that selects share their traces
(a *source*). Baselines named `…@budget` get, question by question, the tokens that the evaluated handle
spent: samples are drawn until the budget is used up, and the one that would exceed it is not counted.

Arms that share model, adapter and decoder are decoded together (`elicit.evaluation.batches`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from elicit.decoding.decoders import most_tokens
from elicit.decoding.engine import Engine, engine_of
from elicit.decoding.progress import Progress, Silent
from elicit.decoding.ready import check_ready
from elicit.decoding.trace import Trace
from elicit.elicited import HANDLE, ITEMS, Elicited, answer_together
from elicit.evaluation.batches import Batch, batches, models_of, sharing
from elicit.evaluation.budget import MATCHED, draw_to_budget
from elicit.evaluation.delivery import manipulation_check
from elicit.evaluation.description import DESCRIPTION, described
from elicit.evaluation.forecast import forecast, rows_with_room
from elicit.evaluation.metrics.run_metrics import compute
from elicit.evaluation.run.journal import Journal
from elicit.evaluation.run.provenance import made_by
from elicit.evaluation.run.run import Run
from elicit.evaluation.run.store import CONFIG, PARQUET, REPORT, Store, folder_for
from elicit.evaluation.run.table import outcomes
from elicit.evaluation.seen import SEEN, seen_among
from elicit.evaluation.shared_work import Heard, agree, answered, hear, in_rounds, tell
from elicit.evaluation.side_effects import SIDE_EFFECTS
from elicit.models.identity import grounds
from elicit.models.processes import Processes
from elicit.models.prompts import check_put
from elicit.tasks.base import Items, check_grader, validate
from elicit.tasks.grading import WORKER
from probes.errors import UserError
from probes.estimate import Estimate, check_room
from probes.files import check_folder
from probes.given import PATH, WHOLE, takes

BATCH_ROWS = 320
SAMPLES_A_ROUND = 8  # of each question, where many questions still have a budget


@dataclass(frozen=True)
class Arm:
    """A handle under a name; `source` names the traces it reads, `matched` those whose tokens it may spend."""

    name: str
    handle: Elicited
    source: str
    matched: str | None


@takes(handle=HANDLE, items=ITEMS, out=PATH, seed=WHOLE, batch_rows=WHOLE)
def evaluate(
    handle: Elicited,
    items: Items,
    *,
    against: Mapping[str, Elicited] | None = None,
    out: Path | str | None = None,
    seed: int = 0,
    batch_rows: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    page: Callable[[Run], str] | None = None,
    processes: Processes | None = None,
    size: Mapping[str, Any] | None = None,
    before: Callable[[Estimate], None] | None = None,
) -> Run:
    """Evaluate a handle against others on the same items; `elicit.evaluate` takes names of baselines as well.

    Args:
        handle: what is evaluated.
        items: the questions, e.g. `task.test`.
        against: handles by name. One whose name ends in `@budget` spends, question by question, the tokens that the
            evaluated handle spent.
        out: the run's folder; derived from the configuration's hash unless given, so that the same call
            resumes the same run.
        seed: of samplers and of the bootstrap.
        batch_rows: branches decoded together; unless given 320, or as many as there is memory for.
        fresh: remove what the folder holds of this or another run first.
        progress: what is reported to.
        page: draws the finished run; what it returns is kept as `report.html`.
        processes: all that were launched (`elicit.models.processes.launched`), each of which calls this with the same
            handles and items. They share the batches, the first one writes the run, and all return it.
        size: of fixed sizes of this job the one that was chosen (its `name`), and why; kept in `execution`.
        before: called with what it will take, before anything is written; what it raises ends the call. For that a few
            questions are answered for seconds.

    Raises:
        UserError: nothing to evaluate, no memory or disk for it, a prompt that shows evaluated items, a grader that
            fails its own gold, another handle under the evaluated one's name, a folder with another run; a process that
            failed or ended, by its number.
    """
    with nullcontext() if processes is None else processes.telling():
        run = _evaluate(
            handle, items, against or {}, out, seed, batch_rows, fresh, progress, page, processes, size, before
        )
        if processes is not None:
            folder = processes.exchange(None if run is None else str(run.folder))[0]
            run = run or Run(Store.read(Path(folder)))
        assert run is not None
        return run


def _evaluate(
    handle: Elicited,
    items: Items,
    against: Mapping[str, Elicited],
    out: Path | str | None,
    seed: int,
    batch_rows: int | None,
    fresh: bool,
    progress: Progress | None,
    page: Callable[[Run], str] | None,
    processes: Processes | None,
    size: Mapping[str, Any] | None,
    before: Callable[[Estimate], None] | None,
) -> Run | None:
    """The run, in the process that writes it; None in the others."""
    if not len(items):
        raise UserError("no items to evaluate; give at least one")
    if seed < 0:
        raise UserError(f"seed {seed} was given; give a number from 0 on")
    if batch_rows is not None and batch_rows < 1:
        raise UserError(f"batch_rows = {batch_rows} was given; give at least 1")
    for one in (handle, *against.values()):
        check_put(one.prompt, items)
    arms = _arms(handle, against)
    asked = {item.question for item in items}
    if any(shot in asked for arm in arms for shot, _ in arm.handle.prompt.shots):
        raise UserError("the prompt shows questions that are evaluated; evaluate the dev or the test split")
    validation = validate(items)
    check_grader(items, validation)
    identity = _identity(arms, items, seed)
    folder = Path(out) if out is not None else folder_for(handle.method, items.task.name, handle.model.name, identity)
    check_folder(folder)
    _check_room(arms, items)
    if processes is not None:
        agree(identity["arms"], [item.id for item in items], processes)
        if processes.rank:
            if told := hear(processes):
                execution, heard = told
                _decode_all(arms, items, heard, execution, progress or Silent(), processes)
                _notes(arms, processes)
            return None
    begun = (folder / CONFIG).is_file() and not fresh
    rows = batch_rows or BATCH_ROWS
    if not begun:  # what was begun goes on as it began
        rows = rows_with_room([arm.handle for arm in arms], items, BATCH_ROWS, batch_rows)
    if before is not None:
        if begun and Store.read(folder).metrics is not None:
            before(Estimate(0.0, beside="it is finished"))
        else:
            whole = _forecast(arms, items, rows, folder, 1 if processes is None else processes.count)
            before(replace(whole, beside="a part of which is done") if begun else whole)
    if fresh and (folder / CONFIG).is_file():
        Store.clear(folder)
    config = {
        "identity": identity,
        "execution": {
            "batch_rows": rows,
            "together": True,
            "decoded_by": _engines(arms),
            **({"engine_options": dict(handle.model.engine_options)} if handle.model.engine_options else {}),
            **({} if processes is None else {"processes": processes.count}),
            **_rounds(arms),
            **_weights(arms),
            **({"size": dict(size)} if size else {}),
        },
        "arms": {arm.name: {**arm.handle.to_dict(), "source": arm.source} for arm in arms},
        "task": items.task.source,
        "made": made_by(),
    }
    store = Store.open(folder, config)
    if store.metrics is not None:
        if processes is not None:
            processes.exchange(None)
        return Run(store)
    with store.writing() as journal:
        store.write_items(items)
        handle.save(folder / "elicited")
        execution = store.config["execution"]
        if processes is not None:
            tell(execution, journal, processes)
        seconds = _decode_all(arms, items, journal, execution, progress or Silent(), processes)
        store.write_table([item.id for item in items])
        found = outcomes(store.folder / PARQUET)
        extra: dict[str, Any] = {
            "validation": vars(validation), "seconds": seconds, "seed": seed, "model": handle.model.describe(),
            "options": handle.options, DESCRIPTION: described({arm.name: arm.handle for arm in arms}),
        }  # fmt: skip
        effects = {arm.name: arm.handle.options.get(SIDE_EFFECTS) for arm in arms}
        if any(effects.values()):
            extra[SIDE_EFFECTS] = {name: found for name, found in effects.items() if found}
        if already := seen_among({arm.name: arm.handle for arm in arms}, items):
            extra[SEEN] = already
        if execution.get("processes", 1) > 1 and handle.model.dtype != "float32":
            extra["processes"] = execution["processes"]
        if "size" in execution:
            extra["size"] = execution["size"]["name"]
        if WORKER.missing:
            extra["scorer_unbounded"] = list(WORKER.missing)
        if notes := _notes(arms, processes):
            extra["decoding_notes"] = notes
        steered = [arm for arm in arms if arm.handle.interventions]
        if steered:
            traces = store.traces({arm.source for arm in steered})
            extra["delivery"] = {arm.name: manipulation_check(arm.handle, traces[arm.source], items) for arm in steered}
        metrics = compute({arm.name: (arm.source, arm.handle) for arm in arms}, found, items, seed=seed, extra=extra)
        run = Run(store, metrics, found)
        if page is not None:
            store.write(REPORT, page(run))
        store.finish(metrics)
    return run


def foretold(
    handle: Elicited, items: Items, against: Mapping[str, Elicited], *, out: Path | None = None, rows: int | None = None
) -> Estimate:
    """What `evaluate` takes, without any of it.

    Args:
        handle, items, against, out: as for `evaluate`.
        rows: its `batch_rows`.

    Raises:
        UserError: no memory or disk for it.
    """
    arms = _arms(handle, against)
    together = rows_with_room([arm.handle for arm in arms], items, BATCH_ROWS, rows)
    return _forecast(arms, items, together, out or Path("runs"), 1)


def _forecast(arms: Sequence[Arm], items: Items, rows: int, folder: Path, processes: int) -> Estimate:
    sources = {arm.name: arm for arm in arms if arm.source == arm.name}
    matched = {name: (arm.handle, arm.matched) for name, arm in sources.items() if arm.matched is not None}
    groups = [names for names in _groups(sources, together=True) if names[0] not in matched]
    handles = [{name: sources[name].handle for name in names} for names in groups]
    needed = forecast(handles, matched, items, rows, processes)
    check_room(needed, folder, None, what="the run", for_disk="give fewer items (--limit) or another --out")
    return needed


def _engines(arms: Sequence[Arm]) -> list[str]:
    """What decodes the arms: each engine, with the way that it chose for the model where it has several."""
    return sorted({f"{one.name} ({one.how})" if one.how else one.name for one in _engines_of(arms)})


def _engines_of(arms: Sequence[Arm]) -> list[Engine]:
    return [engine_of(model) for model in {id(arm.handle.model): arm.handle.model for arm in arms}.values()]


def _notes(arms: Sequence[Arm], processes: Processes | None) -> list[str]:
    """What engines did otherwise than they were asked, in any of the processes."""
    own = sorted({note for engine in _engines_of(arms) for note in engine.notes})
    return own if processes is None else sorted({note for notes in processes.exchange(own) for note in notes})


def _rounds(arms: Sequence[Arm]) -> dict[str, int]:
    """Of an engine that refills its rows: how many times these it is given at once."""
    rounds = max(engine.rounds for engine in _engines_of(arms))
    return {"rounds": rounds} if rounds > 1 else {}


def _weights(arms: Sequence[Arm]) -> dict[str, list[str]]:
    """Of models with quantised weights: what these are, and what is computed with them."""
    found = {model.quantised for model in models_of([arm.handle for arm in arms])} - {""}
    return {"quantised": sorted(found)} if found else {}


def _check_room(arms: Sequence[Arm], items: Items) -> None:
    """Refuse prompts and limits beyond a model's positions before a folder is made for them."""
    handles = [arm.handle for arm in arms]
    for one in {(id(h.model), h.prompt, most_tokens(h.decoder)): h for h in handles}.values():
        longest = max(len(one.prompt_ids(item)) for item in items)
        check_ready(one.model.lm, longest + most_tokens(one.decoder))
    for one in handles:
        one.partner_prompts(items)


def _arms(handle: Elicited, others: Mapping[str, Elicited]) -> list[Arm]:
    """The handle first, then the others.

    Raises:
        UserError: another handle under its name.
    """
    if handle.method in others:
        raise UserError(
            f"against holds a handle named {handle.method}, as the one that is evaluated; name it otherwise"
        )
    keys: dict[str, str] = {}
    arms = []
    for name, one in {handle.method: handle, **others}.items():
        matched = handle.method if name.endswith(MATCHED) else None
        key = one.decode_key + (MATCHED if matched else "")
        arms.append(Arm(name, one, keys.setdefault(key, name), matched))
    return arms


def _identity(arms: Sequence[Arm], items: Items, seed: int) -> dict[str, Any]:
    """Everything that decides the samples and the metrics."""
    model = arms[0].handle.model
    return {
        **grounds(items, models_of([arm.handle for arm in arms])),
        "method": arms[0].name,
        "model": model.provenance.sha256,
        "dtype": model.dtype,
        "task": items.task.name,
        "arms": [f"{arm.name} {arm.handle.decode_key} {arm.handle.select}" for arm in arms],
        "seed": seed,
    }


def _decode_all(
    arms: Sequence[Arm],
    items: Items,
    journal: Journal | Heard,
    execution: Mapping[str, Any],
    progress: Progress,
    processes: Processes | None = None,
) -> dict[str, float]:
    """Fill in the sources that are missing; return the seconds spent now on each.

    What a batch of several sources took is shared among them by the tokens that each spent. Of a batch that was cut
    between two of them the whole is decoded again, so that it is the same batch, and what is there already stays.
    """
    rows, shares = int(execution["batch_rows"]), int(execution.get("processes", 1))
    # Each under its arm's name, which an error names.
    sources = {a.name: replace(a, handle=replace(a.handle, method=a.name)) for a in arms if a.source == a.name}
    seconds = dict.fromkeys(sources, 0.0)
    # A run that was begun before arms shared batches continues as it began.
    for group in _groups(sources, together=bool(execution.get("together"))):
        first, *others = group
        branches = SAMPLES_A_ROUND if sources[first].matched else sources[first].handle.decoder.branches
        refills = engine_of(sources[first].handle.model).rounds > 1 and not sources[first].matched
        questions = max(1, rows // branches) * (int(execution.get("rounds", 1)) if refills else 1)
        plan = batches({name: sources[name].handle for name in group}, items, questions, shares)
        left = [n for n, batch in enumerate(plan) if any((name, n) not in journal.done for name in batch)]
        asked = [sum(map(len, batch.values())) for batch in plan]
        label = f"{first} and {len(others)} more" if others else first
        progress.arm(label, sum(asked), sum(asked) - sum(asked[n] for n in left))
        for some in in_rounds(left, processes):
            answer = partial(_answer, sources, plan, items, journal, rows, progress)
            for n, (traces_of, took) in zip(some, answered(some, answer, processes), strict=True):
                for name, traces in traces_of.items():
                    if (name, n) not in journal.done:
                        journal.append(name, n, traces)
                spent = {name: sum(t.spent for t in traces) for name, traces in traces_of.items()}
                for name in spent:
                    seconds[name] += took * spent[name] / sum(spent.values())
                progress.advance(asked[n], sum(spent.values()))
    return {name: round(value, 2) for name, value in seconds.items()}


def _groups(sources: Mapping[str, Arm], *, together: bool) -> list[list[str]]:
    """The sources that are decoded together; one that spends a budget has rounds of its own."""
    if not together:
        return [[name] for name in sources]
    free = {name: arm.handle for name, arm in sources.items() if arm.matched is None}
    return sharing(free) + [[name] for name in sources if name not in free]


def _answer(
    sources: Mapping[str, Arm],
    plan: Sequence[Batch],
    items: Items,
    journal: Journal | Heard,
    rows: int,
    progress: Progress,
    number: int,
) -> dict[str, list[Trace]]:
    batch = plan[number]
    asked = [(sources[name], Items(items.task, tuple(items[i] for i in chosen))) for name, chosen in batch.items()]
    if asked[0][0].matched is not None:
        budgets = [journal.spent[str(arm.matched)] for arm, _ in asked]
        drawn = draw_to_budget([(arm.handle, some) for arm, some in asked], budgets, rows, progress)
        return {
            arm.name: [t for item in some for t in own[item.id]] for (arm, some), own in zip(asked, drawn, strict=True)
        }
    found = answer_together([(arm.handle, some) for arm, some in asked], progress.step, rows)
    return {name: [t for traces in each for t in traces] for name, each in zip(batch, found, strict=True)}
