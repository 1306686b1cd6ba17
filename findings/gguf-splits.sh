#!/usr/bin/env bash
# transformers 5.23.0: a GGUF file's tokenizer splits text as GPT-2 does wherever the file names a split that is not in a short list.
#
# A GGUF file says in `tokenizer.ggml.pre` how text is split before its merges apply. transformers reads it for some twenty names
# (llama-bpe, qwen2, tekken …) and falls back to GPT-2's split for the others, though StableLM 2 ("stablelm2") and Falcon ("falcon")
# are architectures whose GGUF files it documents as supported. Nothing is said. Seen with one vocabulary: "stablelm2", which
# llama.cpp splits exactly as "qwen2", gives other tokens than "qwen2" (a bracket no longer joins the word after it, numbers are
# not cut into digits), and so does "falcon", whose numbers are cut in threes. For a user: the model is asked with tokens that it
# was not trained on, in code and in numbers above all.
# Output, 2026-11-28:
#     transformers 5.23.0, gguf 0.19.0
#     of "(ab 1234", qwen2:     ['(ab', 'Ġ', '1', '2', '3', '4']
#     of "(ab 1234", stablelm2: expected the same, seen ['(', 'ab', 'Ġ', '12', '34']
#     of "1234",     falcon:    expected ['123', '4'], seen ['12', '34']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 gguf==0.19.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2> "$folder/said"
import gguf, numpy as np, transformers
from importlib.metadata import version

BYTES = [*(chr(c) for c in range(33, 127)), "Ġ", "Ċ"]
MERGES = ["1 2", "3 4", "12 3", "a b", "( ab"]
WORDS = [*BYTES, *(merge.replace(" ", "") for merge in MERGES)]


def tokens(split, text):
    """Of a text, with a vocabulary of bytes and five merges in a file that names this split."""
    file = gguf.GGUFWriter(f"{split}.gguf", "llama")
    file.add_block_count(1), file.add_context_length(64), file.add_embedding_length(8), file.add_feed_forward_length(8)
    file.add_head_count(1), file.add_vocab_size(len(WORDS)), file.add_layer_norm_rms_eps(1e-5)
    file.add_tokenizer_model("gpt2"), file.add_tokenizer_pre(split)
    file.add_token_list(WORDS), file.add_token_types([1] * len(WORDS)), file.add_token_merges(MERGES)
    file.add_bos_token_id(0), file.add_eos_token_id(0)
    file.add_tensor("token_embd.weight", np.zeros((len(WORDS), 8), np.float32))
    file.write_header_to_file(), file.write_kv_data_to_file(), file.write_tensors_to_file(), file.close()
    return transformers.AutoTokenizer.from_pretrained(".", gguf_file=f"{split}.gguf").tokenize(text)


qwen2, stablelm2 = (tokens(split, "(ab 1234") for split in ("qwen2", "stablelm2"))
falcon = tokens("falcon", "1234")
print(f"transformers {transformers.__version__}, gguf {version('gguf')}")
print(f'of "(ab 1234", qwen2:     {qwen2}')
print(f'of "(ab 1234", stablelm2: expected the same, seen {stablelm2}')
print(f"of \"1234\",     falcon:    expected ['123', '4'], seen {falcon}")
as_stated = qwen2 == ["(ab", "Ġ", "1", "2", "3", "4"] and stablelm2 == tokens("gpt-2", "(ab 1234") != qwen2 and falcon != ["123", "4"]
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
! grep -iE "split|pre.?tokeni" "$folder/said"
