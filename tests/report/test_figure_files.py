"""Figures as files: the numbers that were drawn, and images that are what they say."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from elicit.models import Model
from probes.errors import UserError
from probes.figure_files import BROWSERS, figures_of, formats_of, numbers, write_figures
from probes.figures import Section
from tests.support.shell import shell
from tests.support.written import written_run, written_task

HOSTILE = "</script> & “Δ”, a"


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_numbers_of_points_bars_and_matrices() -> None:
    figure = go.Figure()
    figure.add_scatter(
        x=np.array([0.1, 0.2]), y=[1, None], name=HOSTILE, hovertext=["no", "number"],
        error_y={"type": "data", "array": np.array([0.5, 0.25])},
    )  # fmt: skip
    figure.add_bar(x=["a", "b", "c"], y=np.arange(3))
    figure.add_heatmap(z=np.arange(6).reshape(2, 3), x=["p", "q", "r"])
    rows = read(numbers(figure))
    points = [row for row in rows if row["kind"] == "scatter"]
    assert [(row["x"], row["y"], row["error_y.array"]) for row in points] == [("0.1", "1", "0.5"), ("0.2", "", "0.25")]
    assert points[0]["name"] == HOSTILE and "hovertext" not in points[0]
    assert [(row["x"], row["y"]) for row in rows if row["kind"] == "bar"] == [("a", "0"), ("b", "1"), ("c", "2")]
    cells = [row["x"] + row["y"] + row["z"] for row in rows if row["kind"] == "heatmap"]
    assert cells == ["p00", "q01", "r02", "p13", "q14", "r15"]
    assert numbers(go.Figure(json.loads(figure.to_json()))) == numbers(figure)  # as an analysis is read back
    assert numbers(go.Figure()) == "trace,kind,name\n"


def test_figures_are_found_in_sections_with_their_headings() -> None:
    one, two = go.Figure(), go.Figure()
    parts = ["<p>text</p>", ("A", "", one), Section("S", "", [Section("T", "", [("B", "", two), "more"])])]
    assert list(figures_of(parts)) == [("A", one), ("S: T: B", two)]


def test_images_are_what_they_say(tmp_path: Path) -> None:
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip(f"no browser on PATH ({', '.join(BROWSERS)}); install one to test drawing")
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
    figure.update_layout(title=HOSTILE, width=300, height=200)
    files = write_figures([("Accuracy: Δ", figure), ("Accuracy", figure)], tmp_path / "f", ["svg", "png", "pdf"])
    assert [file.name for file in files[:4]] == [
        "01-accuracy.svg", "01-accuracy.png", "01-accuracy.pdf", "02-accuracy.svg",
    ]  # fmt: skip
    svg, png, pdf = (file.read_bytes() for file in files[3:])
    assert svg.startswith(b"<svg") and "“Δ”".encode() in svg and b"</svg>" in svg[-10:]
    assert b'width="300" height="200"' in svg[:300]
    assert png.startswith(b"\x89PNG") and int.from_bytes(png[16:20], "big") == 900  # three times as wide
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") == 1 and b"/FontFile" in pdf  # its text stays text
    box = re.search(rb"/MediaBox \[0 0 ([0-9.]+) ([0-9.]+)\]", pdf)
    assert box is not None  # 300 x 200 pixels of 1/96 inch, in points
    assert [float(side) for side in box.groups()] == pytest.approx([225, 150], abs=1.5)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "svgg", "csv,eps"):
        with pytest.raises(UserError, match="csv, svg, png, pdf"):
            formats_of(text)
    assert formats_of(" CSV,csv") == ["csv"]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    with pytest.raises(UserError, match="Chromium or Chrome, and none is on PATH; install one, or give csv"):
        formats_of("svg")
    monkeypatch.setenv("BROWSER_PATH", "/nowhere")
    with pytest.raises(UserError, match="BROWSER_PATH='/nowhere' is no program"):
        formats_of("svg")
    monkeypatch.setenv("BROWSER_PATH", "/bin/false")
    with pytest.raises(UserError, match="the browser ended with code 1"):
        write_figures([("A", go.Figure())], tmp_path / "a", ["svg"])
    monkeypatch.setenv("BROWSER_PATH", "/bin/true")
    with pytest.raises(UserError, match="drew no figures"):
        write_figures([("A", go.Figure())], tmp_path / "a", ["svg"])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.csv").write_text("1")
    with pytest.raises(UserError, match="holds other files"):
        write_figures([("A", go.Figure())], tmp_path / "b", ["csv"])
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["mine.csv"]


def test_the_figures_of_a_report(tiny: Model, tmp_path: Path) -> None:
    items = written_task(8)
    says = {"m": lambda item, branch: f"I say {item.answer}", "direct": lambda item, branch: "I say 1"}
    run = written_run(tiny, tmp_path / "m", items, "m", says)
    arguments = ["report", str(run.folder), "--analyses", "none", "--out", str(tmp_path / "page.html")]
    for _ in range(2):  # its own it writes over
        code, out, err = shell(*arguments, "--figures", str(tmp_path / "figures"))
        assert code == 0, err
    index = json.loads((tmp_path / "figures" / "figures.json").read_text())
    assert "figures: " in out and f"({len(index['figures'])} files)" in out
    headings = [one["heading"] for one in index["figures"]]
    assert "Summary: Difference to the baseline" in headings and "m: Accuracy" in headings
    name = index["figures"][headings.index("m: Accuracy")]["file"]
    rows = read((tmp_path / "figures" / f"{name}.csv").read_text())
    by_arm = {row["y"]: float(row["x"]) for row in rows}
    assert by_arm["m"] == 1.0 and by_arm["direct"] == run.metrics["arms"]["direct"]["accuracy"]
    (tmp_path / "page.html").unlink()
    code, out, err = shell(*arguments, "--figures", str(tmp_path / "m"))
    assert code == 2 and "holds other files" in err and not (tmp_path / "page.html").exists()
