"""A figure as an experiment keeps it beside its figures in numbers."""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go
import plotly.io


def as_kept(figure: go.Figure) -> dict[str, Any]:
    """The figure for Plotly, the same in each call; its template is the page's own."""
    drawn: dict[str, Any] = json.loads(plotly.io.to_json(figure, remove_uids=True))
    drawn["layout"].pop("template", None)
    return drawn
