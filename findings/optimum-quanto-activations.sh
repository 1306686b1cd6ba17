#!/usr/bin/env bash
# optimum-quanto 0.2.7: minus a quantized activation's lowest value is itself; relu and where forget sign and infinity.
#
# Documented: "int8 and float8 activations", whose tensors a model uses like any other; `quantize(model, weights=qint8,
# activations=qint8)` and "Calibration(momentum=0.9)", "momentum: the momentum to use when updating scales". Seen: a
# value below the range that was calibrated is -128, and minus it is taken in int8, where -(-128) is -128: the largest
# negative values keep their sign, as in the rotation of RoPE (queries and keys are quantized there with
# streamline=False). A product with a negative number has a negative scale, and relu looks at the integers alone: what
# comes out is the negative part where the positive one is due. torch.where(mask, scores, -inf) has -128 steps in place
# of -inf, so that nothing is masked. And Calibration's momentum is for outputs: the scales of inputs are updated by
# 0.9 whatever is asked for. Nothing is said. For a user: tokens with outliers, for which activations' ranges are set,
# get another sign. What helps: float8 activations for minus, dequantize() before these operations.
# Output, 2026-11-30:
#     optimum-quanto 0.2.7, qint8 with a step of 0.1
#     x                       -20.0  -12.7   -1.0    3.0   20.0
#     as quantized            -12.8  -12.7   -1.0    3.0   12.7
#     -x                      -12.8   12.7    1.0   -3.0  -12.7
#     relu(-1 * x)              0.0    0.0    0.0   -3.0  -12.7
#     where(x > -2, x, -inf)  -12.8  -12.8   -1.0    3.0   12.7
#     (20, -20) turned by 90 degrees: due (20.0, 20.0), within the range (12.7, 12.7), seen (-12.8, 12.7)
#     scales after inputs of 1 to 5: momentum 0.0: input 0.015, output 0.013
#                                    momentum 0.9: input 0.015, output 0.008
#                                    momentum 1.0: input 0.015, output 0.007
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optimum-quanto==0.2.7 numpy==2.4.6
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import torch
from optimum.quanto import Calibration, QTensor, qint8, quantize
from optimum.quanto.tensor import ActivationQBytesTensor

STEP = torch.tensor(0.1)


def quantized(values):
    return ActivationQBytesTensor.quantize(torch.tensor(values), qint8, STEP)


def plain(values):
    return (values.dequantize() if isinstance(values, QTensor) else values).tolist()


print(f"optimum-quanto {version('optimum-quanto')}, qint8 with a step of 0.1")
given = [-20.0, -12.7, -1.0, 3.0, 20.0]
x = quantized(given)
rows = {"x": given, "as quantized": plain(x), "-x": plain(-x), "relu(-1 * x)": plain(torch.relu(-1.0 * x)),
        "where(x > -2, x, -inf)": plain(torch.where(torch.tensor(given) > -2, x, torch.tensor(float("-inf"))))}
for name, row in rows.items():
    print(f"{name:22}" + "".join(f" {number + 0.0:6.1f}" for number in row))


def turned(pair):
    """RoPE's rotation of a pair by 90 degrees: its first half is minus the second one."""
    return plain(torch.cat((-pair[1:], pair[:1])))


pairs = [20.0, 20.0], turned(quantized([12.7, -12.7])), turned(quantized([20.0, -20.0]))
print("(20, -20) turned by 90 degrees: due ({:.1f}, {:.1f}), within the range ({:.1f}, {:.1f}), seen ({:.1f}, {:.1f})"
      .format(*pairs[0], *pairs[1], *pairs[2]))
scales = {}
for momentum in (0.0, 0.9, 1.0):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    quantize(model, weights=qint8, activations=qint8)
    with Calibration(momentum=momentum), torch.no_grad():
        for size in range(1, 6):
            model(torch.full((2, 8), float(size)))
    scales[momentum] = float(model[0].input_scale), float(model[0].output_scale)
    print("{:30} momentum {}: input {:.3f}, output {:.3f}".format(
        "scales after inputs of 1 to 5:" if not momentum else "", momentum, *scales[momentum]))
signs = rows["-x"][0] < 0 < rows["-x"][1] and max(rows["relu(-1 * x)"]) == 0 > min(rows["relu(-1 * x)"])
masked = rows["where(x > -2, x, -inf)"][1] == rows["as quantized"][0] and pairs[2][0] < 0 < pairs[1][0]
kept = len({one for one, _ in scales.values()}) == 1 and len({other for _, other in scales.values()}) == 3
raise SystemExit(0 if signs and masked and kept else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
