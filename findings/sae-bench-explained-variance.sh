#!/usr/bin/env bash
# sae-bench 0.6.0: the core evaluation's explained variance and MSE hang on the activations' scale and the batch's size.
#
# Documented: explained_variance is the "Proportion of variance in the original activation explained by the SAE
# reconstruction", beside a "Previously used, incorrect, formula" explained_variance_legacy; mse is the "Mean squared
# error between original activation and SAE reconstruction" (sae_bench/evals/core/eval_output.py, shown in the result's
# schema). Seen: from the mean of |x|^2 not the squared mean of each dimension is taken away but the square of one
# number, the mean of x^2 over all dimensions. So the variance is not about the mean, and x times ten has another one,
# even a negative one: an SAE that gives zeros explains 2.78 of the variance. The mse is divided by the number of
# tokens once more. Nothing is said. For a user: no two layers, models or batch sizes can be compared by either number,
# and an SAE that has learned the mean alone is near 1. What helps: scikit-learn's explained_variance_score with
# "variance_weighted".
# Output, 2026-11-30:
#     sae-bench 0.6.0         explained variance: right, seen   squared error: right, seen
#     half of the noise                     0.750      0.746           16.0       0.004
#     the same, all times 10                0.750      1.444         1600.6       0.391
#     zeros for noise times 10              0.000      2.776         6402.4       1.563
#     the same of 8 of 32 prompts           0.000      2.790         6384.0       6.234
#     the mean of each dimension            0.000      0.930           64.0       0.016
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check einops==0.8.2 pandas==3.1.1 pydantic==2.13.0 \
    scikit-learn==1.9.1 tabulate==0.9.0 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps sae-bench==0.6.0
cd "$folder"
cat > tried.py <<'PYTHON'
import sys
from importlib.metadata import version
from types import SimpleNamespace
from unittest.mock import MagicMock

for name in ("sae_lens", "sae_lens.loading", "sae_lens.loading.pretrained_saes_directory", "sae_lens.saes",
             "sae_lens.saes.sae", "sae_lens.training", "sae_lens.training.activations_store", "transformer_lens",
             "transformer_lens.hook_points"):
    sys.modules[name] = MagicMock()  # for this evaluation their names are annotations alone
import torch
from sae_bench.evals.core.main import get_sparsity_and_variance_metrics
from sklearn.metrics import explained_variance_score

wanted = dict(compute_l2_norms=False, compute_sparsity_metrics=False, compute_variance_metrics=True,
              compute_featurewise_density_statistics=False, model_kwargs={}, n_batches=1)


def measured(x, decoded, prompts=32):
    """Explained variance and MSE of an SAE that gives `decoded` for the tokens' activations x: right, and seen."""
    acts = x.view(prompts, -1, x.shape[-1])
    settings = SimpleNamespace(hook_name="resid", hook_head_index=None, hook_layer=0, d_sae=x.shape[-1])
    sae = SimpleNamespace(cfg=settings, device="cpu", encode=lambda acts: acts, decode=lambda _: decoded.view_as(acts))
    model = SimpleNamespace(run_with_cache=lambda *_, **__: (None, {"resid": acts}))
    store = SimpleNamespace(get_batch_tokens=lambda *_: torch.zeros(acts.shape[:2], dtype=torch.long))
    seen, _ = get_sparsity_and_variance_metrics(sae, model, store, eval_batch_size_prompts=prompts, **wanted)
    right = explained_variance_score(x, decoded, multioutput="variance_weighted")
    return right, seen["explained_variance"], float((x - decoded).square().sum(-1).mean()), seen["mse"]


chance = torch.Generator().manual_seed(0)
noise = torch.randn(4096, 64, generator=chance)  # 32 prompts of 128 tokens
apart = noise + 6 * torch.randn(64, generator=chance)  # the same about a mean in each dimension
rows = {
    "half of the noise": measured(noise, noise / 2),
    "the same, all times 10": measured(10 * noise, 5 * noise),
    "zeros for noise times 10": measured(10 * noise, 0 * noise),
    "the same of 8 of 32 prompts": measured(10 * noise[:1024], 0 * noise[:1024], prompts=8),
    "the mean of each dimension": measured(apart, apart.mean(0).expand_as(apart)),
}
print(f"sae-bench {version('sae-bench')}         explained variance: right, seen   squared error: right, seen")
for name, values in rows.items():
    values = (0 if abs(value) < 1e-6 else value for value in values)
    print("{:32} {:10.3f} {:10.3f} {:14.1f} {:11.3f}".format(name, *values))
half, ten, zeros, eight, mean = rows.values()
scale = abs(half[0] - ten[0]) < 1e-3 and ten[1] - half[1] > 0.5 and zeros[1] > 2 and mean[1] > 0.9
batch = abs(eight[2] / zeros[2] - 1) < 0.05 and abs(eight[3] / zeros[3] - 4) < 0.2
raise SystemExit(0 if scale and batch else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
