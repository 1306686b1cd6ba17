"""The picture: of each mechanism a line over latency, and beside it what it gains on the twins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from experiments.organisms.latency.cells import LATENCIES, METHODS, TWINS
from experiments.svg import opened
from probes.inert import escaped
from probes.statistics import Interval

Points = Mapping[tuple[str, str], tuple[float, Interval]]
"""By mechanism and organism the fraction of the gap and its 95% interval."""

WIDTH, HEIGHT, TOP, BOTTOM = 760, 386, 72, 300
LEFT, MIDDLE, RIGHT = 56, 404, 744  # the lines' panel to the left of the middle, the twins' to its right
FROM, TO = -0.4, 1.2
APART = 9  # pixels between mechanisms at the same place
MARKS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-4,-4h8v8h-8z",
    "M0,-5l5,9h-10z",
    "M0,-5.5l5,5.5l-5,5.5l-5,-5.5z",
    "M0,5l5,-9h-10z",
)
COLOURS = (
    ("#2563a8", "#7db3ec"),
    ("#d97706", "#f3a56b"),
    ("#0f7a5f", "#5fcfae"),
    ("#8b3fae", "#cc9ae8"),
    ("#b4233c", "#f08a9b"),
)
TITLE = "How rare a skill does each mechanism find? 0 is direct, 1 is being told to think"


def picture(points: Points, ceilings: Mapping[str, float], about: str) -> str:
    """The picture as SVG; what is not in `points` is not drawn.

    Args:
        points: what each mechanism recovers on each organism.
        ceilings: what being told to think gains on a twin, in the twins' unit.
        about: the line below the title.
    """
    light, dark = (
        "".join(
            f".m{n}{{fill:{pair[shade]};stroke:{pair[shade]}}}.l{n}{{fill:none;stroke:{pair[shade]}}}"
            for n, pair in enumerate(COLOURS)
        )
        for shade in (0, 1)
    )
    light += ".span{stroke-width:1.6}.line{stroke-width:1.6;stroke-opacity:.6}.told{stroke:#52606d;stroke-width:2}"
    dark += ".told{stroke:#b8c2cc}"
    lines = [*opened(TITLE, about, WIDTH, HEIGHT, light, dark), *_grid()]
    for model, value in ceilings.items():
        x = _place(model)
        lines.append(
            f'<line class="told" x1="{x - 26}" x2="{x + 26}" y1="{up(value)}" y2="{up(value)}">'
            f"<title>told to think: {value:.2f}</title></line>"
        )
    for n, method in enumerate(METHODS):
        lines += _mechanism(n, method, points)
    return "\n".join([*lines, *_legend(), "</svg>"]) + "\n"


def up(value: float) -> float:
    """Where a fraction of the gap stands, in pixels; what is beyond the panel stands at its edge."""
    inside = min(TO, max(FROM, value))
    return round(BOTTOM - (inside - FROM) / (TO - FROM) * (BOTTOM - TOP), 1)


def _place(model: str) -> float:
    """Where an organism stands, in pixels: latencies by their logarithm, twins evenly."""
    if model in TWINS:
        return round(MIDDLE + (TWINS.index(model) + 0.5) * (RIGHT - MIDDLE) / len(TWINS), 1)
    low, high = math.log(min(LATENCIES)), math.log(max(LATENCIES))
    (p,) = (p for p, name in LATENCIES.items() if name == model)
    return round(LEFT + 46 + (math.log(p) - low) / (high - low) * (MIDDLE - LEFT - 112), 1)


def _grid() -> Iterator[str]:
    for fifths in range(-2, 6, 2):
        y = up(fifths / 5)
        mark = "end" if fifths in (0, 5) else "grid"
        yield f'<line class="{mark}" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="small" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{fifths / 5:g}</text>'
    yield f'<line class="end" x1="{LEFT}" x2="{RIGHT}" y1="{up(1)}" y2="{up(1)}"/>'
    yield f'<text class="small" x="{LEFT - 8}" y="{up(1) + 4}" text-anchor="end">1</text>'
    yield f'<line class="grid" x1="{MIDDLE - 12}" x2="{MIDDLE - 12}" y1="{TOP}" y2="{BOTTOM}"/>'
    for p, model in LATENCIES.items():
        yield f'<text class="small" x="{_place(model)}" y="{BOTTOM + 17}" text-anchor="middle">p = {p:g}</text>'
    for model in TWINS:
        yield f'<text class="small" x="{_place(model)}" y="{BOTTOM + 17}" text-anchor="middle">{model}</text>'
    heads = (
        (LEFT, "of its own gap, by the share p of answers that think"),
        (MIDDLE, "twins, of the gap at p = 0.1; bars: told to think"),
    )
    for x, words in heads:
        yield f'<text class="small" x="{x}" y="{TOP - 8}">{words}</text>'


def _mechanism(n: int, method: str, points: Points) -> Iterator[str]:
    """Its line, its intervals and its marks."""
    aside = (n - (len(METHODS) - 1) / 2) * APART
    there = [model for model in LATENCIES.values() if (method, model) in points]
    if len(there) > 1:
        path = " ".join(f"{_place(model) + aside},{up(points[method, model][0])}" for model in there)
        yield f'<polyline class="l{n} line" points="{path}"/>'
    for model in (*LATENCIES.values(), *TWINS):
        if (method, model) in points:
            value, interval = points[method, model]
            x, told = _place(model) + aside, f"{method}, {model}: {value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
            yield f'<line class="m{n} span" x1="{x}" x2="{x}" y1="{up(interval.low)}" y2="{up(interval.high)}"/>'
            yield _mark(n, x, up(value), told)


def _mark(n: int, x: float, y: float, told: str) -> str:
    return f'<path class="m{n}" transform="translate({x},{y})" d="{MARKS[n]}"><title>{escaped(told)}</title></path>'


def _legend() -> Iterator[str]:
    for n, method in enumerate(METHODS):
        x = LEFT + n * 138
        yield _mark(n, x + 5, BOTTOM + 48, method)
        yield f'<text class="small" x="{x + 16}" y="{BOTTOM + 52}">{method}</text>'
    yield (
        f'<text class="small" x="{LEFT}" y="{BOTTOM + 74}">What is not there was refused or not run; figures and '
        "commands: experiments/organisms/latency</text>"
    )
