"""`python -m experiments.compatibility.graph`: the graph engine on every type that shares prompts.

python -m experiments.compatibility.graph          # every type of transformers; writes graph.md
python -m experiments.compatibility.graph llama    # these, to stdout

Types that the census decodes with `shared-prefix` come to the engine; the others it leaves to the reference, by name.
Each is built small and random and held to its own forward without a cache, as in the census: ragged prompts, one row
and two a prompt, two prompts at a time of three, pages of four positions, steered and not.

What is found of a type is kept as it is found, so that a run that was stopped goes on; it counts as long as the
engine's code and the libraries are the same.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers

from elicit.decoding.graph import fit
from elicit.decoding.trial import trial_of
from elicit.decoding.trial.checks import tried
from experiments.compatibility.census import TYPES, small
from experiments.compatibility.process import ENDED, apart
from experiments.markdown import markdown
from probes.files import write_whole

HERE = Path(__file__).parent
KEPT = HERE.parents[1] / "build" / "graph-census.json"
CHECKS = {"decoded": False, "steered": True}


@dataclass(frozen=True)
class Found:
    """What came of one type.

    Args:
        type: as `transformers` names it.
        otherwise: why it was not tried; "" where it was.
        decoded, steered: what a check said, beginning with "exact", "WRONG" or "no".
    """

    type: str
    otherwise: str = ""
    decoded: str = ""
    steered: str = ""

    def __str__(self) -> str:
        return self.otherwise or f"decoded {self.decoded}  steered {self.steered}"


def examined(kind: str) -> Found:
    """Build a type and try it."""
    warnings.simplefilter("ignore")
    try:
        lm = small(kind)
    except Exception as error:  # noqa: BLE001  whatever it is, it is told
        return Found(kind, f"cannot be built: {type(error).__name__}")
    if (way := trial_of(lm).first()) != "shared-prefix":
        return Found(kind, f"left to hf: decoded {way or 'in no way'}")
    said = {what: str(tried(lambda on=on: fit.off(lm, steered=on))) for what, on in CHECKS.items()}  # type: ignore[misc]
    return Found(kind, **said)


def basis() -> str:
    """Of what a finding speaks: the versions of the libraries, and a hash over the code that decodes."""
    over = hashlib.sha256()
    for file in sorted(Path(fit.__file__).parents[1].rglob("*.py")):
        over.update(file.read_bytes())
    return f"transformers {transformers.__version__}, torch {torch.__version__}, code {over.hexdigest()[:12]}"


def kept(place: Path, of: str) -> dict[str, Found]:
    """What was found before of the same code."""
    before = json.loads(place.read_text()) if place.exists() else {"basis": ""}
    return {one["type"]: Found(**one) for one in before["found"]} if before["basis"] == of else {}


def page(found: list[Found], of: str) -> str:
    """The table as Markdown."""
    tried_ones = [one for one in found if not one.otherwise]

    def counted(beginning: str) -> list[str]:
        return [str(sum(getattr(one, what).startswith(beginning) for one in tried_ones)) for what in CHECKS]

    tally = [[name, *counted(name)] for name in ("exact", "WRONG", "no")]
    rows = [[one.type, *(getattr(one, what) for what in CHECKS)] for one in tried_ones]
    others: dict[str, list[str]] = {}
    for one in found:
        if one.otherwise:
            others.setdefault(one.otherwise, []).append(f"`{one.type}`")
    return "\n".join(
        [
            "# Which models the graph engine decodes",
            "",
            f"Of {len(found)} types of transformers {len(tried_ones)} are decoded with prompts shared, which is what "
            "the engine does; the others it leaves to `hf`, by name. Each is built small and random from its published "
            "configuration and held to its own forward without a cache: ragged prompts, one row and two a prompt, two "
            "prompts at a time of three, pages of four positions, a vector added at each step and none. *Off* is the "
            f"largest difference of a log-probability. CPU, fp32, seed 3, without CUDA graphs; {of}, "
            f"{datetime.date.today().isoformat()}.",
            "",
            "    python -m experiments.compatibility.graph",
            "",
            markdown(["", *CHECKS], tally),
            "",
            markdown(["type", *CHECKS], rows),
            "",
            "## What is left to `hf`",
            "",
            *(f"- {why}: {', '.join(kinds)}" for why, kinds in sorted(others.items())),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.compatibility.graph", description=__doc__)
    parser.add_argument("types", nargs="*", help="types of transformers; all unless given")
    parser.add_argument("--kept", type=Path, default=KEPT, help="what was found, as JSON; a run goes on from it")
    given = parser.parse_args()
    of = basis()
    known = {} if given.types else kept(given.kept, of)
    for kind in given.types or TYPES:
        if kind not in known:
            known[kind] = apart(examined, kind) or Found(kind, ENDED)
            if not given.types:
                given.kept.parent.mkdir(parents=True, exist_ok=True)
                found = [asdict(one) for one in known.values()]
                write_whole(given.kept, json.dumps({"basis": of, "found": found}, indent=1) + "\n")
        print(f"{kind:28}{known[kind]}", flush=True)
    if not given.types:
        write_whole(HERE / "graph.md", page([known[kind] for kind in TYPES], of))


if __name__ == "__main__":
    main()
