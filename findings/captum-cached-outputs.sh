#!/usr/bin/env bash
# captum 0.9.0: with transformers 5.24.0 LLMAttribution's default attributes all words but the first to a wrong text.
#
# Documented: LLMAttribution.attribute has use_cached_outputs=True by default, "whether to use cached outputs when
# generating tokens in sequence", which is to cost less and change nothing; captum asks for no version of transformers.
# Seen: for each target word after the first captum calls the model's prepare_inputs_for_generation with all tokens and
# the cache, and leaves it to that function to cut off those that the cache has; in transformers 5 (5.23.0 too) it cuts
# where it is told how many, and captum does not tell. So the prompt and the words so far are read once more behind
# themselves, and the log-probabilities that are attributed are of that text. In a target of one word nothing is wrong.
# And `seq_attr_dict` has one entry for a word that the prompt has twice, the last one's. Nothing is said. For a user:
# the attributions of a generated text, its sum's and its words', are of no text that the model wrote, signs included.
# What helps: use_cached_outputs=False, or forward_in_tokens=False; seq_attr with input_tokens.
# Output, 2026-11-30:
#     captum 0.9.0, transformers 5.24.0; 'the cat sat on the mat', target 'and then slept far'
#     LlamaForCausalLM: the target's attributions, expected [0.84, -1.19, 0.97, 0.1, -1.48, -4.57]
#         seen [-3.06, -1.6, -0.33, 0.6, -2.45, -3.6], without the cache [0.84, -1.19, 0.97, 0.1, -1.48, -4.57]
#         each target word's are off by up to [0.0, 2.19, 3.07, 1.82]
#     GPT2LMHeadModel: the target's attributions, expected [3.04, 0.08, 0.52, -3.52, 0.37, 0.3]
#         seen [0.33, -0.02, 0.46, -2.72, 0.6, -1.19], without the cache [3.04, 0.08, 0.52, -3.52, 0.37, 0.3]
#         each target word's are off by up to [0.0, 0.71, 2.27, 1.0]
#     seq_attr_dict of the six words: ['the', 'cat', 'sat', 'on', 'mat']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 captum==0.9.0
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import torch
from captum.attr import FeatureAblation, LLMAttribution, TextTokenInput
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
words = {word: place for place, word in enumerate("[UNK] the cat sat on mat dog ran far and then slept".split())}
inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
inner.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[UNK]")
common = dict(vocab_size=len(words), initializer_range=0.3, bos_token_id=0, eos_token_id=0)
llama = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
networks = [
    LlamaForCausalLM(LlamaConfig(**llama, **common)),
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **common)),
]
PROMPT, TARGET = "the cat sat on the mat", "and then slept far"


def right(model):
    """How much lower each target word's log-probability is with a prompt's word replaced by [UNK], in one pass each."""
    asked, answer = (torch.tensor(inner.encode(text).ids) for text in (PROMPT, TARGET))

    def logprobs(ids):
        with torch.no_grad():
            table = model(torch.cat([ids, answer])[None]).logits[0].log_softmax(-1)
        return table[range(len(ids) - 1, len(ids) + len(answer) - 1), answer]

    return torch.stack([logprobs(asked) - logprobs(asked.index_fill(0, torch.tensor([place]), 0))
                        for place in range(len(asked))], dim=1)


def rounded(values):
    return [round(one, 2) for one in values.tolist()]


print(f"captum {version('captum')}, transformers {version('transformers')}; {PROMPT!r}, target {TARGET!r}")
checks = []
for model in networks:
    model.eval()
    attribution, expected = LLMAttribution(FeatureAblation(model), tokenizer), right(model)
    given = TextTokenInput(PROMPT, tokenizer)
    plain = attribution.attribute(given, target=TARGET, use_cached_outputs=False)
    seen = attribution.attribute(given, target=TARGET)
    off = (seen.token_attr - expected).abs().amax(1)
    checks.append(float((plain.token_attr - expected).abs().max()) < 1e-3 and off[0] < 1e-3 and min(off[1:]) > 0.5)
    print(f"{type(model).__name__}: the target's attributions, expected {rounded(expected.sum(0))}")
    print(f"    seen {rounded(seen.seq_attr)}, without the cache {rounded(plain.seq_attr)}")
    print(f"    each target word's are off by up to {rounded(off)}")
print("seq_attr_dict of the six words:", list(seen.seq_attr_dict))
raise SystemExit(0 if all(checks) and len(seen.seq_attr_dict) == 5 else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
