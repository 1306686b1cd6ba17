"""Pages that open offline, of one run or of several, and the table that compares runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from elicit.report.comparison import compare_runs as compare_runs
    from elicit.report.comparison import head_of as head_of
    from elicit.report.comparison import rows_of as rows_of
    from elicit.report.page import differences as differences
    from elicit.report.page import render as render
    from elicit.report.page import render_all as render_all

__getattr__, __dir__ = lazily(
    __name__,
    {
        "compare_runs": "elicit.report.comparison",
        "head_of": "elicit.report.comparison",
        "rows_of": "elicit.report.comparison",
        "differences": "elicit.report.page",
        "render": "elicit.report.page",
        "render_all": "elicit.report.page",
    },
)
