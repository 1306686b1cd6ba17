"""The documentation against the code: commands, options, names, messages, the navigation; and the check of the site.

The site itself is built by `make docs`, strictly, and its pages are then checked by docs/site/check.py.
"""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import elicit
from elicit.analysis import ANALYSES
from elicit.cli.app import app
from elicit.cli.options import PROMPT_DETAILS
from elicit.methods import METHODS, options_of

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "site"
# Cards of what is shipped, which no page of the site is.
LEFT_OUT = ("elicit/models/shipped", "experiments/selects_or_creates/small/")
FENCE = re.compile(r"^[ ]*```(\w+)\n(.*?)^[ ]*```", re.M | re.S)


NAVIGATION: list[str] = runpy.run_path(str(SITE / "navigation.py"))["navigation"]()
WRITTEN = [page for page in NAVIGATION if (ROOT / page).is_file()]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[str]:
    return [code for language, code in FENCE.findall(text_of(page)) if language in languages]


def test_every_page_is_in_the_navigation_once_and_is_there() -> None:
    assert len(set(NAVIGATION)) == len(NAVIGATION)
    notebooks = {str(path.relative_to(ROOT).with_suffix(".md")) for path in ROOT.glob("experiments/notebooks/*.ipynb")}
    assert set(NAVIGATION) - set(WRITTEN) == notebooks
    folders = ("docs", "elicit", "probes", "steering", "experiments", "findings")
    there = {str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.md")}
    assert {page for page in there if not page.startswith(LEFT_OUT)} <= set(NAVIGATION)


def commands(page: str) -> Iterator[list[str]]:
    """The `elicit …` of a page's shell blocks, as words."""
    for block in blocks(page, "sh", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = next((n for n, word in enumerate(words) if word.endswith(";") or word == ";"), len(words))
                one, words = [word.rstrip(";") for word in words[: end + 1]], words[end + 1 :]
                if "elicit" in one[:2] or ("-m" in one and "elicit" in one):
                    yield [word for word in one[one.index("elicit") + 1 :] if word]


def parsed(words: list[str]) -> dict[str, Any]:
    """The command's name and parameters; an unknown command or option raises."""
    command, context, rest = typer.main.get_command(app), None, words
    name = "elicit"
    while True:
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "commands"):
            return {"command": name, **context.params}
        left = [*context._protected_args, *context.args]
        if not left and command.invoke_without_command:  # the group is a command by itself
            return {"command": name, **context.params}
        name, command, rest = command.resolve_command(context, left)


@pytest.mark.parametrize("page", [page for page in WRITTEN if list(commands(page))])
def test_every_command_that_a_page_shows_is_one(page: str) -> None:
    for words in commands(page):
        if words[0].startswith("--"):  # of the program itself, like --install-completion
            continue
        given = parsed(words)
        known: dict[str, Any] = {}
        if given["command"] == "run":
            known = options_of(given["method"])
        elif given["command"] == "analyse":
            assert given["name"] in ANALYSES, words
            known = ANALYSES[given["name"]].options
        assert set(filter(None, (given.get("methods") or "").split(","))) <= {*METHODS, "all"}, words
        for pair in given.get("setting") or []:
            of_prompt = pair.partition("=")[0] in PROMPT_DETAILS or pair.startswith("template.")
            assert of_prompt or pair.partition("=")[0] in known, (words, sorted(known))


def test_a_command_that_does_not_exist_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed(["run", "--methods", "cot-decoding"])
    with pytest.raises(Exception, match="No such command"):
        parsed(["evaluate"])


@pytest.mark.parametrize("page", [page for page in WRITTEN if blocks(page, "python")])
def test_python_on_a_page_compiles_and_what_it_imports_is_there(page: str) -> None:
    own = ("opening_word", "answer_length", "my_engines")  # what the page itself writes
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module not in own:
                module = importlib.import_module(node.module)
                for one in node.names:
                    assert hasattr(module, one.name) or importlib.import_module(f"{node.module}.{one.name}"), one.name


def documented() -> set[str]:
    """The objects that the pages of the API name, by their paths; a module without members stands for all it holds."""
    out: set[str] = set()
    for page in (ROOT / "docs" / "api").glob("*.md"):
        for found in re.finditer(r"^::: (\S+)\n((?:[ ]{4}.*\n)*)", page.read_text(encoding="utf-8") + "\n", re.M):
            given = yaml.safe_load(found[2]) or {}
            members = given.get("options", {}).get("members", ())
            out |= {f"{found[1]}.{name}" for name in members} or {found[1]}
    return out


def thing(path: str) -> Any:
    names = path.split(".")
    for cut in range(len(names), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(names[:cut]))
        except ModuleNotFoundError:
            continue
        for name in names[cut:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


def test_the_api_names_what_exists_and_all_that_the_faces_export() -> None:
    paths = documented()
    for path in paths:
        thing(path)
    faces = ("models", "tasks", "decoding", "training", "evaluation", "report", "analysis", "methods")
    public = {name: getattr(elicit, name) for name in elicit.__all__}
    for face in faces:
        module = importlib.import_module(f"elicit.{face}")
        exported = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
        public |= {name: getattr(module, name) for name in exported}
    for name, value in public.items():
        if isinstance(value, type) or callable(value):
            home = f"{value.__module__}.{value.__qualname__}"
            assert home in paths or value.__module__ in paths or name in NOT_SHOWN, home


NOT_SHOWN = ("plain", "current", "lacking", "with_budget")  # what the suite's own floors share


def test_the_pages_refer_to_objects_that_exist() -> None:
    for page in WRITTEN:
        for path in re.findall(r"\]\[((?:elicit|probes|steering)\.[\w.]+)\]", text_of(page)):
            thing(path)


def messages() -> list[str]:
    """The texts of all errors, with … for what is put in."""
    out = []
    for folder in ("elicit", "probes", "steering"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr | ast.BinOp):
                    out.append("".join(_texts(node)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    out.append(node.value)
    return out


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield value.value if isinstance(value, ast.Constant) else "…"
    elif isinstance(node, ast.BinOp):
        yield from _texts(node.left)
        yield from _texts(node.right)
    elif isinstance(node, ast.Constant):
        yield str(node.value)


def test_the_symptoms_are_messages_of_the_code() -> None:
    headings = re.findall(r"^### `(.+)`$", text_of("docs/symptoms.md"), re.M)
    known = messages()
    assert len(headings) > 25
    patterns = [re.compile(".*?".join(map(re.escape, heading.split("…"))), re.S) for heading in headings]
    assert not [one.pattern for one in patterns if not any(one.search(message) for message in known)]


def test_the_check_of_the_site_finds_what_is_wrong(tmp_path: Path) -> None:
    check = runpy.run_path(str(SITE / "check.py"))["faults"]
    assert "holds no page" in check(tmp_path)[0]
    page = "<html><head><title>T</title></head><body><h1 id='a'>A</h1>{}</body></html>"
    (tmp_path / "b.html").write_text(page.format(""))

    def found(body: str) -> list[str]:
        (tmp_path / "a.html").write_text(page.format(body))
        return [line.partition(": ")[2] for line in check(tmp_path)]

    assert found("<a href='b.html#a'>b</a><a href='#a'>a</a><a href='https://arxiv.org'>there</a>") == []
    assert found("<a href='b.html#z'>b</a>") == ["b.html#z leads to no anchor of b.html"]
    assert found("<a href='c.html'>c</a>") == ["c.html leads to no file"]
    assert found("<script src='https://cdn.example/x.js'></script>") == [
        "https://cdn.example/x.js is fetched from elsewhere"
    ]
    assert found("<style>@import url(//fonts.example/f.css)</style>") == [
        "//fonts.example/f.css is fetched from elsewhere"
    ]
    assert found("<img src='x.png' alt='x'>") == ["x.png is not there"]
    assert found("<!-- list: methods -->") == ["'<!-- list:' was to be replaced"]
    assert found("<math><mi>\\arg</mi></math>") == ["'\\\\arg' was to be replaced"]
    assert found("see [fit][elicit.methods.fit] and $$x$$")[0] == "'][elicit.methods.fit]' was to be replaced"
