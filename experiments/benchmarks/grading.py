"""How often a grader agrees with verdicts by hand: ours, and others on the same pairs of a gold answer and a response.

    python -m experiments.benchmarks.grading                                    # ours
    python -m experiments.benchmarks.grading --others .venv-graders/bin/python  # and others, in their own environment

`experiments/benchmarks/other_graders.py` says which others, how they are asked, and how their environment is made. Each
is counted on the kinds of answers that it reads, and ours beside it on the same pairs: those that we wrote, and those
that models wrote. A false accept is a wrong answer that counts as right, a false reject a right one that does not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elicit.tasks.answers import Kind
from elicit.tasks.responses import Response, judge
from experiments.markdown import markdown

PAIRS = Path("tests/tasks/answer_pairs.jsonl")
OTHERS = Path(__file__).parent / "other_graders.py"
OURS = "elicit"


class Count(NamedTuple):
    """How a grader's verdicts stand to those by hand."""

    pairs: int
    agree: int
    accepts: int
    rejects: int


def pairs_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def ours(pairs: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """For each pair the verdict of `elicit grade`."""
    kinds: list[Kind] = [pair["kind"] for pair in pairs]
    said = [Response(pair["gold"], pair["response"], kind) for pair, kind in zip(pairs, kinds, strict=True)]
    return {pair["id"]: one.right for pair, one in zip(pairs, judge(said), strict=True)}


def others(python: str, file: Path) -> dict[str, dict[str, bool]]:
    """For each other grader its verdicts, of the pairs that it reads."""
    done = subprocess.run([python, "-P", str(OTHERS), str(file)], stdout=subprocess.PIPE, text=True, check=True)
    out: dict[str, dict[str, bool]] = {}
    for line in done.stdout.splitlines():
        one = json.loads(line)
        out.setdefault(one["grader"], {})[one["id"]] = one["right"]
    return out


def counted(pairs: Sequence[Mapping[str, Any]], verdicts: Mapping[str, bool]) -> Count:
    known = [(verdicts[pair["id"]], pair["verdict"]) for pair in pairs if pair["id"] in verdicts]
    accepts = sum(said and not true for said, true in known)
    rejects = sum(true and not said for said, true in known)
    return Count(len(known), len(known) - accepts - rejects, accepts, rejects)


def rows(pairs: Sequence[Mapping[str, Any]], by_grader: Mapping[str, Mapping[str, bool]]) -> list[list[str]]:
    """A grader a row, kind by kind and source by source, with ours on the same pairs."""
    out = []
    for kind, written in sorted({(pair["kind"], _written(pair)) for pair in pairs}):
        some = [pair for pair in pairs if pair["kind"] == kind and _written(pair) == written]
        for name, verdicts in by_grader.items():
            count = counted(some, verdicts)
            if count.pairs:
                share = f"{count.agree / count.pairs:.3f}"
                out.append([kind, written, name, str(count.pairs), share, str(count.accepts), str(count.rejects)])
    return out


def _written(pair: Mapping[str, Any]) -> str:
    return "people" if pair["source"].startswith(("own", "after")) else "models"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, default=PAIRS)
    parser.add_argument("--others", default="", help="the Python of the other graders' environment")
    parser.add_argument("--disagreements", action="store_true", help="name the pairs on which ours differs")
    given = parser.parse_args()
    pairs = pairs_of(given.pairs)
    own = ours(pairs)
    by_grader = {OURS: own, **(others(given.others, given.pairs) if given.others else {})}
    print(
        markdown(
            ["kind", "responses of", "grader", "pairs", "agree", "false accepts", "false rejects"],
            rows(pairs, by_grader),
        )
    )
    total = counted(pairs, own)
    print(
        f"\n{OURS}, all kinds: {total.agree} of {total.pairs} ({total.agree / total.pairs:.4f}), "
        f"{total.accepts} false accepts, {total.rejects} false rejects"
    )
    if given.disagreements:
        for pair in pairs:
            if own[pair["id"]] is not pair["verdict"]:
                print(json.dumps(pair, ensure_ascii=False))


if __name__ == "__main__":
    main()
