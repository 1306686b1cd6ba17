"""What a worker does: it leases a job, does it, and goes on until nothing is left that it could do."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from elicit.sweeps.folder import Folder, Lease
from elicit.sweeps.plan import Job
from probes.errors import UserError
from probes.files import no_room

Do = Callable[[Job, Any], Mapping[str, Any]]
"""Does a job in the folder that it is given, and says what came out."""
BUSY = "another process is"  # what a run's folder says while it is written to


def work(
    folder: Folder, do: Do, *, poll: float = 2.0, told: Callable[[str], None] = lambda line: None
) -> dict[str, int]:
    """Do jobs until all are done, failed or in the hands of workers that live.

    Jobs of the model that was loaded last come first. A job that is refused (`UserError`) or fails is set aside with
    the reason, and the others go on. An interruption lets its job go to others; so does a disk that is full, which
    ends this worker: no job is to blame for it.

    Args:
        folder: of the sweep.
        do: does one job.
        poll: seconds between two looks while others hold what is left.
        told: is given a line for each job.

    Returns:
        How many jobs this worker did, how many of them somebody had done already, and how many failed.

    Raises:
        UserError: no room to write.
    """
    folder.check_writable()
    counts = {"done": 0, "again": 0, "failed": 0}
    model = ""
    left = list(folder.jobs)
    try:
        while left:
            went_on, gone = False, set()
            for job in sorted(left, key=lambda one: one.model != model):  # stable: else in the order of the jobs
                key = job.key
                if folder.done(key) or folder.failed(key):
                    gone.add(key)
                    continue
                if folder.hopeless(job):
                    folder.fail(key, "a job that it needs has failed")
                    continue
                try:
                    lease = folder.claim(key) if folder.ready(job) else None
                    if lease is None:
                        continue
                    state = _one(folder, job, lease, do)
                except Exception as error:
                    if no_room(error):
                        raise UserError(
                            f"no room to write in {str(folder.path)!r}, at job {key}, which is left to be done; make "
                            "room and work on the sweep again"
                        ) from error
                    raise
                if state:
                    counts[state] += 1
                    told(f"{state} {key} {job.kind} {job.given.get('method') or job.given.get('name')}")
                    went_on = True
                    gone.add(key)
                    if job.model != model:
                        model = job.model
                        break  # its other jobs first
            left = [job for job in left if job.key not in gone]
            if left and not went_on:
                time.sleep(poll)
    finally:
        folder.close()
    return counts


def _one(folder: Folder, job: Job, lease: Lease, do: Do) -> str:
    """Do one job; "" where somebody else is at it."""
    key, begun = job.key, time.time()
    try:
        with lease.alive(folder.stale / 4):
            found = dict(do(job, folder.run_folder(key)))
    except Exception as error:
        if no_room(error):
            lease.drop()
            raise
        told = str(error) if isinstance(error, UserError) else traceback.format_exc(limit=-3)
        if isinstance(error, UserError) and BUSY in str(error):  # who was thought dead still writes there
            lease.drop()
            return ""
        folder.fail(key, told)  # the others go on
        lease.drop()
        return "failed"
    except BaseException:  # an interruption
        lease.drop()
        raise
    worker = f"{socket.gethostname()} {os.getpid()}"
    about = {"seconds": time.time() - begun, "worker": worker, **found}
    return "done" if folder.finish(lease, key, about) else "again"
