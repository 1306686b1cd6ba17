#!/usr/bin/env bash
# surprisal 0.1.7: a word's surprisal has pieces of the next word in it, and a batch's shorter texts are infinite.
#
# Documented: "extracting surprisal over a substring": aggregated over the tokens "that best match a span of words", as
# in `s[3:6, "word"]`; of a batch each text is printed with its own tokens (page of the package). Seen: a slice of words
# ends before the last piece of the word that follows, not before its first: "told" before "unbelievable" is told + un +
# believ. Texts that are shorter than the longest of their batch go on in the end token, each with an infinite surprisal
# (the padding's logit is set to minus infinity), so that their sums and means, and those of their last word, are
# infinite. And where a tokenizer puts its own first token (Llama, Gemma) a second one is put before it: all surprisals
# are of a text that begins with two, and the first one's is in the text's sum and in its first word's. Nothing is said.
# For a user: words that stand before long and rare ones look surprising themselves, and means over a batch are
# infinite. What helps: one text a call, `use_bos_token=False` with such tokenizers, and slices of characters.
# Output, 2026-11-30:
#     surprisal 0.1.7, 'the cat told unbelievable stories to me'
#     the word told: expected 2.74, seen 11.63, of the tokens told un ##believ
#     'the cat told' in a batch: expected 10.62, seen inf of 10 tokens; its last word inf
#     where the tokenizer adds <s>: expected 35.23, seen 46.23 of <s> the cat told un ##believ ##able stor ##ies to me
#     as behind two of them: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps surprisal==0.1.7
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from surprisal import CausalHuggingFaceModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

torch.manual_seed(0)
pieces = "<s> </s> [UNK] the cat told un ##believ ##able stor ##ies to me".split()
inner = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
inner.pre_tokenizer = pre_tokenizers.Whitespace()
marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]"}
config = GPT2Config(vocab_size=len(pieces), n_embd=32, n_layer=2, n_head=2, n_positions=32, initializer_range=0.3,
                    bos_token_id=0, eos_token_id=1)
net = GPT2LMHeadModel(config).eval()
text = "the cat told unbelievable stories to me"


def scorer(folder):
    """The package's model of these weights, with the tokenizer as it is by now."""
    net.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=inner, **marks).save_pretrained(folder)
    return CausalHuggingFaceModel(folder)


def right(ids):
    """Each token's surprisal in nats behind those before it, without that of the first, by the same weights."""
    with torch.no_grad():
        logits = net(torch.tensor([ids])).logits[0]
    logits[:, 1] = -torch.inf  # as the package does with the end token
    return (-logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]]).tolist()


plain = scorer("plain")  # adds no token of its own, as GPT-2's
ids = inner.encode(text).ids
expected = right([0, *ids])
surprise = plain.surprise([text])[0]
told = surprise[2:3, "word"]
print(f"surprisal {version('surprisal')}, {text!r}")
print(f"the word told: expected {expected[2]:.2f}, seen {float(told):.2f}, of the tokens", told.text)
short = plain.surprise(["the cat told", text])[0]
total = sum(map(float, short.surprisals))
print(f"'the cat told' in a batch: expected {sum(expected[:3]):.2f}, seen {total} of {len(short.tokens)} tokens;",
      "its last word", float(short[2:3, "word"]))
inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
marked = scorer("marked").surprise([text])[0]  # the tokenizer adds <s>, as Llama's
seen = [float(one) for one in marked.surprisals]
print(f"where the tokenizer adds <s>: expected {sum(expected):.2f}, seen {sum(seen):.2f} of", *marked.tokens)
twice = right([0, 0, *ids])
print("as behind two of them:", max(abs(one - two) for one, two in zip(seen, twice)) < 1e-4)
pieces_in = abs(float(told) - sum(expected[2:5])) < 1e-3
infinite = total == float("inf") and float(short[2:3, "word"]) == float("inf")
two_marks = all(abs(one - two) < 1e-4 for one, two in zip(seen, twice)) and abs(sum(seen) - sum(expected)) > 0.1
raise SystemExit(0 if pieces_in and infinite and two_marks else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
