#!/usr/bin/env bash
# inspect_ai 0.3.285: `match(numeric=True)` compares the first five digits: 123457 is right where 123456 is asked.
#
# Documented: "numeric: Is this a numeric match? When True, currency symbols, thousands separators, and formatting markers are stripped
# before numbers are normalized and compared" (reference, `match`). Seen: both numbers are rounded to five significant digits before
# they are compared as text, so that each number of six digits or more has neighbours that are right. Nothing
# says so, and there is no setting for it; the answer that is kept is the rounded one, 1.2346e+05. For a user: arithmetic with large numbers,
# a usual way to make problems hard, is graded too well, for a model that slips in the last digits is right.
# Output, 2026-11-30:
#     inspect_ai 0.3.285
#     target 123456, response 'The answer is 123457.': answer 1.2346e+05, C
#     target 276000, response 'It costs $276,001': answer 2.76e+05, C
#     target 1000000, response 'ANSWER: 1000049': answer 1e+06, C
#     target 12345, response '12346': answer 12346, I
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check inspect_ai==0.3.285
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
from importlib.metadata import version

from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Target, match
from inspect_ai.solver import TaskState

PAIRS = [("123456", "The answer is 123457."), ("276000", "It costs $276,001"), ("1000000", "ANSWER: 1000049"), ("12345", "12346")]
scorer, seen = match(numeric=True), []
print("inspect_ai", version("inspect_ai"))
for target, response in PAIRS:
    output = ModelOutput.from_content("none/model", response)
    state = TaskState(model="none/model", sample_id=1, epoch=1, input="?", messages=[], output=output)
    score = asyncio.run(scorer(state, Target(target)))
    seen.append(score.value)
    print(f"target {target}, response {response!r}: answer {score.answer}, {score.value}")
raise SystemExit(0 if seen == ["C", "C", "C", "I"] else 1)
PYTHON
