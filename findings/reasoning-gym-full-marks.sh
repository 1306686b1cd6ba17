#!/usr/bin/env bash
# reasoning-gym 0.1.25: `puzzle24` gives one expression full marks on every question, `coin_flip` gives 0 full marks on nearly all.
#
# Documented: "algorithmically verifiable reasoning environments for training reasoning models with reinforcement learning", and a score
# of 1.0 is a right answer. Seen: `puzzle24` asks to make 24 "using" four given numbers, and checks that four numbers of the allowed
# range are used and make 24, not that they are the given ones: 1*2*3*4 is right everywhere. `coin_flip` gives partial marks for the
# digits that agree from the left, divided by the length of the shorter answer: "0" agrees with the whole of itself, and so is a
# perfect answer to each probability below one. `gsm_symbolic` reads -405 as 405. For a user: a policy that learns one constant gets
# the highest reward, and a score says nothing.
# Output, 2026-11-30:
#     reasoning-gym 0.1.25
#     puzzle24, '1*2*3*4' to the first: full marks on 100 of 100 questions, right on 0
#     coin_flip, '0' to the first: full marks on 96 of 100 questions, right on 2
#     gsm_symbolic, '-20' to the first: full marks on 100 of 100 questions, right on 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check reasoning-gym==0.1.25
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import reasoning_gym


def full_marks(name, answer, right):
    """How many of 100 questions an answer has full marks on, and on how many of them it is right."""
    data = reasoning_gym.create_dataset(name, size=100, seed=3)
    entries = list(data)
    full = [one for one in entries if data.score_answer(answer(one), one) == 1.0]
    print(f"{name}, {answer(entries[0])!r} to the first: full marks on {len(full)} of 100 questions, right on {sum(map(right, entries))}")
    return len(full), sum(map(right, entries))


def numbers(entry):
    return sorted(map(int, entry["metadata"]["numbers"]))


print("reasoning-gym", version("reasoning-gym"))
found = [
    full_marks("puzzle24", lambda one: "1*2*3*4", lambda one: numbers(one) == [1, 2, 3, 4]),
    full_marks("coin_flip", lambda one: "0", lambda one: float(one["answer"]) < 5e-5),
    full_marks("gsm_symbolic", lambda one: "-" + one["answer"], lambda one: False),
]
raise SystemExit(0 if all(full >= 80 and right <= 20 for full, right in found) else 1)
PYTHON
