#!/usr/bin/env bash
# transformer-lens 4.3.0 with transformers 5.24.0: what a bridge generates after the first token, each token sees nothing but itself.
#
# Documented: "use_past_kv_cache: Whether to use key-value caching for faster generation", on by default (`TransformerBridge.generate`),
# and transformers>=5.9.0 is asked for. Expected: the same greedy tokens with it, without it, and by the model's own generate. Seen with
# transformers 5.23.0; with 5.24.0, which calls the argument `cache` and no longer `past_key_values`, the cache that the bridge hands on
# stays empty, so that every token after the first follows its last token alone, at position 0. Nothing is said, and 3.9.0 does the same.
# For a user: texts that are generated with hooks (steering, ablation) are of a model without a context; use_past_kv_cache=False is right.
# Output, 2026-11-30:
#     transformer-lens 4.3.0, transformers 5.23.0, of 24 greedy tokens as by the model's own generate: 24 with its cache, 24 without
#     transformer-lens 4.3.0, transformers 5.24.0, of 24 greedy tokens as by the model's own generate: 4 with its cache, 24 without
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 transformer-lens==4.3.0
cd "$folder"
cat > tried.py <<'PYTHON'
import copy
from importlib.metadata import version

import torch, transformers
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge

words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(64)}, unk_token="t0"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="t0", eos_token="t1", pad_token="t2")
tokenizer.save_pretrained("tiny")
torch.manual_seed(0)
lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)).eval()
for weight in lm.parameters():
    if weight.ndim > 1:
        torch.nn.init.normal_(weight, 0, 0.3)
bridge = TransformerBridge.boot_transformers("tiny", hf_model=copy.deepcopy(lm), tokenizer=transformers.AutoTokenizer.from_pretrained("tiny"))
ids = torch.randint(3, 60, (3, 6))
own = lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=2)
same = []
for cached in (True, False):
    said = bridge.generate(ids, max_new_tokens=8, do_sample=False, stop_at_eos=False, use_past_kv_cache=cached, verbose=False)
    same.append(int((said[:, 6:] == own[:, 6:]).sum()))
print(f"transformer-lens {version('transformer-lens')}, transformers {transformers.__version__}, of {own[:, 6:].numel()} greedy tokens "
      f"as by the model's own generate: {same[0]} with its cache, {same[1]} without")
new = transformers.__version__ == "5.24.0"
raise SystemExit(0 if same[1] == 24 and (same[0] < 12 if new else same[0] == 24) else 1)  # 1: it is otherwise now
PYTHON
for version in 5.23.0 5.24.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
    HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> said || { tail -5 said; exit 1; }
done
