"""What an evaluation will take: a few questions are answered for two seconds, and the rest is reckoned from that.

A batch of R rows takes the steps of the r rows that were tried; each is longer by what R rows cost more than r
(`elicit.decoding.pace.StepCost`), of which as many are open as were of r. Where two seconds did not suffice, rows that
were open then go on to the limit: the forecast says "at most". Of few questions the longest answer is shorter than of
many, so a forecast of answers whose lengths differ much is too short rather than too long.

Power sampling decodes each answer many times. Of its chains one move a block is tried, and all moves are reckoned from
that; the forward that begins a pass counts as a step of the rows that it begins.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, pairwise

from elicit.decoding.decoders import Decoder, Power, PowerRollouts, Quiet, Sampling, most_tokens
from elicit.decoding.pace import StepCost
from elicit.decoding.rollouts import WIDEST
from elicit.elicited import Elicited, answer_together
from elicit.evaluation.batches import batches
from elicit.evaluation.budget import MAX_SAMPLES
from elicit.models import memory
from elicit.tasks.base import Items
from probes.errors import UserError
from probes.estimate import WORTH_TELLING, Estimate, gigabytes

SECONDS, STEPS = 2.0, 3  # of steps at least, for each group of handles that are decoded together
TRIED, FEWEST = 64, 8  # answers of such a group, about, and its questions at least
BYTES_A_TOKEN = 130  # in `samples.jsonl` and `samples.parquet` together
PAGE = 6_000_000  # bytes: `report.html` with its library of figures
SHARING = 8  # handles that may share a batch, about
LOGITS = 3  # [rows, vocabulary] in fp32 at the widest place of a step, about


class _Enough(Exception):
    """Time is up."""


@dataclass(frozen=True)
class Tried:
    """What answering a few questions took.

    Args:
        prompts, rows: of the batch.
        apart: seconds beside the steps: the prompts' forward, the answers' reading.
        steps: of each its seconds and the rows that were open.
        spent: tokens a question, by the handle's name; to the limit where the answers did not come to their end.
        whole: whether they did.
        again: whether steps repeat themselves, as where an answer is decoded many times.
    """

    prompts: int
    rows: int
    apart: float
    steps: Sequence[tuple[float, int]]
    spent: Mapping[str, float]
    whole: bool
    again: bool = False

    def seconds(self, prompts: int, rows: int, limit: int, cost: StepCost) -> float:
        """Of a batch of other size."""
        took = self.apart * prompts / self.prompts
        steps = list(self.steps)
        if not self.whole and steps:
            missing = max(0, limit - 1 - len(steps))
            steps += list(islice(cycle(steps), missing)) if self.again else [steps[-1]] * missing
        return took + sum(s * cost.of(math.ceil(rows * n / self.rows)) / cost.of(n) for s, n in steps if n)


def forecast(
    groups: Sequence[Mapping[str, Elicited]],
    matched: Mapping[str, tuple[Elicited, str]],
    items: Items,
    rows: int,
    processes: int = 1,
) -> Estimate:
    """What answering all questions takes.

    Args:
        groups: handles by name that are decoded together.
        matched: of a name the handle that samples, and whose tokens it may spend.
        items: the questions.
        rows: answers decoded together.
        processes: among which batches are dealt out.

    Raises:
        UserError: as `answer_together`.
    """
    first = next(iter(groups[0].values()))
    cost = StepCost.measured(first.model, rows)
    handles = [*(one for group in groups for one in group.values()), *(one for one, _ in matched.values())]
    room = max(_bytes(one, items, rows) for one in handles)
    longest = sum(_to_the_limit(one, len(items), rows, cost) for one in handles) / processes
    if longest < WORTH_TELLING:  # trying would take longer than it is worth
        answers = sum(_kept(one, len(items)) for one in handles)
        return Estimate(longest, room, PAGE + BYTES_A_TOKEN * answers, most=True)
    seconds, tokens, most = 0.0, 0.0, False
    spent: dict[str, float] = {}
    for group in groups:
        tried = _tried(group, items, cost)
        one = next(iter(group.values())).decoder
        short, times = _shorter(one)
        for batch in batches(group, items, max(1, rows // one.branches)):
            prompts = sum(map(len, batch.values()))
            seconds += times * tried.seconds(prompts, prompts * one.branches, _steps(short), cost)
        spent |= tried.spent
        tokens += sum(min(tried.spent[name] * len(items), _kept(kept, len(items))) for name, kept in group.items())
        most |= not tried.whole
    for name, (handle, of) in matched.items():
        decoder = handle.decoder
        assert isinstance(decoder, Sampling)
        tried = _tried({name: replace(handle, decoder=replace(decoder, samples=1))}, items, cost)
        samples = len(items) * min(MAX_SAMPLES, max(1.0, spent[of] / max(1.0, tried.spent[name])))
        together = min(rows, math.ceil(samples))
        seconds += samples / together * tried.seconds(together, together, decoder.max_new_tokens, cost)
        tokens += spent[of] * len(items)
        most |= not tried.whole
    return Estimate(seconds / processes, room, PAGE + int(BYTES_A_TOKEN * tokens), most)


def rows_with_room(handles: Sequence[Elicited], items: Items, most: int, given: int | None) -> int:
    """How many answers are decoded together: those asked for, or as many of `most` as there is memory for.

    Raises:
        UserError: no room for those that were given, with the number that has, or for a single one.
    """
    free = memory.free_bytes(handles[0].model.lm.device)
    rows = given or most

    def needed(count: int) -> int:
        return max(_bytes(one, items, count) for one in handles)

    if free is None or needed(rows) <= free:
        return rows
    fits = rows
    while fits > 1 and needed(fits) > free:
        fits //= 2
    if needed(fits) > free:
        raise UserError(
            f"one answer needs {gigabytes(needed(1))} for its cache and {gigabytes(free)} are free; give a smaller "
            "--max-new-tokens (max_new_tokens) or a smaller model"
        )
    if given is not None:
        raise UserError(
            f"{given} answers together need {gigabytes(needed(given))} for their caches and {gigabytes(free)} are "
            f"free; give --batch-rows {fits} (batch_rows)"
        )
    return fits


def _kept(handle: Elicited, questions: int) -> int:
    """Tokens of answers that all go on to the limit."""
    return questions * handle.decoder.branches * most_tokens(handle.decoder)


def _steps(decoder: Decoder) -> int:
    """Forwards of a batch at most."""
    return decoder.steps if isinstance(decoder, Power | PowerRollouts) else most_tokens(decoder)


def _ahead(decoder: Decoder) -> int:
    """Rows that are computed for each answer."""
    return decoder.ahead if isinstance(decoder, PowerRollouts) else 1


def _shorter(decoder: Decoder) -> tuple[Decoder, float]:
    """What is tried of a decoder, and how many times that it takes: of a chain's moves one a block."""
    if not isinstance(decoder, Power) or decoder.moves < 2:
        return decoder, 1.0
    return replace(decoder, moves=1), (1 + decoder.moves) / 2


