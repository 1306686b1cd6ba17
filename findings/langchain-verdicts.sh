#!/usr/bin/env bash
# langchain-classic 1.0.8: "No word is wasted ... **Y**" is an N, "not met, unfortunately" a Y, "not correct." is right.
#
# Documented: CriteriaEvalChain is an "LLM Chain for evaluating runs against criteria", with a score of 1 or 0, and asks
# its judge for "the single character "Y" or "N" ... on its own line"; QAEvalChain asks to "score the student answer as
# either CORRECT or INCORRECT". Seen: a reply that ends in the letter y or n, of any word, is that verdict; if none
# stands there, a reply that begins with the letter Y or N, of any word ("Now", "You", "No sentence is"), is; the
# alternative that asks for a word of its own is behind both. In QA a reply's last word is taken where no "grade:
# correct" stands in it, so that "not correct." has full marks, as does a reply that begins "Correct would be". Nothing
# is said. For a user: judges that write bold letters, a full stop or a closing sentence are graded by their prose's
# first or last letter. What helps: a parser of your own in from_llm(..., output_parser=...) that takes a whole line and
# refuses the rest; load_evaluator("score_string"), which refuses replies without [[...]].
# Output, 2026-11-30:
#     langchain-classic 1.0.8
#     criteria, right 1, seen 1: 'The answer is short and plain.\n\nY\nY'
#     criteria, right 1, seen 0: 'No word is wasted: the criterion is met.\n\n**Y**'
#     criteria, right 1, seen 0: 'Nothing could be cut, so it is concise.\n\nFinal verdict: Y.'
#     criteria, right 0, seen 1: 'You asked for conciseness; this is far too long.\n\n**N**'
#     criteria, right 0, seen 1: 'It repeats itself. The criterion is not met, unfortunately'
#     criteria, right 1, seen 0: 'The criterion is met in my opinion'
#     qa, right 1, seen 1: 'CORRECT'
#     qa, right 0, seen 0: 'INCORRECT'
#     qa, right 0, seen 1: "The student's answer is not correct."
#     qa, right 0, seen 1: '5 is anything but correct'
#     qa, right 0, seen 1: 'Correct would be 4, and the student says 5.'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check langchain-classic==1.0.8
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

from langchain_classic.evaluation import CriteriaEvalChain, CotQAEvalChain, QAEvalChain
from langchain_core.language_models.fake import FakeListLLM

question = dict(input="What is 2 + 2?", prediction="It is 4.")
criteria = {  # what the judge says, and what that is
    "The answer is short and plain.\n\nY\nY": 1,
    "No word is wasted: the criterion is met.\n\n**Y**": 1,
    "Nothing could be cut, so it is concise.\n\nFinal verdict: Y.": 1,
    "You asked for conciseness; this is far too long.\n\n**N**": 0,
    "It repeats itself. The criterion is not met, unfortunately": 0,
    "The criterion is met in my opinion": 1,
}
answers = {
    "CORRECT": 1,
    "INCORRECT": 0,
    "The student's answer is not correct.": 0,
    "5 is anything but correct": 0,
    "Correct would be 4, and the student says 5.": 0,
}
print(f"langchain-classic {version('langchain-classic')}")
verdicts = []
for reply, right in criteria.items():
    chain = CriteriaEvalChain.from_llm(llm=FakeListLLM(responses=[reply]), criteria="conciseness")
    seen = chain.evaluate_strings(**question)["score"]
    verdicts.append((right, seen))
    print(f"criteria, right {right}, seen {seen}: {reply!r}")
question.update(prediction="It is 5.", reference="4")
for reply, right in answers.items():
    both = [kind.from_llm(llm=FakeListLLM(responses=[reply])).evaluate_strings(**question)["score"]
            for kind in (QAEvalChain, CotQAEvalChain)]
    assert both[0] == both[1]
    verdicts.append((right, both[0]))
    print(f"qa, right {right}, seen {both[0]}: {reply!r}")
plain = [verdicts[0], *verdicts[6:8]]
others = verdicts[1:6] + verdicts[8:]
as_stated = all(right == seen for right, seen in plain) and all(seen == 1 - right for right, seen in others)
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
