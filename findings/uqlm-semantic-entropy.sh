#!/usr/bin/env bash
# uqlm 0.6.7: semantic entropy counts an answer in several classes, hangs on the order, and keeps old log-probabilities.
#
# Documented: "Discrete Semantic Entropy" as in the paper that the page of the package names for it (Nature, 2024),
# where two answers mean the same if each entails the other, and each answer is in one class; logprobs_results is None
# by default. Seen: entailment in one direction is enough, so that a vague answer joins two that contradict each other;
# an answer that fits several classes is put into each of them and its probability counted as often; so that the same
# three answers have an entropy of 0 or 0.69 by their order, and 1.10 by the paper. A scorer that was given
# log-probabilities once uses them for later answers that come without any. Nothing is said. For a user: hedged answers
# make contradictions look certain, with a confidence of 1.00; scores of a second call without log-probabilities are of
# the first call's. What helps: a new scorer for each call; for the classes, a subclass of its NLI whose `entailment`
# holds where both directions do.
# Output, 2026-11-30:
#     uqlm 0.6.7, three answers of three meanings, in two orders
#     In France. In Paris. In Lyon. entropy right 1.10, seen 0.00; classes 1, confidence 1.00
#     In Paris. In Lyon. In France. entropy right 1.10, seen 0.69; classes 2, confidence 0.37
#     answers in each class of the second: [[0, 2], [1, 2]]
#     token entropy where no log-probabilities are given, a new scorer: None
#     token entropy where no log-probabilities are given, the scorer used before: 0.056
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pandas==3.1.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps uqlm==0.6.7
cd "$folder"
cat > tried.py <<'PYTHON'
import importlib.abc
import importlib.machinery
import math
import sys
from importlib.metadata import distribution, version
from types import ModuleType
from unittest.mock import MagicMock


class Named(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for packages whose names are annotations or unused here."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("langchain_core", "torch", "transformers", "rich", "IPython"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Named())
for name in ("uqlm", "uqlm.nli", "uqlm.utils", "uqlm.scorers", "uqlm.scorers.baseclass", "uqlm.scorers.shortform",
             "uqlm.scorers.shortform.baseclass"):
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("uqlm").locate_file(name.replace(".", "/")))]
import numpy as np
from uqlm.nli.nli import NLI
from uqlm.scorers.shortform.entropy import SemanticEntropy

facts = {"In Paris.": {"France", "Paris"}, "In Lyon.": {"France", "Lyon"}, "In France.": {"France"}}


class Sure(NLI):
    """An NLI model that is right: a sentence entails those whose facts it has, and the two towns contradict."""

    def __init__(self):
        self.batch_size, self.max_length, self.probabilities = 32, 2000, {}
        self.label_mapping = ["contradiction", "neutral", "entailment"]

    def predict_batch(self, pairs):
        towns = ["France." not in first + then for first, then in pairs]
        entailed = [facts[then] <= facts[first] for first, then in pairs]
        return np.eye(3)[[2 if yes else 0 if apart else 1 for yes, apart in zip(entailed, towns)]] * 0.97 + 0.01


def scored(scorer, answers, logprobs=None):
    """The scorer's data for one question: an answer and those sampled."""
    given = {}
    if logprobs is not None:
        tokens = [[{"logprob": value}] for value in logprobs]
        given = dict(logprobs_results=[tokens[0]], sampled_logprobs_results=[tokens[1:]])
    return scorer.score(responses=answers[:1], sampled_responses=[answers[1:]], show_progress_bars=False, **given).data


print(f"uqlm {version('uqlm')}, three answers of three meanings, in two orders")
seen = []
for answers in (["In France.", "In Paris.", "In Lyon."], ["In Paris.", "In Lyon.", "In France."]):
    data = scored(SemanticEntropy(nli=Sure()), answers)
    seen.append(data["discrete_entropy_values"][0])
    print(*answers, f"entropy right {math.log(3):.2f}, seen {seen[-1]:.2f};",
          f"classes {data['num_semantic_sets'][0]}, confidence {data['discrete_confidence_scores'][0]:.2f}")
clusters = SemanticEntropy(nli=Sure()).clusterer.cluster_responses(["In Paris.", "In Lyon.", "In France."])[1]
print("answers in each class of the second:", [list(one) for one in clusters])

used = SemanticEntropy(nli=Sure())
scored(used, ["In Paris.", "In Lyon."], [math.log(0.99), math.log(0.01)])
later = {"a new scorer": scored(SemanticEntropy(nli=Sure()), ["In Lyon.", "In Paris."]),
         "the scorer used before": scored(used, ["In Lyon.", "In Paris."])}
for name, data in later.items():
    values = data.get("tokenprob_entropy_values")
    print(f"token entropy where no log-probabilities are given, {name}:", values and round(float(values[0]), 3))
twice = [list(one) for one in clusters] == [[0, 2], [1, 2]]
order = seen[0] < 0.01 and abs(seen[1] - math.log(2)) < 0.01
fresh, stale = (data.get("tokenprob_entropy_values") for data in later.values())
raise SystemExit(0 if twice and order and fresh is None and stale[0] < 0.1 else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
