"""Files that appear whole or not at all, and nowhere else than where they are named.

What is written takes its place in one rename, so a link that lies there is replaced and what it points to is not
touched. Where that cannot be (a file that is appended to, a folder of ours in a folder), a link is refused.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from probes.errors import UserError

# A disk, a quota and a file's size that are used up.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_room(error: BaseException | None) -> str:
    """What is used up where an error, or one that it comes of, is for want of room; else nothing.

    Libraries tell it in errors of their own: of safetensors it is no OSError.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return os.strerror(error.errno)
        if told := next((os.strerror(code) for code in NO_ROOM if os.strerror(code) in str(error)), ""):
            return told
        error = error.__cause__ or error.__context__
    return ""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new file beside `path`, to be written inside the context; it is put in its place in one rename."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # what an interrupted call left, or a link
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text file as UTF-8, all of it or nothing; lines end as they do in `text`, on every platform."""
    with whole(path) as part:
        part.write_bytes(text.encode())


def read_json(path: Path, todo: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        path: of the file.
        todo: what a person can do where it holds none.

    Raises:
        UserError: not UTF-8, not JSON, nested too deep, or no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is not JSON ({error}); {todo}") from error
    if not isinstance(found, dict):
        raise UserError(f"{str(path)!r} holds a {type(found).__name__}, expected an object; {todo}")
    return found


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """A new folder to write files into; each of them then takes its place in `folder` in one rename.

    Raises:
        UserError: the folder is a link, or cannot be made.
    """
    made = inner_folder(folder)
    part = made / ".part"
    no_link(part)
    shutil.rmtree(part, ignore_errors=True)  # what an interrupted call left
    part.mkdir()
    try:
        yield part
        for file in sorted(part.iterdir()):
            file.replace(made / file.name)
    finally:
        shutil.rmtree(part)


def make_folder(folder: Path) -> Path:
    """Make a folder that a person named, where it is not there; it may be a link to one.

    Raises:
        UserError: it is a file, lies below one, or cannot be made.
    """
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise UserError(f"the folder {str(folder)!r} cannot be made ({error.strerror}); give another folder") from error
    return folder


def check_folder(folder: Path) -> None:
    """Refuse what cannot become a folder, before anything is computed for it.

    Raises:
        UserError: it is a file, or lies below one.
    """
    for place in (folder, *folder.parents):
        try:
            if place.is_dir():
                return
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            raise UserError(f"{str(folder)!r} cannot be a folder ({error.strerror}); give another folder") from error
        if place.exists() or place.is_symlink():
            where = "" if place == folder else f" lies below {str(place)!r}, which"
            raise UserError(f"{str(folder)!r}{where} is a file; give a folder")


def inner_folder(folder: Path) -> Path:
    """Make a folder of ours within another.

    Raises:
        UserError: a link lies there, or it cannot be made.
    """
    no_link(folder)
    return make_folder(folder)


def file_named(name: str) -> Path | None:
    """The file that a text names, if it names one; a text that can be no path (too long, no user's home) does not."""
    try:
        file = Path(name).expanduser()
        return file if file.is_file() else None
    except (OSError, RuntimeError):
        return None


def no_link(path: Path) -> None:
    """Refuse a link where something of ours is to be written.

    Raises:
        UserError: there is one.
    """
    if path.is_symlink():
        raise UserError(f"{str(path)!r} is a link, which nothing is written through; remove it or give another folder")


def ours_to_replace(path: Path, mark: str) -> None:
    """Refuse to write over a file that does not look like one of ours.

    Args:
        path: what is to be written.
        mark: a text that the beginning of each such file of ours holds.

    Raises:
        UserError: another file lies there.
    """
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; give a file")
    if not path.exists():
        return
    if path.is_file():  # and no device
        with path.open("rb") as file:
            if mark.encode() in file.read(1 << 16):
                return
    raise UserError(f"{str(path)!r} was not written by elicit and is left alone; give another place")


CHUNK = 1 << 20


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if progress is not None:
                progress(len(chunk))
    return digest.hexdigest()


LOCK, HOLDER = ".lock", ".lock.holder"
STALE = 120.0  # seconds after which a holder on another machine that was not touched is taken for dead


def digest(value: Any) -> str:
    """Eight characters that tell configurations apart."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


@contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """The folder for one process alone.

    The system's lock holds among the processes of one machine, whatever becomes of them. Network disks may not carry it
    to another machine, so the holder writes its host's name beside it and touches that while it lives; times are those
    of the folder's files alone, as clocks of machines differ.

    Raises:
        UserError: another process is doing that there.
    """
    from filelock import FileLock, Timeout

    for name in (LOCK, HOLDER):
        no_link(folder / name)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"another process is {doing} {str(folder)!r}; wait for it") from error
    try:
        _check_holder(folder, doing)
        write_whole(folder / HOLDER, socket.gethostname())
        ended = Event()
        beat = Thread(target=_beat, args=(folder / HOLDER, ended), daemon=True)
        beat.start()
        try:
            yield
        finally:
            ended.set()
            beat.join()
            (folder / HOLDER).unlink(missing_ok=True)
    finally:
        lock.release()


def _check_holder(folder: Path, doing: str) -> None:
    """Refuse a folder that another machine holds.

    Raises:
        UserError: it was touched a short while ago.
    """
    try:
        host = (folder / HOLDER).read_text(encoding="utf-8", errors="replace")
        touched = (folder / HOLDER).stat().st_mtime
    except FileNotFoundError:
        return
    os.utime(folder / LOCK)  # by the clock of the disk
    age = (folder / LOCK).stat().st_mtime - touched
    if host != socket.gethostname() and age < STALE:
        raise UserError(
            f"another machine ({host[:64]!r}) is {doing} {str(folder)!r}, or did {age:.0f} s ago; wait for it, or "
            f"{STALE:.0f} s where it has died"
        )


def _beat(file: Path, ended: Event) -> None:
    while not ended.wait(STALE / 4):
        with suppress(OSError):  # a disk that is away for a moment
            os.utime(file)
