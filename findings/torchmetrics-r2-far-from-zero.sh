#!/usr/bin/env bash
# torchmetrics 1.9.0: R2Score and ExplainedVariance of values far from zero are rounding: 1.002 in place of 0.753.
#
# Documented: R2Score is 1 - SS_res / SS_tot with SS_tot = sum (y - mean y)^2, "bounded between -inf and 1.0". Seen:
# SS_tot is computed as sum y^2 - (sum y) * (mean y), both sums in single precision, whose difference loses its digits
# once the mean is some hundred times the spread: 0.753 is 0.778, and with a mean of 20,000 it is above the bound.
# ExplainedVariance does the same. Pearson's correlation, in the same module, does not. Nothing is said. For
# a user: massive activations (a dimension at 1000 or more with a spread of a few), token counts, times and prices have
# an R2 that is rounding alone; so that a reconstruction is called better by its dimension's mean. What helps:
# metric.set_dtype(torch.double) and double inputs, or values with their mean taken away; scikit-learn's r2_score and
# explained_variance_score.
# Output, 2026-11-30:
#     torchmetrics 1.9.0, the same spread and errors about four means
#       mean   R2 right, seen, in double      explained variance right, seen   correlation
#          0     0.753     0.753     0.753                0.753     0.753          0.895
#        100     0.753     0.751     0.753                0.753     0.751          0.895
#       1000     0.753     0.778     0.753                0.753     0.790          0.895
#      20000     0.753     1.002     0.753                0.753     1.002          0.895
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torchmetrics==1.9.0 scikit-learn==1.9.1
cd "$folder"
cat > tried.py <<'PYTHON'
import torch
import torchmetrics
from sklearn.metrics import explained_variance_score, r2_score
from torchmetrics import ExplainedVariance, PearsonCorrCoef, R2Score

torch.manual_seed(0)
noise, error = torch.randn(20000), 0.5 * torch.randn(20000)


def streamed(metric, predicted, target):
    """The metric over batches of 100."""
    for batch in zip(predicted.split(100), target.split(100)):
        metric.update(*batch)
    return float(metric.compute())


print(f"torchmetrics {torchmetrics.__version__}, the same spread and errors about four means")
print("  mean   R2 right, seen, in double      explained variance right, seen   correlation")
rows = {}
for mean in (0, 100, 1000, 20000):
    target = noise + mean
    predicted = target + error  # both rounded to single precision; what is right is computed from these very numbers
    double = predicted.double(), target.double()
    rows[mean] = (r2_score(double[1], double[0]), streamed(R2Score(), predicted, target),
                  streamed(R2Score().set_dtype(torch.double), *double), explained_variance_score(double[1], double[0]),
                  streamed(ExplainedVariance(), predicted, target), streamed(PearsonCorrCoef(), predicted, target))
    print("{:6} {:9.3f} {:9.3f} {:9.3f} {:20.3f} {:9.3f} {:14.3f}".format(mean, *rows[mean]))
apart = {mean: max(abs(row[0] - row[1]), abs(row[3] - row[4])) for mean, row in rows.items()}
fine = all(abs(row[0] - row[2]) < 1e-3 and abs(row[5] - 0.895) < 0.01 for row in rows.values())
raise SystemExit(0 if fine and apart[0] < 1e-3 and apart[1000] > 0.02 and apart[20000] > 0.2 else 1)  # 1: mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
