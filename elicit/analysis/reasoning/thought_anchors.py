"""Which sentences of a thought decide its answer: each resampled from, with it and without it (arXiv 2506.19143).

The thought is kept up to a sentence and the handle continues freely, `samples` times; once with the sentence, once
without, so that it is free to say something else there. Of each sentence:

    importance = ½ Σ_a | p(a | kept with it) − p(a | kept without it) |

the total variation between the two distributions of final answers, no answer being one of them; and the difference of
the fractions of right answers. A sentence of great importance is an anchor.

Two handfuls of samples of one distribution differ as well, the more so the fewer they are. Null: both are pooled and
split into random halves, as large as they were. Read `beyond`, importance less the null's mean, which is 0 where the
sentence does nothing.

Departures: total variation, which is finite where an answer was never drawn, instead of the KL divergence; a sentence
that is drawn again in the same or other words counts (the paper's counterfactual importance leaves those out), so that
what is overdetermined is no anchor. Premature confidence is what `commitment` measures, and forking tokens stand in
`where-it-acts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from elicit.analysis.base import Analysis, plain, shown, with_left_out
from elicit.analysis.continuations import continuations, each_thinking
from elicit.decoding.decoders import Sampling
from elicit.elicited import Elicited
from elicit.evaluation.run.arms import arms_of, model_of, questions
from elicit.evaluation.run.run import Run
from elicit.tasks.base import Items
from probes.dots import Dot, dot_plot
from probes.errors import UserError
from probes.offsets import decoded
from probes.statistics import Interval, against_null, bootstrap_mean, holm
from steering.categories.segments import segment

NAME = "thought-anchors"
SUMMARY = (
    "which sentences of a chain of thought decide its answer: resampled with and without each, beside split halves"
)
PAPER = "2506.19143"
PLACES = ("first", "middle", "last")
DRAWS = 1000
LENGTH = 48  # characters of a sentence in a figure


@dataclass(frozen=True)
class Anchor:
    """One sentence of a thought.

    Args:
        item: the question's id.
        number, of: which sentence, and of how many.
        text: what it says.
        importance: the total variation between the answers with it and without.
        null: the same in the mean over random halves of all of them.
        p: the chance of halves that differ as much; Holm's, over the sentences of its thought.
        accuracy: the fraction of right answers with it, less that without.
    """

    item: str
    number: int
    of: int
    text: str
    importance: float
    null: float
    p: float
    accuracy: float

    @property
    def place(self) -> str:
        """One of `PLACES`; an only sentence is the first."""
        return PLACES[0] if self.number == 0 else PLACES[2] if self.number == self.of - 1 else PLACES[1]


def variation(one: Int[np.ndarray, "*draws n"], other: Int[np.ndarray, "*draws n"]) -> Float[np.ndarray, "*draws"]:
    """The total variation between two equally large samples of classes 0, 1, …"""
    classes = np.arange(int(max(one.max(), other.max())) + 1)
    counts = [(some[..., None] == classes).sum(-2) for some in (one, other)]
    return np.asarray(np.abs(counts[0] - counts[1]).sum(-1) / (2 * one.shape[-1]))


def halves(
    one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"], rng: np.random.Generator
) -> tuple[float, float, float]:
    """The variation of two samples, its mean over random halves of both together, and the chance of as much there."""
    value = float(variation(one, other))
    pooled = rng.permuted(np.tile(np.r_[one, other], (DRAWS, 1)), axis=1)
    null = against_null(value, variation(pooled[:, : len(one)], pooled[:, len(one) :]), greater=True)
    return value, null.mean, null.p


def chosen(count: int, most: int) -> list[int]:
    """Which of so many sentences are looked at: all of them, or `most` from the first to the last, evenly."""
    return sorted({round(n) for n in np.linspace(0, count - 1, min(count, most))})


def anchors(
    handle: Elicited,
    items: Items,
    thoughts: Sequence[Sequence[int]],
    *,
    samples: int = 20,
    sentences: int = 12,
    temperature: float = 0.7,
    seed: int = 0,
) -> list[Anchor]:
    """The sentences of thoughts with their importance.

    Args:
        handle: whose thoughts they are.
        items: the questions.
        thoughts: tokens of each.
        samples: how often the handle continues from each place.
        sentences: at most so many of a thought.
        temperature: of the samples.
        seed: of samples and halves.

    Raises:
        UserError: no thought, an empty one, fewer than two samples, no sentence.
    """
    if not len(items) or not all(len(thought) for thought in thoughts):
        raise UserError(f"{len(items)} thoughts were given, empty ones among them or not; give one that says something")
    if samples < 2 or sentences < 1:
        raise UserError(f"samples {samples} and sentences {sentences} were given; give at least 2 and 1")
    tokenizer, grader = handle.model.tokenizer, items.task.grader
    spans = [segment(tokenizer, thought) for thought in thoughts]
    looked = [chosen(len(those), sentences) for those in spans]
    said = _rollouts(handle, items, thoughts, spans, looked, samples, temperature, seed)
    rng = np.random.default_rng(seed)
    out = []
    for n, item in enumerate(items):
        answers = [answer for place in said[n].values() for answer in place]
        known = list(dict.fromkeys(answer for answer in answers if answer is not None))
        same = dict(zip(known, grader.groups(known), strict=True))
        classes = {k: np.array([len(known) if a is None else same[a] for a in place]) for k, place in said[n].items()}
        right: dict[int, Bool[np.ndarray, " samples"]] = {
            k: np.array([grader.grade(item, a).correct for a in place]) for k, place in said[n].items()
        }
        found = [halves(classes[k], classes[k + 1], rng) for k in looked[n]]
        adjusted = holm([p for _, _, p in found])
        for k, (value, null, _), p in zip(looked[n], found, adjusted, strict=True):
            text = decoded(tokenizer, thoughts[n][slice(*spans[n][k])]).strip()
            gain = float(right[k + 1].mean() - right[k].mean())
            out.append(Anchor(item.id, k, len(spans[n]), text, value, null, p, gain))
    return out


def _rollouts(
    handle: Elicited,
    items: Items,
    thoughts: Sequence[Sequence[int]],
    spans: Sequence[Sequence[tuple[int, int]]],
    looked: Sequence[Sequence[int]],
    samples: int,
    temperature: float,
    seed: int,
) -> list[dict[int, list[str | None]]]:
    """Of each thought the answers after its first k sentences, for each k that is needed."""
    ends = [[0, *(last for _, last in those)] for those in spans]
    needed = [{k + more for k in some for more in (0, 1)} for some in looked]
    out: list[dict[int, list[str | None]]] = [{} for _ in thoughts]
    for k in sorted(set().union(*needed)):
        # Places have streams of their own: with common random numbers their samples would not be independent.
        decoder = Sampling(
            samples, temperature, seed=seed, max_new_tokens=handle.decoder.max_new_tokens, first_sample=k * samples
        )
        rows = [n for n, some in enumerate(needed) if k in some]
        begun = [list(thoughts[n])[: ends[n][k]] for n in rows]
        some = Items(items.task, tuple(items[n] for n in rows))
        for n, answers in zip(rows, continuations(handle, some, begun, decoder), strict=True):
            out[n][k] = answers
    return out


def analyse(
    runs: Sequence[Run],
    *,
    limit: int = 16,
    samples: int = 20,
    sentences: int = 12,
    temperature: float = 0.7,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """The importance of sentences in every arm that has thoughts.

    Args:
        runs: of one model on the same items.
        limit: of the items; 0 for all.
        samples: how often the handle continues from each place.
        sentences: at most so many of a thought, evenly.
        temperature: of the samples.
        seed: of samples, halves and bootstrap.

    Raises:
        UserError: runs that do not go together, no arm with thoughts.
    """
    arms = arms_of(runs)
    asked = questions(arms, limit)
    model = model_of(runs)
    found: dict[str, list[Anchor]] = {}
    left_out: dict[str, str] = {}
    for name, some in each_thinking(NAME, arms, model, asked, progress):
        if isinstance(some, str):
            left_out[name] = some
            continue
        found[name] = anchors(
            some.handle, some.items, [trace.chain_of_thought for trace in some.traces], samples=samples,
            sentences=sentences, temperature=temperature, seed=seed,
        )  # fmt: skip
    rows = [(name, place, some) for name, all_of in found.items() for place, some in _by_place(all_of)]
    table = [_row(name, place, some, seed) for name, place, some in rows]
    notes = [
        f"How far the distribution of final answers moves when a sentence is kept (total variation; {samples} samples "
        f"at temperature {temperature:g} with it, as many without). Null: random halves of both together.",
        "Anchors: sentences whose importance is beyond their halves (p < 0.05, Holm's over the sentences of a thought, "
        "so that one thought in twenty has one by chance). Accuracy: right with the sentence, less without it.",
        "A sentence of no importance may still hold what is needed: without it the handle may say the same again, here "
        "or later. And one that decides the answer need not be the reason for it.",
    ]
    means = [_mean([one.importance for one in some], some, seed, (0.0, 1.0)) for *_, some in rows]
    figure = dot_plot(
        [f"{name}: {place}" for name, place, _ in rows],
        {"importance": [Dot(value, *interval.pair) for value, interval in means]},
        nulls={"null: split halves": [Dot(float(np.mean([one.null for one in some]))) for *_, some in rows]},
        title="Sentences that decide the answer", x="total variation of the answers",
    )  # fmt: skip
    more = [(f"One thought of {name}", "", _thought(some)) for name, some in found.items()]
    data = {"temperature": temperature, "samples": samples, "arms": plain(found)}
    return Analysis(NAME, with_left_out(table, left_out), figure, notes, data, more)


def _by_place(found: Sequence[Anchor]) -> list[tuple[str, list[Anchor]]]:
    """All sentences, and those of each place."""
    parts = [(place, [one for one in found if one.place == place]) for place in PLACES]
    return [("all", list(found)), *((place, some) for place, some in parts if some)]


def _mean(
    values: Sequence[float], found: Sequence[Anchor], seed: int, bounds: tuple[float, float] = (-1.0, 1.0)
) -> tuple[float, Interval]:
    """A mean over sentences with its interval over questions."""
    whose = np.array([one.item for one in found])
    return float(np.mean(values)), bootstrap_mean(np.array(values), whose, bounds=bounds, seed=seed)


def _row(arm: str, place: str, found: Sequence[Anchor], seed: int) -> dict[str, Any]:
    beyond = _mean([one.importance - one.null for one in found], found, seed)
    accuracy = _mean([one.accuracy for one in found], found, seed)
    return {
        "arm": arm,
        "sentences": place,
        "n": len(found),
        "importance": float(np.mean([one.importance for one in found])),
        "null": float(np.mean([one.null for one in found])),
        "beyond [95%]": shown(*beyond),
        "accuracy [95%]": shown(*accuracy),
        "anchors": f"{np.mean([one.p < 0.05 for one in found]):.0%}",
        "reading": "decide" if beyond[1].low > 0 else "no more than halves",
    }


def _thought(found: Sequence[Anchor]) -> Any:
    """The thought with the greatest anchor, sentence by sentence."""
    top = max(found, key=lambda one: one.importance - one.null).item
    some = [one for one in found if one.item == top]
    names = [one.text if len(one.text) <= LENGTH else f"{one.text[: LENGTH - 1]}…" for one in some]
    return dot_plot(
        [f"{one.number + 1}. {name}" for one, name in zip(some, names, strict=True)],
        {"importance": [Dot(one.importance) for one in some]},
        nulls={"null: split halves": [Dot(one.null) for one in some]}, title=top, x="total variation of the answers",
    )  # fmt: skip
