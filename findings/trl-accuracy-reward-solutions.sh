#!/usr/bin/env bash
# TRL 1.16.0: `accuracy_reward` reads the solution 2\sqrt{3} as 2: the right answer has reward 0, and 2 has reward 1.
#
# Documented: `solution` is a "list of the raw-text solutions", in the docstring's example `\frac{1}{3}` as it stands, without dollar
# signs; "if gold is not parseable → return None to skip the example". Seen: math-verify 0.9.0 looks for LaTeX between dollar signs or in
# a box alone. Of other text it reads a fraction that stands there by itself, else the first number: 10^{20} is 10, 5\pi is 5, 3x-2 is
# 3, and where there is none (x^2+1, \sqrt{2}, an interval) the example is skipped in each step. The answer is read rightly, so that the
# two never meet. For a user: of MATH's bare answers those that are no plain numbers teach the wrong thing or nothing; put dollar signs
# around every solution.
# Output, 2026-11-30:
#     TRL 1.16.0 with math-verify 0.9.0
#     solution 2\sqrt{3}: rewards of 2\sqrt{3} and of 2 are 0.0, 1.0; with dollar signs 1.0, 0.0
#     solution 10^{20}: rewards of 10^{20} and of 10 are 0.0, 1.0; with dollar signs 1.0, 0.0
#     solution 5\pi: rewards of 5\pi and of 5 are 0.0, 1.0; with dollar signs 1.0, 0.0
#     solution 3x-2: rewards of 3x-2 and of 3 are 0.0, 1.0; with dollar signs 1.0, 0.0
#     solution 6+9i: rewards of 6+9i and of 6 are 0.0, 1.0; with dollar signs 1.0, 0.0
#     solution x^2+1: rewards of x^2+1 and of 1 are None, None; with dollar signs 1.0, 0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 datasets==5.2.0 trl==1.16.0 'math-verify[antlr4_13_2]==0.9.0'
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
from importlib.metadata import version

from trl.rewards import accuracy_reward


def reward(solution, answer):
    return accuracy_reward([[{"role": "assistant", "content": rf"My answer is $\boxed{{{answer}}}$."}]], [solution])[0]


print("TRL", version("trl"), "with math-verify", version("math-verify"))
held = [reward(r"\frac{1}{3}", r"\frac{1}{3}") == 1]
for solution, wrong in ((r"2\sqrt{3}", "2"), ("10^{20}", "10"), (r"5\pi", "5"), ("3x-2", "3"), ("6+9i", "6"), ("x^2+1", "1")):
    found = [reward(solution, solution), reward(solution, wrong), reward(f"${solution}$", solution), reward(f"${solution}$", wrong)]
    print(f"solution {solution}: rewards of {solution} and of {wrong} are {found[0]}, {found[1]}; with dollar signs {found[2]}, {found[3]}")
    held.append(found in ([0, 1, 1, 0], [None, None, 1, 0]))
raise SystemExit(0 if all(held) else 1)
PYTHON
