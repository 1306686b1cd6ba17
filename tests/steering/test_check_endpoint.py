"""`check_endpoint` against a real model behind a real server on the loopback."""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.simulations.endpoint import case
from probes.errors import UserError
from steering.check import SteeringReport, check_endpoint
from steering.check.completions import Said
from steering.check.endpoint import _apart, _judged, least_kl
from tests.support.completions import serving

PLAN = {"steer": {"strength": 1.0}}


@pytest.fixture(autouse=True)
def same_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts begin with the same digits each time: how far a fault moves the tiny model hangs on them."""
    digits = count()
    monkeypatch.setattr("steering.check.endpoint.secrets.randbelow", lambda most: 7919 * next(digits) % most)


def checked(folder: Path, fault: str = "", **options: Any) -> SteeringReport:
    with serving(folder, fault) as url:
        return check_endpoint(url, "tiny", PLAN, **options)


def test_a_right_server_holds(tiny_folder: Path) -> None:
    report = checked(tiny_folder)
    untold = {one.name for one in report.answers if one.verdict != "holds"}
    assert untold == {"each position, hook point, scale"} and report.ok, str(report)
    assert report["size"].numbers["kl_95"] > report["size"].numbers["kl_median"] > 0


@pytest.mark.parametrize(
    ("fault", "named", "question"),
    [
        ("ignores the plan", "nothing moved", "anything moved"),
        ("prefill only", "cached steps differ", "decoding = whole text"),
        ("first row only", "batch differs", "batched = single"),
        ("others in the batch", "unsteered rows steered", "unsteered, batched = single"),
        ("prefixes shared", "unsteered request steered", "unsteered decoding = whole text"),
        ("last position only", "positions missing", "first position of the prompt"),
    ],
)
def test_each_fault_is_found_by_name(tiny_folder: Path, fault: str, named: str, question: str) -> None:
    report = checked(tiny_folder, fault)
    assert named in report.faults and report[question].verdict == "fails" and report.exit_code == 1, str(report)


@pytest.mark.parametrize(
    ("nats", "floor", "verdict"),
    [(0.0, 0.1, "holds"), (0.3, 0.4, "holds"), (0.3, 0.1, "fails"), (0.3, 4.0, "cannot be told"), (4.5, 4.0, "fails")],
)
def test_rounding_that_hides_steering_lets_nothing_hold(nats: float, floor: float, verdict: str) -> None:
    """Of one token, which steering moves by a nat."""
    assert _judged("batched = single", [nats, 0.0], [1.0, 0.5], floor, "batch differs").verdict == verdict


@pytest.mark.parametrize(
    ("rounding", "steering", "fault", "verdict"),
    [
        (1e-5, 0.3, "none", "holds"),
        (0.03, 0.03, "none", "untold"),  # "nothing moved", before
        (1e-5, 0.3, "ignored", "fails"),
        (0.03, 3.0, "ignored", "untold"),
        (0.03, 3.0, "first positions unsteered", "fails"),  # rounding was taken for a first position that is steered
        (0.03, 3.0, "first row only", "fails"),
    ],
)
def test_servers_with_known_rounding_are_judged_as_they_are(
    rounding: float, steering: float, fault: str, verdict: str
) -> None:
    assert case(rounding, steering, fault, 2)[verdict] == 2


def test_without_an_echo_what_stands_on_it_cannot_be_told(tiny_folder: Path) -> None:
    report = checked(tiny_folder, "no echo")
    untold = {one.name for one in report.answers if one.verdict == "cannot be told"}
    assert report.ok and untold >= {"first position of the prompt", "decoding = whole text"}


@pytest.mark.parametrize(
    ("fault", "untold", "few"),
    [
        ("one prompt", {"batched = single", "unsteered, batched = single"}, False),
        ("one logprob", {"first position of the prompt", "decoding = whole text"}, True),
        ("little", {"batched = single", "first position of the prompt", "unsteered decoding = whole text"}, True),
        ("no alternatives", set(), True),
    ],
)
def test_a_server_that_takes_less_is_asked_for_less(tiny_folder: Path, fault: str, untold: set[str], few: bool) -> None:
    report = checked(tiny_folder, fault)
    found = {one.name for one in report.answers if one.verdict == "cannot be told"}
    assert report.ok and found >= untold and ("batched = single" in found) == ("batched = single" in untold)
    assert ("of each the chosen token's log-probability alone" in report.about) == few
    assert report["size"].numbers["kl_95"] > 0


def test_tops_without_a_token_in_common_are_far_apart() -> None:
    """The least that can be between them, where each names the chosen token alone, and where each names several."""
    one, two = Said("a", ["a"], [-0.1], [{"a": -0.1}]), Said("b", ["b"], [-0.1], [{"b": -0.1}])
    assert _apart([one], [two]) == _apart([two], [one]) == pytest.approx(-0.1 - math.log(1 - math.exp(-0.1)))
    even = Said("b", ["b"], [math.log(0.5)], [{"b": math.log(0.5)}])
    near = Said("a", ["a"], [math.log(0.5)], [{"a": math.log(0.5)}])
    assert _apart([even], [near]) == pytest.approx(0)  # two tokens may be as likely as each other on both sides
    many = Said("c", ["c"], [-1.0], [{"c": -1.0, "d": -4.0}])
    assert _apart([many], [two]) == pytest.approx(-0.1 + 4.0)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no logprobs", "gave no logprobs"),
        ("no JSON", r"answered what is no JSON: <html>\?\[2J"),
        ("a list", "JSON that is no object"),
        ("one choice", "gave 1 choices for 4 prompts"),
        ("an error", r'answered 404: no model "\?\[31mx\?\[0m" at all; check --model and --plan'),
        ("slow", "gave no answer in 0.2 s"),
    ],
)
def test_what_a_server_lacks_is_one_harmless_line(tiny_folder: Path, fault: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        checked(tiny_folder, fault, **({"timeout": 0.2} if fault == "slow" else {}))
    assert "\x1b" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://127.0.0.1:9"}, "took no connection"),
        ({"url": "localhost:8000"}, "give an address like"),
        ({"plan": {}}, "an empty plan"),
        ({"prompts": ("one",)}, "at least 2 of each"),
        ({"timeout": 0.0}, "seconds above 0"),
    ],
)
def test_wrong_input_is_one_line(options: dict[str, Any], said: str) -> None:
    given = {"url": "http://127.0.0.1:9", "model": "tiny", "plan": PLAN, **options}
    with pytest.raises(UserError, match=said):
        check_endpoint(**given)


def test_the_kl_of_the_likeliest_is_a_lower_bound() -> None:
    noise = torch.randn(2, 30, generator=torch.Generator().manual_seed(3))
    said = torch.stack([2 * noise[0], 2 * noise[0] + 0.3 * noise[1]]).log_softmax(-1)
    whole = float((said[0].exp() * (said[0] - said[1])).sum())
    bounds = []
    for k in (3, 10, 30):
        tops = [{str(i): float(row[i]) for i in row.topk(k).indices.tolist()} for row in said]
        bounds.append(least_kl(*tops))
    assert 0 < bounds[0] <= bounds[1] <= bounds[2] and bounds[2] == pytest.approx(whole, rel=1e-4)
