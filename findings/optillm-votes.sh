#!/usr/bin/env bash
# optillm 0.4.0: majority voting, self-consistency and DeepConf count no answers: one sample wins against the rest.
#
# Documented: majority_voting "selects the most frequent answer"; self_consistency implements the paper of that name;
# deepconf has "Weighted majority voting" (page of the package and get_deepconf_info). Seen: the majority plugin takes
# a Markdown heading ("### Step 1: ...") for the answer and a first word "A" for choice A, before it looks further, so
# that all candidates that begin alike agree and the first is returned; self-consistency puts whole texts that are 80%
# alike by characters into one class, so that solutions that differ in a number are one, and returns the first;
# DeepConf weighs an answer by 0.7 times the mean confidence of its traces, some 10 nats, and 0.3 times its share, at
# most 1, so that a half nat outweighs 127 traces against one, and its answer is what stands behind the last full stop:
# 3.14 and 2.14 are both 14, which is the reply. Nothing is said. For a user: what is measured as majority voting or
# self-consistency is one sample. What helps: draw the samples and count their answers oneself.
# Output, 2026-11-30:
#     optillm 0.4.0, one sample for 194 and then four for 204
#     majority_voting, with headings                 ' \\boxed{194}.'
#     majority_voting, beginning with A              ' \\boxed{194}.'
#     self_consistency                               'The answer is 194.'
#     deepconf, 127 traces for 204 and one for 194   'The answer is 194'
#     deepconf, 5 traces for 3.14, 3 for 2.14        '14'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps optillm==0.4.0
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

for name in ("torch", "torch.nn", "torch.nn.functional", "transformers"):
    sys.modules[name] = MagicMock()  # for counting votes their names are annotations alone
for name in ("optillm", "optillm.plugins", "optillm.deepconf"):  # without its server
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("optillm").locate_file(name.replace(".", "/")))]
sys.modules["optillm"].conversation_logger = None
from optillm.deepconf.processor import DeepConfProcessor, TraceResult
from optillm.plugins.majority_voting_plugin import run as majority_voting
from optillm.self_consistency import advanced_self_consistency_approach as self_consistency


class Client:
    """An OpenAI client whose model says these texts, one after the other."""

    def __init__(self, texts):
        self.texts, self.chat = list(texts), SimpleNamespace(completions=self)

    def create(self, n=1, **_):
        said = [SimpleNamespace(content=self.texts.pop(0)) for _ in range(n)]
        choices = [SimpleNamespace(message=message, finish_reason="stop") for message in said]
        return SimpleNamespace(choices=choices, usage=SimpleNamespace(completion_tokens=1))


headed = "### Step 1: Add\nThe sum is 17.\n\n### Step 2: Multiply\nSo the result is \\boxed{%s}."
article = "A box holds 17 pens, and there are 12 boxes. So the result is \\boxed{%s}."
longer = "Each of 12 boxes holds 8 red and 9 blue pens, 17 in all. Together they hold 12 times 17. The answer is %s."
answers = ["194", "204", "204", "204", "204"]  # what the five samples say
replies = {}
for name, text in (("with headings", headed), ("beginning with A", article)):
    reply, _ = majority_voting("", "How many pens?", Client(text % answer for answer in answers), "model", {"k": 5})
    replies["majority_voting, " + name] = reply[-13:]
reply, _ = self_consistency("", "How many pens?", Client(longer % answer for answer in answers), "model")
replies["self_consistency"] = reply[-18:]


def trace(answer, confidence):
    return TraceResult([], f"We compute it. The answer is {answer}", {"average_confidence": confidence})


vote = DeepConfProcessor(model=None, tokenizer=None).weighted_majority_vote
replies["deepconf, 127 traces for 204 and one for 194"] = vote([trace("204", 10.0)] * 127 + [trace("194", 10.5)])[0]
replies["deepconf, 5 traces for 3.14, 3 for 2.14"] = vote([trace("3.14", 10.0)] * 5 + [trace("2.14", 10.0)] * 3)[0]
print(f"optillm {version('optillm')}, one sample for 194 and then four for 204")
for name, reply in replies.items():
    print(f"{name:46} {reply!r}")
as_stated = all("194" in reply for reply in list(replies.values())[:4]) and list(replies.values())[4] == "14"
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
