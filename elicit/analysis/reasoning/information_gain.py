"""Information gain of a thought: what it tells a scorer about the right answer (arXiv 2506.02126, 2510.01265).

    G = log p(answer | question, thought, cue) − log p(answer | question, cue)

in nats, on the gold answer's tokens alone, whole and a token (`elicit.training.rl.information_gain`, which the reward
of that name uses).
Two scorers: the arm itself, with its own prompt, adapter and interventions; and a reference, which is the base with the
bare prompt or another model. A thought may be long-winded, or may only state its answer: G is held against the thought
of another question, shuffled tokens and filler, all of the same length, and against the same thought with the answer's
string masked, wherever it stands. Means over steps of a thought are not taken: they shrink with its length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedModel

from elicit.analysis.base import Analysis, in_turn, plain
from elicit.analysis.continuations import (
    BeforeForward,
    applied_handle,
    cannot,
    too_few,
    with_cot,
    without_cot,
)
from elicit.decoding.continuing import continuing_ids
from elicit.evaluation.run.arms import Arm, arms_of, check_ours, model_of, questions
from elicit.evaluation.run.run import Run
from elicit.models.model import load_model
from elicit.models.prompts import Prompt
from elicit.tasks.answers import find_answer
from elicit.tasks.base import Item
from elicit.training.rl.information_gain import FILLER, NULLS, answer_ids, answer_logprobs, as_long, gold, null_traces
from probes.dots import Dot, dot_plot
from probes.errors import UserError
from probes.offsets import decoded, offsets
from probes.statistics import bootstrap_mean

NAME = "information-gain"
SUMMARY = (
    "how much likelier a chain of thought makes the right answer, beside shuffled ones, filler and the answer masked"
)
PAPER = "2506.02126"
MASKED = "answer masked"
LEAST = 2  # thoughts, since a null exchanges them


@dataclass(frozen=True, eq=False)
class Gains:
    """The gain of each thought, and of its trace under each null, in nats a token of the answer.

    Args:
        items: their ids.
        tokens: of each answer.
        gain: of the thoughts.
        nulls: by name.
    """

    items: list[str]
    tokens: Float[np.ndarray, " items"]
    gain: Float[np.ndarray, " items"]
    nulls: dict[str, Float[np.ndarray, " items"]]


def measure(
    lm: PreTrainedModel,
    tokenizer: Any,
    prompt: Prompt,
    items: Sequence[Item],
    thoughts: Sequence[Sequence[int]],
    *,
    seed: int = 0,
    before_forward: BeforeForward | None = None,
) -> Gains:
    """Score thoughts and their nulls.

    Args:
        lm, tokenizer, prompt: the scorer.
        items: the questions.
        thoughts: of each, in the scorer's tokens.
        seed: of the shuffles.
        before_forward: see `elicit.training.rl.information_gain.answer_logprobs`.

    Raises:
        UserError: fewer than two thoughts, an empty one, an item without an answer.
    """
    if len(items) < LEAST or not all(len(thought) for thought in thoughts):
        raise UserError(f"{len(items)} thoughts were given, empty ones among them or not; give two that say something")
    answers = [gold(item) for item in items]
    asked = [prompt.ids(item.question, tokenizer) for item in items]
    read: dict[str, Sequence[Sequence[int]]] = {
        "": [()] * len(items),
        "thought": thoughts,
        **null_traces(tokenizer, thoughts, seed),
        MASKED: [masked(tokenizer, thought, answer) for thought, answer in zip(thoughts, answers, strict=True)],
    }
    scored = answer_logprobs(
        lm,
        tokenizer,
        asked * len(read),
        [one for many in read.values() for one in many],
        answers * len(read),
        before_forward,
    )
    rows = dict(zip(read, np.array(scored).reshape(len(read), -1), strict=True))
    without = rows.pop("")
    gain = rows.pop("thought") - without
    tokens = np.array([float(len(answer_ids(tokenizer, answer))) for answer in answers])
    return Gains([item.id for item in items], tokens, gain, {name: row - without for name, row in rows.items()})


def masked(tokenizer: Any, thought: Sequence[int], answer: str) -> list[int]:
    """The thought with filler in place of the tokens that spell the answer, wherever it stands as a word of its own."""
    text = decoded(tokenizer, thought)
    ends = offsets(tokenizer, thought, text).begun
    filler = continuing_ids(tokenizer, FILLER)
    spans = [found.span() for found in re.finditer(rf"(?<![\w.]){re.escape(answer)}(?!\w|\.\d)", text)]
    hidden = [
        any(start < stop and begin < end for begin, stop in spans)
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
    instead = iter(as_long(filler, len(thought)))
    return [next(instead) if hide else int(token) for token, hide in zip(thought, hidden, strict=True)]


def summarised(found: Gains, *, seed: int = 0) -> dict[str, Any]:
    """Mean gain with its interval, what is left beyond each null, and what can be said of it."""

    def mean(values: Float[np.ndarray, " items"]) -> dict[str, float]:
        low, high = bootstrap_mean(values, seed=seed).pair
        return {"mean": float(values.mean()), "low": low, "high": high}

    filler = found.nulls[NULLS[2]]
    beyond = {name: mean(found.gain - null) for name, null in found.nulls.items() if name != MASKED}
    left = mean(found.nulls[MASKED] - filler)
    gain = mean(found.gain)
    if not all(one["low"] > 0 for one in (gain, beyond[NULLS[0]], beyond[NULLS[2]])):  # NaN is above nothing
        says = "no more than a null"
    elif not left["low"] > 0:
        says = "states the answer, no more"
    else:
        says = "informs" if beyond[NULLS[1]]["low"] > 0 else "informs, in any order"
    return {
        "items": len(found.items),
        "gain": gain,
        "whole": mean(found.gain * found.tokens),
        "nulls": {name: mean(null) for name, null in found.nulls.items()},
        "beyond": beyond,
        "left when masked": left,
        "says": says,
    }


def analyse(
    runs: Sequence[Run],
    *,
    reference: str = "",
    limit: int = 128,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """The gain of the thoughts of every arm, by the arm itself and by a reference.

    Args:
        runs: of one model on the same items.
        reference: a model by name; the base itself with the bare prompt unless given. Thoughts that were read from a
            log of another program are scored by it alone.
        limit: of the items; 0 for all.
        seed: of shuffles and bootstrap.

    Raises:
        UserError: runs that do not go together, no arm with thoughts, items without answers.
    """
    arms = arms_of(runs)
    items = questions(arms, limit)
    foreign = any(arm.foreign for arm in arms)
    if foreign and not reference:
        check_ours(runs, "a model", "name one that scores its thoughts: --set reference=MODEL")
    model = None if foreign else model_of(runs)
    other = model if model is not None and not reference else load_model(reference)
    table: list[dict[str, Any]] = []
    data: dict[str, Any] = {}
    for arm in in_turn(NAME, arms, progress):
        kept = _from_texts(arm, items, other.tokenizer) if model is None else _from_tokens(arm, items)
        if len(kept) < LEAST:
            table.append(_row(arm.name, "–", f"does not apply: {too_few(kept, items)}"))
            continue
        asked, thoughts = [item for item, _ in kept], [thought for _, thought in kept]
        handle = arm.handle(model) if model is not None else None
        if model is None:
            table.append(_row(arm.name, "itself", "does not apply: a log holds no weights"))
        elif why := cannot(handle):
            table.append(_row(arm.name, "itself", why))
        else:
            assert handle is not None
            with applied_handle(handle) as before_forward:
                own = measure(
                    model.lm, model.tokenizer, handle.prompt, asked, thoughts, seed=seed, before_forward=before_forward
                )
            data[f"{arm.name}, itself"] = {"values": plain(own), **summarised(own, seed=seed)}
            table.append(_row(arm.name, "itself", data[f"{arm.name}, itself"]))
        if model is not None and other.tokenizer_sha256 != model.tokenizer_sha256:
            thoughts = [_again(model.tokenizer, other.tokenizer, thought) for thought in thoughts]
        whose = reference or "the base, bare prompt"
        read = measure(other.lm, other.tokenizer, Prompt(), asked, thoughts, seed=seed)
        data[f"{arm.name}, {whose}"] = {"values": plain(read), **summarised(read, seed=seed)}
        table.append(_row(arm.name, whose, data[f"{arm.name}, {whose}"]))
    if not data:
        raise without_cot(arms)
    notes = [
        "Nats a token of the right answer that the thought adds, 95% interval by question; read it against its nulls, "
        "which are as long: a thought informs where it beats another question's thought and filler, and where "
        "something is left when the answer's string is masked in it; where its own tokens in any order do as well, "
        "single words inform and not what is said with them.",
        "It does not show that the model uses the thought (see faithfulness), nor that the thought is true.",
    ]
    return Analysis(NAME, table, _figure(data), notes, {"items": [item.id for item in items], "rows": data})


Thoughts = list[tuple[Item, list[int]]]


def _from_tokens(arm: Arm, items: Sequence[Item]) -> Thoughts:
    return [(item, trace.chain_of_thought) for item, trace in with_cot(arm, items)]


def _from_texts(arm: Arm, items: Sequence[Item], tokenizer: Any) -> Thoughts:
    """What stands before the answer (all where none is found), in the scorer's tokens; those that are not blank."""
    out = []
    for item, trace in zip(items, arm.chosen([item.id for item in items]), strict=True):
        found = find_answer(trace.text, arm.run.items.task.kind_of(item))
        text = trace.text if found is None else trace.text[: found.start]
        if text.strip() and (thought := continuing_ids(tokenizer, text)):
            out.append((item, thought))
    return out


