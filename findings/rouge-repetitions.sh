#!/usr/bin/env bash
# rouge 1.0.1: an answer that repeats itself eight times has a ROUGE-1 and ROUGE-L of 1.00, as the answer said once has.
#
# Documented: "Full Python ROUGE Score Implementation (not a wrapper)", of which "Results may be *slighlty* different"
# from the official script's. Seen: n-grams and common subsequences are put into sets, so that each counts once in the
# answer and once in its length (`exclusive=True`, of which the page of the package does not tell): repetitions cost
# nothing, and a word said eight times has a precision of 1.00 if it stands in the reference at all; and ROUGE-L is that
# of sets of words within sentences, which sees no order of two sentences. rouge-score, another package, clips counts as
# the measure's paper does. Nothing is said. For a user: loops, the commonest failure of steered and of small models,
# are full marks, and scores of the two packages do not compare. What helps: Rouge(exclusive=False), or rouge-score,
# which differ here in the ROUGE-L of several sentences alone.
# Output, 2026-11-30:
#     rouge 1.0.1, F1 of ROUGE-1, -2, -L; with exclusive=False; by rouge-score 0.1.2
#     the reference            1.00 1.00 1.00   1.00 1.00 1.00   1.00 1.00 1.00
#     another text             0.00 0.00 0.00   0.00 0.00 0.00   0.00 0.00 0.00
#     the reference, 8 times   1.00 0.91 1.00   0.22 0.19 0.22   0.22 0.19 0.22
#     one word of it, 8 times  0.33 0.00 0.33   0.14 0.00 0.14   0.14 0.00 0.14
#     two sentences, turned    1.00 0.67 1.00   1.00 0.67 1.00   1.00 0.67 0.50
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rouge==1.0.1 rouge-score==0.1.2
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

from rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer

other = RougeScorer(["rouge1", "rouge2", "rougeL"])
sentence = "the cat sat on the mat"
print(f"rouge {version('rouge')}, F1 of ROUGE-1, -2, -L; with exclusive=False; by rouge-score {version('rouge-score')}")
rows = {}
for name, answer, reference in (("the reference", sentence, sentence), ("another text", "a dog ran", sentence),
                                ("the reference, 8 times", " ".join([sentence] * 8), sentence),
                                ("one word of it, 8 times", " ".join(["cat"] * 8), sentence),
                                ("two sentences, turned", "It rained. He slept.", "He slept. It rained.")):
    sets, counts = (Rouge(exclusive=kind).get_scores(answer, reference)[0] for kind in (True, False))
    right = other.score(reference, answer)
    rows[name] = [[scores[kind]["f"] for kind in ("rouge-1", "rouge-2", "rouge-l")] for scores in (sets, counts)]
    rows[name].append([right[kind].fmeasure for kind in ("rouge1", "rouge2", "rougeL")])
    print(f"{name:24}", "   ".join(" ".join(f"{value:.2f}" for value in part) for part in rows[name]))
assert Rouge().get_scores("cat cat", sentence) == Rouge(exclusive=True).get_scores("cat cat", sentence)  # the default
seen, _, right = rows["the reference, 8 times"]
word = Rouge().get_scores(" ".join(["cat"] * 8), sentence)[0]["rouge-1"]["p"]
turned = rows["two sentences, turned"]
loops = min(seen[0], seen[2]) > 0.99 and max(right) < 0.3 and word > 0.99
raise SystemExit(0 if loops and turned[0][2] > 0.99 and turned[2][2] < 0.6 else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
