"""`elicit tasks` and `methods`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from elicit.cli import completion
from elicit.cli.lines import show_json
from elicit.cli.options import Json, show_list, show_options


def tasks(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show this task: an item of each split, and its grader's validation.", autocompletion=completion.tasks
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tasks that have a name here; any JSON Lines file with question and answer works as well."""
    from elicit.tasks.base import validate
    from elicit.tasks.registry import load_task, task_names

    if name is None:
        show_list(("task", "what it is"), list(task_names().items()), as_json)
        return
    task = load_task(name, limit=16)
    proof = validate(task.all, 48)
    if as_json:
        items = [{"id": i.id, "split": i.split, "question": i.question, "answer": i.answer} for i in task.items]
        show_json({"task": task.name, "kind": task.kind, "validation": vars(proof), "items": items}, indent=2)
        return
    from elicit.cli.terminal import headed, out

    for split in ("fit", "dev", "test"):
        first = next((i for i in task.items if i.split == split), None)
        if first is not None:
            out.print(f"{split}  {first.id}", style="dim")
            out.print(first.question)
            out.print(headed("answer:", f" {first.answer}\n", "dim"))
    verdict = "gold scores 1, also where responses give it, and corrupted gold 0"
    if proof.found < proof.gold_right == proof.checked:
        verdict = f"{proof.checked - proof.found} gold answers are NOT found in responses that give them"
    elif not proof.ok:
        verdict = "its grader is NOT to be trusted"
    out.print(f"answers are of kind {task.kind}; on {proof.checked} items {verdict}")
    if left_out := task.source.get("left_out_of_fit"):
        out.print(f"{left_out} training problems are left out of fit and dev, since the test set holds them")


def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="Show this method: what each of its options is.", autocompletion=completion.methods),
    ] = None,
    as_json: Json = False,
) -> None:
    """Mechanisms and baselines, with their options."""
    from elicit.methods import METHODS

    if name is not None:
        show_options("method", name, METHODS, lambda method: method.fit, as_json)
        return
    rows = []
    for name, method in METHODS.items():
        options = ", ".join(f"{k}={v}" for k, v in method.options.items())
        rows.append((name, method.summary + (f" (arXiv {method.paper})" if method.paper else ""), options))
    show_list(("method", "what it does", "options"), rows, as_json)
