#!/usr/bin/env bash
# lighteval 0.13.0: chrF and TER of a corpus are those of its first sentence; answers never right have an F1 of 0.33.
#
# Documented: corpus metrics "are not computed at the individual item level, but over all the corpus", "by using the
# sacrebleu implementation"; CorpusLevelF1Score will "compute multi f1 corpus score" (metrics_corpus.py). Seen:
# sacrebleu takes a list of reference streams, and is given a list of each item's references, but for BLEU; so all
# items' references are alternatives for the first prediction, and no other prediction is looked at. The F1 of more
# than two classes is the mean of each class's micro average over "it" and "not it", which is an accuracy. Nothing is
# said. For a user: two of the three scores of every translation task (sacrebleu:...) hang on one sentence, and CB's
# mf1 is 1/3 for a model that is never right and 5/9 for guesses. What helps: sacrebleu and scikit-learn on the saved
# details.
# Output, 2026-11-30:
#     lighteval 0.13.0, a translation of three sentences, the first of which is right
#     chrf    right   36.9, seen  100.0
#     chrf++  right   38.5, seen  100.0
#     ter     right   65.0, seen    0.0
#     mf1 of three classes, where no answer is right: right 0.00, seen 0.33
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 sacrebleu==2.6.0 scikit-learn==1.9.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps lighteval==0.13.0
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

for name in ("lighteval", "lighteval.metrics", "lighteval.utils"):  # without its models
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("lighteval").locate_file(name.replace(".", "/")))]
for name in ("lighteval.metrics.sample_preparator", "lighteval.utils.utils"):
    sys.modules[name] = MagicMock()  # annotations, and a function that makes a list of what is none
sys.modules["lighteval.utils.utils"].as_list = lambda value: value if isinstance(value, list) else [value]
import sacrebleu
from lighteval.metrics.metrics_corpus import CorpusLevelF1Score, CorpusLevelTranslationMetric
from sklearn.metrics import f1_score

golds = ["The cat is asleep on the mat.", "It will rain in the north tomorrow.", "She has sold the old house."]
preds = ["The cat is asleep on the mat.", "Nobody knows.", "Qwerty."]
items = [SimpleNamespace(golds=[gold], preds=[pred]) for gold, pred in zip(golds, preds)]
print(f"lighteval {version('lighteval')}, a translation of three sentences, the first of which is right")
rows = {}
for name, metric in (("chrf", sacrebleu.CHRF()), ("chrf++", sacrebleu.CHRF(word_order=2)), ("ter", sacrebleu.TER())):
    rows[name] = metric.corpus_score(preds, [golds]).score, CorpusLevelTranslationMetric(name).compute_corpus(items)
    print(f"{name:7} right {rows[name][0]:6.1f}, seen {rows[name][1]:6.1f}")

right, seen = [0, 1, 2] * 10, [1, 2, 0] * 10  # never right
pairs = [SimpleNamespace(golds=gold, preds=pred) for gold, pred in zip(right, seen)]
metric = CorpusLevelF1Score(average="micro", num_classes=3)  # as Metrics.multi_f1_numeric has it
f1 = f1_score(right, seen, average="macro", zero_division=0), metric.compute_corpus(pairs)
print(f"mf1 of three classes, where no answer is right: right {f1[0]:.2f}, seen {f1[1]:.2f}")
right, seen = zip(*rows.values())
first = min(seen[:2]) > 99 and seen[2] == 0 and max(right[:2]) < 60 < right[2]
raise SystemExit(0 if first and f1[0] == 0 and f1[1] > 0.3 else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
