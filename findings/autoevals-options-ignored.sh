#!/usr/bin/env bash
# autoevals 0.4.1: ValidJSON takes a schema and validates none; AnswerRelevancy takes an embedding model and uses none.
#
# Documented, in docstrings: `ValidJSON(schema=schema)`, "schema: Optional JSON Schema to validate against",
# "score: 1 if valid JSON (and matches schema if provided), 0 otherwise"; AnswerRelevancy: "embedding_model: Optional
# model to use for embeddings, defaults to text-embedding-3-small" and "strictness: Optional float between 0-1";
# JSONDiff: "Compare JSON objects for structural and content similarity". Seen: the schema given to the constructor is
# kept and never read, and `eval` takes the expected answer for one; the embedding model goes to a scorer's `eval`,
# which drops it, so that ada-002 is asked in every case, and what comes back is not the mean cosine of the RAGAS
# measure but (cosine - 0.7) / 0.3 cut at 0, a scale for ada-002; the strictness and the temperature that the example
# gives to `eval` are dropped too; and to JSONDiff a key that is missing is equal to one that is null. Nothing is said.
# For a user: the rate of valid structured answers is 100%, whatever the schema; scores of two embedding models are the
# same numbers. What helps: ValidJSON.partial(schema=schema)(); EmbeddingSimilarity(model=..., expected_min=0).
# Output, 2026-11-30:
#     autoevals 0.4.1, an answer without the required key, of the wrong type
#     ValidJSON(schema=schema).eval(answer)           1 (0 is right)
#     ValidJSON.partial(schema=schema)().eval(answer) 0
#     AnswerRelevancy(embedding_model='text-embedding-3-large') asks for {'text-embedding-ada-002'}
#     its score where the cosine is 0.60: 0.00, and where it is 0.80: 0.33
#     JSONDiff of {"answer": null} and {}, expected to differ: 1.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check autoevals==0.4.1
cd "$folder"
cat > tried.py <<'PYTHON'
import json
import math
from importlib.metadata import version

from autoevals import ragas, string
from autoevals.json import JSONDiff, ValidJSON

schema = {"type": "object", "properties": {"answer": {"type": "number"}}, "required": ["answer"]}
answer = {"reply": "about seven"}
valid = {"ValidJSON(schema=schema).eval(answer)": ValidJSON(schema=schema).eval(answer).score,
         "ValidJSON.partial(schema=schema)().eval(answer)": ValidJSON.partial(schema=schema)().eval(answer).score}
print(f"autoevals {version('autoevals')}, an answer without the required key, of the wrong type")
for name, score in valid.items():
    print(f"{name:47} {score}" + (" (0 is right)" if score else ""))

QUESTION, asked = "How many?", set()


def replies(cosine):
    """What an OpenAI client would say: a question for the answer, and two embeddings of that cosine."""

    def reply(client, request_type="complete", **args):
        if request_type == "embed":
            asked.add(args["model"])
            same = args["input"] == QUESTION
            return {"data": [{"embedding": [1.0, 0.0] if same else [cosine, math.sqrt(1 - cosine**2)]}]}
        call = {"function": {"arguments": json.dumps({"question": f"What at {cosine}?", "noncommittal": 0})}}
        return {"choices": [{"message": {"tool_calls": [call]}}]}

    return reply


scores = {}
for cosine in (0.6, 0.8):
    string.EmbeddingSimilarity._CACHE.clear()
    ragas.run_cached_request = string.run_cached_request = replies(cosine)
    scorer = ragas.AnswerRelevancy(embedding_model="text-embedding-3-large", client=None)
    scores[cosine] = scorer.eval("Seven.", input=QUESTION, context="Seven.").score
print("AnswerRelevancy(embedding_model='text-embedding-3-large') asks for", asked)
print(f"its score where the cosine is 0.60: {scores[0.6]:.2f}, and where it is 0.80: {scores[0.8]:.2f}")
missing = JSONDiff().eval({"answer": None}, {}).score
print('JSONDiff of {"answer": null} and {}, expected to differ:', missing)
schema_ignored = list(valid.values()) == [1, 0]
model_ignored = asked == {"text-embedding-ada-002"} and scores[0.6] == 0 and abs(scores[0.8] - 1 / 3) < 1e-6
raise SystemExit(0 if schema_ignored and model_ignored and missing == 1 else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
