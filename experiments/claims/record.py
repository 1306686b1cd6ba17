"""What is kept of a claim's finding, and its page: result.json, figure.json, README.md."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from elicit.analysis.base import plain
from elicit.decoding.pace import measure_pace
from elicit.evaluation.run.provenance import environment
from experiments.claims.base import Claim, Study, claim
from experiments.claims.rules import UNDECIDED, Judgement
from experiments.claims.seeds import over_seeds
from experiments.figure import as_kept
from experiments.markdown import markdown
from probes.figures import styled
from probes.files import make_folder, write_whole

RESULT, FIGURE, README = "result.json", "figure.json", "README.md"


@dataclass(frozen=True)
class Record:
    """A finding with all that is needed to make it again.

    Args:
        number, claim: which one.
        verdict, line, table, notes, data: as in `Finding`.
        judged: the conditions of the verdict, of which `judge` makes the verdict anew.
        command: that makes it.
        settings: with which it was made.
        model: name, hash and dtype of the model under study.
        seconds: that this call took; less where runs were there already.
        made: the date.
        environment: versions and processor.
        figure: for Plotly; kept beside the rest.
        seeds: that the verdict is over, where it is over several.
        pace: seconds of a step of decoding on that machine then; 0 where it was not measured.
        reused: seconds of the runs that were there already, which `seconds` lacks; None where that is not known.
    """

    number: int
    claim: str
    verdict: str
    line: str
    table: list[dict[str, Any]]
    notes: list[str]
    data: dict[str, Any]
    command: str
    settings: dict[str, Any]
    model: dict[str, Any]
    seconds: float
    made: str
    environment: dict[str, Any]
    judged: dict[str, Any]
    figure: dict[str, Any]
    seeds: list[int] = field(default_factory=list)
    pace: float = 0.0
    reused: float | None = None

    @property
    def judgement(self) -> Judgement:
        return Judgement.from_dict(self.judged)

    @property
    def quick(self) -> bool:
        """Whether it is a quick look: few questions, short fits."""
        return "--quick" in self.command

    @property
    def stands(self) -> str:
        """The verdict that stands; a quick look decides nothing."""
        return UNDECIDED if self.quick else self.verdict

    @property
    def scale(self) -> dict[str, str]:
        """How much the verdict rests on: questions, seeds, and whether fits and settings were short."""
        settings = self.settings
        first = int(settings.get("seed", 0))
        seeds = self.seeds or range(first, first + int(settings.get("fits", 1)))
        return {
            "n": str(settings.get("limit", settings.get("queries"))), "seeds": ", ".join(map(str, seeds)),
            "settings": "--quick" if self.quick else "full",
        }  # fmt: skip

    def write(self, folder: Path) -> None:
        make_folder(folder)
        rest = {
            key: value
            for key, value in asdict(self).items()
            if key != "figure" and (key not in ("seeds", "pace") or value) and (key != "reused" or value is not None)
        }
        write_whole(folder / RESULT, json.dumps(rest, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        write_whole(folder / FIGURE, json.dumps(self.figure, allow_nan=False) + "\n")
        write_whole(folder / README, _readme(self))


def measured(study: Study, seeds: Sequence[int] = ()) -> Record:
    """Measure a claim; with several seeds, with each of them, and judge over all."""
    one = study.claim
    began = time.perf_counter()
    if len(seeds) > 1:
        each = {}
        for seed in seeds:
            study.log(f"seed {seed}")
            each[seed] = one.measure(study.with_seed(seed))
        found, study = over_seeds(each), study.with_seed(seeds[0])
    else:
        found = one.measure(study)
    figure = as_kept(in_the_look(found.figure))
    model = study.model.describe()
    default = one.defaults(study.quick)
    changed = [
        f"--set {key}={value}"
        for key, value in study.settings.items()
        if value != default[key] and not (len(seeds) > 1 and key in ("seed", "fits"))
    ] + ([f"--seeds {','.join(map(str, seeds))}"] if len(seeds) > 1 else [])
    return Record(
        one.number, one.claim, found.verdict, found.line, plain(found.table), found.notes, plain(found.data),
        " ".join(["python -m experiments.claims", one.name, *(["--quick"] if study.quick else []), *changed]),
        dict(study.settings), {key: model[key] for key in ("name", "sha256", "dtype")},
        round(time.perf_counter() - began, 1), date.today().isoformat(), environment(),
        plain(found.judged.to_dict()), figure, list(seeds) if len(seeds) > 1 else [],
        round(measure_pace(study.model).seconds, 4), _total(study.reused.values()),
    )  # fmt: skip


def _total(seconds: Iterable[float | None]) -> float | None:
    """The sum; None where one of them is not known."""
    every = list(seconds)
    known = [one for one in every if one is not None]
    return round(sum(known), 1) if len(known) == len(every) else None


def in_the_look(figure: go.Figure) -> go.Figure:
    """In the suite's look, as high as it was made."""
    return styled(figure, height=figure.layout.height or 380)


def kept(one: Claim) -> Record | None:
    """What was found last, or None."""
    if not (one.folder / RESULT).is_file():
        return None
    rest = json.loads((one.folder / RESULT).read_text(encoding="utf-8"))
    return Record(**rest, figure=json.loads((one.folder / FIGURE).read_text(encoding="utf-8")))


def judge(record: Record) -> Record:
    """The record with the verdict that the rules give its conditions now; nothing is run."""
    return replace(record, verdict=record.judgement.verdict)


def reason_told(record: Record) -> str:
    """The verdict that stands and its reason, in one line."""
    quick = f"this is a quick look, by which it is {record.verdict}: " if record.quick else ""
    return f"{record.stands}: {quick}{record.judgement.reason}"


def _readme(record: Record) -> str:
    one, judgement = claim(str(record.number)), record.judgement
    asked = [row.row() for row in judgement.conditions]
    lines = [
        f"# {one.number}. {one.claim}", "",
        f"**{record.stands}**: {reason_told(record).partition(': ')[2]}.", "",
        f"Found: {record.line}.", "",
        f"Source: {one.source}. Published: {one.published}. What would speak against it: {one.against}.", "",
        f"Here: {one.here}", "",
        f"    {record.command}", "",
    ]  # fmt: skip
    if asked:
        lines += ["What the verdict asks:", "", markdown(list(asked[0]), [cells(row) for row in asked]), ""]
    if record.table:
        lines += ["What was measured:", ""]
        lines += [markdown(list(record.table[0]), [cells(row) for row in record.table]), ""]
    lines += [f"- {note}" for note in record.notes] + ([""] if record.notes else [])
    lines.append(
        f"{record.model['name']} {record.model['sha256'][:12]}…, {record.model['dtype']}, {_scale(record)}, "
        f"{record.made}; {record.seconds:.0f} s"
    )
    return "\n".join(lines) + "\n"


def _scale(record: Record) -> str:
    scale = record.scale
    return f"n = {scale['n']}, seed {scale['seeds']}, {scale['settings']} settings"


def cells(row: dict[str, Any]) -> list[str]:
    """A table's row as text."""
    return [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row.values()]
