"""`python -m experiments.compatibility.graph`: the graph engine on every type whose attention can be exchanged.

python -m experiments.compatibility.graph          # every type of transformers
python -m experiments.compatibility.graph llama    # these

Each is built small and random and held to its own forward without a cache, as in the census: ragged prompts, one row
and two a prompt, two prompts at a time of three, pages of four positions, steered and not. Where a type is not exact
the engine leaves it to the reference, by name.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import warnings
from collections import Counter
from multiprocessing.connection import Connection

import torch
import transformers

from elicit.decoding.cache import supports_shared_prefix
from elicit.decoding.graph.fit import off
from elicit.decoding.trial.checks import tried
from experiments.compatibility.census import TYPES, small

SECONDS = 60  # of the processor, for a type


def _child(kind: str, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    try:
        lm = small(kind)
    except Exception as error:  # noqa: BLE001  whatever it is, it is told
        pipe.send(f"cannot be built: {type(error).__name__}")
        return
    if not supports_shared_prefix(lm):
        pipe.send("as hf: its attention cannot be exchanged")
        return
    found = {what: tried(lambda steered=steered: off(lm, steered=steered)) for what, steered in CHECKS.items()}  # type: ignore[misc]
    pipe.send("  ".join(f"{what} {one}" for what, one in found.items()))


CHECKS = {"decoded": False, "steered": True}


def alone(kind: str) -> str:
    """What is found of a type, in a process of its own with a limit of time."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(kind, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        found: str = ours.recv()
    except EOFError:
        found = f"its process ended, after {SECONDS} seconds at most"
    child.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.compatibility.graph", description=__doc__)
    parser.add_argument("types", nargs="*", help="types of transformers; all unless given")
    tally: Counter[str] = Counter()
    for kind in parser.parse_args().types or TYPES:
        found = alone(kind)
        print(f"{kind:28}{found}", flush=True)
        for what in CHECKS:
            tally[f"{what} exact"] += f"{what} exact" in found
            tally[f"{what} wrong"] += f"{what} WRONG" in found
        tally["as hf"] += found.startswith("as hf")
    print(dict(tally))


if __name__ == "__main__":
    main()
