#!/usr/bin/env bash
# transformers 5.24.0: MiniMax's beam search finds texts that are worse than greedy ones, and tells scores that belong to no text: the
# states of its lightning attention stay where they are when beams change places.
#
# Documented: num_beams is the "Number of beams for beam search". Seen: MiniMaxCache holds the states of linear attention beside its
# layers and has methods of its own that repeat and select rows, but none for `reorder_cache`, which moves keys and values alone. From
# the first time that beams change places each goes on from the state of another. With use_cache=False all is right, and so is Llama
# with its cache. Nothing is said. For a user: beams of MiniMax models are texts that the model finds far less likely than it says.
# What helps: use_cache=False, or sampling.
# Output, 2026-11-30:
#     transformers 5.24.0, 8 prompts, 12 tokens: log-probability a token, as told and as a forward of the text finds it
#     MiniMax, 4 beams, cache: told -1.34, found -2.55
#     MiniMax, 4 beams, no cache: told -1.33, found -1.33
#     MiniMax, greedy: told -1.58, found -1.58
#     Llama, 4 beams, cache: told -1.38, found -1.38
#     Llama, 4 beams, no cache: told -1.38, found -1.38
#     Llama, greedy: told -1.52, found -1.52
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
cd "$folder"
cat > tried.py <<'PYTHON'
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, MiniMaxConfig

plain = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
             initializer_range=0.3, bos_token_id=0, eos_token_id=1, pad_token_id=2)
kinds = {"MiniMax": MiniMaxConfig(**plain, head_dim=8, num_local_experts=2), "Llama": LlamaConfig(**plain)}
torch.manual_seed(0)
ids = torch.randint(3, 60, (8, 12))
print(f"transformers {transformers.__version__}, 8 prompts, 12 tokens: log-probability a token, as told and as a forward of the text finds it")
found = {}
for name, config in kinds.items():
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config).eval()
    for beams, cache in ((4, True), (4, False), (1, True)):
        made = lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, min_new_tokens=12, num_beams=beams, use_cache=cache,
                           do_sample=False, output_scores=True, return_dict_in_generate=True)
        with torch.no_grad():
            logprobs = lm(made.sequences, use_cache=False).logits[:, 11:-1].log_softmax(-1)
        truly = logprobs.gather(-1, made.sequences[:, 12:, None]).mean((1, 2))
        told = made.sequences_scores if beams > 1 else truly
        found[name, beams, cache] = told, truly
        how = f"{beams} beams, {'cache' if cache else 'no cache'}" if beams > 1 else "greedy"
        print(f"{name}, {how}: told {told.mean():.2f}, found {truly.mean():.2f}")
gap = {key: float((told - truly).abs().max()) for key, (told, truly) in found.items()}
wrong = gap.pop(("MiniMax", 4, True)) > 0.1
raise SystemExit(0 if wrong and max(gap.values()) < 1e-3 else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
