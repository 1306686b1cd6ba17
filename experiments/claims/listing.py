"""All claims on one page: the list with every verdict in Markdown, and their figures in HTML."""

from __future__ import annotations

import plotly.graph_objects as go

from experiments.claims.base import HERE, claim, claims
from experiments.claims.plan import planned
from experiments.claims.record import README, Record, in_the_look, kept, reason_told
from experiments.claims.rules import NOT_TESTABLE, OPEN, UNDECIDED, VERDICTS
from experiments.markdown import markdown
from probes.figures import page, table
from probes.inert import escaped

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
    """How many claims have each verdict, and how many were looked at quickly, in sentences."""
    found = [record for one in claims().values() if (record := kept(one)) is not None]
    by = {verdict: sum(record.stands == verdict for record in found) for verdict in VERDICTS}
    told = ", ".join(f"{n} {verdict}" for verdict, n in by.items() if n)
    quick = sum(record.quick for record in found)
    return f"Of {len(claims())} claims {told}." + (
        f" Of {quick} there is a quick look alone: beside what it says stand the command that asks in full, and "
        "minutes on the machine of the look." if quick else ""
    ) if found else "No claim was run yet."  # fmt: skip


def _index_cell(record: Record) -> str:
    """The verdict; of a quick look what it says and what asks in full, of an undecided one what could have been seen,
    of one that is not testable why."""
    judgement = record.judgement
    reason = ""
    if record.verdict == UNDECIDED:
        seen = "; ".join(f"{one.name} {one.seen_told}" for one in judgement.conditions if one.outcome == OPEN)
        reason = f"; could be seen at 80% power: {seen}"
    elif record.verdict == NOT_TESTABLE:
        reason = f": {judgement.reason}"
    if not record.quick:
        return f"**{record.verdict}**{reason}"
    plan = planned(claim(str(record.number)), record)
    return f"**{record.stands}**: `{plan.command}`, {plan.cost}. A quick look: {record.verdict}{reason}"


def whole_page() -> str:
    """All claims: the table of verdicts, then each with its figure."""
    rows, parts = [], []
    for one in claims().values():
        record = kept(one)
        scale = record.scale.values() if record else ("", "", "")
        verdict = record.stands if record else "not run yet"
        rows.append((one.number, one.claim.replace("*", ""), one.source, *scale, verdict))
        if record is None:
            continue
        about = (
            f"{reason_told(record)}. Found: {record.line.rstrip('.')}. Against it would speak: "
            f"{one.against}. Here: {one.here}"
        )
        parts.append(
            (
                f"{one.number}. {one.claim.replace('*', '')}",
                about.replace("`", ""),
                in_the_look(go.Figure(record.figure)),
            )
        )
        parts.append(f"<p><code>{escaped(record.command)}</code></p>")
    head = table(("", *HEAD[1:]), rows, prose=True)
    return page("Twenty claims", "What was found on the models that come with the suite.", [head, *parts])
