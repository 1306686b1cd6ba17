#!/usr/bin/env bash
# peft 0.21.2: under a Lily adapter a token's logits hang on later tokens, on padding and on the other rows of the batch.
#
# Documented: Lily's router "computes a softmax-weighted combination of the B experts to produce the effective B for that layer and input"
# (page Lily); nothing says that a model is no longer causal. Seen: the router's weights are averaged over all positions of all rows of
# the forward, padding included, and one B is used for all of them. So an early token's logits change with what follows it; a text's
# likelihood changes with its neighbours and with padding that the attention mask hides; and decoding with a cache, whose step sees one
# token, is another model than the one that was trained on whole texts. A LoRA on the same layers has none of it. For a user: the loss in
# training sees the future, log-probabilities (RL, DPO, perplexity) depend on the batch, and `generate` gives other tokens than the
# forward's arg max. What helps: one row at a time, without padding and with use_cache=False; nothing mends the look ahead.
# Output, 2026-11-29:
#     peft 0.21.2, largest difference of a token's logits    LoRA    Lily
#     first 5 tokens, another 6th token behind them          0.00    2.29
#     alone, and beside another row                          0.00    1.22
#     alone, and with 4 masked tokens of padding behind      0.00    3.42
#     a last token at once, and as a cached step             0.00    3.24
#     greedy tokens of 12 that differ with a cache              0      11
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 peft==0.21.2
cd "$folder"
cat > tried.py <<'PYTHON'
import peft, torch, transformers

ids, other = torch.tensor([[5, 9, 3, 7, 2, 8]]), torch.tensor([[30, 11, 6, 40, 21, 4]])


def tried(config):
    """Five differences that a causal model does not have."""
    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)).eval()
    for weight in base.parameters():
        if weight.ndim > 1:
            weight.normal_(0, 0.3)
    lm = peft.get_peft_model(base, config).eval()
    for weight in lm.parameters():
        if weight.requires_grad:  # a training's updates are random numbers here
            weight.add_(torch.randn_like(weight) * 0.3)
    alone = lm(ids).logits[0]
    changed = lm(torch.cat([ids[:, :5], other[:, :1]], 1)).logits[0]
    beside = lm(torch.cat([ids, other])).logits[0]
    mask = torch.tensor([[1] * 6 + [0] * 4])
    padded = lm(torch.nn.functional.pad(ids, (0, 4)), attention_mask=mask).logits[0, :6]
    step = lm(ids[:, 5:], past_key_values=lm(ids[:, :5], use_cache=True).past_key_values).logits[0, -1]
    greedy = dict(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    texts = [lm.generate(**greedy, use_cache=cached) for cached in (True, False)]
    pairs = (alone[:5], changed[:5]), (alone, beside), (alone, padded), (alone[-1], step)
    return [float((a - b).abs().max()) for a, b in pairs] + [int((texts[0] != texts[1]).sum())]


names = ["first 5 tokens, another 6th token behind them", "alone, and beside another row",
         "alone, and with 4 masked tokens of padding behind", "a last token at once, and as a cached step"]
layers = dict(target_modules=["q_proj", "v_proj", "down_proj"], r=8, task_type="CAUSAL_LM")
with torch.no_grad():
    lora, lily = tried(peft.LoraConfig(**layers, lora_alpha=8)), tried(peft.LilyConfig(**layers))
print(f"peft {peft.__version__}, largest difference of a token's logits    LoRA    Lily")
for row in zip(names, lora, lily):
    print("{:51} {:7.2f} {:7.2f}".format(*row))
print("{:51} {:7d} {:7d}".format("greedy tokens of 12 that differ with a cache", lora[-1], lily[-1]))
raise SystemExit(0 if max(lora) < 0.01 and min(lily) > 0.1 else 1)  # 1: it has been mended
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
