#!/usr/bin/env bash
# torchmetrics 1.9.0: a batch whose logits all lie in 0 to 1 is taken for probabilities: AUROC hangs on batch size.
#
# Documented: "If preds has values outside [0,1] range we consider the input to be logits and will auto apply sigmoid
# per element" (BinaryAUROC and all binary, multilabel and multiclass metrics of scores). Seen: the range is that of
# each call's batch, not of the data, so that of one stream of logits some batches are passed through a sigmoid and some
# are not; a logit of 0.9 from the second kind then lies above one of 2 from the first. With one sample a batch, as in
# a loop over prompts or a last batch of one, the ranking is another one: AUROC, average precision, accuracy and
# calibration error of the same logits change with the batch size alone. Nothing is said. For a user: a probe or a
# reward model that is evaluated sample by sample is reported worse or, by its calibration, better than it is. What
# helps: logits.sigmoid() before every update.
# Output, 2026-11-30:
#     torchmetrics 1.9.0, 2000 logits, AUROC by scikit-learn 0.932
#     batch size     AUROC  average precision  accuracy  calibration error
#           2000     0.932              0.931     0.850              0.125
#              4     0.931              0.931     0.848              0.123
#              2     0.918              0.914     0.838              0.111
#              1     0.872              0.877     0.810              0.086
#     1, sigmoid     0.932              0.931     0.850              0.125
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
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryAveragePrecision, BinaryCalibrationError

torch.manual_seed(0)
labels = (torch.rand(2000) < 0.5).long()
logits = torch.randn(2000) + 2 * labels - 1
kinds = BinaryAUROC, BinaryAveragePrecision, BinaryAccuracy, BinaryCalibrationError


def streamed(scores, size):
    """The four metrics over batches of that size."""
    metrics = [kind() for kind in kinds]
    for batch in zip(scores.split(size), labels.split(size)):
        for metric in metrics:
            metric.update(*batch)
    return [float(metric.compute()) for metric in metrics]


auroc = roc_auc_score(labels, logits)
print(f"torchmetrics {torchmetrics.__version__}, 2000 logits, AUROC by scikit-learn {auroc:.3f}")
print("batch size     AUROC  average precision  accuracy  calibration error")
rows = {}
for size in (2000, 4, 2, 1):
    rows[size] = streamed(logits, size)
    print("{:10} {:9.3f} {:18.3f} {:9.3f} {:18.3f}".format(size, *rows[size]))
safe = streamed(logits.sigmoid(), 1)
print("{:10} {:9.3f} {:18.3f} {:9.3f} {:18.3f}".format("1, sigmoid", *safe))
right = rows[2000]
same = max(abs(one - other) for one, other in zip(right, safe)) < 1e-4
worse = all(abs(one - other) > 0.02 for one, other in zip(right, rows[1])) and right[0] - rows[2][0] > 0.002
raise SystemExit(0 if same and worse and abs(right[0] - auroc) < 1e-4 else 1)  # 1: mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
