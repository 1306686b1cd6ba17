#!/usr/bin/env bash
# dictionary-learning 0.1.0: PAnnealTrainer only says that it resamples dead features; JumpReluTrainer has no seed.
#
# Documented: "if a `resample_steps` argument is passed to the Trainer, then dead neurons will periodically be
# resampled" (page of the package); trainers take a `seed`. Seen: PAnnealTrainer prints "resampling 20 neurons", and
# writes the new weights to a copy (weight[deads][:n] = ...), so that no weight or bias changes; StandardTrainer, which
# does it in another way, revives them. JumpReluTrainer keeps its seed for the config that is saved, and never sets it:
# two SAEs of one seed start apart, while those of the other trainers are one. Nothing is said. For a user: p-annealed
# SAEs are compared with the rest with all their dead features, after a log of revivals, and a JumpReLU SAE cannot be
# made again from its config. What helps: StandardTrainer's resample_neurons in PAnnealTrainer's place, and
# torch.manual_seed before a JumpReluTrainer.
# Output, 2026-11-30:
#     dictionary-learning 0.1.0, 20 of 64 features dead, a step that resamples them
#     StandardTrainer  'resampling 20 neurons'; dead features after it: 0
#     PAnnealTrainer   'resampling 20 neurons'; dead features after it: 20
#     first weight of two trainers with seed=0
#     StandardTrainer   -0.0239  -0.0239
#     PAnnealTrainer    -0.0239  -0.0239
#     JumpReluTrainer    0.1130  -0.4952
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 einops==0.8.2
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps dictionary-learning==0.1.0
cd "$folder"
cat > tried.py <<'PYTHON'
import contextlib
import io
import sys
from importlib.metadata import distribution, version
from types import ModuleType

for name in ("dictionary_learning", "dictionary_learning.trainers"):  # without what needs an old nnsight
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("dictionary-learning").locate_file(name.replace(".", "/")))]
import torch
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.p_anneal import PAnnealTrainer
from dictionary_learning.trainers.standard import StandardTrainer

common = dict(steps=100, activation_dim=16, dict_size=64, layer=0, lm_name="none", device="cpu")
common.update(warmup_steps=10, sparsity_warmup_steps=20)
x = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
print(f"dictionary-learning {version('dictionary-learning')}, 20 of 64 features dead, a step that resamples them")
left = {}
for kind, more in ((StandardTrainer, {}), (PAnnealTrainer, {"anneal_start": 90})):
    trainer = kind(**common, resample_steps=30, seed=0, **more)
    with torch.no_grad():
        trainer.ae.encoder.bias[:20] = -100.0  # they never fire
    said, step = io.StringIO(), 0
    while not said.getvalue():
        with contextlib.redirect_stdout(said):
            trainer.update(step, x)
        step += 1
    codes = trainer.ae(x, output_features=True)[1]
    left[kind] = int((codes == 0).all(0).sum())
    print(f"{kind.__name__:16} {said.getvalue().strip()!r}; dead features after it: {left[kind]}")

print("first weight of two trainers with seed=0")
same = {}
for kind in (StandardTrainer, PAnnealTrainer, JumpReluTrainer):
    first = [next(weight for weight in kind(**common, seed=0).ae.parameters() if weight.ndim == 2) for _ in range(2)]
    same[kind] = torch.equal(*first)
    print(f"{kind.__name__:16}", *(f"{float(weight[0, 0].detach()):8.4f}" for weight in first))
dead = left[StandardTrainer] == 0 and left[PAnnealTrainer] == 20
raise SystemExit(0 if dead and list(same.values()) == [True, True, False] else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
