"""The picture of a comparison: of each arm the fraction of the known gap that it recovers, beside its own controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.svg import opened
from probes.errors import UserError
from probes.inert import escaped

# Controls that are told to think or see the thinking model's own tokens: what could be had at most, and no rivals.
CEILINGS = frozenset({"cot-prompt@budget", "cot-prompt + push", "thinking model", "token substitution", "mixed logits"})
WIDTH, TOP, ROW, LEFT, RIGHT = 760, 62, 36, 140, 118
FROM, TO = -0.2, 1.2
LIGHT = (
    ".span{stroke:#2563a8;stroke-width:2}.arm{fill:#2563a8}.control{fill:#d97706;fill-opacity:.75}"
    ".ceiling{fill:none;stroke:#7b8794}"
)
DARK = ".span{stroke:#7db3ec}.arm{fill:#7db3ec}.control{fill:#f3a56b}.ceiling{stroke:#9aa5b1}"


def picture(found: Mapping[str, Any]) -> str:
    """The recovered gap of every arm of a comparison on an organism, with 95% intervals, as one SVG.

    Arms without an accuracy, of which no fraction is known, have their name and no mark.

    Args:
        found: what `elicit compare` writes as `comparison.json`, of an organism.

    Raises:
        UserError: no arm has a fraction of a gap.
    """
    if not any("recovered" in row for row in found["arms"]):
        raise UserError("no arm of this comparison recovers a known gap; give one on an organism that spans one")
    mechanisms = {row["of"] for row in found["arms"] if row["of"]}
    arms = sorted((row for row in found["arms"] if not row["of"]), key=lambda row: row["arm"] in mechanisms)
    model = found["model"]
    bottom = TOP + ROW * len(arms)
    title = f"Gap recovered on {model['name']}: 0 is direct, 1 is chain of thought"
    about = (
        f"{found['items']} questions, {model['sha256'][:12]}…, {model['dtype']}, seed {found['seed']}; 95% intervals"
    )
    lines = [*opened(title, about, WIDTH, bottom + 54, LIGHT, DARK)]
    for tenths in range(0, 11, 2):
        x = across(tenths / 10)
        mark = "end" if tenths in (0, 10) else "grid"
        lines.append(f'<line class="{mark}" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>')
        lines.append(f'<text class="small" x="{x}" y="{bottom + 16}" text-anchor="middle">{tenths / 10:g}</text>')
    for n, row in enumerate(arms):
        lines += _row(row, [one for one in found["arms"] if one["of"] == row["arm"]], TOP + ROW * n + ROW // 2)
    lines += [*_legend(bottom + 40), "</svg>"]
    return "\n".join(lines) + "\n"


def across(value: float) -> float:
    """Where a fraction of the gap stands, in pixels."""
    return round(LEFT + (value - FROM) / (TO - FROM) * (WIDTH - LEFT - RIGHT), 1)


def _row(row: Mapping[str, Any], controls: list[Mapping[str, Any]], y: int) -> Iterator[str]:
    yield f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end">{escaped(row["arm"])}</text>'
    for one in controls:
        if "recovered" not in one:
            continue
        kind = "ceiling" if one["key"] in CEILINGS else "control"
        x, told = across(one["recovered"]), escaped(f"{one['key']}: {one['recovered']:.2f}")
        yield f'<circle class="{kind}" cx="{x}" cy="{y + 8}" r="4"><title>{told}</title></circle>'
    if "recovered" not in row:
        yield f'<text class="small" x="{WIDTH - 12}" y="{y + 4}" text-anchor="end">not stated</text>'
        return
    low, high = row["recovered_interval"]
    yield f'<line class="span" x1="{across(low)}" x2="{across(high)}" y1="{y - 4}" y2="{y - 4}"/>'
    yield f'<circle class="arm" cx="{across(row["recovered"])}" cy="{y - 4}" r="5"/>'
    figures = f"{row['recovered']:.2f} [{low:.2f}, {high:.2f}]"
    yield f'<text class="small" x="{WIDTH - 12}" y="{y + 4}" text-anchor="end">{figures}</text>'


def _legend(y: int) -> Iterator[str]:
    x = 16
    for kind, words, width in (
        ("arm", "the method", 92),
        ("control", "its matched controls", 150),
        ("ceiling", "controls told to think, or given the thinking model's tokens", 0),
    ):
        yield f'<circle class="{kind}" cx="{x + 5}" cy="{y - 4}" r="4"/>'
        yield f'<text class="small" x="{x + 16}" y="{y}">{words}</text>'
        x += width + 20
