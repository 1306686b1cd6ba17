#!/usr/bin/env bash
# dattri 0.3.0: in batches of one the self-influence of every sample is the sum of all; DataInf's default is nan.
#
# Documented: self_attribute gives the "influence of the training set on itself, with the shape of
# (num_train_samples,)", by a DataLoader of which it is said only that it be not shuffled; IFAttributorDataInf has
# regularization 0.0 by default and takes layer_name, "The name of the layer to be used"; loo_corr takes with the true
# values "the tensor indicating the removed index". Seen: (1) each batch's self-influence is added to all samples: in
# batches of one all have the same number (others than one and all fail); (2) DataInf divides by its regularization, so
# that by default all scores are nan; (3) given layer_name it cuts the chosen parameters by the sizes of the whole
# model's layers, and layers are mixed; (4) the projection's settings are one dict for all TracIn (and TRAK) attributors
# of a process: what the last one asks for holds for those made before, and is the default after; (5) loo_corr does not
# look at the indices, and pairs values in another order with the wrong scores; (6) mislabel_detection_auc takes ties in
# their order. Nothing is said. For a user: mislabelled samples are looked for in a constant, and a comparison of
# dimensions is of one. What helps: one batch for self_attribute, regularization=None (0.1) for DataInf, one attributor
# after the other, loo_corr of score[indices], scikit-learn's roc_auc_score.
# Output, 2026-11-30:
#     dattri 0.3.0, the first four numbers of 12 samples
#     self-influence in batches of 12:   1.71   0.69   1.90   0.73; sum of the right ones 21.39
#     self-influence in batches of  1:  21.39  21.39  21.39  21.39; sum of the right ones 21.39
#     DataInf of all, default  by hand:  16.62  -0.18   9.80  -0.65, seen:    nan    nan    nan    nan
#     DataInf of all, None     by hand:  16.62  -0.18   9.80  -0.65, seen:  16.62  -0.18   9.80  -0.65
#     DataInf of two weights   by hand:   5.52   1.27   0.03   1.52, seen:   5.65   1.21   0.18   1.54
#     TracIn in 4 dimensions:   1.13   0.66   0.32   0.33; another in 64 made:   2.77  -0.57   1.91  -0.54; default: 64
#     loo_corr of scores that are right, indices in order 1.00, shuffled 0.26
#     mislabel_detection_auc of equal scores: 0.50 is due, seen 0.00 and 1.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 pyyaml==6.0.4 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps dattri==0.3.0
cd "$folder"
cat > tried.py <<'PYTHON'
import warnings
from importlib.metadata import version

import torch
from dattri.algorithm.influence_function import IFAttributorDataInf, IFAttributorExplicit
from dattri.algorithm.tracin import TracInAttributor
from dattri.metric import loo_corr, mislabel_detection_auc
from dattri.task import AttributionTask
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
x, y = torch.randn(12, 5), torch.randint(3, (12,))


def loss(params, data):
    return nn.functional.cross_entropy(torch.func.functional_call(model, params, data[0]), data[1])


def batches(size):
    return DataLoader(TensorDataset(x, y), batch_size=size)


def shown(numbers):
    return " ".join(f"{number:6.2f}" for number in numbers.flatten()[:4].tolist())


task = AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())
print(f"dattri {version('dattri')}, the first four numbers of 12 samples")
own = {}
for size in (12, 1):
    exact = IFAttributorExplicit(task, regularization=1.0)
    exact.cache(batches(12))
    own[size] = exact.self_attribute(batches(size)).detach()
    print(f"self-influence in batches of {size:2}: {shown(own[size])}; sum of the right ones {own[12].sum():.2f}")

gradients = []
for one in range(12):
    parts = torch.autograd.grad(loss(dict(model.named_parameters()), (x[one:one + 1], y[one:one + 1])),
                                list(model.parameters()))
    gradients.append([part.flatten() for part in parts])
weight_1, bias_1, weight_2, bias_2 = (torch.stack(part) for part in zip(*gradients))


def by_hand(layers, damping=0.1):
    """DataInf of each pair of samples: its formula, layer by layer."""
    return sum(part @ sum((part - torch.outer(part @ g, g) / (damping + g @ g)) / damping for g in part).T / 12
               for part in layers)


data_inf = {}
for name, layers, options in (
        ("all, default", [torch.cat([weight_1, bias_1], 1), torch.cat([weight_2, bias_2], 1)], {}),
        ("all, None", [torch.cat([weight_1, bias_1], 1), torch.cat([weight_2, bias_2], 1)], {"regularization": None}),
        ("two weights", [weight_1, weight_2], {"regularization": None, "layer_name": ["0.weight", "2.weight"]})):
    attributor = IFAttributorDataInf(task, **options)
    attributor.cache(batches(12))
    data_inf[name] = by_hand(layers), attributor.attribute(batches(12), batches(12)).detach()
    print(f"DataInf of {name:13} by hand: {shown(data_inf[name][0])}, seen: {shown(data_inf[name][1])}")

few = TracInAttributor(task, torch.ones(1), normalized_grad=False, projector_kwargs={"proj_dim": 4})
before = few.attribute(batches(12), batches(12))
TracInAttributor(task, torch.ones(1), normalized_grad=False, projector_kwargs={"proj_dim": 64})
after = few.attribute(batches(12), batches(12))
default = TracInAttributor(task, torch.ones(1), normalized_grad=False).projector_kwargs["proj_dim"]
print(f"TracIn in 4 dimensions: {shown(before)}; another in 64 made: {shown(after)}; default: {default}")

scores, order = torch.randn(12, 1), torch.randperm(12)
found = [float(loo_corr(scores, truth)[0]) for truth in ((scores, torch.arange(12)), (scores[order], order))]
print("loo_corr of scores that are right, indices in order {:.2f}, shuffled {:.2f}".format(*found))
equal = [float(mislabel_detection_auc(torch.ones(12), labels)[0]) for labels in (torch.arange(12) < 3,
                                                                              torch.arange(12) > 8)]
print("mislabel_detection_auc of equal scores: 0.50 is due, seen {:.2f} and {:.2f}".format(*equal))
summed = torch.allclose(own[1], own[12].sum().expand(12), rtol=1e-3) and float(own[12].std()) > 0.1
formula = torch.allclose(*data_inf["all, None"], rtol=1e-3, atol=1e-3) and data_inf["all, default"][1].isnan().all()
mixed = not torch.allclose(*data_inf["two weights"], atol=0.05) and not torch.allclose(before, after, atol=0.05)
fine = found[0] > 0.99 and found[1] < 0.9 and default == 64 and max(equal) > 0.9 and min(equal) < 0.1
raise SystemExit(0 if summed and formula and mixed and fine else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
