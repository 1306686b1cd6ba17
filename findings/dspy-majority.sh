#!/usr/bin/env bash
# dspy 3.4.1: majority counts no vote for choice A: four completions that say A and one that says B are a B.
#
# Documented: majority "Returns the most common completion for the target field"; EM, behind answer_exact_match, is to
# "Compute the Exact Match (EM) metric between a prediction and reference answers", after a normalization that removes
# punctuation and articles (docstrings). Seen: that normalization is for names, and is the default of both. The answer
# A is an article, what is left of it is empty, and majority leaves out completions whose answer is empty; the minus
# sign, the decimal point and the fraction's bar are punctuation: -5 and 5 are one answer, as are 1.5 and 15, of which
# the one that came first is returned, and 1/2 and 12. answer_exact_match takes each of them for the other, and any
# article for A. Nothing is said. For a user: self-consistency over choices never elects A unless all completions say
# it, and in mathematics votes of different numbers are added up; accuracy counts wrong signs as right. What helps:
# majority(..., normalize=str.strip), and a metric of one's own for numbers and letters.
# Output, 2026-11-30:
#     dspy 3.4.1, majority of the answers of several completions
#     A, A, A, A, B            expected A, seen B
#     5, -5, -5, -5, 7         expected -5, seen 5
#     15, 1.5, 1.5, 20, 20     expected 1.5 or 20, seen 15
#     C, C, C, C, B            expected C, seen C
#     the first of them with normalize=str.strip: A
#     answer_exact_match, gold and answer: 5 -5 True, 15 1.5 True, 12 1/2 True, A The True, A B False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydantic==2.14.3
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps dspy==3.4.1
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType, SimpleNamespace

for name in ("dspy", "dspy.dsp", "dspy.dsp.utils", "dspy.evaluate", "dspy.predict", "dspy.primitives"):
    package = sys.modules[name] = ModuleType(name)  # without what calls language models
    package.__path__ = [str(distribution("dspy").locate_file(name.replace(".", "/")))]
sys.modules["dspy.dsp.utils.utils"] = ModuleType("dspy.dsp.utils.utils")
sys.modules["dspy.dsp.utils.utils"].print_message = print
from dspy.evaluate import metrics

sys.modules["dspy.evaluate"].normalize_text = metrics.normalize_text
from dspy.predict.aggregation import majority

print(f"dspy {version('dspy')}, majority of the answers of several completions")
votes = {("A", "A", "A", "A", "B"): "A", ("5", "-5", "-5", "-5", "7"): "-5",
         ("15", "1.5", "1.5", "20", "20"): "1.5 or 20", ("C", "C", "C", "C", "B"): "C"}
elected = []
for answers, expected in votes.items():
    elected.append(majority([{"reasoning": "Let us see.", "answer": answer} for answer in answers]).answer)
    print(f"{', '.join(answers):24} expected {expected}, seen {elected[-1]}")
kept = majority([{"answer": answer} for answer in ("A", "A", "A", "A", "B")], normalize=str.strip).answer
print("the first of them with normalize=str.strip:", kept)
pairs = [("5", "-5"), ("15", "1.5"), ("12", "1/2"), ("A", "The"), ("A", "B")]
matched = [metrics.answer_exact_match(*(SimpleNamespace(answer=one) for one in pair)) for pair in pairs]
print("answer_exact_match, gold and answer:", ", ".join(f"{a} {b} {one}" for (a, b), one in zip(pairs, matched)))
as_stated = elected == ["B", "5", "15", "C"] and kept == "A" and matched == [True, True, True, True, False]
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
