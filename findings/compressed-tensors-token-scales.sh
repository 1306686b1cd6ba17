#!/usr/bin/env bash
# compressed-tensors 0.20.1: a scale for each token is one for all tokens where they come as a matrix, as in OPT.
#
# Documented: "Quantization can be done per tensor, channel, token or group" (docstring of fake_quantize);
# strategy="token" is what the W8A8 presets have for activations, by dynamic scales. Seen: the scales are reduced over
# all dimensions but the first two, which for (tokens, features) leaves none, and then the minimum and maximum of the
# whole matrix are taken: one scale for all tokens, and the rows of a batch too. Inputs of (batch, tokens, features) are
# right. Which of the two a layer gets is the model's code: OPT's MLP and experts that are linear layers get matrices.
# Nothing is said. For a user: one token with large values rounds all others by its scale, a causal model's
# log-probabilities hang on later tokens and on other texts of the batch, and a benchmark of such a
# checkpoint in transformers is not what an engine with scales for each token gives. What helps: x[None] before, [0]
# behind such layers, or strategy="group".
# Output, 2026-11-30:
#     compressed-tensors 0.20.1: int8 activations, a scale for each token, the last of five tokens 100 times as large
#                              largest error of tokens 1 to 5
#     by hand                  0.005 0.004 0.009 0.003 0.461
#     (1, tokens, features)    0.005 0.004 0.009 0.003 0.461
#     each token alone         0.005 0.004 0.009 0.003 0.461
#     (tokens, features)       0.364 0.200 0.374 0.261 0.461
#     change of the first eight tokens' logits by the tokens behind them, in full and quantized:
#     Llama 0.0000 0.0000
#     OPT   0.0000 0.0020
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 compressed-tensors==0.20.1
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import torch
from compressed_tensors.quantization import (QuantizationArgs, QuantizationConfig, QuantizationScheme,
                                             apply_quantization_config)
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

tokens = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="token", dynamic=True)
config = QuantizationConfig(config_groups={"group_0": QuantizationScheme(targets=["Linear"], input_activations=tokens)},
                            ignore=["lm_head"], quantization_status="frozen")
torch.manual_seed(0)
layer = torch.nn.Sequential(torch.nn.Linear(16, 4))
x = torch.randn(5, 16)
x[4] *= 100
step = x.abs().amax(1, keepdim=True) / 127.5
with torch.no_grad():
    right, by_hand = layer(x), layer((x / step).round().clamp(-128, 127) * step)
    apply_quantization_config(layer, config)
    rows = {"by hand": by_hand, "(1, tokens, features)": layer(x[None])[0],
            "each token alone": torch.cat([layer(token[None]) for token in x]), "(tokens, features)": layer(x)}
print(f"compressed-tensors {version('compressed-tensors')}: int8 activations, a scale for each token, "
      "the last of five tokens 100 times as large")
print(f"{'':24} largest error of tokens 1 to 5")
errors = {name: (row - right).abs().amax(1) for name, row in rows.items()}
for name, row in errors.items():
    print(f"{name:24} " + " ".join(f"{error:.3f}" for error in row.tolist()))

print("change of the first eight tokens' logits by the tokens behind them, in full and quantized:")
sizes = dict(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
ids = torch.randint(5, 100, (1, 12))
others = torch.cat([ids[:, :8], torch.randint(5, 100, (1, 4))], dim=1)
changes = {}
for name, model in (("Llama", LlamaForCausalLM(LlamaConfig(intermediate_size=64, **sizes))),
                    ("OPT", OPTForCausalLM(OPTConfig(ffn_dim=64, word_embed_proj_dim=32, **sizes)))):
    model.eval()
    changes[name] = []
    for quantized in (False, True):
        if quantized:
            apply_quantization_config(model, config)
        with torch.no_grad():
            changes[name].append(float((model(ids).logits - model(others).logits)[:, :8].abs().max()))
    print("{:5} {:.4f} {:.4f}".format(name, *changes[name]))
fine = all(float((row - errors["by hand"]).abs().max()) < 1e-4 for name, row in errors.items() if name[:2] != "(t")
alone = max(changes["Llama"] + changes["OPT"][:1]) < 1e-5
wrong = float((errors["(tokens, features)"] / errors["by hand"])[:4].min()) > 10 and changes["OPT"][1] > 1e-4
raise SystemExit(0 if fine and alone and wrong else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
