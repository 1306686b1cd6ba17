"""A worker of a sweep whose jobs take a while and come to their own number; run as `python -m tests.support.sleeping`.

python -m tests.support.sleeping FOLDER SECONDS STALE
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elicit.sweeps.folder import Folder
from elicit.sweeps.plan import Job
from elicit.sweeps.worker import work


def jobs(count: int, models: int = 2) -> list[Job]:
    return [Job("run", {"model": f"m{n % models}", "method": "sleep", "number": n}) for n in range(count)]


def main() -> None:
    place, seconds, stale = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])

    def do(job: Job, folder: Path) -> Mapping[str, Any]:
        time.sleep(seconds)
        return {"number": job.given["number"]}

    work(Folder(place, stale), do, poll=0.05)


if __name__ == "__main__":
    main()
