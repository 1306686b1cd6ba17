#!/usr/bin/env bash
# sae-lens 6.54.12: a skip transcoder that is attached to a model runs without its skip connection, and nothing is said.
#
# Documented: SkipTranscoder "Implements: f(x) = W_dec @ relu(W_enc @ x + b_enc) + W_skip @ x + b_dec" (its docstring), calling it gives
# that, and transcoders are attached to a model as SAEs are (add_sae: "Attaches an SAE or Transcoder to the model"). Seen: attached, it
# is run as decode(encode(x)), where W_skip is not; the skip connection stands in its forward alone. Transcoders without one are right.
# With use_error_term=True the output is the model's again, but what the skip connection explains is counted into hook_sae_error.
# SAETransformerBridge has the same wrapper and does the same. For a user: the registry lists 1,794 transcoders whose path says affine
# (Gemma Scope 2), which load as jumprelu_skip_transcoder: losses, ablations and error terms by run_with_saes are those of
# a replacement that was never trained. What helps: a hook of one's own at the output that calls the transcoder.
# Output, 2026-11-29:
#     sae-lens 6.54.12, transformer-lens 3.9.0; how far what the model goes on with is from the transcoder's own output
#     Transcoder                attached 0.00   its norm 3.3   error term, of a perfect transcoder 0.00
#     SkipTranscoder            attached 5.84   its norm 6.2   error term, of a perfect transcoder 5.84
#     JumpReLUSkipTranscoder    attached 5.45   its norm 6.0   error term, of a perfect transcoder 5.45
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 transformer-lens==3.9.0 sae-lens==6.54.12
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version
import torch
from sae_lens import HookedSAETransformer
from sae_lens.saes import transcoder as kinds
from sae_lens.saes.sae import SAEMetadata
from transformer_lens import HookedTransformerConfig

torch.set_grad_enabled(False)
torch.manual_seed(0)
lm = HookedSAETransformer(HookedTransformerConfig(n_layers=2, d_model=16, n_ctx=16, d_head=8, d_vocab=64, act_fn="gelu")).eval()
ids = torch.arange(9)[None]
READS, WRITES = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"


def norm(values):
    """The mean length of these vectors."""
    return float(values.norm(dim=-1).mean())


print(f"sae-lens {version('sae-lens')}, transformer-lens {version('transformer-lens')}; "
      "how far what the model goes on with is from the transcoder's own output")
off = {}
for kind in ("Transcoder", "SkipTranscoder", "JumpReLUSkipTranscoder"):
    config = getattr(kinds, f"{kind}Config")(
        d_in=16, d_out=16, d_sae=32, apply_b_dec_to_input=False, metadata=SAEMetadata(hook_name=READS, hook_name_out=WRITES))
    torch.manual_seed(1)
    transcoder = getattr(kinds, kind)(config)
    for name, weight in transcoder.named_parameters():
        weight.normal_(0, 1 if name == "W_skip" else 0.3)
    _, plain = lm.run_with_cache(ids)
    own = transcoder(plain[READS])  # as its docstring has it
    _, attached = lm.run_with_cache_with_saes(ids, saes=[transcoder])
    goes_on = attached["blocks.0.hook_resid_post"] - attached[READS]
    # Of a transcoder that is right at every token the error is nothing: here the model's MLP is made to say what the transcoder does.
    lm.blocks[0].mlp.forward = lambda values: own
    _, errors = lm.run_with_cache_with_saes(ids, saes=[transcoder], use_error_term=True)
    del lm.blocks[0].mlp.forward
    off[kind] = norm(goes_on - own), norm(errors[f"{WRITES}.hook_sae_error"])
    print(f"{kind:25} attached {off[kind][0]:<6.2f} its norm {norm(own):.1f}   error term, of a perfect transcoder {off[kind][1]:.2f}")
skips = [gap for kind in ("SkipTranscoder", "JumpReLUSkipTranscoder") for gap in off[kind]]
raise SystemExit(0 if max(off["Transcoder"]) < 1e-3 and min(skips) > 1 else 1)  # 1: it has been mended
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
