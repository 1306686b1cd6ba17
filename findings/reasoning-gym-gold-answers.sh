#!/usr/bin/env bash
# reasoning-gym 0.1.25: wrong gold answers in `family_relationships`, `aiw`, `calendar_arithmetic` and `time_intervals`.
#
# Documented: "algorithmically verifiable reasoning environments". Seen, each time by the question's own words:
#   family_relationships: "What is Margaret to Robert?", his son's wife, has the answer "father-in-law": every answer about in-laws is
#       the other way round, and has the other person's gender. Daughters-in-law and sons-in-law are never an answer.
#   aiw: Matilda's female colleagues are counted in one of her two circles alone: the number of those around the man does not matter.
#       Of F and G female colleagues, Matilda among both, she has the other F - 1, the woman in the middle, and the other G - 1.
#   calendar_arithmetic: business days up to a date of the next year are asked of this year, so that the end lies before the start and
#       its weekday is not that of the date.
#   time_intervals: a third of the answers to the millisecond are one too small, since a float is cut off.
# For a user: a score on these sets has a ceiling below 1, and a reward teaches the wrong relation.
# Output, 2026-11-30:
#     reasoning-gym 0.1.25
#     family_relationships, in-laws: 91 of 91 wrong; the first: … children called Luna and William. Theodore is married to Aurora.
#     They have a child called Margaret. What is Margaret to Robert? Respond only with the word that describes their relationship. ->
#     father-in-law
#     aiw, colleagues: 168 of 194 wrong; the first: …olleagues aside - with the only exception of Matilda. She is colleague of John
#     and she is also colleague of Sarah, being part of Sarah's circle. How many female colleagues does Matilda have? -> 3
#     calendar_arithmetic, business days: 8 of 71 wrong; the first: …How many business days (Monday-Friday) are there from Sunday,
#     December 18, 2022 to Tuesday, March 28, 2022 (inclusive of both dates)? Give the count numerically. -> 72
#     time_intervals, milliseconds: 38 of 101 wrong; the first: …How much time elapsed from 09:43:58.821 to 22:11:11.690? Give your
#     answer in HH:MM:SS.mmm. -> 12:27:12.868
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check reasoning-gym==0.1.25
"$folder/venv/bin/python" - <<'PYTHON'
import re
from datetime import datetime
from importlib.metadata import version

import reasoning_gym

IN_LAW = re.compile(r"What is (\w+) to (\w+)\?|How is (\w+) related to (\w+)\?|What relation is (\w+) to (\w+)\?")
wrong = {}


def asked(name):
    return list(reasoning_gym.create_dataset(name, size=600, seed=4))


def married(text, one, other):
    return f"{one} is married to {other}" in text or f"{other} is married to {one}" in text


def keep(name, entries, mistaken):
    found = [one for one in entries if mistaken(one)]
    wrong[name] = len(found), len(entries)
    words = " ".join(found[0]["question"].split()) if found else "–"
    print(f"{name}: {len(found)} of {len(entries)} wrong; the first: …{words[-190:]} -> {found[0]['answer'] if found else '–'}")


def of_in_laws(entry):
    """Whether the first person's spouse is no child of the second's, as an in-law of the elder generation would have it."""
    text = entry["question"]
    one, other = [name for name in IN_LAW.search(text).groups() if name]
    for sentence in re.findall(r"(\w+) is married to (\w+)\. They have (?:a child|children) called (.+?)\.", text):
        if one in sentence[:2]:  # a parent: of whom, and is the second person married to one of the children?
            children = re.findall(r"\w+", sentence[2].replace(" and ", " "))
            if any(married(text, child, other) for child in children):
                return False
    return True


def colleagues(entry):
    around, beside = map(int, re.findall(r"(\d+) female colleagues", entry["question"]))
    return int(entry["answer"]) != around + beside - 1


def before_it_starts(entry):
    dates = re.findall(r"(\w+day), (\w+ \d+, \d{4})", entry["question"])
    read = [datetime.strptime(date, "%B %d, %Y") for _, date in dates]
    return len(read) == 2 and (read[1] < read[0] or f"{read[1]:%A}" != dates[1][0])


def cut_off(entry):
    def ms(text):
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3_600_000 + int(minutes) * 60_000 + int(seconds.replace(".", ""))

    start, end = re.findall(r"\d\d:\d\d:\d\d\.\d{3}", entry["question"])[:2]
    return ms(end) - ms(start) != ms(entry["answer"])


print("reasoning-gym", version("reasoning-gym"))
keep("family_relationships, in-laws", [one for one in asked("family_relationships") if "in-law" in one["answer"]], of_in_laws)
keep("aiw, colleagues", [one for one in asked("aiw") if one["metadata"]["task_type"] == "colleagues"], colleagues)
days = [one for one in asked("calendar_arithmetic") if one["metadata"]["task"] == "count_business_days"]
keep("calendar_arithmetic, business days", days, before_it_starts)
keep("time_intervals, milliseconds", [one for one in asked("time_intervals") if one["metadata"]["task_type"] == "time_ms"], cut_off)
raise SystemExit(0 if all(count for count, _ in wrong.values()) else 1)
PYTHON
