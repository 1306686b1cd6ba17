#!/usr/bin/env bash
# dialz 1.1.4: visualize_activation gives each token the next token's score, the last one 0, and unsteers the model.
#
# Documented: visualize_activation will "Highlight token activations by projecting hidden states onto a steering vector"
# with "show_score: If True, append numeric score to each token"; get_activation_score gives the "Unaggregated dot
# product scores" of the same tokens. Seen: the text is read without a BOS token, and the hidden state of position i + 1
# is put beside token i, as if there were one: every colour and number stands one token too early, the first token's
# score is nowhere, and the last token has 0.00 whatever it is. Both functions call `reset` and do not set again what
# they took away: the model is unsteered from then on. Nothing is said. For a user: a picture of where a concept is
# active points at the word before it, and texts generated after a score are the base model's under a label "steered".
# What helps: the third value of get_activation_score for the numbers; set_control again after either call.
# Output, 2026-11-30:
#     dialz 1.1.4, a word, its projection, in get_activation_score, in visualize_activation
#     the    0.13   0.13  -0.04
#     cat   -0.04  -0.04  -0.27
#     sat   -0.27  -0.27  -0.08
#     on    -0.08  -0.08   0.08
#     a      0.08   0.08   0.02
#     red    0.02   0.02   0.06
#     mat    0.06   0.06   0.00
#     largest change of a logit by steering: 0.41; after get_activation_score: 0.00
#     largest change of a logit by steering: 0.41; after visualize_activation: 0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==4.57.3 gguf==0.13.0 ipython==9.8.0 \
    python-dotenv==1.2.1 scikit-learn==1.8.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps dialz==1.1.4
cd "$folder"
cat > tried.py <<'PYTHON'
import re
from importlib.metadata import version

import torch
from dialz import SteeringModel, SteeringVector, get_activation_score, visualize_activation
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "the cat sat on a red mat"
words = {word: number for number, word in enumerate(["<unk>", *TEXT.split()])}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<unk>")
torch.manual_seed(0)
config = LlamaConfig(vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                     num_attention_heads=4)
LlamaForCausalLM(config).save_pretrained("model")
tokenizer.save_pretrained("model")

model = SteeringModel("model", layer_ids=[1, 2])
model.model.float()
ids = tokenizer(TEXT, return_tensors="pt").input_ids
chance = torch.Generator().manual_seed(1)
directions = {layer: torch.randn(32, generator=chance).numpy() for layer in (1, 2)}
vector = SteeringVector("llama", directions)
with torch.no_grad():
    # layer 2 is the last one: what it writes is what the final norm reads
    read = []
    hook = model.model.model.norm.register_forward_pre_hook(lambda _, given: read.append(given[0][0]))
    base = model(ids).logits
    hook.remove()
right = (read[0] @ torch.tensor(directions[2])).tolist()
scores = get_activation_score(TEXT, model, vector, layer_index=2)[2][0].tolist()
shown = visualize_activation(TEXT, model, vector, layer_index=2, show_score=True)
shown = [float(score) for score in re.findall(r"\((-?\d+\.\d\d)\)", shown)]
print(f"dialz {version('dialz')}, a word, its projection, in get_activation_score, in visualize_activation")
for row in zip(TEXT.split(), right, scores, shown):
    print("{:4} {:6.2f} {:6.2f} {:6.2f}".format(*row))


def moved():
    """How far the logits are from the base model's."""
    with torch.no_grad():
        return float((model(ids).logits - base).abs().max())


steered = {}
for name, look in (("get_activation_score", get_activation_score), ("visualize_activation", visualize_activation)):
    model.set_control(vector, 5.0)
    steered[name] = moved(), look(TEXT, model, vector, layer_index=2) and moved()
    print("largest change of a logit by steering: {:.2f}; after {}: {:.2f}".format(steered[name][0], name,
                                                                                   steered[name][1]))
close = all(abs(one - other) < 0.006 for one, other in zip(right, scores))
shifted = all(abs(one - other) < 0.006 for one, other in zip([*right[1:], 0.0], shown))
lost = all(before > 0.1 and after == 0 for before, after in steered.values())
raise SystemExit(0 if close and shifted and lost else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
