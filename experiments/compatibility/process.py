"""What is asked of a type of model in a process of its own, so that none takes the others along."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

import torch
import transformers

SECONDS = 60  # of the processor, for a type
ENDED = f"its process ended, after {SECONDS} seconds at most"
Answer = TypeVar("Answer")


def apart(work: Callable[[str], Answer], kind: str) -> Answer | None:
    """What this work says of a type; None where its process ended before.

    Args:
        work: is given the type, on one thread; what it returns is pickled.
        kind: the type.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(work, kind, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        found: Answer | None = ours.recv()
    except EOFError:
        found = None
    child.join()
    return found


def _child(work: Callable[[str], object], kind: str, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    pipe.send(work(kind))
