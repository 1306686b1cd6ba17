"""The picture on the first page is that of the numbers that are kept, and draws every arm of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from experiments.comparison.__main__ import COMPARISON, HERE, main
from experiments.comparison.picture import across, picture
from probes.errors import UserError

ROOT = Path(__file__).parent.parent.parent
SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_is_of_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "new" / "made.svg"
    monkeypatch.setattr(sys, "argv", ["comparison", "--picture", str(made)])
    main()
    text = made.read_text(encoding="utf-8")
    assert text == (ROOT / "docs" / "gap-recovered.svg").read_text(encoding="utf-8"), "draw it anew: see its module"
    found = json.loads((HERE / COMPARISON).read_text(encoding="utf-8"))
    drawn = [float(one.attrib["cx"]) for one in ElementTree.fromstring(text).iter(f"{SVG}circle")]
    legend, arms = drawn[-3:], drawn[:-3]
    assert sorted(arms) == sorted(across(row["recovered"]) for row in found["arms"]) and len(set(legend)) == 3
    assert {row["arm"] for row in found["arms"] if not row["of"]} <= set(text.replace("<", ">").split(">"))


def test_an_arm_without_a_fraction_has_no_mark_and_a_comparison_without_any_is_refused() -> None:
    found = json.loads((HERE / COMPARISON).read_text(encoding="utf-8"))
    before = picture(found).count("<circle")
    for row in found["arms"]:
        if row["arm"] == "sae-steer" or row["of"] == "sae-steer":
            del row["recovered"], row["recovered_interval"]
    text = picture(found)
    assert text.count("not stated") == 1 and ">sae-steer<" in text
    gone = sum("recovered" not in row for row in found["arms"])
    assert gone > 1 and text.count("<circle") == before - gone
    for row in found["arms"]:
        row.pop("recovered", None)
    with pytest.raises(UserError, match="no arm of this comparison recovers a known gap"):
        picture(found)
