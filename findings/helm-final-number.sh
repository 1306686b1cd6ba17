#!/usr/bin/env bash
# crfm-helm 0.5.16: GSM8K's main metric takes a comma for the final number: "15 eggs, as we saw" is no 15.
#
# Documented: final_number_exact_match "Returns 1 iff the final number in gold and pred match", with "The answer is 15
# eggs." as an example of 1 (docstring); it is the main metric of GSM8K in HELM Lite's schema. Seen: its pattern takes
# any run of digits and commas for a number, a comma alone too, which is what is last in each reply that goes on with
# one, and is compared as empty text; its point stands for any character, so that "30 15" is one number; and numbers are
# compared as text: 15.00 is not 15. Two of the other metrics give marks for nothing: quasi_prefix_exact_match takes the
# gold answer A for an article and removes it, and what is left is the beginning of every reply; and the word, character
# and match error rates of an empty transcript are 0, the best there is. Nothing is said. For a user: models that say a
# word after the number, or write dollars and cents, have less in GSM8K than those that stop; of questions whose answer
# is the letter A all are right. What helps: the raw completions, scored by an extractor of one's own.
# Output, 2026-11-30:
#     crfm-helm 0.5.16, final_number_exact_match with the gold answer 'The answer is 15.'
#     'The answer is 15 eggs.'             1
#     'The answer is 15 eggs, as we saw.'  0
#     '15 eggs in all, thanks!'            0
#     'The answer is $15.00.'              0
#     'Of 30 15 are red.'                  0
#     quasi_prefix_exact_match, gold A, replies B, C, I cannot say: 1 1 1
#     quasi_exact_match, gold A, reply the: 1
#     word error rate of an empty transcript, 1 is right: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps crfm-helm==0.5.16
cd "$folder"
cat > tried.py <<'PYTHON'
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from importlib.metadata import distribution, version
from types import ModuleType
from unittest.mock import MagicMock


class Named(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for what the module of the metrics names and these metrics do not use."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("helm", "jiwer", "nltk", "numpy", "rouge_score"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module):
        pass


name = "helm.benchmark.metrics.evaluate_reference_metrics"
path = str(distribution("crfm-helm").locate_file(name.replace(".", "/") + ".py"))
sys.meta_path.insert(0, Named())
spec = importlib.util.spec_from_file_location(name, path)
metrics = importlib.util.module_from_spec(spec)
spec.loader.exec_module(metrics)

print(f"crfm-helm {version('crfm-helm')}, final_number_exact_match with the gold answer 'The answer is 15.'")
replies = ["The answer is 15 eggs.", "The answer is 15 eggs, as we saw.", "15 eggs in all, thanks!",
           "The answer is $15.00.", "Of 30 15 are red."]
seen = [metrics.final_number_exact_match("The answer is 15.", reply) for reply in replies]
for reply, score in zip(replies, seen):
    print(f"{reply!r:36} {score}")
print("quasi_prefix_exact_match, gold A, replies B, C, I cannot say:",
      *(metrics.quasi_prefix_exact_match("A", reply) for reply in ("B", "C", "I cannot say")))
print("quasi_exact_match, gold A, reply the:", metrics.quasi_exact_match("A", "the"))
print("word error rate of an empty transcript, 1 is right:", metrics.wer_score("fourteen and one", ""))
articles = [metrics.quasi_prefix_exact_match("A", reply) for reply in ("B", "C", "I cannot say")] == [1, 1, 1]
empty = metrics.wer_score("fourteen and one", "") == 0
raise SystemExit(0 if seen == [1, 0, 0, 0, 0] and articles and empty else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
