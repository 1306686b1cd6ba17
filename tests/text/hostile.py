"""Texts that would do something if they were not held for text; it is harmless: they set a marker in a page."""

from __future__ import annotations

MARKER = "window.owned=true"
MARKUP = (
    f"<script>{MARKER}</script>",
    f"</script><script>{MARKER}</script>",
    f"<!--<script>{MARKER}</script>",
    f"</style><script>{MARKER}</script>",
    f"</title><script>{MARKER}</script>",
    f"</textarea></pre></select><svg onload={MARKER}>",
    f"<img src=x onerror={MARKER}>",
    f"\"'><img src=x onerror={MARKER}>",
    f"' onmouseover='{MARKER}' x='",
    f'<a href="javascript:{MARKER}">press</a>',
    "<a href='http://elsewhere.invalid/'>press</a>",
    "<iframe srcdoc='<script>parent.owned=true</script>'></iframe>",
    f"<b onclick={MARKER}>bold</b><br>below<sub>low</sub>",
    "<style>*{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=http://elsewhere.invalid/'>",
    "<base href='http://elsewhere.invalid/'>",
    "<form action='http://elsewhere.invalid/'><button>press</button></form>",
    "&lt;b&gt;named&lt;/b&gt; &#60;b&#62;",
    "$\\href{http://elsewhere.invalid/}{press}$ %{customdata} <extra>x</extra>",
    f"{{{{7*7}}}} ${{{MARKER}}} \u2028{MARKER}//\u2029",
)
"""What a browser would run, follow or draw."""

TERMINAL = (
    "[bold red]red[/bold red] [/] [/INST] [link=http://elsewhere.invalid/]press[/link] :skull:",
    "\x1b[31mred\x1b[0m \x1b[2J\x1b[H",
    "\x1b]0;title\x07 \x1b]8;;http://elsewhere.invalid/\x1b\\press\x1b]8;;\x1b\\ \x1b]52;c;eA==\x07",
    "\x9b31mred\x9b0m \x90q\x9c \x85next",
    "fine\rover \x08\x08\x08 \x00 \x7f \x0b \x0c",
    "\u202eright to left\u202c \u2066one\u2069 \u200f \u061c",
    "half \ud83d of a character \udc00",
    "a\u2028b\u2029c",
)
"""What a terminal would obey, or no encoding holds."""

FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1+1", '=HYPERLINK("http://elsewhere.invalid/")')
"""What a spreadsheet would compute."""

LONG = "long " * 40_000
ALL = (*MARKUP, *TERMINAL, *FORMULAS, LONG)
CONTROLS = {chr(n) for n in (*range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F))} | {
    chr(n) for n in range(0x2066, 0x206A)
}
"""What may stand nowhere in what is shown, but for a line end and a tab."""


def named(text: str) -> str:
    """A hostile text as the name of a file or a folder: without what no name may hold."""
    return text.replace("/", "∕").replace("\x00", "").encode("utf-8", "replace").decode()[:80]
