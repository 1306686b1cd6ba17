"""What a report says of one run, as rows for the shell and as parts of a page; `elicit.report.page` makes the page."""

from __future__ import annotations

from typing import Any

from elicit.evaluation.metrics.format import (
    FORWARDS,
    count,
    forwards_column,
    not_stated_cell,
    p_value,
    percent,
    signed,
    weights,
    with_interval,
)
from elicit.evaluation.metrics.gap import CEILING, DIRECT, format_gap
from elicit.evaluation.metrics.run_metrics import START
from elicit.evaluation.metrics.verdicts import is_accuracy
from elicit.evaluation.run.figures import FIGURES
from elicit.evaluation.run.run import Run
from elicit.evaluation.run.store import CONFIG
from elicit.evaluation.seen import seen_notes
from elicit.methods import METHODS
from elicit.methods.base import Method
from probes.figures import Part, noted, table
from probes.inert import escaped

ARM_HEAD = ("arm", "accuracy [95%]", "tokens", "difference [95%]", "p (Holm)")


def arm_table(metrics: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows: the method under test first; differences are that method minus the row's arm.

    Where the ceiling is known, a column more: the fraction of the gap that each arm recovers. Where some arm took other
    than one forward pass a token, another: the passes a question.
    """
    against = {row["baseline"]: row for row in metrics["comparisons"]}
    known = any("recovered" in arm for arm in metrics["arms"].values())
    stated = {name: is_accuracy(arm, metrics["items"]) for name, arm in metrics["arms"].items()}
    rows: list[tuple[str, ...]] = []
    for name, arm in metrics["arms"].items():
        found = against.get(name) if stated[name] and stated[metrics["method"]] else None
        difference = with_interval(found["difference"], found["interval"], signed) if found else ""
        p = p_value(found["holm_p"]) if found else ""
        accuracy = accuracy_cell(arm, metrics["items"])
        of_gap = "recovered" in arm and all(stated.get(one, True) for one in (name, DIRECT, CEILING))
        gap = format_gap(arm["recovered"], arm["recovered_interval"]) if of_gap else ""
        row = (name, accuracy, count(arm["tokens_per_item"]), difference, p)
        rows.append((*row, gap) if known else row)
    head = (*ARM_HEAD, "gap recovered") if known else ARM_HEAD
    forwards = forwards_column(list(metrics["arms"].values()))
    if forwards is not None:
        head = (*head[:3], FORWARDS, *head[3:])
        rows = [(*row[:3], cell, *row[3:]) for row, cell in zip(rows, forwards, strict=True)]
    return head, rows


def accuracy_cell(arm: dict[str, Any], items: int) -> str:
    """An arm's accuracy; where too many answers have no verdict, the least that it may be."""
    if is_accuracy(arm, items):
        return with_interval(arm["accuracy"], arm["interval"])
    return not_stated_cell(arm["accuracy"])


def is_stated(metrics: dict[str, Any]) -> bool:
    """Whether a run states an accuracy of its method, and so what is counted of the same answers."""
    return is_accuracy(metrics["arms"][metrics["method"]], metrics["items"])


def reading_head(metrics: dict[str, Any]) -> tuple[str, ...]:
    """With what the differences are to: the run's first baseline, where it is there, else the greedy branch."""
    start = metrics.get(START, DIRECT)
    to = start if start in metrics["arms"] else "the greedy branch"
    return "the same branches, chosen by", "accuracy [95%]", f"difference to {to} [95%]"


def reading_rows(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """As `arm_table`: of a method whose run states no accuracy the least that each may be; no difference where one of
    the two is not stated."""
    start = metrics["arms"].get(metrics.get(START, DIRECT))
    stated = is_stated(metrics)
    both = stated and (start is None or is_accuracy(start, metrics["items"]))
    return [
        (
            rule,
            with_interval(r["accuracy"], r["interval"]) if stated else not_stated_cell(r["accuracy"]),
            with_interval(r["difference"], r["difference_interval"], signed) if both else "",
        )
        for rule, r in metrics.get("readings", {}).items()
    ]


def group_parts(metrics: dict[str, Any]) -> list[Part]:
    """Accuracy by subject and by level, a table each, where the items have them."""
    parts: list[Part] = []
    forms = {
        name: percent if is_accuracy(arm, metrics["items"]) else not_stated_cell
        for name, arm in metrics["arms"].items()
    }
    for field, rows in metrics.get("groups", {}).items():
        head = (field, "items", *metrics["arms"])
        cells = [
            (str(row["value"]), row["items"], *(form(row["accuracy"][arm]) for arm, form in forms.items()))
            for row in rows
        ]
        parts.append(table(head, cells))
    return parts


def notes(metrics: dict[str, Any]) -> list[str]:
    """What a reader must know to read the table: filters, fallbacks, truncation, calibration."""
    arm = metrics["arms"][metrics["method"]]
    method = _method(metrics)
    out: list[str] = list(method.notes(metrics["options"])) if method else []
    out += [f"{name} was read from {source}." for name, source in metrics.get("imported", {}).items()]
    voted = [name for name, arm in metrics["arms"].items() if arm["select"] == "vote" and "imported" in metrics]
    if voted:
        out.append(f"Accuracy of {', '.join(voted)}: of the answer that most of a question's samples give.")
    if "size" in metrics:
        out.append(f"Size {metrics['size']} of two that this job has (--size).")
    if "recovered" in arm:
        out.append(
            "The model is an organism, made so that its gap is known: direct is what it does by default, cot-prompt "
            "the ceiling. What is recovered here shows that the mechanism finds a skill that is there and says nothing "
            "about how much is latent in a natural model."
        )
    if arm["dropped"]:
        dropped = ", ".join(f"{n} {reason}" for reason, n in sorted(arm["dropped"].items()))
        total = round(arm["branches_per_item"] * metrics["items"])
        out.append(f"Of {total} paths were dropped: {dropped}.")
    if arm["fallbacks"]:
        out.append(f"For {arm['fallbacks']} questions no path was left and the greedy one answered.")
    cut = {name: a["finish"].get("length", 0) for name, a in metrics["arms"].items()}
    if any(cut.values()):
        out.append("Answers cut at the limit: " + ", ".join(f"{n} {c}" for n, c in cut.items() if c) + ".")
    average = metrics.get("samples", {}).get("avg_at_k")  # runs of older versions have none
    if average and is_stated(metrics):
        out.append(
            f"avg@{average['k']} of {metrics['method']}, the mean over items of the fraction of correct samples: "
            f"{with_interval(average['mean'], average['interval'])} (items resampled)."
        )
    out += seen_notes(metrics)
    if "processes" in metrics:
        out.append(
            f"Answered by {metrics['processes']} processes: in {metrics['model']['dtype']} another number of them, so "
            "other batches, may choose another token where two logits are equal to their last bits."
        )
    out += [f"Decoding: {note}." for note in metrics.get("decoding_notes", [])]
    out += unjudged_notes(metrics) + found_notes(metrics)
    calibration = metrics.get("calibration")
    if calibration and calibration["auroc"] is not None and is_stated(metrics):
        interval, within = calibration["auroc_interval"], calibration["auroc_within"]
        out.append(
            f"AUROC of Δ for right: {calibration['auroc']:.2f}"
            + (f" ({interval[0]:.2f} … {interval[1]:.2f})" if interval else "")
            + (f"; within a question {within:.2f}" if within is not None else "")
            + "."
        )
    return out


def _method(metrics: dict[str, Any]) -> Method | None:
    """The method under test, where it is registered here; a log of another program may only be called like one."""
    return None if "imported" in metrics else METHODS.get(metrics["method"])


WHY_UNJUDGED = {
    "log": "without one in the log",
    "raised": "the scorer could not read",
    "time": "used up the scorer's time",
    "memory": "used up the scorer's memory",
    "died": "ended the scorer's process, twice",
}


def unjudged_notes(metrics: dict[str, Any]) -> list[str]:
    """How many answers of each arm got no verdict and so score 0, and bounds that the scorer lacked."""
    found = {
        name: ", ".join(f"{n} {WHY_UNJUDGED[why]}" for why, n in sorted(arm["unjudged"].items()))
        for name, arm in metrics["arms"].items()
        if arm.get("unjudged")
    }
    out = []
    if found:
        told = "; ".join(f"{name} {counts}" for name, counts in found.items())
        out.append(f"Answers without a verdict, counted as incorrect: {told}.")
    if metrics.get("scorer_unbounded"):
        out.append(f"This platform has no bound on the scorer's {', '.join(metrics['scorer_unbounded'])}.")
    return out


def found_notes(metrics: dict[str, Any]) -> list[str]:
    """How the answers of each arm were found; nothing for an older run."""
    found = {
        name: ", ".join(f"{n} by {how}" if how != "none" else f"{n} not at all" for how, n in counts)
        for name, arm in metrics["arms"].items()
        if (counts := sorted(arm.get("found_by", {}).items(), key=lambda pair: -pair[1]))
    }
    out = [f"Answers were found: {'; '.join(f'{name} {counts}' for name, counts in found.items())}."] if found else []
    if any("last number" in arm.get("found_by", {}) for arm in metrics["arms"].values()):
        out.append("The answer is the last number of a response, whatever is said of it: the rule of arXiv 2402.10200.")
    return out


DELIVERY_HEAD = ("arm", "tokens moved", "prompt positions", "‖Δh‖/‖h‖", "max Δ log p", "mean KL", "argmax changed")


def delivery_sections(metrics: dict[str, Any]) -> list[str]:
    """What interventions did to the model, as HTML; nothing for a run without any."""
    check = metrics.get("delivery")
    if not check:
        return []
    rows = [
        (
            arm,
            f"{p['tokens_moved']} of {p['tokens']}",
            p["prompt_positions_moved"],
            f"{p['mean_share']:.2f}",
            f"{p['effect']['max_logprob_change']:.2f}",
            f"{p['effect']['mean_kl']:.3f}",
            f"{p['effect']['argmax_changed']:.0%}",
        )
        for arm, p in check.items()
    ]
    note = (
        "Generated tokens and earlier prompt positions that were moved, the mean size of the move, and along one "
        "answer how its log-probabilities differ from the unsteered model's."
    )
    return ["<h2>Manipulation check</h2>", noted(note), table(DELIVERY_HEAD, rows)]


READ_ACCURACY = (
    "How to read: each line is 95%, Agresti and Coull's for a fraction, bootstrap for the random branch. Null: the "
    "baselines, and for a rule that chooses among branches the random branch; a rule whose line reaches there has "
    "chosen nothing."
)
READ_TREE = "How to read: each lane is a branch; squares are its tokens by margin, outlined where they are the answer."
READ_CALIBRATION = (
    "How to read: rising from left to right, a confident answer is more often right. Null: a flat line, AUROC 0.5."
)
READ_COVERAGE = (
    "How to read: the line says how often one of the first k branches is right, the bars how often each alone is. "
    "Branches are distinct and ordered, not samples: this is not pass@k. Null: coverage grows with any k different "
    "branches; what a rule can choose of it is the dashed lines."
)


def run_note(run: Run) -> str:
    """One line on what was run."""
    metrics = run.metrics
    model = metrics["model"]
    note = f"{metrics['items']} items of {metrics['task']}, model {model['name']} ({weights(model)}), "
    note += f"seed {metrics['seed']}."
    if metrics["comparisons"]:
        note += f" Differences are {metrics['method']} minus the row, paired by question; intervals by bootstrap."
    return note


def run_sections(run: Run) -> list[Part]:
    """The parts of a page that are about one run: its table, what a reader must know, its figures."""
    metrics = run.metrics
    method = _method(metrics)
    parts: list[Part] = [table(*arm_table(metrics), main=0)]
    parts.append("".join(noted(line) for line in notes(metrics)))
    parts += group_parts(metrics)
    if method:
        parts += [*method.report_sections(metrics["options"]), *method.findings(run)]
    parts += delivery_sections(metrics)
    stated = is_stated(metrics)
    if stated and (len(metrics["arms"]) > 1 or "readings" in metrics):
        parts.append(("Accuracy", READ_ACCURACY, FIGURES["readings"](run)))
    if "readings" in metrics:
        parts.append(table(reading_head(metrics), reading_rows(metrics)))
    if "calibration" in metrics:
        parts.append(("One question", READ_TREE, FIGURES["branch-tree"](run)))
    if "calibration" in metrics and stated:
        parts.append(("Calibration", READ_CALIBRATION, FIGURES["calibration"](run)))
    if "coverage_by_rank" in metrics and stated:
        parts.append(("Coverage", READ_COVERAGE, FIGURES["coverage"](run)))
    return parts


def _whole(identity: dict[str, Any]) -> str:
    known = "dtype" in identity
    return f"SHA-256 of the weights {identity['model']}, {identity['dtype']}" if known else "weights not known"


def made_sections(run: Run) -> list[Part]:
    """How a run was made: its command, the hashes of model and items, versions, the whole configuration."""
    config = run.store.config
    identity, made = config["identity"], config.get("made", {})
    environment = made.get("environment", {})
    rows = [
        ("model", f"{run.metrics['model']['name']}, {_whole(identity)}"),
        ("items", f"{run.metrics['items']} of {identity['task']}, hash of ids and questions {identity['items']}"),
        ("seed", str(identity["seed"])),
        *((name, ", ".join(value) or "none" if isinstance(value, list) else str(value))
          for name, value in environment.items()),
    ]  # fmt: skip
    text = (run.folder / CONFIG).read_text(encoding="utf-8")
    return [
        f"<pre>{escaped(made.get('command', 'the command was not kept (an older run)'))}</pre>",
        table(("made with", ""), rows, prose=True),
        f"<details><summary>Configuration</summary><pre>{escaped(text)}</pre></details>",
    ]
