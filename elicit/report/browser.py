"""The browser of samples inside a page: every arm's answers with the statistics of their tokens, packed into the page.

Texts and verdicts are one JSON, numbers a token one block of bytes; both are gzipped and opened by the page itself
(`assets/browser.js`), the numbers of an answer only when it is looked at. A number takes a byte:

    margin                        255 (m + 1) / 2
    entropy, −log p, ‖Δh‖/‖h‖     255 √(x / top), with `top` the largest on the page

Above `LIMIT` samples the first questions are taken, each with the answers of all arms, and the page says so.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elicit.decoding.trace import Trace, token_margins
from elicit.evaluation.run.arms import Arm
from probes.inert import escaped

LIMIT = 20_000
MEASURES = {
    "margin": "margin to the next best token",
    "entropy": "entropy",
    "logprob": "log-probability",
    "moved": "steering",
}
_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Browser:
    """What a page needs to show samples."""

    html: str
    style: str
    script: str


@dataclass(frozen=True, eq=False)
class _Shown:
    """Arms with the traces of the items that are shown; arms that share their traces share a place here."""

    items: list[str]
    of: int
    total: int
    samples: list[Trace]
    places: dict[tuple[str, str, str], tuple[int, int]]


def browser(arms: Sequence[Arm], limit: int = LIMIT) -> Browser:
    """The samples of these arms, as parts of a page."""
    shown = _chosen(arms, limit)
    steered = any(trace.moved for trace in shown.samples)
    tops = {name: _top(shown.samples, name) for name in ("entropy", "logprob", "moved")}
    index = json.dumps(_index(arms, shown, tops, steered), ensure_ascii=False, separators=(",", ":"))
    numbers = b"".join(_bytes(trace, tops, steered) for trace in shown.samples)
    measures = [name for name in MEASURES if steered or name != "moved"]
    body = (
        _page_of(arms, measures, _said(shown))
        + f"<script type='text/plain' id='b-index'>{_packed(index.encode(errors='backslashreplace'))}</script>"
        + f"<script type='text/plain' id='b-numbers'>{_packed(numbers)}</script>"
    )
    read = {name: (_ASSETS / name).read_text(encoding="utf-8") for name in ("browser.css", "browser.js")}
    return Browser(body, read["browser.css"], read["browser.js"])


def _chosen(arms: Sequence[Arm], limit: int) -> _Shown:
    """The traces to show: of all items, or of the first ones if they would be too many."""
    every = list(dict.fromkeys(item for arm in arms for item in arm.scores))
    sources = {(str(arm.run.folder), arm.source): arm for arm in arms}
    total = sum(
        round(arm.run.metrics["arms"][arm.key]["branches_per_item"] * len(arm.scores)) for arm in sources.values()
    )
    items = every if total <= limit else every[: max(1, limit * len(every) // total)]
    samples: list[Trace] = []
    places: dict[tuple[str, str, str], tuple[int, int]] = {}
    for (folder, source), arm in sources.items():
        found = arm.run.traces_of(source, *items)
        for item in items:
            if item in found:
                places[folder, source, item] = len(samples), len(found[item])
                samples += found[item]
    return _Shown(items, len(every), total, samples, places)


def _index(arms: Sequence[Arm], shown: _Shown, tops: dict[str, float], steered: bool) -> dict[str, Any]:
    """All but the tokens' numbers, by column."""
    known = {item.id: item for arm in arms if arm.run.store.keeps_items for item in arm.run.items}
    finishes = sorted({trace.finish for trace in shown.samples})
    groups = [
        (a, i, int(arm.scores[item] >= 1.0), *shown.places[str(arm.run.folder), arm.source, item])
        for a, arm in enumerate(arms)
        for i, item in enumerate(shown.items)
        if (str(arm.run.folder), arm.source, item) in shown.places
    ]
    return {
        "arms": [arm.name for arm in arms],
        "items": [
            {"id": item, "question": known[item].question, "gold": known[item].answer} if item in known
            else {"id": item, "question": "", "gold": None}
            for item in shown.items
        ],
        "groups": groups,
        "finishes": finishes,
        "samples": [
            (
                trace.text, trace.answer, int(trace.correct), finishes.index(trace.finish), trace.dropped, trace.delta,
                trace.spent, trace.index, len(trace.tokens), *(trace.span or (0, 0)), trace.delta_greedy,
                trace.delta_zero,
            )
            for trace in shown.samples
        ],
        "tops": tops,
        "steered": steered,
    }  # fmt: skip


