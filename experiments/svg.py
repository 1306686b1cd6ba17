"""The head of a picture that a page of Markdown can hold: plain SVG with no script and no font, its own ground in light
and in dark."""

from __future__ import annotations

from collections.abc import Iterator

from probes.inert import escaped

GROUND = (
    "text{font:13px system-ui,sans-serif;fill:#1f2933}.small{font-size:12px;fill:#52606d}.title{font-weight:600}"
    ".ground{fill:#fff}.grid{stroke:#e4e7eb}.end{stroke:#9aa5b1;stroke-dasharray:3 3}"
)
DARK = "text{fill:#e4e7eb}.small{fill:#b8c2cc}.ground{fill:#11181f}.grid{stroke:#2b3640}.end{stroke:#7b8794}"


def opened(title: str, about: str, width: int, height: int, light: str, dark: str) -> Iterator[str]:
    """The first lines of a picture, to which `</svg>` is still to be added.

    Args:
        title, about: its two lines of text.
        width, height: in pixels.
        light, dark: rules of style beside those of text, ground and grid.
    """
    style = f"{GROUND}{light}@media(prefers-color-scheme:dark){{{DARK}{dark}}}"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{escaped(title)}"><style>{style}</style>'
    )
    yield f'<rect class="ground" width="{width}" height="{height}" rx="6"/>'
    yield (
        f'<text class="title" x="16" y="24">{escaped(title)}</text>'
        f'<text class="small" x="16" y="43">{escaped(about)}</text>'
    )
