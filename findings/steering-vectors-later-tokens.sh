#!/usr/bin/env bash
# steering-vectors 0.12.2: with min_token_index a model that generates is steered in its prompt alone, and what it writes is not.
#
# Documented: to "only apply the steering vector when the model is responding to a prompt", one passes `min_token_index`, and then "only
# tokens 10 and later will be affected" (page Advanced usage). Seen: the index is counted in each forward, and a step of `generate` sees
# one token, whose index is 0: with a cache, the default, no generated token is steered. From the prompt's length on, the documented use,
# the "steered" text is the unsteered one; without a cache it is another. token_indices has the same: a slice steers nothing that is
# generated, and [0], the first token, steers every token that is. Nothing is said. For a user: a vector that is tried on the response
# alone seems to have no effect at any strength. What helps: use_cache=False, or no index and the prompt steered too.
# Output, 2026-11-29:
#     steering-vectors 0.12.2, transformers 4.57.6: tokens of 16 that are not the unsteered model's
#                                        with a cache   without
#     every token                              14          14
#     min_token_index=6, the response           0          14
#     min_token_index=3                         8          14
#     token_indices=slice(6, None)              0          14
#     token_indices=[0]                        14           0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==4.57.6 steering-vectors==0.12.2
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import torch, transformers
from steering_vectors import SteeringVector

prompt, many = torch.tensor([[5, 9, 3, 7, 2, 8]]), 16
torch.manual_seed(1)
lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2)).eval()
with torch.no_grad():
    for weight in lm.parameters():
        if weight.ndim > 1:
            weight.normal_(0, 0.3)
vector = SteeringVector({1: torch.randn(32) * 2})


def text(cached):
    greedy = dict(max_new_tokens=many, do_sample=False, eos_token_id=None, pad_token_id=0)
    with torch.no_grad():
        return lm.generate(prompt, attention_mask=torch.ones_like(prompt), use_cache=cached, **greedy)[0, prompt.shape[1]:].tolist()


def steered(**where):
    """How many tokens of the greedy response are not the unsteered ones, with a cache and without."""
    handle = vector.patch_activations(lm, **where)
    texts = [text(cached) for cached in (True, False)]
    handle.remove()
    return [sum(a != b for a, b in zip(one, plain)) for one in texts]


plain = text(True)
seen = {
    "every token": steered(),
    "min_token_index=6, the response": steered(min_token_index=prompt.shape[1]),
    "min_token_index=3": steered(min_token_index=3),
    "token_indices=slice(6, None)": steered(token_indices=slice(6, None)),
    "token_indices=[0]": steered(token_indices=[0]),
}
print(f"steering-vectors {version('steering-vectors')}, transformers {transformers.__version__}: tokens of {many} that are not the unsteered model's")
print(f"{'':35}with a cache   without")
for name, (cached, without) in seen.items():
    print(f"{name:35} {cached:7d} {without:11d}")
response = seen["min_token_index=6, the response"]
raise SystemExit(0 if plain == text(False) and response[0] == 0 < response[1] else 1)  # 1: it has been mended
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