def _top(samples: Sequence[Trace], name: str) -> float:
    every = [values for trace in samples if (values := getattr(trace, name))]
    return max((max(max(values), -min(values)) for values in every), default=0.0) or 1.0


def _bytes(trace: Trace, tops: dict[str, float], steered: bool) -> bytes:
    """One answer: the length of each token's text in UTF-16 units, and a byte for each measure of each token."""
    count = len(trace.tokens)
    if trace.text.isascii():
        lengths = np.diff(np.minimum(trace.ends, len(trace.text)), prepend=0)
    else:
        lengths = np.array([len(piece.encode("utf-16-le")) // 2 for piece in trace.pieces])
    margins = token_margins(np.array(trace.top1), np.array(trace.top2), np.array(trace.logprob))
    parts = [
        np.minimum(lengths, 65535).astype("<u2").tobytes(),
        np.round(255 * (np.clip(margins, -1, 1) + 1) / 2).astype(np.uint8).tobytes(),
        _rooted(trace.entropy, tops["entropy"]),
        _rooted([-value for value in trace.logprob], tops["logprob"]),
    ]
    if steered:
        parts.append(_rooted(trace.moved or [0.0] * count, tops["moved"]))
    return b"".join(parts)


def _rooted(values: Sequence[float], top: float) -> bytes:
    return np.round(255 * np.sqrt(np.clip(np.array(values) / top, 0, 1))).astype(np.uint8).tobytes()


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _said(shown: _Shown) -> str:
    if len(shown.items) == shown.of:
        return f"All {len(shown.samples):,} samples of {shown.of:,} questions."
    return (
        f"Of {shown.total:,} samples {len(shown.samples):,} are in this page: all answers to the first "
        f"{len(shown.items):,} of {shown.of:,} questions. The others are in samples.parquet of each run."
    )


def _page_of(arms: Sequence[Arm], measures: Sequence[str], said: str) -> str:
    """The controls, and empty places that the script fills."""

    def choice(name: str, label: str, options: Sequence[tuple[str, str]]) -> str:
        inner = "".join(f"<option value='{escaped(v)}'>{escaped(t)}</option>" for v, t in options)
        return f"<label>{label} <select id='{name}'>{inner}</select></label>"

    return (
        f"<p class='note'>{escaped(said)} Arrow keys move in the list and among branches, / goes to the search."
        "</p><noscript><p>The browser of samples needs JavaScript; samples.parquet of each run holds them too.</p>"
        "</noscript><div id='browser'><form role='search' aria-label='Samples'>"
        "<label>Search <input type='search' id='b-text' placeholder='in questions and answers'></label>"
        "<label>Answer <input type='search' id='b-answer' size='8'></label>"
        + choice("b-arm", "Arm", [("", "all"), *((str(n), arm.name) for n, arm in enumerate(arms))])
        + choice("b-right", "Verdict", [("", "all"), ("1", "right"), ("0", "wrong")])
        + choice("b-measure", "Colour by", [(name, MEASURES[name]) for name in measures])
        + "</form><p id='b-count' role='status'></p><div class='panes'>"
        "<div id='b-list' role='listbox' tabindex='0' aria-label='Answers'><div role='presentation'></div></div>"
        "<section id='b-one' aria-label='The chosen answer'></section></div></div>"
    )
