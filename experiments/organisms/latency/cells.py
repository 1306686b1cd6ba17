"""The cells: a mechanism with its short fit (`--quick`) on an organism, with a seed.

An organism with a seed is one comparison in runs/ (`elicit.methods.compare`), so that what ended is found done and what
was stopped resumes. Items are the same for all cells. What nobody fits gives the same with every seed and has one.

Where no SAE comes with an organism, `sae-steer` is given that of `smollm2-135m-latent`, and refuses it itself where it
does not describe the organism (`probes.sae.card.fit_check`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from scipy import stats

from elicit import Run
from elicit.decoding.progress import Progress
from elicit.evaluation.metrics.gap import CEILING, DIRECT, scores_of
from elicit.evaluation.run.store import folder_for
from elicit.methods import cot_decoding, critique_ft, get, one_shot_rlvr, sae_steer, vector_transfer
from elicit.methods.compare import RUNS, Comparison, SharedOptions, plan_of, run_together
from elicit.methods.forecast import forecast_run
from elicit.models import Model, load_model, zoo
from elicit.tasks import load_task
from elicit.tasks.base import Items
from probes.errors import UserError, unknown
from probes.files import write_whole

FAMILY = "smollm2-135m-"  # before the name of each organism
# Cheapest first.
METHODS = (cot_decoding.NAME, sae_steer.NAME, vector_transfer.NAME, critique_ft.NAME, one_shot_rlvr.NAME)
UNFITTED = (cot_decoding.NAME,)
LATENCIES = {0.02: "latent-p02", 0.1: "latent", 0.3: "latent-p30"}
LATENT = LATENCIES[0.1]
TWINS = ("absent", "shuffled", "surface", "missing-skill")
SEEDS = (0, 1, 2)
QUESTIONS, SOLVED = 40, 64  # of the test split, and of each of the two that methods are fitted on
DTYPE, TOKENS = "float32", 192
COST = "cost.json"  # processor seconds by method, in the folder of the comparison


@dataclass(frozen=True)
class Cell:
    """Args: a method's name, an organism's after `FAMILY`, and a seed."""

    method: str
    model: str
    seed: int

    def __str__(self) -> str:
        return f"{self.method}:{self.model}:{self.seed}"


def grid() -> list[Cell]:
    """All cells, those that tell most first: of one seed the two ends of latency, the middle, the twins; then seeds."""
    rare, middle, often = LATENCIES.values()
    by_worth = (rare, often, middle, *TWINS)
    cells = [Cell(method, model, SEEDS[0]) for model in by_worth for method in METHODS]
    fitted = [method for method in METHODS if method not in UNFITTED]
    return cells + [Cell(method, model, seed) for seed in SEEDS[1:] for model in by_worth for method in fitted]


def chosen(text: str) -> list[Cell]:
    """Cells of the grid, in its order, by `METHOD:ORGANISM:SEED` joined by commas; what is left out at the end is all.

    Raises:
        UserError: one that is not in the grid.
    """
    every, wanted = grid(), set()
    for one in filter(None, (part.strip() for part in text.split(","))):
        found = [cell for cell in every if f"{cell}:".startswith(f"{one}:")]
        if not found:
            raise unknown("cell", one, list(map(str, every)), hint="(or METHOD, or METHOD:ORGANISM)")
        wanted |= set(found)
    if text and not wanted:
        raise UserError(f"cells {text!r} were given; give METHOD:ORGANISM:SEED, joined by commas")
    return [cell for cell in every if cell in wanted] if text else every


def measured(cell: Cell, bars: Progress, log: Callable[[str], None]) -> dict[str, Any]:
    """Fit and evaluate, or find it done.

    Returns:
        `right` (a digit a question) and `tokens` a question, or the reason why the method `refused`; `cpu_seconds` that
        it took of a processor, in all calls that were not killed; `made`, the date.
    """
    ready = _Ready.of(cell.model, cell.seed)
    there = (ready.folder / RUNS / cell.method / "metrics.json").is_file()
    began = time.process_time()
    try:
        done = ready.run([cell.method], bars, log)
    finally:
        if not there and ready.folder.is_dir():
            ready.note(cell.method, ready.spent(cell.method) + time.process_time() - began)
    told: dict[str, Any] = {"method": cell.method, "model": cell.model, "seed": cell.seed}
    if done.left_out:
        told |= {"refused": done.left_out[cell.method]}
    else:
        (run,) = done.runs
        told |= {"right": _digits(run), "tokens": round(run.metrics["arms"][cell.method]["tokens_per_item"], 1)}
    return {**told, "cpu_seconds": round(ready.spent(cell.method), 1), "made": date.today().isoformat()}


def spanned(model: str, bars: Progress, log: Callable[[str], None]) -> dict[str, str]:
    """Of an organism its hash, and of its direct answers and of those when it is told to think a digit a question."""
    ready = _Ready.of(model, SEEDS[0])
    runs = ready.run([DIRECT, CEILING], bars, log).runs
    return {"sha256": ready.model.provenance.sha256, **{run.metrics["method"]: _digits(run) for run in runs}}


def foretold(cell: Cell) -> str:
    """What a cell would take here, tried for some seconds; or why that cannot be told."""
    ready = _Ready.of(cell.model, cell.seed)
    try:
        options = ready.shared.options(cell.method)
        return forecast_run(get(cell.method), ready.model, ready.items, options, lambda _: {}).line
    except UserError as error:
        return f"not reckoned: {error}"


def least_fall(n: int, *, right: float = 0.92, direct: float = 0.1) -> float:
    """The fall between two latencies, as a fraction of the gap, that n questions show with 80% power: normal
    approximation, where a mechanism recovers the whole gap at one of them and no two answers to a question go together.

    Args:
        n: questions.
        right, direct: fractions of right answers at the ceiling and without a mechanism.
    """
    reach = float(stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    for hundredths in range(1, 101):
        points = hundredths / 100 * (right - direct)
        four = (right, right - points, direct, direct)  # answers, of which the difference of two gains is made
        if points >= reach * math.sqrt(sum(p * (1 - p) for p in four) / n):
            return hundredths / 100
    return math.inf


@dataclass(frozen=True, eq=False)
class _Ready:
    """An organism in memory, what it is asked, and where its comparison with a seed goes."""

    model: Model
    items: Items
    shared: SharedOptions
    folder: Path

    @staticmethod
    def of(name: str, seed: int) -> _Ready:
        model = load_model(FAMILY + name, dtype=DTYPE)
        items = load_task("organism", limit=SOLVED).test[:QUESTIONS]
        lent = {} if zoo.saes_for(model.name) else {sae_steer.NAME: {"sae": zoo.saes_for(FAMILY + LATENT)[0]}}
        shared = SharedOptions(max_new_tokens=TOKENS, seed=seed, quick=True, given=lent)
        return _Ready(model, items, shared, folder_for("latency", name, "", plan_of(model, items, shared)))

    def run(self, methods: list[str], bars: Progress, log: Callable[[str], None]) -> Comparison:
        return run_together(
            self.model, self.items, methods, self.shared, out=self.folder, optional=True, progress=bars, log=log
        )

    def spent(self, method: str) -> float:
        """Processor seconds of a method's calls so far."""
        file = self.folder / COST
        return float(json.loads(file.read_text(encoding="utf-8")).get(method, 0.0)) if file.is_file() else 0.0

    def note(self, method: str, seconds: float) -> None:
        file = self.folder / COST
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        write_whole(file, json.dumps({**kept, method: seconds}))


def _digits(run: Run) -> str:
    """Right (1) or wrong (0), question by question."""
    return "".join(str(int(score)) for score in scores_of(run.metrics, run.metrics["method"]))
