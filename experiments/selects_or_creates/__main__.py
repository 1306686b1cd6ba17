"""Where does reinforcement learning select, and where does it create (arXiv 2512.07783)? One map on organisms.

    python -m experiments.selects_or_creates run --quick                    # latent and absent, in range: one seed
    python -m experiments.selects_or_creates run --seeds 0,1,2              # the whole map
    python -m experiments.selects_or_creates run --trained edge --organisms latent --asked longer
    python -m experiments.selects_or_creates run --small --seeds 0,1,2      # on organisms of a million parameters
    python -m experiments.selects_or_creates make                           # these, where they are not there
    python -m experiments.selects_or_creates table                          # what is kept so far, and its readings

Organisms that hold a skill *latent* (they think in one answer of ten), *half taught* (they think, and never go back
from a dead end) or *absent* are trained by reinforcement with a verifier on problems *in range* of what they were
taught, at its *edge* (size 7: some longer) and *beyond* it (size 10). Then base and trained model are sampled under the
same settings on problems like those that they were taught (*familiar*), *longer* ones of the same families, and
*unfamiliar* families of the usual size: whether failure follows length or novelty. Every training and run is resumed
where it was stopped; `reading.py` says how a cell is read.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from elicit import Run, evaluate, load_model, load_task
from elicit.analysis.behaviour.pass_at_k import Samples, curves, samples_of
from elicit.cli.terminal import run_bars, step_bar
from elicit.decoding import Sampling
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.metrics.format import signed, with_interval
from elicit.evaluation.run.arms import arms_of, shared_items
from elicit.evaluation.seeds import parse_seeds
from elicit.methods import direct, fit, one_shot_rlvr
from elicit.models import Model
from experiments.command import called
from experiments.figure import as_kept
from experiments.markdown import markdown
from experiments.selects_or_creates import small
from experiments.selects_or_creates.reading import leads, row
from probes.dots import Dot, dot_plot
from probes.errors import UserError, unknown
from probes.files import digest, write_whole

HERE = Path(__file__).parent
ORGANISMS = {
    "latent": "smollm2-135m-latent", "absent": "smollm2-135m-absent", "half taught": "smollm2-135m-missing-skill",
}  # fmt: skip
TAUGHT = "organism:families=sums+countdown"
TRAINED = {"in range": TAUGHT, "edge": f"{TAUGHT},size=7", "beyond": f"{TAUGHT},size=10"}
ASKED = {"familiar": TAUGHT, "longer": f"{TAUGHT},size=7", "unfamiliar": "organism:families=modular+graph"}
FULL = {"organisms": ",".join(ORGANISMS), "trained": ",".join(TRAINED), "asked": ",".join(ASKED),
        "limit": 120, "samples": 256, "updates": 24, "examples": 16, "rollouts": 32, "lr": 4e-4}  # fmt: skip
QUICK = FULL | {"organisms": "latent,absent", "trained": "in range", "asked": "familiar",
                "limit": 16, "samples": 32, "updates": 8}  # fmt: skip
# No problem is met twice: a model so small learns a few by heart. Chosen on an organism that no cell is measured on.
SMALL = FULL | {"samples": 64, "updates": 60, "examples": 480, "rollouts": 64, "lr": 1e-3}
OUTSIDE = ("part", "small", "runs", "threads")  # no settings of a cell


class Cell(NamedTuple):
    """Which organism, what it is trained on by reinforcement, and what it is asked then."""

    organism: str
    trained: str
    asked: str

    @property
    def name(self) -> str:
        return " / ".join(self)


def cells(given: argparse.Namespace) -> list[Cell]:
    """The cells that are asked for, in the order of their cost: what is trained on and asked in range comes first.

    Raises:
        UserError: an unknown name.
    """
    chosen = []
    for what, names in (("trained", TRAINED), ("asked", ASKED), ("organisms", ORGANISMS)):
        some = [name.strip() for name in getattr(given, what).split(",")]
        for name in some:
            if name not in names:
                raise unknown(what, name, names)
        chosen.append([name for name in names if name in some])
    return [Cell(organism, trained, asked) for trained, asked, organism in product(*chosen)]


def trained(model: Model, cell: Cell, given: argparse.Namespace, seed: int, bars: Progress) -> Elicited:
    """What reinforcement learning makes of an organism on problems of one range, whatever its pre-flight says."""
    task = load_task(TRAINED[cell.trained], limit=given.examples)
    return fit(
        one_shot_rlvr.NAME, model, task.solved, bars, examples=given.examples, select="first", updates=given.updates,
        rollouts=given.rollouts, lr=given.lr, rollout_tokens=given.max_new_tokens, max_new_tokens=given.max_new_tokens,
        checked=False, seed=seed,
    )  # fmt: skip


def sampled(handle: Elicited, cell: Cell, given: argparse.Namespace, seed: int, bars: Progress) -> Run:
    """A handle's samples on the test questions of what a cell asks."""
    decoder = Sampling(given.samples, given.temperature, max_new_tokens=given.max_new_tokens, seed=seed)
    drawn = replace(handle, decoder=decoder, select="vote")
    items = load_task(ASKED[cell.asked], limit=given.limit).test
    mark = digest([drawn.to_dict(), handle.model.provenance.sha256, handle.model.dtype, ASKED[cell.asked], given.limit])
    folder = given.runs / f"selects-or-creates-{Path(handle.model.name).name}-{mark}"
    return evaluate(drawn, items, out=folder, seed=seed, progress=bars)


