"""`make newest`: what it frees, and how it tells what broke."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from tests.newest.__main__ import freed, pinned
from tests.newest.broken import Why, failures


def test_caps_and_pins_are_freed_and_torch_is_held() -> None:
    torch, *others = map(Requirement, freed("2.13.0"))
    assert (torch.name, str(torch.specifier)) == ("torch", "==2.13.0")
    assert {"transformers", "transformer-lens", "math-verify", "trl"} <= {one.name for one in others}
    assert not any(one.specifier for one in others)
    assert "numpy" not in {one.name for one in others}
    assert pinned(["# a", "Jinja2==3.1", "  # via b"]) == {"jinja2": "3.1"}


def test_failures_are_grouped_by_the_package_that_they_end_in(tmp_path: Path) -> None:
    site = tmp_path / ".venv-newest" / "lib" / "python3" / "site-packages"
    (site / "peer").mkdir(parents=True)
    (site / "peer" / "__init__.py").write_text("def call():\n    raise TypeError('no such argument')\n")
    (tmp_path / "test_some.py").write_text(
        f"import sys\nsys.path.insert(0, {str(site)!r})\nimport peer\n"
        "def test_a(): peer.call()\ndef test_b(): peer.call()\ndef test_c(): assert 1 == 2\ndef test_d(): pass\n"
    )
    (tmp_path / "test_not_there.py").write_text("import peer.part_that_was_dropped\n")
    junit = tmp_path / "junit.xml"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", f"--junitxml={junit}"]
    subprocess.run([sys.executable, *words, "--continue-on-collection-errors", "."], cwd=tmp_path, capture_output=True)
    groups, counts = failures(junit, site)
    assert counts == {"passed": 1, "failed": 4}
    assert groups[Why("peer", "TypeError: no such argument")] == ["test_some::test_a", "test_some::test_b"]
    assert groups[Why("", "assert 1 == 2")] == ["test_some::test_c"]
    assert [why.error for why in groups if "part_that_was_dropped" in why.error or "peer" in why.error]
