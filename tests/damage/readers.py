"""Where the code opens JSON, TOML, YAML, safetensors, GGUF, Parquet, npz and zips: found in its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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
    "": {"load_file", "safe_open", "GGUFReader", "ZipFile", "read_parquet"},
}  # by the name of the module that the call begins with
PACKAGES = tuple(Path(str(one.__file__)).parent for one in (elicit, probes, steering))


def found() -> set[str]:
    """Each function that opens one of these formats, as `elicit/sweeps/plan.py:read`."""
    return {reader for package in PACKAGES for file in package.rglob("*.py") for reader in _in(file)}


def _in(file: Path) -> Iterator[str]:
    place = file.relative_to(ROOT).as_posix()
    for where, node in _calls(ast.parse(file.read_text(encoding="utf-8")), []):
        if _opens(node.func) and not _own_text(node):
            yield f"{place}:{where or 'module'}"


def _calls(node: ast.AST, within: list[str]) -> Iterator[tuple[str, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        inner = [*within, child.name] if named else within
        if isinstance(child, ast.Call):
            yield ".".join(within), child
        yield from _calls(child, inner)


def _opens(called: ast.expr) -> bool:
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        return called.attr in OPENS.get(called.value.id, set())
    return isinstance(called, ast.Name) and called.id in OPENS[""]


def _own_text(node: ast.Call) -> bool:
    """`json.loads(json.dumps(…))`: a copy of what is there already."""
    return (
        bool(node.args) and isinstance(node.args[0], ast.Call) and ast.unparse(node.args[0]).startswith("json.dumps(")
    )
