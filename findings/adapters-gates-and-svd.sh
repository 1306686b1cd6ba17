#!/usr/bin/env bash
# adapters 1.3.0: a gated LoRA of a causal model sees later tokens, and an average by SVD is scaled by r / svd_rank.
#
# Documented: use_gating will "Place a trainable gating module besides the added parameter module to control module
# activation. This is e.g. used for UniPELT"; average_adapter "Adds a new adapter module as weighted average of a set of
# existing adapter modules", "lora_delta_w_svd" by svd_rank, "The rank to be used". Seen: the gate is the mean over all
# positions of the text, later ones included, so that a token's logits hang on what comes after it, and so do the first
# tokens' on the text's length. The average's factors are of the changes before their scale alpha / r, and get alpha /
# svd_rank: at the rank at which two adapters of rank 8 fit without loss, 16, their average is half of itself. Nothing
# is said. For a user: log-likelihoods of gated models, as UniPELT's are, know the answer that they score, and averages
# of several ranks differ in strength first. What helps: no gates in causal models; the averaged adapter's lora_B times
# svd_rank / r.
# Output, 2026-11-30:
#     adapters 1.3.0, transformers 4.57.6
#     LoRA first: logits before the last token change by 0.000 with that token
#     LoRA gated: logits before the last token change by 0.022 with that token
#     average of two LoRAs of rank 8 at rank  4: 2.00 times the best of that rank
#     average of two LoRAs of rank 8 at rank  8: 1.00 times the best of that rank
#     average of two LoRAs of rank 8 at rank 16: 0.50 times the best of that rank
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==4.57.6 adapters==1.3.0
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import adapters
import torch
from adapters import LoRAConfig
from adapters.methods.lora import LoRALinear
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
model = LlamaForCausalLM(config).eval()
adapters.init(model)
for name, gated in (("first", False), ("second", False), ("gated", True)):
    model.add_adapter(name, config=LoRAConfig(r=8, alpha=16, use_gating=gated))
with torch.no_grad():
    for name, weight in model.named_parameters():
        if ".loras." in name:
            weight.copy_(0.4 * torch.randn_like(weight))  # as if they were trained
ids = torch.randint(2, 50, (1, 8))
other = ids.clone()
other[0, -1] = (other[0, -1] + 7) % 50  # the same text but for its last token

print(f"adapters {version('adapters')}, transformers {version('transformers')}")
seen = {}
for name in ("first", "gated"):
    model.set_active_adapters(name)
    with torch.no_grad():
        moved = float((model(ids).logits - model(other).logits)[0, :-1].abs().max())
    seen[name] = moved
    print(f"LoRA {name}: logits before the last token change by {moved:.3f} with that token")


def change(name):
    """What the adapter adds to the first weight that it adapts."""
    layer = next(layer for layer in model.modules() if isinstance(layer, LoRALinear) and name in layer.loras)
    lora = layer.loras[name]
    return (lora.delta_w * lora.scaling).detach()


mean = (change("first") + change("second")) / 2
left, sizes, right = torch.linalg.svd(mean)
ratios = {}
for rank in (4, 8, 16):
    model.average_adapter(f"rank {rank}", ["first", "second"], weights=[0.5, 0.5], combine_strategy="lora_delta_w_svd",
                          svd_rank=rank)
    best = left[:, :rank] @ torch.diag(sizes[:rank]) @ right[:rank]
    ratios[rank] = float((change(f"rank {rank}") * best).sum() / best.square().sum())
    print(f"average of two LoRAs of rank 8 at rank {rank:2}: {ratios[rank]:.2f} times the best of that rank")
gates = seen["first"] == 0 and seen["gated"] > 1e-3
scales = all(abs(ratio - 8 / rank) < 1e-3 for rank, ratio in ratios.items())
raise SystemExit(0 if gates and scales else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
