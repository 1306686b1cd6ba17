#!/usr/bin/env bash
# minicons 0.3.39: scores behind a chat prompt have prompt tokens in them, and without BOS words have their neighbours'.
#
# Documented: in conditional_score "the model ignores the word probabilities of this part of the input", the prefix, and
# `chat=True` is for a prefix by the chat template; word_score_tokenized "Returns the logprobs per word" (docstrings).
# Seen: the prefix's length is counted without the tokens that are the padding token, which is the end token where a
# tokenizer has no other (or has that one, as chat models often do), and a chat prompt has one for each turn: the last
# tokens of the prompt, one for each, are scored as the answer's. And word_score_tokenized takes the first word's score
# from the first token that has one, which without a BOS token is the second: each word gets the next word's score, and
# the last one's is 0; a tokenizer without a BOS token, as Qwen's, has no other way, since `bos_token=True` fails there.
# Nothing is said. For a user: answers are ranked by the prompt's tail as well, the more the more turns there are, and
# word surprisals of such models are all one word off. What helps: a padding token that no prompt has, set in the
# tokenizer before; the first word given as the prefix, or `token_score`.
# Output, 2026-11-30:
#     minicons 0.3.39, a GPT-2 of random weights, no BOS token
#     the answer 'good' behind 1 turns: expected -6.08 of 1 token, seen -4.70 of 2; with a padding token -6.08
#     the answer 'good' behind 3 turns: expected -5.89 of 1 token, seen -5.99 of 4; with a padding token -5.89
#     the answer 'good' behind 5 turns: expected -5.62 of 1 token, seen -5.24 of 6; with a padding token -5.62
#     surprisals expected, from the second word on: cat 6.18, sat 3.49, on 2.40, the 2.94, mat 4.17
#     surprisals seen: the 6.18, cat 3.49, sat 2.40, on 2.94, the 4.17, mat 0.00
#     with bos_token=True: unsupported operand type(s) for +: 'NoneType' and 'str'
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
words = "user assistant is it good bad yes no the cat sat on mat".split()
words = {word: place for place, word in enumerate(["<|end|>", "<|pad|>", *words, *["Ġ" + word for word in words]])}
inner = Tokenizer(models.WordLevel(words, unk_token="<|pad|>"))
inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
inner.add_special_tokens(["<|end|>", "<|pad|>"])
template = "{% for one in messages %}{{ one.role + ' ' + one.content }}<|end|>{% endfor %}assistant"
config = GPT2Config(vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3,
                    bos_token_id=0, eos_token_id=0)
model = GPT2LMHeadModel(config).eval()


def scorer(**marks):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", **marks)
    tokenizer.chat_template = template
    return IncrementalLMScorer(model, tokenizer=tokenizer)


def right(prefix, rest):
    """The log-probabilities of the rest's tokens behind the prefix, in one pass."""
    start, ids = len(inner.encode(prefix).ids), inner.encode(prefix + rest).ids
    with torch.no_grad():
        table = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return table[range(start - 1, len(ids) - 1), ids[start:]]


print(f"minicons {version('minicons')}, a GPT-2 of random weights, no BOS token")
talk = [{"role": role, "content": text} for role, text in
        (("user", "is it good"), ("assistant", "yes"), ("user", "is it bad"), ("assistant", "no"), ("user", "is it"))]
ends = {}
for turns in (1, 3, 5):
    asking = scorer()
    prompt = asking.tokenizer.apply_chat_template(talk[:turns], tokenize=False)
    seen = {name: one.conditional_score([prompt], ["good"], chat=True, reduction=lambda scores: scores)[0]
            for name, one in (("end", asking), ("pad", scorer(pad_token="<|pad|>")))}
    expected = right(prompt, " good")
    ends[turns] = len(seen["end"]), torch.allclose(seen["pad"], expected, atol=1e-4)
    print(f"the answer 'good' behind {turns} turns: expected {expected.mean():.2f} of {len(expected)} token,",
          f"seen {seen['end'].mean():.2f} of {len(seen['end'])}; with a padding token {seen['pad'].mean():.2f}")
text = "the cat sat on the mat"
seen = dict(enumerate(scorer().word_score_tokenized(text, str.split, surprisal=True)[0]))
expected = (-right("the", text[3:])).tolist()
print("surprisals expected, from the second word on:",
      ", ".join(f"{word} {one:.2f}" for word, one in zip(text.split()[1:], expected)))
print("surprisals seen:", ", ".join(f"{word} {one:.2f}" for word, one in seen.values()))
try:
    scorer().word_score_tokenized(text, str.split, bos_token=True)
    fails = False
except TypeError as error:
    fails = True
    print("with bos_token=True:", error)
shifted = all(abs(seen[place][1] - one) < 1e-3 for place, one in enumerate(expected)) and seen[5] == ("mat", 0.0)
counted = ends == {1: (2, True), 3: (4, True), 5: (6, True)}
raise SystemExit(0 if counted and shifted and fails else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
