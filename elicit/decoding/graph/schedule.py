"""Questions come in, their rows are stepped and looked at, and make room for those that wait.

All rows are stepped together, however far each of them is. Every few steps what they said is copied to the host: rows
that ended are written down and leave, and where an eighth of the rows is free the next questions come in, with a
prefill of their own. When nobody waits any more, rows that are left close up into fewer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.decoding.cache import SharedPrefixState
from elicit.decoding.decoders.greedy import GreedyPolicy
from elicit.decoding.decoders.sampling import SamplingPolicy
from elicit.decoding.engine import Batch
from elicit.decoding.graph.captured import Captured
from elicit.decoding.graph.fused import Fused
from elicit.decoding.graph.paged_cache import PagedCache
from elicit.decoding.graph.pages import PAGE, Pages
from elicit.decoding.graph.rows import Choose, Rows, Step
from elicit.decoding.loop import DEAD_SHARE, OnStep, Policy
from elicit.decoding.parts import without
from elicit.decoding.record import Generation, Record, measured
from elicit.decoding.record import Rows as Opened
from probes.batching import left_pad
from probes.confidence import top2
from steering.hooks import Session

EMPTY = -1
Ints = Int[np.ndarray, "_"]


class Schedule:
    """Decodes a batch with a bounded number of rows.

    Args:
        lm: whose attention is `PAGED_ATTENTION`.
        choices: how many tokens can be chosen.
        unlisted: ids that are never chosen.
        batch: greedy, branching or sampling.
        rows: the most branches in flight; at least those of one prompt.
        every: steps between two looks.
        graphs: whether steps are captured as CUDA graphs.
        steering: the batch's plans on the model, with a clock that is told here.
        on_step: called before every step.
        limits: of each prompt's answers, where they differ; else the decoder's.
        page: positions of a page.
        fused: the model's compiled pieces, by which steps are computed, or None.

    Attributes:
        steps: that were computed.
        run: what computes them.
        peak: the most bytes of keys and values.
    """

    def __init__(
        self, lm: PreTrainedModel, batch: Batch, *, choices: int, unlisted: Sequence[int] = (), rows: int, every: int,
        graphs: bool, steering: Session | None = None, on_step: OnStep | None = None,
        limits: Sequence[int] | None = None, page: int = PAGE, fused: Fused | None = None,
    ) -> None:  # fmt: skip
        self.lm, self.batch, self.choices, self.device = lm, batch, choices, lm.device
        self.every, self.graphs, self.steering, self.on_step = every, graphs, steering, on_step
        count, branches = len(batch.prompts), batch.decoder.branches
        self.waiting, self.branches, self.steps, self.peak = list(range(count)), branches, 0, 0
        self.limits = np.array([batch.decoder.max_new_tokens] * count if limits is None else limits)
        opened = Opened(np.repeat(np.arange(count), branches), np.tile(np.arange(branches), count))
        self.record = Record(opened, int(self.limits.max()), batch.stop, lm, listeners=batch.listeners)
        self.head = self.record.head.to(self.device)
        self.never = torch.tensor(list(unlisted), dtype=torch.long, device=self.device)

        together = max(1, min(rows // branches, count))  # questions
        size = together * branches
        # Rows leave one by one and come in question by question: there may be more questions than fill the rows.
        places = together if branches == 1 else min(2 * together, count)
        self.answer = np.full(size, EMPTY)  # the record's row behind each row
        self.said = np.zeros(size, dtype=np.int64)  # tokens of it that are written down
        self.lane = np.zeros(size, dtype=np.int64)  # where it stands among places x branches
        self.asked = np.full(places, EMPTY)  # the question of each place
        self.pages = Pages(size, page)
        longest = max(len(prompt) for prompt in batch.prompts)
        self.cache = PagedCache(size, places, branches, longest, self.pages, self.device, lm.dtype)
        policy = self._policy([0])
        numbers = batch.decoder.max_new_tokens if isinstance(policy, SamplingPolicy) else 0
        ends = torch.tensor(sorted(batch.stop.eos_ids), dtype=torch.long, device=self.device)
        in_flight = Rows.empty(size, numbers, self.device)
        self.step = Step(
            lm, self.cache, in_flight, _choice(policy), ends, self.never, self.head, every, steering, fused
        )  # fmt: skip
        self.run = Captured(self.step, graphs)

    def decode(self) -> list[list[Generation]]:
        """For each prompt its branches."""
        while True:
            self._let_in()
            live = np.flatnonzero(self.answer != EMPTY)
            if len(live):
                self._look(live, self._advance(live))
                self._close_up()
            elif not self.waiting:
                return self.record.finished()

    def _policy(self, questions: Sequence[int]) -> Policy:
        return self.batch.decoder.policy([self.batch.rng_streams[q] for q in questions], self.choices)

    def _limit(self, rows: Ints) -> Ints:
        return self.limits[self.answer[rows] // self.branches]

    def _let_in(self) -> None:
        """Prefill the next questions, where there is room for some."""
        free, places = (np.flatnonzero(some == EMPTY) for some in (self.answer, self.asked))
        count = min(len(free) // self.branches, len(places), len(self.waiting))
        if not count or (count < len(self.waiting) and len(free) < DEAD_SHARE * len(self.answer)):
            return
        asked, self.waiting = np.array(self.waiting[:count]), self.waiting[count:]
        ids, mask, _ = left_pad([self.batch.prompts[q] for q in asked], self.device)
        state, branches = SharedPrefixState(self.lm, 1), self.branches
        if self.steering is not None:
            self.steering.expect(asked.tolist())
            self.steering.clock.begin(count, ids.shape[1], mask, self.device)
        logits = without(state.prefill(ids, mask), self.never)
        moved = None if self.steering is None else self.steering.moved()
        policy = self._policy(asked.tolist())
        tokens = policy.first(logits).reshape(-1)
        group = torch.arange(count, device=self.device).repeat_interleave(branches)
        logits = logits[group]
        values = measured(logits, top2(logits), tokens, self.head, None if moved is None else moved[group])
        target = (asked[:, None] * branches + np.arange(branches)).ravel()
        if moved is not None:
            self.record.prompt_moved[target] = (moved[:, :-1] > 0).sum(-1)[group].cpu().numpy()
        ended = self.record.write(target, np.zeros_like(target), tokens.cpu().numpy(), values.cpu().numpy())
        ended |= self.limits[target // branches] <= 1
        self._place(asked, np.flatnonzero(~ended), free, places, state, tokens, policy)

    def _place(
        self, asked: Ints, left: Ints, free: Ints, places: Ints, state: SharedPrefixState, tokens: Tensor,
        policy: Policy,
    ) -> None:  # fmt: skip
        """Put the branches that go on (`left`, among those of the questions `asked`) into rows that are free."""
        if not len(left):
            return
        of, branch = left // self.branches, left % self.branches
        used, place = np.unique(of, return_inverse=True)
        places, at = places[: len(used)], free[: len(left)]
        self.asked[places] = asked[used]
        self.answer[at], self.said[at] = asked[of] * self.branches + branch, 1
        self.lane[at] = places[place] * self.branches + branch
        lengths = np.array([len(self.batch.prompts[q]) for q in asked])
        first = 0 if self.steering is None else self.steering.clock.last
        self.cache.put(state.cache, self._to(used), self._to(lengths[used]), self._to(places))
        drawn = policy.uniform[of, branch] if isinstance(policy, SamplingPolicy) else np.zeros((len(at), 0))
        new = Rows(
            token=tokens[self._to(left)],
            position=self._to(np.zeros_like(at)),
            length=self._to(lengths[of]),
            question=self._to(asked[of]),
            first=first[self._to(of)] if isinstance(first, Tensor) else self._to(np.full(len(at), first)),
            limit=self._to(self._limit(at)),
            alive=self._to(np.ones(len(at), dtype=bool)),
            uniform=self._to(drawn),
        )
        self.step.rows.write(self._to(at), new)
        self._stand()

    def _to(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _stand(self) -> None:
        """Tell the cache where the rows stand among its prompts."""
        live = np.flatnonzero(self.answer != EMPTY)
        self.cache.place_rows(len(self.answer), self._to(self.lane[live]), self._to(live))

    def _advance(self, live: Ints) -> int:
        """Steps until the next look; how many they were."""
        said, limit = self.said[live], self._limit(live)
        count = min(self.every, int((limit - said).max()))
        if self.pages.reserve(live, np.minimum(said - 1 + count, limit - 1)) and self.cache.write_pages():
            self.run.stale()
        self.peak = max(self.peak, self.cache.nbytes)
        for _ in range(count):
            self.steps += 1
            if self.on_step is not None:
                self.on_step(self.steps, len(live))
            self.run()
        return count

    def _look(self, live: Ints, count: int) -> None:
        """Write down what these rows said in so many steps; those that ended leave."""
        tokens, values = (t[:count].cpu().numpy() for t in (self.step.tokens, self.step.values))
        self.step.now.zero_()
        left = live
        for step in range(count):
            ended = self.record.write(self.answer[left], self.said[left], tokens[step, left], values[step][:, left])
            self.said[left] += 1
            ended |= self.said[left] >= self._limit(left)
            for row in left[ended].tolist():
                self._leave(row)
            left = left[~ended]
        if len(left) < len(live):
            self.step.rows.alive[self._to(np.setdiff1d(live, left))] = False  # a stop string is seen here alone

    def _leave(self, row: int) -> None:
        self.pages.release(row)
        self.answer[row] = EMPTY
        place = self.lane[row] // self.branches
        if not (self.lane[self.answer != EMPTY] // self.branches == place).any():
            self.asked[place] = EMPTY

    def _close_up(self) -> None:
        """With nobody waiting, go on with fewer rows where an eighth of them is empty."""
        live = np.flatnonzero(self.answer != EMPTY)
        count = self._bucket(len(live))
        if self.waiting or not len(live) or count > (1 - DEAD_SHARE) * len(self.answer):
            return
        places, place = np.unique(self.lane[live] // self.branches, return_inverse=True)
        more = (0, count - len(live))
        lane = place * self.branches + self.lane[live] % self.branches
        self.answer = np.pad(self.answer[live], more, constant_values=EMPTY)
        self.said, self.lane = np.pad(self.said[live], more), np.pad(lane, more)
        kept = self._bucket(len(places))
        self.asked = np.pad(self.asked[places], (0, kept - len(places)), constant_values=EMPTY)
        self.cache.keep_questions(self._to(places), kept)
        self.pages.keep(live, count)
        if 2 * self.pages.used < self.pages.count:
            self.cache.close_up()
        self.cache.write_pages()
        self.step.go_on(self.step.rows.kept(self._to(live), count))
        self._stand()
        self.run.stale()

    def _bucket(self, count: int) -> int:
        """A size for so many: one of few where each size is a capture."""
        if not self.graphs or count < 2:
            return count
        half = 1 << ((count - 1).bit_length() - 1)
        return 3 * half // 2 if count <= 3 * half // 2 else 2 * half


def _choice(policy: Policy) -> Choose:
    """A policy's rule for tokens after the first, on tensors alone."""
    if isinstance(policy, SamplingPolicy):
        return lambda logits, top, uniform: policy.chosen(logits, uniform)
    assert isinstance(policy, GreedyPolicy)
    return lambda logits, top, uniform: top.argmax
