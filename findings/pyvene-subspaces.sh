#!/usr/bin/env bash
# pyvene 0.1.8: where the rows of a batch have subspaces of their own, each row is intervened on in the subspaces of all of them.
#
# Documented: "subspaces is a list of indices indicating which subspace will this intervention target given an example in the batch. …
# This input field should look like something like, [[[subspace indices], [subspace indices]], …]", one list for each row. Seen: with
# VanillaIntervention, AdditionIntervention and their like at one position, rows of the same number of indices are laid over one
# another: with [0, 1] for the first row and [4, 5] for the second both rows get the source's 0, 1, 4 and 5, and nothing is said. Where
# there are as many positions as rows, the first position of all rows gets the first row's subspace, the second the second's. For a
# user: interchange accuracies of subspaces hang on the batch size and on what else is in the batch. What helps: a batch of one, or one
# subspace for all rows.
# Output, 2026-11-30:
#     nnsight is not detected. Please install via 'pip install nnsight' for nnsight backend.
#     pyvene 0.1.8, transformers 5.23.0: dimensions changed in each row, at each position
#     asked for [0, 1] and [4, 5], position 2, batches of one:    [[[0, 1]], [[4, 5]]]
#     asked for [0, 1] and [4, 5], position 2, a batch of two:    [[[0, 1, 4, 5]], [[0, 1, 4, 5]]]
#     asked for [0, 1] and [4, 5], positions 2 and 3, two rows:   [[[0, 1], [4, 5]], [[0, 1], [4, 5]]]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 matplotlib==3.11.2
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps pyvene==0.1.8
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import pyvene, torch, transformers

torch.manual_seed(0)
sizes = dict(n_layer=2, n_embd=8, n_head=2, vocab_size=20, n_positions=16)
lm = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)).eval()
base, source = torch.randint(0, 20, (2, 5)), torch.randint(0, 20, (2, 5))
after = {}
norm = lm.transformer.h[1].ln_1
read = norm.forward


def reader(hidden):
    """What the next layer gets, which pyvene has intervened on."""
    after["layer 0"] = hidden.detach().clone()
    return read(hidden)


norm.forward = reader


def changed(rows, positions, subspaces):
    """For each of these rows and each position the dimensions of layer 0's output that are no longer the model's own."""
    config = pyvene.IntervenableConfig(
        [{"layer": 0, "component": "block_output", "unit": "pos", "max_number_of_units": len(positions)}], intervention_types=pyvene.VanillaIntervention
    )
    lm(base[rows])
    before = after["layer 0"]
    places = [[positions] * len(rows)]
    pyvene.IntervenableModel(config, lm)({"input_ids": base[rows]}, [{"input_ids": source[rows]}], {"sources->base": (places, places)}, subspaces=[subspaces])
    return [[(after["layer 0"][row, at] != before[row, at]).nonzero().flatten().tolist() for at in positions] for row in range(len(rows))]


print(f"pyvene {version('pyvene')}, transformers {transformers.__version__}: dimensions changed in each row, at each position")
alone = changed([0], [2], [[0, 1]]) + changed([1], [2], [[4, 5]])
print("asked for [0, 1] and [4, 5], position 2, batches of one:   ", alone)
together = changed([0, 1], [2], [[0, 1], [4, 5]])
print("asked for [0, 1] and [4, 5], position 2, a batch of two:   ", together)
two = changed([0, 1], [2, 3], [[0, 1], [4, 5]])
print("asked for [0, 1] and [4, 5], positions 2 and 3, two rows:  ", two)
as_stated = alone == [[[0, 1]], [[4, 5]]] and together == [[[0, 1, 4, 5]]] * 2 and two == [[[0, 1], [4, 5]]] * 2
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
