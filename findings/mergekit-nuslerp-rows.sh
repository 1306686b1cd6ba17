#!/usr/bin/env bash
# mergekit 0.1.5: nuslerp_row_wise interpolates columns, and rows where it is not set.
#
# Documented: "nuslerp_row_wise (global): If true (and nuslerp_flatten is false), SLERPs row vectors instead of column vectors. Default
# false". Seen: with true each column is interpolated along its own arc, with false each row, and nothing is said. For a user: a
# merge that is to keep the directions of the neurons that read (rows of q, k, v, gate, up) keeps those of the inputs, and results that
# compare the two have their names swapped. What helps: set the other one.
# Output, 2026-11-30:
#     mergekit 0.1.5 largest difference from the interpolation of each row, of each column
#     nuslerp_row_wise=True  1.411345 0.000000
#     nuslerp_row_wise=False 0.000000 1.411345
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
one, other = (torch.randn(4, 6, generator=chance, dtype=torch.float64) for _ in range(2))
t = 0.25


def arc(a, b):
    """Spherical interpolation of two vectors."""
    angle = torch.arccos((a @ b) / a.norm() / b.norm())
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


rows = torch.stack([arc(a, b) for a, b in zip(one, other)])
columns = torch.stack([arc(a, b) for a, b in zip(one.T, other.T)]).T
print("mergekit", version("mergekit"), "largest difference from the interpolation of each row, of each column")
seen = {}
for setting in (True, False):
    merged = merge_tensors([one, other], "nuslerp", parameters={"weight": [1 - t, t], "nuslerp_flatten": False, "nuslerp_row_wise": setting})
    seen[setting] = [float((merged - right).abs().max()) for right in (rows, columns)]
    print(f"nuslerp_row_wise={setting!s:5} {seen[setting][0]:.6f} {seen[setting][1]:.6f}")
raise SystemExit(0 if seen[True][1] < 1e-9 < 0.01 < seen[True][0] and seen[False][0] < 1e-9 else 1)  # 1: it has been mended
PYTHON
