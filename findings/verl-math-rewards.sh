#!/usr/bin/env bash
# verl 0.9.1: the reward for MATH takes 23 for "2, 3", the last of several values for all of them, and 0.3 for a third.
#
# Documented: `math_dapo`, the reward of the data sources "math", "math_dapo" and of AIME, is to "check if the solution is correct
# according to Minerva criteria". Seen: an answer is cut at its last "=" and, where only digits and commas are left, loses its commas:
# pairs and lists become one number, and of "x = 1, y = 6" only the 6 is compared; the bar of a repeating decimal is dropped. On the
# other side \dfrac is not \frac, and a boxed 1,200 is not 1200, though "Answer: 1,200" is. `gsm8k` takes away "$", which its pattern
# never lets through: "#### $18", "#### 18." and "#### 18.00" get nothing where 18 is asked. For a user: on answers other than the
# integers that DAPO's own data has, a policy is paid for wrong answers and punished for right ones.
# Output, 2026-11-30:
#     verl 0.9.1
#     math_dapo: gold 2,3, response 'Answer: 23': reward +1
#     math_dapo: gold x = 1, y = 6, response 'Answer: x = 9, y = 6': reward +1
#     math_dapo: gold 0.\overline{3}, response 'Answer: 0.3': reward +1
#     math_dapo: gold \frac{1}{2}, response 'Answer: \\dfrac{1}{2}': reward -1
#     math_dapo: gold 1200, response 'So it is \\boxed{1,200}.': reward -1
#     gsm8k: gold 18, response '#### $18': reward 0
#     gsm8k: gold 18, response '#### 18.': reward 0
#     gsm8k: gold 18, response '#### 18.00': reward 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps verl==0.9.1
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import distribution, version
from importlib.util import module_from_spec, spec_from_file_location


def module(name):
    """One of verl's reward modules, which need nothing but the standard library, without what the rest of verl needs."""
    spec = spec_from_file_location(name, distribution("verl").locate_file(f"verl/utils/reward_score/{name}.py"))
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


print("verl", version("verl"))
math, gsm8k = module("math_dapo"), module("gsm8k")
rows = [
    ("2,3", "Answer: 23", True),
    ("x = 1, y = 6", "Answer: x = 9, y = 6", True),
    (r"0.\overline{3}", "Answer: 0.3", True),
    (r"\frac{1}{2}", r"Answer: \dfrac{1}{2}", False),
    ("1200", r"So it is \boxed{1,200}.", False),
]
held = []
for gold, response, rewarded in rows:
    score = math.compute_score(response, gold)["score"]
    print(f"math_dapo: gold {gold}, response {response!r}: reward {score:+g}")
    held.append((score == 1) == rewarded)
for response in ("#### $18", "#### 18.", "#### 18.00"):
    score = gsm8k.compute_score(response, "18")
    print(f"gsm8k: gold 18, response {response!r}: reward {score:g}")
    held.append(score == 0)
raise SystemExit(0 if all(held) else 1)
PYTHON
