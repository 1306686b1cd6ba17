"""What a training changed in the weights, run by run: how sparse, of what rank, and how far two of them overlap.

arXiv 2505.11711 finds that RL leaves most weights as they were. That fraction depends on the precision, so each stands
beside that of a dense null of the same norm, rounded as the weights are stored (`probes.weights`), and the overlap of
two trainings beside chance and beside two such nulls. There is no interval: all weights are counted.

A run with an adapter, or with all weights of a training, is compared with its own base. A run on a model that was
trained as a whole is compared with `base`. A mechanism that changes the decoding, the prompt or activations has no
weight difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from elicit.analysis.base import Analysis, plain
from elicit.evaluation.run.arms import check_ours, folder_names, handle_of, model_of
from elicit.evaluation.run.run import Run
from elicit.models.model import Model, load_model
from probes.dots import Dot, dot_plot
from probes.errors import UserError
from probes.weights import SHARES, Adapted, Checkpoint, Folder, Loaded, differences, overlap
from steering.adapters import Weights

NAME = "weight-difference"
SUMMARY = "how much of the weights a training changed, and whether two changed the same, beside dense nulls"
PAPER = "2505.11711"
READINGS = {"fp32": "exactly", "absolute": "|Δ| ≤ 1e-5", "relative": "|Δ| ≤ 1e-3 |θ|", "bf16": "after bf16"}
COLUMNS = ("changed tensors", *(f"unchanged {READINGS[s]}" for s in SHARES), *(f"null {READINGS[s]}" for s in SHARES),
           "rank share", "norm")  # fmt: skip
SPARSE = 0.05  # more of the weights unchanged than in the dense null


@dataclass(frozen=True, eq=False)
class Trained:
    """A training: its name, the run's folder apart where two are alike, and the weights before and after."""

    name: str
    before: Checkpoint
    after: Checkpoint
    sha256: str  # of the base


