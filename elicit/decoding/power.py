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

A move is decoded by the one loop (`elicit.decoding.loop`), from prompts that end in what is kept of the answers: one
forward of what of those was not computed before (`elicit.decoding.kept_texts`), and then one a token for all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elicit.decoding.cache import PADDED
from elicit.decoding.decoders.power import Power
from elicit.decoding.decoders.sampling import RngStream, Sampling, SamplingPolicy
from elicit.decoding.engine import Batch
from elicit.decoding.kept_texts import KeptState, KeptTexts
from elicit.decoding.loop import Generation, Listener, OnStep, Rows, decode
from elicit.decoding.packed_weights import packed
from elicit.decoding.parts import of_one_length
from elicit.decoding.ready import check_prompts
from elicit.decoding.trial import way_of
from elicit.decoding.trunk import can_leave
from elicit.models.model import Model
from probes.confidence import Top2
from probes.errors import UserError
from probes.finite import NotFiniteError

OF_TOKENS = ("tokens", "top1", "top2", "entropy", "logprob", "moved")  # of a `Generation`, one entry a token


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


class Proposals:
    """A policy of the loop that draws each token from pᵅ normalised at that token.

    Args:
        alpha: the power.
        uniform: the number in [0, 1) of each token.

    Attributes:
        z: log Σ_v p(v)ᵅ where each token was drawn; beyond a branch's end it says nothing.
    """

    def __init__(self, alpha: float, uniform: Float[np.ndarray, "questions branches tokens"]) -> None:
        self.alpha, self.uniform, self.z = alpha, uniform, np.zeros(uniform.shape)
        self.sampling = SamplingPolicy(Sampling(1, 1 / alpha, max_new_tokens=1), [RngStream(0, "")])

    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        every = np.arange(len(logits))
        return self.next(logits, None, Rows(every, np.zeros_like(every)), 0)[:, None]

    def next(
        self, logits: Float[Tensor, "rows vocab"], top: Top2 | None, rows: Rows, step: int
    ) -> Int[Tensor, " rows"]:
        at = rows.question, rows.branch, step
        self.z[at] = normalisers(logits, self.alpha).double().cpu().numpy()
        return self.sampling.chosen(logits, torch.from_numpy(self.uniform[at]).to(logits.device))


