#!/usr/bin/env bash
# lm-polygraph 0.7.0: the expected calibration error of verbalized confidences is 0, whatever they are.
#
# Documented: ECE is the "Expected Calibration Error (ECE) metric. Only applicable to binary quality metrics", of estimators, whose higher
# values "should indicate more uncertain samples". Seen: the confidence is taken to be minus the uncertainty, and samples whose
# confidence is outside 0 to 1 are in no bin, but in the number that is divided by. Verbalized1S, Linguistic1S, PTrueEmpirical and
# LabelProb give 1 - confidence, others -log p and entropies, none below 0: nothing is left to average, and ECE is 0, as of perfect
# calibration. Nothing is said. PTrue, which is -p, is right. For a user: ECEs of 0 in a table of results mean nothing. What helps: hand
# over -confidence. normalize=True stretches the confidences of the data to 0 and 1, which is another number again.
# Output, 2026-11-30:
#     lm-polygraph 0.7.0: mean confidence 0.807, accuracy 0.302, so that the ECE is 0.505
#     PTrue                       ECE 0.505, with normalize=True 0.306
#     Verbalized1S                ECE 0.000, with normalize=True 0.306
#     MaximumSequenceProbability  ECE 0.000, with normalize=True 0.337
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps lm-polygraph==0.7.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType

# lm_polygraph/__init__.py and its sisters, which need PyTorch, spaCy and more, are not run, and utils.common gives no more than a decorator.
for name in ("lm_polygraph", "lm_polygraph.estimators", "lm_polygraph.ue_metrics"):
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("lm-polygraph").locate_file(name.replace(".", "/")))]
common = sys.modules["lm_polygraph.utils.common"] = ModuleType("lm_polygraph.utils.common")
common.polygraph_module_init = lambda function: function
sys.modules["lm_polygraph.utils"] = ModuleType("lm_polygraph.utils")
import numpy as np
from lm_polygraph.estimators.max_probability import MaximumSequenceProbability
from lm_polygraph.estimators.p_true import PTrue
from lm_polygraph.estimators.verbalized_1s import Verbalized1S
from lm_polygraph.ue_metrics.ece import ECE

chance = np.random.default_rng(0)
said = np.round(chance.uniform(0.6, 0.99, 400), 2)  # confidences of 0.6 to 0.99
right = (chance.random(400) < 0.3).astype(int)  # of answers that are right three times in ten
values = {
    "PTrue": PTrue()({"p_true": said}),
    "Verbalized1S": Verbalized1S(confidence_regex=r"Confidence: (\d\.\d+)")({"greedy_texts": [f"Paris. Confidence: {one:.2f}" for one in said]}),
    "MaximumSequenceProbability": MaximumSequenceProbability()({"greedy_log_likelihoods": [[np.log(one)] for one in said]}),
}
print(f"lm-polygraph {version('lm-polygraph')}: mean confidence {said.mean():.3f}, accuracy {right.mean():.3f}, so that the ECE is {said.mean() - right.mean():.3f}")
seen = {name: (float(ECE()(estimate, right)), float(ECE(normalize=True)(estimate, right))) for name, estimate in values.items()}
for name, (plain, stretched) in seen.items():
    print(f"{name:27} ECE {plain:.3f}, with normalize=True {stretched:.3f}")
as_stated = abs(seen["PTrue"][0] - (said.mean() - right.mean())) < 0.01 and seen["Verbalized1S"][0] == 0 == seen["MaximumSequenceProbability"][0]
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
