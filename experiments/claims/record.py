"""What is kept of a claim's finding, and how it is shown: result.json, figure.json, README.md, and a page of all."""

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
from experiments.claims.base import HERE, Claim, Study, claim, claims
from experiments.claims.rules import NOT_TESTABLE, OPEN, UNDECIDED, VERDICTS, Judgement
from experiments.claims.seeds import over_seeds
from experiments.figure import as_kept
from experiments.markdown import markdown
from probes.figures import page, styled, table
from probes.files import make_folder, write_whole
from probes.inert import escaped

RESULT, FIGURE, README = "result.json", "figure.json", "README.md"
INDEX = HERE.parent / README
HEAD = ("#", "claim", "source", "n", "seed", "settings", "verdict")
BEGIN, END = "<!-- claims -->", "<!-- end of the claims -->"
OTHERS = {
    "natural": "all mechanisms on natural models and published tasks, in one table",
    "organisms": "a mechanism on all organisms: what it recovers of a known gap, and on the twin without the skill",
    "comparison": "all five methods with all their controls on one organism, in one table",
    "taxonomy": "which behaviours are found in thoughts without labels, scored against the organism's true ones",
    "cot_decoding": "claim 4 on natural models: answers without any instruction to think, chosen by their confidence",
    "sae_steer": "claim 5 by dose, layer and position, and on natural models",
    "vector_transfer": "claim 2 on organisms and natural models, and the published rows' configurations",
    "one_shot_rlvr": "claim 6 with several examples and seeds, and what happens after the example is solved",
    "critique_ft": "claim 3 update by update: why critiques stop half-way, and what was tried against it",
    "compatibility": "every type of model that transformers maps, beside its own forward without a cache",
    "extraction": "600 responses of a natural model, read by the suite and by others",
    "bits": "how many bits elicit a skill that is there, and how many teach one that is not",
    "filtered_positions": "what the filter of next-token reasoning keeps, beside the documents that matter",
    "selects_or_creates": "where reinforcement learning selects among what a model can do, and where it creates: a map",
    "shuffled_gold": "what is left when every question has another's gold answer",
    "simulations": "how often intervals hold a known truth, and how often a verdict is wrong",
    "notebooks": "the suite from Python, step by step, with their outputs",
    "benchmarks": "seconds and memory of each part beside the library that does the same (`make bench`)",
}


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
    def scale(self) -> dict[str, str]:
        """How much the verdict rests on: questions, seeds, and whether fits and settings were short."""
        settings = self.settings
        first = int(settings.get("seed", 0))
        seeds = self.seeds or range(first, first + int(settings.get("fits", 1)))
        return {
            "n": str(settings.get("limit", settings.get("queries"))), "seeds": ", ".join(map(str, seeds)),
            "settings": "--quick" if "--quick" in self.command else "full",
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
    figure = as_kept(_styled(found.figure))
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


def _styled(figure: go.Figure) -> go.Figure:
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


def _readme(record: Record) -> str:
    one, judgement = claim(str(record.number)), record.judgement
    asked = [row.row() for row in judgement.conditions]
    lines = [
        f"# {one.number}. {one.claim}", "",
        f"**{record.verdict}**: {judgement.reason}.", "",
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


def index() -> str:
    """The page of all experiments, in Markdown: between its marks every claim with its verdict and what it rests on,
    and the other folders.

    What stands around the marks is written by hand.
    """
    rows = []
    for one in claims().values():
        record = kept(one)
        told = f"[{one.claim}](claims/{one.name}/{README if record else 'claim.toml'})"
        scale = record.scale.values() if record else ("", "", "")
        rows.append((str(one.number), told, one.source, *scale, _index_cell(record) if record else "not run yet"))
    lines = [_counted(), "", markdown(HEAD, rows), "", "The other folders:", ""]
    for name, about in OTHERS.items():
        linked = f"[{name}]({name}/{README})" if (INDEX.parent / name / README).is_file() else f"{name}"
        lines.append(f"- {linked}: {about}")
    before, _, rest = INDEX.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"])


def _counted() -> str:
    """How many claims have each verdict, in a sentence."""
    found = [record.verdict for one in claims().values() if (record := kept(one)) is not None]
    told = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in found)
    return f"Of {len(claims())} claims {told}." if found else "No claim was run yet."


def _index_cell(record: Record) -> str:
    """The verdict; of an undecided one what could have been seen, of one that is not testable why."""
    judgement = record.judgement
    told = f"**{record.verdict}**"
    if record.verdict == UNDECIDED:
        seen = "; ".join(f"{one.name} {one.seen_told}" for one in judgement.conditions if one.outcome == OPEN)
        return f"{told}; could be seen at 80% power: {seen}"
    return f"{told}: {judgement.reason}" if record.verdict == NOT_TESTABLE else told


def whole_page() -> str:
    """All claims: the table of verdicts, then each with its figure."""
    rows, parts = [], []
    for one in claims().values():
        record = kept(one)
        scale = record.scale.values() if record else ("", "", "")
        verdict = record.verdict if record else "not run yet"
        rows.append((one.number, one.claim.replace("*", ""), one.source, *scale, verdict))
        if record is None:
            continue
        about = (
            f"{record.verdict}: {record.judgement.reason}. Found: {record.line.rstrip('.')}. Against it would speak: "
            f"{one.against}. Here: {one.here}"
        )
        parts.append(
            (f"{one.number}. {one.claim.replace('*', '')}", about.replace("`", ""), _styled(go.Figure(record.figure)))
        )
        parts.append(f"<p><code>{escaped(record.command)}</code></p>")
    head = table(("", *HEAD[1:]), rows, prose=True)
    return page("Twenty claims", "What was found on the models that come with the suite.", [head, *parts])
