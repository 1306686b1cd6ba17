#!/usr/bin/env bash
# optillm 0.4.0: CoT decoding's confidence is of the whole text, not of the answer, and no two paths are one answer.
#
# Documented: calculate_confidence gives the "confidence score (Δ) as specified in the paper", of "token ids for the
# answer"; with aggregate_paths cot_decode returns the "aggregated result" over paths (docstrings; the page names arXiv
# 2402.10200). There Δ is averaged over the tokens of the answer alone, each path is decoded greedily, and Δ is summed
# over the paths that end in the same answer. Seen: Δ is averaged over all tokens of a path, so that a fluent phrase
# before a guess wins over a reasoned and sure answer; what is summed are whole texts, which differ from their first
# token on, so that aggregate_paths changes nothing; and a model whose own generation settings sample has paths that
# are drawn. Nothing is said. For a user: what is measured as CoT decoding is the most predictable text. What helps:
# do_sample=False in the model's generation_config; the rest has to be written anew.
# Output, 2026-11-30:
#     optillm 0.4.0, the two likeliest tokens' difference: at the answer, of the text
#     Seventeen times twelve: 204   0.90   0.57
#     Twelve pens each: 204         0.90   0.57
#     Easy, as all can see: 194     0.10   0.85
#     sums at the answer: {'204': 1.8, '194': 0.1}
#     cot_decode, aggregate_paths=False: 'Easy, as all can see: 194', 0.85
#     cot_decode, aggregate_paths=True: 'Easy, as all can see: 194', 0.85
#     texts of one path in 20 calls of a model whose generation settings sample: 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.12.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps optillm==0.4.0
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType

package = sys.modules["optillm"] = ModuleType("optillm")  # without its server
package.__path__ = [str(distribution("optillm").locate_file("optillm"))]
import tokenizers, torch, transformers
from optillm.cot_decoding import cot_decode

# A model of pairs: its layer writes nothing, so that the next token hangs on the last one alone, by this table.
sure, unsure = {"204": 0.95, "194": 0.05}, {"194": 0.55, "204": 0.45}
after = {
    "assistant:": {"Seventeen": 0.34, "Twelve": 0.33, "Easy,": 0.32},
    "Seventeen": {"times": 0.6, "by": 0.4}, "times": {"twelve:": 0.6, "12:": 0.4}, "by": {"twelve:": 0.6, "12:": 0.4},
    "Twelve": {"pens": 0.6, "boxes": 0.4}, "pens": {"each:": 0.6, "in:": 0.4}, "boxes": {"each:": 0.6, "in:": 0.4},
    "twelve:": sure, "12:": sure, "each:": sure, "in:": sure,
    "Easy,": {"as": 1.0}, "as": {"all": 1.0}, "all": {"can": 1.0}, "can": {"see:": 1.0}, "see:": unsure,
    "204": {"<s>": 1.0}, "194": {"<s>": 1.0},
}
names = list(dict.fromkeys(["<s>", "user:", "How", "many?", *after, *(name for row in after.values() for name in row)]))
vocabulary = {name: number for number, name in enumerate(names)}
core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<s>"))
core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
words = transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<s>", pad_token="<s>")
size = 32
sizes = dict(vocab_size=size, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
ends = dict(bos_token_id=None, eos_token_id=0, pad_token_id=0)
lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **ends)).eval()
with torch.no_grad():
    lm.model.embed_tokens.weight.copy_(torch.eye(size))
    lm.model.layers[0].self_attn.o_proj.weight.zero_()
    lm.model.layers[0].mlp.down_proj.weight.zero_()
    table = torch.full((size, size), 1e-9)
    for last, row in after.items():
        for name, value in row.items():
            table[names.index(last), names.index(name)] = value
    lm.lm_head.weight.copy_(table.log().T / size ** 0.5)  # the norm makes a one-hot vector this much longer

asked = [{"role": "user", "content": "How many?"}]
paths = ["Seventeen times twelve: 204", "Twelve pens each: 204", "Easy, as all can see: 194"]
print(f"optillm {version('optillm')}, the two likeliest tokens' difference: at the answer, of the text")
right = {}
for text in paths:
    path, apart = text.split(), []
    for last in path[:-1]:
        first, second, *_ = sorted([*after[last].values(), 0.0], reverse=True)
        apart.append(first - second)
    right[path[-1]] = right.get(path[-1], 0) + apart[-1]
    print(f"{text:28} {apart[-1]:5.2f} {sum(apart + [1.0]) / (len(apart) + 1):6.2f}")  # the text's end is sure, 1
print("sums at the answer:", {answer: round(value, 2) for answer, value in right.items()})
seen = {}
for aggregate in (False, True):
    seen[aggregate] = cot_decode(lm, words, asked, k=3, max_new_tokens=12, aggregate_paths=aggregate)
    print(f"cot_decode, aggregate_paths={aggregate}: {seen[aggregate][0]!r}, {seen[aggregate][1]:.2f}")
lm.generation_config.do_sample = True  # as a checkpoint's generation_config.json may have it
torch.manual_seed(0)
texts = {cot_decode(lm, words, asked, k=1, max_new_tokens=12)[0] for _ in range(20)}
print(f"texts of one path in 20 calls of a model whose generation settings sample: {len(texts)}")
as_stated = all(text.endswith("194") and abs(value - 0.85) < 0.01 for text, value in seen.values()) and len(texts) > 1
raise SystemExit(0 if as_stated and right["204"] > 10 * right["194"] else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
