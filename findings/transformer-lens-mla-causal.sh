#!/usr/bin/env bash
# transformer-lens 3.9.0: the bridge of a loaded DeepSeek-V2 or -V3 has no causal mask: every token sees the later ones.
#
# Documented: hf_model, "Optional pre-loaded HuggingFace model to use instead of loading one. Useful for models loaded with custom
# configurations (e.g., quantization via BitsAndBytesConfig)", and "Attention implementation is forced to "eager"" (boot_transformers). Seen: that
# of a pre-loaded model is left as it is, and one that transformers 5.23.0 loads has SDPA's, for which it hands its layers no mask where nothing is padded, and one of true and false where something is. The bridge computes
# multi-head latent attention itself: without a mask it masks nothing, and true and false it adds to the scores. The logits are another
# model's, by several nats, and move with later tokens; a model with eager attention, which the bridge asks for when it loads one by name, is exact.
# Nothing is said. For a user: activations, patches and steering of a DeepSeek model that is in memory already are of a model that
# looks ahead.
# Output, 2026-11-30 (log-probabilities, nats, largest difference):
#     transformer-lens 3.9.0, Llama, sdpa: off by 3.3e-06, moved by a later token 0.0e+00
#     transformer-lens 3.9.0, Llama, eager: off by 3.3e-06, moved by a later token 0.0e+00
#     transformer-lens 3.9.0, DeepseekV2, eager: off by 0.0e+00, moved by a later token 0.0e+00
#     transformer-lens 3.9.0, DeepseekV3, eager: off by 0.0e+00, moved by a later token 0.0e+00
#     transformer-lens 3.9.0, DeepseekV2, sdpa: off by 7.1e+00, moved by a later token 4.5e+00
#     transformer-lens 3.9.0, DeepseekV3, sdpa: off by 7.1e+00, moved by a later token 4.5e+00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 transformer-lens==3.9.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2> "$folder/log" || { tail -n 5 "$folder/log"; exit 1; }
import copy
from importlib.metadata import version

import torch, transformers
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge

words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w63", eos_token="w62", bos_token="w61")
tokenizer.init_kwargs |= {"name_or_path": "", "add_bos_token": True}  # taken as it is, not loaded again by a name
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, initializer_range=0.3)
latent = dict(
    kv_lora_rank=16, q_lora_rank=None, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, n_routed_experts=4, num_experts_per_tok=2,
    moe_intermediate_size=16, first_k_dense_replace=2, topk_group=1,
)  # fmt: skip
kinds = {"Llama": {}, "DeepseekV2": dict(latent, n_group=1), "DeepseekV3": dict(latent, n_group=2)}
text = torch.arange(9)[None]
later = text.clone()
later[0, -1] += 1  # another last token


@torch.no_grad()
def found(kind, attention):
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes, **kinds[kind])).eval()
    model.config.architectures = [type(model).__name__]
    wanted = model(text, use_cache=False).logits.log_softmax(-1)
    own = copy.deepcopy(model)
    if attention != own.config._attn_implementation:
        own.set_attn_implementation(attention)
    bridge = TransformerBridge.boot_transformers(model.config.model_type, hf_model=own, tokenizer=tokenizer, device="cpu")
    given, moved = (bridge(ids).log_softmax(-1) for ids in (text, later))
    off, ahead = (given - wanted).abs().max().item(), (given - moved)[:, :-1].abs().max().item()
    print(f"transformer-lens {version('transformer-lens')}, {kind}, {attention}: off by {off:.1e}, moved by a later token {ahead:.1e}")
    return off, ahead


exact = [found("Llama", "sdpa"), *(found(kind, "eager") for kind in kinds)]
ahead = [found(kind, "sdpa") for kind in ("DeepseekV2", "DeepseekV3")]
right = all(value < 1e-4 for one in exact for value in one) and all(value > 0.1 for one in ahead for value in one)
raise SystemExit(0 if right else 1)  # 1: it has been mended
PYTHON
