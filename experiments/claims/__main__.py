"""Test a claim: run what it needs, print what was found, keep it in the claim's folder.

    python -m experiments.claims                            # all claims and their verdicts
    python -m experiments.claims narrowing --quick          # one, by name or number: minutes on two cores
    python -m experiments.claims 8 --model Qwen/Qwen2.5-Math-1.5B --set task=gsm8k --set limit=200
    python -m experiments.claims 7 --quick --seeds 0,1,2    # measured with each seed, judged over seeds and questions
    python -m experiments.claims --page claims.html         # all figures on one page
    python -m experiments.claims --plan                     # questions, seeds and minutes for 80% power, and commands
    python -m experiments.claims --judge                    # what is kept, by the rules as they are now; nothing is run
    python -m experiments.claims --index                    # experiments/README.md anew, as after each finding

Of a model that is not the claim's own, or with settings of the call's own, the finding is printed and written to runs/
alone: what stands in the folder comes from the settings in `claim.toml`, with or without --quick.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from elicit.cli.options import settings
from elicit.cli.terminal import run_bars, show_table
from elicit.decoding.pace import measure_pace
from elicit.evaluation.seeds import parse_seeds
from elicit.models import load_model
from experiments.claims.base import Claim, claim, claims, study_of
from experiments.claims.listing import INDEX, index, whole_page
from experiments.claims.plan import plans
from experiments.claims.record import Record, cells, judge, kept, measured, reason_told
from experiments.command import called
from probes.errors import UserError
from probes.files import write_whole


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="of a claim, or its number")
    parser.add_argument("--quick", action="store_true", help="few questions, short fits")
    parser.add_argument("--model", default="", help="another model than the claim's")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="another setting of claim.toml")
    parser.add_argument("--seeds", default="", help="several, joined by commas: measured with each, judged over all")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--page", type=Path, help="write all figures as one page")
    parser.add_argument("--judge", action="store_true", help="judge all that is kept anew, and write its pages")
    parser.add_argument("--index", action="store_true", help="write the list of all claims to experiments/README.md")
    parser.add_argument("--plan", action="store_true", help="what each claim needs for 80%% power, and its cost")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    called("error", lambda: chosen(args))


def chosen(args: argparse.Namespace) -> None:
    """What was asked for: one claim, something of all of them, or the list."""
    flags = [f"--{flag}" for flag in ("page", "judge", "index", "plan") if getattr(args, flag)]
    if args.name and flags:
        raise UserError(
            f"claim {args.name!r} and {' '.join(flags)} were given; {flags[0]} is of all claims, leave the name out"
        )
    if args.name:
        show(test(claim(args.name), args))
    elif args.page:
        write_whole(args.page, whole_page())
        print(f"page: {args.page}")
    elif args.plan:
        show_plan(args.model or "smollm2-135m-latent")
    elif args.judge:
        judge_all()
    elif args.index:
        write_whole(INDEX, index())
        print(f"index: {INDEX}")
    else:
        overview()


def test(one: Claim, args: argparse.Namespace) -> Record:
    """Measure a claim, and keep what was found."""
    known = one.defaults(args.quick)
    changes = settings(args.set, known) | ({"model": args.model} if args.model else {})
    seeds = parse_seeds(args.seeds) if args.seeds else []
    if seeds and "seed" in changes:
        raise UserError(f"seed {changes['seed']} and seeds {args.seeds} were given; give one of them")
    if len(seeds) == 1:
        changes, seeds = changes | {"seed": seeds[0]}, []
    study = study_of(
        one, quick=args.quick, changes=changes, runs=args.runs,
        log=lambda line: print(f"claims: {line}", file=sys.stderr),
    )  # fmt: skip
    with run_bars(quiet=False) as bars:
        record = measured(replace(study, progress=bars), seeds)
    own = args.runs / "claims" / "findings" / one.name if changes else one.folder
    record.write(own)
    if not changes:
        write_whole(INDEX, index())
    return record


def judge_all() -> None:
    """The verdicts of all that is kept by the rules as they are now, and the pages that show them."""
    for one in claims().values():
        record = kept(one)
        if record is None:
            continue
        after = judge(record)
        after.write(one.folder)
        print(f"{one.number}. {one.name}: {after.stands}" + ("" if after == record else f" (was {record.verdict})"))
    write_whole(INDEX, index())


def show_plan(model: str) -> None:
    """What each claim needs, cheapest first; the model is decoded for a second, to tell this machine's pace."""
    pace = measure_pace(load_model(model)).seconds
    found = plans(pace)
    rows = [plan.row() for plan in found]
    show_table(list(rows[0]), [list(row.values()) for row in rows])
    print(f"a step of decoding takes {pace:.3f} s here", *(plan.command for plan in found), sep="\n")


def show(record: Record) -> None:
    rows = record.table
    if rows:
        show_table(list(rows[0]), [cells(row) for row in rows])
    for note in record.notes:
        print(note)
    print(f"\n{record.number}. {record.claim}\n{reason_told(record)}\nfound: {record.line}")


def overview() -> None:
    rows = []
    for one in claims().values():
        record = kept(one)
        rows.append((one.number, one.name, one.claim, record.stands if record else "not run yet"))
    show_table(("", "claim", "", "verdict"), rows)


if __name__ == "__main__":
    main()
