"""Scripts that run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def ends_well(script: Path, text: str, *words: Path) -> None:
    """Write a script and run it: for what the type checks that are put into this process keep from being packed.

    A file and not `-c`, of which Python 3.13 shows nnsight a source that it cannot cut.

    Args:
        script: where it is written.
        text: of the script, which finds the packages and tests of this checkout.
        words: that it is given.
    """
    script.write_text(text)
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, env=own, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
