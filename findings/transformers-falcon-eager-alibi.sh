#!/usr/bin/env bash
# transformers 5.23.0, 5.24.0: a Falcon model with ALiBi (falcon-rw-1b, -7b) adds its position bias twice under eager attention.
#
# Documented: `attn_implementation` chooses how attention is computed, not what ("eager": "manual implementation of the attention"), and
# Falcon's log-probabilities with rotary positions agree. Seen: the bias is put into the causal mask, as SDPA needs it, whatever the
# implementation, and the eager code, which adds the bias itself, adds that mask as well. So eager gives another model than SDPA, and so does a
# call with output_attentions=True, which falls back to it: the same as SDPA where the slopes are doubled by hand. For a user: attention
# patterns, and everything that asks for eager attention in order to hook it, are of a model that was never trained.
# Output, 2026-11-30 (largest difference of log-probabilities from SDPA, nats):
#     transformers 5.23.0: rotary, eager 3.8e-06; ALiBi, eager 0.15, output_attentions 0.15; eager beside SDPA with doubled slopes 2.9e-06
#     transformers 5.24.0: rotary, eager 3.8e-06; ALiBi, eager 0.15, output_attentions 0.15; eager beside SDPA with doubled slopes 2.9e-06
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
cat > "$folder/tried.py" <<'PYTHON'
import torch, transformers
from transformers.models.falcon import modeling_falcon

texts = torch.arange(18).reshape(2, 9)
bias_of = modeling_falcon.build_alibi_tensor


@torch.no_grad()
def scores(alibi, attention, times=1, **more):
    modeling_falcon.build_alibi_tensor = lambda *given, **named: times * bias_of(*given, **named)
    config = transformers.FalconConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=alibi, new_decoder_architecture=False, initializer_range=0.5
    )
    torch.manual_seed(0)
    model = transformers.FalconForCausalLM._from_config(config, attn_implementation=attention).eval()
    return model(texts, use_cache=False, **more).logits.log_softmax(-1)


def off(alibi, attention, **more):
    return (scores(alibi, attention, **more) - scores(alibi, "sdpa")).abs().max().item()


rotary = off(False, "eager")
eager, patterns, twice = (off(True, *how[:1], **how[1]) for how in (("eager", {}), ("sdpa", {"output_attentions": True}), ("sdpa", {"times": 2})))
same = (scores(True, "eager") - scores(True, "sdpa", times=2)).abs().max().item()
print(
    f"transformers {transformers.__version__}: rotary, eager {rotary:.1e}; ALiBi, eager {eager:.2f}, output_attentions {patterns:.2f}; "
    f"eager beside SDPA with doubled slopes {same:.1e}"
)
raise SystemExit(0 if rotary < 1e-4 and min(eager, patterns) > 0.05 and same < 1e-4 else 1)  # 1: it has been mended
PYTHON
for version in 5.23.0 5.24.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
    "$folder/venv/bin/python" "$folder/tried.py" 2> "$folder/log" || { tail -n 5 "$folder/log"; exit 1; }
done
