"""Figures as files for a paper: SVG, PNG and PDF, and the numbers of each as CSV.

CSV needs nothing. The others are drawn by Plotly in a Chromium or Chrome that is installed, without a window and
without a network: one page draws all figures as SVG and PNG, and each SVG is printed as PDF.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from probes.csv_table import csv_table
from probes.errors import UserError
from probes.figures import Part, Section, embedded, inert_figure, plotly_scripts, policy
from probes.files import check_folder, make_folder, ours_to_replace, whole, write_whole
from probes.inert import unlabelled

FORMATS = ("csv", "svg", "png", "pdf")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Of a page that holds an SVG which Plotly drew: it has styles in attributes and runs nothing.
RULES = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
DRAWN = f"<meta http-equiv='Content-Security-Policy' content=\"{RULES}\">"
INDEX, MARK = "figures.json", '"figures of": "elicit"'
WIDTH, HEIGHT, SCALE = 900, 450, 3
COLUMNS = ("trace", "kind", "name")  # of every CSV file, before the trace's own
# What is looks and no number.
LOOKS = ("hovertext", "hoverinfo", "hovertemplate", "texttemplate", "ids", "colorscale")
DRAW = """
(async () => {
  const out = [], figures = JSON.parse(document.getElementById('figures').textContent);
  try {
    for (const [figure, width, height] of figures) {
      const drawn = {};
      for (const format of FORMATS) {
        const scale = format === 'png' ? SCALE : 1;
        drawn[format] = await Plotly.toImage(figure, {format, width, height, scale});
      }
      out.push(drawn);
    }
    document.getElementById('out').textContent = JSON.stringify(out);
  } catch (error) { document.getElementById('out').textContent = JSON.stringify(String(error)); }
})();
"""


def formats_of(text: str) -> list[str]:
    """Formats that a person named, separated by commas.

    Raises:
        UserError: an unknown one, none, or one that needs a browser where none is.
    """
    formats = list(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    if not formats or not set(formats) <= set(FORMATS):
        raise UserError(f"formats {text!r} were given; give some of {', '.join(FORMATS)}")
    if formats != ["csv"]:
        _browser()
    return formats


def figures_of(parts: Sequence[Part], above: str = "") -> Iterator[tuple[str, go.Figure]]:
    """The figures among the parts of a page, each with its heading and those above it."""
    for part in parts:
        if isinstance(part, Section):
            yield from figures_of(part.parts, f"{above}{part.title}: ")
        elif not isinstance(part, str):
            yield f"{above}{part[0]}", part[2]


def check_place(folder: Path) -> None:
    """Refuse a folder for figures before any is drawn.

    Raises:
        UserError: it cannot be one, or other files are in it.
    """
    check_folder(folder)
    ours_to_replace(folder / INDEX, MARK)
    if not (folder / INDEX).exists() and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{str(folder)!r} holds other files; give a new or an empty folder for the figures")


def write_figures(figures: Sequence[tuple[str, go.Figure]], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write figures as `01-heading.svg` and so on, and an index `figures.json`.

    Args:
        figures: headings and figures.
        folder: a new or empty one, or one that this wrote before.
        formats: some of `FORMATS`.

    Raises:
        UserError: a folder with other files in it; no browser, or one that draws nothing.
    """
    check_place(folder)
    make_folder(folder)
    names = [f"{number:02d}-{_slug(heading)}" for number, (heading, _) in enumerate(figures, 1)]
    drawn = _drawn([figure for _, figure in figures], [f for f in formats if f != "csv"])
    written: list[Path] = []
    for name, (_, figure), images in zip(names, figures, drawn, strict=True):
        for format_ in formats:
            data = numbers(figure).encode() if format_ == "csv" else images[format_]
            written.append(folder / f"{name}.{format_}")
            with whole(written[-1]) as part:
                part.write_bytes(data)
    index = [{"file": name, "heading": heading} for name, (heading, _) in zip(names, figures, strict=True)]
    about = {"figures of": "elicit", "formats": list(formats), "figures": index}
    write_whole(folder / INDEX, json.dumps(about, indent=1, ensure_ascii=False))
    return written


def numbers(figure: go.Figure) -> str:
    """The numbers of a figure as CSV: a row a point, with its trace; a matrix a row a cell."""
    rows: list[dict[str, Any]] = []
    for number, trace in enumerate(json.loads(figure.to_json())["data"], 1):
        about = {"trace": number, "kind": trace.get("type", "scatter"), "name": unlabelled(trace.get("name", ""))}
        arrays = {key: [unlabelled(one) for one in values] for key, values in _arrays(trace)}
        matrix = arrays.pop("z", None)
        if matrix is not None and matrix and isinstance(matrix[0], list):
            for (i, line), x in itertools.product(enumerate(matrix), range(len(matrix[0]))):
                place = {key: arrays[key][at] for key, at in (("x", x), ("y", i)) if at < len(arrays.get(key, ()))}
                rows.append({**about, "x": x, "y": i, **place, "z": line[x]})
            continue
        longest = max((len(values) for values in arrays.values()), default=0)
        for i in range(longest):
            rows.append(about | {key: values[i] for key, values in arrays.items() if i < len(values)})
    head = list(dict.fromkeys([*COLUMNS, *itertools.chain.from_iterable(rows)]))
    return csv_table(head, rows)


