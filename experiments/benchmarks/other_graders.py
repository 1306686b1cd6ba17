"""Verdicts of other graders on pairs of a gold answer and a response, in an environment of their own.

    python -m venv .venv-graders
    .venv-graders/bin/pip install 'lm-eval[math]==0.4.13' inspect-ai==0.3.285 math-verify==0.9.0
    .venv-graders/bin/python -P experiments/benchmarks/other_graders.py tests/tasks/answer_pairs.jsonl > verdicts.jsonl

Each grades as its users let it: math-verify reads the whole response; lm-eval's filters and metrics are those of its
task files (gsm8k, minerva_math, mmlu_pro, gpqa, bbh), after its stop strings; Inspect's are its scorers `match`, `math`
and `answer`. Nothing of this package is imported here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import CORRECT, Target, answer, match
from inspect_ai.scorer import math as inspect_math
from inspect_ai.solver import TaskState
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import MultiChoiceRegexFilter, RegexFilter
from lm_eval.tasks.minerva_math import utils as minerva
from math_verify import parse, verify

Grader = Callable[[str, str], bool]
FILTERS = {"regex": RegexFilter, "multi_choice_regex": MultiChoiceRegexFilter}


class Loader(yaml.SafeLoader):
    """Task files name Python functions; they are not needed here."""


Loader.add_constructor("!function", lambda loader, node: None)


def math_verify(gold: str, response: str) -> bool:
    return bool(verify(parse(f"${gold}$"), parse(response)))


def lm_eval_task(file: str, name: str) -> Grader:
    """A filter of one of lm-eval's tasks with the task's own metric."""
    config = yaml.load((Path(lm_eval.__file__).parent / "tasks" / file).read_text(), Loader)  # noqa: S506  safe, as above
    (steps,) = (one["filter"] for one in config["filter_list"] if one["name"] == name)
    settings = {k: v for k, v in steps[0].items() if k != "function"}
    extract = FILTERS[steps[0]["function"]](**settings)
    (metric,) = config["metric_list"]
    how = {k: v for k, v in metric.items() if k in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    until = config["generation_kwargs"]["until"]

    def grade(gold: str, response: str) -> bool:
        said = response
        for stop in until:
            said = said.split(stop)[0]
        doc = {"choices": [f"\0{n}" for n in range(10)]}  # the texts of the choices are not known
        ((found,),) = list(extract.apply([[said]], [doc]))
        target = f"({gold.strip('(). ').upper()})" if isinstance(extract, MultiChoiceRegexFilter) else gold
        return bool(exact_match_hf_evaluate([found], [target], **how)["exact_match"])

    return grade


def lm_eval_minerva(metric: str) -> Grader:
    def grade(gold: str, response: str) -> bool:
        doc = {"answer": minerva.normalize_final_answer(gold), "solution": f"\\boxed{{{gold}}}"}
        return bool(minerva.process_results(doc, [response])[metric])

    return grade


def inspect(scorer: Any) -> Grader:
    def grade(gold: str, response: str) -> bool:
        state = TaskState("none", 1, 1, "", [], output=ModelOutput.from_content("none", response))
        return bool(asyncio.run(scorer(state, Target([gold]))).value == CORRECT)

    return grade


@cache
def graders(kind: str) -> dict[str, Grader]:
    """Those that read a kind of answer."""
    if kind == "number":
        return {
            "math-verify": math_verify,
            "lm-eval gsm8k, strict": lm_eval_task("gsm8k/gsm8k.yaml", "strict-match"),
            "lm-eval gsm8k, flexible": lm_eval_task("gsm8k/gsm8k.yaml", "flexible-extract"),
            "Inspect match, numeric": inspect(match(numeric=True)),
        }
    if kind == "math":
        return {
            "math-verify": math_verify,
            "lm-eval minerva_math, exact_match": lm_eval_minerva("exact_match"),
            "lm-eval minerva_math, math_verify": lm_eval_minerva("math_verify"),
            "Inspect math": inspect(inspect_math()),
        }
    if kind == "option":
        return {
            "lm-eval mmlu_pro": lm_eval_task("mmlu_pro/_default_template_yaml", "custom-extract"),
            "lm-eval gpqa, flexible": lm_eval_task("gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml", "flexible-extract"),
            "Inspect answer, letter": inspect(answer("letter")),
        }
    if kind == "text":
        return {
            "lm-eval bbh": lm_eval_task("bbh/cot_fewshot/_cot_fewshot_template_yaml", "get-answer"),
            "Inspect answer, line": inspect(answer("line")),
            "Inspect match": inspect(match()),
        }
    return {}


def main() -> None:
    for line in Path(sys.argv[1]).read_text(encoding="utf-8").split("\n"):
        if not line:
            continue
        pair = json.loads(line)
        for name, grade in graders(pair["kind"]).items():
            try:
                right = grade(pair["gold"], pair["response"])
            except Exception as error:  # noqa: BLE001  counted as not right, and told
                print(f"{pair['id']}: {name} raised {type(error).__name__}: {error}", file=sys.stderr)
                right = False
            print(json.dumps({"id": pair["id"], "grader": name, "right": right}), flush=True)


if __name__ == "__main__":
    main()