def _again(one: Any, other: Any, thought: Sequence[int]) -> list[int]:
    """A thought in another tokenizer's tokens."""
    return continuing_ids(other, decoded(one, thought))


def _row(arm: str, scorer: str, found: dict[str, Any] | str) -> dict[str, Any]:
    """A row of the table; one without numbers says why."""
    nan = float("nan")
    row: dict[str, Any] = {"arm": arm, "scorer": scorer}
    told = {} if isinstance(found, str) else found
    row["items"] = told.get("items", 0)
    for name, key in (("gain", "gain"), ("whole", "whole")):
        row[name] = told[key]["mean"] if told else nan
        if name == "gain":
            row |= {end: told[key][end] if told else nan for end in ("low", "high")}
    for null in NULLS:
        row[f"beyond {null}"] = told["beyond"][null]["mean"] if told else nan
    row["left when masked"] = told["left when masked"]["mean"] if told else nan
    row["says"] = found if isinstance(found, str) else told["says"]
    return row


def _figure(data: dict[str, Any]) -> Any:
    def dots(found: Sequence[dict[str, float]]) -> list[Dot]:
        return [Dot(one["mean"], one["low"], one["high"]) for one in found]

    nulls = {name: dots([found["nulls"][name] for found in data.values()]) for name in (*NULLS, MASKED)}
    return dot_plot(
        list(data), {"thought": dots([found["gain"] for found in data.values()])}, nulls=nulls,
        title="Information gain of thoughts", x="nats a token of the right answer",
    )  # fmt: skip
