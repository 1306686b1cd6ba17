#!/usr/bin/env bash
# optillm 0.4.0: entropy decoding's top_p forbids the likeliest tokens and keeps the tail; its min_p does nothing.
#
# Documented: "entropy_decoding" has the "Entropy specific params" top_k and min_p (page of the package), and its
# server hands it the request's top_p; the method is an "adaptive sampling based on the uncertainty of tokens". Seen:
# the probabilities are summed from the least likely token up, and those above top_p are taken away, so that the
# nucleus is the tail: with top_p=0.5 a token of 0.4 among five others is never drawn, and the less top_p is, the
# unlikelier is what is drawn. min_p masks logits whose probabilities were taken before, and changes nothing. Nothing
# is said. For a user: wherever the model is unsure (no token above 1 - top_p, 0.1 by default) the decoding that is to
# be measured leaves out its best guess. What helps: top_p=1, with which top_k alone cuts.
# Output, 2026-11-30:
#     optillm 0.4.0, shares of six tokens
#     their probabilities         0.40  0.25  0.15  0.10  0.06  0.04
#     sampler, top_p=1            0.40  0.25  0.15  0.10  0.06  0.04
#     sampler, top_p=0.5          0.00  0.42  0.24  0.17  0.10  0.07
#     sampler, top_p=0.3          0.00  0.00  0.42  0.29  0.18  0.11
#     sampler, min_p=0.5          0.40  0.25  0.15  0.10  0.06  0.04
#     entropy_decode, top_p=1     0.85  0.13  0.01  0.01  0.00  0.00
#     entropy_decode, top_p=0.5   0.00  0.88  0.11  0.01  0.00  0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps optillm==0.4.0
cd "$folder"
cat > tried.py <<'PYTHON'
import logging
import sys
from importlib.metadata import distribution, version
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

logging.disable(logging.CRITICAL)
sys.modules["transformers"] = MagicMock()  # its names are annotations alone
package = sys.modules["optillm"] = ModuleType("optillm")  # without its server
package.__path__ = [str(distribution("optillm").locate_file("optillm"))]
import torch
from optillm.entropy_decoding import _sample, entropy_decode

probabilities = torch.tensor([0.40, 0.25, 0.15, 0.10, 0.06, 0.04])


class Model:
    """A model that gives these six tokens these probabilities at every step."""

    def to(self, _):
        return self

    def __call__(self, ids, **_):
        logits = probabilities.log().expand(1, ids.shape[1], 6)
        return SimpleNamespace(logits=logits, attentions=[torch.ones(1, 2, 1, 4) / 4], past_key_values=())


class Words:
    chat_template, pad_token_id, eos_token_id = None, 0, 99

    def encode(self, *_, **__):
        return torch.tensor([[1, 2, 3]])

    def decode(self, ids, **_):
        return " ".join(map(str, ids))


def shares(tokens):
    return torch.bincount(tokens.long().flatten(), minlength=6) / tokens.numel()


def drawn(**settings):
    """Of a step of the sampler."""
    torch.manual_seed(0)
    return shares(_sample(probabilities.log().expand(20000, 1, 6), temperature=1.0, top_k=6, **settings))


def written(top_p):
    """Of 300 tokens of a text."""
    chance = torch.Generator().manual_seed(0)
    asked = [{"role": "user", "content": "?"}]
    said = entropy_decode(Model(), Words(), asked, max_new_tokens=300, top_p=top_p, top_k=6, generator=chance)
    return shares(torch.tensor([int(token) for token in said.split()]))


print(f"optillm {version('optillm')}, shares of six tokens")
rows = {"their probabilities": probabilities,
        "sampler, top_p=1": drawn(top_p=1.0), "sampler, top_p=0.5": drawn(top_p=0.5),
        "sampler, top_p=0.3": drawn(top_p=0.3), "sampler, min_p=0.5": drawn(top_p=1.0, min_p=0.5),
        "entropy_decode, top_p=1": written(1.0), "entropy_decode, top_p=0.5": written(0.5)}
for name, row in rows.items():
    print(f"{name:26}", *(f"{float(value):5.2f}" for value in row))
best = [float(rows[name][0]) for name in ("sampler, top_p=0.5", "sampler, top_p=0.3", "entropy_decode, top_p=0.5")]
tail = float(rows["sampler, min_p=0.5"][2:].sum())
as_stated = max(best) == 0 and tail > 0.3 and rows["entropy_decode, top_p=1"][0] > 0.3
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
