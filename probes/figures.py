"""Plotly figures in one look, and pages of them that open without a network."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from probes.inert import escaped, inert

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, ORANGE, GREEN, RED = "#2563a8", "#d97706", "#2f855a", "#c53030"
# From doubt to certainty; readable in grey and for the colour-blind.
CONFIDENCE_SCALE = [[0.0, "#fde2c8"], [0.35, "#f3a56b"], [0.7, "#7d8fc4"], [1.0, "#1e3a78"]]

STEPS = 20
# Grounds of tokens, from nothing to the strongest: a page allows no style in an attribute.
SHADES = "".join(f".shade-{n}{{background:rgba(38,103,178,{0.6 * n / STEPS:.2f})}}" for n in range(STEPS + 1))

# How the head of each page begins: by this a page of ours is known again before it is written over.
MARK = "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"


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


@dataclass(frozen=True)
class Section:
    """Parts of a page under a heading of their own; headings within them go one level down."""

    title: str
    note: str
    parts: Sequence[Part]


Part = str | tuple[str, str, go.Figure] | Section


def page(title: str, note: str, parts: Sequence[Part], *, first: str = "", style: str = "", script: str = "") -> str:
    """One HTML file with all it needs inside: it opens without a network, in light and dark, with a table of contents.

    Args:
        title, note: head of the page, plain text.
        parts: HTML as it is, (heading, explanation, figure), or a section of them.
        first: what it all comes to, the sentence that the page begins with.
        style, script: more of the page's own, as CSS and JavaScript.
    """
    body = _numbered("".join(_html(part, 2) for part in parts))
    contents = "".join(f"<li><a href='#{name}'>{text}</a></li>" for name, text in _SECTION.findall(body))
    scripts = [_asset("page.js") + script]
    if "<figure class='plot'" in body:
        scripts = [*plotly_scripts(), *scripts]
    styles = [_asset("page.css") + SHADES + style]
    out = [
        f"<!doctype html><html lang='en'><head>{MARK}{policy(scripts, styles)}",
        f"<title>{escaped(title)}</title><style>{styles[0]}</style></head><body>",
        "<a class='skip' href='#content'>Skip to the content</a>",
        f"<header><h1>{escaped(title)}</h1><button id='theme' type='button'>Dark</button></header>",
        f"<main id='content'>{lead(first)}{noted(note)}",
    ]
    if contents.count("<li>") > 3:
        out.append(
            f"<nav class='contents' aria-label='Contents'><details><summary>Contents</summary><ol>{contents}</ol>"
            "</details></nav>"
        )
    out.append(f"{body}</main>")
    out += [f"<script>{one}</script>" for one in scripts]
    out.append("</body></html>")
    return "".join(out)


def policy(scripts: Sequence[str], styles: Sequence[str], *, images: str = "blob: data:") -> str:
    """The content security policy of a page, as the first of its head: these scripts and styles run, by their hashes,
    and nothing else; nothing is fetched, framed, sent or based elsewhere, and no attribute holds a handler or a style.

    Plotly makes an empty style element, which it fills from within, and draws what it exports as an image (`images`).
    """
    ran = " ".join(map(_hash, scripts)) or "'none'"
    looks = " ".join(map(_hash, (*styles, "")))
    rules = (
        "default-src 'none'", f"script-src {ran}", "script-src-attr 'none'", f"style-src {looks}",
        "style-src-attr 'none'", f"img-src {images}", "base-uri 'none'", "form-action 'none'",
    )  # fmt: skip
    return f"<meta http-equiv='Content-Security-Policy' content=\"{'; '.join(rules)}\">"


def plotly_scripts() -> tuple[str, str]:
    """Plotly as a page may run it, after what makes its styles those that a policy allows."""
    from plotly.offline import get_plotlyjs

    return _asset("before_plotly.js"), str(get_plotlyjs())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def embedded(value: Any) -> str:
    """A value as JSON within a script element, which no text in it can end."""
    return json.dumps(value).replace("<", "\\u003c")


def inert_figure(figure: go.Figure) -> dict[str, Any]:
    """A figure as data in which no text is a link or a style, whatever made it.

    What a builder takes from elsewhere it passes through `probes.inert.label`; of tags only `<br>` and Plotly's
    `<extra>` are left to interpret, here and in a figure that was read from a file.
    """
    from plotly.io import to_json  # with the engine that writes half a character

    return dict(_inert(json.loads(str(to_json(figure, engine="json")))))


_TAG = re.compile(r"<(?!br>|/?extra>)")


def _inert(value: Any) -> Any:
    if isinstance(value, str):
        return _TAG.sub("&lt;", inert(value))
    if isinstance(value, list):
        return [_inert(one) for one in value]
    if isinstance(value, dict):
        return {key: one if key in ("template", "bdata") else _inert(one) for key, one in value.items()}
    return value


def lead(text: str) -> str:
    """The sentence that a page or a section begins with: what it all comes to; nothing for no text."""
    return f"<p class='lead'>{escaped(text)}</p>" if text else ""


def noted(text: str) -> str:
    """A paragraph beside what it explains; nothing for no text."""
    return f"<p class='note'>{escaped(text)}</p>" if text else ""


_HEADING = re.compile(r"<h([23])>(.*?)</h\1>", re.DOTALL)
_SECTION = re.compile(r"<h2 id='([^']*)'>(.*?)</h2>", re.DOTALL)


def _html(part: Part, level: int) -> str:
    if isinstance(part, str):
        return part if level == 2 else re.sub(r"<(/?)h2\b", rf"<\1h{level}", part)
    if isinstance(part, Section):
        inner = "".join(_html(one, level + 1) for one in part.parts)
        return f"<h{level}>{escaped(part.title)}</h{level}>{noted(part.note)}{inner}"
    heading, explanation, figure = part
    height = figure.layout.height or 450
    drawing = embedded(inert_figure(figure))
    return (
        f"<h{level}>{escaped(heading)}</h{level}><p class='note'>{escaped(explanation)}</p>"
        f"<figure class='plot' aria-label='{escaped(heading)}'>"
        f"<div class='chart' data-height='{int(height)}'></div>"
        f"<script type='application/json'>{drawing}</script></figure>"
    )


def _numbered(body: str) -> str:
    """Headings with a name to link to."""
    count = itertools.count(1)
    return _HEADING.sub(lambda found: f"<h{found[1]} id='part-{next(count)}'>{found[2]}</h{found[1]}>", body)


def _asset(name: str) -> str:
    return (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], main: int | None = None, *, prose: bool = False) -> str:
    """An HTML table; row `main` stands out, and cells of prose begin at the left."""
    cells = "".join(f"<th scope='col'>{escaped(str(h))}</th>" for h in head)
    body = "".join(f"<tr{' class=main' if i == main else ''}>{_cells(row, prose)}</tr>" for i, row in enumerate(rows))
    about = escaped(f"table of {head[0]}" if head else "table")
    return (
        f"<div class='scroll' role='group' tabindex='0' aria-label='{about}'><table{' class=prose' if prose else ''}>"
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(row: Sequence[Any], prose: bool) -> str:
    texts = [escaped(str(cell)) for cell in row]
    first = f"<th scope='row'>{texts.pop(0)}</th>" if texts and texts[0] and not prose else ""
    return first + "".join(f"<td>{text}</td>" for text in texts)
