"""Hostile text on the terminal: it is shown, and nothing of it is obeyed."""

from __future__ import annotations

import io
import json
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from elicit.cli import terminal
from elicit.cli.lines import inert_messages, remark, say, show_json
from probes.csv_table import csv_table
from probes.inert import LONGEST, escaped, inert, label, one_line, shortened
from tests.support.shell import shell
from tests.text.hostile import ALL, CONTROLS, FORMULAS, LONG, MARKUP, TERMINAL, named


def shown(out: str, err: str = "") -> str:
    """What was printed, which holds nothing that a terminal obeys and is text in any encoding of Unicode."""
    printed = out + err
    assert not (CONTROLS - {"\n", "\t"}) & set(printed), sorted(CONTROLS & set(printed))
    printed.encode()
    return printed


def test_lines_tables_and_bars_show_text() -> None:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        for text in ALL:
            say(text)
            remark(text)
            show_json({text: [text]}, indent=2)
            terminal.out.print(text)
            terminal.err.print(terminal.headed(text, text))
            terminal.show_table((text[:50], "n"), [(text, 1), ("b", 2)], title=text[:50])
        with terminal.run_bars(quiet=False) as bars:
            for text in ALL:
                bars.arm(text, 3, 0)
                bars.training(text, 1, 2, text)
                assert isinstance(bars.bars, terminal.Lines)
                remark(bars.bars.line())
    printed = shown(out.getvalue(), err.getvalue())
    assert "[bold red]red[/bold red] [/] [/INST]" in printed and ":skull:" in printed
    assert r"\x1b[31mred" in printed and r"\u202eright to left" in printed and r"half \ud83d of" in printed


def test_a_bar_on_a_terminal_shows_text(monkeypatch: pytest.MonkeyPatch) -> None:
    wrote = io.StringIO()
    console = terminal.InertConsole(stderr=True)
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "file", wrote)
    monkeypatch.setattr(terminal, "err", console)
    with terminal.run_bars(quiet=False) as bars:
        bars.arm(TERMINAL[2], 3, 0)
        bars.training("[red]x[/red]", 1, 2, TERMINAL[1])
    printed = wrote.getvalue()
    assert r"\x1b]0;title\x07" in printed and "[red]x[/red]" in printed and r"\x1b[31mred" in printed
    assert "\x1b]" not in printed and "\x07" not in printed  # its own sequences move and colour alone


def test_messages_of_python_itself_show_text() -> None:
    err, logger = io.StringIO(), logging.getLogger("tests.text")
    handler = logging.StreamHandler(err)
    logger.addHandler(handler)
    try:
        with inert_messages():
            for text in TERMINAL:
                logger.warning("about %s", text)
                err.write(warnings.formatwarning(UserWarning(text), UserWarning, "x.py", 1, ""))
    finally:
        logger.removeHandler(handler)
    assert r"about \x1b[31mred" in shown(err.getvalue()) and r"UserWarning: \x1b[31mred" in err.getvalue()


def test_commands_show_what_files_and_names_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [text.replace("\ud83d", "").replace("\udc00", "") for text in (*MARKUP, *TERMINAL)]  # of files: UTF-8
    for n, text in enumerate(texts):
        file = tmp_path / f"{n}{named(text)}.jsonl"
        file.write_text(
            json.dumps({"question": text, "answer": f"7{n}", "id": text, "split": "test"}), encoding="utf-8"
        )
        code, out, err = shell("tasks", str(file))
        shown(out, err)
        assert code in (0, 2) and err.count("\n") == (code == 2), (text, err)
    answers = tmp_path / "responses.jsonl"
    answers.write_text("\n".join(json.dumps({"gold": t, "response": f"It is {t}", "kind": "text"}) for t in texts))
    code, out, err = shell("grade", str(answers))
    assert code == 0 and f"of {len(texts)} are right" in shown(out, err)


@pytest.mark.parametrize("arguments", [
    ("run", "--model", "{}"), ("run", "--method", "{}"), ("run", "--task", "{}.jsonl"), ("run", "--prompt", "{}"),
    ("run", "--set", "{}=1"), ("run", "--config", "{}"), ("compare", "{}"), ("report", "{}"), ("analyse", "{}"),
    ("grade", "{}"), ("{}",), ("run", "--{}"), ("sweep", "status", "{}"), ("sae", "card", "{}"), ("presets", "{}"),
    ("tasks", "{}"), ("import", "{}"),
])  # fmt: skip
def test_a_mistake_is_one_line_of_text(arguments: tuple[str, ...]) -> None:
    for text in (TERMINAL[0], TERMINAL[2], TERMINAL[4].replace("\x00", ""), TERMINAL[5]):
        code, out, err = shell(*(one.replace("{}", text) for one in arguments))
        assert code == 2 and not out and shown(err).count("\n") == 1 and err.startswith("elicit: "), err


def test_what_is_long_is_shortened_in_its_middle() -> None:
    assert shortened("x" * LONGEST) == "x" * LONGEST
    line = one_line(f"given {LONG}; do this")
    assert (
        len(line) < LONGEST + 40 and line.startswith("given long") and line.endswith("do this") and "characters" in line
    )


def test_text_survives_what_makes_it_inert() -> None:
    for plain in ("naïve — 数学 👩‍🔬 مرحبا", "a\tb\nc", "x < y & z"):
        assert inert(plain) == plain
    assert escaped("<b>\x1b'") == "&lt;b&gt;\\x1b&#x27;" and label("<b>&$x$\n") == "&lt;b&gt;&amp;&#36;x&#36;⏎"


def test_no_cell_of_a_table_is_a_formula() -> None:
    made = csv_table(("name", "n"), [{"name": text, "n": -1.5} for text in (*FORMULAS, "-3", "plain")])
    lines = made.splitlines()[1:]
    assert all(line.lstrip('"').startswith("'") for line in lines[: len(FORMULAS)]), lines
    assert lines[-2:] == ["-3,-1.5", "plain,-1.5"]
