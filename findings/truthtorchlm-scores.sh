#!/usr/bin/env bash
# TruthTorchLM 0.1.19: "85% out of 100" is a confidence of 851.00, a nan the surest answer, repeats count by the square.
#
# Documented: VerbalizedConfidence's extract_confidence "Extracts the confidence value from the confidence text. The
# text may include non-numeric characters"; SemanticEntropy is the method of the paper it names, in which a class has
# the sum of its answers' probabilities; Jaccard similarity is the share of common words; metric_score "Calculates
# various evaluation metrics for truth value estimation". Seen: all digits and points of the reply are put together, so
# that several numbers are one and a number before a full stop, with a point of its own, is none, which is 0; an answer
# sampled m times counts m * m times in its class, so that five equal answers have another entropy than five that say
# the same; Jaccard drops words of one letter or digit ("It is 5" is "It is 7"), and a word that stands once and twice
# is none in common; a method that gives nan has the highest truth value of all in the metrics and a normalized one of
# 1, but 0 in calibration. Nothing is said. For a user: one talkative reply decides AUROC, means and thresholds, and
# answers that are numbers are all one. What helps: a regular expression of your own over the details' texts;
# nan_to_num before metric_score; method_for_similarity="semantic".
# Output, 2026-11-30:
#     TruthTorchLM 0.1.19, verbalized confidences: right, seen
#     85                  0.850     0.850
#     85% out of 100      0.850   851.000
#     Between 70 and 80   0.750    70.800
#     My score is 80.5.   0.805     0.000
#     semantic entropy of one class, five that mean the same: 0.00
#     semantic entropy of one class, five times the same: -1.61
#     Jaccard of 'It is 5' 'It is 7' right 0.50, seen 1.00
#     Jaccard of 'New York' 'New York, New York' right 1.00, seen 0.00
#     Jaccard of 'red or blue' 'red or green' right 0.50, seen 0.50
#     sets of meanings of three different numbers: 1
#     all values: AUROC 1.00, accuracy 1.00
#     a wrong answer's is nan: AUROC 0.50, accuracy 0.80
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pandas==3.1.1 scikit-learn==1.9.1 \
    tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps TruthTorchLM==0.1.19
cd "$folder"
cat > tried.py <<'PYTHON'
import math
import sys
from importlib.metadata import distribution, version
from types import ModuleType
from unittest.mock import MagicMock

for name in ("TruthTorchLM", "TruthTorchLM.truth_methods", "TruthTorchLM.utils"):  # without clients of models
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("TruthTorchLM").locate_file(name.replace(".", "/")))]
for name in ("transformers", "litellm", "wandb", "TruthTorchLM.generation", "TruthTorchLM.truth_methods.truth_method"):
    sys.modules[name] = MagicMock()  # for what runs here their names are annotations
sys.modules["TruthTorchLM.truth_methods.truth_method"].TruthMethod = object
from TruthTorchLM.utils import common_utils

sys.modules["TruthTorchLM.utils"].__dict__.update(vars(common_utils))
from TruthTorchLM.truth_methods.semantic_entropy import calculate_total_log
from TruthTorchLM.truth_methods.verbalized_confidence import VerbalizedConfidence
from TruthTorchLM.utils.eval_utils import metric_score

print(f"TruthTorchLM {version('TruthTorchLM')}, verbalized confidences: right, seen")
confidences = {}
for right, reply in ((0.85, "85"), (0.85, "85% out of 100"), (0.75, "Between 70 and 80"), (0.805, "My score is 80.5.")):
    confidences[reply] = VerbalizedConfidence().extract_confidence(reply) / 100
    print(f"{reply:18} {right:6.3f} {confidences[reply]:9.3f}")

entropies = []
for name, texts in (("five that mean the same", ["Paris", "In Paris", "It is Paris", "Paris!", "Paris, France"]),
                    ("five times the same", ["Paris"] * 5)):
    outputs = [(text, math.log(0.2)) for text in texts]
    entropies.append(calculate_total_log(outputs, [texts]))
    print(f"semantic entropy of one class, {name}: {entropies[-1] + 1e-9:.2f}")

pairs = {("It is 5", "It is 7"): 0.5, ("New York", "New York, New York"): 1.0, ("red or blue", "red or green"): 0.5}
shares = {}
for pair, right in pairs.items():
    shares[pair] = float(common_utils.calculate_jaccard_similarity(*pair))
    print("Jaccard of", *map(repr, pair), f"right {right:.2f}, seen {shares[pair]:.2f}")
sets = common_utils.calculate_U_num_set(["It is 5", "It is 7", "It is 9"], "", method_for_similarity="jaccard")
print("sets of meanings of three different numbers:", sets)

values, correct = [0.9, 0.8, 0.7, 0.2, 0.1], [1, 1, 1, 0, 0]
scores = [metric_score(["auroc", "accuracy"], correct, truth, truth) for truth in (values, [*values[:4], math.nan])]
for name, score in zip(("all values", "a wrong answer's is nan"), scores):
    print(f"{name}: AUROC {score['auroc']:.2f}, accuracy {score['accuracy']:.2f}")
joined = [round(value, 3) for value in confidences.values()] == [0.85, 851.0, 70.8, 0.0]
squared = abs(entropies[0]) < 1e-5 and abs(entropies[1] + math.log(5)) < 1e-5
words = [round(share, 2) for share in shares.values()] == [1.0, 0.0, 0.5] and sets == 1
surest = scores[0]["auroc"] == 1 and abs(scores[1]["auroc"] - 0.5) < 1e-9
raise SystemExit(0 if joined and squared and words and surest else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