def counted(run: Run) -> Samples:
    """How many samples of each question there are, and how many are right."""
    own = [arm for arm in arms_of([run]) if arm.key == run.metrics["method"]]
    return samples_of(own[0], shared_items(own))


def measure(given: argparse.Namespace) -> None:
    """Train and sample cell by cell; what is done is kept after each of them."""
    for name, least in (("limit", 1), ("samples", 2), ("updates", 1), ("examples", 1)):
        if getattr(given, name) < least:
            raise UserError(f"--{name} {getattr(given, name)} was given; give at least {least}")
    asked, seeds = cells(given), parse_seeds(given.seeds)
    with run_bars(quiet=False) as bars:
        for cell in asked:
            name = small.organism(cell.organism) if given.small else ORGANISMS[cell.organism]
            model = load_model(name, dtype="float32")
            base = direct.fit(model, max_new_tokens=given.max_new_tokens)
            pairs, handles, began = [], [], time.process_time()
            for seed in seeds:
                handles.append(trained(model, cell, given, seed, bars))
                pairs.append(tuple(counted(sampled(one, cell, given, seed, bars)) for one in (base, handles[-1])))
            found = _kept(given)  # another process may have added to it
            one, before = kept(cell, pairs, handles, given, model), found.get(cell.name, {})
            took = round(time.process_time() - began)  # less where it was there already
            one["cpu s"] = max(took, before["cpu s"]) if before.get("settings") == one["settings"] else took
            found[cell.name] = one
            write_whole(_place(given), lines(found))
    table(given)


def lines(found: dict[str, Any]) -> str:
    """What is kept as JSON, a line a cell."""
    cells_of = (f"{json.dumps(name)}: {json.dumps(one, allow_nan=False)}" for name, one in found.items())
    return "{\n" + ",\n".join(cells_of) + "\n}\n"


def kept(
    cell: Cell, pairs: Sequence[Any], handles: Sequence[Elicited], given: argparse.Namespace, model: Model
) -> dict[str, Any]:
    """A cell with all that its reading is made of; pass@k and rewards are means over the seeds."""
    most = given.samples // 2
    found = [handle.options["found"] for handle in handles]
    rewards = [[one["preflight"]["reward"], one["summary"]["last reward"]] for one in found]
    return {
        "cell": cell._asdict(), "model": model.describe(), "made": time.strftime("%Y-%m-%d"),
        "settings": {key: value for key, value in vars(given).items() if key not in OUTSIDE},
        "pass": {name: {str(k): float(np.mean([curves(one, most)[:, k - 1] for one in some])) for k in (1, most)}
                 for name, some in zip(("base", "trained"), zip(*pairs, strict=True), strict=True)},
        "samples": [{name: {"n": one.n.tolist(), "right": one.right.tolist()}
                     for name, one in zip(("base", "trained"), pair, strict=True)} for pair in pairs],
        "reward": np.mean(rewards, axis=0).tolist(),
    }  # fmt: skip


