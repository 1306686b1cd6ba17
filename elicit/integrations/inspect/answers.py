"""From drafts to Inspect's output: the chosen branch first, and Δ, steering, all branches' tokens and where all of it
comes from as plain JSON in `ModelOutput.metadata["elicit"]`, since Inspect's log turns what is not JSON into null.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    Logprob,
    Logprobs,
    ModelOutput,
    ModelUsage,
    StopReason,
    TopLogprob,
)

import elicit
from elicit.decoding.answering import Draft
from elicit.decoding.selection import Verdict
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.integrations.inspect.arguments import Asked
from elicit.integrations.inspect.reading import Position, keep, positions
from elicit.integrations.inspect.requests import Request
from probes.offsets import decoded

FINISH: dict[str, StopReason] = {"eos": "stop", "stop": "stop", "length": "max_tokens"}


def output(
    model: str, asked: Asked, handle: Elicited, request: Request, drafts: Sequence[Draft], together: int, seconds: float
) -> ModelOutput:
    """What Inspect is answered.

    Args:
        model: its name there.
        asked: the handle as it was asked for.
        handle: that answered.
        request: what it was asked.
        drafts: its branches.
        together: requests of the batch.
        seconds: that the batch took.
    """
    kind = request.kind or "whole"
    traces, verdict = handle.chosen(drafts, kind, item=request.stream.sample, grader=asked.grader)
    first = 0 if verdict.branch is None else next(n for n, t in enumerate(traces) if t.index == verdict.branch)
    order = [first, *(n for n in range(len(traces)) if n != first)]
    read: dict[int, list[Position]] = {}
    if request.alternatives or request.prompt_alternatives:
        most = max(request.alternatives, request.prompt_alternatives)
        wanted = order[: request.choices] if request.alternatives else order[:1]
        read = {n: positions(handle, request.ids, traces[n].tokens, most) for n in wanted}
    choices = [_choice(model, handle, request, traces[n], read.get(n)) for n in order[: request.choices]]
    if request.prompt_alternatives:
        before = read[first][: len(request.ids) - 1]
        choices[0].prompt_logprobs = Logprobs(
            content=[_logprob(handle, one, request.prompt_alternatives) for one in before]
        )
    about = _about(asked, handle, request, traces, verdict, together)
    if asked.activations is not None:
        name = [handle.decode_key, *request.stream]
        path = traces[first].tokens
        about["activations"] = keep(handle, request.ids, path, asked.sites, asked.activations, name)
    spent = sum(trace.spent for trace in traces)
    return ModelOutput(
        model=model,
        choices=choices,
        usage=ModelUsage(input_tokens=len(request.ids), output_tokens=spent, total_tokens=len(request.ids) + spent),
        time=seconds,
        metadata={"elicit": json.loads(json.dumps(about, allow_nan=False))},
    )


def _choice(
    model: str, handle: Elicited, request: Request, trace: Trace, read: Sequence[Position] | None
) -> ChatCompletionChoice:
    logprobs = None
    if request.logprobs:
        starts = [0, *trace.ends[:-1]]
        shown = [n for n, start in enumerate(starts[: len(trace.tokens)]) if start < len(trace.text)]
        answer = None if read is None else read[len(request.ids) - 1 :]
        logprobs = Logprobs(
            content=[
                Logprob(
                    token=trace.pieces[n],
                    logprob=trace.logprob[n],
                    top_logprobs=_top(handle, answer[n], request.alternatives) if answer else None,
                )
                for n in shown
            ]
        )
    return ChatCompletionChoice(
        message=ChatMessageAssistant(content=trace.text, model=model, source="generate"),
        stop_reason=FINISH[trace.finish],
        logprobs=logprobs,
    )


def _logprob(handle: Elicited, one: Position, most: int) -> Logprob:
    token = decoded(handle.model.tokenizer, [one.token])
    return Logprob(token=token, logprob=one.logprob, top_logprobs=_top(handle, one, most))


def _top(handle: Elicited, one: Position, most: int) -> list[TopLogprob]:
    return [
        TopLogprob(token=decoded(handle.model.tokenizer, [token]), logprob=logprob) for token, logprob in one.top[:most]
    ]


def _about(
    asked: Asked, handle: Elicited, request: Request, traces: Sequence[Trace], verdict: Verdict, together: int
) -> dict[str, Any]:
    model, stream = handle.model, request.stream
    found = request.kind is not None
    about: dict[str, Any] = {
        "version": elicit.__version__,
        "made_of": dict(asked.source),
        "model": model.describe(),
        "decode_key": handle.decode_key,
        "select": handle.select,
        "kind": request.kind,
        "answer": verdict.answer if found else None,
        "delta": next((t.delta for t in traces if t.index == verdict.branch), None) if found else None,
        "branch": verdict.branch,
        "fallback": verdict.fallback,
        "rng_stream": {"seed": stream.seed, "sample": stream.sample, "epoch": stream.epoch},
        "batch": together,
        "branches": [_branch(trace, found) for trace in traces],
    }
    if request.seen:
        about["seen"] = request.seen
    if handle.interventions:
        about["interventions"] = [one.describe() for one in handle.interventions]
    if handle.partner is not None:
        about["partner"] = handle.partner.digest
    if handle.mixing is not None:
        about["mixing"] = handle.mixing.digest
    if handle.adapter is not None:
        about["adapter"] = handle.adapter.sha256
    return about


def _branch(trace: Trace, found: bool) -> dict[str, Any]:
    """What the log keeps of a branch; no score: grading is Inspect's."""
    kept = ("index", "text", "tokens", "finish", "spent", "forwards")
    answers = ("answer", "delta", "dropped", "span", "found_by")
    branch = {name: getattr(trace, name) for name in (*kept, *(answers if found else ()))}
    branch["logprob"] = trace.total_logprob
    if trace.moved:
        branch |= {"moved": trace.moved, "prompt_moved": trace.prompt_moved}
    return branch
