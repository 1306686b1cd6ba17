"""`python -m experiments.compatibility.graph`: the graph engine on every type whose attention can be exchanged.

python -m experiments.compatibility.graph          # every type of transformers
python -m experiments.compatibility.graph llama    # these

Each is built small and random and held to its own forward without a cache, as in the census: ragged prompts, one row
and two a prompt, two prompts at a time of three, pages of four positions, steered and not. Where a type is not exact
the engine leaves it to the reference, by name.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter

from elicit.decoding.cache import supports_shared_prefix
from elicit.decoding.graph.fit import off
from elicit.decoding.trial.checks import tried
from experiments.compatibility.census import TYPES, small
from experiments.compatibility.process import ENDED, apart

CHECKS = {"decoded": False, "steered": True}


def examined(kind: str) -> str:
    """What is found of a type."""
    warnings.simplefilter("ignore")
    try:
        lm = small(kind)
    except Exception as error:  # noqa: BLE001  whatever it is, it is told
        return f"cannot be built: {type(error).__name__}"
    if not supports_shared_prefix(lm):
        return "as hf: its attention cannot be exchanged"
    found = {what: tried(lambda steered=steered: off(lm, steered=steered)) for what, steered in CHECKS.items()}  # type: ignore[misc]
    return "  ".join(f"{what} {one}" for what, one in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.compatibility.graph", description=__doc__)
    parser.add_argument("types", nargs="*", help="types of transformers; all unless given")
    tally: Counter[str] = Counter()
    for kind in parser.parse_args().types or TYPES:
        found = apart(examined, kind) or ENDED
        print(f"{kind:28}{found}", flush=True)
        for what in CHECKS:
            tally[f"{what} exact"] += f"{what} exact" in found
            tally[f"{what} wrong"] += f"{what} WRONG" in found
        tally["as hf"] += found.startswith("as hf")
    print(dict(tally))


if __name__ == "__main__":
    main()
