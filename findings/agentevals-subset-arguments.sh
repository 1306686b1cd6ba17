#!/usr/bin/env bash
# agentevals 0.0.9: with trajectory_match_mode="subset" the argument modes subset and superset are each other.
#
# Documented: tool_args_match_mode="subset"/"superset" is "Treating a tool call as equivalent if it contain as
# subset/superset of args compared to a reference tool call of the same name"; an override is a function "that takes two
# sets of tool call args", in its example output_tool_call_args and reference_tool_call_args. Seen: the mode "subset"
# asks whether the reference is a superset of the output, and hands the two over in that order to the matcher of
# arguments too: a call with an argument that the reference has not passes for a subset, one that lacks an argument does
# not, and a matcher of one's own gets the reference as the agent's. The mode "unordered" asks both ways round, so that
# "subset" and "superset" of arguments are there "exact". And in each mode the first call that fits is taken: the same
# two calls match or not by their order. Nothing is said. For a user: an agent that makes up arguments counts as
# right, and one that keeps to the expected ones as wrong. What helps: with "subset", the other argument
# mode, and matchers with their two parameters swapped; with "unordered", a symmetric matcher.
# Output, 2026-11-30:
#     agentevals 0.0.9, the expected call is search(q, n)
#     mode        arguments   search(q): due, seen   search(q, n, k): due, seen   a matcher's first argument
#     strict      subset          1   1                  0   0                      output
#     strict      superset        0   0                  1   1                      output
#     superset    subset          1   1                  0   0                      output
#     superset    superset        0   0                  1   1                      output
#     subset      subset          1   0                  0   1                   reference
#     subset      superset        0   1                  1   0                   reference
#     unordered   subset          1   0                  0   0           output, reference
#     unordered   superset        0   0                  1   0           output, reference
#     search(q), search(q, n) are expected, at least these arguments: search(q), search(q, n) has 1, turned about 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check agentevals==0.0.9 openevals==0.2.2 \
    langchain==1.5.2 langchain-core==1.8.3 langchain-openai==1.7.4 langsmith==0.15.1
cd "$folder"
cat > tried.py <<'PYTHON'
import json
from importlib.metadata import version

from agentevals.trajectory.match import create_trajectory_match_evaluator


def made(*calls):
    """A trajectory of one message, with a call of the tool `search` for each set of arguments."""
    tools = [{"function": {"name": "search", "arguments": json.dumps(given)}} for given in calls]
    return [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": tools}]


def score(outputs, expected, mode, **options):
    """1 where the trajectories match, or 0."""
    return int(create_trajectory_match_evaluator(trajectory_match_mode=mode, **options)(
        outputs=outputs, reference_outputs=expected)["score"])


FEW, EXPECTED, MANY = {"q": "a"}, {"q": "a", "n": 5}, {"q": "a", "n": 5, "k": 1}
print(f"agentevals {version('agentevals')}, the expected call is search(q, n)")
print("mode        arguments   search(q): due, seen   search(q, n, k): due, seen   a matcher's first argument")
rows = {}
for mode in ("strict", "superset", "subset", "unordered"):
    first = []
    score(made({"of": "output"}), made({"of": "reference"}), mode,
          tool_args_match_overrides={"search": lambda one, other, first=first: first.append(one["of"]) or True})
    for kind in ("subset", "superset"):
        due = int(kind == "subset"), int(kind == "superset")
        seen = [score(made(given), made(EXPECTED), mode, tool_args_match_mode=kind) for given in (FEW, MANY)]
        rows[mode, kind] = (due[0], seen[0]), (due[1], seen[1])
        print("{:11} {:11} {:5} {:3} {:18} {:3} {:>27}".format(mode, kind, *rows[mode, kind][0], *rows[mode, kind][1],
                                                                ", ".join(first)))
orders = [score(made(*calls), made(FEW, EXPECTED), "superset", tool_args_match_mode="superset")
          for calls in ((FEW, EXPECTED), (EXPECTED, FEW))]
print("search(q), search(q, n) are expected, at least these arguments: search(q), search(q, n) has {}, turned about {}"
      .format(*orders))
wrong = {key for key, row in rows.items() if any(due != seen for due, seen in row)}
swapped = all(due != seen for kind in ("subset", "superset") for due, seen in rows["subset", kind])
raise SystemExit(0 if swapped and {key[0] for key in wrong} == {"subset", "unordered"} and orders == [1, 0] else 1)
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"  # 1: it has been mended
