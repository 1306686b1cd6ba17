#!/usr/bin/env bash
# opencompass 0.5.4: right answers are read as others: 57,500 as 500, 3.14 as 3, \boxed{C} as the B of "Because".
#
# Documented: first_option_postprocess is to "Find first valid option for text" (docstring), and GSM8K is scored by the
# answer, of whose gold text the commas are removed. Seen: from the model's text no comma is removed before the last
# number is taken, in gsm8k_postprocess, which 15 of the package's GSM8K configurations name, the default one with them;
# math_postprocess_v2 takes the text up to the first full stop after "answer is", which stands in 3.14 too; and for a
# choice that no phrase of a list matches ("the answer is $\boxed{C}$" is none, "the correct answer is" would be),
# first_option_postprocess takes a capital A of the beginning as choice A, the letters that stand anywhere behind a
# digit 1, or the first capital A, B, C or D of the text, whatever word it begins. 99 configurations name it (MathBench,
# MMLU, GPQA, HellaSwag among them). Nothing is said. For a user: a model that writes thousands with a comma loses each
# such question, and chains of thought are marked by their first words. What helps: a postprocessor of one's own, or
# math-verify's evaluator, and prompts that fix the last line.
# Output, 2026-11-30:
#     opencompass 0.5.4, right answers: what is read, and their accuracy
#     'GSM8K: The answer is 57500.'                                         '57500'   100
#     'GSM8K: The answer is 57,500.'                                          '500'     0
#     'MATH: The answer is $12$.'                                              '12'   100
#     'MATH: The answer is $3.14$.'                                             '3'     0
#     'options: All is even. The correct answer is C.'                          'C'   100
#     'options: Because it is even, the answer is $\\boxed{C}$.'                'B'     0
#     'options: A train needs 3 hours. I choose option D here.'                 'A'     0
#     "options: It is so since 1945, by Bonn's law. It is D.\nDone."            'B'     0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps opencompass==0.5.4
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
import warnings
from importlib.metadata import distribution, version
from types import ModuleType
from unittest.mock import MagicMock

warnings.simplefilter("ignore")
for name in ("opencompass", "opencompass.datasets", "opencompass.utils"):  # without what runs models
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("opencompass").locate_file(name.replace(".", "/")))]
sys.modules["opencompass.utils"].get_data_path = None
for name in ("datasets", "opencompass.openicl", "opencompass.openicl.icl_evaluator", "opencompass.datasets.base",
             "opencompass.registry"):
    sys.modules[name] = MagicMock()
for registry in ("ICL_EVALUATORS", "LOAD_DATASET", "TEXT_POSTPROCESSORS"):  # what is registered stays as it is
    getattr(sys.modules["opencompass.registry"], registry).register_module = lambda *_, **__: lambda one: one


class Base:
    """Stands for the base classes of data sets and evaluators."""

    def __init__(self, **_):
        pass


sys.modules["opencompass.datasets.base"].BaseDataset = Base
for name in ("opencompass.openicl", "opencompass.openicl.icl_evaluator"):
    sys.modules[name].BaseEvaluator = Base
from opencompass.datasets.gsm8k import Gsm8kEvaluator, gsm8k_dataset_postprocess, gsm8k_postprocess
from opencompass.datasets.math import MATHEvaluator, math_postprocess_v2
from opencompass.utils.text_postprocessors import first_option_postprocess


def marked(evaluator, read, text, gold):
    """What is read from the answer, and the accuracy of this one right answer."""
    return read(text), evaluator.score([read(text)], [gold])["accuracy"]


def option(text):
    return first_option_postprocess(text, "ABCD")


print(f"opencompass {version('opencompass')}, right answers: what is read, and their accuracy")
rows = []
for number, gold in (("57500", "57500"), ("57,500", "57,500")):
    text = f"23 times 2,500 is {number}. The answer is {number}."
    rows.append((f"GSM8K: The answer is {number}.", gold,
                 marked(Gsm8kEvaluator(), gsm8k_postprocess, text, gsm8k_dataset_postprocess(f"#### {gold}"))))
for text, gold in (("The answer is $12$.", "12"), ("The answer is $3.14$.", "3.14")):
    rows.append((f"MATH: {text}", gold, marked(MATHEvaluator(version="v2"), math_postprocess_v2, text, gold)))
for text, gold in (("All is even. The correct answer is C.", "C"),
                   ("Because it is even, the answer is $\\boxed{C}$.", "C"),
                   ("A train needs 3 hours. I choose option D here.", "D"),
                   ("It is so since 1945, by Bonn's law. It is D.\nDone.", "D")):
    rows.append((f"options: {text}", gold, (option(text), 100.0 * (option(text) == gold))))
for text, gold, (read, accuracy) in rows:
    print(f"{text!r:62} {read!r:>14} {accuracy:5.0f}")
seen = [accuracy for *_, (_, accuracy) in rows]
raise SystemExit(0 if seen == [100, 0, 100, 0, 100, 0, 0, 0] else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
