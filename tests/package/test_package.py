"""What is shipped: the wheel holds what the checkout holds, and works where there is no checkout.

`make test-wheel` builds both archives and installs the wheel in an environment of its own. The wheel was made from the
source archive, so what holds of it holds of that.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv-wheel" / "bin"
PACKAGES = ("elicit", "probes", "steering")


def only(pattern: str) -> Path:
    (found,) = (ROOT / "dist").glob(pattern)
    return found


@pytest.fixture(scope="module")
def wheel() -> Iterator[ZipFile]:
    with ZipFile(only("*.whl")) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_string(wheel.read(name).decode())


@pytest.fixture(scope="module")
def shipped() -> dict[str, Path]:
    """What of the checkout belongs into the archives: all but the pages of folders of code."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    files = {name: ROOT / name for name in listed if (ROOT / name).is_file()}
    return {n: f for n, f in files.items() if f.name != "README.md" or not list(f.parent.glob("*.py"))}


def outside(*words: str, place: Path) -> str:
    """What a program of the wheel's environment says, run in a folder that knows nothing of the checkout."""
    told = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    own = {k: v for k, v in os.environ.items() if k not in told} | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run([str(BIN / words[0]), *words[1:]], cwd=place, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_wheel_holds_the_files_of_the_checkout_and_no_others(wheel: ZipFile, shipped: dict[str, Path]) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == set(shipped)
    for name, file in shipped.items():
        assert wheel.read(name) == file.read_bytes(), name


def test_the_source_archive_holds_these_and_what_builds_them(shipped: dict[str, Path]) -> None:
    with tarfile.open(only("*.tar.gz")) as archive:
        names = {one.name.partition("/")[2] for one in archive if one.isfile()}
    beside = {name for name in names - set(shipped) if not name.startswith("elicit.egg-info/")}
    assert set(shipped) <= names
    assert beside == {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}


def test_what_the_wheel_says_of_itself(metadata: Message) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Author"] == "elicit contributors"
    assert metadata["Author-email"] is None
    assert metadata["Version"] == project["version"]
    assert metadata["License-Expression"] == project["license"]
    minors = [one.rpartition(".")[2] for one in metadata.get_all("Classifier", []) if "Python :: 3." in one]
    assert metadata["Requires-Python"] == f">=3.{minors[0]}"
    assert minors == [str(n) for n in range(int(minors[0]), int(minors[-1]) + 1)]
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text().strip()


def test_no_path_of_the_machine_that_built_it_is_in_it(wheel: ZipFile) -> None:
    own = [re.escape(str(one).encode()) for one in (ROOT, Path.home(), Path(sys.prefix)) if len(one.parts) > 1]
    places = re.compile(rb"|".join([*own, rb"/home/\w+/", rb"/Users/\w+/", rb"/tmp/\w+", rb"\w:\\\\Users"]))
    found = [(name, hit.group()) for name in wheel.namelist() if (hit := places.search(wheel.read(name)))]
    assert not found


def test_what_is_imported_is_what_was_installed(tmp_path: Path) -> None:
    code = f"""import importlib.util, json, sys
print(json.dumps([sys.path, [importlib.util.find_spec(name).origin for name in {PACKAGES}]]))"""
    path, files = json.loads(outside("python", "-c", code, place=tmp_path))
    assert all(Path(file).is_relative_to(ROOT / ".venv-wheel") for file in files)
    assert str(ROOT) not in path


def test_the_commands_and_the_data_that_they_read(tmp_path: Path) -> None:
    said = outside("elicit", "--help", place=tmp_path)
    assert {"run", "compare", "report", "sweep"} <= set(re.findall(r"[a-z]+", said))
    presets = outside("elicit", "presets", place=tmp_path)
    assert all(file.stem in presets for file in (ROOT / "elicit/presets").glob("*.toml"))
    models = outside("elicit", "models", place=tmp_path)
    assert all(folder.name in models for folder in (ROOT / "elicit/models/shipped/organisms").iterdir())


def test_the_example_of_the_readme_runs_where_there_is_no_checkout(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    outside("python", "-c", code.replace("limit=16", "limit=4").replace("k=10", "k=3"), place=tmp_path)
    assert "plotly" in (tmp_path / "tree.html").read_text()
    assert (tmp_path / "bundle" / "elicited.json").is_file()


def test_a_run_ends_with_its_page(tmp_path: Path) -> None:
    words = ("--method", "cot-decoding", "--limit", "8", "--set", "k=3", "--max-new-tokens", "32", "--json")
    said = json.loads(outside("elicit", "run", *words, place=tmp_path))
    assert said["items"] == 8
    page = (tmp_path / said["run"] / "report.html").read_text()
    style = (ROOT / "probes/assets/page.css").read_text()
    assert style.strip().splitlines()[0] in page
