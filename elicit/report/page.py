"""Pages that open without a network: a run's own, and one for many runs with analyses and a browser of samples.

Both are put together of the same parts: what `elicit.report` says of a run, `elicit.report.comparison` of several, an
analysis of itself, and `elicit.report.browser` for the samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from elicit.evaluation.metrics.format import weights
from elicit.evaluation.run.arms import folder_names
from elicit.evaluation.run.run import Run
from elicit.methods import BASELINES
from elicit.report.browser import browser
from elicit.report.comparison import compare_runs, each_line, entries, head_of, remarks, rows_of
from elicit.report.run_section import made_sections, run_note, run_sections
from probes.figures import BLUE, GREEN, MUTED, ORANGE, RED, Part, Section, lead, noted, page, styled, table
from probes.inert import escaped, label

if TYPE_CHECKING:
    from elicit.analysis import Analysis

READ_DIFFERENCES = (
    "How to read: points of accuracy gained over {baseline} on the same questions, with 95% intervals by bootstrap "
    "over questions. Null: the line at 0; of a mechanism's own effect also its controls (in grey), which are as strong "
    "without what is claimed to matter."
)
READ_HALVES = (
    "How to read: to the right the questions that go from wrong to right, to the left those that go from right to "
    "wrong. Null: two bars of equal length; that is what McNemar's test tests."
)


def render(run: Run) -> str:
    """The page of one run."""
    shown = browser(entries([run]))
    parts: list[Part] = [
        *run_sections(run), Section("Samples", "", [shown.html]), Section("How it was made", "", made_sections(run))
    ]  # fmt: skip
    title = f"{run.metrics['method']} on {run.metrics['task']}"
    return page(title, run_note(run), parts, first=run.bottom_line, style=shown.style, script=shown.script)


def render_all(
    runs: Sequence[Run],
    result: Mapping[str, Any] | None = None,
    analyses: Sequence[Analysis] = (),
    refused: Mapping[str, str] | None = None,
) -> str:
    """One page for several runs.

    Args:
        runs: of one task and model.
        result: their comparison, where it is made already.
        analyses: sections of their own.
        refused: analyses that these runs do not allow, and why.

    Raises:
        UserError: runs that cannot be compared.
    """
    arms = entries(runs)
    result = result if result is not None else compare_runs(runs, baseline=reference(arms))
    model = result["model"]
    note = f"{result['items']} items of {result['task']}, model {model['name']}, {weights(model)}."
    shown = browser(arms)
    parts = summary_parts(result, analyses)
    if refused:
        rows = list(refused.items())
        parts.append(Section("Analyses without a result", "", [table(("analysis", "why"), rows, prose=True)]))
    parts.append(Section("Samples", "", [shown.html]))
    parts += run_parts(runs)
    made: list[Part] = [Section(title, "", made_sections(run)) for run, title in _titles(runs).items()]
    parts.append(Section("How it was made", "", made))
    return page(
        f"elicit: {result['task']}", note, parts, first=result["bottom_line"], style=shown.style, script=shown.script
    )


def summary_parts(result: Mapping[str, Any], analyses: Sequence[Analysis]) -> list[Part]:
    """The sections of a page over all runs, and of each analysis."""
    summary: list[Part] = [Section("Summary", "", summary_sections(result))]
    return summary + [Section(_title(one), "", analysis_sections(one)) for one in analyses]


def run_parts(runs: Sequence[Run]) -> list[Part]:
    """A section a run."""
    return [
        Section(title, "", [lead(run.bottom_line), noted(run_note(run)), *run_sections(run)])
        for run, title in _titles(runs).items()
    ]


def reference(arms: Sequence[Any]) -> str:
    """`direct` where it was run, else the first arm."""
    keys = [arm.key for arm in arms]
    return "direct" if "direct" in keys else str(keys[0])


def _titles(runs: Sequence[Run]) -> dict[Run, str]:
    """The heading of each run: its method, and its folder where that is called otherwise."""
    named = ((run, run.metrics["method"], folder) for run, folder in folder_names(runs).items())
    return {run: method if folder == method else f"{method} ({folder})" for run, method, folder in named}


def _title(analysis: Analysis) -> str:
    return analysis.name.replace("-", " ").capitalize()


def summary_sections(result: Mapping[str, Any]) -> list[Part]:
    """Each method's bottom line, the table over all arms, how it is read, and both of its figures."""
    parts: list[Part] = [f"<p>{escaped(line)}</p>" for line in each_line(result)]
    parts.append(table(head_of(result), rows_of(result)))
    parts.append("".join(noted(line) for line in remarks(result)))
    if any("difference" in row for row in result["arms"]):
        read = READ_DIFFERENCES.format(baseline=result["baseline"])
        parts.append(("Difference to the baseline", read, differences(result)))
        parts.append(("Corrected and harmed", READ_HALVES, halves(result)))
    return parts


def differences(result: Mapping[str, Any]) -> go.Figure:
    """Each arm's paired difference to the baseline with its interval; controls in grey."""
    rows = [row for row in result["arms"] if "difference" in row][::-1]
    colours = [MUTED if row["of"] else ORANGE if row["key"] in BASELINES else BLUE for row in rows]
    figure = go.Figure(
        go.Scatter(
            x=[row["difference"] for row in rows],
            y=[label(row["arm"]) for row in rows],
            mode="markers",
            marker={"size": 10, "color": colours},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [row["difference_interval"][1] - row["difference"] for row in rows],
                "arrayminus": [row["difference"] - row["difference_interval"][0] for row in rows],
                "color": MUTED,
                "thickness": 1.2,
            },
        )
    )
    figure.add_vline(x=0, line={"color": RED, "width": 1, "dash": "dash"})
    figure.update_xaxes(title=f"difference to {label(result['baseline'])}", tickformat="+.0%", zeroline=False)
    figure.update_yaxes(automargin=True)
    return styled(figure, height=140 + 28 * len(rows))


def halves(result: Mapping[str, Any]) -> go.Figure:
    """δc to the right and δo to the left, an arm a row."""
    rows = [row for row in result["arms"] if "difference" in row][::-1]
    names = [label(row["arm"]) for row in rows]
    figure = go.Figure()
    for key, sign, name, colour in (
        ("corrected", 1, "wrong to right (δc)", GREEN),
        ("harmed", -1, "right to wrong (δo)", RED),
    ):
        rates = [row[key] for row in rows]
        figure.add_bar(
            x=[sign * value for value in rates], y=names, name=name, orientation="h", marker={"color": colour},
            customdata=rates, hovertemplate="%{y}: %{customdata:.1%}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="relative", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_xaxes(title="fraction of questions", tickformat=".0%")
    figure.update_yaxes(automargin=True)
    return styled(figure, height=160 + 28 * len(rows))


def analysis_sections(analysis: Analysis) -> list[Part]:
    """An analysis: its figures, its notes, its table."""
    parts: list[Part] = [("Result", analysis.notes[0] if analysis.notes else "", analysis.figure)]
    parts.append("".join(noted(line) for line in analysis.notes[1:]))
    parts += analysis.more
    if analysis.table:
        rows = [[cell(value) for value in row.values()] for row in analysis.table]
        parts += ["<h2>Table</h2>", table(list(analysis.table[0]), rows)]
    return parts


def cell(value: Any) -> str:
    """A value of an analysis's table."""
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1000:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.0e}"
