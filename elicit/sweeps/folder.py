"""A sweep's folder: what is to be done, who does it, and what is done.

    jobs.json         the jobs, in order of model; written last, by `elicit sweep plan`
    lease/KEY         linked into place by the worker that does a job, and touched while it lives
    dead/KEY-…        leases that were taken over from workers that died
    done/KEY.json     what came out, linked into place whole: a job is finished once, whoever else finishes it too
    failed/KEY.json   jobs that were refused, and those that are set aside since their worker died twice
    again/KEY-…       work that was done a second time
    runs/KEY          the run's own folder, in which whoever takes a job over resumes it

A lease is stale when it was not touched for `stale` seconds by the clock of the *folder*: workers compare the times of
files there, and never a file's time with a clock of their own. On a network disk, whose attributes are cached, `stale`
should be a minute or more.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from elicit.sweeps.plan import Job
from probes.errors import GARBLED, UserError
from probes.files import make_folder, read_json, write_whole

STALE = 120.0
DEATHS = 2  # of workers, after which a job is set aside
PARTS = ("lease", "dead", "done", "failed", "again", "runs")


@dataclass(eq=False)
class Lease:
    """A job that is being done here. `lost`: somebody else took it over, as this worker was silent for too long."""

    path: Path
    token: str
    lost: bool = False
    _ended: Event = field(default_factory=Event, repr=False)

    @property
    def mine(self) -> bool:
        try:
            found: bool = json.loads(self.path.read_text(encoding="utf-8"))["token"] == self.token
        except (OSError, *GARBLED):
            return False
        return found

    @contextmanager
    def alive(self, every: float) -> Iterator[None]:
        """Touch it meanwhile."""

        def beat() -> None:
            while not self._ended.wait(every):
                if not self.mine:
                    self.lost = True
                    return
                with suppress(FileNotFoundError):
                    os.utime(self.path)

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def drop(self) -> None:
        """Let others do it."""
        if self.mine:
            self.path.unlink(missing_ok=True)


class Folder:
    """A folder that was planned.

    Args:
        path: of it.
        stale: seconds after which a lease that nobody touched may be taken over.

    Raises:
        UserError: no sweep, one that is cut or that cannot be written to.
    """

    def __init__(self, path: Path, stale: float = STALE) -> None:
        self.path, self.stale = path, stale
        self._held: Lease | None = None  # what was claimed last
        try:
            data = json.loads((path / "jobs.json").read_text(encoding="utf-8"))
            self.jobs = [Job(one["kind"], one["given"], tuple(one["needs"])) for one in data["jobs"]]
            keys = [str(one["key"]) for one in data["jobs"]]
            changed = [key for key, job in zip(keys, self.jobs, strict=True) if key != job.key]
        except FileNotFoundError as error:
            raise UserError(f"{str(path)!r} holds no sweep; make one with elicit sweep plan FILE") from error
        except GARBLED as error:
            raise UserError(f"the jobs in {str(path)!r} cannot be read ({error}); plan the sweep again") from error
        if changed:
            raise UserError(f"job {changed[0]} in {str(path)!r} was changed after it was planned; plan the sweep again")
        self.by_key = dict(zip(keys, self.jobs, strict=True))
        self._clock = path / "lease" / f".clock-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    @staticmethod
    def plan(path: Path, jobs: Sequence[Job]) -> Folder:
        """Write the jobs; the same plan may be written again.

        Raises:
            UserError: the folder holds another sweep.
        """
        make_folder(path)
        described = json.dumps({"jobs": [job.to_dict() for job in jobs]}, indent=1)
        if (path / "jobs.json").is_file() and (path / "jobs.json").read_text(encoding="utf-8") != described:
            raise UserError(f"{str(path)!r} holds another sweep; give another folder")
        for part in PARTS:
            make_folder(path / part)
        write_whole(path / "jobs.json", described)
        return Folder(path)

    def check_writable(self) -> None:
        """Refuse a folder that no lease can be made in.

        Raises:
            UserError: that.
        """
        try:
            self._now()
        except OSError as error:
            raise UserError(
                f"no lease can be made in {str(self.path)!r} ({error.strerror}); give the right to write"
            ) from error

    def close(self) -> None:
        """Drop what is held."""
        if self._held is not None:
            self._held.drop()
        self._clock.unlink(missing_ok=True)

    def run_folder(self, key: str) -> Path:
        return self.path / "runs" / key

    def done(self, key: str) -> bool:
        return (self.path / "done" / f"{key}.json").is_file()

    def failed(self, key: str) -> bool:
        return (self.path / "failed" / f"{key}.json").is_file()

    def ready(self, job: Job) -> bool:
        """Whether all that it needs is done."""
        return all(self.done(key) for key in job.needs)

    def hopeless(self, job: Job) -> bool:
        """Whether something that it needs has failed."""
        return any(self.failed(key) for key in job.needs)

    def claim(self, key: str) -> Lease | None:
        """The lease of a job, unless it is done, failed or held by a worker that lives."""
        if self.done(key) or self.failed(key):
            return None
        path, token = self.path / "lease" / key, uuid.uuid4().hex
        if path.exists() and not self._take_over(key, path):
            return None
        part = path.with_name(f".{key}-{token}")
        self._held = Lease(path, token)  # from here on an interruption drops it
        try:
            part.write_text(json.dumps({"token": token, "host": socket.gethostname(), "pid": os.getpid()}))
            os.link(part, path)  # one of several succeeds, and what it says is whole
        except FileExistsError:
            return None
        finally:
            part.unlink(missing_ok=True)
        if self.done(key):  # by another, between the look and the lease
            self._held.drop()
            return None
        return self._held

    def _take_over(self, key: str, path: Path) -> bool:
        """Move a stale lease out of the way; whether the job may be leased now.

        One worker at a time looks and moves, so that none moves a lease that began meanwhile. The lock goes with its
        process.
        """
        from filelock import FileLock, Timeout

        if not self._stale(path):
            return not path.exists()
        try:
            with FileLock(self.path / "lease" / ".taking-over", timeout=0):
                if not self._stale(path):
                    return not path.exists()
                path.rename(self.path / "dead" / f"{key}-{uuid.uuid4().hex[:8]}")
                deaths = len(list((self.path / "dead").glob(f"{key}-*")))
                if deaths >= DEATHS:
                    why = f"its worker died {deaths} times, for want of memory perhaps"
                    self.fail(key, f"{why}; run it by itself to see why")
                    return False
                return True
        except (Timeout, FileNotFoundError):  # another is at it, or its worker has just ended
            return False

    def _stale(self, path: Path) -> bool:
        try:
            touched = path.stat().st_mtime
        except FileNotFoundError:
            return False
        return self._now() - touched >= self.stale

    def _now(self) -> float:
        """The time as the folder's files have it."""
        self._clock.write_bytes(b"")
        return self._clock.stat().st_mtime

    def finish(self, lease: Lease, key: str, result: Mapping[str, Any]) -> bool:
        """Keep what came out; false where another had finished it before, which is counted."""
        place = self.path / "done" / f"{key}.json"
        part = place.with_name(f".{key}-{lease.token}")
        try:
            part.write_text(json.dumps(dict(result), indent=1), encoding="utf-8")
            os.link(part, place)
            first = True
        except FileExistsError:
            first = False
            (self.path / "again" / f"{key}-{lease.token[:8]}").write_text(json.dumps(dict(result)), encoding="utf-8")
        finally:
            part.unlink(missing_ok=True)
            lease.drop()
        return first

    def fail(self, key: str, told: str) -> None:
        """Set a job aside, with the reason."""
        write_whole(self.path / "failed" / f"{key}.json", json.dumps({"error": told}))

    def results(self) -> dict[str, dict[str, Any]]:
        """Of each job that is done what came out, in the order of the jobs."""
        return self._read("done")

    def failures(self) -> dict[str, str]:
        """Of each job that is set aside why."""
        return {key: str(found["error"]) for key, found in self._read("failed").items()}

    def _read(self, part: str) -> dict[str, dict[str, Any]]:
        there = {path.stem for path in (self.path / part).glob("[!.]*.json")}
        files = {key: self.path / part / f"{key}.json" for key in self.by_key if key in there}
        return {key: read_json(file, "remove it, and the job is done again") for key, file in files.items()}

    def counts(self) -> dict[str, int]:
        """How many jobs are in which state; `again` is work that was done twice, `died` workers that were replaced."""
        done, failed = self._names("done"), self._names("failed")
        running = self._names("lease") - done - failed
        return {
            "jobs": len(self.jobs), "done": len(done), "running": len(running), "failed": len(failed),
            "waiting": len(self.by_key.keys() - done - failed - running),
            "again": len(self._names("again")), "died": len(self._names("dead")),
        }  # fmt: skip

    def _names(self, part: str) -> set[str]:
        return {name.removesuffix(".json") for name in os.listdir(self.path / part) if not name.startswith(".")}
