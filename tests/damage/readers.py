"""Where the code opens JSON, TOML, YAML, safetensors, GGUF, Parquet, npz and zips: found in its syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import elicit
import probes
import steering

ROOT = Path(elicit.__file__).parents[1]
OPENS = {
    "json": {"load", "loads"},
    "tomllib": {"load", "loads"},
    "yaml": {"load", "safe_load"},
    "np": {"load"},
    "pq": {"ParquetFile", "read_table", "read_schema", "read_metadata"},
    "pd": {"read_parquet", "read_csv", "read_json"},
    "*": {"from_pretrained"},
    "": {"load_file", "safe_open", "GGUFReader", "ZipFile", "read_parquet", "read_json"},
}  # by the name of the module that the call begins with; "*": whatever it begins with
PACKAGES = tuple(Path(str(one.__file__)).parent for one in (elicit, probes, steering))


def found() -> set[str]:
    """Each function that opens one of these formats, as `elicit/sweeps/plan.py:read`."""
    return {reader for package in PACKAGES for file in package.rglob("*.py") for reader in _in(file)}


def _in(file: Path) -> set[str]:
    text = file.read_text(encoding="utf-8")
    if not any(f"{name}(" in text for names in OPENS.values() for name in names):
        return set()
    visitor = _Calls()
    visitor.visit(ast.parse(text))
    return {f"{file.relative_to(ROOT).as_posix()}:{where or 'module'}" for where in visitor.found}


class _Calls(ast.NodeVisitor):
    """Functions in which one of these calls stands, by their path in the module."""

    def __init__(self) -> None:
        self.within: list[str] = []
        self.found: set[str] = set()

    def _named(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.within.append(node.name)
        self.generic_visit(node)
        self.within.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _named

    def visit_Call(self, node: ast.Call) -> None:
        if _opens(node.func) and not _own_text(node):
            self.found.add(".".join(self.within))
        self.generic_visit(node)


def _opens(called: ast.expr) -> bool:
    if isinstance(called, ast.Attribute) and called.attr in OPENS["*"]:
        return True
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        return called.attr in OPENS.get(called.value.id, set())
    return isinstance(called, ast.Name) and called.id in OPENS[""]


def _own_text(node: ast.Call) -> bool:
    """`json.loads(json.dumps(…))`: a copy of what is there already."""
    return (
        bool(node.args) and isinstance(node.args[0], ast.Call) and ast.unparse(node.args[0]).startswith("json.dumps(")
    )
