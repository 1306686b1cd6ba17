#!/usr/bin/env bash
# transformer-lens 3.9.0 with transformers 5.23.0: the bridge of a Cohere model computes other attention than the model that it wraps.
#
# A TransformerBridge keeps the model's own modules and weights, and Cohere is among its supported architectures. Expected: the
# same logits as the model's, as for Llama. Seen: equal for a text of one token, where nothing is rotated, and another model from
# two tokens on, first in the queries that the bridge itself rotates: Cohere's rotary embedding turns neighbouring dimensions
# together, the bridge those that lie half a head apart. Nothing is said. For a user: activations, patches and steering of Command R
# through the bridge are of a model that does not exist.
# Output, 2026-11-28:
#     transformer-lens 3.9.0, transformers 5.23.0
#     Llama,  largest difference of a logit: one token 0e+00, four tokens 0e+00
#     Cohere, largest difference of a logit: one token 4e-08, four tokens 0.09 (standard deviation 0.07)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 transformer-lens==3.9.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2> "$folder/said"
from importlib.metadata import version
import torch, transformers
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge

SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "a": 3}, unk_token="a"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
tokenizer.save_pretrained("words")


def off(kind):
    """How far the bridge's logits are from the model's own: of a text of one token, and of one of four."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES)
    lm = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for p in lm.parameters():
            if p.ndim > 1:
                p.normal_(0, 0.2)
    lm.save_pretrained(kind)
    transformers.AutoTokenizer.from_pretrained("words").save_pretrained(kind)
    lm = transformers.AutoModelForCausalLM.from_pretrained(kind, dtype=torch.float32, attn_implementation="eager").eval()
    other = transformers.AutoModelForCausalLM.from_pretrained(kind, dtype=torch.float32, attn_implementation="eager").eval()
    bridge = TransformerBridge.boot_transformers(
        kind, hf_model=other, tokenizer=transformers.AutoTokenizer.from_pretrained(kind), device="cpu", dtype=torch.float32)
    with torch.no_grad():
        found = [float((bridge(ids) - lm(ids).logits).abs().max()) for ids in (torch.tensor([[5]]), torch.tensor([[5, 6, 7, 8]]))]
        return found, float(lm(torch.tensor([[5, 6, 7, 8]])).logits.std())


print(f"transformer-lens {version('transformer-lens')}, transformers {transformers.__version__}")
(llama, _), (cohere, spread) = off("Llama"), off("Cohere")
print(f"Llama,  largest difference of a logit: one token {llama[0]:.0e}, four tokens {llama[1]:.0e}")
print(f"Cohere, largest difference of a logit: one token {cohere[0]:.0e}, four tokens {cohere[1]:.2f} (standard deviation {spread:.2f})")
raise SystemExit(0 if max(*llama, cohere[0]) < 1e-4 and cohere[1] > spread else 1)  # 1: it has been mended
PYTHON
