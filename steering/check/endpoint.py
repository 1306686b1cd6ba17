"""Check steering that a server does, from outside: an OpenAI-compatible `/v1/completions` with log-probabilities.

The unsteered and the steered request differ in the fields of a plan. Half the prompts are asked unsteered first, the
other half steered first, each begun with digits of its own: a cache of prefixes that forgets who was steered then shows
as a decoding that is not the whole text of it (`echo`), whose prompt a server computes anew. Hook points, single
positions and scale lie inside the server and are said to be so.

A difference is judged beside what steering does to the same tokens. What a right server's rounding may do is no fault:
before anything is steered, other prompts are decoded and echoed, and how far these are apart says it. Where that is as
much as steering does, nothing holds.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.errors import UserError
from steering.check.completions import Said, Server
from steering.check.model import PROMPTS
from steering.check.report import FAILS, HOLDS, UNTOLD, Answer, SteeringReport
from steering.interventions import When

TOKENS = 6
CALM = 4  # prompts that are asked before anything is steered
SILENT = 1e-4  # nats
FAINT = 4.0  # unless rounding did so much: so often what it did is all that may be seen of a plan that is ignored
SAME, OTHER = 0.05, 0.2  # of what steering does to the same tokens: less is no difference, more a fault
ROUNDING, LEAST = 8.0, 0.02  # unless it is rounding: so often what that did, or so much of what steering does at most
FELT = 1e-3  # likewise: what the first steered position does at least
LEFT = 0.01  # of the probability: less than the likeliest leave at least, by rounding
FEW = 1 / 8  # of what steering does at most: where rounding does more, the first position may do too little to be seen
INSIDE = "lies inside the server; check the model that it serves with its hooks"


def check_endpoint(
    url: str,
    model: str,
    plan: Mapping[str, Any],
    *,
    expect: str = "everywhere",
    prompts: Sequence[str] = PROMPTS,
    tokens: int = TOKENS,
    timeout: float = 60.0,
    key: str = "",
) -> SteeringReport:
    """Whether a server steers the requests that ask for it, batched as singly, and no others.

    Args:
        url: of the server, with or without `/v1`.
        model: its name there.
        plan: the fields of a steered request, which an unsteered one lacks (or `{"model": …}` of the steered one).
        expect: where it is to act, as of `check_steering`.
        prompts: at least two.
        tokens: that are generated for each.
        timeout: seconds for one answer.
        key: a bearer token.

    Raises:
        UserError: no connection, no answer in time, an answer that is no JSON or holds no log-probabilities.
    """
    when = When.parse(expect)
    if not plan:
        raise UserError("an empty plan was given; give the fields that a steered request has")
    if len(prompts) < 2 or tokens < 2:
        raise UserError(f"{len(prompts)} prompts and {tokens} tokens were given; give at least 2 of each")
    texts, calm = (
        [f"{secrets.randbelow(90_000) + 10_000}. {one}" for one in some]
        for some in (prompts, [prompts[n % len(prompts)] for n in range(CALM)])
    )
    with Server(url, model, plan, timeout=timeout, key=key) as server:
        rounding = _rounding(server, calm, tokens)
        plain, steered = _asked(server, texts, tokens)
        again = server.one(texts[0], tokens)
        whole = _whole(server, texts, plain, steered)
        batches = server.together(texts, tokens)
    noise = max(rounding, _apart(plain[:1], [again]))
    effect = max([_apart(plain, steered), *([_echo_change(whole)] if whole else [])])
    few = all(len(top) <= 1 for one in (*plain, *steered) for top in one.top)
    about = f"{model} at {server.url}: {len(texts)} prompts, {tokens} tokens each"
    about += "; of each the chosen token's log-probability alone" if few else ""
    if effect <= max(SILENT, FAINT * noise):
        figure = f"log-probabilities change by {effect:.1e} nats (unsteered, by rounding: {noise:.1e})"
        if FAINT * noise > SILENT and effect > SILENT:
            figure += ": the plan is ignored, or rounding hides what it does; ask for more of it"
            return SteeringReport(about, (Answer("anything moved", UNTOLD, figure),))
        return SteeringReport(about, (Answer("anything moved", FAILS, figure, "nothing moved"),))
    floor = max(SILENT, ROUNDING * noise, LEAST * effect)
    moved = [_apart([a], [b]) for a, b in zip(plain, steered, strict=True)]
    answers = [
        Answer("anything moved", HOLDS, f"log-probabilities change by up to {effect:.3g} nats", "", {"nats": effect}),
        _first_position(when, whole, effect, noise),
        *_decoded(when, whole, plain, steered, floor),
        *_batched((plain, steered), batches, moved, floor),
        Answer("each position, hook point, scale", UNTOLD, INSIDE),
        _size(plain, steered, whole),
    ]
    return SteeringReport(about, tuple(answers))


def _rounding(server: Server, texts: Sequence[str], tokens: int) -> float:
    """How far unsteered decodings are from the whole texts of them, in nats; 0 where the server echoes nothing."""
    if not server.echoes(texts[0]):
        return 0.0
    said = [server.one(text, tokens) for text in texts]
    whole = [server.echo(text + one.text, steered=False) for text, one in zip(texts, said, strict=True)]
    pairs = zip(said, whole, strict=True)
    return max([0.0, *(nats for a, e in pairs if e.tokens[-len(a.tokens) :] == a.tokens for nats in _ends_apart(a, e))])


def _ends_apart(answer: Said, *echoes: Said) -> list[float]:
    """The difference of each token of an answer: from its echo, or of two echoes; 0 where one has no figure."""
    one, two = echoes if len(echoes) == 2 else (answer, *echoes)
    count = len(answer.tokens)
    pairs = zip(one.logprobs[-count:], two.logprobs[-count:], strict=True)
    return [0.0 if a is None or b is None else abs(a - b) for a, b in pairs]


def _asked(server: Server, texts: Sequence[str], tokens: int) -> tuple[list[Said], list[Said]]:
    """Each prompt unsteered and steered, in turn first."""
    plain, steered = [], []
    for n, text in enumerate(texts):
        order = (False, True) if n % 2 == 0 else (True, False)
        said = {one: server.one(text, tokens, steered=one) for one in order}
        plain.append(said[False])
        steered.append(said[True])
    return plain, steered


@dataclass(frozen=True)
class _Echo:
    """Whole texts, of the unsteered and of the steered answer, as the server reads them unsteered and steered."""

    plain: list[Said]
    plain_by_steered: list[Said]
    steered: list[Said]
    steered_by_plain: list[Said]


def _whole(server: Server, texts: Sequence[str], plain: Sequence[Said], steered: Sequence[Said]) -> _Echo | None:
    if not server.echoes(texts[0]):
        return None
    pairs = list(zip(texts, plain, steered, strict=True))
    return _Echo(
        [server.echo(text + p.text, steered=False) for text, p, _ in pairs],
        [server.echo(text + p.text, steered=True) for text, p, _ in pairs],
        [server.echo(text + s.text, steered=True) for text, _, s in pairs],
        [server.echo(text + s.text, steered=False) for text, _, s in pairs],
    )


def _tops(one: Said, two: Said) -> Iterable[tuple[Mapping[str, float], Mapping[str, float]]]:
    """The likeliest tokens of both wherever they have read the same."""
    for n, (a, b) in enumerate(zip(one.top, two.top, strict=False)):
        yield a, b
        if one.tokens[n] != two.tokens[n]:
            return


def _apart(one: Sequence[Said], two: Sequence[Said]) -> float:
    """The largest difference of a log-probability that both sides say."""
    found = [0.0]
    for a, b in zip(one, two, strict=True):
        for p, q in _tops(a, b):
            found += [abs(p[token] - q[token]) for token in p.keys() & q.keys()]
            if not p.keys() & q.keys():  # not one of the likeliest is the same
                found += [max(p.values()) - _at_most(q), max(q.values()) - _at_most(p)]
    return max(found)


def _at_most(top: Mapping[str, float]) -> float:
    """What the log-probability of a token is at most that is none of the likeliest."""
    rest = 1 - sum(math.exp(one) for one in top.values())
    return min(*top.values(), math.log(max(rest, LEFT)))


def _echo_change(whole: _Echo) -> float:
    return max(
        abs(a - b)
        for one, two in zip(whole.steered, whole.steered_by_plain, strict=True)
        for a, b in zip(one.logprobs, two.logprobs, strict=True)
        if a is not None and b is not None
    )


def _judged(name: str, nats: Sequence[float], moved: Sequence[float], floor: float, fault: str) -> Answer:
    """Differences of prompts or tokens, in what steering does to each."""
    shares = [one / max(by, floor) if one > floor else 0.0 for one, by in zip(nats, moved, strict=True)]
    share, most = max(shares), max(nats)
    hidden = (
        float(np.median(moved)) <= floor
    )  # steering, by rounding, in half of them: that nothing is seen says nothing
    verdict = FAILS if share > OTHER else UNTOLD if hidden or share > SAME else HOLDS
    told = f"{share:.1%} of what steering does there" if share else "no more than rounding"
    told += f", which may be {floor:.1e} and hides what steering does" if hidden and not share else ""
    figure = f"log-probabilities differ by {most:.1e} nats, {told}"
    return Answer(name, verdict, figure, fault if verdict == FAILS else "", {"nats": most, "share": share})


def _batched(
    singly: Sequence[Sequence[Said]], batches: Sequence[Sequence[Said]] | None, moved: Sequence[float], floor: float
) -> list[Answer]:
    """Each prompt alone against all in one request, unsteered and steered."""
    questions = (
        (1, "batched = single", "batch differs"),
        (0, "unsteered, batched = single", "unsteered rows steered"),
    )
    if batches is None:
        return [Answer(name, UNTOLD, "the server takes one prompt in a request") for _, name, _ in questions]
    return [
        _judged(name, [_apart([a], [b]) for a, b in zip(singly[n], batches[n], strict=True)], moved, floor, fault)
        for n, name, fault in questions
    ]


def _first_position(when: When, whole: _Echo | None, effect: float, noise: float) -> Answer:
    """The first position that is steered: the first whose next token has another log-probability."""
    name = "first position of the prompt"
    if whole is None:
        return Answer(name, UNTOLD, "the server echoes no prompt with log-probabilities")
    if when.positions is not None or when.first is not None:
        return Answer(name, UNTOLD, "an echo holds prompt and answer in one forward, and does not say where one ends")
    felt = max(SILENT, FELT * effect, FAINT * noise)
    if felt > FEW * effect:
        return Answer(name, UNTOLD, f"rounding of {noise:.1e} nats hides what one position does")
    found, wanted = [], []
    for one, two in zip(whole.steered, whole.steered_by_plain, strict=True):
        pairs = enumerate(zip(one.logprobs, two.logprobs, strict=True))
        change = {n: abs(a - b) for n, (a, b) in pairs if a is not None and b is not None}
        changed = [n for n, nats in change.items() if nats > felt]
        found.append(min(changed) - 1 if changed else None)
        wanted.append(min(change) - 1)
    early = sum(a == b for a, b in zip(found, wanted, strict=True))
    figure = f"position 0 is steered in {early} of {len(found)} prompts; whether each later one is cannot be seen"
    chance = early and felt > max(SILENT, FELT * effect)  # that one prompt's first position does less than rounding
    verdict = HOLDS if early == len(found) else UNTOLD if chance else FAILS
    return Answer(name, verdict, figure, "positions missing" if verdict == FAILS else "", {"first": found})


def _decoded(
    when: When, whole: _Echo | None, plain: Sequence[Said], steered: Sequence[Said], floor: float
) -> list[Answer]:
    """A decoding, with whatever the server cached, against the whole text in one forward."""
    out = []
    sides: list[tuple[list[Said], list[Said]] | None] = [None, None]
    if whole is not None:
        sides = [(whole.steered, whole.steered_by_plain), (whole.plain, whole.plain_by_steered)]
    for name, asked, echoes, fault in (
        ("decoding = whole text", steered, sides[0], "cached steps differ"),
        ("unsteered decoding = whole text", plain, sides[1], "unsteered request steered"),
    ):
        if echoes is None:
            out.append(Answer(name, UNTOLD, "the server echoes no prompt with log-probabilities"))
            continue
        echoed, otherwise = echoes
        if asked is steered and when.kind != "everywhere":
            out.append(Answer(name, UNTOLD, "a whole text does not say where its prompt ends"))
        elif not all(e.tokens[-len(a.tokens) :] == a.tokens for a, e in zip(asked, echoed, strict=True)):
            out.append(Answer(name, UNTOLD, "the server reads its own answers as other tokens"))
        else:
            nats = [one for a, e in zip(asked, echoed, strict=True) for one in _ends_apart(a, e)]
            moved = [one for three in zip(asked, echoed, otherwise, strict=True) for one in _ends_apart(*three)]
            out.append(_judged(name, nats, moved, floor, fault))
    return out


def least_kl(steered: Mapping[str, float], plain: Mapping[str, float]) -> float:
    """A lower bound of KL(steered ‖ unsteered) in nats, from the tokens that both name and all others as one."""
    both = sorted(steered.keys() & plain.keys())
    p, q = [math.exp(steered[t]) for t in both], [math.exp(plain[t]) for t in both]
    rest = max(1 - sum(p), 0.0), max(1 - sum(q), 1e-12)
    out = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0 and b > 0)
    return max(out + (rest[0] * math.log(rest[0] / rest[1]) if rest[0] > 0 else 0.0), 0.0)


def _size(plain: Sequence[Said], steered: Sequence[Said], whole: _Echo | None) -> Answer:
    sides = (steered, plain) if whole is None else (whole.steered, whole.steered_by_plain)
    found = [least_kl(a, b) for one, two in zip(*sides, strict=True) for a, b in _tops(one, two) if a and b]
    median, most = (float(np.quantile(found, q)) for q in (0.5, 0.95))
    figure = f"KL at least {median:.2g} nats (95%: {most:.2g}), from the likeliest tokens of {len(found)} positions"
    return Answer("size", HOLDS, figure, "", {"kl_median": median, "kl_95": most, "positions": len(found)})
