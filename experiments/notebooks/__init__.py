"""Notebooks: run from top to bottom in a kernel of their own, as a reader would run them, and stored with outputs.

    python -m experiments.notebooks              # all of them
    python -m experiments.notebooks first_look   # one

What is stored holds sources, what was printed, tables and figures (as Plotly's data), and nothing of the machine.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PLOT = "application/vnd.plotly.v1+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebooks() -> list[Path]:
    return sorted(FOLDER.glob("*.ipynb"))


def run(path: Path, folder: Path, asked: str = "") -> tuple[NotebookNode, str]:
    """A notebook after its run in an empty folder, and what its kernel prints when it is asked `asked` at the end.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.append(nbformat.v4.new_code_cell(asked))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")}
    environment.pop("PLOTLY_RENDERER", None)
    client = NotebookClient(notebook, timeout=1800, startup_timeout=600, kernel_name="python3")
    client.execute(cwd=str(folder), env=environment)
    last = notebook.cells.pop()
    return notebook, "".join(output.get("text", "") for output in last.outputs)


def stored(notebook: NotebookNode) -> NotebookNode:
    """The notebook as it is kept: in one form, without progress bars and without anything of the machine."""
    notebook.metadata = METADATA
    for n, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{n}", {}
        if cell.cell_type == "code":
            cell.outputs = [_output(output) for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def _output(output: NotebookNode) -> NotebookNode:
    if "data" in output:
        output.metadata = {}
        if PLOT in output.data:
            output.data = {PLOT: {key: output.data[PLOT][key] for key in ("data", "layout")}}
    return output


def store(path: Path, notebook: NotebookNode) -> None:
    path.write_text(json.dumps(stored(notebook), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
