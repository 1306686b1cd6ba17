"""Put the site's pages together from the repository: `python docs/site/stage.py LISTS.json FOLDER`.

The navigation of `mkdocs.yml` names every page by its place in the repository, and pages keep their places, so that a
link between two of them holds in both. What is changed on the way:

- a comment that asks for a list (`<!-- list: methods -->`) becomes what `lists.py` made of registries and results;
- a page that is a notebook is converted, with the outputs that are stored in it;
- a link to a notebook goes to its page, a link to a source file to a page that shows it, a link from the root of the
  repository (`/docs/…`) to where that is from here;
- images that pages show go along, and Plotly's script for the figures of notebooks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
from navigation import ROOT, navigation
from nbconvert import MarkdownExporter
from plotly.offline import get_plotlyjs

PLOT = "application/vnd.plotly.v1+json"
ASKED = re.compile(r"<!-- ((?:list|options|verdict): [\w-]+) -->")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
OWN_LOOK = re.compile(r'<style.*?</style>\n?| (?:border|class|style)="[^"]*"', re.S)  # of a data frame
IMAGES = (".svg", ".png")
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "sh", ".cff": "yaml", ".jsonl": "json"}


def text_of(place: str) -> str:
    notebook = (ROOT / place).with_suffix(".ipynb")
    return converted(notebook) if notebook.is_file() else (ROOT / place).read_text(encoding="utf-8")


def converted(path: Path) -> str:
    """A notebook as Markdown; its figures as data, which `figures.js` draws."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if PLOT in data:
                figure = {key: data[PLOT][key] for key in ("data", "layout")}
                output.data = {"text/html": figure_box(json.dumps(figure))}
            elif "text/html" in data:
                data["text/html"] = OWN_LOOK.sub("", data["text/html"])
    body, _ = MarkdownExporter().from_notebook_node(notebook)
    return re.sub(r"\n{4,}", "\n\n", body)


def figure_box(figure: str) -> str:
    inside = figure.replace("</", "<\\/")
    return f'<div class="plot"><div class="chart"></div><script type="application/json">{inside}</script></div>'


class Site:
    """The folder that the pages go to."""

    def __init__(self, places: list[str], lists: dict[str, str], folder: Path) -> None:
        self.places, self.lists, self.folder = set(places), lists, folder

    def put(self, place: str, text: str) -> None:
        text = ASKED.sub(lambda found: self.lists[found[1]], text)
        self.write(f"{place}", LINK.sub(lambda found: self.link(place, found[1]), text))

    def link(self, place: str, target: str) -> str:
        """Where a link of a page goes to, with what it needs to be there."""
        here = Path(place).parent
        whole = target[1:] if target.startswith("/") else os.path.normpath(here / target)
        whole = whole.replace(".ipynb", ".md")
        if (ROOT / whole).is_dir():
            whole += "/README.md"
        suffix = Path(whole).suffix
        if suffix in LANGUAGES:
            source = (ROOT / whole).read_text(encoding="utf-8")
            shown = f"# `{whole}`\n\n```{LANGUAGES[suffix]}\n{source}```\n"
            whole += ".md"
            self.write(whole, f"---\nsearch:\n  exclude: true\n---\n\n{shown}")
        elif suffix in IMAGES:
            self.write(whole, (ROOT / whole).read_text(encoding="utf-8"))
        elif whole not in self.places:
            raise SystemExit(f"{place} links to {target}, which is no page of mkdocs.yml; add it there")
        return os.path.relpath(whole, here)

    def write(self, place: str, text: str) -> None:
        (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / place).write_text(text, encoding="utf-8")


def main(lists: str, folder: str) -> None:
    places = navigation()
    shutil.rmtree(folder, ignore_errors=True)
    site = Site(places, json.loads(Path(lists).read_text(encoding="utf-8")), Path(folder))
    for place in places:
        site.put(place, text_of(place))
    shutil.copytree(ROOT / "docs" / "site" / "assets", site.folder / "assets")
    site.write("assets/plotly.js", get_plotlyjs())


if __name__ == "__main__":
    main(*sys.argv[1:])
