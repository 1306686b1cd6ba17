#!/usr/bin/env bash
# torch-cka 0.21: the rows and columns of its matrix are in the order of the run, their names in that of the definition.
#
# Documented: compare "Computes the feature similarity between the models", and export gives "a dict that contains model
# names, layer names and the CKA matrix"; it "extracts all layer features by default", of models "from popular sources
# like torchHub, timm, huggingface etc." Seen: layers are listed as named_modules has them, a block before its parts,
# and features are kept as hooks fire, a part before its block; nothing joins the two. By default every model's first
# name is the model itself and its first row the first part that ran. With a list it goes wrong where a block and a part
# of it are in it, or where layers run in another order than they were made. A layer that writes in place
# (ReLU(inplace)) changes the features of the layer before it, which are not copied. Nothing is said. For a
# user: the similarity of two layers is that of two others, in the exported dict and in the plot's axes. What helps: a
# list of layers of one level, in the order in which they run, and without those before an in-place layer.
# Output, 2026-11-30:
#     torch-cka 0.21: a layer, its similarity with another model's norm by hand, as exported
#       out = ReLU, model1_layers=None
#         (the model)  0.591  1.000
#         mlp          0.709  0.709
#         norm         1.000  0.591
#         out          0.591  0.591
#       out = ReLU, model1_layers=['norm', 'mlp']
#         mlp          0.709  1.000
#         norm         1.000  0.709
#       out = ReLU(inplace=True), model1_layers=None
#         (the model)  0.591  1.000
#         mlp          0.709  0.591
#         norm         1.000  0.591
#         out          0.591  0.591
#       out = ReLU(inplace=True), model1_layers=['norm', 'mlp']
#         mlp          0.709  1.000
#         norm         1.000  0.591
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 matplotlib==3.11.2 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps torch-cka==0.21
cd "$folder"
cat > tried.py <<'PYTHON'
import warnings
from importlib.metadata import version

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_cka import CKA

warnings.simplefilter("ignore")


class Block(nn.Module):
    def __init__(self, out):
        super().__init__()
        self.mlp, self.norm, self.out = nn.Linear(16, 16), nn.LayerNorm(16), out  # made in another order than they run

    def forward(self, x):
        return self.out(self.mlp(self.norm(x)))


def by_hand(one, other):
    """Linear CKA of two layers' features by the unbiased HSIC of arXiv 2010.15327, equation 3."""
    def hsic(k, l):
        n = len(k)
        return float((k * l).sum() + k.sum() * l.sum() / (n - 1) / (n - 2) - 2 * (k @ l).sum() / (n - 2))

    kernels = [(f @ f.T).fill_diagonal_(0) for f in (one, other)]
    return hsic(*kernels) / (hsic(kernels[0], kernels[0]) * hsic(kernels[1], kernels[1])) ** 0.5


print(f"torch-cka {version('torch-cka')}: a layer, its similarity with another model's norm by hand, as exported")
x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)) ** 3
wrong = {}
for kind, out in (("ReLU", nn.ReLU()), ("ReLU(inplace=True)", nn.ReLU(inplace=True))):
    torch.manual_seed(0)
    model, other = Block(out), Block(nn.ReLU())
    features = {}
    for name, part in model.named_modules():
        part.register_forward_hook(lambda _, __, value, name=name: features.update({name: value.detach().clone()}))
    for names in (None, ["norm", "mlp"]):
        compared = CKA(model, other, "one", "other", model1_layers=names, model2_layers=["norm"])
        with torch.no_grad():
            compared.compare(DataLoader(TensorDataset(x), batch_size=64))
            base = other.norm(x)
        seen = compared.export()
        print(f"  out = {kind}, model1_layers={names}")
        rows = []
        for name, row in zip(seen["model1_layers"], seen["CKA"]):
            rows.append((by_hand(features[name], base), float(row[0])))
            print("    {:12} {:.3f}  {:.3f}".format(name or "(the model)", *rows[-1]))
        wrong[kind, names is None] = [abs(right - found) > 0.02 for right, found in rows]
ordered = sorted(round(right, 3) for right, _ in rows) == sorted(round(found, 3) for _, found in rows)
raise SystemExit(0 if any(wrong["ReLU", True]) and all(wrong["ReLU", False]) and not ordered else 1)  # 1: mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
