"""Which documents does the filter of next-token reasoning (RPT, arXiv 2506.08007) keep, and does it drop what matters?

    python -m experiments.filtered_positions kept        # entropies and kept fractions by kind: forward passes alone
    python -m experiments.filtered_positions influence   # claim 17's documents: influence beside what is kept of each
    python -m experiments.filtered_positions figure      # both as one figure, and the tables

Each part writes what it found beside this file; `figure` reads it. The rule stands in `measures.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from elicit import load_model, load_task
from elicit.analysis.internals import influence as claim_17
from elicit.evaluation.metrics.format import with_interval
from elicit.models import Model
from elicit.training.recipe import Recipe
from elicit.training.rl.next_token import entropies
from experiments.claims.proxy_filter.documents import BARE, UNRELATED, WORKED, mixed
from experiments.claims.rules import Judgement
from experiments.command import called
from experiments.figure import as_kept
from experiments.filtered_positions.measures import (
    PRIMARY,
    THRESHOLDS,
    Entropies,
    bounds_of,
    by_kind,
    by_part,
    dropped,
    kept,
    shift,
    shifts_of,
)
from experiments.markdown import markdown
from probes.encoding import encoded
from probes.errors import UserError
from probes.figures import styled
from probes.files import write_whole
from probes.sweep import COLOURS
from steering.adapters import borrowed

HERE = Path(__file__).parent
PARTS = {WORKED: "solution", BARE: "answer", UNRELATED: "", claim_17.FACTS: "answer", claim_17.PROCEDURES: "solution"}


def measure_kept(given: argparse.Namespace) -> None:
    """The entropies of the proxy in documents of the organisms' tasks."""
    model = load_model(given.model, dtype="float32")
    documents = mixed(model, load_task("organism", limit=given.documents), given.documents, given.seed)
    ids = [encoded(model.tokenizer, one.text) for one in documents]
    asked = [len(encoded(model.tokenizer, one.text[: one.asked])) if one.asked else 1 for one in documents]
    values = entropies(model.lm, ids)
    found = [
        Entropies(one.kind, PARTS[one.kind], some, first - 1)
        for one, some, first in zip(documents, values, asked, strict=True)
    ]
    _write("kept", given, model, {"parts": by_part(found, given.seed), "kinds": by_kind(found)})


def measure_influence(given: argparse.Namespace) -> None:
    """Influence of claim 17's documents, trained on as there, and what the filter keeps of each.

    The proxy reads them before the training, as the base that it is.
    """
    model = load_model(given.model, dtype="float32")
    docs, asked = claim_17.texts(model, given.influence_documents, given.queries, given.seed)
    examples = [doc.example for doc in docs]
    values = entropies(model.lm, [[*one.prompt, *one.target] for one in examples])
    found = [
        Entropies(doc.kind, PARTS[doc.kind], some, len(doc.example.prompt) - 1)
        for doc, some in zip(docs, values, strict=True)
    ]
    recipe = Recipe(steps=given.steps, rows=4, width=320, part=4, lr=2e-3, warmup=1, rank=4, seed=given.seed)
    with tempfile.TemporaryDirectory() as folder, borrowed(model.lm):
        claim_17.fine_tune(model.lm, examples, recipe, Path(folder) / "all")
        scores = claim_17.scores(
            model.lm, examples, [query.example for query in asked], layers=given.layers, seed=given.seed
        )  # fmt: skip
    kinds = {kind: np.flatnonzero([query.kind == kind for query in asked]) for kind in claim_17.KINDS}
    fractions = {h: np.array([kept(one.values, h) for one in found]) for h in THRESHOLDS}
    procedures = np.array([doc.kind == claim_17.PROCEDURES for doc in docs])
    primary = fractions[PRIMARY]
    condition = dropped(shift(scores[kinds[claim_17.PROCEDURES]], primary), bounds_of(primary), given.seed)
    rows = [
        {"kind": doc.kind, "kept": {str(h): float(fractions[h][n]) for h in THRESHOLDS},
         "influence": {kind: float(scores[places, n].mean()) for kind, places in kinds.items()}}
        for n, doc in enumerate(docs)
    ]  # fmt: skip
    data = {
        "parts": by_part(found, given.seed), "kinds": by_kind(found), "documents": rows,
        "shifts": {str(h): shifts_of(scores, kinds, fractions[h], procedures, given.seed) for h in THRESHOLDS},
        "judged": Judgement((condition,)).to_dict(),
    }  # fmt: skip
    _write("influence", given, model, data)


