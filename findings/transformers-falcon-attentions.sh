#!/usr/bin/env bash
# transformers 5.23.0, 5.24.0: with output_attentions=True a Falcon sees later tokens, and one with ALiBi adds its position bias twice.
#
# Documented: `output_attentions`: "Whether or not to return the attentions tensors of all attention layers", and `attn_implementation` chooses
# how attention is computed, not what. Seen: under SDPA, Falcon's default, the call falls back to the eager code with SDPA's mask, whose true
# and false are added to the scores as 1 and 0: no token is masked, and each log-probability hangs on later tokens. With ALiBi (falcon-rw-1b,
# -7b) the mask is made of numbers and holds the position bias, which the eager code adds once more: the patterns and log-probabilities of
# doubled slopes, also where eager attention was asked for from the start. For a user: attention patterns of Falcon, and the log-probabilities of
# the same call, are of a model that was never trained; nothing is said.
# Output, 2026-11-30 (largest difference of log-probabilities from SDPA without attentions, nats):
#     transformers 5.23.0: rotary, eager 3.8e-06; rotary, output_attentions 1.0e+01; moved by the last token 6.6e+00; without 0.0e+00;
#         ALiBi, eager 1.5e-01; ALiBi, output_attentions 1.5e-01; eager less SDPA with doubled slopes 2.9e-06
#     transformers 5.24.0: rotary, eager 3.8e-06; rotary, output_attentions 1.0e+01; moved by the last token 6.6e+00; without 0.0e+00;
#         ALiBi, eager 1.5e-01; ALiBi, output_attentions 1.5e-01; eager less SDPA with doubled slopes 2.9e-06
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
cat > "$folder/tried.py" <<'PYTHON'
import torch, transformers
from transformers.models.falcon import modeling_falcon

texts = torch.arange(18).reshape(2, 9)
later = texts.clone()
later[:, -1] += 1  # another last token
bias_of = modeling_falcon.build_alibi_tensor


@torch.no_grad()
def scores(alibi, attention="sdpa", ids=texts, times=1, **more):
    modeling_falcon.build_alibi_tensor = lambda *given, **named: times * bias_of(*given, **named)
    sizes = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, new_decoder_architecture=False)
    torch.manual_seed(0)
    config = transformers.FalconConfig(**sizes, alibi=alibi, initializer_range=0.5)
    model = transformers.FalconForCausalLM._from_config(config, attn_implementation=attention).eval()
    return model(ids, use_cache=False, **more).logits.log_softmax(-1)[:, :-1]  # of the tokens before the last


def off(one, other):
    return (one - other).abs().max().item()


wanted = {"output_attentions": True}
rotary, alibi = scores(False), scores(True)
found = {
    "rotary, eager": off(scores(False, "eager"), rotary),
    "rotary, output_attentions": off(scores(False, **wanted), rotary),
    "moved by the last token": off(scores(False, **wanted), scores(False, ids=later, **wanted)),
    "without": off(rotary, scores(False, ids=later)),
    "ALiBi, eager": off(scores(True, "eager"), alibi),
    "ALiBi, output_attentions": off(scores(True, **wanted), alibi),
    "eager less SDPA with doubled slopes": off(scores(True, "eager"), scores(True, times=2)),
}
print(f"transformers {transformers.__version__}: " + "; ".join(f"{what} {much:.1e}" for what, much in found.items()))
none, much = ("rotary, eager", "without", "eager less SDPA with doubled slopes"), 0.05
raise SystemExit(0 if all((value < 1e-4) if what in none else value > much for what, value in found.items()) else 1)  # 1: it has been mended
PYTHON
for version in 5.23.0 5.24.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
    "$folder/venv/bin/python" "$folder/tried.py" 2> "$folder/log" || { tail -n 5 "$folder/log"; exit 1; }
done
