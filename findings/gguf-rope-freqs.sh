#!/usr/bin/env bash
# transformers 5.23.0: a GGUF file's rope_freqs.weight is dropped when the file is loaded, and nothing is said.
#
# llama.cpp's converter writes the long-context scaling of Llama 3.1 and later not as a setting but as this tensor, by which the
# rotary frequencies are divided. Documented: GGUF files of Llama models are "supported" and are "dequantized to fp32, where we
# have the full weights available and compatible in PyTorch" (page "GGUF and interaction with Transformers"). Seen: the same
# frequencies and logits with the tensor and without it, an empty loading report, and rope_type "default". For a user: such a
# file is another model in transformers than in llama.cpp, also in short texts, and most in long ones.
# Output, 2026-11-27:
#     transformers 5.23.0, gguf 0.19.0
#     expected inverse frequencies [1.0, 0.1939, 0.0376, 0.0073, 0.0007, 0.0001, 0.0, 0.0]
#     seen                         [1.0, 0.1939, 0.0376, 0.0073, 0.0014, 0.0003, 0.0001, 0.0]
#     reported as unused: []
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2> "$folder/said"
import gguf, numpy as np, torch, transformers
from importlib.metadata import version

WIDTH, HEADS, INNER, WORDS = 64, 4, 128, 32
FACTORS = [1, 1, 1, 1, 2, 4, 8, 8]


def written(name, factors):
    """One block of Llama in fp32, as llama.cpp's converter names it."""
    file, rng = gguf.GGUFWriter(name, "llama"), np.random.default_rng(0)
    file.add_block_count(1), file.add_context_length(4096), file.add_embedding_length(WIDTH), file.add_feed_forward_length(INNER)
    file.add_head_count(HEADS), file.add_head_count_kv(HEADS), file.add_layer_norm_rms_eps(1e-5), file.add_vocab_size(WORDS)
    file.add_rope_freq_base(500000.0), file.add_rope_dimension_count(WIDTH // HEADS)
    shapes = {"token_embd": (WORDS, WIDTH), "output": (WORDS, WIDTH), "blk.0.ffn_gate": (INNER, WIDTH),
              "blk.0.ffn_up": (INNER, WIDTH), "blk.0.ffn_down": (WIDTH, INNER),
              **{f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}}
    for tensor, shape in shapes.items():
        file.add_tensor(f"{tensor}.weight", rng.normal(0, 0.05, shape).astype(np.float32))
    for norm in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        file.add_tensor(f"{norm}.weight", np.ones(WIDTH, np.float32))
    if factors:
        file.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    file.write_header_to_file(), file.write_kv_data_to_file(), file.write_tensors_to_file(), file.close()
    return transformers.AutoModelForCausalLM.from_pretrained(".", gguf_file=name, output_loading_info=True)


(plain, _), (scaled, found) = written("plain.gguf", None), written("scaled.gguf", FACTORS)
base, seen = (lm.model.rotary_emb.inv_freq for lm in (plain, scaled))
ids = torch.arange(24)[None]
with torch.no_grad():
    same = torch.equal(plain(ids).logits, scaled(ids).logits)
print(f"transformers {transformers.__version__}, gguf {version('gguf')}")
print("expected inverse frequencies", [round(x, 4) for x in (base / torch.tensor(FACTORS)).tolist()])
print("seen                        ", [round(x, 4) for x in seen.tolist()])
print("reported as unused:", sorted(found["unexpected_keys"]))
as_stated = same and torch.equal(base, seen) and not found["unexpected_keys"]
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
! grep -i "rope_freqs" "$folder/said"
