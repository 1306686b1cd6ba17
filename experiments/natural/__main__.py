"""All mechanisms on natural models and published tasks: fitted, evaluated beside their controls, and put in one table.

    python -m experiments.natural                                   # both models, all tasks, all methods
    python -m experiments.natural --model gemma3-270m-base --task multiarith=HALF.jsonl --limit 60
    python -m experiments.natural --methods direct,cot-prompt --no-controls
    python -m experiments.natural --plan                            # what each would cost here; nothing is run
    python -m experiments.natural --ended --keep                    # the rows of what has ended, into the README, which
                                                                    # keeps others of the same questions and settings

A model on a task is one comparison in runs/: a stopped call resumes with the same command, and one that names more
methods finds the others done. `gemma3-270m-base` shows its terms of use before it is fetched. Without a network a task
is given as a file, `NAME=FILE.jsonl`, whose questions are cut into fit, dev and test by their text.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from elicit.cli.terminal import run_bars
from elicit.evaluation.run.store import folder_for
from elicit.methods import direct, get
from elicit.methods.compare import RUNS, Comparison, SharedOptions, plan_of, run_together
from elicit.methods.forecast import forecast_run
from elicit.models import Model, load_model
from elicit.tasks.base import Items, Task
from experiments.command import called
from experiments.markdown import markdown
from experiments.natural import table
from experiments.natural.fits import Made, made_for, make
from experiments.natural.settings import METHODS, MODELS, PROMPTS, load, names, options, tasks
from probes.errors import UserError


@dataclass(frozen=True)
class Cell:
    """A model on a task.

    Args:
        model, task, items: what is asked, and of whom.
        source: what the questions are loaded by.
        made: where an SAE and a thinking copy go.
        shared: what is the same for all methods.
        folder: of the comparison.
    """

    model: Model
    task: Task
    items: Items
    source: str
    made: Made
    shared: SharedOptions
    folder: Path

    def ended(self, methods: Sequence[str]) -> list[str]:
        return [name for name in methods if (self.folder / RUNS / name / "metrics.json").is_file()]


def cell(model: Model, prompt: str, name: str, source: str, given: argparse.Namespace) -> Cell:
    task = load(name, source, given.limit)
    made = made_for(model, task, prompt, given.max_new_tokens, given.seed)
    shared = SharedOptions(
        prompt, given.max_new_tokens, given.seed, controls=given.controls, given=options(made.sae, made.adapter)
    )
    items = task.test
    folder = folder_for("compare", task.name, model.name, plan_of(model, items, shared))
    return Cell(model, task, items, source, made, shared, folder)


def run(one: Cell, methods: Sequence[str], bars: Any) -> Comparison:
    """Fit and evaluate, each method after what it needs; one that refuses is left out with its reason."""
    left: dict[str, str] = {}
    shared = {"prompt": one.shared.prompt, "max_new_tokens": one.shared.max_new_tokens, "seed": one.shared.seed}
    for name in methods:
        if name not in one.ended(methods):
            try:
                make(name, one.made, one.model, one.task, one.source, bars, **shared)
            except UserError as error:
                left[name] = str(error)
    done = run_together(
        one.model, one.items, [name for name in methods if name not in left], one.shared, out=one.folder,
        optional=True, progress=bars, log=lambda line: print(f"natural: {line}", file=sys.stderr),
    )  # fmt: skip
    done.left_out.update(left)
    return done


def costs(one: Cell, methods: Sequence[str]) -> dict[str, str]:
    """What each method that has not ended would take here, or why that cannot be told."""
    out = {}
    for name in methods:
        if name in one.ended(methods):
            continue
        try:
            needed = forecast_run(
                get(name), one.model, one.items, one.shared.options(name), lambda _: {}, controls=one.shared.controls
            )
            out[name] = needed.line
        except UserError as error:
            out[name] = f"not reckoned: {error}"
    return out


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=",".join(MODELS), help="names, joined by commas")
    parser.add_argument("--prompt", default=",".join(PROMPTS), help="names; a model is asked by those that it has")
    parser.add_argument("--task", default="multiarith,gsm8k,math-500", help="names, or NAME=FILE.jsonl")
    parser.add_argument(
        "--methods", default=",".join(METHODS), help="`direct`, which differences are to, is among them"
    )
    parser.add_argument("--limit", type=int, default=100, help="questions of each split")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--controls", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--plan", action="store_true", help="say what is not there yet and what it costs")
    parser.add_argument("--ended", action="store_true", help="take what has ended, and run nothing")
    parser.add_argument("--keep", action="store_true", help="put it into the README and natural.json")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    called("natural", lambda: put(given))


def put(given: argparse.Namespace) -> None:
    methods = list(dict.fromkeys([direct.NAME, *names(given.methods, METHODS, "method")]))
    wanted = tasks(given.task)
    prompts = names(given.prompt, PROMPTS, "prompt")
    kept = table.load()
    now: dict[str, Any] = {"tables": {}, "costs": {}}
    for model_name in names(given.model, tuple(MODELS), "model"):
        by = [prompt for prompt in MODELS[model_name] if prompt in prompts]
        if not by:
            raise UserError(
                f"{model_name} is asked by {', '.join(MODELS[model_name])}; prompt {given.prompt!r} was given"
            )
        model = load_model(model_name)
        for prompt, (name, source) in itertools.product(by, wanted.items()):
            one = cell(model, prompt, name, source, given)
            key = table.place(model_name, prompt, name)
            if given.plan:
                now["costs"][key] = costs(one, methods)
                continue
            asked = one.ended(methods) if given.ended else methods
            if direct.NAME not in asked:
                raise UserError(f"{direct.NAME} of {key} has not ended in {str(one.folder)!r}; run it without --ended")
            with run_bars(quiet=False) as bars:
                done = run(one, asked, bars)
            now["tables"][key] = table.entry(
                done, benchmark=name, split="test",
                prompt=prompt, max_new_tokens=given.max_new_tokens, seed=given.seed, made=date.today().isoformat(),
            )  # fmt: skip
            if given.keep:
                now["tables"][key] = table.joined(kept["tables"].get(key), now["tables"][key])
            now["tables"][key]["command"] = command(given, model_name, prompt, name, now["tables"][key])
    if given.plan:
        rows = [(*key.rsplit(" ", 2), *pair) for key, some in now["costs"].items() for pair in some.items()]
        print(markdown(table.LEFT_HEAD[:-1], rows))
    else:
        print(table.shown({**now, "costs": kept["costs"]}))
    if given.keep:
        table.keep({part: {**kept[part], **now[part]} for part in kept})


def command(given: argparse.Namespace, model: str, prompt: str, task: str, rows: Mapping[str, Any]) -> str:
    """That makes these rows: of a file, with its name for its place."""
    methods = ",".join(row["key"] for row in rows["arms"] if not row["of"])
    file = dict(part.strip().partition("=")[::2] for part in given.task.split(",")).get(task, "")
    words = ["python", "-m", "experiments.natural", "--model", model, "--prompt", prompt]
    words += ["--task", f"{task}={Path(file).name}" if file else task, "--methods", methods]
    words += ["--limit", str(given.limit), "--max-new-tokens", str(given.max_new_tokens), "--seed", str(given.seed)]
    return shlex.join(words if given.controls else [*words, "--no-controls"])


if __name__ == "__main__":
    main()
