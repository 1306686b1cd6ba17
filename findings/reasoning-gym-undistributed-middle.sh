#!/usr/bin/env bash
# reasoning-gym 0.1.25: one in eight of the questions of `syllogism` has the wrong gold answer: a fallacy is held for valid.
#
# Documented: the set's own check is of validity "under classical (Aristotelian) rules, including the distribution rule", and its
# environments are "algorithmically verifiable". Seen: that the middle term must be distributed at least once is not among the rules it
# checks, so that "All ants are dolphins; some dolphins are not spiders" is taken to prove "Some ants are not spiders" (the fallacy of
# the undistributed middle). Here every question of the kind "syllogism" is decided by trying all worlds of three terms, none of them
# empty, which is the reading that finds the most valid; none that is valid is called invalid. For a user: a model that reasons right
# is told that it is wrong on 12% of the questions, all of them in one direction, and a model trained on them learns the fallacy.
# Output, 2026-11-30:
#     reasoning-gym 0.1.25, syllogism, 400 questions of seed 1, 282 of them of two premises:
#     48 have the gold answer Yes and are invalid, 0 have No and are valid; the first: All ants are dolphins; Some dolphins are not
#     spiders; therefore some ants are not spiders
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check reasoning-gym==0.1.25
"$folder/venv/bin/python" - <<'PYTHON'
import re
from importlib.metadata import version
from itertools import combinations, product

import reasoning_gym

FORMS = {"all": r"All (.+) are (.+)", "no": r"No (.+) are (.+)", "some not": r"Some (.+) are not (.+)", "some": r"Some (.+) are (.+)"}
THINGS = list(product((False, True), repeat=3))  # of which terms a thing is
WORLDS = [world for size in range(1, 9) for world in combinations(THINGS, size)]
WORLDS = [world for world in WORLDS if all(any(thing[term] for thing in world) for term in range(3))]


def read(sentence):
    for form, pattern in FORMS.items():  # "some not" stands before "some"
        if found := re.fullmatch(pattern, sentence):
            return form, *found.groups()
    raise ValueError(sentence)


def holds(statement, world, places):
    form, subject, predicate = statement
    are = [thing[places[predicate]] for thing in world if thing[places[subject]]]
    return {"all": all(are), "no": not any(are), "some": any(are), "some not": not all(are)}[form]


def follows(premises, conclusion):
    terms = sorted({term for statement in premises for term in statement[1:]})
    places = {term: place for place, term in enumerate(terms)}
    return all(
        holds(conclusion, world, places) for world in WORLDS if all(holds(premise, world, places) for premise in premises)
    )


asked = [entry for entry in reasoning_gym.create_dataset("syllogism", size=400, seed=1) if entry["metadata"]["type"] == "syllogism"]
wrong = {"Yes": [], "No": []}
for entry in asked:
    told = [entry["metadata"][key] for key in ("premise1", "premise2", "conclusion")]
    *premises, conclusion = map(read, told)
    if follows(premises, conclusion) != (entry["answer"] == "Yes"):
        wrong[entry["answer"]].append("; ".join(told[:2]) + "; therefore " + told[2].lower())
print(f"reasoning-gym {version('reasoning-gym')}, syllogism, 400 questions of seed 1, {len(asked)} of them of two premises:")
print(f"{len(wrong['Yes'])} have the gold answer Yes and are invalid, {len(wrong['No'])} have No and are valid; the first: {wrong['Yes'][0]}")
raise SystemExit(0 if len(wrong["Yes"]) > len(asked) / 20 and not wrong["No"] else 1)
PYTHON
