"""The names that are served, and the answers to a batch of requests.

A chat is put as the method puts a question, so that the text of one user message is that of `evaluate`; several turns
and a system message go into that prompt, which has to be `chat`. A completion's prompt is put as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from elicit.decoding.answering import Draft
from elicit.decoding.decoders import Greedy, RngStream, Sampling
from elicit.decoding.loop import Listener
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited, respond_together
from elicit.integrations.serve.requests import Asked, Chat, Completion, Steering
from elicit.models.turns import put
from elicit.tasks.answers import KINDS, Kind
from probes.encoding import encoded
from probes.errors import UserError, unknown
from probes.sites import Site
from steering.directions import Direction
from steering.interventions import Add, Intervention, Plan, ProjectOut, When

NEUTRAL = {"top_p": 1, "top_k": 0, "min_p": 0}  # filters of what is drawn, and the values that take nothing out


@dataclass(frozen=True)
class Job:
    """A request that was read: the handle that answers it, and how.

    Args:
        handle: with the request's own decoder and plan.
        prompt: token ids.
        begun: the mark of a thought that the prompt ends in, or "".
        kind: of the answer that is looked for.
        stream: of its random numbers.
        stop: strings at which an answer ends.
        choices: how many answers are given back: all samples, or the one that is chosen.
    """

    handle: Elicited
    prompt: list[int]
    begun: str
    kind: Kind
    stream: RngStream
    stop: tuple[str, ...]
    choices: int

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What requests must have in common to be decoded together."""
        return self.handle.batch_key, self.stop

    @property
    def rows(self) -> int:
        return self.handle.decoder.branches

    @property
    def flows(self) -> bool:
        """Whether every branch is given back, so that its text can be sent before the answer is whole."""
        return self.rows == self.choices


@dataclass(frozen=True)
class Answers:
    """Of one request: all branches, and which of them are given back."""

    job: Job
    traces: list[Trace]
    chosen: list[int]

    @property
    def spent(self) -> int:
        return sum(trace.spent for trace in self.traces)


@dataclass
class Served:
    """Handles by the name under which they are asked.

    Args:
        handles: of one base model.
        vectors: that plans may name, each with the site at which it was found.
        most: the limit of new tokens of an answer; a handle's own where that is smaller and none is asked for.
        kind: of the answer that is looked for unless a request says so; "" where it has to.
    """

    handles: Mapping[str, Elicited]
    vectors: Mapping[str, Plan] = field(default_factory=dict)
    most: int = 1024
    kind: str = ""

    def job(self, asked: Asked) -> Job:
        """What a request asks for; a completion has one prompt (`Completion.each`).

        Raises:
            UserError: an unknown name, a field that this mechanism cannot honour, a plan that does not fit.
        """
        if asked.model not in self.handles:
            raise UnknownModel(str(unknown("model", asked.model, self.handles)))
        handle = self.handles[asked.model]
        if asked.limit is not None and asked.limit > self.most:
            raise UserError(f"{asked.limit} new tokens were asked for; this server gives at most {self.most}")
        decoder, choices = _decoder(handle, asked, min(asked.limit or handle.decoder.max_new_tokens, self.most))
        plan = tuple(self._intervention(one) for one in asked.plan or ())
        if plan and handle.partner is not None:
            raise UserError(f"a plan was given to {asked.model}, which steers by its own vectors alone; leave it out")
        if asked.plan is not None or decoder != handle.decoder:
            handle = replace(handle, decoder=decoder, interventions=(*handle.interventions, *plan))
        prompt, begun = _prompt(handle, asked)
        stream = RngStream(_seed(handle, asked), asked.sample_id, asked.epoch)
        own = () if isinstance(asked, Completion) else handle.prompt.stop  # a text that is put as it is ends as asked
        stops = (*own, *(one for one in asked.stops if one not in own))
        return Job(handle, prompt, begun, self._kind(handle, asked), stream, stops, choices)

    def _kind(self, handle: Elicited, asked: Asked) -> Kind:
        given = asked.kind or self.kind
        if not given:
            if handle.select != "greedy":
                raise UserError(
                    f"{asked.model} chooses among answers, and needs to know their kind: send kind, "
                    f"one of {', '.join(KINDS)}"
                )
            given = "text"
        if given not in KINDS:
            raise unknown("kind of answer", given, KINDS)
        return given  # type: ignore[return-value]

    def _intervention(self, one: Steering) -> Intervention:
        positions = None if one.positions is None else tuple(one.positions)
        when = When(first=one.first, stop=one.stop, positions=positions)
        if isinstance(one.vector, str):
            if one.vector not in self.vectors:
                raise unknown("vector", one.vector, self.vectors)
            if one.layer is not None:
                raise UserError(f"vector {one.vector!r} has its own layers; leave layer out")
            (base,) = self.vectors[one.vector]
            return replace(base, strength=base.strength * one.strength, when=when)
        if one.layer is None:
            raise UserError("a vector was given by its numbers without its layer; give layer")
        direction = Direction(torch.tensor(one.vector), Site(one.layer, one.point))
        what = Add(direction) if one.what == "add" else ProjectOut(direction)
        return Intervention(what, one.strength, when=when)

    def answer(self, jobs: Sequence[Job], listeners: Sequence[Listener]) -> list[Answers]:
        """Answer requests that share a `Job.key`, in one batch; each has somebody who waits for it."""
        drafts = respond_together(
            [(job.handle, [job.prompt], [job.stream]) for job in jobs],
            [[job.kind] for job in jobs],
            stop=jobs[0].stop,
            begun=[job.begun for job in jobs],
            listeners=listeners,
        )
        return [_chosen(job, found) for job, (found,) in zip(jobs, drafts, strict=True)]


