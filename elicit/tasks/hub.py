"""GSM8K, MATH-500, MultiArith, AIME, AMC, Minerva, OlympiadBench and DSR-sub from the hub, at pinned splits.

The published test sets are `test`, whole and in their order. Where a benchmark has training problems they are cut into
`fit` and `dev` by a hash of their text, in an order of their own (`base.mixed`), without those that the test set holds;
the AIME years before the tested ones serve as fit and dev. `subject` and `level` are kept where the source has them.

`pi1` is the one example of arXiv 2504.20571 (table 2) and needs no network: a task by itself, and by name an example
for `one-shot-rlvr` on other tasks. Its label is that of the source; the true answer is 12.7.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from elicit.tasks.answers import KINDS, Kind, find_boxed
from elicit.tasks.base import Item, Split, Task, content_id, mixed, split_of
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


def _answered(row: dict[str, Any]) -> tuple[str, str]:
    answer = row["answer"]
    whole = isinstance(answer, float) and answer.is_integer()
    return row["question"].strip(), str(int(answer) if whole else answer).strip()


def _olympiad(row: dict[str, Any]) -> tuple[str, str] | None:
    answers = [answer.strip().strip("$").strip() for answer in row["final_answer"] or ()]
    return (row["question"].strip(), ", ".join(answers)) if any(answers) else None


def _dsr(row: dict[str, Any]) -> tuple[str, str]:
    return row["prompt"][-1]["content"].strip(), str(row["reward_model"]["ground_truth"]).strip()


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

_MATH_500 = Part("HuggingFaceH4/MATH-500", None, "test", "test", _math_500)
_MATH_TRAIN = tuple(Part("EleutherAI/hendrycks_math", s, "train", None, _math_train) for s in _MATH_SUBJECTS)

PI1 = Item(
    "pi1",
    "The pressure \\( P \\) exerted by wind on a sail varies jointly as the area \\( A \\) of the sail and the cube of "
    "the wind's velocity \\( V \\). When the velocity is \\( 8 \\) miles per hour, the pressure on a sail of \\( 2 \\) "
    "square feet is \\( 4 \\) pounds. Find the wind velocity when the pressure on \\( 4 \\) square feet of sail is "
    "\\( 32 \\) pounds. Let's think step by step and output the final answer within \\boxed{}.",
    "12.8",
    "fit",
    kind="math",
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
        (*_MATH_TRAIN, _MATH_500),
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
    "amc23": HubTask(
        "AMC 12 of 2023, 40 problems; fit and dev are MATH's",
        "number",
        (*_MATH_TRAIN, Part("math-ai/amc23", None, "test", "test", _answered)),
    ),
    "minerva": HubTask(
        "272 university problems (Lewkowycz et al. 2022); fit and dev are MATH's",
        "math",
        (*_MATH_TRAIN, Part("math-ai/minervamath", None, "test", "test", _answered)),
    ),
    "olympiadbench": HubTask(
        "English text problems of OlympiadBench's mathematics (He et al. 2024); fit and dev are MATH's",
        "math",
        (*_MATH_TRAIN, Part("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train", "test", _olympiad)),
    ),
    "dsr-sub": HubTask(
        "the 1,209 problems of one-shot RLVR (Wang et al. 2025) to fit on; the test set is MATH-500",
        "math",
        (Part("ypwang61/One-Shot-RLVR-Datasets", None, "dsr_sub", None, _dsr), _MATH_500),
    ),
    "pi1": HubTask("the one example of one-shot RLVR (Wang et al. 2025), to fit on", "math", ()),
}


def load(name: str, params: dict[str, Any]) -> Task:
    """Read a benchmark from the hub (or its cache on this machine); `kind=` sets another kind of answer.

    Returns:
        The task; its `source` counts the training problems that were left out since the test set holds them.

    Raises:
        UserError: another parameter, an unknown kind, or the hub cannot be reached.
    """
    unknown_keys = set(params) - {"kind"}
    if unknown_keys:
        raise UserError(f"task {name!r} has no parameter {sorted(unknown_keys)[0]!r}; it has kind")
    task = TASKS[name]
    kind = params.get("kind", task.kind)
    check_kind(kind, KINDS)
    if name == PI1.id:
        return Task(name, (PI1,), grader_for(kind), kind, {"family": "published"})
    tested = [part for part in task.parts if part.into == "test"]
    items = [item for part in tested for item in _read(name, part)]
    repeated = Counter(item.id for item in items)
    seen: Counter[str] = Counter()
    for n, item in enumerate(items):  # the published set is whole, also where it asks a question twice
        seen[item.id] += 1
        if repeated[item.id] > 1:
            items[n] = replace(item, id=f"{item.id}-{seen[item.id]}")
    others = {item.id: item for part in task.parts if part not in tested for item in _read(name, part)}
    kept = [item for item in others.values() if item.id not in repeated]
    source: dict[str, Any] = {"family": "hub", "repos": sorted({part.repo for part in task.parts})}
    if len(kept) < len(others):
        source["left_out_of_fit"] = len(others) - len(kept)
    return Task(name, mixed([*kept, *items]), grader_for(kind), kind, source)


def _read(name: str, part: Part) -> list[Item]:
    """The items of one part, in its order."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        rows = load_dataset(part.repo, part.config, split=part.split)
    except (ConnectionError, DatasetsError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"task {name!r}: data set {part.repo} is not on this machine and the hub could not be reached "
            f"({type(error).__name__}); connect to a network, or give a JSON Lines file as --task"
        ) from error
    out = []
    for index, row in enumerate(map(dict, rows)):
        pair = part.read(row)
        if pair is not None:
            question, answer = pair
            about = {"row": index, **about_problem(row)}
            out.append(Item(f"{name}-{content_id(question)}", question, answer, _place(part, question), about))
    return out


def about_problem(row: dict[str, Any]) -> dict[str, Any]:
    """A problem's subject and level, whatever its source calls them; "Level 5" is 5."""
    subject = next((row[key] for key in ("subject", "type", "subfield") if isinstance(row.get(key), str)), "")
    level = re.search(r"\d+", str(row.get("level") or ""))
    return {**({"subject": subject} if subject else {}), **({"level": int(level.group())} if level else {})}


def _place(part: Part, question: str) -> Split:
    if part.into is not None:
        return part.into
    return "dev" if split_of(question) == "dev" else "fit"
