"""Chains of Metropolis–Hastings over whole answers, all questions' rows together (arXiv 2510.14901, algorithm 1).

The target is pᵅ/Z over answers: token sequences up to an end token, a stop string or the limit, the end included. The
proposal q draws each token from pᵅ normalised at that token (temperature 1/α). Block after block the answer is
continued by q to the block's end, and then `moves` times: a position of the answer is drawn uniformly, what stands from
there on is drawn again by q, and the new answer x' takes the old one's place with probability

    min(1, p(x')ᵅ q(x|x') / (p(x)ᵅ q(x'|x)))   (equation 9).

With z_t = Σ_v p(v | x_<t)ᵅ, pᵅ/q of a token is z_t, whatever the token, so that of the ratio there remain the products
of z over the two continuations: that is what is kept of each token.

Departures:
- answers that end have lengths of their own, and a position is drawn among |x| of them from x and |x'| from x'. The
  ratio has the factor |x|/|x'| that makes the chain reversible, which for sequences of one length is 1.
- an answer that has ended is still moved after the later blocks, as the target of those wants it: it may become longer.
- a proposal goes to the end of the block, whatever the old answer's length.

A move computes the prompt and what is kept in one forward, and then one forward a token for all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elicit.decoding.cache import PADDED, open_state
from elicit.decoding.decoders.power import Power
from elicit.decoding.decoders.sampling import RngStream, Sampling, SamplingPolicy
from elicit.decoding.engine import Batch
from elicit.decoding.loop import DEAD_SHARE, Generation, OnStep, Record, Rows
from elicit.decoding.packed_weights import packed
from elicit.decoding.parts import of_one_length, without
from elicit.decoding.ready import check_prompts
from elicit.decoding.record import measured
from elicit.decoding.trial import way_of
from elicit.models.model import Model
from probes.batching import left_pad
from probes.confidence import top2
from probes.errors import UserError


def normalisers(logits: Float[Tensor, "rows vocab"], alpha: float) -> Float[Tensor, " rows"]:
    """log Σ_v p(v)ᵅ of each row, in fp32."""
    return torch.logsumexp(alpha * torch.log_softmax(logits.float(), -1), -1)


def numbers_of(stream: RngStream, block: int, moves: int, until: int) -> Float[np.ndarray, "draws numbers"]:
    """Numbers in [0, 1) of a block that ends at `until` tokens: of the continuation that begins it, then of each move.

    In a row: the position's, the acceptance's, then one for each token of an answer.
    """
    width = 2 + until
    drawn = stream._replace(sample=f"{stream.sample}\x00block {block}").uniform((1 + moves) * width)
    return drawn.reshape(1 + moves, width)


@torch.inference_mode()
def power_samples(model: Model, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
    """The last state of each chain, for each prompt those of its samples.

    Raises:
        UserError: interventions or a budget of thoughts, which chains do not carry; as `elicit.decoding.loop.decode`.
    """
    decoder = batch.decoder
    assert isinstance(decoder, Power)
    if batch.steered:
        raise UserError("power sampling was given interventions, which its chains do not carry; leave one of them out")
    if batch.stop.thought_tokens:
        raise UserError("thought_tokens was given with power sampling, which ends no thoughts; leave it out")
    limit = decoder.max_new_tokens
    check_prompts(model.lm, batch.prompts, limit, batch.stop.tokenizer)
    chains = _Chains(model, batch, decoder, on_step)
    with packed(model.lm):
        for block, until in enumerate([*range(decoder.block, limit, decoder.block), limit]):
            numbers = chains.numbers(block, until)
            chains.grow(numbers[:, 0], until)
            for move in range(1, decoder.moves + 1):
                chains.move(numbers[:, move], until)
    return chains.finished()


def _copy(source: tuple[Record, np.ndarray], target: tuple[Record, np.ndarray], rows: np.ndarray) -> None:
    """The answers of some rows, with what was kept of their tokens."""
    (its, its_z), (mine, mine_z) = source, target
    for one, other in (
        (its.tokens, mine.tokens), (its.length, mine.length), (its.finish, mine.finish), (its_z, mine_z),
    ):  # fmt: skip
        other[rows] = one[rows]
    mine.values[:, rows] = its.values[:, rows]


class _Chains:
    """The answer of each row, and what its moves have cost."""

    def __init__(self, model: Model, batch: Batch, decoder: Power, on_step: OnStep | None) -> None:
        self.lm, self.decoder, self.on_step = model.lm, decoder, on_step
        questions, samples = len(batch.prompts), decoder.samples
        self.rows = Rows(np.repeat(np.arange(questions), samples), np.tile(np.arange(samples), questions))
        self.prompts = [list(batch.prompts[n]) for n in self.rows.question]
        first = [RngStream.of(given, decoder.seed) for given in batch.rng_streams]
        self.streams = [
            first[n]._replace(choice=first[n].choice + int(sample))
            for n, sample in zip(self.rows.question, self.rows.branch, strict=True)
        ]
        self.way = way_of(self.lm)
        self.never = torch.tensor(model.unlisted, dtype=torch.long, device=self.lm.device)
        self.proposal = SamplingPolicy(Sampling(1, decoder.temperature, max_new_tokens=1), [RngStream(0, "")])
        limit, count = decoder.max_new_tokens, len(self.prompts)
        # What each chain holds, and its next answer; with log z of every token.
        self.held, self.tried = (Record(self.rows, limit, batch.stop, self.lm) for _ in range(2))
        self.listeners = batch.listeners  # they hear nothing: no token is sure before the last move
        self.held_z, self.tried_z = np.zeros((count, limit)), np.zeros((count, limit))
        self.spent, self.accepted, self.moved = (np.zeros(count, dtype=np.int64) for _ in range(3))
        self.steps = 0

    def numbers(self, block: int, until: int) -> Float[np.ndarray, "rows draws numbers"]:
        """Of each chain its numbers of a block."""
        return np.stack([numbers_of(stream, block, self.decoder.moves, until) for stream in self.streams])

    def _wanted(self, rows: Int[np.ndarray, " some"]) -> Bool[np.ndarray, " some"]:
        """Which of these rows somebody waits for."""
        if self.listeners is None:
            return np.ones(len(rows), dtype=bool)
        return np.array([not self.listeners[q].gone for q in self.rows.question[rows]], dtype=bool)

    def grow(self, numbers: Float[np.ndarray, "rows numbers"], until: int) -> None:
        """Continue what has not ended to a block's end."""
        rows = np.flatnonzero(self.held.finish == "length")
        rows = rows[self._wanted(rows) | (self.held.length[rows] == 0)]  # an answer has a token
        if len(rows):
            self._continue(self.held, self.held_z, rows, self.held.length[rows].copy(), until, numbers[rows, 2:])

    def move(self, numbers: Float[np.ndarray, "rows numbers"], until: int) -> None:
        """Draw the end of every answer again, and take it by the rule."""
        rows = np.arange(len(self.prompts))
        rows = rows[self._wanted(rows)]
        if not len(rows):
            return
        begins = (numbers[:, 0] * self.held.length).astype(np.int64)
        held, tried = (self.held, self.held_z), (self.tried, self.tried_z)
        _copy(held, tried, np.arange(len(self.prompts)))
        self._continue(self.tried, self.tried_z, rows, begins[rows], until, numbers[rows, 2:])
        taken = rows
        if self.decoder.accept == "metropolis":
            place = np.arange(self.decoder.max_new_tokens)
            gain = [
                np.where((place >= begins[:, None]) & (place < record.length[:, None]), z, 0.0).sum(1)
                for record, z in (tried, held)
            ]
            log_ratio = gain[0] - gain[1] + np.log(self.held.length / self.tried.length)
            taken = rows[np.log1p(-numbers[rows, 1]) < log_ratio[rows]]  # 1 − u is above 0
        self.moved[rows] += 1
        self.accepted[taken] += 1
        _copy(tried, held, taken)

    def _continue(
        self,
        record: Record,
        z: Float[np.ndarray, "all limit"],
        rows: Int[np.ndarray, " some"],
        begins: Int[np.ndarray, " some"],
        until: int,
        uniform: Float[np.ndarray, "some until"],
    ) -> None:
        """Draw rows of a record from their `begins` tokens on, to an end or `until` tokens."""
        record.length[rows], record.finish[rows] = begins, "length"
        prompts = [[*self.prompts[r], *record.tokens[r, :b].tolist()] for r, b in zip(rows, begins, strict=True)]
        parts = [list(range(len(rows)))] if self.way in PADDED else of_one_length(prompts)
        for part in parts:
            some = np.array(part)
            self._together(record, z, [prompts[n] for n in part], rows[some], begins[some], until, uniform[some])

    def _together(
        self,
        record: Record,
        z: Float[np.ndarray, "all limit"],
        prompts: Sequence[Sequence[int]],
        rows: Int[np.ndarray, " some"],
        begins: Int[np.ndarray, " some"],
        until: int,
        uniform: Float[np.ndarray, "some until"],
    ) -> None:
        device = self.lm.device
        ids, mask, _ = left_pad(prompts, device)
        live, at = np.arange(len(rows)), begins.copy()  # each computed row's number and next place
        is_open = np.ones(len(rows), dtype=bool)
        with open_state(self.lm, until - int(begins.min()), way=self.way) as state:
            logits = without(state.prefill(ids, mask), self.never)
            state.fork(torch.arange(len(rows), device=device))
            while True:
                here = np.minimum(at, until - 1)  # a finished row is computed along
                drawn = torch.from_numpy(uniform[live, here]).to(device)
                tokens = self.proposal.chosen(logits, drawn)
                values = measured(logits, top2(logits), tokens, record.head.to(device), None).cpu().numpy()
                now = np.flatnonzero(is_open[live])
                target, places = rows[live[now]], at[now]
                z[target, places] = normalisers(logits, self.decoder.alpha).double().cpu().numpy()[now]
                ended = record.write(target, places, tokens.cpu().numpy()[now], values[:, now])
                self.spent[target] += 1
                is_open[live[now]] = ~ended & (places + 1 < until) & self._wanted(target)
                at += 1
                self.steps += 1
                still = is_open[live]
                if self.on_step is not None:
                    self.on_step(self.steps, int(still.sum()))
                if not still.any():
                    return
                if still.sum() <= (1 - DEAD_SHARE) * len(live):
                    index = torch.from_numpy(np.flatnonzero(still)).to(device)
                    state.keep(index)
                    tokens, live, at = tokens[index], live[still], at[still]
                logits = without(state.step(tokens), self.never)

    def finished(self) -> list[list[Generation]]:
        """For each question its chains' answers, with all tokens that were drawn for them."""
        made = self.held.finished()
        for row, (question, sample) in enumerate(zip(self.rows.question, self.rows.branch, strict=True)):
            made[question][sample] = replace(
                made[question][sample],
                spent=int(self.spent[row]),
                beside=int(sample > 0),  # each chain computes its prompt by itself
                moves=int(self.moved[row]),
                accepted=int(self.accepted[row]),
            )
        return made
