#!/usr/bin/env bash
# safetensors 0.8.0: the same tensors with the same metadata are other bytes each time they are saved.
#
# The format's page says of `__metadata__` that it is a "free form string-to-string map" and of tensors in which order they are
# laid out; tensors do come out in one order, and a file without metadata, or with one entry, is the same bytes every time. Entries
# of the metadata are written in an order that changes from call to call, within one process too. For a user: the SHA-256 of an
# adapter or an SAE that was saved twice says that it is another one, a training that is repeated to the bit seems not to be, and
# a store that keeps files by their hash keeps each. transformers and PEFT write one entry ("format") and are spared; a file with a
# second entry, as trainers and merging tools write it, is not. What helps: sort the header's entries after saving, in place.
# Output, 2026-11-28:
#     safetensors 0.8.0, 20 saves in one process
#     different files without metadata: 1, with one entry: 1
#     different files with six entries: expected 1, seen 20
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import hashlib

import numpy as np
import safetensors
from safetensors.numpy import load, save

tensors = {"lora_A": np.arange(4, dtype=np.float32), "lora_B": np.ones(3, dtype=np.float32)}


def files(entries):
    """Different files among 20 of the same tensors, with so many entries of metadata."""
    metadata = {f"setting {n}": str(n) for n in range(entries)} or None
    saved = [save(tensors, metadata) for _ in range(20)]
    assert all(np.array_equal(load(one)[name], tensor) for one in saved for name, tensor in tensors.items())
    return len({hashlib.sha256(one).hexdigest() for one in saved})


without, one, six = files(0), files(1), files(6)
print(f"safetensors {safetensors.__version__}, 20 saves in one process")
print(f"different files without metadata: {without}, with one entry: {one}")
print(f"different files with six entries: expected 1, seen {six}")
raise SystemExit(0 if without == one == 1 and six > 1 else 1)  # 1: it has been mended
PYTHON
