"""GSM8K, MATH-500, MultiArith and AIME from the hub, at pinned splits.

The published test sets are `test`. Where a benchmark has training problems they are cut into `fit` and
`dev` by a hash of their text; the AIME years before the tested ones serve as fit and dev.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from elicit.tasks.answers import KINDS, Kind, find_boxed
from elicit.tasks.base import Item, Split, Task, content_id, split_of
from elicit.tasks.grading import check_kind, grader_for
from probes.errors import UserError


@dataclass(frozen=True)
class Part:
    """One split of one hub data set: which of our splits it feeds (None: fit and dev, by hash)."""

    repo: str
    config: str | None
    split: str
    into: Split | None
    read: Callable[[dict[str, Any]], tuple[str, str] | None]


@dataclass(frozen=True)
class HubTask:
    summary: str
    kind: Kind
    parts: tuple[Part, ...]


def _gsm8k(row: dict[str, Any]) -> tuple[str, str]:
    return row["question"], row["answer"].rpartition("####")[2].strip()


def _multiarith(row: dict[str, Any]) -> tuple[str, str]:
    return row["question"].strip(), str(row["final_ans"]).strip()


def _math_500(row: dict[str, Any]) -> tuple[str, str]:
    return row["problem"], row["answer"]


def _math_train(row: dict[str, Any]) -> tuple[str, str] | None:
    boxed = find_boxed(row["solution"])
    return (row["problem"], boxed.text) if boxed else None


def _aime(row: dict[str, Any]) -> tuple[str, str]:
    return row["problem"], str(int(row["answer"]))


def _aime_of(year: str) -> Callable[[dict[str, Any]], tuple[str, str] | None]:
    def read(row: dict[str, Any]) -> tuple[str, str] | None:
        found = re.search(r"(20\d\d)_AIME", row["url"])
        return _aime(row) if found and found.group(1) == year else None

    return read


_MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
_OLD_AIME = (
    Part("AI-MO/aimo-validation-aime", None, "train", "fit", _aime_of("2022")),
    Part("AI-MO/aimo-validation-aime", None, "train", "dev", _aime_of("2023")),
)

TASKS: dict[str, HubTask] = {
    "gsm8k": HubTask(
        "grade-school word problems (Cobbe et al. 2021)",
        "number",
        (
            Part("openai/gsm8k", "main", "train", None, _gsm8k),
            Part("openai/gsm8k", "main", "test", "test", _gsm8k),
        ),
    ),
    "multiarith": HubTask(
        "two-step arithmetic word problems (Roy and Roth 2015)",
        "number",
        (
            Part("ChilleD/MultiArith", None, "train", None, _multiarith),
            Part("ChilleD/MultiArith", None, "test", "test", _multiarith),
        ),
    ),
    "math-500": HubTask(
        "500 competition problems of MATH (Lightman et al. 2023)",
        "math",
        (
            *(Part("EleutherAI/hendrycks_math", s, "train", None, _math_train) for s in _MATH_SUBJECTS),
            Part("HuggingFaceH4/MATH-500", None, "test", "test", _math_500),
        ),
    ),
    "aime24": HubTask(
        "AIME 2024, 30 problems",
        "number",
        (*_OLD_AIME, Part("HuggingFaceH4/aime_2024", None, "train", "test", _aime)),
    ),
    "aime25": HubTask(
        "AIME 2025, 30 problems",
        "number",
        (*_OLD_AIME, Part("math-ai/aime25", None, "test", "test", _aime)),
    ),
}


def load(name: str, params: dict[str, Any]) -> Task:
    """Read a benchmark from the hub (or its cache on this machine); `kind=` sets another kind of answer.

    Raises:
        UserError: another parameter, an unknown kind, or the hub cannot be reached.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    unknown_keys = set(params) - {"kind"}
    if unknown_keys:
        raise UserError(f"task {name!r} has no parameter {sorted(unknown_keys)[0]!r}; it has kind")
    task = TASKS[name]
    kind = params.get("kind", task.kind)
    check_kind(kind, KINDS)
    items: list[Item] = []
    seen: set[str] = set()
    for part in task.parts:
        try:
            rows = load_dataset(part.repo, part.config, split=part.split)
        except (ConnectionError, DatasetsError, HfHubHTTPError, OSError) as error:
            raise UserError(
                f"task {name!r}: data set {part.repo} is not on this machine and the hub could not be reached "
                f"({type(error).__name__}); connect to a network, or give a JSON Lines file as --task"
            ) from error
        for index, row in enumerate(rows):
            pair = part.read(dict(row))
            if pair is None or content_id(pair[0]) in seen:
                continue
            question, answer = pair
            seen.add(content_id(question))
            items.append(
                Item(f"{name}-{content_id(question)}", question, answer, _place(part, question), {"row": index})
            )
    source = {"family": "hub", "repos": sorted({part.repo for part in task.parts})}
    return Task(name, tuple(items), grader_for(kind), kind, source)


def _place(part: Part, question: str) -> Split:
    if part.into is not None:
        return part.into
    return "dev" if split_of(question) == "dev" else "fit"
