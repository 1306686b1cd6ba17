"""Mathematics as MathML, which browsers show without a script or a font of ours: `$…$`, and `$$…$$` on its own."""

from __future__ import annotations

from re import Match
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

BLOCK = r"\$\$\s*(.+?)\s*\$\$"
INLINE = r"(?<![\\$\w])\$(?![\s$])([^$]+?)(?<![\s\\])\$(?![\w$])"


class Formula(InlineProcessor):
    def __init__(self, pattern: str, md: Markdown, display: str) -> None:
        super().__init__(pattern, md)
        self.display = display

    def handleMatch(self, m: Match[str], data: str) -> tuple[Element, int, int]:  # type: ignore[override]
        return convert_to_element(m[1], display=self.display), m.start(0), m.end(0)


class Mathematics(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        # After code in backticks (190), before backslashes are read as escapes (180).
        md.inlinePatterns.register(Formula(BLOCK, md, "block"), "formula-block", 186)
        md.inlinePatterns.register(Formula(INLINE, md, "inline"), "formula", 185)


def makeExtension(**options: Any) -> Mathematics:
    return Mathematics(**options)
