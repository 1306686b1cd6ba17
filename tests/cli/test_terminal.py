"""What the shell shows while something works, where there is no terminal."""

from __future__ import annotations

import re
import time

import pytest

from elicit.cli import terminal
from elicit.cli.terminal import Lines, RunBars


def test_lines_are_said_on_standard_error_and_no_more_often_than_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Lines, "FIRST", 0.05)
    monkeypatch.setattr(Lines, "EACH", 600.0)
    with terminal.run_bars(quiet=False) as bars:
        bars.arm("direct", 8, 0)
        time.sleep(0.3)
        for _ in range(100):
            bars.step(1, 8)
    said = capsys.readouterr()
    assert not said.out
    assert re.fullmatch(r"elicit: 0:00:00 direct 0/8 questions\n", said.err)


def test_a_job_that_is_over_at_once_and_a_quiet_one_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.run_bars(quiet=False), terminal.step_bar(3, quiet=True), terminal.fetch_bar(quiet=False):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_line_says_what_is_left_of_what_was_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lines = Lines()
    bars = RunBars(lines)
    assert lines.line() == "0:00:00 working"
    bars.arm("direct and 6 more", 60, 30)
    now += 20
    bars.advance(10, 400)  # ten in twenty seconds; twenty are left
    assert re.fullmatch(r"0:00:20 direct and 6 more 40/60 questions, 0:00:40 left  [0-9]+ tokens/s", lines.line())
    bars.advance(20, 800)
    assert lines.line() == "0:00:20 working, after direct and 6 more 60/60 questions"
    bars.training("adapter", 5, 0, "loss 1.0")  # it does not know how many steps there are
    assert lines.line() == "0:00:20 adapter  loss 1.0"


def test_a_second_training_of_a_name_is_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not: what was told is the newest task, and that of the first training was gone on with."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    bars = RunBars(lines := Lines())
    for _ in range(2):
        bars.arm("direct", 2, 0)
        bars.advance(2, 0)
        bars.training("rlp", 1, 4, "")
        now += 10
        bars.training("rlp", 2, 4, "")
        assert lines.line().endswith(" rlp 2/4 steps, 0:00:10 left")
        bars.training("rlp", 4, 4, "")
    assert lines.line() == "0:00:20 working, after rlp 4/4 steps"


def test_a_training_and_a_download_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Lines] = []
    monkeypatch.setattr(Lines, "__enter__", lambda self: made.append(self) or self)
    monkeypatch.setattr(Lines, "__exit__", lambda *error: None)
    with terminal.step_bar(8, quiet=False) as on_step:
        on_step(3, 0.5, 100.0)
    with terminal.fetch_bar(quiet=False) as update:
        update("model", 50, 100)
    said = [re.sub(r", .* left", "", one.line()) for one in made]
    assert said == ["0:00:00 training 4/8 steps  loss 0.500  100 tokens/s", "0:00:00 model 50/100"]
