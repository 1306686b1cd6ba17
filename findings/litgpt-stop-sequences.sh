#!/usr/bin/env bash
# litgpt 0.5.13: a stop sequence after its own first token does not stop, and in batches its beginning stays.
#
# Documented: "If any of the sequences are generated, the generation stops early"; include_eos says "Whether to output
# the stop tokens if generation stops early" (generate_fn and batched_generate_fn). Seen: a token that does not go on
# with a sequence sets its progress to 0 and is not looked at as its first: of the sequence newline, User the text
# newline, newline, User has nothing found, and the model goes on with the user's turn and the next answer.
# batched_generate_fn leaves out the last token of a stop sequence alone, so that the others are in the answer with
# include_eos=False. Nothing is said. For a user: with sequences like those of the Falcon prompt style an answer that
# is followed by an empty line runs on, and what is scored has turns that are not the model's, or ends in "User". What
# helps: cut the decoded text at the sequences oneself.
# Output, 2026-11-30:
#     litgpt 0.5.13, stop sequences ['end', 'User :', 'newline User']
#     alone, one newline     right 'Hi.'          seen 'Hi.'
#     alone, two newlines    right 'Hi. newline'  seen 'Hi. newline newline User What? Hi.'
#     batch, one newline     right 'Hi.'          seen 'Hi. newline'
#     batch, 'User :' alone  right 'Hi. newline'  seen 'Hi. newline User'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps litgpt==0.5.13
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType
from unittest.mock import MagicMock

for name in ("lightning", "lightning.fabric", "lightning.fabric.plugins"):  # here their names are annotations alone
    sys.modules[name] = MagicMock()
for name in ("config", "constants", "model", "prompts", "tokenizer", "utils"):
    sys.modules[f"litgpt.{name}"] = MagicMock()
for name in ("litgpt", "litgpt.generate"):
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("litgpt").locate_file(name.replace(".", "/")))]
import torch
from litgpt.generate.base import batched_generate_fn, generate_fn

names = ["Hi.", "newline", "User", ":", "What?", "end"]
number = {name: index for index, name in enumerate(names)}
stops = [number["end"]], [number["User"], number[":"]], [number["newline"], number["User"]]  # as litgpt's Falcon style


class Model(torch.nn.Module):
    """A model that says these words, in each row the same."""

    max_seq_length = 64

    def __init__(self, text):
        super().__init__()
        self.text = [number[name] for name in text.split()]

    def forward(self, x, input_pos, **_):
        word = self.text[int(input_pos[-1])]  # the prompt is one token
        return torch.nn.functional.one_hot(torch.tensor([[word]] * len(x)), len(names)) * 100.0


def said(text, sequences, batched=False):
    settings = dict(stop_tokens=sequences, include_prompt=False, include_eos=False)
    if batched:
        prompts = torch.zeros(2, 1, dtype=torch.long)
        rows = batched_generate_fn(Model(text), prompts, 9, sample_args=dict(top_k=1), **settings)
        tokens = [row[0] for row in rows if row[0] is not None]
    else:
        tokens = generate_fn(Model(text), torch.zeros(1, dtype=torch.long), 9, top_k=1, **settings)
    return " ".join(names[int(token)] for token in tokens)


once, twice = "Hi. newline User : What? end end end end", "Hi. newline newline User What? Hi. end end end"
print(f"litgpt {version('litgpt')}, stop sequences", [" ".join(names[token] for token in one) for one in stops])
rows = {"alone, one newline": (said(once, stops), "Hi."), "alone, two newlines": (said(twice, stops), "Hi. newline"),
        "batch, one newline": (said(once, stops, True), "Hi."),
        "batch, 'User :' alone": (said(once, stops[:2], True), "Hi. newline")}
for name, (seen, right) in rows.items():
    print(f"{name:22} right {right!r:14} seen {seen!r}")
seen = [seen for seen, _ in rows.values()]
missed = seen[0] == "Hi." and "User What?" in seen[1]
raise SystemExit(0 if missed and seen[2:] == ["Hi. newline", "Hi. newline User"] else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
