"""Notebooks are stored with outputs and nothing of the machine, and run from top to bottom as a reader runs them.

As long as they take a reader, so that all but the first are run by `make test-slow`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from experiments.notebooks import FOLDER, METADATA, PLOT, ROOT, notebooks, run, stored

# What the kernel is asked at the end.
FACTS = {
    "first_look": (
        "dict(arms=list(run.summary().index), right=run.summary().accuracy.to_dict(), branches=len(branches), "
        "oracle=run.metrics['readings']['oracle']['accuracy'], page=(run.folder / 'report.html').is_file())"
    ),
    "compare_on_an_organism": (
        "dict(rows=result['arms'], arms=[row['arm'] for row in result['arms']], "
        "pairs=[row['pair'] for row in overlap.table], formats=[row['arm'] for row in formats.table], "
        "page=page.read_text(encoding='utf-8'))"
    ),
    "your_own_mechanism": (
        "dict(arms=list(run.summary().index), right=run.summary().accuracy.to_dict(), "
        "lines=len(Path('mean_push.py').read_text().splitlines()), "
        "same=elicit.Elicited.load(bundle, model).interventions == handle.interventions)"
    ),
    "natural_model": (
        "dict(arms=list(run.metrics['arms']), separation=projection.separation, features=top, "
        "moved={n: d['tokens_moved'] for n, d in run.metrics['delivery'].items()})"
    ),
    "steering": (
        "dict(arms=list(run.metrics['arms']), moved={n: d['tokens_moved'] for n, d in run.metrics['delivery'].items()})"
    ),
}


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_notebooks_are_stored_with_outputs_and_nothing_of_the_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == METADATA
    assert notebook == stored(nbformat.read(path, as_version=4))
    for n, cell in enumerate(notebook.cells):
        assert cell.metadata == {} and cell.id == f"cell-{n}" and cell.source == cell.source.strip()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    said = json.dumps([cell.outputs for cell in code])
    assert PLOT in said and not [place for place in ("/tmp", "/root", "/home", "http") if place in said]
    assert len(said) < 2**20
    assert path.stem in FACTS and path.name in (ROOT / "README.md").read_text(encoding="utf-8")


def executed(name: str, folder: Path) -> tuple[NotebookNode, dict[str, Any]]:
    """The notebook after its run in an empty folder, and its facts."""
    asked = f"import json\nfrom pathlib import Path\nprint(json.dumps({FACTS[name]}, default=float))"
    notebook, said = run(FOLDER / f"{name}.ipynb", folder, asked)
    return notebook, json.loads(said)


def check_shown(notebook: NotebookNode, figures: int) -> None:
    """No error, the figures as data that Plotly's own extension draws, and nothing that is fetched."""
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [o for o in shown if o.output_type == "error"]
    data = [o.data for o in shown if "data" in o]
    assert sum(PLOT in one for one in data) == figures
    assert not [one for one in data if "http" in one.get("text/html", "")]


@pytest.mark.real
@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_first_look(tmp_path: Path) -> None:
    notebook, facts = executed("first_look", tmp_path)
    check_shown(notebook, figures=1)
    assert facts["arms"] == ["cot-decoding", "direct", "cot-prompt"] and facts["branches"] == 5 and facts["page"]
    assert facts["oracle"] >= facts["right"]["cot-decoding"] > facts["right"]["direct"]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compare_on_an_organism(tmp_path: Path) -> None:
    notebook, facts = executed("compare_on_an_organism", tmp_path)
    check_shown(notebook, figures=1)
    assert facts["arms"] == ["direct", "cot-prompt", "cot-decoding", "sae-steer"]
    direct, ceiling, *mechanisms = facts["rows"]
    assert direct["recovered"] == 0 and ceiling["recovered"] == 1
    assert all(row["recovered"] > 0 and row["difference"] > 0 for row in mechanisms)
    assert facts["pairs"] == ["cot-decoding & sae-steer"] and set(facts["formats"]) == set(facts["arms"]) - {"direct"}
    assert all(arm in facts["page"] for arm in facts["arms"]) and "<script src" not in facts["page"]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_your_own_mechanism(tmp_path: Path) -> None:
    notebook, facts = executed("your_own_mechanism", tmp_path)
    check_shown(notebook, figures=1)
    assert facts["arms"] == ["mean-push", "direct", "cot-prompt", "random push", "sign flipped"]
    assert facts["right"]["mean-push"] > max(facts["right"][name] for name in ("direct", "random push", "sign flipped"))
    assert facts["lines"] <= 32 and facts["same"]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_steering(tmp_path: Path) -> None:
    notebook, facts = executed("steering", tmp_path)
    check_shown(notebook, figures=2)
    steered = [arm for arm in facts["arms"] if arm in facts["moved"]]
    assert len(facts["arms"]) == 5 and len(steered) == 4 and all(facts["moved"][arm] > 0 for arm in steered)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_natural_model(tmp_path: Path) -> None:
    notebook, facts = executed("natural_model", tmp_path)
    check_shown(notebook, figures=4)
    assert facts["separation"] > 0.9 and len(facts["features"]) == 6
    steered = [arm for arm in facts["arms"] if arm in facts["moved"]]
    assert len(steered) == 12 and all(facts["moved"][arm] > 0 for arm in steered)
