#!/usr/bin/env bash
# langchain-classic 1.0.8: JSON that breaks off is equal to what it began, and the list [3, 1, 2] is equal to [1, 2, 3].
#
# Documented: JsonEqualityEvaluator is to "Evaluate whether the prediction is equal to the reference after parsing both
# as JSON"; JsonSchemaEvaluator checks "if a given JSON prediction conforms to the provided JSON schema". Seen: the
# prediction is read by a parser for streams, which closes what is open: text cut off at the token limit equals the
# reference, a number of which only the first digits came is another number, and a key without a value is dropped. A
# list is sorted before it is compared, so that a wrong order is right, but within an object it is not; and what is
# text in it counts by its sorted text. true equals 1. JsonValidityEvaluator, of the same module, refuses the same cut
# text. Nothing is said. For a user: tasks that ask for an order (sorting, rankings, steps, moves) have full marks for
# any order, and truncated replies count as complete ones. What helps: json.loads and == of your own, as in
# JsonEqualityEvaluator's place a custom StringEvaluator; or the list in an object, {"answer": [...]}.
# Output, 2026-11-30:
#     langchain-classic 1.0.8, json_equality: right, seen
#     [1, 2, 3]                    and [1, 2, 3]                     True  True
#     [3, 1, 2]                    and [1, 2, 3]                     False True
#     {"order": [3, 1, 2]}         and {"order": [1, 2, 3]}          False False
#     {"answer": 57, "unit": "km"  and {"answer": 57, "unit": "km"}  False True
#     {"answer": 57, "unit":       and {"answer": 57}                False True
#     {"name": "Par                and {"name": "Par"}               False True
#     {"answer": true}             and {"answer": 1}                 False True
#     {"answer": 57 is valid JSON: False; conforms to a schema that asks for an object: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check langchain-classic==1.0.8 jsonschema==4.26.0
cd "$folder"
cat > tried.py <<'PYTHON'
import json
from importlib.metadata import version

from langchain_classic.evaluation import load_evaluator

equal, valid, schema = (load_evaluator(name) for name in ("json_equality", "json_validity", "json_schema_validation"))
wanted = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}


def loads(text):
    """The text's value, and the text itself where it is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


print(f"langchain-classic {version('langchain-classic')}, json_equality: right, seen")
rows = []
for prediction, reference in (("[1, 2, 3]", "[1, 2, 3]"), ("[3, 1, 2]", "[1, 2, 3]"),
                              ('{"order": [3, 1, 2]}', '{"order": [1, 2, 3]}'),
                              ('{"answer": 57, "unit": "km"', '{"answer": 57, "unit": "km"}'),
                              ('{"answer": 57, "unit":', '{"answer": 57}'), ('{"name": "Par', '{"name": "Par"}'),
                              ('{"answer": true}', '{"answer": 1}')):
    right = json.dumps(loads(prediction)) == json.dumps(loads(reference))
    seen = bool(equal.evaluate_strings(prediction=prediction, reference=reference)["score"])
    rows.append((right, seen))
    print(f"{prediction:28} and {reference:29} {right!s:5} {seen}")
cut = '{"answer": 57'
scores = [kind.evaluate_strings(prediction=cut, **more)["score"]
          for kind, more in ((valid, {}), (schema, dict(reference=wanted)))]
print(f"{cut} is valid JSON: {bool(scores[0])}; conforms to a schema that asks for an object: {scores[1]}")
as_stated = rows == [(True, True), (False, True), (False, False), *[(False, True)] * 4] and scores == [0, True]
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