def _to_the_limit(handle: Elicited, questions: int, rows: int, cost: StepCost) -> float:
    """Seconds of answers that all go on to the limit."""
    answers = questions * handle.decoder.branches
    together = min(rows, answers)
    decoder = handle.decoder
    quiet = decoder.beside * decoder.thoughts(decoder.max_new_tokens) if isinstance(decoder, Quiet) else 0
    return (_steps(decoder) + quiet) * answers / together * cost.of(together * _ahead(decoder))


def _bytes(handle: Elicited, items: Items, rows: int) -> int:
    """Of a batch of so many answers that all go on to the limit: keys, values, logits."""
    lm, decoder = handle.model.lm, handle.decoder
    rows, limit = min(rows, len(items) * decoder.branches * SHARING), most_tokens(decoder)
    prompts, longest = max(1, rows // decoder.branches), max(len(handle.prompt_ids(item)) for item in items)
    kept = 0
    if isinstance(decoder, Power | PowerRollouts):  # what answers were decoded from is kept beside
        kept = memory.cache_bytes(lm, rows, longest + limit)
    if isinstance(decoder, PowerRollouts):  # which are decoded part by part, after what was said
        rows = min(rows * decoder.ahead, max(WIDEST, decoder.ahead))
        prompts, longest, limit = rows // decoder.ahead, longest + limit, decoder.horizon
    elif isinstance(decoder, Power):
        prompts = rows
    kept += memory.cache_bytes(lm, prompts, longest) + memory.cache_bytes(lm, rows, limit)
    return kept * (2 if handle.partner else 1) + LOGITS * 4 * rows * handle.model.vocab_size


def _tried(group: Mapping[str, Elicited], items: Items, cost: StepCost) -> Tried:
    """Questions that stand evenly among all, a few of each handle: no more than their prompts' forward takes as long as
    the steps may."""
    first = next(iter(group.values()))
    decoder = first.decoder
    branches, again = decoder.branches, isinstance(decoder, Power | PowerRollouts)
    short, times = _shorter(decoder)
    prompt = cost.each * len(first.prompt_ids(items[0])) * len(group)
    count = min(len(items), max(1, TRIED // (branches * len(group))), max(FEWEST, int(SECONDS / max(prompt, 1e-9))))
    some = Items(items.task, tuple(items[n * len(items) // count] for n in range(count)))
    marks: list[tuple[float, int]] = []
    began = time.perf_counter()

    def on_step(step: int, open_rows: int) -> None:
        marks.append((time.perf_counter(), open_rows))
        if len(marks) > STEPS and marks[-1][0] - marks[0][0] > SECONDS:
            raise _Enough

    prompts = count * len(group)
    spent = dict.fromkeys(group, float(_steps(decoder) * _ahead(decoder) * branches))
    try:
        answers = answer_together([(replace(one, decoder=short), some) for one in group.values()], on_step)
    except _Enough:
        whole, ended = False, marks[-1][0]
    else:
        whole, ended = True, time.perf_counter()
        for name, each in zip(group, answers, strict=True):
            spent[name] = times * sum(trace.spent for traces in each for trace in traces) / count
    # After a pass's last step no row is open: what follows it, the prompts' forward, is of the next pass's rows.
    steps = [(after - at, n or following) for (at, n), (after, following) in pairwise(marks)]
    apart = ended - began - sum(took for took, _ in steps)
    return Tried(prompts, prompts * branches, apart, steps, spent, whole, again)
