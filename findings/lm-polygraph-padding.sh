#!/usr/bin/env bash
# lm-polygraph 0.7.0: EigenScore and the embeddings of Mahalanobis distances are those of padding wherever the rows of a batch differ in length.
#
# Documented: EigenScore "uses embeddings for the last generated token from the middle layer of the model", sample_embeddings are "for
# the last token of the sampling generation"; the function that reads embeddings has `ignore_padding: bool = True`. Seen: the last
# token is that of the batch's longest row, so that a sample that has ended is read at a padding token after its end: ten
# samples of two answers have one embedding, which is the score of full certainty. embeddings_decoder, which
# MahalanobisDistanceSeq, RDESeq and PPLMDSeq read, is the mean over all positions with the padding to the left of shorter prompts;
# ignore_padding is read for encoders alone. Nothing is said. For a user: scores hang on the batch size and on the order of the data.
# What helps: a batch size of 1.
# Output, 2026-11-30:
#     lm-polygraph 0.7.0
#     ten samples after w2: their last tokens, the tokens that their embeddings are of, EigenScore
#     batch of 1: [8, 8, 6, 6, 6, 6, 8, 6, 8, 8] [8, 8, 6, 6, 6, 6, 8, 6, 8, 8] -5.213
#     batch of 2: [8, 8, 8, 6, 8, 6, 6, 8, 6, 6] [0, 0, 0, 0, 0, 0, 0, 0, 0, 0] -5.991
#     greedy text after w12: its tokens, the share of <s>, the padding, in its embedding
#     batch of 1: [13, 14, 15, 16, 17, 18, 19, 20, 0] 0.000
#     batch of 2: [13, 14, 15, 16, 17, 18, 19, 20, 0] 0.471
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 datasets==5.2.0 scikit-learn==1.9.1 openai==3.57.0 pillow==13.0.0 requests==2.34.2
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps lm-polygraph==0.7.0
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType

for name in ("lm_polygraph", "lm_polygraph.estimators", "lm_polygraph.stat_calculators", "lm_polygraph.utils"):  # without what needs spaCy
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("lm-polygraph").locate_file(name.replace(".", "/")))]
import numpy as np
import tokenizers, torch, transformers
from lm_polygraph.estimators.eigenscore import EigenScore
from lm_polygraph.stat_calculators.greedy_probs import GreedyProbsCalculator
from lm_polygraph.stat_calculators.sample import SamplingGenerationCalculator
from lm_polygraph.utils.model import WhiteboxModel

# A model whose layers write nothing, so that a hidden state is its token's one-hot embedding: after w2 come w3 or w4 with even odds, then
# w5, w6 and the end (or w7, w8 and the end); after w10 come w11, w12 and so on to w20 and the end.
follows = {2: (3, 4), 3: (5,), 5: (6,), 6: (0,), 4: (7,), 7: (8,), 8: (0,), **{n: (n + 1,) for n in range(10, 20)}, 20: (0,)}
core = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, **{f"w{n}": n for n in range(1, 24)}}, unk_token="<s>"))
core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
words = transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<s>", pad_token="<s>", padding_side="left")
sizes = dict(vocab_size=24, hidden_size=24, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, bos_token_id=None, eos_token_id=0, pad_token_id=0)).eval()
torch.set_grad_enabled(False)
for layer in lm.model.layers:
    torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
    torch.nn.init.zeros_(layer.mlp.down_proj.weight)
lm.model.embed_tokens.weight.copy_(torch.eye(24))
torch.nn.init.zeros_(lm.lm_head.weight)
for token, after in follows.items():
    lm.lm_head.weight[list(after), token] = 50.0
model = WhiteboxModel(lm, words, "table")

print("lm-polygraph", version("lm-polygraph"))
print("ten samples after w2: their last tokens, the tokens that their embeddings are of, EigenScore")
scores = {}
for texts in (["w2"], ["w2", "w10"]):
    torch.manual_seed(0)
    stats = SamplingGenerationCalculator(samples_n=10)({}, texts, model, max_new_tokens=20)
    last = [row[-1] for row in stats["sample_tokens"][0]]
    read = [int(np.argmax(row)) for row in stats["sample_embeddings"][0]]
    scores[len(texts)] = last, read, float(EigenScore()(stats)[0])
    print(f"batch of {len(texts)}: {last} {read} {scores[len(texts)][2]:.3f}")
print("greedy text after w12: its tokens, the share of <s>, the padding, in its embedding")
parts = {}
for texts in (["w12"], ["w12", "w10 w10 w10 w10 w10 w10 w10 w10 w12"]):
    stats = GreedyProbsCalculator(output_attentions=False, output_hidden_states=True)({}, texts, model, max_new_tokens=20)
    embedding = stats["embeddings_decoder"][0]
    parts[len(texts)] = stats["greedy_tokens"][0], float(embedding[0] / embedding.sum())
    print(f"batch of {len(texts)}: {parts[len(texts)][0]} {parts[len(texts)][1]:.3f}")
alone, batch = scores[1], scores[2]
as_stated = alone[0] == alone[1] and set(batch[0]) == {6, 8} and set(batch[1]) == {0} and alone[2] > batch[2] + 0.1
as_stated = as_stated and parts[1][0] == parts[2][0] and parts[1][1] == 0 and parts[2][1] > 0.4
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
