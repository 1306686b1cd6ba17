#!/usr/bin/env bash
# transformer-lens 3.9.0: wrapping a loaded Gemma 3 installs torchvision into the running environment, and with it another torch.
#
# Documented: "Boot a model from HuggingFace" (boot_transformers); of packages that it installs nothing is said. Seen: for architectures that may be
# given images (Gemma 3 and 4, Llama 4, LLaVA, Qwen VL) it looks for a processor under the model's name, also where model and tokenizer were handed
# over, and where that fails (a name that is none of the hub's, no network) and torchvision is not there, it runs `pip install torchvision` by
# itself, quietly. That torchvision is the newest one and asks for its own torch: without the constraint below torch 2.13.0 for CPUs was replaced
# by 2.14.1 with CUDA 13 and NVIDIA's packages, under a process that had it loaded. Files that are imported later are then of another release.
# For a user: an environment that was pinned is another one after an analysis of text alone. 4.3.0 has the same lines (read, not run).
# Output, 2026-11-30:
#     transformer-lens 3.9.0, Gemma 3 of text alone: installed while it was wrapped: nothing
#     transformer-lens 3.9.0, Gemma 3 of text and images: installed while it was wrapped: pillow, torchvision
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 transformer-lens==3.9.0
cd "$folder"
echo "torch==2.13.0" > held.txt  # so that torch stays as it is here
PIP_CONSTRAINT=held.txt HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2> "$folder/log" || { tail -n 5 "$folder/log"; exit 1; }
import importlib
from importlib.metadata import distributions, version

import transformers
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge


def installed():
    importlib.invalidate_caches()
    return {one.metadata["Name"] for one in distributions()}


words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w63", eos_token="w62", bos_token="w61")
tokenizer.init_kwargs |= {"name_or_path": "", "add_bos_token": True}  # taken as it is, not loaded again by a name
sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
text = dict(sizes, vocab_size=64, num_key_value_heads=2, head_dim=8)
kinds = {
    "text alone": transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**text)),
    "text and images": transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(text_config=text, vision_config=dict(sizes, image_size=28, patch_size=14), mm_tokens_per_image=4, image_token_id=3)
    ),
}
found = {}
for kind, model in kinds.items():
    model.config.architectures = [type(model).__name__]
    before = installed()
    TransformerBridge.boot_transformers("my-model", hf_model=model.eval(), tokenizer=tokenizer, device="cpu")
    found[kind] = sorted(installed() - before)
    print(f"transformer-lens {version('transformer-lens')}, Gemma 3 of {kind}: installed while it was wrapped: {', '.join(found[kind]) or 'nothing'}")
raise SystemExit(0 if not found["text alone"] and "torchvision" in found["text and images"] else 1)  # 1: it has been mended
PYTHON
