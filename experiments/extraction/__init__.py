"""What a real model says, read by this suite, by an earlier commit of it, and by others; disagreements read by hand.

    elicit run --method direct --model qwen2.5-coder-0.5b --prompt chat --task gsm8k.jsonl:kind=number --split all \\
        --limit 200 --max-new-tokens 400 --out runs/gsm8k
    git worktree add --detach before 5c26e88
    python -m experiments.extraction runs/gsm8k runs/multiarith runs/math500 --before before \\
        --others .venv-graders/bin/python

The earlier commit grades in a process of its own, from its checkout; the others as `experiments.benchmarks.grading`
asks them (their environment: `experiments/benchmarks/other_graders.py`). An item on which any of them differs from ours
is a disagreement, but for filters that find nothing for want of the one phrase that they read; who is right was read by
hand and stands in `verdicts.jsonl` with a reason. A disagreement that nobody has read yet is printed with the end of
its response, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elicit.evaluation.run.run import Run
from experiments.benchmarks.grading import OURS, others, ours
from experiments.benchmarks.grading import pairs_of as lines_of
from experiments.markdown import markdown
from probes.statistics import proportion_interval

VERDICTS = Path(__file__).parent / "verdicts.jsonl"
BEFORE = "before"
# Filters that read one phrase alone; where a response has none, that they find no answer is no disagreement.
PHRASES = {"lm-eval gsm8k, strict": "####", "lm-eval minerva_math, exact_match": "final answer is"}
GRADE_BEFORE = """
import json, sys
from elicit.answers import find_answer
from elicit.tasks.base import Item
from elicit.tasks.grading import grader_for

for line in open(sys.argv[1], encoding="utf-8").read().split("\\n"):
    if line:
        pair = json.loads(line)
        found = find_answer(pair["response"], pair["kind"])
        item = Item(pair["id"], "q", pair["gold"], "test")
        right = grader_for(pair["kind"]).grade(item, found.text if found else None).correct
        print(json.dumps({"id": pair["id"], "right": right}))
"""


def pairs_of(run: Run) -> list[dict[str, Any]]:
    """Gold answer and response of each item; of no item the question."""
    (source,) = run.traces
    kind = run.items.task.kind
    return [
        {"id": f"{run.folder.name}/{item.id}", "kind": kind, "gold": item.answer, "response": trace.text}
        for item in run.items
        for trace in run.traces[source][item.id]
    ]


def before(checkout: Path, pairs: Path) -> dict[str, bool]:
    """Verdicts of an earlier commit, by its own code."""
    done = subprocess.run(
        [sys.executable, "-c", GRADE_BEFORE, str(pairs.resolve())],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
    )
    return {one["id"]: one["right"] for one in map(json.loads, done.stdout.splitlines())}


def rows(
    name: str,
    pairs: Sequence[Mapping[str, Any]],
    by_grader: Mapping[str, Mapping[str, bool]],
    read: Mapping[str, Mapping[str, Any]],
) -> list[list[str]]:
    """A grader a row: what it calls right, and how often it errs where graders differ."""
    out = []
    for grader, verdicts in by_grader.items():
        some = [pair["id"] for pair in pairs if pair["id"] in verdicts]
        if not some:
            continue
        n = sum(verdicts[one] for one in some)
        low, high = proportion_interval(n, len(some)).pair
        known = [(verdicts[one], read[one]["right"]) for one in some if one in read]
        accepts = sum(said and not right for said, right in known)
        rejects = sum(right and not said for said, right in known)
        share = f"{100 * n / len(some):.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        out.append([name, grader, str(len(some)), share, str(accepts), str(rejects)])
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs with one arm")
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the earlier commit")
    parser.add_argument("--others", required=True, help="the Python of the other graders' environment")
    parser.add_argument("--verdicts", type=Path, default=VERDICTS)
    given = parser.parse_args()
    read = {one["id"]: one for one in lines_of(given.verdicts)}
    table: list[list[str]] = []
    unread = 0
    for folder in given.runs:
        pairs = pairs_of(Run.load(folder))
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "pairs.jsonl"
            file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
            by_grader = {OURS: ours(pairs), BEFORE: before(given.before, file), **others(given.others, file)}
        table += rows(folder.name, pairs, by_grader, read)
        for pair in pairs:
            said = {name: verdicts[pair["id"]] for name, verdicts in by_grader.items() if pair["id"] in verdicts}
            for name, phrase in PHRASES.items():
                if phrase not in pair["response"].lower():
                    said.pop(name, None)
            if len(set(said.values())) > 1 and pair["id"] not in read:
                unread += 1
                print(json.dumps({**pair, "response": pair["response"][-400:], "said": said}, ensure_ascii=False))
    print(markdown(["run", "grader", "n", "right, % [95%]", "false accepts", "false rejects"], table))
    return 1 if unread else 0