def _arrays(trace: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, list[Any]]]:
    """What a trace holds that has an entry a point, by names like `x` and `error_y.array`."""
    for key, value in trace.items():
        if key in LOOKS:
            continue
        if isinstance(value, dict) and "bdata" in value:  # how Plotly keeps arrays of numbers in JSON
            array = np.frombuffer(base64.b64decode(value["bdata"]), np.dtype(value["dtype"]))
            shape = [int(size) for size in str(value.get("shape", len(array))).split(",")]
            yield f"{above}{key}", array.reshape(shape).tolist()
        elif isinstance(value, list):
            yield f"{above}{key}", value
        elif isinstance(value, dict):
            yield from _arrays(value, f"{above}{key}.")


def _drawn(figures: Sequence[go.Figure], formats: Sequence[str]) -> list[dict[str, bytes]]:
    """Each figure in each format, drawn by a browser."""
    if not formats or not figures:
        return [{} for _ in figures]
    sizes = [(figure.layout.width or WIDTH, figure.layout.height or HEIGHT) for figure in figures]
    held = [[inert_figure(figure), *size] for figure, size in zip(figures, sizes, strict=True)]
    asked = [name for name in ("svg", "png") if name in formats or (name == "svg" and "pdf" in formats)]
    script = DRAW.replace("FORMATS", json.dumps(asked)).replace("? SCALE", f"? {SCALE}")
    scripts = (*plotly_scripts(), script)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "page.html").write_text(
            f"<!doctype html><meta charset='utf-8'>{policy(scripts, ())}<pre id='out'></pre>"
            f"<script type='application/json' id='figures'>{embedded(held)}</script>"
            + "".join(f"<script>{one}</script>" for one in scripts),
            encoding="utf-8",
        )
        wait = f"--virtual-time-budget={20_000 + 5_000 * len(figures)}"  # milliseconds of the page, not of the clock
        page = _browse(place, wait, "--dump-dom", (place / "page.html").as_uri())
        found = re.search(r'<pre id="out">(.*?)</pre>', page, re.DOTALL)
        told = json.loads(html.unescape(found[1])) if found and found[1] else "nothing came back"
        if isinstance(told, str):
            raise UserError(f"the browser drew no figures ({told}); give csv, or another browser as BROWSER_PATH")
        images = [{format_: _content(uri) for format_, uri in one.items()} for one in told]
        if "pdf" in formats:
            for one, (width, height) in zip(images, sizes, strict=True):
                one["pdf"] = _printed(place, one["svg"].decode(), width, height)
    return images


def _printed(place: Path, svg: str, width: int, height: int) -> bytes:
    """An SVG on a page of its own size, as PDF."""
    # A pixel to spare: what a rounding makes larger than the page goes to a second one.
    style = f"@page {{ size: {width + 1}px {height + 1}px; margin: 0 }} svg {{ display: block }} "
    style += f"html, body {{ margin: 0; height: {height}px; overflow: hidden }}"
    source, target = place / "figure.html", place / "figure.pdf"
    source.write_text(f"<!doctype html><meta charset='utf-8'>{DRAWN}<style>{style}</style>{svg}", encoding="utf-8")
    target.unlink(missing_ok=True)
    _browse(place, f"--print-to-pdf={target}", "--no-pdf-header-footer", source.as_uri())
    if not target.is_file():
        raise UserError("the browser wrote no PDF; give svg or csv, or another browser as BROWSER_PATH")
    return target.read_bytes()


def _browse(place: Path, *arguments: str) -> str:
    command = [_browser(), "--headless", "--disable-gpu", f"--user-data-dir={place / 'profile'}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # its sandbox does not run as root; the page is our own
        command.append("--no-sandbox")
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, encoding="utf-8", errors="replace")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1][:200]
        raise UserError(f"the browser ended with code {done.returncode} ({last}); give csv, or set BROWSER_PATH")
    return done.stdout


def _browser() -> str:
    named = os.environ.get("BROWSER_PATH", "")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        where = f"BROWSER_PATH={named!r} is no program" if named else "none is on PATH"
        raise UserError(f"svg, png and pdf are drawn by Chromium or Chrome, and {where}; install one, or give csv")
    return found


def _content(uri: str) -> bytes:
    """What a data URI holds: an SVG as text, a PNG in base64."""
    from urllib.parse import unquote_to_bytes

    head, _, data = uri.partition(",")
    return base64.b64decode(data) if head.endswith(";base64") else unquote_to_bytes(data)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80] or "figure"
