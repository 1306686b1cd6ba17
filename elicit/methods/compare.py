"""Many methods on the same items: one model, one prompt, one limit of tokens, one seed, each method fitted once.

    plan.json          what decides all of it
    fits/<method>/     the handle as it was fitted, and last of all fit.json: the seconds that took
    runs/<method>/     its run: the method alone, or with its controls

Each is done or not done: the same call resumes where it was stopped, and a method that is added later finds the others
done. Baselines stand once, in runs of their own, and are not decoded again beside each mechanism.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.evaluator import evaluate
from elicit.evaluation.run.run import Run
from elicit.evaluation.run.store import folder_for
from elicit.methods import BASELINES, check_options, fit, get, options_of, quick_of
from elicit.models.identity import SCHEMA, grounds, hash_of_items
from elicit.models.model import Model
from elicit.tasks.base import Items
from probes.errors import GARBLED, UserError, as_expected
from probes.estimate import Estimate
from probes.files import check_folder, inner_folder, locked, make_folder, no_link, write_whole

PLAN, FITS, FIT, RUNS = "plan.json", "fits", "fit.json", "runs"


@dataclass(frozen=True)
class SharedOptions:
    """What is the same for all methods.

    Args:
        prompt, max_new_tokens, seed: the options of these names, of each method that has them.
        quick: fit with each method's own short settings.
        controls: decode each mechanism's controls beside it.
        given: by the name of a method, options of it alone.
    """

    prompt: str = "qa"
    max_new_tokens: int = 192
    seed: int = 0
    quick: bool = False
    controls: bool = False
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def options(self, name: str) -> dict[str, Any]:
        """The options that a method is fitted with."""
        known = options_of(name)
        shared: dict[str, Any] = {k: getattr(self, k) for k in ("prompt", "max_new_tokens", "seed") if k in known}
        return {**shared, **(quick_of(name) if self.quick else {}), **self.given.get(name, {})}


@dataclass(frozen=True, eq=False)
class Comparison:
    """The runs of a comparison.

    Args:
        folder: where all of it lies.
        runs: of the methods, in their order.
        fit_seconds: of each.
        left_out: methods without a run, and why.
    """

    folder: Path
    runs: list[Run] = field(default_factory=list)
    fit_seconds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def run_together(
    model: Model,
    items: Items,
    names: Sequence[str],
    shared: SharedOptions,
    *,
    out: Path | None = None,
    batch_rows: int | None = None,
    optional: bool = False,
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda line: None,
    page: Callable[[Run], str] | None = None,
    before: Callable[[Estimate], None] | None = None,
) -> Comparison:
    """Fit and evaluate each method, or find it done.

    Args:
        model: for all of them; each leaves it as it was.
        items: what they are evaluated on; their task's fit and dev splits are what they are fitted on.
        names: of methods; baselines come first whatever their place.
        shared: what is the same for all.
        out: the folder; named after all that decides it unless given.
        batch_rows: branches decoded together, in runs that begin now.
        optional: a method that refuses (nothing to learn, nothing that fits) is left out, with its reason.
        progress: of each fit and run.
        log: called with a line at each method.
        page, before: of each run, as `evaluate` takes them.

    Raises:
        UserError: no or unknown methods, a folder with another comparison, a method that refuses.
    """
    if not names:
        raise UserError("no methods were given; give names, or all")
    names = sorted(dict.fromkeys(names), key=lambda name: name not in BASELINES)
    for name in names:
        check_options(name, shared.options(name))
    plan = plan_of(model, items, shared)
    done = Comparison(out or folder_for("compare", items.task.name, model.name, plan))
    _open(done.folder, plan)
    with locked(done.folder, "comparing in"):
        for name in names:
            for part in (FITS, RUNS):
                inner_folder(done.folder / part)
                no_link(done.folder / part / name)
        for n, name in enumerate(names, 1):
            try:
                run, seconds = _one(
                    model,
                    items,
                    name,
                    shared,
                    done.folder,
                    batch_rows,
                    progress,
                    log,
                    page,
                    before,
                    f"{n}/{len(names)}",
                )
            except UserError as error:
                if not optional:
                    raise
                done.left_out[name] = str(error)
                log(f"{n}/{len(names)} {name}: left out: {error}")
                continue
            done.runs.append(run)
            done.fit_seconds[name] = seconds
    return done


def plan_of(model: Model, items: Items, shared: SharedOptions) -> dict[str, Any]:
    """All that decides a comparison: what is evaluated, what is learned from, and with which options."""
    return {
        "model": model.provenance.sha256,
        "dtype": model.dtype,
        "task": items.task.name,
        **grounds(items, [model]),
        "task_items": hash_of_items(items.task.all),
        **{name: value for name, value in asdict(shared).items() if name != "given" or value},
    }


def _open(folder: Path, plan: dict[str, Any]) -> None:
    """Make the folder, or make sure that it holds the same comparison."""
    check_folder(folder)
    if (folder / PLAN).is_file():
        try:
            found = dict(json.loads((folder / PLAN).read_text(encoding="utf-8")))
            older = int(found.get("schema", 0)) < SCHEMA
        except GARBLED as error:
            raise UserError(f"{str(folder)!r} holds no comparison of ours ({PLAN}: {error}); give another") from error
        if older:
            raise UserError(f"{str(folder)!r} holds a comparison of an older version; give another --out")
        changed = [key for key, value in plan.items() if found.get(key) != value]
        if changed:
            raise UserError(f"{str(folder)!r} holds a comparison with another {', '.join(changed)}; give another --out")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{str(folder)!r} is not empty and holds no comparison; give another --out")
    make_folder(folder)
    write_whole(folder / PLAN, json.dumps(plan, indent=2))


def _one(
    model: Model,
    items: Items,
    name: str,
    shared: SharedOptions,
    folder: Path,
    batch_rows: int | None,
    progress: Progress | None,
    log: Callable[[str], None],
    page: Callable[[Run], str] | None,
    before: Callable[[Estimate], None] | None,
    place: str,
) -> tuple[Run, float]:
    """The run of one method and the seconds of its fit, from the disk where they are there."""
    kept, where = folder / FITS / name / FIT, folder / RUNS / name
    if (where / "metrics.json").is_file():
        log(f"{place} {name}: done")
        return Run.load(where), fit_seconds(kept)
    solved = items.task.solved
    if kept.is_file():
        handle = Elicited.load(kept.parent, model)
    else:
        log(f"{place} {name}: fitting")
        began = time.perf_counter()
        handle = fit(name, model, solved, progress, **shared.options(name))
        seconds = round(time.perf_counter() - began, 2)
        handle.save(kept.parent)
        write_whole(kept, json.dumps({"seconds": seconds}))
    log(f"{place} {name}: answering {len(items)} questions")
    controls = get(name).controls(handle, solved, seed=shared.seed, progress=progress) if shared.controls else {}
    run = evaluate(
        handle,
        items,
        against=controls,
        out=where,
        seed=shared.seed,
        batch_rows=batch_rows,
        progress=progress,
        page=page,
        before=before,
    )
    return run, fit_seconds(kept)


def fit_seconds(file: Path) -> float:
    """How long a fit took.

    Raises:
        UserError: the file is not as it was written.
    """
    with as_expected(repr(str(file)), "remove it and run the comparison's command again"):
        return float(json.loads(file.read_text(encoding="utf-8"))["seconds"])
