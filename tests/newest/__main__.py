"""The tests beside the newest releases of what the suite stands on.

    python -m tests.newest UV [--torch[=RELEASE]] [PART …]

An environment is laid over the project's own, with all that has a newer release than constraints.txt names: what
pyproject.toml caps or pins is freed, and the whole is resolved together. Torch stays, with what its build brought; with
`--torch` it is the other way round: its newest release, or RELEASE, with what it needs, and all else as it is locked.
Then the tests of PART (a file or folder; unless given all) run there, and what broke is told by package and error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.newest.broken import failures

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-newest"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def pinned(lines: Iterable[str]) -> dict[str, str]:
    """Versions by name."""
    found = [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalpha()]  # where hashes follow it goes on
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in found}


def freed(torch: str) -> list[str]:
    """What is capped or pinned, without a bound; torch as it is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = map(Requirement, [*project["dependencies"], *extras["dev"], *extras["train"]])
    bound = {one.name for one in asked if any(part.operator in ("<", "==") for part in one.specifier)}
    return [f"torch=={torch}", *sorted(bound)]


def resolved(uv: str, *words: str, given: str = "") -> dict[str, str]:
    """What uv finds the newest versions to be."""
    quiet = ["--quiet", "--no-annotate", "--no-header", "--python-version", VERSION]
    done = subprocess.run([uv, "pip", "compile", *quiet, *words], input=given, text=True, capture_output=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"the newest releases do not fit together: {done.stderr.strip()}")
    return pinned(done.stdout.splitlines())


def newer(uv: str, locked: dict[str, str]) -> dict[str, str]:
    """What has another version than is locked, or is not locked at all and needed now."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(freed(locked["torch"])))
        file.flush()
        every = resolved(uv, "pyproject.toml", "--extra", "dev", "--override", file.name)
    of_torch = resolved(uv, "-", given=f"torch=={locked['torch']}").keys() - locked.keys()
    return {name: v for name, v in every.items() if name not in of_torch and locked.get(name) != v}


def torch_alone(uv: str, locked: dict[str, str], release: str) -> dict[str, str]:
    """A release of torch, the newest unless one is named, and what it needs that is not locked."""
    needed = resolved(uv, "-", given=f"torch=={release}" if release else "torch")
    return {name: v for name, v in needed.items() if name == "torch" or name not in locked}


def environment(uv: str, packages: dict[str, str]) -> Path:
    """Made anew; its folder of packages."""
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ENVIRONMENT], check=True)
    python = ENVIRONMENT / "bin" / "python"
    site = ENVIRONMENT / "lib" / f"python{VERSION}" / "site-packages"
    (site / "zz-below.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wanted = [f"{name}=={version}" for name, version in packages.items()]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "--no-deps", *wanted], check=True)
    return site


def main(uv: str, words: Sequence[str]) -> int:
    named = [word.removeprefix("--torch").removeprefix("=") for word in words if word.startswith("--torch")]
    parts = [word for word in words if not word.startswith("--torch")] or ["tests"]
    locked = pinned((ROOT / "constraints.txt").read_text().splitlines())
    packages = torch_alone(uv, locked, named[0]) if named else newer(uv, locked)
    if not packages:
        print("all that is locked is the newest there is")
        return 0
    for name, version in packages.items():
        print(f"{name:<28}{locked.get(name, 'none'):<20}{version}", flush=True)
    site = environment(uv, packages)
    with tempfile.TemporaryDirectory() as place:
        junit = Path(place) / "junit.xml"
        told = [*parts, f"--junitxml={junit}", "--jaxtyping-packages=elicit,probes,steering,beartype.beartype"]
        own = os.environ | {"PYTHONPATH": str(ROOT)}
        code = subprocess.run([ENVIRONMENT / "bin" / "python", "-m", "pytest", *told], cwd=ROOT, env=own).returncode
        if code not in (0, 1) and not junit.exists():
            print(f"pytest did not run: exit code {code}", file=sys.stderr)
            return code
        groups, counts = failures(junit, site)
    print("\n" + ", ".join(f"{count} {what}" for what, count in counts.items()))
    for why, tests in groups.items():
        name = canonicalize_name(why.package)
        version = f"{why.package} {packages.get(name, '')} (locked: {locked.get(name, 'none')})".replace("  ", " ")
        print(f"\n{version if why.package else 'no newer package in the traceback'}: {why.error}")
        print("\n".join(f"    {one}" for one in tests))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
