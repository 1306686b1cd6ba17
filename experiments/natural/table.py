"""The one table: rows of every model and task that ended, kept as JSON and shown as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elicit.evaluation.metrics.format import percent, weights, with_interval
from elicit.methods import BASELINES, cot_decoding
from elicit.methods.compare import Comparison
from elicit.report.comparison import HEAD, compare_runs, correct, head_of, remarks, rows_of
from experiments.markdown import markdown
from experiments.natural.settings import METHODS, MODELS, TASKS
from probes.errors import UserError
from probes.files import write_whole

HERE = Path(__file__).parent
README, RESULT = HERE / "README.md", HERE / "natural.json"
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"
SAME = "the same branches: "  # before the rule by which another control chooses among them
UNKNOWN = "told by `--plan`"
ALIKE = ("model", "task", "items", "split", "baseline", "prompt", "max_new_tokens", "seed")  # of rows of one table
NOT_KEPT = ("runs", "bottom_line")
LEFT_HEAD = ("model", "prompt", "task", "method", "cost", "command")


def entry(done: Comparison, **about: Any) -> dict[str, Any]:
    """What is kept of a model on a task: its comparison, the other rules on the same branches, and how it was made."""
    compared = compare_runs(done.runs, seed=about["seed"], fit_seconds=done.fit_seconds, left_out=done.left_out)
    rules = [
        {"rule": rule, "accuracy": one["accuracy"], "interval": one["interval"]}
        for run in done.runs
        if run.metrics["method"] == cot_decoding.NAME
        for rule, one in run.metrics["readings"].items()
    ]
    return {**{key: value for key, value in compared.items() if key not in NOT_KEPT}, "rules": rules, **about}


def joined(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of the same questions and settings that were run at two times, Holm over all of them; else those of now.

    Raises:
        UserError: an arm of both has other answers now, so that they are no rows of one table.
    """
    if before is None or any(before[key] != now[key] for key in ALIKE):
        return dict(now)
    former, rows = ({(row["of"], row["key"]): row for row in one["arms"]} for one in (before, now))
    for which, row in rows.items():
        if which in former and any(former[which][key] != row[key] for key in ("accuracy", "tokens_per_item")):
            was = f"{percent(former[which]['accuracy'])} was kept and {percent(row['accuracy'])} is there now"
            raise UserError(f"{row['arm']} of {now['benchmark']}: {was}; run all methods, or take the kept ones out")
    arms = [dict(row) for row in {**former, **rows}.values()]
    order = sorted(METHODS, key=lambda name: name not in BASELINES)
    arms.sort(key=lambda row: order.index(row["of"] or row["key"]))
    count = Counter(row["key"] for row in arms)
    for row in arms:
        row["arm"] = f"{row['of']}: {row['key']}" if row["of"] and count[row["key"]] > 1 else row["key"]
    correct(arms)
    both = {key: {**before[key], **now[key]} for key in ("bottom_lines", "left_out")}
    both["bottom_lines"] = {name: line for name, line in both["bottom_lines"].items() if name not in BASELINES}
    both["left_out"] = {name: why for name, why in both["left_out"].items() if name not in count}
    return {**now, **both, "arms": arms, "rules": now["rules"] or before["rules"]}


def load() -> dict[str, Any]:
    """What is kept: `tables` and `costs`, each by model, prompt and task."""
    if not RESULT.is_file():
        return {"tables": {}, "costs": {}}
    return dict(json.loads(RESULT.read_text(encoding="utf-8")))


def place(model: str, prompt: str, task: str) -> str:
    return f"{model} {prompt} {task}"


def keep(kept: Mapping[str, Any]) -> None:
    """Write what is kept, and its tables between the two marks of the README."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_whole(RESULT, json.dumps(kept, indent=1, allow_nan=False) + "\n")
    write_whole(README, f"{before}{BEGIN}\n{shown(kept)}\n{END}{after}")


def shown(kept: Mapping[str, Any]) -> str:
    """The table, how it is read and was made, and what is not in it."""
    tables = list(kept["tables"].values())
    parts: list[str] = []
    if tables:
        rows = [(one["model"]["name"], one["prompt"], one["benchmark"], *row) for one in tables for row in lines(one)]
        parts.append(markdown(("model", "prompt", "task", *HEAD), rows))
        parts += dict.fromkeys(line for one in tables for line in remarks(one))
        parts.append("\n".join(f"- {made(one)}" for one in tables))
    left = missing(kept)
    if left:
        parts += ["Not run here:", markdown(LEFT_HEAD, left)]
    return "\n\n".join(parts)


def lines(one: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of a model on a task, each rule on the same branches below the method whose branches they are."""
    out: list[tuple[str, ...]] = []
    head = head_of(one)  # with a column more where forward passes are not one a token
    rows = [tuple(cell for name, cell in zip(head, row, strict=True) if name in HEAD) for row in rows_of(one)]
    for row, of in zip(rows, one["arms"], strict=True):
        out.append(row)
        if of["arm"] == cot_decoding.NAME:
            blank = ("",) * (len(HEAD) - 2)
            out += [
                (f"· {SAME}{rule['rule']}", with_interval(rule["accuracy"], rule["interval"]), *blank)
                for rule in one["rules"]
            ]
    return out


def made(one: Mapping[str, Any]) -> str:
    """Questions, weights, seed, date and command."""
    model = one["model"]
    return (
        f"{model['name']} on {one['benchmark']}: {one['items']} questions of the {one['split']} split of "
        f"{one['task']}, {weights(model)}, prompt `{one['prompt']}`, at most {one['max_new_tokens']} tokens, "
        f"seed {one['seed']}, {one['made']}: `{one['command']}`"
    )


def missing(kept: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What has no row: with its command, and what it costs where that was asked for."""
    out: list[tuple[str, ...]] = []
    asked = [(model, prompt) for model, prompts in MODELS.items() for prompt in prompts]
    for model, prompt in asked:
        for task in TASKS:
            key = place(model, prompt, task)
            there = {row["key"] for row in kept["tables"].get(key, {}).get("arms", ())}
            costs = kept["costs"].get(key, {})
            left = [name for name in METHODS if name not in there]
            alike: dict[str, list[str]] = {}
            for name in left:
                alike.setdefault(costs.get(name, UNKNOWN), []).append(name)
            for cost, some in alike.items():
                every = len(some) == len(METHODS)
                words = ["python -m experiments.natural", "--model", model, "--prompt", prompt, "--task", task]
                words += [] if every else ["--methods", ",".join(some)]
                out.append((model, prompt, task, "all" if every else ", ".join(some), cost, f"`{' '.join(words)}`"))
    return out