class UnknownModel(UserError):
    """A name that is not served."""


def _chosen(job: Job, drafts: Sequence[Draft]) -> Answers:
    traces, verdict = job.handle.chosen(drafts, job.kind, item=job.stream.sample)
    if job.choices > 1:
        return Answers(job, traces, list(range(len(traces))))
    return Answers(job, traces, [next(n for n, t in enumerate(traces) if t.index == verdict.branch)])


def _seed(handle: Elicited, asked: Asked) -> int:
    return int(getattr(handle.decoder, "seed", 0)) if asked.seed is None else asked.seed


def _decoder(handle: Elicited, asked: Asked, limit: int) -> tuple[Any, int]:
    """The handle's decoder as a request wants it, and how many answers are given back."""
    own = replace(handle.decoder, max_new_tokens=limit)  # type: ignore[type-var]
    how = {"temperature": asked.temperature, "top_p": asked.top_p, "top_k": asked.top_k, "min_p": asked.min_p}
    given: dict[str, Any] = {key: value for key, value in how.items() if value is not None}
    count = asked.n or 1
    if isinstance(own, Sampling):
        if given.get("temperature") == 0:
            raise UserError(f"temperature 0 was given to {asked.model}, which samples; leave it out, or ask direct")
        if count > 1:
            raise UserError(f"n = {count} was given to {asked.model}, which chooses among samples; leave n out")
        return replace(own, **given), 1
    if not isinstance(own, Greedy):
        drawn = {key for key, value in given.items() if (key, value) not in (("temperature", 0), ("top_p", 1))}
        if drawn or count > 1:
            told = ", ".join(sorted(drawn) or ["n"])
            raise UserError(f"{told} was given to {asked.model}, which decodes in its own way; leave it out")
        return own, 1
    filters = [] if "temperature" in given else sorted(key for key, value in given.items() if value != NEUTRAL[key])
    if filters:
        told = f"{', '.join(filters)} {'were' if len(filters) > 1 else 'was'} given to {asked.model}"
        raise UserError(f"{told} without a temperature; give a temperature above 0 as well")
    if given.get("temperature", 0) == 0:
        if count > 1:
            raise UserError(f"n = {count} was given with temperature 0: one text, several times; give a temperature")
        return own, 1
    return Sampling(count, **given, seed=asked.seed or 0, max_new_tokens=limit), count


def _prompt(handle: Elicited, asked: Asked) -> tuple[list[int], str]:
    """Token ids, and the mark of a thought that they end in, or ""."""
    tokenizer = handle.model.tokenizer
    if isinstance(asked, Completion):
        given: Any = asked.prompt  # one, as `Completion.each` has them
        if not isinstance(given, str):
            size = handle.model.vocab_size
            if not all(0 <= token < size for token in given):
                raise UserError(f"a prompt holds ids that are none of this model's; give ids from 0 to {size - 1}")
            return list(given), ""
        return encoded(tokenizer, given), ""
    assert isinstance(asked, Chat)
    turns = [("system" if m.role == "developer" else m.role, m.text) for m in asked.messages]
    roles = [role for role, _ in turns]
    if "system" in roles[roles.count("system") :]:
        raise UserError("a system message was given after another; give it first")
    prompt, question = put(handle.prompt, turns, "send one user message, or serve the method with --put chat")
    return prompt.ids(question, tokenizer), prompt.begun(question, tokenizer)
