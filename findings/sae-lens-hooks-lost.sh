#!/usr/bin/env bash
# sae-lens 6.54.12: a hook that stands where an SAE is attached is left out of that run, and is gone afterwards.
#
# Documented: with use_error_term=True the "output matches what the model would have produced without the SAE" (add_sae), and
# run_with_saes "Runs the model with the given SAEs attached for one forward pass, then removes them" and "will reset all SAEs to original
# state after". Seen: the SAE is put in the hook point's place, and a new, empty hook point in the SAE's, so hooks that add_hook had put
# there are not run and never come back, permanent ones too; of a transcoder those at its input go at its end. Hooks elsewhere stay.
# Nothing is said. For a user: with a steering vector added at the layer whose SAE is read, both the features and the logits of that run
# are those of the unsteered model, and every later run of "the steered model" is unsteered. What helps: add the vector at the block's
# hook_mlp_out, which comes to the same and is kept.
# Output, 2026-11-29:
#     sae-lens 6.54.12, transformer-lens 3.9.0; how far logits are from the steered model's and from the unsteered one's
#     SAE where the vector is added      with the SAE: steered 3.43, unsteered 0.00   afterwards: steered 3.43, unsteered 0.00
#     … by a permanent hook              with the SAE: steered 3.43, unsteered 0.00   afterwards: steered 3.43, unsteered 0.00
#     SAE at the layer after             with the SAE: steered 0.00, unsteered 3.43   afterwards: steered 0.00, unsteered 3.43
#     transcoder that reads there        with it:      steered 0.00, unsteered 3.43   afterwards: steered 3.43, unsteered 0.00
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
from sae_lens import HookedSAETransformer, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.transcoder import Transcoder, TranscoderConfig
from transformer_lens import HookedTransformerConfig

torch.set_grad_enabled(False)
torch.manual_seed(0)
ids, vector = torch.arange(9)[None], torch.randn(16) * 3
HERE = "blocks.0.hook_resid_post"


def tried(hook_name, hook_name_out=None, permanent=False):
    """Distances to steered and unsteered logits: with an SAE (or a transcoder) and its error term, and of the model alone afterwards."""
    torch.manual_seed(0)
    lm = HookedSAETransformer(HookedTransformerConfig(n_layers=3, d_model=16, n_ctx=16, d_head=8, d_vocab=64, act_fn="gelu")).eval()
    metadata = SAEMetadata(hook_name=hook_name, hook_name_out=hook_name_out)
    if hook_name_out is None:
        sae = StandardSAE(StandardSAEConfig(d_in=16, d_sae=32, metadata=metadata))
    else:
        sae = Transcoder(TranscoderConfig(d_in=16, d_out=16, d_sae=32, apply_b_dec_to_input=False, metadata=metadata))
    unsteered = lm(ids)
    lm.add_hook(HERE, lambda values, hook: values + vector, is_permanent=permanent)
    steered = lm(ids)
    runs = lm.run_with_saes(ids, saes=[sae], use_error_term=True), lm(ids)
    return [float((run - other).abs().max()) for run in runs for other in (steered, unsteered)]


print(f"sae-lens {version('sae-lens')}, transformer-lens {version('transformer-lens')}; "
      "how far logits are from the steered model's and from the unsteered one's")
seen = {
    "SAE where the vector is added": tried(HERE),
    "… by a permanent hook": tried(HERE, permanent=True),
    "SAE at the layer after": tried("blocks.1.hook_resid_post"),
    "transcoder that reads there": tried(HERE, "blocks.1.hook_mlp_out"),
}
for name, (during, bare, after, gone) in seen.items():
    print(f"{name:34} {'with it:     ' if 'transcoder' in name else 'with the SAE:'} steered {during:.2f}, unsteered {bare:.2f}   "
          f"afterwards: steered {after:.2f}, unsteered {gone:.2f}")
found = ["".join("0" if gap < 1e-3 else "x" for gap in gaps) for gaps in seen.values()]
raise SystemExit(0 if found == ["x0x0", "x0x0", "0x0x", "0xx0"] else 1)  # 1: it has been mended
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