def analyse(
    runs: Sequence[Run],
    *,
    base: str = "",
    ranks: bool = True,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """Differences of every run that changed weights, and the overlap of every two on one base.

    Args:
        runs: with adapters, or on models that were trained as a whole.
        base: the model by name that the latter were trained from.
        ranks: whether ranks are computed, the slowest part.
        seed: of the dense nulls.

    Raises:
        UserError: no run, one of a log, or none that changed weights; weights that are not of one configuration.
    """
    if not runs:
        raise UserError("no run was given; give folders of finished runs")
    check_ours(runs, "the weights")
    start = load_model(base, dtype=runs[0].metrics["model"]["dtype"]) if base else None
    first = None if start is None else (_weights(start), start.provenance.sha256)
    table: list[dict[str, Any]] = []
    made: list[Trained] = []
    folders = folder_names(runs)
    for run in runs:
        name = run.metrics["method"]
        name = f"{name} ({folders[run]})" if any(r is not run and r.metrics["method"] == name for r in runs) else name
        trained = _trained(run, name, first)
        if isinstance(trained, Trained):
            made.append(trained)
        else:
            table.append(_row(name, {}, trained))
    if not made:
        raise UserError(
            f"none of the runs changed weights ({', '.join(row['run'] for row in table)}); give runs with adapters, or "
            "base=MODEL, from which their models were trained"
        )
    data: dict[str, Any] = {"differences": {}, "overlaps": {}}
    pairs = [(a, b) for a, b in combinations(made, 2) if a.sha256 == b.sha256]
    total = len(made) + len(pairs)
    for n, one in enumerate(made):
        if progress is not None:
            progress("differences", n, total)
        found = differences(one.before, one.after, ranks=ranks, seed=seed)
        data["differences"][one.name] = {"summary": plain(found.summary), "tensors": _tensors(found.table)}
        table.append(_row(one.name, found.summary, ""))
    for n, (a, b) in enumerate(pairs):
        if progress is not None:
            progress("overlap", len(made) + n, total)
        shared = overlap(a.before, a.after, b.after, seed=seed).summary
        data["overlaps"][f"{a.name} | {b.name}"] = shared
        table.append(_row(f"{a.name} and {b.name}", {}, overlap_said(shared)))
    notes = [
        "Fraction of all weights that a training left as they were, by four readings; read it against the dense null, "
        "Gaussian noise of the same norm in the same precision: what the null leaves unchanged as well is rounding.",
        "Overlap: the fraction of one training's changed weights that the other changed too, beside chance and two "
        "dense nulls. A LoRA adapter changes whole matrices, and neither sparsity nor overlap of it says much.",
        "It does not show that the weights left alone do not matter.",
    ]
    return Analysis(NAME, table, _figure(data["differences"]), notes, data)


def _trained(run: Run, name: str, start: tuple[Checkpoint, str] | None) -> Trained | str:
    """What a run's training did, or why there is nothing to compare."""
    about = run.store.config["arms"][run.metrics["method"]]
    sha256 = run.metrics["model"]["sha256"]
    whole = start is not None and start[1] != sha256
    if not {"adapter", "weights"} & set(about) and not whole:
        why = "it decodes or steers and changes no weights" if start is None else "its model is the base itself"
        return f"does not apply: {why}"
    model = model_of([run])
    own = _weights(model)
    before, of = start if start is not None and whole else (own, sha256)
    tuned = handle_of(run, model).adapter
    if isinstance(tuned, Weights):
        return Trained(name, before, Folder(tuned.folder), of)
    return Trained(name, before, own if tuned is None else Adapted(own, tuned.folder), of)


def _weights(model: Model) -> Loaded:
    """All weights of a model, those that two names share (a tied output head) once."""
    return Loaded(dict(model.lm.named_parameters()))


def _tensors(table: Any) -> dict[str, Any]:
    kept = ["n", *SHARES, *(f"null_{share}" for share in SHARES), "norm", "relative_norm"]
    kept += [column for column in ("rank", "stable_rank", "full_rank") if column in table]
    found: dict[str, Any] = plain({name: dict(row) for name, row in table[kept].to_dict("index").items()})
    return found


def overlap_said(shared: dict[str, Any]) -> str:
    """The overlap of two trainings in words, beside chance and the dense nulls."""

    def share(key: str) -> str:
        return "none" if shared[key] is None else f"{shared[key]:.1%}"

    return (
        f"of the first's changed weights the second changed {share('of_one')} (by chance {share('chance_of_one')}, "
        f"dense nulls {share('null_of_one')}); of the second's the first {share('of_other')} "
        f"({share('chance_of_other')}, {share('null_of_other')})"
    )


def _row(name: str, summary: dict[str, Any], says: str) -> dict[str, Any]:
    nan = float("nan")
    row: dict[str, Any] = {"run": name, **dict.fromkeys(COLUMNS, nan)}
    if summary:
        row["changed tensors"] = f"{summary['changed_tensors']} of {summary['tensors']}"
        for share in SHARES:
            row[f"unchanged {READINGS[share]}"] = summary[share]
            row[f"null {READINGS[share]}"] = summary[f"null_{share}"]
        row["rank share"], row["norm"] = summary.get("mean_rank_share", nan), summary["norm"]
        sparse = [READINGS[share] for share in SHARES if summary[share] - summary[f"null_{share}"] > SPARSE]
        says = f"sparser than a dense change: {', '.join(sparse)}" if sparse else "no sparser than a dense change"
    return {**row, "says": says}


def _figure(found: dict[str, Any]) -> Any:
    def dots(key: str) -> list[Dot]:
        return [Dot(one["summary"][key]) for one in found.values()]

    return dot_plot(
        list(found), {f"unchanged {READINGS[share]}": dots(share) for share in SHARES},
        nulls={f"null, {READINGS[share]}": dots(f"null_{share}") for share in SHARES},
        title="Weights left as they were", x="fraction of all weights",
    )  # fmt: skip