def table(given: argparse.Namespace) -> None:
    """All cells that are kept, read together."""
    found = _kept(given)
    if not found:
        which = "--small" if given.small else "--quick"
        raise UserError(f"no cell is kept; run python -m experiments.selects_or_creates run {which} first")
    found = {
        cell.name: found[cell.name]
        for cell in map(Cell._make, product(ORGANISMS, TRAINED, ASKED))
        if cell.name in found
    }
    rows: list[tuple[str, ...]] = []
    dots: dict[str, list[Dot]] = {"at k = 1": [], "at the largest k": []}
    for one in found.values():
        most = one["settings"]["samples"] // 2
        read = row(leads([_pair(pair) for pair in one["samples"]], most), len(found))
        for name, key in zip(dots, ("lead at 1", "lead at k"), strict=True):
            dots[name].append(Dot(*read[key]))
        at = {name: [f"{100 * one['pass'][name][str(k)]:.0f}" for k in (1, most)] for name in ("base", "trained")}
        rows.append(
            (*one["cell"].values(), f"{read['items']}, {most}, {read['seeds']}",
             " → ".join(f"{r:.2f}" for r in one["reward"]),
             " → ".join((at["base"][0], at["trained"][0])), " → ".join((at["base"][1], at["trained"][1])),
             *(_shown(read[key]) for key in ("lead at 1", "lead at k")), read["reading"], f"{one['cpu s'] / 60:.1f}")
        )  # fmt: skip
    head = ("skill", "trained", "asked", "questions, k, seeds", "reward", "pass@1, %", "pass@k, %", "lead at 1 [95%]",
            "lead at k [95%]", "reading", "processor, min")  # fmt: skip
    print(f"\n{markdown(head, rows)}")
    figure = dot_plot(
        list(found), dots, title="Where reinforcement learning selects and where it creates",
        x="trained model less its base, fraction of questions",
    )  # fmt: skip
    write_whole(_place(given, "figure"), json.dumps(as_kept(figure), allow_nan=False) + "\n")


def _pair(pair: dict[str, Any]) -> tuple[Samples, Samples]:
    def one(name: str) -> Samples:
        n, right = (np.array(pair[name][key]) for key in ("n", "right"))
        return Samples(n, right, np.full(len(n), -1))

    return one("base"), one("trained")


def _shown(one: Sequence[float]) -> str:
    return with_interval(one[0], one[1:], signed)


def _place(given: argparse.Namespace, what: str = "map") -> Path:
    return HERE / f"{'small-' * given.small}{what}.json"


def _kept(given: argparse.Namespace) -> dict[str, Any]:
    place = _place(given)
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    return found


def make(given: argparse.Namespace) -> None:
    """The organisms of `--small`; those that are there are left as they are."""
    for name in small.ARMS:
        with step_bar(small.RECIPE.steps, quiet=False) as on_step:
            small.make(name, given.runs, on_step)


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.selects_or_creates", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parts = {"run": measure, "table": table, "make": make}
    parser.add_argument("part", choices=tuple(parts))
    parser.add_argument("--quick", action="store_true", help="two cells, few questions and samples, a short training")
    parser.add_argument("--small", action="store_true", help="organisms of a million parameters, made from nothing")
    for name in ("organisms", "trained", "asked"):
        parser.add_argument(f"--{name}", default="", help="some of them, joined by commas")
    for name, about in (
        ("limit", "questions"),
        ("samples", "of each question"),
        ("updates", "of a training"),
        ("examples", "problems that a training takes turns with"),
        ("rollouts", "of an update"),
    ):
        parser.add_argument(f"--{name}", type=int, default=0, help=about)
    parser.add_argument("--lr", type=float, default=0.0, help="of the training's adapter")
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seeds", default="0", help="of trainings and samples, joined by commas")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(given)
    for name, value in (QUICK if args.quick else SMALL if args.small else FULL).items():
        setattr(args, name, getattr(args, name) or value)
    torch.set_num_threads(args.threads)
    called("error", lambda: parts[args.part](args))


if __name__ == "__main__":
    main()
