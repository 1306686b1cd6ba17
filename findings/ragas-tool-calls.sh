#!/usr/bin/env bash
# ragas 0.4.3: tool-call accuracy is 0 for every count but the right one, and hangs on the alphabet where order is free.
#
# Documented, in ToolCallAccuracy's docstring: "Length mismatches apply proportional coverage penalty"; "Flexible order:
# Tool calls can be in any order"; score "(average argument accuracy) * sequence_alignment_factor". Seen: the penalty is
# computed, and then all is multiplied by whether the lists of names are equal, which lists of two lengths never are: an
# agent that makes 9 of 10 calls rightly has 0. With strict_order=False both lists are sorted by names and arguments and
# compared in pairs: one wrong argument that sorts before the others shifts all of that tool's calls, and 3 of 4 right
# ones have 0 or 0.75 by where the wrong one stands in the alphabet. Arguments that the agent invented cost nothing. And
# ToolCallF1 is of sets: a call that is due twice and is made once, or ten times, has 1. Nothing is said but a warning
# that only the first calls are compared. For a user: partial credit is none, and agents are ranked by the names of
# their arguments. What helps: count the calls in common oneself, by a Counter of name and arguments.
# Output, 2026-11-30:
#     ragas 0.4.3, calls as the reference has them: 1.0
#     9 calls of 10, all right                        expected above 0, seen 0.0
#     any order, Vienna looked up in Rome's place     expected 0.75, seen 0.75
#     any order, Vienna looked up in Berlin's place   expected 0.75, seen 0.0
#     an argument added, force=True                   expected below 1, seen 1.0
#     F1, next_page due twice and called once         expected 0.67, seen 1.0
#     F1, next_page due twice and called ten times    expected 0.33, seen 1.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydantic==2.14.3
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps ragas==0.4.3
cd "$folder"
cat > tried.py <<'PYTHON'
import asyncio
import sys
import warnings
from importlib.metadata import distribution, version
from types import ModuleType

for name in ("ragas", "ragas.metrics", "ragas.metrics.collections"):  # without what needs language models
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("ragas").locate_file(name.replace(".", "/")))]


class BaseMetric:
    """Stands for the base class, which keeps a name and a range here."""

    def __init__(self, name, **_):
        self.name = name


sys.modules["ragas.metrics.collections.base"] = ModuleType("ragas.metrics.collections.base")
sys.modules["ragas.metrics.collections.base"].BaseMetric = BaseMetric
warnings.simplefilter("ignore")
from ragas.messages import AIMessage, HumanMessage, ToolCall
from ragas.metrics.collections.tool_call_accuracy.metric import ToolCallAccuracy
from ragas.metrics.collections.tool_call_f1.metric import ToolCallF1


def score(metric, calls, reference):
    """The metric's value for an agent that makes these calls, each a name and its arguments."""
    made, due = ([ToolCall(name=name, args=args) for name, args in one] for one in (calls, reference))
    talk = [HumanMessage(content="Do it."), AIMessage(content="", tool_calls=made)]
    return round(asyncio.run(metric.ascore(user_input=talk, reference_tool_calls=due)).value, 2)


def look_up(*towns):
    return [("look_up", {"town": town}) for town in towns]


towns = ["Berlin", "Lisbon", "Oslo", "Rome"]
read = [("read", {"page": page}) for page in range(10)]
strict, free, page = ToolCallAccuracy(), ToolCallAccuracy(strict_order=False), [("next_page", {})]
print(f"ragas {version('ragas')}, calls as the reference has them:", score(strict, look_up(*towns), look_up(*towns)))
rows = {
    "9 calls of 10, all right": ("above 0", score(strict, read[:9], read)),
    "any order, Vienna looked up in Rome's place":
        ("0.75", score(free, look_up(*towns[:3], "Vienna"), look_up(*towns))),
    "any order, Vienna looked up in Berlin's place":
        ("0.75", score(free, look_up("Vienna", *towns[1:]), look_up(*towns))),
    "an argument added, force=True":
        ("below 1", score(strict, [("delete", {"path": "a", "force": True})], [("delete", {"path": "a"})])),
    "F1, next_page due twice and called once": ("0.67", score(ToolCallF1(), page, page * 2)),
    "F1, next_page due twice and called ten times": ("0.33", score(ToolCallF1(), page * 10, page * 2)),
}
for name, (expected, seen) in rows.items():
    print(f"{name:47} expected {expected}, seen {seen}")
as_stated = [seen for _, seen in rows.values()] == [0.0, 0.75, 0.0, 1.0, 1.0, 1.0]
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
