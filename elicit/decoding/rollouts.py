"""The power distribution of a model token by token, its future estimated by rollouts (arXiv 2601.21590, algorithm 1).

Of a whole answer pᵅ has the next-token law p(v | x_<t)ᵅ ζ(v) / Σ_v, where ζ(v) = Σ_y p(y | x_<t, v)ᵅ goes over all that
can follow v (theorem 3.1). It is estimated for the likeliest tokens alone, by rollouts of at most so many tokens. The
law is a ratio of estimates, whose bias falls as one over their number: the jackknife over rollouts, each left out for
all candidates at once, takes the first order away; what it puts below 0 is 0 (equations 3 to 6).

With as many candidates as there are tokens, and a horizon as far as the limit, the law is that of pᵅ as rollouts grow;
with fewer it is not, however many.

Departures:
- rollouts are drawn from pᵅ normalised at each token (temperature 1/α), not from p. The mean of Π_t Σ_v p(v | x_<t)ᵅ
  over them is ζ as well, and varies less than that of p(y)ᵅ⁻¹ over the model's own (arXiv 2602.10273 shows that no
  other proposal by the prefix alone varies less).
- an end token is a candidate as any other, with nothing after it: ζ = 1.
- the paper's blocks of several tokens, drawn at once, are not built.

A token computes the token before it in one forward (`elicit.decoding.kept_texts`), and then one forward a token for all
rollouts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import logsumexp, softmax
from torch import Tensor

from elicit.decoding.decoders.power import PowerRollouts
from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.engine import Batch
from elicit.decoding.loop import Generation, OnStep, Rows
from elicit.decoding.packed_weights import packed
from elicit.decoding.power import Answers, Proposals, check_power
from elicit.decoding.record import Record, measured
from elicit.models.model import Model
from probes.confidence import Top2, top2

WIDEST = 512  # rollouts that are decoded together, about


def law(
    logp: Float[np.ndarray, "rows candidates"], futures: Float[np.ndarray, "rows candidates rollouts"], alpha: float
) -> Float[np.ndarray, "rows candidates"]:
    """The next-token law by equations 4 to 6.

    Args:
        logp: log p of each candidate.
        futures: log of each rollout's weight, whose mean is ζ.
        alpha: the power.
    """
    count = futures.shape[-1]
    whole: np.ndarray = softmax(alpha * logp + logsumexp(futures, -1), -1)
    if count == 1:
        return whole
    left_out = [softmax(alpha * logp + logsumexp(np.delete(futures, k, -1), -1), -1) for k in range(count)]
    found = np.maximum(0.0, count * whole - (count - 1) * np.mean(left_out, 0))
    return found / found.sum(-1, keepdims=True)  # before it is cut at 0 it sums to 1


def numbers_of(stream: RngStream, step: int, rollouts: int, tokens: int) -> Float[np.ndarray, "rollouts tokens"]:
    """Numbers in [0, 1) of the tokens of a step's rollouts, candidate after candidate."""
    drawn = stream._replace(sample=f"{stream.sample}\x00step {step}").uniform(rollouts * tokens)
    return drawn.reshape(rollouts, tokens)


