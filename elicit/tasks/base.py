"""`Task`, `Item`, `Grade`: items with stable ids in three fixed splits, and a grader that proves itself."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from elicit.tasks.answers import Kind, find_answer
from probes.errors import UserError

Split = Literal["fit", "dev", "test"]
SPLITS: tuple[Split, ...] = ("fit", "dev", "test")
# Of a source without splits of its own, this fraction of each split in twentieths: half fit, a fifth dev, the rest
# test.
_TWENTIETHS = (("fit", 10), ("dev", 4), ("test", 6))


@dataclass(frozen=True)
class Item:
    """One question. `id` depends on the source's own id or on the content, never on the order of loading.

    `kind` is the kind of its answer where a task mixes several.
    """

    id: str
    question: str
    answer: str | None
    split: Split
    metadata: dict[str, Any] = field(default_factory=dict)
    kind: Kind | None = None


class Grade(NamedTuple):
    """`score` in [0, 1]; only a full score is right. `unjudged` says why there is no verdict, or is empty: the scorer
    `raised`, it used up its `time` or `memory`, or its process `died`.
    """

    score: float
    unjudged: str = ""

    @property
    def correct(self) -> bool:
        return self.score >= 1.0


@runtime_checkable
class Grader(Protocol):
    """Decides whether an extracted answer is right, and which answers mean the same."""

    def grade(self, item: Item, answer: str | None) -> Grade:
        """No answer scores 0."""
        ...

    def groups(self, answers: Sequence[str]) -> list[int]:
        """For each answer the index of the first answer that is equivalent to it."""
        ...


@dataclass(frozen=True)
class Task:
    """Items in three splits with their grader and the kind of answer to look for."""

    name: str
    items: tuple[Item, ...]
    grader: Grader
    kind: Kind
    source: dict[str, Any]

    def kind_of(self, item: Item) -> Kind:
        return item.kind or self.kind

    @property
    def until(self) -> tuple[str, ...] | None:
        """Where answers end, of a task whose questions are whole prompts; None: they are put into one."""
        until = self.source.get("until")
        return None if until is None else tuple(until)

    def judge(self, item: Item, answer: str | None, text: str) -> Grade:
        """The verdict on an answer that was found in a text; a grader `of_text` judges all of that."""
        return self.grader.grade(item, text if getattr(self.grader, "of_text", False) else answer)

    @property
    def fit(self) -> Items:
        return self.split("fit")

    @property
    def dev(self) -> Items:
        return self.split("dev")

    @property
    def test(self) -> Items:
        return self.split("test")

    @property
    def solved(self) -> Items:
        """The fit items, of which there may be none: what a prompt may show."""
        return Items(self, tuple(item for item in self.items if item.split == "fit"))

    @property
    def all(self) -> Items:
        return Items(self, self.items)

    def split(self, name: str) -> Items:
        """The items of one split, or of all three (`"all"`).

        Raises:
            UserError: an unknown split, or one that holds nothing.
        """
        if name == "all":
            return self.all
        if name not in SPLITS:
            raise UserError(f"unknown split {name!r}; give one of {', '.join(SPLITS)} or all")
        chosen = tuple(item for item in self.items if item.split == name)
        if not chosen:
            raise UserError(f"task {self.name!r} has no {name} items; give another split or all")
        return Items(self, chosen)


@dataclass(frozen=True)
class Items(Sequence[Item]):
    """Some items of a task, together with what grades them."""

    task: Task
    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return Items(self.task, self.items[index]) if isinstance(index, slice) else self.items[index]


def content_id(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()


def split_of(text: str) -> Split:
    """The split of an item whose source has none: from a hash of its text, so it never moves."""
    content = text.encode(errors="surrogatepass")
    bucket = int.from_bytes(hashlib.blake2b(content, digest_size=8, key=b"split").digest(), "big") % 20
    for name, size in _TWENTIETHS:
        if bucket < size:
            return name  # type: ignore[return-value]
        bucket -= size
    raise AssertionError("the fractions of the splits do not add up to 20")


def mixed(items: Sequence[Item], ordered: Collection[str] = ()) -> tuple[Item, ...]:
    """Fit and dev items in the order of a hash of their text, so that the first ones are like all of them, however the
    source is sorted (by subject, by length); test items, and those of the ids `ordered`, in the source's order."""
    place = {split: n for n, split in enumerate(SPLITS)}

    def key(item: Item) -> tuple[int, bytes, str]:
        if item.split == "test" or item.id in ordered:
            return place[item.split], b"", ""
        text = item.question.encode(errors="surrogatepass")
        return place[item.split], hashlib.blake2b(text, digest_size=8, key=b"order").digest(), item.id

    return tuple(sorted(items, key=key))


