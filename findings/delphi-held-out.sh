#!/usr/bin/env bash
# delphi (eai-delphi) 0.1.3: explanations are tested on examples that the explainer was shown, up to all of them.
#
# Documented: "the sampler divides these contexts into a training and testing set, used to generate explanations and
# evaluate them" (page of the package, Loading Latent Records). Seen: both sets are drawn from all examples of the
# latent with one seed, and nothing is left out of the second draw. Of the 50 test examples 10 to 20 are among the 40
# that the explainer saw by default, more than chance would have (2% of 2000), since both draws begin with the same
# random numbers; with n_examples_train as large as n_examples_test they are the very same. Nothing is said. For a
# user: detection and fuzzing scores reward an explanation that names what stood in its own examples, and the more so
# the rarer the latent is. What helps: take the record's training examples out of record.test, by identity, before it
# is scored.
# Output, 2026-11-30:
#     delphi 0.1.3, test examples that the explainer was shown, of a latent with 200 500 2000
#     default (40 to train, 50 to test)     40%    24%    20%
#     50 to train, 50 to test              100%   100%   100%
#     train_type mix                        20%     8%     2%
#     train_type random                     30%    14%     4%
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 numpy==2.4.6 jaxtyping==0.3.11 orjson==3.13.0 simple-parsing==0.1.9
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps eai-delphi==0.1.3
cd "$folder"
cat > tried.py <<'PYTHON'
import logging
import sys
from importlib.metadata import distribution, version
from types import ModuleType, SimpleNamespace

for name in ("blobfile", "transformers"):  # named, and not used here
    sys.modules[name] = ModuleType(name)
sys.modules["transformers"].PreTrainedTokenizer = sys.modules["transformers"].PreTrainedTokenizerFast = object
for name in ("delphi", "delphi.latents"):  # without what needs vLLM and sparsify
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("eai-delphi").locate_file(name.replace(".", "/")))]
sys.modules["delphi"].logger = logging.getLogger("delphi")
import torch
from delphi.config import SamplerConfig
from delphi.latents.latents import ActivatingExample, Latent, LatentRecord
from delphi.latents.samplers import sampler

words = SimpleNamespace(batch_decode=lambda ids: [f" w{number}" for number in ids.tolist()])
named = {"default (40 to train, 50 to test)": {}, "50 to train, 50 to test": dict(n_examples_train=50),
         "train_type mix": dict(train_type="mix"), "train_type random": dict(train_type="random")}
sizes = 200, 500, 2000
print(f"delphi {version('eai-delphi')}, test examples that the explainer was shown, of a latent with", *sizes)
shares = {}
for name, changed in named.items():
    for size in sizes:
        strengths = torch.arange(size, 0, -1.0)
        examples = [ActivatingExample(torch.tensor([number]), strengths[number:number + 1]) for number in range(size)]
        record = LatentRecord(Latent("layers.5", 0), examples=examples)
        record = sampler(record, SamplerConfig(**changed), words)
        shown = {id(example) for example in record.train}
        shares[name, size] = sum(id(example) in shown for example in record.test) / len(record.test)
    print(f"{name:34}", *(f"{shares[name, size]:6.0%}" for size in sizes))
default = min(shares["default (40 to train, 50 to test)", size] for size in sizes)
same = min(shares["50 to train, 50 to test", size] for size in sizes)
raise SystemExit(0 if default > 0.1 and same == 1 else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