class _Ahead(Proposals):
    """A policy of the loop whose branches begin with the likeliest tokens and go on from pᵅ."""

    def __init__(self, alpha: float, candidates: int, uniform: Float[np.ndarray, "questions branches tokens"]) -> None:
        super().__init__(alpha, uniform)
        self.candidates = candidates
        self.logits = self.logp = self.ids = torch.empty(0)

    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        self.logits = logits
        self.logp, self.ids = torch.log_softmax(logits.float(), -1).topk(self.candidates, -1)
        return self.ids.repeat_interleave(self.uniform.shape[1] // self.candidates, 1)

    def next(
        self, logits: Float[Tensor, "rows vocab"], top: Top2 | None, rows: Rows, step: int
    ) -> Int[Tensor, " rows"]:
        return super().next(logits, top, rows, step - 1)


@torch.inference_mode()
def rollout_samples(model: Model, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
    """For each prompt its samples, with all tokens that were drawn for them.

    Raises:
        UserError: interventions or a budget of thoughts, which rollouts do not carry; as `elicit.decoding.loop.decode`.
    """
    decoder = batch.decoder
    assert isinstance(decoder, PowerRollouts)
    check_power(model, batch)
    answers = Answers(model, batch, decoder.samples, decoder.seed, on_step)
    made = _Tokens(answers, decoder)
    open_rows = np.arange(len(answers.streams))
    with packed(model.lm):
        for step in range(decoder.max_new_tokens):
            if len(open_rows):
                open_rows = made.step(open_rows, step)
    return made.finished()


class _Tokens:
    """What has been said in each answer, and the next token of all that are open."""

    def __init__(self, answers: Answers, decoder: PowerRollouts) -> None:
        self.answers, self.decoder = answers, decoder
        batch, lm, limit = answers.batch, answers.model.lm, decoder.max_new_tokens
        self.record = Record(answers.rows, limit, batch.stop, lm, listeners=batch.listeners)
        self.choice = np.stack([stream.uniform(limit) for stream in answers.streams])
        self.candidates = min(decoder.candidates, answers.model.choices)

    def step(self, rows: Int[np.ndarray, " some"], step: int) -> Int[np.ndarray, " open"]:
        """Write the next token of answers; which stay open."""
        together = max(1, WIDEST // self.decoder.ahead)
        said = [self.record.tokens[row, :step].tolist() for row in rows]
        is_open = np.ones(len(rows), dtype=bool)
        for part in self.answers.parts(rows, said):
            for some in np.split(part, range(together, len(part), together)):
                is_open[some] = ~self._written(rows[some], [said[n] for n in some], step)
        return rows[is_open]

    def _written(self, rows: Int[np.ndarray, " some"], said: list[list[int]], step: int) -> Bool[np.ndarray, " some"]:
        """Write the next token of answers that are computed together; which end."""
        decoder = self.decoder
        tokens = min(decoder.horizon, decoder.max_new_tokens - 1 - step) if decoder.rollouts else 0
        each = decoder.rollouts if tokens else 1
        streams = [self.answers.streams[row] for row in rows]
        uniform = np.stack([numbers_of(stream, step, self.candidates * each, tokens) for stream in streams])
        policy = _Ahead(decoder.alpha, self.candidates, uniform)
        drawn = self.answers.decoded(rows, said, policy, 1 + tokens)
        lengths = np.array([[one.spent - 1 for one in branches] for branches in drawn])
        weights = np.where(np.arange(tokens) < lengths[..., None], policy.z, 0.0).sum(-1)
        futures = weights.reshape(len(rows), self.candidates, each)
        if decoder.futures == "exchanged":
            futures = np.roll(futures, 1, axis=1)
        p = law(policy.logp.double().cpu().numpy(), futures, decoder.alpha)
        at = (p.cumsum(-1) <= self.choice[rows, step, None]).sum(-1).clip(max=self.candidates - 1)
        chosen = policy.ids.gather(1, torch.from_numpy(at)[:, None].to(policy.ids.device))[:, 0]
        self.answers.spent[rows] += lengths.sum(-1) + 1
        logits = policy.logits
        values = measured(logits, top2(logits), chosen, self.record.head.to(logits.device), None).cpu().numpy()
        return self.record.write(rows, np.full(len(rows), step), chosen.cpu().numpy(), values)

    def finished(self) -> list[list[Generation]]:
        """For each question its answers, with all tokens that were drawn for them."""
        made, rows = self.record.finished(), self.answers.rows
        for spent, question, sample in zip(self.answers.spent, rows.question, rows.branch, strict=True):
            # Each sample computes its prompt by itself.
            made[question][sample] = replace(made[question][sample], spent=int(spent), beside=int(sample > 0))
        return made