@dataclass(frozen=True)
class Validation:
    """How a grader treats its own gold answers: items checked, gold right, corrupted gold right; `found`: gold that is
    right too where it is found in a response, the gold alone and one that states it; `lost`: the first that is not.
    `constant`: an answer that is right on at least half of the items whose gold is another, "" where there is none.
    """

    checked: int
    gold_right: int
    corrupted_right: int
    without_gold: int
    found: int
    lost: str = ""
    constant: str = ""

    @property
    def ok(self) -> bool:
        return self.gold_right == self.found == self.checked and self.corrupted_right == 0 and not self.constant


def validate(items: Items, limit: int = 16) -> Validation:
    """Grade gold and corrupted gold of the first items: gold must score 1, also as a model would say it, and corrupted
    gold must not, nor one answer on items of other golds."""
    grader = items.task.grader
    gold = [item for item in items.items[:limit] if item.answer is not None]
    lost = [item.answer or "" for item in gold if not is_found(item, grader, items.task.kind_of(item))]
    return Validation(
        found=len(gold) - len(lost),
        lost=lost[0] if lost else "",
        checked=len(gold),
        gold_right=sum(grader.grade(item, item.answer).correct for item in gold),
        corrupted_right=sum(grader.grade(item, corrupt(item.answer or "")).correct for item in gold),
        without_gold=len(items.items[:limit]) - len(gold),
        constant=_constant(gold, grader),
    )


def _constant(gold: Sequence[Item], grader: Grader) -> str:
    """One answer that is right on at least half of the items whose gold is another, and on two at least; or ""."""
    golds = list(dict.fromkeys(item.answer or "" for item in gold))
    for answer in dict.fromkeys(["0", *golds[:2]]):
        others = [item for item in gold if not _same(answer, item.answer or "")]
        right = sum(grader.grade(item, answer).correct for item in others)
        if right >= max(2, len(others) / 2):
            return answer
    return ""


def _same(one: str, other: str) -> bool:
    """Whether two answers are the same text or number."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one.strip().casefold() == other.strip().casefold()


def is_found(item: Item, grader: Grader, kind: Kind) -> bool:
    """Whether an item's gold answer is found and right in a response that is the gold alone, and in one that states it:
    in a sentence, or in `<answer>` tags where an answer is a whole response."""
    gold = item.answer or ""
    ended = gold if gold.endswith((".", "!", "?")) else f"{gold}."
    stated = f"<answer>{gold}</answer>" if kind in ("code", "whole") else f"The answer is {ended}"
    found = [find_answer(response, kind) for response in (gold, stated)]
    return all(answer is not None and grader.grade(item, answer.text).correct for answer in found)


def check_grader(items: Items, found: Validation) -> None:
    """Refuse a task that does not prove itself.

    Raises:
        UserError: gold that it does not grade as correct, corrupted gold or one answer to all that it does, or gold
            that is not found.
    """
    if found.found < found.gold_right == found.checked:
        raise UserError(
            f"of {found.checked} gold answers of {items.task.name!r} {found.checked - found.found} are not found in "
            f"responses that give them, like {found.lost[:60]!r}, so that no model could be right; give their kind "
            "(kind=whole takes all of a response), or use another task"
        )
    if found.constant:
        raise UserError(
            f"the grader of {items.task.name!r} is not to be trusted: {found.constant[:60]!r} is right on most "
            "questions that have another answer; use another task"
        )
    if not found.ok:
        raise UserError(
            f"the grader of {items.task.name!r} is not to be trusted: of {found.checked} gold answers it grades "
            f"{found.gold_right} as correct, of as many corrupted ones {found.corrupted_right}; use another task"
        )


def corrupt(gold: str) -> str:
    """A wrong answer of the same form: its last digit moved by one, its truth value or letter exchanged,
    or its last symbol dropped."""
    if not gold:
        return "none"
    flips = {"true": "False", "false": "True", "yes": "No", "no": "Yes"}
    if gold.strip().lower() in flips:
        return flips[gold.strip().lower()]
    for place in range(len(gold)):
        if gold[place].isdecimal():  # the first digit, the one that weighs most; ² and ① are digits of another kind
            return gold[:place] + str(int(gold[place]) % 9 + 1) + gold[place + 1 :]
    core = gold.strip(".() ")  # a grader may pass over these
    if len(core) == 1:
        return "B" if core.upper() == "A" else "A"
    words = gold.split()
    return " ".join(words[:-1]) if len(words) > 1 else (core or gold)[:-1]
