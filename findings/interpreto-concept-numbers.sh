#!/usr/bin/env bash
# interpreto 0.5.2: its MSE grows with the samples, its sparsity ratio is divided twice, whitening blows noise up.
#
# Documented: MSE is "also known as the reconstruction error"; Sparsity the number of concepts above epsilon, and
# SparsityRatio that over their number (1 / cpt); lda_shared_var_bias the "Bayes-optimal threshold assuming Gaussian
# class-conditional distributions with a shared (pooled) variance"; Whitening "produces decorrelated, unit-variance
# features", with eps as a "Numerical stability floor". Seen: MSE is one norm over all samples and dimensions, neither a
# square nor a mean, so that ten times the samples have 3.2 times the error; Sparsity is a share of one already and
# SparsityRatio divides it by the number of concepts again; the LDA variance is that of all scores, the distance of the
# classes included, which puts the threshold of a rare concept too high; and a direction without variance, of which
# there is always one where samples are not more than dimensions, is scaled by millions instead of left out: new
# activations have a spread of a million there, and a probe behind it reads noise. Nothing is said. For a user: errors
# of two sample sizes and ratios of two dictionary sizes cannot be compared, and whitened probes need more samples than
# dimensions. What helps: the MSE squared and divided by numel; Sparsity alone; Whitening(rank=...) below the samples.
# Output, 2026-11-30:
#     interpreto 0.5.2, zeros for activations of unit variance
#     MSE of   10 samples: right 0.97, seen  12.49
#     MSE of  100 samples: right 1.06, seen  41.11
#     MSE of 1000 samples: right 1.01, seen 127.07
#     ten of a hundred concepts: Sparsity 10 by its formula, seen 0.100; SparsityRatio 0.1, seen 0.001
#     LDA threshold of a concept of one in twenty: right 2.74, seen 3.29; found 0.88, 0.76
#     largest spread of new activations of 64 dimensions, whitened by 1000 samples, rank None: 1.3e+00
#     largest spread of new activations of 64 dimensions, whitened by   64 samples, rank None: 2.4e+06
#     largest spread of new activations of 64 dimensions, whitened by   50 samples, rank None: 2.0e+06
#     largest spread of new activations of 64 dimensions, whitened by   64 samples, rank 32: 1.2e+00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check beartype==0.23.1 jaxtyping==0.3.11
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps interpreto==0.5.2
cd "$folder"
cat > tried.py <<'PYTHON'
import math
import sys
from importlib.metadata import distribution, version
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

for name in ("interpreto", "interpreto.commons", "interpreto.concepts", "interpreto.concepts.metrics",
             "interpreto.concepts.probes"):  # without models
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(distribution("interpreto").locate_file(name.replace(".", "/")))]
for name in ("interpreto.concepts.base", "interpreto.typing", "interpreto.concepts.probes.base"):
    sys.modules[name] = MagicMock()  # annotations, and a check that fit was called
sys.modules["interpreto.concepts.probes.base"].assert_fitted = lambda method: method
import torch
from interpreto.concepts.metrics.reconstruction_metrics import MSE
from interpreto.concepts.metrics.sparsity_metrics import Sparsity, SparsityRatio
from interpreto.concepts.probes.bias_calibrators import lda_shared_var_bias
from interpreto.concepts.probes.normalizations import Whitening

torch.manual_seed(0)
x = torch.randn(1000, 16)
codes = (torch.arange(100) < 10).float().repeat(1000, 1)  # ten of a hundred concepts
lazy = SimpleNamespace(activations_to_concepts=lambda given: codes[:len(given)],
                       concepts_to_activations=lambda given: torch.zeros(len(given), 16),
                       concept_model=SimpleNamespace(nb_concepts=100))
print(f"interpreto {version('interpreto')}, zeros for activations of unit variance")
errors = {n: MSE(lazy).compute(x[:n]) for n in (10, 100, 1000)}
for n, error in errors.items():
    print(f"MSE of {n:4} samples: right {float(x[:n].square().mean()):.2f}, seen {error:6.2f}")
shares = Sparsity(lazy).compute(x), SparsityRatio(lazy).compute(x)
print(f"ten of a hundred concepts: Sparsity 10 by its formula, seen {shares[0]:.3f}; "
      f"SparsityRatio 0.1, seen {shares[1]:.3f}")

concept = (torch.arange(20000) % 20 == 0).float()[:, None]
scores = torch.randn(20000, 1) + 4 * concept  # variance 1 in each class, means 0 and 4, one in twenty
right, seen = 2 + math.log(19) / 4, -float(lda_shared_var_bias(scores, concept))
recalls = [float((scores[concept > 0] > threshold).float().mean()) for threshold in (right, seen)]
print(f"LDA threshold of a concept of one in twenty: right {right:.2f}, seen {seen:.2f}; "
      f"found {recalls[0]:.2f}, {recalls[1]:.2f}")

spreads = {}
for n, rank in ((1000, None), (64, None), (50, None), (64, 32)):
    white = Whitening(rank=rank).fit(torch.randn(n, 64) + 1)
    spreads[n, rank] = float(white.transform(torch.randn(500, 64) + 1).std(0).max())
    print(f"largest spread of new activations of 64 dimensions, whitened by {n:4} samples, rank {rank}: "
          f"{spreads[n, rank]:.1e}")
grows = abs(errors[1000] / errors[10] - 10) < 1 and abs(shares[0] - 0.1) < 1e-6 and abs(shares[1] - 0.001) < 1e-6
blown = spreads[64, None] > 1e4 and spreads[50, None] > 1e4 and max(spreads[1000, None], spreads[64, 32]) < 10
raise SystemExit(0 if grows and blown and seen - right > 0.3 and recalls[0] - recalls[1] > 0.08 else 1)  # 1: mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
