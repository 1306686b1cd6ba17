#!/usr/bin/env bash
# reasoning-gym 0.1.25: sets of neighbouring seeds are one set, shifted by one: a test set of another seed was trained on.
#
# Documented: "generate virtually infinite training data", `seed` is the seed of a data set. Seen: item i of a set of seed s is drawn by
# a generator of the seed s + i, so that item i of seed 43 is item i + 1 of seed 42, in nearly every one of the sets. For a user:
# training on 10,000 items of seed 42 and testing on 100 of seed 43, or of any seed up to 10,041, tests on what was trained on, and
# results over "three seeds" of the data are results over one. Seeds must be further apart than a set is long.
# Output, 2026-11-30:
#     reasoning-gym 0.1.25
#     basic_arithmetic: of 100 questions of seed 43, 100 are among 101 of seed 42
#     chain_sum: of 100 questions of seed 43, 100 are among 101 of seed 42
#     countdown: of 100 questions of seed 43, 100 are among 101 of seed 42
#     knights_knaves: of 100 questions of seed 43, 100 are among 101 of seed 42
#     leg_counting: of 100 questions of seed 43, 100 are among 101 of seed 42
#     letter_counting: of 100 questions of seed 43, 100 are among 101 of seed 42
#     simple_equations: of 100 questions of seed 43, 100 are among 101 of seed 42
#     spell_backward: of 100 questions of seed 43, 100 are among 101 of seed 42
#     syllogism: of 100 questions of seed 43, 100 are among 101 of seed 42
#     time_intervals: of 100 questions of seed 43, 100 are among 101 of seed 42
#     word_sorting: of 100 questions of seed 43, 100 are among 101 of seed 42
#     zebra_puzzles: of 100 questions of seed 43, 100 are among 101 of seed 42
#     each the next one: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check reasoning-gym==0.1.25
PYTHONHASHSEED=0 "$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import reasoning_gym

NAMES = ("basic_arithmetic", "chain_sum", "countdown", "knights_knaves", "leg_counting", "letter_counting", "simple_equations",
         "spell_backward", "syllogism", "time_intervals", "word_sorting", "zebra_puzzles")


def questions(name, seed, size):
    return [entry["question"] for entry in reasoning_gym.create_dataset(name, seed=seed, size=size)]


print("reasoning-gym", version("reasoning-gym"))
held = []
for name in NAMES:
    trained, tested = questions(name, 42, 101), questions(name, 43, 100)
    held.append(tested == trained[1:])
    print(f"{name}: of 100 questions of seed 43, {sum(one in set(trained) for one in tested)} are among 101 of seed 42")
print("each the next one:", all(held))
raise SystemExit(0 if all(held) else 1)
PYTHON
