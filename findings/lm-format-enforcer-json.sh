#!/usr/bin/env bash
# lm-format-enforcer 0.11.3: {"a": 1,} and 1.e5 pass for JSON, -0.5 for an integer, 57 for at most 10; a choice is cut.
#
# Documented: "Using this library guarantees that the output will match the format"; "Supports JSON Schema" with "both
# required and optional fields". Seen: after a comma an object may end wherever no required key is missing, so that a
# comma trails; an exponent may follow a decimal point; an integer may be -0.5 or 5e-1; minimum and maximum are not
# looked at; a string of an enum that holds a quotation mark cannot be written, and what comes before the mark passes
# for it; and a pattern must match from the first to the last character, where JSON Schema looks for it anywhere. What
# JSON does not have is allowed and what the schema does have forbidden, and nothing is said. For a user: a share of
# constrained answers is no JSON and counts as the model's failure, or is a value out of the schema. What helps:
# required for all fields, no quotation marks in choices, ".*" about a pattern, and a validator behind the decoder.
# Output, 2026-11-30:
#     lm-format-enforcer 0.11.3: valid, allowed
#     {"a": 1}                 True  True  by {"type": "integer"}
#     {"a": 1, "b": 2}         True  True  by {"type": "integer"}
#     {"a": 1, "b": "x"}       False False by {"type": "integer"}
#     {"a": 1,}                False True  by {"type": "integer"}
#     {"a": 1, "b": 2          False False by {"type": "integer"}
#     {"a": -0.5}              False True  by {"type": "integer"}
#     {"a": 5e-1}              False True  by {"type": "integer"}
#     {"a": 1.e5}              False True  by {"type": "number"}
#     {"a": 57}                False True  by {"type": "integer", "minimum": 0, "maximum": 10}
#     {"a": "yes"}             True  True  by {"enum": ["say \"no\"", "yes"]}
#     {"a": "say "}            False True  by {"enum": ["say \"no\"", "yes"]}
#     {"a": "say \"no\""}      True  False by {"enum": ["say \"no\"", "yes"]}
#     {"a": "a cat"}           True  False by {"type": "string", "pattern": "cat"}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lm-format-enforcer==0.11.3 jsonschema==4.26.0
cd "$folder"
cat > tried.py <<'PYTHON'
import json
from importlib.metadata import version

import jsonschema
from lmformatenforcer import JsonSchemaParser


def allowed(schema, text):
    """Whether a model could write the text: each character is allowed after those before it, and the end after all."""
    parser = JsonSchemaParser(schema)
    for character in text:
        if character not in parser.get_allowed_characters():
            return False
        parser = parser.add_character(character)
    return parser.can_end()


def valid(schema, text):
    """Whether the text is JSON of the schema."""
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def with_a(**kind):
    """A schema of an object with the key a, which is required, and b, which is not."""
    return {"type": "object", "properties": {"a": kind, "b": {"type": "integer"}}, "required": ["a"]}


integer, choice = with_a(type="integer"), with_a(enum=['say "no"', "yes"])
print(f"lm-format-enforcer {version('lm-format-enforcer')}: valid, allowed")
rows = []
for schema, text in ((integer, '{"a": 1}'), (integer, '{"a": 1, "b": 2}'), (integer, '{"a": 1, "b": "x"}'),
                     (integer, '{"a": 1,}'), (integer, '{"a": 1, "b": 2'), (integer, '{"a": -0.5}'),
                     (integer, '{"a": 5e-1}'), (with_a(type="number"), '{"a": 1.e5}'),
                     (with_a(type="integer", minimum=0, maximum=10), '{"a": 57}'), (choice, '{"a": "yes"}'),
                     (choice, '{"a": "say "}'), (choice, '{"a": "say \\"no\\""}'),
                     (with_a(type="string", pattern="cat"), '{"a": "a cat"}')):
    rows.append((valid(schema, text), allowed(schema, text)))
    print(f"{text:24} {rows[-1][0]!s:5} {rows[-1][1]!s:5} by {json.dumps(schema['properties']['a'])}")
same = [number for number, (right, seen) in enumerate(rows) if right == seen]
raise SystemExit(0 if same == [0, 1, 2, 4, 9] else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
