#!/usr/bin/env bash
# mergekit 0.1.5: `sce` and `model_stock` stop doing what they are for where the models' changes are small: they have thresholds in
# units of the weights.
#
# Documented: SCE's weights "are derived from the mean of the squares of the elements within each task vector and are normalized across
# the models"; of Model Stock "task vectors … are used to calculate pairwise cosine similarities". Neither hangs on the scale. Seen:
# where the mean squares of the changes add up to less than 1e-6 (of two models a root mean square of 0.0007), SCE gives all models the
# same weight; Model Stock divides by the norms' product or 1e-6, if that is larger, so that short changes (each row's with filter_wise,
# the norms' and biases' without) have a cosine near 0, and the merge is the base model. Nothing is said. For a user: merges of models
# that were fine-tuned gently or by RL are an average, or the base model, where SCE and Model Stock are written in the configuration.
# Output, 2026-11-30:
#     mergekit 0.1.5, two models, one changed three times as much: weight of that one by SCE, due 0.897; share of a change that both models have after Model Stock (whole tensor, row by row, tensor of one row), due 1
#     changes of about 1e-01: SCE 0.897, Model Stock 1.000 1.000 1.000
#     changes of about 1e-02: SCE 0.897, Model Stock 1.000 1.000 1.000
#     changes of about 1e-03: SCE 0.897, Model Stock 1.000 1.000 1.000
#     changes of about 1e-04: SCE 0.500, Model Stock 1.000 0.350 0.405
#     changes of about 1e-05: SCE 0.500, Model Stock 0.239 0.004 0.005
#     changes of about 1e-06: SCE 0.500, Model Stock 0.003 0.000 0.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 pydantic==2.14.3
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps mergekit==0.1.5
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from mergekit.merge_methods import merge_tensors

chance = torch.Generator().manual_seed(0)
base = torch.randn(64, 64, generator=chance, dtype=torch.float64)
changes = [torch.rand(64, 64, generator=chance, dtype=torch.float64) for _ in range(2)]  # of one sign, so that SCE erases nothing
squares = [float(change.square().mean()) * scale**2 for change, scale in zip(changes, (3, 1))]
print(f"mergekit {version('mergekit')}, two models, one changed three times as much: weight of that one by SCE, due {squares[0] / sum(squares):.3f}; "
      "share of a change that both models have after Model Stock (whole tensor, row by row, tensor of one row), due 1")
seen = {}
for size in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
    large, small = 3 * size * changes[0], size * changes[1]
    merged = merge_tensors([base, base + large, base + small], "sce", base_index=0) - base
    both = torch.stack([large.flatten(), small.flatten()], 1)
    weight = float(torch.linalg.lstsq(both, merged.flatten()[:, None]).solution[0])
    same, shares = base + size * changes[0], []
    for rows, wise in ((64, False), (64, True), (1, False)):
        stock = merge_tensors([base[:rows], same[:rows], same[:rows]], "model_stock", base_index=0, parameters={"filter_wise": wise}) - base[:rows]
        shares.append(float((stock / (same - base)[:rows]).mean()))
    seen[size] = weight, shares
    print(f"changes of about {size:.0e}: SCE {weight:.3f}, Model Stock " + " ".join(f"{share:.3f}" for share in shares))
due = squares[0] / sum(squares)
right = abs(seen[1e-1][0] - due) < 1e-3 and all(abs(share - 1) < 1e-6 for share in seen[1e-1][1])
wrong = abs(seen[1e-4][0] - 0.5) < 1e-3 and max(seen[1e-5][1][1:]) < 0.1
raise SystemExit(0 if right and wrong else 1)  # 1: it has been mended
PYTHON
