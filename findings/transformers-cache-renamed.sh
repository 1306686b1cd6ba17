#!/usr/bin/env bash
# transformers 5.24.0: a pre-hook that looks for `past_key_values` finds no cache at any step of generate, and nothing is said.
#
# Documented: PyTorch's register_forward_pre_hook(with_kwargs=True) gives a hook "the kwargs given to the forward function", and generate
# hands the cache by keyword. Seen: up to 5.23.0 that keyword is `past_key_values`, in 5.24.0 it is `cache`, for the causal LM and for its
# decoder. A hook that reads kwargs.get("past_key_values"), to tell prompt from generated token, takes every step for a first forward. For a user: steering "at generated tokens only", or captured
# positions counted from the cache's length, are wrong without an error after an upgrade of one minor version.
# Output, 2026-11-28:
#     transformers 5.23.0: the decoder is handed ['past_key_values'], the causal LM ['past_key_values']
#     transformers 5.24.0: the decoder is handed ['cache'], the causal LM ['cache']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
cat > "$folder/tried.py" <<'PYTHON'
import torch, transformers

torch.manual_seed(0)
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
handed = {"decoder": set(), "causal LM": set()}


def looks(name):
    def hook(module, args, kwargs):
        handed[name] |= {key for key, value in kwargs.items() if isinstance(value, transformers.Cache)}

    return hook


lm.model.register_forward_pre_hook(looks("decoder"), with_kwargs=True)
lm.register_forward_pre_hook(looks("causal LM"), with_kwargs=True)
lm.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=3, do_sample=False)
inner, outer = sorted(handed["decoder"]), sorted(handed["causal LM"])
print(f"transformers {transformers.__version__}: the decoder is handed {inner}, the causal LM {outer}")
old = transformers.__version__ == "5.23.0"
raise SystemExit(0 if inner == outer == (["past_key_values"] if old else ["cache"]) else 1)  # 1: it is otherwise now
PYTHON
for version in 5.23.0 5.24.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
    "$folder/venv/bin/python" "$folder/tried.py"
done
