#!/usr/bin/env bash
# lm-polygraph 0.7.0: `entropy_estimation="direct"` counts a semantic class once for each of its samples: 5 and 5 of two answers
# are more uncertain than ten different ones.
#
# Documented: SemanticEntropy with "direct" is the "direct entropy estimation from the proper estimator in the SDLG paper" (arXiv
# 2406.04306), the entropy of the classes c: minus the sum of p(c) log p(c); "higher values indicate more uncertain samples". Seen: the sum runs
# over the samples, so that a class of k samples counts k times, and nothing is said. Of ten samples, K equal classes give
# 10 / K times the entropy: the value falls where the answers spread. For a user: the order of the questions by
# uncertainty, which AUROC and PRR read, is another one. What helps: "mean" with class_probability_estimation="frequency", which is the
# entropy of the shares.
# Output, 2026-11-30:
#     lm-polygraph 0.7.0 sizes of the classes of ten samples: entropy, mean, direct
#     10                    0.000  0.000  0.000
#     9+1                   0.325  0.325  1.084
#     5+5                   0.693  0.693  3.466
#     4+3+3                 1.089  1.089  3.633
#     2+2+2+2+2             1.609  1.609  3.219
#     1+1+1+1+1+1+1+1+1+1   2.303  2.303  2.303
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps lm-polygraph==0.7.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType

# The estimator's module needs NumPy alone: lm_polygraph/__init__.py and its sisters, which need PyTorch, spaCy and more, are not run,
# and utils.common gives it no more than a decorator that logs.
for name in ("lm_polygraph", "lm_polygraph.estimators"):
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("lm-polygraph").locate_file(name.replace(".", "/")))]
common = sys.modules["lm_polygraph.utils.common"] = ModuleType("lm_polygraph.utils.common")
common.polygraph_module_init = lambda function: function
sys.modules["lm_polygraph.utils"] = ModuleType("lm_polygraph.utils")
import numpy as np
from lm_polygraph.estimators.semantic_entropy import SemanticEntropy


def classes(sizes):
    """What SemanticClassesCalculator gives for samples in classes of these sizes, the texts being the classes' names."""
    of, members = {}, []
    for number, size in enumerate(sizes):
        members.append(list(range(len(of), len(of) + size)))
        of.update({sample: number for sample in members[-1]})
    return of, members


print("lm-polygraph", version("lm-polygraph"), "sizes of the classes of ten samples: entropy, mean, direct")
held, order = [], []
for sizes in ([10], [9, 1], [5, 5], [4, 3, 3], [2] * 5, [1] * 10):
    of, members = classes(sizes)
    stats = {"sample_texts": [[str(of[n]) for n in range(10)]],
             "semantic_classes_entail": {"sample_to_class": {0: of}, "class_to_sample": {0: members}}}
    shares = np.array(sizes) / 10
    entropy = abs(float((shares * np.log(shares)).sum()))
    mean, direct = (float(SemanticEntropy(class_probability_estimation="frequency", entropy_estimation=how)(stats)[0]) for how in ("mean", "direct"))
    print(f"{'+'.join(map(str, sizes)):20} {entropy:6.3f} {abs(mean):6.3f} {abs(direct):6.3f}")
    held.append(abs(mean - entropy) < 1e-9 and abs(direct + float((np.array(sizes) * shares * np.log(shares)).sum())) < 1e-9)
    order.append((entropy, direct))
turned = order[2][1] > order[5][1] and order[2][0] < order[5][0]
raise SystemExit(0 if all(held) and turned else 1)  # 1: it has been mended
PYTHON
