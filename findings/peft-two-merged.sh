#!/usr/bin/env bash
# peft 0.21.2: two OFT adapters are merged in the other order than they run; OSF runs one, merges two, and twice.
#
# Documented: set_adapter takes a list of adapters for several at once; merge_and_unload "merges the adapter layers into
# the base model", which "is needed if someone wants to use the base model as a standalone model"; disable_adapter is
# the "Context manager that disables the adapter module. Use this to run inference on the base model." Seen: two active
# OFT adapters turn a layer's input by the first and then by the second; merging multiplies the weights by the first and
# then by the second, which is the other way round, and rotations do not commute: the merged model is that of the two in
# reverse. HRA, BOFT and RoAd, which do not commute either, are right. OSF runs the first active adapter alone and
# merges all; merge_adapter once more adds its change a second time, where other methods warn that nothing is left; and
# while it is merged, disable_adapter changes nothing, where other methods take the change out. Nothing is said. For a
# user: what was measured is not what was merged, and the "base model" that a KL term or a comparison is computed
# with is the trained one. What helps: merge OFT adapters in the reverse order by adapter_names; OSF once, and one.
# Output, 2026-11-30:
#     peft 0.21.2: largest difference of logits
#           two merged from both  from the reverse   one merged twice from it   one merged, disabled from the base
#     LoRA                 0.000             0.000                      0.000                                0.000
#     HRA                  0.000             0.004                      0.000                                0.000
#     BOFT                 0.000             0.008                      0.000                                0.000
#     OFT                  0.014             0.000                      0.000                                0.000
#     OSF                  0.061             0.079                      0.081                                0.084
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 peft==0.21.2
cd "$folder"
cat > tried.py <<'PYTHON'
import copy

import peft
import torch
from peft import BOFTConfig, HRAConfig, LoraConfig, OFTConfig, OSFConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

SETTINGS = dict(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
CONFIGS = {"LoRA": LoraConfig(r=4, **SETTINGS), "HRA": HRAConfig(r=4, **SETTINGS),
           "BOFT": BOFTConfig(boft_block_size=4, **SETTINGS), "OFT": OFTConfig(oft_block_size=4, r=0, **SETTINGS),
           "OSF": OSFConfig(**SETTINGS)}
ids = torch.arange(5, 14)[None]


def logits(model):
    with torch.no_grad():
        return model(ids).logits


def apart(one, other):
    """The largest difference of two models' logits."""
    return float((one - other).abs().max())


print(f"peft {peft.__version__}: largest difference of logits")
print("      two merged from both  from the reverse   one merged twice from it   one merged, disabled from the base")
rows = {}
for name, config in CONFIGS.items():
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                        num_attention_heads=4)).eval()
    plain = logits(base)
    model = get_peft_model(base, copy.deepcopy(config)).eval()
    model.add_adapter("second", copy.deepcopy(config))
    alone = {}
    for adapter in ("default", "second"):
        model.set_adapter(adapter)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn_like(parameter)
        alone[adapter] = logits(model)
    model.base_model.set_adapter(["second", "default"])
    reverse = logits(model)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    merged = logits(copy.deepcopy(model).merge_and_unload())
    model.set_adapter("default")
    model.merge_adapter()
    again = copy.deepcopy(model)
    again.merge_adapter()
    with model.disable_adapter():
        off = apart(logits(model), plain)
    rows[name] = apart(merged, both), apart(merged, reverse), apart(logits(again), alone["default"]), off
    print("{:5} {:20.3f} {:17.3f} {:26.3f} {:36.3f}".format(name, *rows[name]))
right = all(max(rows[name][0], *rows[name][2:]) < 1e-4 for name in ("LoRA", "HRA", "BOFT"))
turned = rows["OFT"][0] > 0.005 and max(rows["OFT"][1:]) < 1e-4 and rows["HRA"][1] > 0.001
raise SystemExit(0 if right and turned and min(rows["OSF"]) > 0.02 else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
