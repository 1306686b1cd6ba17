#!/usr/bin/env bash
# overcomplete 0.3.0: the codes of SkKMeans are distances to all centres, and neither SkICA's decode nor its dictionary gives the data back.
#
# Documented: SkKMeans is to solve "min ||X - ZD||_F^2. s.t Z ∈ {0, 1}^{n_samples x nb_concepts}", SkICA "min ||X - ZD||_F^2. s.t Z are
# statistically independent"; get_dictionary is to "return the learned dictionary components", decode the activations. Seen: SkKMeans
# encodes by scikit-learn's `transform`, which is the distance to each centre: the cluster that a sample belongs to has the smallest code
# of all, and its reconstruction is the sum of all centres times their distances. SkICA decodes without the mean that the fit took away
# (SkPCA adds it), and its dictionary is the matrix that unmixes, X to Z, in place of the one that mixes, so that ZD is not the data even
# when centred. Nothing is said. For a user: where these two are the baselines of an SAE, their error, their sparsity and what their
# concepts look like are of something else; top images of a k-means concept are those farthest from it. NMF, PCA and SVD are right.
# Output, 2026-11-30:
#     overcomplete 0.3.0, scikit-learn 1.9.1: error of decode(encode(X)), of ZD, of ZD for centred X
#     SkPCA        0.0059    0.9315    0.0163
#     SkNMF        0.0069    0.0069    2.5605
#     SkKMeans    14.8084   14.8084   43.1932
#               with one-hot codes 0.0085; codes of the first sample [5.8, 0.1, 4.8, 3.3], its cluster 1; samples whose own cluster has the smallest code: 100%
#     SkICA        0.9315    3.5016    9.2768
#               scikit-learn's inverse_transform of the same codes 0.0059
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 scikit-learn==1.9.1 einops==0.8.2 pillow==13.0.0 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps overcomplete==0.3.0
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType

package = sys.modules["overcomplete"] = ModuleType("overcomplete")  # without its vision models, which need torchvision, timm and OpenCV
package.__path__ = [str(distribution("overcomplete").locate_file("overcomplete"))]
import torch
from overcomplete.optimization import SkICA, SkKMeans, SkNMF, SkPCA

chance = torch.Generator().manual_seed(0)
centres = 6 * torch.rand(4, 8, generator=chance)
x = centres[torch.arange(400) % 4] + 0.1 * torch.rand(400, 8, generator=chance)  # four clusters, none below 0


def error(given, right=x):
    return float((right - given).norm() / right.norm())


print(f"overcomplete {version('overcomplete')}, scikit-learn {version('scikit-learn')}: error of decode(encode(X)), of ZD, of ZD for centred X")
errors = {}
for kind in (SkPCA, SkNMF, SkKMeans, SkICA):
    learned = kind(4, random_state=0)
    learned.fit(x)
    codes = learned.encode(x)
    linear = codes @ learned.get_dictionary()
    errors[kind] = [error(learned.decode(codes)), error(linear), error(linear, x - x.mean(0))]
    print(f"{kind.__name__:9}" + "".join(f"{value:10.4f}" for value in errors[kind]))
    if kind is SkKMeans:
        labels = torch.tensor(learned.model.labels_).long()
        centre = learned.get_dictionary()[labels]
        own = float((codes.argmin(1) == labels).float().mean())
        print(f"          with one-hot codes {error(centre):.4f}; codes of the first sample {[round(float(code), 1) for code in codes[0]]}, "
              f"its cluster {labels[0]}; samples whose own cluster has the smallest code: {own:.0%}")
        right = error(centre) < 0.05 and own == 1
    if kind is SkICA:
        mixed = error(torch.tensor(learned.model.inverse_transform(codes.numpy())))
        print(f"          scikit-learn's inverse_transform of the same codes {mixed:.4f}")
        right = right and mixed < 0.05
small, large = min(errors[SkPCA]), min(errors[SkKMeans] + errors[SkICA])
raise SystemExit(0 if right and small < 0.05 and large > 0.5 else 1)  # 1: it has been mended
PYTHON
