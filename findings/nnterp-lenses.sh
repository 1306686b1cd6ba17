#!/usr/bin/env bash
# nnterp 1.3.0: its logit lens has no cap or scale of logits, and patchscopes in a batch patch padding of short prompts.
#
# Documented: logit_lens will "Get the probabilities of the next token for the last token of each prompt at each layer"
# of any model that StandardizedTransformer takes; a TargetPromptBatch is there "to handle multiple target prompts with
# potentially different indices to patch". Seen: project_on_vocab is the final norm and the head alone. What the model
# does with its logits then is left out: Gemma 2's cap, Granite's and Cohere's scale; so that at the last layer, where
# the lens is the model, its probabilities are others, sharper ones. index_to_patch counts from the padded batch's
# left edge: a prompt that is shorter than the longest has a padding token patched, and its probabilities are those
# without a patch. Negative indices, the default, are right. Nothing is said; other functions of the package refuse
# positive indices with left padding. For a user: layers at which an answer "is known" are earlier in such a model,
# and patches that seem to do nothing were not made. What helps: the model's cap or scale by hand on
# project_on_vocab's logits, before the softmax; negative indices, or prompts of one length in a batch.
# (With nnsight 0.8 the package cannot be imported; it asks for nnsight 0.6 or later.)
# Output, 2026-11-30:
#     nnterp 1.3.0, nnsight 0.7.0, transformers 5.23.0
#     largest probability of the next token: of the model, of the logit lens at the last layer
#     LlamaForCausalLM      0.529  0.529
#     Gemma2ForCausalLM     0.433  0.968
#     GraniteForCausalLM    0.169  0.557
#     CohereForCausalLM     0.138  0.312
#     index  1, prompt of 7 words: moved by the patch alone 0.029, in a batch 0.029
#     index  1, prompt of 3 words: moved by the patch alone 0.066, in a batch 0.000
#     index -2, prompt of 7 words: moved by the patch alone 0.167, in a batch 0.167
#     index -2, prompt of 3 words: moved by the patch alone 0.066, in a batch 0.066
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 nnsight==0.7.0 nnterp==1.3.0
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import torch
from nnterp import StandardizedTransformer
from nnterp.interventions import TargetPrompt, logit_lens, patchscope_lens
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

TEXT = "the cat sat on a red mat"
words = {word: number for number, word in enumerate(["<unk>", *TEXT.split()])}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>",
                                    padding_side="left")
common = dict(vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=4, initializer_range=0.3, pad_token_id=0, bos_token_id=0, eos_token_id=0)


def wrapped(kind, config):
    """A model with weights of chance, and nnterp's of it."""
    torch.manual_seed(0)
    model = kind(config).eval()
    return model, StandardizedTransformer(model, tokenizer=tokenizer, check_renaming=False, device_map="cpu")


@torch.no_grad()
def probabilities(model, text):
    """The model's probabilities of the next token."""
    return model(**tokenizer(text, return_tensors="pt")).logits[0, -1].softmax(-1)


print(f"nnterp {version('nnterp')}, nnsight {version('nnsight')}, transformers {version('transformers')}")
print("largest probability of the next token: of the model, of the logit lens at the last layer")
tops = {}
for kind, config in ((LlamaForCausalLM, LlamaConfig(**common)),
                     (Gemma2ForCausalLM, Gemma2Config(**common, head_dim=8, final_logit_softcapping=2.0)),
                     (GraniteForCausalLM, GraniteConfig(**common, logits_scaling=8.0)),
                     (CohereForCausalLM, CohereConfig(**common, logit_scale=0.0625))):
    model, bridge = wrapped(kind, config)
    tops[kind] = float(probabilities(model, TEXT).max()), float(logit_lens(bridge, [TEXT])[0, -1].max())
    print("{:20} {:6.3f} {:6.3f}".format(kind.__name__, *tops[kind]))

model, bridge = wrapped(LlamaForCausalLM, LlamaConfig(**common))
prompts = [TEXT, "the cat sat"]
latents = 3 * torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(1))  # layers, prompts, dimensions
moved = {}
for index in (1, -2):
    targets = [TargetPrompt(text, index) for text in prompts]
    batch = patchscope_lens(bridge, latents=latents, target_patch_prompts=targets)
    for row, text in enumerate(prompts):
        alone = patchscope_lens(bridge, latents=latents[:, row:row + 1], target_patch_prompts=targets[row:row + 1])
        base = probabilities(model, text)
        one, many = moved[index, row] = [float((seen - base).abs().max()) for seen in (alone[0], batch[row])]
        length = len(text.split())
        print(f"index {index:2}, prompt of {length} words: moved by the patch alone {one:.3f}, in a batch {many:.3f}")
plain, *others = tops.values()
lens = abs(plain[0] - plain[1]) < 1e-4 and all(seen - right > 0.1 for right, seen in others)
lost = moved.pop((1, 1))
patched = lost[0] > 1e-3 > 1e-5 > lost[1] and all(abs(one - other) < 1e-4 for one, other in moved.values())
raise SystemExit(0 if lens and patched else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
