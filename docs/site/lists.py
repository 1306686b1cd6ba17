"""What the registries and the command line hold, as Markdown for the documentation: JSON on standard output.

A page asks for one by a comment: `<!-- list: methods -->`, `<!-- options: cot-decoding -->`, `<!-- verdict: decoding
-->`; `stage.py` puts it in.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import hook_points
import typer

from elicit.analysis import ANALYSES
from elicit.cli import completion
from elicit.cli.app import app
from elicit.cli.presets import page, preset
from elicit.decoding.engine import ENGINES
from elicit.evaluation.run.figures import FIGURES
from elicit.methods import BASELINES, METHODS
from elicit.models import zoo
from elicit.tasks.registry import task_names
from elicit.training.rl import rewards
from experiments.claims.base import Claim, claims
from experiments.claims.record import kept
from experiments.markdown import markdown
from probes.docstrings import told_of
from steering.backends import BACKENDS


def code(value: object) -> str:
    return f"`{value}`" if str(value) else ""


def methods() -> str:
    rows = []
    for name, method in METHODS.items():
        page = "baselines.md" if name in BASELINES else f"{name}.md"
        rows.append((f"[`{name}`](/docs/mechanisms/{page})", method.summary, method.paper))
    return markdown(("method", "what it does", "paper (arXiv)"), rows)


def options(name: str) -> str:
    """The options of a method: what its docstring says of them, with their defaults."""
    method = METHODS[name]
    rows = []
    for told in told_of(method.fit, method.options):
        rows.append((", ".join(code(f"{one}={json.dumps(method.options[one])}") for one in told.names), told.text))
    return markdown(("option (`--set`) and default", "what it is"), rows)


def models() -> str:
    named = {name: one.summary for name, one in (zoo.WEIGHTS | zoo.ORGANISMS).items()}
    named |= {name: f"hub {repo}" for name, repo in zoo.ALIASES.items()}
    return markdown(("model", "what it is"), [(code(name), summary) for name, summary in named.items()])


def saes() -> str:
    rows = [(code(name), one.summary, code(one.model)) for name, one in zoo.SAES.items()]
    return markdown(("SAE", "what it is", "of the model"), rows)


def tasks() -> str:
    """Tasks with a description of their own in a table, then those that another library generates."""
    named = task_names()
    many = [what for what, count in Counter(named.values()).items() if count > 1]
    rows = [(code(name), what) for name, what in named.items() if what not in many]
    alike = [f"{what}: {', '.join(code(name) for name in named if named[name] == what)}." for what in many]
    return "\n\n".join([markdown(("task", "what it is"), rows), *(text[0].upper() + text[1:] for text in alike)])


def analyses() -> str:
    rows = [
        (one.about, code(name), "runs" if one.takes_runs else "a model", one.summary, one.paper)
        for name, one in ANALYSES.items()
    ]
    return markdown(("about", "analysis", "of", "what it shows", "paper (arXiv)"), rows)


def figures() -> str:
    rows = [(code(name), first_line(make)) for name, make in FIGURES.items()]
    return markdown(("figure", "what it shows"), rows)


def first_line(of: object) -> str:
    return (inspect.getdoc(of) or "").split("\n\n")[0].replace("\n", " ")


def presets() -> str:
    return "\n".join(page(name, preset(name)) for name in completion.presets())


def reward_table() -> str:
    """The table at the head of the module."""
    found = re.search(r"(?:^\|.*\n)+", inspect.getdoc(rewards) or "", re.M)
    if found is None:
        raise SystemExit("the head of elicit/training/rl/rewards.py has no table of rewards")
    return found.group().strip()


def engines() -> str:
    kinds = {"engine": ENGINES, "backend": BACKENDS}
    return markdown(("what", "names"), [(kind, ", ".join(map(code, names))) for kind, names in kinds.items()])


def verdict(claim: Claim) -> str:
    """After a link to a claim: what was found last."""
    record = kept(claim)
    return f", *{record.stands}*" if record else ""


def commands() -> str:
    """Every command: what it does, how it is called, its options."""
    parts = []
    for words, command in leaves(typer.main.get_command(app), ["elicit"]):
        names = [name_of(one) if one.required else f"[{name_of(one)}]" for one in command.params if is_argument(one)]
        usage = " ".join([*words, *names, "[options]"])
        rows = [row(one) for one in command.params if one.name != "help"]
        head = f"## {' '.join(words[1:])}\n\n{command.help}\n\n```text\n{usage}\n```"
        parts.append(f"{head}\n\n{markdown(('option', 'default', 'what it is'), rows)}")
    return "\n\n".join(parts)


def leaves(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, one in command.commands.items():
        yield from leaves(one, [*words, name])


def is_argument(one: Any) -> bool:
    return str(one.param_type_name) == "argument"


def name_of(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def row(one: Any) -> tuple[str, str, str]:
    names = ", ".join(map(code, [name_of(one)] if is_argument(one) else [*one.opts, *one.secondary_opts]))
    default = "" if one.default is None or callable(one.default) or one.default is False else code(one.default)
    return names, default, (getattr(one, "help", "") or "").replace("<", "&lt;")


def main() -> None:
    lists = {
        "methods": methods, "models": models, "saes": saes, "tasks": tasks, "analyses": analyses, "figures": figures,
        "rewards": reward_table, "engines": engines, "commands": commands,
        "presets": presets,
        "hook-points": hook_points.hook_points, "namings": hook_points.about,
        "hook-points-by-architecture": hook_points.by_architecture,
    }  # fmt: skip
    made = {f"list: {name}": make() for name, make in lists.items()}
    made |= {f"verdict: {name}": verdict(one) for name, one in claims().items()}
    made |= {f"options: {name}": options(name) for name in METHODS if name not in BASELINES}
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
