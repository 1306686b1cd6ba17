#!/usr/bin/env bash
# minicons 0.3.39: fixed_label_score scores a label's later tokens behind the model's own words, not behind the label's.
#
# Documented: "Returns log probabilities for a fixed set of labels (continuation) given a batch of prefixes" (docstring
# of IncrementalLMScorer.fixed_label_score). Seen: the model generates from each prefix, and a label's tokens are looked
# up in the scores of that generation: the second token of each label is scored behind the first token that the model
# chose, the third behind its first two. So only labels of one token are scored; for longer ones what is returned is no
# probability of the label, and hangs on the generation's settings, by chance where they sample. Nothing is said. For a
# user: a classification by labels such as "not entailed" and "not sure" gives another label than the model's
# probabilities do. What helps: `conditional_score` with `reduction=lambda scores: scores.sum().item()`, which is right
# for such labels.
# Output, 2026-11-30:
#     minicons 0.3.39, a GPT-2 of random weights, 10 prefixes
#     good, bad, known: off by up to 0.00 nats, 0 labels wrong; conditional_score by 0.00
#         behind 'the cat is': right [-4.67, -4.5, -0.8] seen [-4.67, -4.5, -0.8]
#     very good, very bad, not known: off by up to 4.38 nats, 4 labels wrong; conditional_score by 0.00
#         behind 'the cat is': right [-6.06, -7.49, -4.89] seen [-8.6, -9.75, -3.85]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps minicons==0.3.39
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
import warnings
from importlib.metadata import version
from types import ModuleType

for name in ("wonderwords", "PIL"):  # random words and images, not used here
    sys.modules[name] = ModuleType(name)
sys.modules["wonderwords"].RandomWord = sys.modules["PIL"].Image = None
warnings.simplefilter("ignore")
import torch
from minicons.scorer import IncrementalLMScorer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

torch.manual_seed(0)
words = ["Ġ" + word for word in "the cat dog is sat good bad very not sure known so today never".split()]
words = {word: place for place, word in enumerate(["<|end|>", *words])}
inner = Tokenizer(models.WordLevel(words, unk_token="<|end|>"))
inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")
config = GPT2Config(vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=32, initializer_range=0.3,
                    bos_token_id=0, eos_token_id=0)
model = GPT2LMHeadModel(config).eval()
scorer = IncrementalLMScorer(model, tokenizer=tokenizer)


def right(prefix, label):
    """The label's log-probability behind the prefix, in one pass over both."""
    asked, ids = (tokenizer(text).input_ids for text in (prefix, f"{prefix} {label}"))
    with torch.no_grad():
        table = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(table[range(len(asked) - 1, len(ids) - 1), ids[len(asked):]].sum())


prefixes = [f"the {who} {how}" for who in ("cat", "dog") for how in ("is", "sat", "is so", "never sat", "is today")]
print(f"minicons {version('minicons')}, a GPT-2 of random weights, {len(prefixes)} prefixes")
checks = {}
for labels in (["good", "bad", "known"], ["very good", "very bad", "not known"]):
    seen = scorer.fixed_label_score(prefixes, labels)
    chosen = scorer.fixed_label_score(prefixes, labels, inference=True)[0]
    summed = torch.tensor([scorer.conditional_score([prefix] * 3, labels, reduction=lambda one: one.sum().item())
                           for prefix in prefixes])
    expected = torch.tensor([[right(prefix, label) for label in labels] for prefix in prefixes])
    best = [labels[place] for place in expected.argmax(1).tolist()]
    other = sum(one != two for one, two in zip(chosen, best))
    far, near = (float((given - expected).abs().max()) for given in (seen, summed))
    checks[labels[0]] = far, near, other
    print(f"{', '.join(labels)}: off by up to {far:.2f} nats, {other} labels wrong; conditional_score by {near:.2f}")
    print(f"    behind {prefixes[0]!r}: right", [round(one, 2) for one in expected[0].tolist()], "seen",
          [round(one, 2) for one in seen[0].tolist()])
short, long = checks["good"], checks["very good"]
as_stated = short[0] < 1e-3 and short[2] == 0 and long[0] > 0.5 and long[2] > 0 and long[1] < 1e-3
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
