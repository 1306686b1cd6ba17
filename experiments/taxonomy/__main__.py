"""Kinds × poolings × layers of a taxonomy, scored against the true behaviours of an organism's thoughts.

    python -m experiments.taxonomy

Every row is fitted on all sentences, without labels, and scored on those sentences alone that the supervised probe is
scored on: AMI over all of them, and within equal wording and within equal position. The claim to be met is a row at
least half-way between the bench's k-means baseline and its probe in both of the latter ("half-way": how far it came).

Which row to believe may not be read off the scores, which are made with labels: "agreement" is the held-out agreement
of two halves of the thoughts (steering/categories/agreement.py), which needs none, and the row that it alone would
choose is named below the table. All rows go to JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from elicit.analysis.organisms.behaviour_bench import check_names, discover, pooled, supervised
from elicit.analysis.organisms.behaviour_scores import Corpus, conditional, corpus, score
from elicit.cli.terminal import out
from elicit.models import load_model
from elicit.tasks.organism.language import BEHAVIOURS
from experiments.command import called
from experiments.markdown import markdown
from probes.errors import UserError
from probes.files import write_whole
from probes.sites import Site, depth
from steering.categories import taxonomy
from steering.categories.agreement import agreement
from steering.categories.sentences import texts_of

KINDS = ",".join(taxonomy.KINDS)
ALONE = "mean,first,last,chosen,step,mean-token,next"
READ = f"{ALONE},mean/thought,first/thought,mean-token/thought,next/thought,first+last"
WITHIN = ("wording", "position")
HEAD = ("layer", "read", "kind", "AMI", *(f"AMI within {name}" for name in WITHIN), "half-way", "agreement")


def scored(labels: Sequence[Any], thoughts: Corpus, among: Sequence[int]) -> dict[str, float]:
    """AMI of all labels on some sentences, over all of them and within each stratum."""
    truth = [thoughts.truth[i] for i in among]
    kept = [labels[i] for i in among]
    row = {"ami": score(kept, truth).ami}
    for name in WITHIN:
        within = conditional(kept, truth, [thoughts.strata[name][i] for i in among])
        if within is None:
            raise UserError(f"no {name} has ten scored sentences of two behaviours; give more thoughts")
        row[name] = within
    return row


def half_way(row: dict[str, Any], floor: dict[str, float], ceiling: dict[str, float]) -> float:
    """The smaller fraction, of wording and position, of the way from the baseline to the probe."""
    return min((row[name] - floor[name]) / (ceiling[name] - floor[name]) for name in WITHIN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-thinking")
    parser.add_argument("--thoughts", type=int, default=300)
    parser.add_argument("--layers", default="", help="unless given: a third, a half, two thirds, five sixths, the last")
    parser.add_argument("--kinds", default=KINDS)
    parser.add_argument("--read", default=READ)
    parser.add_argument("--clusters", type=int, default=len(BEHAVIOURS))
    parser.add_argument("--splits", type=int, default=1, help="of the held-out agreement; 0 leaves it out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/taxonomy.json"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    kinds, poolings = given.kinds.split(","), given.read.split(",")
    check_names(kinds, poolings)
    model = load_model(given.model)
    layers_there = depth(model.lm)
    baseline = round(layers_there * 2 / 3)  # where the bench reads unless another is asked for
    shares = (1 / 3, 1 / 2, 2 / 3, 5 / 6, 1)
    layers = [int(n) for n in given.layers.split(",") if n] or sorted(
        {min(layers_there - 1, round(layers_there * s)) for s in shares}
    )
    thoughts = corpus(model.tokenizer, given.thoughts, seed=given.seed)
    began = time.perf_counter()
    values = pooled(model.lm, thoughts, sorted({*layers, baseline}), sorted({*poolings, "mean"}))
    out.print(f"{len(thoughts.sentences)} sentences read in {time.perf_counter() - began:.0f} s", style="dim")

    mean = values[baseline, "mean"].numpy()
    among, said = supervised(mean, thoughts, given.seed)
    predicted = dict(zip(among, said, strict=True))
    ceiling = scored([predicted.get(i) for i in range(len(thoughts.sentences))], thoughts, among)
    floor = scored(discover(mean, given.clusters, given.seed).tolist(), thoughts, among)
    if any(ceiling[name] <= floor[name] for name in WITHIN):
        raise UserError(f"the probe ({ceiling}) is not above the baseline ({floor}); give more thoughts")
    text, rows = texts_of(thoughts.spans), []
    for layer in layers:
        for name in poolings:
            x = values[layer, name]
            for kind in kinds:
                site = Site(layer)
                found = taxonomy.fit(x, kind, given.clusters, given.seed, site=site, reading=name)
                row: dict[str, Any] = {"layer": layer, "read": name, "kind": kind}
                row |= scored(found.labels(x).tolist(), thoughts, among)
                row["half-way"] = half_way(row, floor, ceiling)
                if given.splits:
                    row["agreement"] = agreement(
                        x, text, kind, given.clusters, site=site, reading=name, seed=given.seed, splits=given.splits
                    ).held_out
                rows.append(row)
    rows.sort(key=lambda row: -row["half-way"])

    def shown(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(f"{v:.2f}" if isinstance(v := row.get(key, ""), float) else str(v) for key in keys)

    keys = ("layer", "read", "kind", "ami", *WITHIN, "half-way", "agreement")
    fixed = [
        {"layer": baseline, "read": "mean", "kind": "the bench's k-means", **floor, "half-way": 0.0},
        {"layer": baseline, "read": "mean", "kind": "supervised probe", **ceiling, "half-way": 1.0},
    ]
    print(markdown(HEAD, [shown(row) for row in [*fixed, *rows]]))
    if given.splits:
        chosen = max(rows, key=lambda row: row["agreement"])
        out.print(f"\nwithout labels one would choose: {' '.join(shown(chosen))}")
        out.print(f"rank correlation of agreement and half-way: {rank_correlation(rows):.2f}")
    out.print(
        f"{given.model} {model.provenance.sha256[:12]}…, {given.thoughts} thoughts, {len(among)} sentences "
        f"scored, {given.clusters} categories, seed {given.seed}, {time.perf_counter() - began:.0f} s",
        style="dim",
    )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    about = {"model": model.describe(), "thoughts": given.thoughts, "clusters": given.clusters, "seed": given.seed}
    kept = {**about, "floor": floor, "ceiling": ceiling, "rows": rows}
    write_whole(given.out, json.dumps(kept, indent=2))


def rank_correlation(rows: Sequence[dict[str, Any]]) -> float:
    """Spearman's, over the rows."""
    from scipy.stats import spearmanr

    return float(spearmanr([r["agreement"] for r in rows], [r["half-way"] for r in rows]).statistic)


if __name__ == "__main__":
    called("taxonomy", main)
