#!/usr/bin/env bash
# overcomplete 0.3.0: the thresholds of a JumpSAE get 1 / bandwidth times their gradient, by default two thousand times.
#
# Documented: the pseudo-gradient is that of "Jumping Ahead" (Rajamanoharan et al., 2024), "see the paper for the formula":
# -(threshold / bandwidth) K((z - threshold) / bandwidth), whose mean is the slope of the mean loss; the rectangle kernel is "y = 1 if
# |x| <= bandwith / 2, 0 otherwise". Seen: that kernel gives 1 / bandwidth, as do the others (all but the cosine), and the backward pass
# divides by the bandwidth once more, in JumpReLU and in the step function `heaviside` for penalties on L0. With the default kernel
# (silverman, which integrates to 2) and the default bandwidth 0.001 the factor is 2000. Nothing is said. For a user: with the default
# clip_grad=1.0 of train_sae the thresholds fill the clipped gradient and the weights get what is left; a penalty on L0 weighs 2000
# times what is written; and results hang on the bandwidth as they should not. kernel="cosine" comes out right, by a second slip.
# Output, 2026-11-30:
#     overcomplete 0.3.0 at threshold 1: slope of the mean output, and the pseudo-gradient by bandwidth 0.1, 0.01, 0.001
#     jump_relu silverman  -0.50    -10.00   -100.00  -1000.00
#     jump_relu rectangle  -0.50     -5.00    -50.00   -500.00
#     jump_relu gaussian   -0.50     -2.50    -25.00   -250.00
#     jump_relu cosine     -0.50     -0.50     -0.50     -0.50
#     heaviside silverman  -0.50    -10.00   -100.00  -1000.00
#     heaviside rectangle  -0.50     -5.00    -50.00   -500.00
#     heaviside gaussian   -0.50     -2.50    -25.00   -250.00
#     heaviside cosine     -0.50     -0.50     -0.50     -0.50
#     first gradient of a JumpSAE with silverman: norm 2.264, thresholds 2.097, dictionary 0.636
#     first gradient of a JumpSAE with cosine: norm 0.854, thresholds 0.001, dictionary 0.636
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 scikit-learn==1.9.1 einops==0.8.2 pillow==13.0.0 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps overcomplete==0.3.0
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import distribution, version
from types import ModuleType

package = sys.modules["overcomplete"] = ModuleType("overcomplete")  # without its vision models, which need torchvision, timm and OpenCV
package.__path__ = [str(distribution("overcomplete").locate_file("overcomplete"))]
import torch
from overcomplete.sae import JumpSAE, heaviside, jump_relu

z = (torch.arange(1_000_000, dtype=torch.float64) + 0.5)[:, None] / 500_000  # even on 0 to 2: half of them below the threshold 1
kernels, step = JumpSAE._KERNELS, 1e-3
print("overcomplete", version("overcomplete"), "at threshold 1: slope of the mean output, and the pseudo-gradient by bandwidth 0.1, 0.01, 0.001")
factors = {}
for function in (jump_relu, heaviside):
    def mean(threshold, kernel="rectangle", bandwidth=1.0):
        return function(z, threshold, kernels[kernel], torch.tensor(bandwidth)).mean()

    slope = float(mean(torch.tensor([1 + step])) - mean(torch.tensor([1 - step]))) / (2 * step)
    for kernel in ("silverman", "rectangle", "gaussian", "cosine"):
        seen = []
        for bandwidth in (0.1, 0.01, 0.001):
            threshold = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
            mean(threshold, kernel, bandwidth).backward()
            seen.append(float(threshold.grad))
        factors[function, kernel] = [value / slope for value in seen]
        print(f"{function.__name__:9} {kernel:9} {slope:6.2f} {seen[0]:9.2f} {seen[1]:9.2f} {seen[2]:9.2f}")

x = torch.randn(4096, 32, generator=torch.Generator().manual_seed(0))
for kernel in ("silverman", "cosine"):
    torch.manual_seed(0)
    sae = JumpSAE(32, 128, kernel=kernel)
    (x - sae(x)[2]).square().mean().backward()
    norms = {name: float(weight.grad.norm()) for name, weight in sae.named_parameters() if weight.grad is not None}
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    print(f"first gradient of a JumpSAE with {kernel}: norm {total:.3f}, thresholds {norms['thresholds']:.3f}, dictionary {norms['dictionary._weights']:.3f}")
off = [abs(factors[function, kernel][n] / (scale * 10 ** (n + 1)) - 1) for function in (jump_relu, heaviside) for n in range(3)
       for kernel, scale in (("silverman", 2), ("rectangle", 1))]
raise SystemExit(0 if max(off) < 0.05 else 1)  # 1: it has been mended
PYTHON
