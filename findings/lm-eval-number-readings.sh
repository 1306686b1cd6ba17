#!/usr/bin/env bash
# lm-eval 0.4.13: MGSM takes 1.8 for 18 and 18.00 for 1800; BBH drops the last character of an answer that no full stop follows.
#
# Documented: MGSM is 250 questions of GSM8K in other languages, whose answers are numbers; BBH's filter `get-answer` takes what follows
# "the answer is". Seen: MGSM's metric ignores punctuation, the decimal point and the minus sign too, before it compares: 1.8, -18 and
# 1,8 are right where 18 is asked, and 18.00 or $18.0 are wrong. BBH's pattern ends in an unescaped dot, which stands for any character:
# "the answer is 24." is 24, and "the answer is 24" is 2. For a user: a model that writes cents or leaves out the full stop is marked
# down for it, a wrong answer may be right, and scores do not compare with GSM8K's of the same harness, which compares numbers otherwise.
# Output, 2026-11-30:
#     lm-eval 0.4.13
#     mgsm/en_cot/cot_yaml, strict-match: gold 18, response 'So she has 1.8 left. The answer is 1.8.' is read as '1.8.': right
#     mgsm/en_cot/cot_yaml, flexible-extract: gold 18, response 'So he owes 18, and has -18.' is read as '-18.': right
#     mgsm/en_cot/cot_yaml, strict-match: gold 18, response 'She makes 9 * 2 = 18.00 dollars. The answer is 18.00.' is read as
#     '18.00.': wrong
#     bbh/cot_fewshot/_cot_fewshot_template_yaml, get-answer: gold 24, response 'So the answer is 24' is read as '2': wrong
#     bbh/cot_fewshot/_cot_fewshot_template_yaml, get-answer: gold 2, response 'So the answer is 24' is read as '2': right
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lm_eval==0.4.13
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version
from pathlib import Path

import lm_eval
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters import build_filter_ensemble

TASKS = Path(lm_eval.__file__).parent / "tasks"


def graded(task, name, response, gold):
    """What a task's own filter reads in a response, and whether its own metric holds it for the gold answer."""
    settings = yaml.safe_load((TASKS / task).read_text())
    chain = next(one["filter"] for one in settings["filter_list"] if one["name"] == name)
    metric = {key: value for key, value in settings["metric_list"][0].items() if key.startswith(("ignore", "regexes"))}
    request = Instance("generate_until", {}, ("", {}), 0)
    request.resps = [response]
    steps = [(one["function"], {key: value for key, value in one.items() if key != "function"}) for one in chain]
    build_filter_ensemble(name, steps).apply([request])
    read = request.filtered_resps[name]
    right = bool(exact_match_hf_evaluate(predictions=[read], references=[gold], **metric)["exact_match"])
    print(f"{task}, {name}: gold {gold}, response {response!r} is read as {read!r}: {'right' if right else 'wrong'}")
    return right


print("lm-eval", version("lm_eval"))
mgsm, bbh = "mgsm/en_cot/cot_yaml", "bbh/cot_fewshot/_cot_fewshot_template_yaml"
seen = [
    graded(mgsm, "strict-match", "So she has 1.8 left. The answer is 1.8.", "18"),
    graded(mgsm, "flexible-extract", "So he owes 18, and has -18.", "18"),
    not graded(mgsm, "strict-match", "She makes 9 * 2 = 18.00 dollars. The answer is 18.00.", "18"),
    not graded(bbh, "get-answer", "So the answer is 24", "24"),
    graded(bbh, "get-answer", "So the answer is 24", "2"),
]
raise SystemExit(0 if all(seen) else 1)
PYTHON
