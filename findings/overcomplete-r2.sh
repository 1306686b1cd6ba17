#!/usr/bin/env bash
# overcomplete 0.3.0: an SAE that gives one and the same vector for every input has an R2 of 0.98.
#
# Documented: "R^2 score (coefficient of determination) … 1 indicates a perfect reconstruction while a score of 0 indicates that the
# reconstruction is as good as the mean"; train_sae logs it as `r2`, of which "0 means no reconstruction at all". Seen: the variance is
# taken about one number, the mean of all samples and all dimensions, not about the mean of each dimension. Activations whose dimensions
# have means of their own, as a language model's have, are explained by a constant: its R2 is near 1, and with it that of every
# SAE. Nothing is said. For a user: the logged R2 is no share of explained variance; scikit-learn's r2_score with "variance_weighted" is,
# or centre the activations first.
# Output, 2026-11-30:
#     overcomplete 0.3.0 R2 by scikit-learn (variance_weighted), by overcomplete
#     the mean of each dimension       0.0000   0.9813
#     one number for all             -52.4832   0.0000
#     that mean and 0.9 of the noise   0.9900   0.9998
#     train_sae's log of a constant    0.0000   0.9813
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 scikit-learn==1.9.1 einops==0.8.2 pillow==13.0.0 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps overcomplete==0.3.0
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import sys
from importlib.metadata import distribution, version
from types import ModuleType

package = sys.modules["overcomplete"] = ModuleType("overcomplete")  # without its vision models, which need torchvision, timm and OpenCV
package.__path__ = [str(distribution("overcomplete").locate_file("overcomplete"))]
import torch
from overcomplete.metrics import r2_score
from overcomplete.sae import train_sae
from sklearn.metrics import r2_score as sklearn_score

chance = torch.Generator().manual_seed(0)
x = torch.randn(1024, 16, generator=chance) + 6 * torch.randn(16, generator=chance)  # noise, about a mean in each dimension
given = {"the mean of each dimension": x.mean(0).expand_as(x), "one number for all": x.mean().expand_as(x),
         "that mean and 0.9 of the noise": x.mean(0) + 0.9 * (x - x.mean(0))}
print("overcomplete", version("overcomplete"), "R2 by scikit-learn (variance_weighted), by overcomplete")
scores = {name: (sklearn_score(x, value, multioutput="variance_weighted"), float(r2_score(x, value))) for name, value in given.items()}


class Constant(torch.nn.Module):
    """An SAE that has learned nothing but a bias: what it gives is the same for every input."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(x.mean(0))

    def get_dictionary(self):
        return self.bias[None]

    def forward(self, batch):
        codes = torch.ones(len(batch), 1)
        return codes, codes, codes @ self.get_dictionary()


lazy = Constant()
with contextlib.redirect_stdout(io.StringIO()):
    logs = train_sae(lazy, [x], lambda x, x_hat, *_: (x - x_hat).square().mean(), torch.optim.SGD(lazy.parameters(), lr=0.0), nb_epochs=1)
logged = logs["r2"][0]
scores["train_sae's log of a constant"] = sklearn_score(x, lazy(x)[2].detach(), multioutput="variance_weighted"), logged
for name, (right, seen) in scores.items():
    print(f"{name:30} {abs(right) if abs(right) < 1e-6 else right:8.4f} {seen:8.4f}")
mean, number = scores["the mean of each dimension"], scores["one number for all"]
as_stated = abs(mean[0]) < 1e-6 and mean[1] > 0.9 and abs(number[1]) < 1e-6 and logged > 0.9
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
