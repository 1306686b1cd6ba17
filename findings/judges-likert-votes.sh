#!/usr/bin/env bash
# judges 0.1.1: the Likert scores "good" and "bad" are both "average", and a tied jury says what its first judge says.
#
# Documented: Graders "Return scores on a numerical or Likert scale", "Likert scale: terrible, bad, average, good,
# excellent", returned as Judgment(reasoning=..., score=..., score_type="likert"); score_type is one of "boolean",
# "numerical", "likert"; Jury's default is majority, with the mean where "there's no unique mode". Seen: a Judgment
# looks at the score before it has read the score_type, which stands after it, so that every judgment is a boolean one:
# "good" and "yes" become True and "bad" and "no" False; True and False are no words of the scale, and those count
# as 3, "average". statistics.mode, of which an error is awaited at a tie, raises none since Python 3.8 and takes the
# value that came first. Means of numerical scores are rounded to integers. Nothing is said. For a user: graders of
# that scale cannot tell good answers from bad ones, and two juries of the same votes decide by the judges' order. What
# helps: Judgment.model_construct(...), which checks nothing, or numbers with score_type="numerical"; an odd jury.
# Output, 2026-11-30:
#     judges 0.1.1, one judge on the Likert scale: right, score of the judgment, of the jury
#     terrible   1 'terrible'   1
#     bad        2 False        3
#     average    3 'average'    3
#     good       4 True         3
#     excellent  5 'excellent'  5
#     majority of True False is True
#     majority of False True is False
#     average of (3, 4, 4) is 4
#     average of (4, 4, 5) is 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydantic==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps judges==0.1.1
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType
from unittest.mock import MagicMock

sys.modules["instructor"] = MagicMock()  # the client of a model, which is not asked here
package = sys.modules["judges"] = ModuleType("judges")  # without its prompts
package.__path__ = [str(distribution("judges").locate_file("judges"))]
from judges.base import BaseJudge, Judgment, Jury


class Says(BaseJudge):
    """A judge with one opinion."""

    def __init__(self, score, score_type):
        self.score, self.score_type = score, score_type

    def judge(self, input, output=None, expected=None):
        return Judgment(reasoning="so it is", score=self.score, score_type=self.score_type)


def vote(scores, score_type, method):
    """The jury's verdict."""
    return Jury([Says(score, score_type) for score in scores], voting_method=method).vote("2 + 2?", "4").score


print(f"judges {version('judges')}, one judge on the Likert scale: right, score of the judgment, of the jury")
seen = {}
for right, word in enumerate(("terrible", "bad", "average", "good", "excellent"), 1):
    score = Says(word, "likert").judge("2 + 2?").score
    seen[word] = score, int(vote([word], "likert", "average"))
    print(f"{word:10} {right} {score!r:12} {seen[word][1]}")
ties = {order: vote(order, "boolean", "majority") for order in ((True, False), (False, True))}
for order, verdict in ties.items():
    print("majority of", *order, "is", verdict)
means = {scores: vote(scores, "numerical", "average") for scores in ((3, 4, 4), (4, 4, 5))}
for scores, verdict in means.items():
    print(f"average of {scores} is {verdict}")
likert = seen == {"terrible": ("terrible", 1), "bad": (False, 3), "average": ("average", 3), "good": (True, 3),
                  "excellent": ("excellent", 5)}
tied = list(ties.values()) == [True, False]
raise SystemExit(0 if likert and tied and set(means.values()) == {4} else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
