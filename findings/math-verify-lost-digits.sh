#!/usr/bin/env bash
# math-verify 0.9.0: repeating decimals lose what repeats, numbers with a space for thousands become 0, numbers in a base lose the base.
#
# Documented: "HuggingFace library for verifying mathematical answers" (its summary on the package index), and no such limit.
# Seen: `0.\overline{3}` is read as 0, and so equals `0.\overline{7}` and 0, but not 1/3; `12\,000`, `12\;000` and
# `12 000` are read as 12 times 0, so that all numbers of round thousands are one; `2516_8` equals `2516_7`. No warning is given, and
# the parsed answer's text, which is kept beside its value, looks right. For a user: on a question with such an answer a wrong answer of
# the same form is rewarded, and a right one of another form (1/3, 12000) is not. MATH asks for answers in a base and as repeating decimals.
# Output, 2026-11-30:
#     math-verify 0.9.0
#     gold 0.\overline{3}, read as 0: 0.\overline{7} is right, \frac{1}{3} is wrong
#     gold 1.\overline{27}, read as 1: 1.\overline{72} is right, \frac{14}{11} is wrong
#     gold 12\,000, read as 12*0: 13\,000 is right, 12000 is wrong
#     gold 12 000, read as 12*0: 13 000 is right, 12000 is wrong
#     gold 2516_8, read as 2516: 2516_7 is right, 2516_{8} is right
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'math-verify[antlr4_13_2]==0.9.0' latex2sympy2_extended==1.11.0
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from math_verify import parse, verify

print("math-verify", version("math-verify"))
held = []
for gold, wrong, right in (
    (r"0.\overline{3}", r"0.\overline{7}", r"\frac{1}{3}"),
    (r"1.\overline{27}", r"1.\overline{72}", r"\frac{14}{11}"),
    (r"12\,000", r"13\,000", "12000"),
    ("12 000", "13 000", "12000"),
    ("2516_8", "2516_7", "2516_{8}"),
):
    read, *others = (parse(f"${one}$") for one in (gold, wrong, right))
    verdicts = [verify(read, other) for other in others]
    print(f"gold {gold}, read as {read[0]}: {wrong} is {'right' if verdicts[0] else 'wrong'}, {right} is {'right' if verdicts[1] else 'wrong'}")
    held.append(verdicts[0])
raise SystemExit(0 if all(held) else 1)
PYTHON
