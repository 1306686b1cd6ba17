#!/usr/bin/env bash
# uncertainty-calibration 0.1.4: its 90% intervals are 99.9% ones, and selective accuracy hangs on the order of ties.
#
# Documented: get_calibration_error_uncertainties(probs, labels, p=2, alpha=0.1) returns "[lower, mid, upper]: 1-alpha
# confidence intervals produced by bootstrap resampling"; get_selective_stats will "Return area under coverage-accuracy
# curve, and acc for 10% most confident predictions". Seen: alpha is handed on to a function that takes it in percent
# (np.percentile(..., alpha / 2)), so that 0.1 is a tenth of a percent: the interval goes from the least to the
# largest of its 100 resamples. Predictions of one confidence are counted in the order in which they were given: a model
# that says 0.9 to everything has an area of 0.82 or 0.18 for the same answers. And "10%" are 10% and one more: two of
# ten. Nothing is said. For a user: intervals are half as wide again as they say, and areas of verbalized confidences,
# which have many ties, measure the order of the data set. What helps: alpha=10 for 90%; a shuffle, and the mean over
# several, for ties.
# Output, 2026-11-30:
#     uncertainty-calibration 0.1.4, calibration error 0.090
#     width of a 90% interval 0.038, of a 99.9% one 0.070
#     width seen with alpha=0.1 0.058, with alpha=10 0.036 (each the mean of ten)
#     area of ten answers of confidence 0.9, half of them right, right ones first: 0.82
#     area of ten answers of confidence 0.9, half of them right, wrong ones first: 0.18
#     accuracy of the 10% most confident of ten, the first being right: right 1.00, seen 0.50
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scikit-learn==1.9.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps uncertainty-calibration==0.1.4
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import calibration
import numpy as np
from calibration.utils import get_selective_stats

chance = np.random.default_rng(0)
probabilities = chance.uniform(size=1000)
labels = (chance.uniform(size=1000) < probabilities**1.5).astype(int)
drawn = []  # the bootstrap again, by hand: the errors of 2,000 resamples
for _ in range(2000):
    rows = chance.integers(1000, size=1000)
    drawn.append(calibration.get_calibration_error(probabilities[rows], labels[rows], p=1, debias=False))
point = calibration.get_calibration_error(probabilities, labels, p=1, debias=False)
right = {share: float(np.diff(np.percentile(drawn, [50 - share / 2, 50 + share / 2]))[0]) for share in (90, 99.9)}
widths = {}
for alpha in (0.1, 10):
    widths[alpha] = 0.0
    for seed in range(10):
        np.random.seed(seed)
        lower, _, upper = calibration.get_calibration_error_uncertainties(probabilities, labels, p=1, alpha=alpha)
        widths[alpha] += float(upper - lower) / 10
print(f"uncertainty-calibration {version('uncertainty-calibration')}, calibration error {point:.3f}")
print(f"width of a 90% interval {right[90]:.3f}, of a 99.9% one {right[99.9]:.3f}")
print(f"width seen with alpha=0.1 {widths[0.1]:.3f}, with alpha=10 {widths[10]:.3f} (each the mean of ten)")

areas = {}
for name, answers in (("right ones first", [1] * 5 + [0] * 5), ("wrong ones first", [0] * 5 + [1] * 5)):
    areas[name] = float(get_selective_stats([0.9] * 10, answers)[0])
    print(f"area of ten answers of confidence 0.9, half of them right, {name}: {areas[name]:.2f}")
top = float(get_selective_stats(np.linspace(1, 0.1, 10), [1] + [0] * 9)[1])
print(f"accuracy of the 10% most confident of ten, the first being right: right 1.00, seen {top:.2f}")
wide = widths[0.1] > 1.25 * right[90] and abs(widths[10] / right[90] - 1) < 0.15
ties = areas["right ones first"] > 0.8 and areas["wrong ones first"] < 0.2
raise SystemExit(0 if wide and ties and top == 0.5 else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
