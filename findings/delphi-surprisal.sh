#!/usr/bin/env bash
# delphi (eai-delphi) 0.1.3: past the first ten examples, a surprisal is that of a text behind the texts before it.
#
# Documented: surprisal scoring "computes the loss over some examples" (page of the package);
# SurprisalOutput.explanation is the "surprisal of the model with an explanation", no_explanation that with none. Seen:
# the explanation's cache of keys and values is filled once and given to every batch of ten; a forward appends to it,
# so that each later text is read behind the texts of the batches before it, at later positions. The order is a
# shuffle's. (Where the last batch has fewer than ten it fails loudly.) Nothing is said. For a user: a text's
# surprisal, and the difference that the explanation makes, hang on its place in a shuffled list; of 100 examples ten
# are right. What helps: ten examples a call.
# Output, 2026-11-30:
#     delphi 0.1.3, surprisal given the explanation: largest difference from the model's own
#     examples 1 to 10 in the order of the scorer: 0.000
#     examples 11 to 20 in the order of the scorer: 4.213
#     examples 21 to 30 in the order of the scorer: 4.093
#     examples 31 to 40 in the order of the scorer: 3.604
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 jaxtyping==0.3.11 orjson==3.13.0 simple-parsing==0.1.9
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps eai-delphi==0.1.3
cd "$folder"
cat > tried.py <<'PYTHON'
import asyncio
import logging
import random
import sys
from importlib.metadata import distribution, version
from types import ModuleType

sys.modules["blobfile"] = ModuleType("blobfile")  # named, and not used here
for name in ("delphi", "delphi.latents", "delphi.scorers", "delphi.scorers.surprisal"):
    package = sys.modules[name] = ModuleType(name)  # without what needs vLLM and sparsify
    package.__path__ = [str(distribution("eai-delphi").locate_file(name.replace(".", "/")))]
sys.modules["delphi"].logger = logging.getLogger("delphi")
import tokenizers, torch, transformers
from delphi.latents import latents

for name in ("ActivatingExample", "Example", "LatentRecord", "NonActivatingExample"):
    setattr(sys.modules["delphi.latents"], name, getattr(latents, name))
from delphi.scorers.surprisal.prompts import BASEPROMPT
from delphi.scorers.surprisal.surprisal import SurprisalScorer

vocabulary = {"<s>": 0, **{f"w{n}": n for n in range(1, 100)}}
core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<s>"))
core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
torch.manual_seed(0)
lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(
    vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)).eval()
for weight in lm.parameters():
    if weight.ndim > 1:
        torch.nn.init.normal_(weight, std=0.3)
lm.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<s>", pad_token="<s>")

chance = torch.Generator().manual_seed(0)
numbers = torch.randint(1, 100, (40, 8), generator=chance)
texts = [[f"w{number} " for number in row.tolist()] for row in numbers]
examples = [latents.ActivatingExample(row, torch.ones(8), str_tokens=text) for row, text in zip(numbers, texts)]
record = latents.LatentRecord(latents.Latent("layers.5", 0), test=examples[:20], extra_examples=examples[20:])
record.explanation = "w3 w4 w5"
random.seed(0)
result = asyncio.run(SurprisalScorer(lm, verbose=False, batch_size=10)(record)).score
prompt = BASEPROMPT + "Description: \n" + record.explanation + "\n Sentences:\n"  # as the scorer has it
prompt = lm.tokenizer.encode(prompt, add_special_tokens=False)


def surprisal(text):
    """Of each token of a text but the first, behind the explanation's prompt."""
    ids = lm.tokenizer.encode(text, add_special_tokens=False)
    with torch.no_grad():
        logits = lm(torch.tensor([prompt + ids])).logits[0, len(prompt):-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")


print(f"delphi {version('eai-delphi')}, surprisal given the explanation: largest difference from the model's own")
off = []
for batch in range(4):
    some = result[batch * 10:batch * 10 + 10]
    off.append(max(float((torch.tensor(one.explanation) - surprisal(one.text)).abs().max()) for one in some))
    print(f"examples {batch * 10 + 1} to {batch * 10 + 10} in the order of the scorer: {off[-1]:.3f}")
raise SystemExit(0 if off[0] < 1e-3 and min(off[1:]) > 0.5 else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
