"""Runs as versions that kept no hashes left them, which a test may change by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

from elicit.evaluation.run.seal import FILES, SUM
from elicit.evaluation.run.store import CONFIG, METRICS, SAMPLES


def unsealed(folder: Path) -> Path:
    """The run without the hashes of its files."""
    config, samples, metrics = (folder / name for name in (CONFIG, SAMPLES, METRICS))
    config.write_text(re.sub(r"\A# sha256 .*\n", "", config.read_text()))
    samples.write_text(re.sub(r'(?m)^\{"sum": "\w+", ', "{", samples.read_text()))
    if metrics.is_file():
        kept = {k: v for k, v in json.loads(metrics.read_text()).items() if k not in (FILES, SUM)}
        metrics.write_text(json.dumps(kept, indent=2))
    return folder
