#!/usr/bin/env bash
# inspect-evals 0.28.0: the sympy scorer of MATH takes -1, 7 for -1, 2 and 12 for "1, 2", and an inequality for wrong.
#
# Documented: of expression_exact_match_sympy, "The answer and target are evaluated for exact match using the sympy
# package", one of the task's three scorers (its README). Seen: what is compared is the difference of two readings by
# sympy's parse_latex, which stops at the first comma: of several values only the first counts; where all are digits,
# their commas are taken for those of thousands before that. A base is not read, a mixed number is a product, choices in
# \text are equal up to a comma; the difference of two inequalities is a type error, which scores the right one wrong;
# and a pair or an interval as the target stops the sample by an error. Nothing is said but there. For a user:
# this accuracy lies above and below the other two by MATH's answers of several values, bases and inequalities. What
# helps: expression_exact_match beside it, or math-verify.
# Output, 2026-11-30:
#     inspect-evals 0.28.0: target, answer, right, by sympy, by strings
#     \frac{1}{2}            0.5          True  True  True
#     x^2-1                  (x-1)(x+1)   True  True  False
#     3                      4            False False False
#     -1, 2                  -1, 7        False True  False
#     1+\sqrt{3}, 1-\sqrt{3} 1+\sqrt{3}   False True  False
#     1, 2                   12           False True  False
#     3, 5, 7                357          False True  False
#     12_{8}                 12_{9}       False True  False
#     3\frac{1}{2}           1.5          False True  False
#     \text{A,B}             \text{A,C}   False True  False
#     x \le 3                x \le 3      True  False True
#     (1, 2)                 (1, 2)       True  error True
#     [0, 1)                 [0, 1)       True  error True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sympy==1.14.0 antlr4-python3-runtime==4.11.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps inspect-evals==0.28.0
cd "$folder"
cat > tried.py <<'PYTHON'
import asyncio
import sys
from importlib.metadata import distribution, version
from types import ModuleType
from unittest.mock import MagicMock

for name in ("inspect_evals", "inspect_evals.math"):  # without the tasks' registry
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("inspect-evals").locate_file(name.replace(".", "/")))]
for name in ("inspect_evals.utils", "inspect_ai", "inspect_ai.dataset", "inspect_ai.model", "inspect_ai.scorer",
             "inspect_ai.solver"):
    sys.modules[name] = MagicMock()  # for these functions their names are annotations alone
from inspect_evals.math.utils import is_equiv, is_equiv_sympy, normalize_final_answer


async def scored(answer, target):
    """The verdict of expression_exact_match_sympy and of expression_exact_match, as their score_helper has them."""
    both = await normalize_final_answer(answer), await normalize_final_answer(target)
    try:
        seen = await is_equiv_sympy(*both)
    except ValueError:
        seen = "error"
    return seen, await is_equiv(answer, target)


async def main():
    print(f"inspect-evals {version('inspect-evals')}: target, answer, right, by sympy, by strings")
    wrong = []
    for target, answer, right in ((r"\frac{1}{2}", "0.5", True), ("x^2-1", "(x-1)(x+1)", True), ("3", "4", False),
                                  ("-1, 2", "-1, 7", False), (r"1+\sqrt{3}, 1-\sqrt{3}", r"1+\sqrt{3}", False),
                                  ("1, 2", "12", False), ("3, 5, 7", "357", False), ("12_{8}", "12_{9}", False),
                                  (r"3\frac{1}{2}", "1.5", False), (r"\text{A,B}", r"\text{A,C}", False),
                                  (r"x \le 3", r"x \le 3", True), ("(1, 2)", "(1, 2)", True),
                                  ("[0, 1)", "[0, 1)", True)):
        seen, strings = await scored(answer, target)
        wrong.append(seen if seen == "error" else seen != right)
        print(f"{target:22} {answer:12} {right!s:5} {seen!s:5} {strings}")
    return wrong


wrong = asyncio.run(main())
raise SystemExit(0 if wrong == [False] * 3 + [True] * 8 + ["error"] * 2 else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
