#!/usr/bin/env bash
# lm-eval 0.4.13: HFLM's cache of logits (on by default) scores a text wrongly where the same text is split at two places.
#
# Documented: "Whether to cache and reuse logits across requests that share the same context" (logits_cache, docstring of HFLM). Seen: requests
# are grouped by context + continuation[:-1], wherever the context ends; a request for one token is answered from the forward of one for a
# longer continuation over the same tokens, whose logits begin at another place, and the first of them is read where the last is meant. So
# a valid pair of requests is scored otherwise than with logits_cache=False, by many nats, and nothing is said. For a user: turn the cache
# off where a choice can begin as another one's context goes on.
# Output, 2026-11-28:
#     lm_eval 0.4.13: log p(w10 | w5 w6 w7 w8) is -227.1; with the cache -245.8, without -227.1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 accelerate==1.15.0 peft==0.21.2 lm_eval==0.4.13
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2> /dev/null
import importlib.metadata

import torch
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

torch.manual_seed(0)
lm = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_layer=2, n_head=2, n_embd=32)).eval()
with torch.no_grad():
    for p in lm.parameters():
        p.mul_(20)
words = Tokenizer(WordLevel({f"w{i}": i for i in range(50)}, unk_token="w0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0", pad_token="w0")
# The same four tokens before the last one: asked for three tokens after two, and for one after four.
asked = [(("", "a"), [5, 6], [7, 8, 9]), (("", "b"), [5, 6, 7, 8], [10])]
with torch.no_grad():
    right = float(torch.log_softmax(lm(torch.tensor([[5, 6, 7, 8]])).logits[0, -1], -1)[10])


def scored(cache):
    return HFLM(lm, tokenizer=tokenizer, logits_cache=cache)._loglikelihood_tokens(asked)[1][0]


on, off = scored(True), scored(False)
print(f"lm_eval {importlib.metadata.version('lm_eval')}: log p(w10 | w5 w6 w7 w8) is {right:.1f}; with the cache {on:.1f}, without {off:.1f}")
raise SystemExit(0 if abs(off - right) < 0.01 and abs(on - right) > 1 else 1)  # 1: it has been mended
PYTHON
