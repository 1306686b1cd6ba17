#!/usr/bin/env bash
# lighteval 0.13.0: the tasks `math:algebra` to `math:precalculus` score 0 on right answers: their normalizers are never called.
#
# Documented: `maj@n` "applies normalisation (if needed) to model prediction and gold, and takes the most frequent answer of all the
# available ones, then compares it to the gold", and these tasks ask for `math_normalizer`, which takes what is boxed. Seen: they give it
# as `normalize_pred` and `normalize_gold`, which `maj@n` does not have (its setting is `normalize`); a metric's parameters are set as
# attributes, whatever their names, so nothing is said. Votes are then over whole texts, and the winner is compared with the whole
# solution of the data set. `math_500` grades otherwise and is not concerned. For a user: all seven sets of MATH report 0 for any model
# that does not recite the solutions, and a setting that is misspelt is not noticed in any metric.
# Output, 2026-11-30:
#     lighteval 0.13.0
#     gold 12; of four samples three give 12: {'math:algebra': 0, 'math:counting_and_probability': 0, 'math:geometry': 0,
#     'math:intermediate_algebra': 0, 'math:number_theory': 0, 'math:prealgebra': 0, 'math:precalculus': 0}
#     the same votes with the setting that the metric has, normalize: 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lighteval==0.13.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
from importlib.metadata import version

from lighteval.metrics.metrics import Metrics
from lighteval.metrics.normalizations import math_normalizer
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.requests import Doc
from lighteval.tasks.tasks import math

print("lighteval", version("lighteval"))
doc = Doc(query="Question: What is 2x for x = 6?\nAnswer:", choices=[r" We have $2x = 2 \cdot 6 = \boxed{12}$."], gold_index=0)
response = ModelResponse(text=[r"$2x = \boxed{12}$.", r"It is $\boxed{12}$.", r"So $\boxed{12}$", r"I say $\boxed{13}$."])
scores = {}
for task in math.TASKS_TABLE:
    if task.name.startswith("math:"):
        [metric] = task.metrics
        scores[task.name] = metric.sample_level_fn.compute(doc=doc, model_response=response)
meant = Metrics.maj_at_n(sample_params={"n": 4, "strip_strings": True, "normalize": math_normalizer})
right = meant.sample_level_fn.compute(doc=doc, model_response=response)
print("gold 12; of four samples three give 12:", scores)
print("the same votes with the setting that the metric has, normalize:", right)
raise SystemExit(0 if len(scores) == 7 and not any(scores.values()) and right == 1 else 1)
PYTHON
