#!/usr/bin/env bash
# transformers 5.23.0: settings and biases of a GGUF file that change what the model computes are dropped, and nothing is said.
#
# Documented: GGUF files of Llama, Gemma 2 and Gemma 3 are "supported" and are "dequantized to fp32, where we have the full weights
# available and compatible in PyTorch" (page "GGUF and interaction with Transformers"). Expected: a file that says that rotary
# positions are scaled (linearly, as Gemma 3 from 4B on and DeepSeek-Coder; by YaRN), that attention has biases, or where logits are
# capped, is read as such. Seen: rope_type "default", the same logits with the biases as without, the cap of the class; the loading
# report is empty. For a user: such a file is another model than in llama.cpp, from the second token on, in short texts too.
# Output, 2026-11-28:
#     transformers 5.23.0, gguf 0.19.0
#     llama, positions scaled linearly by 4: rope_type expected linear, seen default
#     llama, positions scaled by YaRN by 4:  rope_type expected yarn, seen default
#     llama, biases of the queries:          same logits as without them: expected False, seen True
#     gemma2, final logits capped at 3:      expected 3.0, seen 30.0
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
unused = []


def read(name, kind="llama", more=lambda file: None):
    """One block in fp32, as llama.cpp's converter names it, with what else the file says."""
    file, rng = gguf.GGUFWriter(name, kind), np.random.default_rng(0)
    file.add_block_count(1), file.add_context_length(4096), file.add_embedding_length(WIDTH), file.add_feed_forward_length(INNER)
    file.add_head_count(HEADS), file.add_head_count_kv(HEADS), file.add_layer_norm_rms_eps(1e-5), file.add_vocab_size(WORDS)
    file.add_rope_freq_base(10000.0), file.add_key_length(WIDTH // HEADS), file.add_value_length(WIDTH // HEADS)
    if kind == "llama":
        file.add_rope_dimension_count(WIDTH // HEADS)
    file.add_token_list([f"t{i}" for i in range(WORDS)])
    shapes = {"token_embd": (WORDS, WIDTH), "output": (WORDS, WIDTH), "blk.0.ffn_gate": (INNER, WIDTH),
              "blk.0.ffn_up": (INNER, WIDTH), "blk.0.ffn_down": (WIDTH, INNER),
              **{f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}}
    if kind == "gemma2":  # its head is its embedding
        del shapes["output"]
    for tensor, shape in shapes.items():
        file.add_tensor(f"{tensor}.weight", rng.normal(0, 0.2, shape).astype(np.float32))
    norms = ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"]
    norms += ["blk.0.post_attention_norm", "blk.0.post_ffw_norm"] if kind == "gemma2" else []
    for norm in norms:
        file.add_tensor(f"{norm}.weight", np.ones(WIDTH, np.float32))
    more(file)
    file.write_header_to_file(), file.write_kv_data_to_file(), file.write_tensors_to_file(), file.close()
    lm, found = transformers.AutoModelForCausalLM.from_pretrained(".", gguf_file=name, output_loading_info=True)
    unused.extend(sorted(found["unexpected_keys"]))
    return lm.eval()


def scaled(kind):
    def more(file):
        file.add_rope_scaling_type(kind), file.add_rope_scaling_factor(4.0), file.add_rope_scaling_orig_ctx_len(1024)
    return more


def biased(file):
    file.add_tensor("blk.0.attn_q.bias", np.full(WIDTH, 2.0, np.float32))


plain = read("plain.gguf")
linear = read("linear.gguf", more=scaled(gguf.RopeScalingType.LINEAR)).config.rope_parameters["rope_type"]
yarn = read("yarn.gguf", more=scaled(gguf.RopeScalingType.YARN)).config.rope_parameters["rope_type"]
with torch.no_grad():
    ids = torch.arange(24)[None]
    same = torch.equal(read("biased.gguf", more=biased)(ids).logits, plain(ids).logits)
cap = read("capped.gguf", "gemma2", lambda file: file.add_final_logit_softcapping(3.0)).config.final_logit_softcapping
print(f"transformers {transformers.__version__}, gguf {version('gguf')}")
print(f"llama, positions scaled linearly by 4: rope_type expected linear, seen {linear}")
print(f"llama, positions scaled by YaRN by 4:  rope_type expected yarn, seen {yarn}")
print(f"llama, biases of the queries:          same logits as without them: expected False, seen {same}")
print(f"gemma2, final logits capped at 3:      expected 3.0, seen {cap}")
print("reported as unused:", unused)
as_stated = (linear, yarn, same, cap, unused) == ("default", "default", True, 30.0, [])
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
! grep -i "rope\|bias\|softcap" "$folder/said"
