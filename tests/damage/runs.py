"""The files of a run, finished and unfinished."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from elicit.evaluation import Run
from elicit.evaluation.run import Store
from elicit.evaluation.run.store import CONFIG, ITEMS, METRICS, PARQUET, SAMPLES
from elicit.models import load_model
from tests.damage.kind import Kind
from tests.support.tiny import save_tiny
from tests.support.written import written_run, written_task

BUNDLE = "elicited/elicited.json"
FILES = (CONFIG, ITEMS, SAMPLES, PARQUET, METRICS, BUNDLE)


@cache
def _whole() -> Path:
    """A run of two arms, made once."""
    folder = Path(tempfile.mkdtemp(prefix="elicit-damage-"))
    model = load_model(str(save_tiny(folder / "model")), dtype="float32", device="cpu")
    arms = {"m": lambda item, b: f"so {b}", "direct": lambda item, b: f"it is {item.answer}"}
    run = written_run(model, folder / "run", written_task(2), "m", arms, branches=2)
    (run.folder / "elicited").mkdir()
    (run.folder / BUNDLE).write_text("{}")
    run.store.finish(run.metrics)
    return run.folder


def finished(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        return Path(shutil.copytree(_whole(), folder / "run")) / name

    return make


def unfinished(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        file = finished(name)(folder)
        (folder / "run" / METRICS).unlink()
        return file

    return make


def all_of_it(file: Path) -> Any:
    """Whatever report, compare and analyse read of a run."""
    folder = next(parent for parent in file.parents if parent.name == "run")
    run = Run.load(folder)
    bundle = (run.store.bundle / "elicited.json").read_bytes()
    items = [vars(item) for item in run.items]
    return run.metrics, run.store.config, run.outcomes, run.traces, items, bundle


def kept(file: Path) -> Any:
    """What a resumed run goes on from: its settings, and of its samples a beginning that is as it was written."""
    store = Store.read(file.parent)
    with store.writing() as journal:
        done = journal.done
    written = (_whole() / SAMPLES).read_bytes()
    samples = (file.parent / SAMPLES).read_bytes()
    return store.config, written.startswith(samples) and len(done) == samples.count(b'"index": 0')


KINDS = (
    *(Kind(f"finished run: {name}", finished(name), all_of_it, sealed=True) for name in FILES),
    *(Kind(f"unfinished run: {name}", unfinished(name), kept, sealed=True) for name in (CONFIG, SAMPLES)),
)
