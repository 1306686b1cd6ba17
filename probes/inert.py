"""Text of models, files and servers is data: made inert before it reaches a terminal, a page or a figure.

What a terminal obeys (ESC and the other C0 and C1 controls), what turns the order of the text around it (bidirectional
controls; Trojan Source, arXiv 2111.00169), separators of lines that are no line ends of ours and halves of characters,
which no encoding has, are written out as Python would: `\\x1b`, `\\u202e`. A tab and a line end stay.
"""

from __future__ import annotations

import html
import re
from typing import Any

LONGEST = 4_000  # characters of a line or of a cell that are shown
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)
_LINE_END = re.compile(r"\s*[\n\r\t\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_FIGURE = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})  # Plotly reads tags, entities and TeX


def inert(text: str) -> str:
    """The text with everything that a terminal or a browser would obey written out."""
    return _CONTROL.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text, without its middle where it is longer than so many characters: both ends of a message matter."""
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end]} … ({len(text) - longest:,} characters) … {text[-end:]}"


def one_line(text: str, longest: int = LONGEST) -> str:
    """The text as one line of a terminal."""
    return inert(shortened(_LINE_END.sub(" ", text).strip(), longest))


def escaped(text: object) -> str:
    """The text as HTML that shows it, within an element or within an attribute in quotes."""
    return html.escape(inert(str(text)), quote=True)


def label(text: object) -> str:
    """The text as a label of a Plotly figure that shows it: there `<b>`, `<a href>`, `&lt;` and `$x$` have meanings."""
    return inert(str(text)).translate(_FIGURE).replace("\n", "⏎")


def unlabelled(value: Any) -> Any:
    """What `label` was made of, as far as it is text; a number and a list are left as they are."""
    return html.unescape(value.replace("<br>", " ")) if isinstance(value, str) else value
