#!/usr/bin/env bash
# transformer-lens 3.9.0: the heads and neurons of Gemma 2, Gemma 3, OLMo 2 and Granite do not add up to what their layers write.
#
# Documented: stack_head_results "Returns a stack of all head results (ie residual stream contribution) up to layer L. A good way to decompose
# the outputs of attention layers into attribution by specific heads"; get_full_resid_decomposition "Decomposes the residual stream … into its
# constituent components". Seen: where a block normalises or scales what attention and MLP give before it adds it, heads and neurons are taken
# before that and `attn_out` and `mlp_out` after it. The norm's weights and scale are left out, so the parts' sum is off by more than the
# whole, and `incl_remainder` takes the difference for the rest of the stream. Nothing is said. For a user: direct logit attribution by head or
# neuron is wrong in these families; by layer (decompose_resid) it is right.
# Output, 2026-11-30 (largest error of a sum, in parts of the largest entry of what it should be):
#     transformer-lens 3.9.0, LlamaForCausalLM: layers 0.0e+00, heads 1.1e-07, heads and neurons 2.6e-07
#     transformer-lens 3.9.0, Qwen3ForCausalLM: layers 0.0e+00, heads 1.6e-07, heads and neurons 1.4e-07
#     transformer-lens 3.9.0, Gemma2ForCausalLM: layers 0.0e+00, heads 5.3e-01, heads and neurons 3.6e+00
#     transformer-lens 3.9.0, Gemma3ForCausalLM: layers 0.0e+00, heads 9.3e-01, heads and neurons 2.6e+00
#     transformer-lens 3.9.0, Olmo2ForCausalLM: layers 0.0e+00, heads 1.8e+00, heads and neurons 1.1e+01
#     transformer-lens 3.9.0, GraniteForCausalLM: layers 0.0e+00, heads 3.0e+00, heads and neurons 3.2e+00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 transformer-lens==3.9.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2> "$folder/log" || { tail -n 5 "$folder/log"; exit 1; }
from importlib.metadata import version

import torch, transformers
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge

words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w63", eos_token="w62", bos_token="w61")
tokenizer.init_kwargs |= {"name_or_path": "", "add_bos_token": True}  # taken as it is, not loaded again by a name
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
kinds = {"Llama": {}, "Qwen3": {"head_dim": 8}, "Gemma2": {"head_dim": 8}, "Gemma3": {"head_dim": 8}, "Olmo2": {}, "Granite": {"residual_multiplier": 0.25}}


@torch.no_grad()
def off(kind, more):
    torch.manual_seed(0)
    config = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config"))(**sizes, **more, initializer_range=0.3)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight += 0.3 * torch.randn_like(weight)  # as in a trained model, whose norms are not all alike
    config.architectures = [type(model).__name__]
    bridge = TransformerBridge.boot_transformers(config.model_type, hf_model=model, tokenizer=tokenizer, device="cpu")
    bridge.set_use_attn_result(True)
    _, cache = bridge.run_with_cache(torch.arange(7)[None])
    stream, written = cache["blocks.2.hook_resid_post"], sum(cache[f"blocks.{n}.hook_attn_out"] for n in range(3))
    sums = {
        "layers": (cache.decompose_resid(-1).sum(0), stream),
        "heads": (cache.stack_head_results(-1).sum(0), written),
        "heads and neurons": (cache.get_full_resid_decomposition(-1).sum(0), stream),
    }
    found = {name: ((a - b).abs().max() / b.abs().max()).item() for name, (a, b) in sums.items()}
    told = ", ".join(f"{name} {value:.1e}" for name, value in found.items())
    print(f"transformer-lens {version('transformer-lens')}, {type(model).__name__}: {told}")
    return found


found = {kind: off(kind, more) for kind, more in kinds.items()}
right = all(value < 1e-4 for kind in ("Llama", "Qwen3") for value in found[kind].values())
wrong = all(one["layers"] < 1e-4 < 0.1 < min(one["heads"], one["heads and neurons"]) for kind, one in found.items() if kind not in ("Llama", "Qwen3"))
raise SystemExit(0 if right and wrong else 1)  # 1: it has been mended
PYTHON
