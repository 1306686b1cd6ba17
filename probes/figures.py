"""Plotly figures in one look, and pages of them that open without a network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, ORANGE, GREEN, RED = "#2563a8", "#d97706", "#2f855a", "#c53030"
# From doubt to certainty; readable in grey and for the colour-blind.
CONFIDENCE_SCALE = [[0.0, "#fde2c8"], [0.35, "#f3a56b"], [0.7, "#7d8fc4"], [1.0, "#1e3a78"]]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .25rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
p.note { color: #52606d; margin: .25rem 0 1rem } table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #e4e7eb }
th { font-weight: 600; color: #52606d } td:first-child, th:first-child { text-align: left }
pre { background: #f5f7fa; padding: .8rem; overflow-x: auto; font-size: .85rem; white-space: pre-wrap }
p.context { font: .85rem/1.7 ui-monospace, monospace; margin: .2rem 0; white-space: pre-wrap }
tr.main td { font-weight: 600 } table.prose td, table.prose th { text-align: left; vertical-align: top }
"""


def styled(figure: go.Figure, *, height: int = 380) -> go.Figure:
    """The suite's look: white ground, thin grid, room for labels."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"family": "system-ui, sans-serif", "size": 14, "color": INK},
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        hoverlabel={"bgcolor": "white", "font": {"color": INK}},
    )
    figure.update_xaxes(gridcolor=GRID, zerolinecolor=GRID)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID)
    return figure


def page(title: str, note: str, parts: Sequence[str | tuple[str, str, go.Figure]]) -> str:
    """One HTML file with all it needs inside.

    Args:
        title, note: head of the page, plain text.
        parts: HTML as it is, or (heading, explanation, figure).
    """
    out = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1><p class='note'>{html.escape(note)}</p>",
    ]
    script: bool | str = True  # the library goes in once, with the first figure
    for part in parts:
        if isinstance(part, str):
            out.append(part)
            continue
        heading, explanation, figure = part
        out.append(f"<h2>{html.escape(heading)}</h2><p class='note'>{html.escape(explanation)}</p>")
        out.append(figure.to_html(full_html=False, include_plotlyjs=script, config={"displaylogo": False}))
        script = False
    return "".join(out) + "</body></html>"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], main: int | None = None, *, prose: bool = False) -> str:
    """An HTML table; row `main` stands out, and cells of prose begin at the left."""
    cells = "".join(f"<th>{html.escape(str(h))}</th>" for h in head)
    body = "".join(
        f"<tr{' class=main' if i == main else ''}>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in row) + "</tr>"
        for i, row in enumerate(rows)
    )
    return f"<table{' class=prose' if prose else ''}><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
