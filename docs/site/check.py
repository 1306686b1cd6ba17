"""What a strict build does not see, in the built pages: `python docs/site/check.py FOLDER`.

- every link to a place in the site leads to a file, and where it names an anchor, to one that is there;
- no script, style, image, font or frame comes from elsewhere;
- nothing is left of what was to be replaced: references to objects, requests for lists, commands of formulas;
- every page has a title of its own, and every image a text.
"""

from __future__ import annotations

import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href"), ("use", "href")}
STYLED = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)")
LEFT = re.compile(r"\]\[(?:elicit|probes|steering)\b[^\]]*\]|<!-- (?:list|options|verdict):|\$\$")


class Page(HTMLParser):
    """The anchors, links and fetched files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.nameless: list[str] = []
        self.title = ""
        self._in: list[str] = []
        self.words: list[str] = []
        self.formulas: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if given.get("rel") not in ("canonical", "next", "prev"):
            self.fetched += [given[name] for t, name in FETCHED if t == tag and name in given]
        if tag == "img" and "alt" not in given:
            self.nameless.append(given.get("src", ""))
        if tag in ("pre", "code", "script", "style", "title", "math"):
            self._in.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._in and self._in[-1] == tag:
            self._in.pop()

    def handle_comment(self, data: str) -> None:
        self.words.append(f"<!--{data}-->")

    def handle_data(self, data: str) -> None:
        if self._in == ["title"]:
            self.title += data
        if not self._in:
            self.words.append(data)
        if "math" in self._in:
            self.formulas.append(data)


def faults(folder: Path) -> list[str]:
    """What is wrong with a site, a line each."""
    folder = folder.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        return [f"{folder} holds no page; build the site first"]
    out: list[str] = []
    for path, page in pages.items():
        where = path.relative_to(folder)
        for link in dict.fromkeys(page.links):
            fault = _link(link, path, folder, pages)
            if fault:
                out.append(f"{where}: {fault}")
        for one in dict.fromkeys(page.fetched):
            parts = urlsplit(one)
            if parts.scheme not in ("", "data") or parts.netloc:
                out.append(f"{where}: {one} is fetched from elsewhere")
            elif not parts.scheme and not _target(parts.path, path, folder).is_file():
                out.append(f"{where}: {one} is not there")
        left = LEFT.findall("".join(page.words)) + [one for one in page.formulas if "\\" in one]
        out += [f"{where}: {one!r} was to be replaced" for one in left]
        out += [f"{where}: the image {name} has no text" for name in page.nameless]
        if not page.title.strip():
            out.append(f"{where}: it has no title")
    for path in [*folder.rglob("*.css"), *pages]:
        text = path.read_text(encoding="utf-8")
        out += [f"{path.relative_to(folder)}: {found} is fetched from elsewhere" for found in STYLED.findall(text)]
    return out


def _target(place: str, page: Path, folder: Path) -> Path:
    """The file that an address means."""
    base = folder if place.startswith("/") else page.parent
    found = Path(os.path.normpath(base / unquote(place).lstrip("/"))) if place else page
    return found / "index.html" if found.is_dir() else found


def _link(link: str, page: Path, folder: Path, pages: dict[Path, Page]) -> str:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return ""  # elsewhere, where a reader goes on purpose
    target = _target(parts.path, page, folder)
    if not target.is_file():
        return f"{link} leads to no file"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return f"{link} leads to no anchor of {target.relative_to(folder)}"
    return ""


def main(folder: str) -> None:
    found = faults(Path(folder))
    print("\n".join(found) or f"{folder}: every link and anchor holds, and nothing is fetched from elsewhere")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
