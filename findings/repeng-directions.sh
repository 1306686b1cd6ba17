#!/usr/bin/env bash
# repeng 0.4.0: the default method takes away the very difference that it looks for, and the last layer's vector is of another space.
#
# Documented: `ControlVector.train` finds directions "using the provided dataset" of positive and negative texts, `method` is `pca_diff`
# or `pca_center`, by default the first; a vector of layer i is added to the output of block i. Seen: `pca_diff` gives the differences
# (positive less negative) to scikit-learn's PCA, which subtracts their mean first, and that mean is what positive texts have in common
# against negative ones: what is left is the direction in which pairs differ from each other. (In arXiv 2310.01405 the differences have
# random signs, so that their mean is nought.) `pca_center` is right. And the last layer's states are `hidden_states[-1]`, which
# transformers gives after the final norm, while the vector is added before it. For a user: the default vector may have nothing to do
# with the contrast, the more so the cleaner the contrast is; that the sign is set right afterwards hides it.
# Output, 2026-11-30:
#     repeng 0.4.0
#     pca_diff: cosine with the planted contrast 0.00
#     pca_center: cosine with the planted contrast 1.00
#     read states less the output of the block that the vector is added to: 0.0e+00 in block 1, 2.3 in the last
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check repeng==0.4.0 numpy==1.26.4 transformers==4.57.6
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
from importlib.metadata import version

import numpy as np
import torch
from repeng import ControlVector, DatasetEntry
from repeng.extract import batched_get_hiddens
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = {word: place for place, word in enumerate(["<pad>", "good", "bad", *(f"w{i}" for i in range(61))])}
split = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
split.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=split, pad_token="<pad>")
torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
model = LlamaForCausalLM(config).eval()
pairs = [DatasetEntry(f"w{i % 61} w{i * 7 % 61} good", f"w{i % 61} w{i * 7 % 61} bad") for i in range(200)]

# States with a planted contrast of length 10 along the first axis; single pairs differ from each other by 1 along the second.
noise = np.random.default_rng(0)


def planted(hiddens):
    contrast, own = np.eye(64)[:2]
    for layer, states in hiddens.items():
        for i in range(0, len(states), 2):
            shared = noise.normal(size=64)
            states[i] = shared + 5 * contrast + 0.5 * noise.normal() * own + 0.01 * noise.normal(size=64)
            states[i + 1] = shared - 5 * contrast - 0.5 * noise.normal() * own + 0.01 * noise.normal(size=64)
    return hiddens


print("repeng", version("repeng"))
cosine = {}
for method in ("pca_diff", "pca_center"):
    vector = ControlVector.train(model, tokenizer, pairs, method=method, transform_hiddens=planted)
    cosine[method] = max(abs(float(one[0]) / np.linalg.norm(one)) for one in vector.directions.values())
    print(f"{method}: cosine with the planted contrast {cosine[method]:.2f}")

states = {}
hooks = [block.register_forward_hook(lambda _, __, out, i=i: states.update({i: out[0] if isinstance(out, tuple) else out}))
         for i, block in enumerate(model.model.layers)]
read = batched_get_hiddens(model, tokenizer, ["w1 w2 good"], [1, 2], 1)
apart = {i: float(np.abs(read[i][0] - states[i][0, -1].float().detach().numpy()).max()) for i in (1, 2)}
print(f"read states less the output of the block that the vector is added to: {apart[1]:.1e} in block 1, {apart[2]:.1f} in the last")
raise SystemExit(0 if cosine["pca_diff"] < 0.3 and cosine["pca_center"] > 0.95 and apart[1] < 1e-5 < 0.1 < apart[2] else 1)
PYTHON
