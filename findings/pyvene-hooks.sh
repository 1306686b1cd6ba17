#!/usr/bin/env bash
# pyvene 0.1.8: the first call takes every hook off the model, others' too, for good: a steered model is the unsteered one, and
# transformers' hidden states are empty.
#
# Documented: an IntervenableModel "will use forward hooks to do interventions" and returns "base_output: the non-intervened output of
# the base input"; its clean-up is to take away "all the remaining hooks before any call". Seen: that is all hooks of all modules,
# whoever registered them, not its own. A hook that steers or records is gone within the call and after it,
# and its handle says nothing. transformers 5 reads hidden states by hooks that it sets once: whoever asked for them before pyvene's call
# gets an empty tuple after it. For a user: baselines and interventions on a model with a hook are of the model without it. What helps:
# register hooks after each call, or change the modules' forward; for hidden states a model loaded anew.
# Output, 2026-11-30:
#     nnsight is not detected. Please install via 'pip install nnsight' for nnsight backend.
#     pyvene 0.1.8, transformers 5.23.0: largest difference of the logits from the steered, from the plain model
#     made               0.0000   4.9020
#     within the call    4.9020   0.0000
#     after the call     4.9020   0.0000
#     hidden states that the model returns: before 3, after 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 matplotlib==3.11.2
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps pyvene==0.1.8
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import pyvene, torch, transformers

torch.manual_seed(0)
torch.set_grad_enabled(False)
sizes = dict(vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, bos_token_id=None, eos_token_id=None)).eval()
for weight in lm.parameters():
    if weight.ndim > 1:
        torch.nn.init.normal_(weight, std=0.5)
ids = torch.randint(0, 20, (1, 5))
plain, vector = lm(ids).logits, torch.randn(8)


def steer(module, inputs, output):
    return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector


lm.model.layers[0].register_forward_hook(steer)
steered = lm(ids).logits
states = [len(lm(ids, output_hidden_states=True).hidden_states)]
model = pyvene.IntervenableModel({"layer": 1, "component": "block_output", "intervention_type": pyvene.CollectIntervention}, lm)
seen = {"made": lm(ids).logits}
seen["within the call"] = model({"input_ids": ids}, unit_locations={"base": 2}, output_original_output=True)[0][0].logits
seen["after the call"] = lm(ids).logits
states.append(len(lm(ids, output_hidden_states=True).hidden_states))

print(f"pyvene {version('pyvene')}, transformers {transformers.__version__}: largest difference of the logits from the steered, from the plain model")
off = {name: [float((logits - right).abs().max()) for right in (steered, plain)] for name, logits in seen.items()}
for name, (from_steered, from_plain) in off.items():
    print(f"{name:16} {from_steered:8.4f} {from_plain:8.4f}")
print(f"hidden states that the model returns: before {states[0]}, after {states[1]}")
gone = all(off[name][1] == 0 and off[name][0] > 0.1 for name in ("within the call", "after the call"))
raise SystemExit(0 if off["made"][0] == 0 and gone and states == [3, 0] else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
