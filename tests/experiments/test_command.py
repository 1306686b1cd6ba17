"""Experiments from the shell: a mistake is one line and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.command import called, comparison_in
from probes.errors import UserError

COMMANDS = sorted(file.parent.name for file in Path("experiments").glob("*/__main__.py"))
ERROR = {"claims", "filtered_positions", "selects_or_creates"}  # which say "error" before it


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> None:
        raise UserError("nothing was given; give something")

    with pytest.raises(SystemExit) as ended:
        called("bits", wrong)
    assert ended.value.code == 2 and capsys.readouterr().err == "bits: nothing was given; give something\n"
    assert called("bits", lambda: 7) == 7


@pytest.mark.parametrize("name", COMMANDS)
def test_every_experiment_says_its_mistakes_so(name: str) -> None:
    text = Path(f"experiments/{name}/__main__.py").read_text(encoding="utf-8")
    assert f'called("{"error" if name in ERROR else name}", ' in text


def test_a_folder_without_a_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no comparison.json; give the folder"):
        comparison_in(tmp_path)
    (tmp_path / "comparison.json").write_text("[1")
    with pytest.raises(UserError, match="is not as expected"):
        comparison_in(tmp_path)
    made = subprocess.run(
        [sys.executable, "-m", "experiments.comparison", str(tmp_path / "none")], capture_output=True, text=True
    )
    assert made.returncode == 2 and made.stderr.count("\n") == 1