def _write(name: str, given: argparse.Namespace, model: Model, data: dict[str, Any]) -> None:
    asked = {key: value for key, value in vars(given).items() if key not in ("part", "threads")}
    record = {"model": model.describe(), "settings": asked, "made": time.strftime("%Y-%m-%d"), **data}
    write_whole(HERE / f"{name}.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    print(f"written: {name}.json; now: python -m experiments.filtered_positions figure")


def show(given: argparse.Namespace) -> None:
    """The tables, the verdict and the figure."""
    found = {name: _read(name) for name in ("kept", "influence")}
    head = ("documents, part", "documents", "positions", "entropy, nats: quarter, half, three quarters",
            *(f"kept at {h:g} nats, % [95%]" for h in THRESHOLDS))  # fmt: skip
    rows = [
        (row["part"], str(row["documents"]), f"{row['positions']:,}", ", ".join(f"{v:.2f}" for v in row["entropy"]),
         *(_interval(row["kept"][str(h)]) for h in THRESHOLDS))
        for one in found.values() for row in one["parts"]
    ]  # fmt: skip
    print(f"\n{markdown(head, rows)}\n")
    head = ("queries of", "n", "nats", "kept of what matters less all, points [95%]", "among procedures alone [95%]")
    rows = [
        (kind, str(row["queries"]), h, _interval(row["all"]), _interval(row["within"]))
        for h, kinds in found["influence"]["shifts"].items() for kind, row in kinds.items()
    ]  # fmt: skip
    print(f"{markdown(head, rows)}\n")
    judged = Judgement.from_dict(found["influence"]["judged"])
    print(f"The filter drops the documents that matter: {judged.verdict}: {judged.reason}")
    figure = as_kept(styled(drawn(found["kept"], found["influence"])))
    write_whole(HERE / "figure.json", json.dumps(figure, allow_nan=False) + "\n")


def drawn(documents: dict[str, Any], beside: dict[str, Any]) -> go.Figure:
    """At the left the fraction kept by part of a document, at the right influence over the fraction kept of each."""
    figure = go.Figure()
    parts = [row for one in (documents, beside) for row in one["parts"]]
    for n, h in enumerate(map(str, THRESHOLDS)):
        figure.add_bar(
            y=[row["part"] for row in parts], x=[row["kept"][h]["mean"] for row in parts], orientation="h",
            name=f"kept at {h} nats", marker_color=COLOURS[n],
            error_x={"type": "data", "symmetric": False,
                     "array": [row["kept"][h]["high"] - row["kept"][h]["mean"] for row in parts],
                     "arrayminus": [row["kept"][h]["mean"] - row["kept"][h]["low"] for row in parts]},
        )  # fmt: skip
    for n, kind in enumerate((claim_17.FACTS, claim_17.PROCEDURES)):
        some = [row for row in beside["documents"] if row["kind"] == kind]
        figure.add_scatter(
            x=[row["kept"][str(PRIMARY)] for row in some], y=[row["influence"][claim_17.PROCEDURES] for row in some],
            mode="markers", name=f"{kind}: one document", xaxis="x2", yaxis="y2",
            marker={"color": COLOURS[len(THRESHOLDS) + n], "size": 8},
        )  # fmt: skip
    figure.update_layout(
        title="What the filter keeps, and the documents that matter", height=560, barmode="group",
        xaxis={"domain": [0, 0.4], "title": "fraction of positions kept", "range": [0, 1]},
        yaxis={"autorange": "reversed"},
        xaxis2={"domain": [0.58, 1], "title": f"fraction of the document kept at {PRIMARY:g} nat", "anchor": "y2"},
        yaxis2={"anchor": "x2", "title": "mean influence on procedures"},
    )  # fmt: skip
    return figure


def _read(name: str) -> dict[str, Any]:
    file = HERE / f"{name}.json"
    if not file.is_file():
        raise UserError(f"{name}.json is not there; run python -m experiments.filtered_positions {name} first")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _interval(one: dict[str, float]) -> str:
    return with_interval(one["mean"], (one["low"], one["high"]))


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.filtered_positions", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parts = {"kept": measure_kept, "influence": measure_influence, "figure": show}
    parser.add_argument("part", choices=tuple(parts))
    parser.add_argument("--model", default="smollm2-135m", help="the proxy, and what claim 17 trains")
    parser.add_argument("--documents", type=int, default=96, help="worked, bare and unrelated, a third each")
    parser.add_argument("--influence-documents", type=int, default=32)
    parser.add_argument("--queries", type=int, default=12, help="of each kind")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    called("error", lambda: parts[args.part](args))


if __name__ == "__main__":
    main()
