"""Where the code writes to a terminal, a page, a figure or a spreadsheet: found in its syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import elicit
import probes
import steering

ROOT = Path(elicit.__file__).parents[1]
PACKAGES = tuple(Path(str(one.__file__)).parent for one in (elicit, probes, steering))
EXPERIMENTS = ROOT / "experiments"

TERMINAL = {"print", "Console", "Progress", "TextColumn", "echo", "secho", "rprint", "Live", "Panel", "Markdown"}
STREAMS = {"sys.stdout.write", "sys.stderr.write", "sys.stdout.writelines", "sys.stderr.writelines", "os.write"}
SPREADSHEETS = {"csv.writer", "csv.DictWriter"}
OTHER_PAGES = {"write_html", "to_html", "to_csv", "to_excel", "to_clipboard", "_repr_html_", "HTML", "Markup"}
ESCAPES = {"html.escape", "escape", "xml.sax.saxutils.escape", "markupsafe.escape"}
ELEMENTS = (
    "a|b|body|br|button|circle|code|details|div|extra|figure|form|h[1-4{]|head|header|html|i|iframe|img|input|label|li|line|"
    "link|main|meta|nav|noscript|ol|option|p|pre|rect|script|section|select|span|strong|style|sub|summary|sup|svg|table|"
    "tbody|td|text|th|thead|title|tr|ul"
)
TAG = re.compile(rf"</?(?:{ELEMENTS}|!doctype)(?=[\s>/{{]|$)", re.I)


def files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(folder.rglob("*.py"))


@cache
def nodes(*folders: Path) -> list[tuple[str, ast.AST]]:
    """All nodes of all files, each with its place, as `elicit/cli/lines.py:say`."""
    return [
        (f"{file.relative_to(ROOT).as_posix()}:{where or 'module'}", node)
        for file in files(*folders)
        for where, node in _within(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call | ast.FunctionDef | ast.Constant | ast.JoinedStr)
    ]


EVERYWHERE = (*PACKAGES, EXPERIMENTS)


def calls(names: set[str], *folders: Path) -> set[str]:
    """Each function that calls one of these; of what makes other pages the last part of the name decides."""
    found = set()
    for place, node in nodes(*folders):
        if isinstance(node, ast.Call):
            last = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if last in names & OTHER_PAGES or ast.unparse(node.func) in names:
                found.add(place)
    return found


def defines(names: set[str], *folders: Path) -> set[str]:
    """Each function of one of these names."""
    return {place for place, node in nodes(*folders) if isinstance(node, ast.FunctionDef) and node.name in names}


def documents() -> set[str]:
    """Each function that begins a document or writes a script of one."""
    begins = re.compile(r"<!doctype|<html|<script", re.I)
    return {
        place
        for place, node in nodes(*EVERYWHERE)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and begins.search(node.value)
    }


def put_into_tags() -> set[tuple[str, str]]:
    """What is put into texts that hold a tag, as (function, expression); numbers with a format of theirs aside."""
    found = set()
    for place, node in nodes(*EVERYWHERE):
        if not isinstance(node, ast.JoinedStr):
            continue
        held = "".join(str(part.value) if isinstance(part, ast.Constant) else "{" for part in node.values)
        if TAG.search(held) and "(?" not in held:  # "(?": a pattern
            put = [part for part in node.values if isinstance(part, ast.FormattedValue) and not _number(part)]
            found |= {(place, ast.unparse(part.value)) for part in put}
    return found


def _number(part: ast.FormattedValue) -> bool:
    """Whether it is written as a number, which no text can be."""
    spec = ast.unparse(part.format_spec)[2:-1] if part.format_spec else ""
    return bool(re.fullmatch(r"[+,.\d]*[defg%]", spec))


def _within(tree: ast.AST, where: str = "") -> Iterator[tuple[str, ast.AST]]:
    """All nodes, each with the functions and classes it stands in."""
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        inner = f"{where}.{node.name}".lstrip(".") if named else where  # type: ignore[attr-defined]
        yield inner, node
        yield from _within(node, inner)
