"""The arms that the claim's settings leave out, trained and asked as those that are kept, and compared with them.

    python -m experiments.claims.proxy_filter.others                       # random and rlp, at the kept seeds
    python -m experiments.claims.proxy_filter.others --arms first --seeds 0

They read the documents, ask the questions and have the tokens of the arms in `result.json`, so that all are paired by
question without training those again; direct answers are asked for anew, and must be as they are kept. No condition of
the claim reads these. What was found is written to OTHERS.md and others.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from elicit.cli.terminal import run_bars
from elicit.evaluation.metrics.format import signed, with_interval
from elicit.evaluation.seeds import parse_seeds
from experiments.claims.base import Study, claim, study_of
from experiments.claims.proxy_filter import ALL, DIRECT, FILTER, FILTERED, RANDOM, RLP, fitted, row
from experiments.claims.proxy_filter.documents import mixed, written
from experiments.claims.record import Record, kept
from experiments.claims.trained import scores
from experiments.command import called
from experiments.markdown import markdown
from probes.errors import UserError, unknown
from probes.files import write_whole
from probes.statistics import over_seeds

HERE = Path(__file__).parent
CLAIM = HERE.name
KEPT = (DIRECT, ALL, FILTER)
COLUMNS = ("arm", "right [95%]", "tokens", "positions", "thoughts' tokens", "last reward")
Scores = Mapping[str, Float[np.ndarray, "seeds items"]]


def measure(given: argparse.Namespace) -> None:
    """Train and ask the arms, and write how much more often they are right than those that are kept."""
    record, names = _record(), arms_of(given.arms)
    seeds = seeds_of(record, given.seeds)
    study = study_of(claim(CLAIM), runs=given.runs, log=lambda line: print(f"others: {line}", file=sys.stderr))
    if (study.settings, study.model.provenance.sha256) != (record.settings, record.model["sha256"]):
        raise UserError(f"{record.command} was run with other settings or another model; run it again first")
    right: dict[str, list[np.ndarray]] = {name: [] for name in (*KEPT, *names)}
    rows = []
    for seed in seeds:
        with run_bars(quiet=False) as bars:
            one = replace(study.with_seed(seed), progress=bars)
            asked, found = _trained(one, names)
        before = {name: np.array(record.data[str(seed)][name]["scores"]) for name in KEPT}
        if not np.array_equal(asked.pop(DIRECT), before[DIRECT]):
            raise UserError(
                f"with seed {seed} direct answers are not as {record.command} kept them, so that its arms cannot stand "
                "beside these; run it on this machine first"
            )
        for name, values in (before | asked).items():
            right[name].append(values)
        rows += [{"seed": str(seed), **one} for one in found]
    leads = over({name: np.stack(values) for name, values in right.items()}, names, study.seed)
    _write(record, seeds, names, leads, rows, right)


def arms_of(given: str) -> list[str]:
    """The arms to train, by their names.

    Raises:
        UserError: an unknown one, or one that the claim's own settings run.
    """
    others = [name for name in FILTERED if name not in KEPT]
    names = list(dict.fromkeys(name.strip() for name in given.split(",")))
    for name in names:
        if name not in others:
            raise unknown("other arm", name, others)
    return names


def seeds_of(record: Record, given: str) -> list[int]:
    """The seeds to train with; those that are kept unless given.

    Raises:
        UserError: one that is not kept.
    """
    seeds = parse_seeds(given) if given else record.seeds
    for seed in seeds:
        if str(seed) not in record.data:
            raise UserError(f"seed {seed} was given; {record.command} has {', '.join(record.data)}")
    return seeds


def over(right: Scores, names: Sequence[str], seed: int = 0) -> dict[str, dict[str, str]]:
    """By how many points each other arm is right more often than each that is kept, over seeds and questions.

    Args:
        right: of every arm, seed by seed and question by question.
        names: the other arms.
        seed: of the bootstrap.
    """
    out = {}
    for name in names:
        gaps = {rival: right[name] - right[rival] for rival in KEPT}
        out[name] = {
            rival: with_interval(float(gap.mean()), over_seeds(gap, seed=seed).pair, signed)
            for rival, gap in gaps.items()
        }
    return out


def _record() -> Record:
    record = kept(claim(CLAIM))
    if record is None or record.quick or not record.seeds:
        raise UserError(f"no full finding over seeds is kept; run python -m experiments.claims {CLAIM} --seeds 0,1,2")
    return record


def _trained(study: Study, names: Sequence[str]) -> tuple[dict[str, np.ndarray], list[dict[str, str]]]:
    """Scores of direct and of each arm with one seed, and a row of each arm."""
    text = written(mixed(study.model, study.task(), study["documents"], study.seed), study.runs / "claims")
    asked = {DIRECT: scores(study.compared([DIRECT])[DIRECT])}
    rows = []
    for name in names:
        handle = fitted(study, name, str(text))
        run = study.evaluated(handle, {}, f"proxy-{name}")
        asked[name] = scores(run)
        told = row(name, run, handle, {})
        rows.append({key: told[key] for key in COLUMNS})
    return asked, rows


def _write(
    record: Record, seeds: Sequence[int], names: Sequence[str], leads: Mapping[str, Mapping[str, str]],
    rows: Sequence[Mapping[str, str]], right: Mapping[str, Sequence[np.ndarray]],
) -> None:  # fmt: skip
    command = (
        f"python -m experiments.claims.proxy_filter.others --arms {','.join(names)} --seeds {','.join(map(str, seeds))}"
    )
    made = time.strftime("%Y-%m-%d")
    data: dict[str, Any] = {
        "command": command, "made": made, "model": record.model, "settings": record.settings, "seeds": list(seeds),
        "leads": leads, "rows": rows,
        "scores": {name: [one.tolist() for one in right[name]] for name in names},
    }  # fmt: skip
    write_whole(HERE / "others.json", json.dumps(data, indent=1, allow_nan=False) + "\n")
    head = ["arm", *(f"over {rival}, points [95%]" for rival in KEPT)]
    lines = [
        f"# Claim {record.number}: the other arms", "",
        f"As [the claim's own](README.md) and paired with them by question: {record.settings['limit']} questions, the "
        f"same documents, updates and tokens; `{FILTER}` and `{RANDOM}` have as many positions. No condition reads "
        f"these; intervals over questions{' and seeds' if len(seeds) > 1 else ''}.", "",
        f"    {command}", "",
        markdown(head, [[name, *one.values()] for name, one in leads.items()]), "",
        markdown(list(rows[0]), [list(one.values()) for one in rows]), "",
        f"{record.model['name']} {record.model['sha256'][:12]}…, {record.model['dtype']}, {made}",
    ]  # fmt: skip
    write_whole(HERE / "OTHERS.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.claims.proxy_filter.others", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--arms", default=f"{RANDOM},{RLP}", help="joined by commas")
    parser.add_argument("--seeds", default="", help="joined by commas; those that are kept unless given")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    called("error", lambda: measure(args))


if __name__ == "__main__":
    main()
