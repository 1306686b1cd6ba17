#!/usr/bin/env bash
# lm-polygraph 0.7.0: pointwise mutual information compares each token with its own repetition, and CPMI has its two constants swapped.
#
# Documented: greedy_lm_log_likelihoods are the "log-probabilities of generating text without input. P(y_t | y_<t) for all t", the
# subtrahend of PointwiseMutualInformation; CPMI has "tau (float): the threshold parameter for entropy (default: 0.0656 - best according
# to https://arxiv.org/abs/2210.13210)" and "lambd (float): scale factor" 3.599. Seen: the logits are read at the token's own
# position, which are those of the token after it, so that the subtrahend is log P(y_t | y_<t, y_t). The paper's authors ran with the
# scale 6.5602e-2 and the threshold 3.5987 nats (logs of their repository, named by both): swapped, next to all tokens are above the
# threshold and the text's own likelihood is taken away 3.6 times, so that the likelier a token, the more uncertain. Nothing is said.
# For a user: the results of PMI and CPMI are not of these methods. What helps for CPMI's constants: tau=3.599, lambd=0.0656.
# Output, 2026-11-30:
#     lm-polygraph 0.7.0, tokens 1 to 5 of the first text
#     log P(y_t | y_<t, prompt)    -1.972  -1.486  -0.402  -1.979  -1.486
#     log P(y_t | y_<t)            -1.979  -1.486  -0.402  -1.979  -1.486
#     seen for it                  -7.443  -8.115  -5.805  -7.443  -8.115
#     log P(y_t again after y_t)   -7.443  -8.115  -5.805  -7.443  -8.115
#     largest PMI of a token but the first, of a model that forgets the prompt: {'right': 0.006, 'seen': 7.114}
#     CPMI with the right subtrahend, tau 0.0656 and lambd 3.599: correlation with -log P(y_t | y_<t, prompt) -1.00
#     CPMI with the right subtrahend, tau 3.599 and lambd 0.0656: correlation with -log P(y_t | y_<t, prompt) +1.00
#     tokens with an entropy above the default threshold: 100%
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
from lm_polygraph.estimators.conditional_pointwise_mutual_information import ConditionalPointwiseMutualInformation as CPMI
from lm_polygraph.estimators.pointwise_mutual_information import PointwiseMutualInformation
from lm_polygraph.stat_calculators.entropy import EntropyCalculator
from lm_polygraph.stat_calculators.greedy_lm_probs import GreedyLMProbsCalculator
from lm_polygraph.stat_calculators.greedy_probs import GreedyProbsCalculator
from lm_polygraph.utils.model import WhiteboxModel

# A model of pairs: its attention writes nothing, so that each token hangs on the one before alone, with or without the prompt.
core = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, **{f"w{n}": n for n in range(1, 200)}}, unk_token="<s>"))
core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
words = transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<s>", pad_token="<s>", padding_side="left")
torch.manual_seed(0)
sizes = dict(vocab_size=200, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2)
lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, bos_token_id=None, eos_token_id=0, pad_token_id=0)).eval()
for weight in lm.parameters():
    if weight.ndim > 1:
        torch.nn.init.normal_(weight, std=0.5)
torch.nn.init.zeros_(lm.model.layers[0].self_attn.o_proj.weight)
torch.nn.init.normal_(lm.lm_head.weight, std=0.25)
model = WhiteboxModel(lm, words, "pairs")

# (0.006 in place of 0 below: the second token is drawn without the end of the text, by min_new_tokens=2.)
texts = ["w3 w4 w5", "w8 w9", "w1 w7 w9 w2"]
stats = GreedyProbsCalculator(output_attentions=False, output_hidden_states=False)({}, texts, model, max_new_tokens=12)
stats.update(EntropyCalculator()(stats))
stats.update(GreedyLMProbsCalculator()(stats, texts, model))
right = [lm(torch.tensor([tokens])).logits[0].log_softmax(-1) for tokens in stats["greedy_tokens"]]
right = [[0.0] + [float(rows[t - 1, tokens[t]]) for t in range(1, len(tokens))] for rows, tokens in zip(right, stats["greedy_tokens"])]
own = [[float(lm(torch.tensor([tokens])).logits[0].log_softmax(-1)[t, tokens[t]]) for t in range(len(tokens))] for tokens in stats["greedy_tokens"]]

print(f"lm-polygraph {version('lm-polygraph')}, tokens 1 to 5 of the first text")
for name, rows in (("log P(y_t | y_<t, prompt)", stats["greedy_log_likelihoods"]), ("log P(y_t | y_<t)", right),
                   ("seen for it", stats["greedy_lm_log_likelihoods"]), ("log P(y_t again after y_t)", own)):
    print(f"{name:27}" + "".join(f"{value:8.3f}" for value in rows[0][1:6]))
seen = np.concatenate([row[1:] for row in stats["greedy_lm_log_likelihoods"]])
shifted = np.abs(seen - np.concatenate([row[1:] for row in own])).max() < 1e-4
firsts = np.cumsum([0] + [len(row) - 1 for row in right])[:-1]
pmi = {name: np.delete(PointwiseMutualInformation()({**stats, "greedy_lm_log_likelihoods": rows}), firsts)
       for name, rows in (("right", right), ("seen", stats["greedy_lm_log_likelihoods"]))}
print("largest PMI of a token but the first, of a model that forgets the prompt:", {name: round(float(np.abs(row).max()), 3) for name, row in pmi.items()})

likelihood = np.concatenate([row[:-1] for row in stats["greedy_log_likelihoods"]])
above = np.mean(np.concatenate(stats["entropy"]) >= CPMI().tau)
turned = {}
for name, method in (("default", CPMI()), ("paper", CPMI(tau=3.599, lambd=0.0656))):
    score = method({**stats, "greedy_lm_log_likelihoods": right})
    turned[name] = float(np.corrcoef(np.delete(score, firsts), np.delete(-likelihood, firsts))[0, 1])
    print(f"CPMI with the right subtrahend, tau {method.tau} and lambd {method.lambd}: correlation with -log P(y_t | y_<t, prompt) {turned[name]:+.2f}")
print(f"tokens with an entropy above the default threshold: {above:.0%}")
as_stated = shifted and np.abs(pmi["right"]).max() < 0.1 < 1 < np.abs(pmi["seen"]).max() and turned["default"] < -0.9 and turned["paper"] > 0.9
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