@torch.inference_mode()
def power_samples(model: Model, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
    """The last state of each chain, for each prompt those of its samples.

    Raises:
        UserError: interventions or a budget of thoughts, which chains do not carry; as `elicit.decoding.loop.decode`.
    """
    decoder = batch.decoder
    assert isinstance(decoder, Power)
    check_power(model, batch)
    chains = _Chains(model, batch, decoder, on_step)
    with packed(model.lm):
        for block, until in enumerate(decoder.ends):
            numbers = chains.numbers(block, until)
            chains.grow(numbers[:, 0], until)
            for move in range(1, decoder.moves + 1):
                chains.move(numbers[:, move], until)
    return chains.finished()


def check_power(model: Model, batch: Batch) -> None:
    """Refuse what decoding answers again and again does not carry.

    Raises:
        UserError: interventions, a budget of thoughts, prompts that cannot be decoded to the limit.
    """
    if batch.steered:
        raise UserError("power sampling was given interventions, which it does not carry; leave one of them out")
    if batch.stop.thought_tokens:
        raise UserError("thought_tokens was given with power sampling, which ends no thoughts; leave it out")
    check_prompts(model.lm, batch.prompts, batch.decoder.max_new_tokens, batch.stop.tokenizer)


class Answers:
    """The rows of a batch, one a sample: whose they are, their random numbers, who waits for them, their tokens."""

    def __init__(self, model: Model, batch: Batch, samples: int, seed: int, on_step: OnStep | None) -> None:
        self.model, self.batch, self.on_step = model, batch, on_step
        questions = len(batch.prompts)
        self.rows = Rows(np.repeat(np.arange(questions), samples), np.tile(np.arange(samples), questions))
        first = [RngStream.of(given, seed) for given in batch.rng_streams]
        self.streams = [
            first[n]._replace(choice=first[n].choice + int(sample))
            for n, sample in zip(self.rows.question, self.rows.branch, strict=True)
        ]
        self.spent = np.zeros(len(self.streams), dtype=np.int64)
        longest = max(map(len, batch.prompts)) + batch.decoder.max_new_tokens
        whole = way_of(model.lm) == "shared-prefix" and can_leave(model.lm, longest)
        self.kept = KeptTexts(model.lm, len(self.streams)) if whole else None

    def wanted(self, rows: Int[np.ndarray, " some"]) -> Bool[np.ndarray, " some"]:
        """Which of these rows somebody waits for."""
        if self.batch.listeners is None:
            return np.ones(len(rows), dtype=bool)
        return np.array([not self.batch.listeners[q].gone for q in self.rows.question[rows]], dtype=bool)

    def parts(self, rows: Int[np.ndarray, " some"], said: Sequence[Sequence[int]]) -> list[Int[np.ndarray, " part"]]:
        """Numbers among `rows` of those that are decoded together, with what was `said` in each answer."""
        if way_of(self.model.lm) in PADDED:
            return [np.arange(len(rows))]
        return [
            np.array(part)
            for part in of_one_length([self._prompt(*one) for one in zip(rows.tolist(), said, strict=True)])
        ]

    def _prompt(self, row: int, said: Sequence[int]) -> list[int]:
        return [*self.batch.prompts[self.rows.question[row]], *said]

    def decoded(
        self,
        rows: Int[np.ndarray, " some"],
        said: Sequence[Sequence[int]],
        policy: Proposals,
        most: int,
        budgets: Sequence[int] | None = None,
    ) -> list[list[Generation]]:
        """Continue what was said in the answers of some rows by at most so many tokens, in the branches of a policy."""
        waiting, kept = self.batch.listeners, self.kept
        try:
            return decode(
                self.model.lm, [self._prompt(*one) for one in zip(rows.tolist(), said, strict=True)], policy,
                opened=None if kept is None else partial(KeptState, kept, rows.tolist(), max_new_tokens=most),
                max_new_tokens=most, stop=self.batch.stop, on_step=self.on_step, unlisted=self.model.unlisted,
                budgets=budgets, said=said,
                listeners=None if waiting is None else [_Deaf(waiting[q]) for q in self.rows.question[rows]],
            )  # fmt: skip
        except NotFiniteError as error:
            error.row = int(self.rows.question[rows[error.row]])
            raise


class _Deaf:
    """Who waits for an answer, and does not hear tokens that may be drawn again."""

    def __init__(self, other: Listener) -> None:
        self.other = other

    @property
    def gone(self) -> bool:
        return self.other.gone

    def hear(self, branch: int, step: int, token: int, logprob: float | None, ended: bool) -> None:
        pass


class _Held(NamedTuple):
    """An answer, and log z of its tokens, the end token's included."""

    answer: Generation
    z: Float[np.ndarray, " length"]

    def then(self, begin: int, new: _Held) -> _Held:
        """Its first tokens, and then what is new."""
        pairs = {name: (getattr(self.answer, name)[:begin], getattr(new.answer, name)) for name in OF_TOKENS}
        arrays: dict[str, Any] = {name: np.concatenate(pair) for name, pair in pairs.items()}
        answer = replace(new.answer, **arrays, spent=begin + new.answer.spent)
        return _Held(answer, np.concatenate([self.z[:begin], new.z]))


class _Chains:
    """What each chain holds, and what its moves have cost."""

    def __init__(self, model: Model, batch: Batch, decoder: Power, on_step: OnStep | None) -> None:
        self.decoder = decoder
        self.answers = Answers(model, batch, decoder.samples, decoder.seed, on_step)
        count = len(self.answers.streams)
        self.held: list[_Held | None] = [None] * count
        self.accepted, self.moved = (np.zeros(count, dtype=np.int64) for _ in range(2))

    def numbers(self, block: int, until: int) -> Float[np.ndarray, "rows draws numbers"]:
        """Of each chain its numbers of a block."""
        return np.stack([numbers_of(stream, block, self.decoder.moves, until) for stream in self.answers.streams])

    def grow(self, numbers: Float[np.ndarray, "rows numbers"], until: int) -> None:
        """Continue what has not ended to a block's end."""
        length = np.array([0 if held is None else held.answer.spent for held in self.held])
        unended = np.array([held is None or held.answer.finish == "length" for held in self.held])
        rows = np.flatnonzero(unended)
        rows = rows[self.answers.wanted(rows) | (length[rows] == 0)]  # an answer has a token
        for row, new in zip(rows, self._drawn(rows, length[rows], until, numbers[rows, 2:]), strict=True):
            self.held[row] = new

    def move(self, numbers: Float[np.ndarray, "rows numbers"], until: int) -> None:
        """Draw the end of every answer again, and take it by the rule."""
        rows = np.arange(len(self.held))
        rows = rows[self.answers.wanted(rows)]
        old = [self._of(row) for row in rows.tolist()]
        length = np.array([one.answer.spent for one in old], dtype=np.int64)
        begins = (numbers[rows, 0] * length).astype(np.int64)
        tried = self._drawn(rows, begins, until, numbers[rows, 2:])
        for row, begin, one, other in zip(rows, begins, old, tried, strict=True):
            gain = other.z[begin:].sum() - one.z[begin:].sum()
            log_ratio = gain + np.log(one.answer.spent / other.answer.spent)
            self.moved[row] += 1
            if self.decoder.accept == "always" or np.log1p(-numbers[row, 1]) < log_ratio:  # 1 − u is above 0
                self.accepted[row] += 1
                self.held[row] = other

    def _of(self, row: int) -> _Held:
        held = self.held[row]
        assert held is not None
        return held

    def _drawn(
        self,
        rows: Int[np.ndarray, " some"],
        begins: Int[np.ndarray, " some"],
        until: int,
        uniform: Float[np.ndarray, "some until"],
    ) -> list[_Held]:
        """The answers of rows, drawn from their `begins` tokens on to an end or `until` tokens."""
        out: list[_Held | None] = [self.held[row] for row in rows]
        if not len(rows):
            return []
        said = [
            [] if held is None else held.answer.tokens[:begin].tolist() for held, begin in zip(out, begins, strict=True)
        ]
        for part in self.answers.parts(rows, said):
            room = until - begins[part]
            at = np.minimum(begins[part, None] + np.arange(room.max()), until - 1)  # a finished row is computed along
            policy = Proposals(self.decoder.alpha, uniform[part[:, None], at][:, None])
            budgets = (room - 1).tolist()  # which a branch ends by passing
            made = self.answers.decoded(rows[part], [said[n] for n in part], policy, int(room.max()), budgets)
            for number, z, (new,) in zip(part, policy.z[:, 0], made, strict=True):
                drawn, held = _Held(new, z[: new.spent]), out[number]
                out[number] = drawn if held is None else held.then(int(begins[number]), drawn)
                self.answers.spent[rows[number]] += new.spent
        return [one for one in out if one is not None]

    def finished(self) -> list[list[Generation]]:
        """For each question its chains' answers, with all tokens that were drawn for them."""
        rows, made = self.answers.rows, [list[Generation]() for _ in self.answers.batch.prompts]
        for row, (question, sample) in enumerate(zip(rows.question, rows.branch, strict=True)):
            made[question].append(
                replace(
                    self._of(row).answer,
                    spent=int(self.answers.spent[row]),
                    beside=int(sample > 0),  # each chain computes its prompt by itself
                    moves=int(self.moved[row]),
                    accepted=int(self.accepted[row]),
                )
            )
        return made
