"""Run notebooks and store them with their outputs: `python -m experiments.notebooks [NAME …]`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from experiments.command import called
from experiments.notebooks import notebooks, run, store
from probes.errors import unknown


def main(names: list[str]) -> None:
    known = {path.stem: path for path in notebooks()}
    for name in names:
        if name not in known:
            raise unknown("notebook", name, known)
    for name in names or known:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook, _ = run(known[name], Path(folder))
        store(known[name], notebook)
        print(f"{name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    called("notebooks", lambda: main(sys.argv[1:]))
