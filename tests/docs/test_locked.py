"""What is installed is held to hashes, of the versions that are written down."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.newest.__main__ import pinned

ROOT = Path(__file__).parents[2]
LOCKED = ROOT / "locked"
LISTS = {"project": ROOT / "constraints.txt"} | {one.stem: one for one in LOCKED.glob("*.in")}


def versions(file: Path) -> dict[str, str]:
    return pinned(file.read_text().splitlines())


@pytest.mark.parametrize("name", sorted(LISTS))
def test_hashes_are_of_the_versions_that_are_written_down(name: str) -> None:
    asked = versions(LISTS[name])
    asked.pop("torch", None)  # its build hangs on the machine
    assert versions(LOCKED / f"{name}.txt") == asked, "run make lock"


@pytest.mark.parametrize("file", sorted(LOCKED.glob("*.txt")), ids=lambda file: file.stem)
def test_every_package_has_a_hash(file: Path) -> None:
    for entry in re.split(r"\n(?=\S)", file.read_text().strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_what_the_site_is_built_by_is_as_asked() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = versions(LOCKED / "docs.txt")
    for one in map(Requirement, extras["docs"]):
        assert one.specifier.contains(locked[canonicalize_name(one.name)]), "run make lock"


def test_what_runs_here_is_what_is_written_down() -> None:
    asked = versions(LISTS["project"])
    for name in ("numpy", "transformers", "safetensors", "plotly", "nnsight", "sae-lens", "transformer-lens"):
        assert version(name) == asked[name]
    assert version("torch").partition("+")[0] == asked["torch"]
