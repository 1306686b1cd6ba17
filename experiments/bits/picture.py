"""The picture of all mechanisms: what must be said beside the model, fewest first, and what is right then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.svg import opened
from probes.inert import escaped

WIDTH, TOP, ROW, LEFT, RIGHT = 790, 74, 28, 260, 130
LIGHT = ".span{stroke:#2563a8;stroke-width:2}.arm{fill:#2563a8}"
DARK = ".span{stroke:#7db3ec}.arm{fill:#7db3ec}"


def picture(found: Mapping[str, Any], share: float, ceiling: str) -> str:
    """Accuracy of each arm with its 95% interval, by bits, as one SVG; dashed is a share of the ceiling's accuracy.

    Args:
        found: what `elicit compare` writes as `comparison.json`.
        share, ceiling: of which arm's accuracy.
    """
    arms = sorted((row for row in found["arms"] if row["bits"] is not None), key=lambda row: row["bits"])
    level = share * next(row["accuracy"] for row in arms if row["arm"] == ceiling)
    model, bottom = found["model"], TOP + ROW * len(arms)
    about = (
        f"{found['items']} questions, {model['sha256'][:12]}…, {model['dtype']}, seed {found['seed']}; 95% intervals; "
        f"dashed: {share:g} of {ceiling}"
    )
    lines = [*opened(f"Bits beside {model['name']}, and what is right then", about, WIDTH, bottom + 30, LIGHT, DARK)]
    for fifth in range(6):
        x = across(fifth / 5)
        lines.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>')
        lines.append(f'<text class="small" x="{x}" y="{bottom + 16}" text-anchor="middle">{20 * fifth}%</text>')
    lines.append(f'<line class="end" x1="{across(level)}" x2="{across(level)}" y1="{TOP}" y2="{bottom}"/>')
    lines.append(f'<text class="small" x="{LEFT - 14}" y="{TOP - 8}" text-anchor="end">bits</text>')
    for n, row in enumerate(arms):
        lines += _row(row, TOP + ROW * n + ROW // 2)
    return "\n".join([*lines, "</svg>"]) + "\n"


def across(accuracy: float) -> float:
    """Where an accuracy stands, in pixels."""
    return round(LEFT + accuracy * (WIDTH - LEFT - RIGHT), 1)


def _row(row: Mapping[str, Any], y: int) -> Iterator[str]:
    low, high = row["interval"]
    yield f'<text x="16" y="{y + 4}">{escaped(row["arm"])}</text>'
    yield f'<text class="small" x="{LEFT - 14}" y="{y + 4}" text-anchor="end">{row["bits"]:,.0f}</text>'
    yield f'<line class="span" x1="{across(low)}" x2="{across(high)}" y1="{y}" y2="{y}"/>'
    yield f'<circle class="arm" cx="{across(row["accuracy"])}" cy="{y}" r="5"/>'
    figures = f"{100 * row['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    yield f'<text class="small" x="{WIDTH - 12}" y="{y + 4}" text-anchor="end">{figures}</text>'
