"""A client of `/v1/completions` for log-probabilities; whatever a server says is data, and is printed harmlessly.

A server may refuse several prompts in one request, and more than the chosen token's log-probability: each is tried.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probes.errors import UserError

TOP = 5  # the likeliest tokens that are asked for: what OpenAI's interface grants
MOST_BYTES = 64 << 20
REFUSES = (400, 422)  # statuses of a request whose fields a server does not take


@dataclass(frozen=True)
class Said:
    """One choice.

    Args:
        text: what was generated (echoed: all of it).
        tokens: of it, as text.
        logprobs: of each; None where there is none (the first of a prompt).
        top: the likeliest tokens where each was chosen.
    """

    text: str
    tokens: list[str]
    logprobs: list[float | None]
    top: list[dict[str, float]]


class Refusal(UserError):
    """A server does not take the fields of a request."""


class Server:
    """A server, with the fields of a steered request.

    Attributes:
        top: how many of the likeliest tokens it is asked for; fewer where it refuses so many.

    Raises:
        UserError: an address that is none.
    """

    top = TOP

    def __init__(self, url: str, model: str, plan: Mapping[str, Any], *, timeout: float, key: str) -> None:
        import httpx2

        if not url.startswith(("http://", "https://")):
            raise UserError(f"endpoint {url!r} was given; give an address like http://localhost:8000")
        if not 0 < timeout < math.inf:
            raise UserError(f"timeout {timeout} was given; give seconds above 0")
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1/completions"
        self.model, self.plan, self.timeout = model, dict(plan), timeout
        self.client = httpx2.Client(timeout=timeout, headers={"Authorization": f"Bearer {key}"} if key else {})

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def one(self, prompt: str, tokens: int, *, steered: bool = False) -> Said:
        return self.ask([prompt], tokens, steered=steered)[0]

    def ask(self, prompts: Sequence[str], tokens: int, *, steered: bool) -> list[Said]:
        """Greedy continuations, in one request.

        Raises:
            UserError: no connection, no answer in time, another number of choices, no log-probabilities.
        """
        answer = self._post(_field(prompts, tokens), steered)
        said = _choices(answer, len(prompts), self.url)
        if any(not one.tokens and not one.text for one in said):
            raise UserError(f"{self.url} generated nothing after a prompt; give prompts after which it says something")
        if any(not one.tokens or None in one.logprobs for one in said):
            raise UserError(f"{self.url} gave no log-probabilities of what it generated; the check stands on them")
        return said

    def together(self, prompts: Sequence[str], tokens: int) -> list[list[Said]] | None:
        """Greedy continuations of all prompts in one request, unsteered and steered; None where the server takes one
        prompt at a time.

        Raises:
            UserError: as `ask`.
        """
        try:
            plain = self.ask(prompts, tokens, steered=False)
        except Refusal:
            return None
        return [plain, self.ask(prompts, tokens, steered=True)]

    def echoes(self, prompt: str) -> bool:
        """Whether the server gives log-probabilities of a prompt: tried once, where a refusal is an answer."""
        response = self._asked({**_field([prompt], 1), "echo": True}, steered=False)
        if response[0] != 200:
            return False
        (said,) = _choices(self._read(*response), 1, self.url)
        return len(said.logprobs) > 2 and None not in said.logprobs[1:]

    def echo(self, text: str, *, steered: bool) -> Said:
        """A text with the log-probability of each of its tokens, and not of the one that is generated after it."""
        answer = self._post({**_field([text], 1), "echo": True}, steered)
        (said,) = _choices(answer, 1, self.url)
        usage = answer.get("usage")
        made = usage.get("completion_tokens") if isinstance(usage, dict) else 1
        keep = len(said.tokens) - (made if made in (0, 1) else 1)
        return Said(text, said.tokens[:keep], said.logprobs[:keep], said.top[:keep])

    def _post(self, body: dict[str, Any], steered: bool) -> dict[str, Any]:
        return self._read(*self._asked(body, steered=steered))

    def _asked(self, body: dict[str, Any], *, steered: bool) -> tuple[int, bytes]:
        """The answer, with fewer log-probabilities where so many are what is refused."""
        response = self._send({**body, "logprobs": self.top}, steered=steered)
        if response[0] in REFUSES and self.top > 1:
            fewer = self._send({**body, "logprobs": 1}, steered=steered)
            if fewer[0] == 200:
                self.top, response = 1, fewer
        return response

    def _send(self, body: dict[str, Any], *, steered: bool) -> tuple[int, bytes]:
        import httpx2

        given = {"model": self.model, **body, **(self.plan if steered else {})}
        try:
            with self.client.stream("POST", self.url, json=given) as response:
                content = b""
                for part in response.iter_bytes():
                    content += part
                    if len(content) > MOST_BYTES:
                        raise UserError(
                            f"{self.url} answered with more than {MOST_BYTES >> 20} MiB; ask another server"
                        )
                return response.status_code, content
        except httpx2.ConnectError as error:
            raise UserError(
                f"{self.url} took no connection ({error}); start the server, or give its address"
            ) from error
        except httpx2.TimeoutException as error:
            raise UserError(f"{self.url} gave no answer in {self.timeout:g} s; give a longer --timeout") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UserError(f"{self.url} broke off ({harmless(str(error))}); look at the server") from error

    def _read(self, status: int, content: bytes) -> dict[str, Any]:
        shown = harmless(content[:300].decode(errors="replace"))
        if status != 200:
            kind = Refusal if status in REFUSES else UserError
            raise kind(f"{self.url} answered {status}: {shown}; check --model and --plan")
        try:
            found = json.loads(content)
        except ValueError as error:
            raise UserError(
                f"{self.url} answered what is no JSON: {shown}; give an OpenAI-compatible server"
            ) from error
        if not isinstance(found, dict):
            raise UserError(f"{self.url} answered JSON that is no object: {shown}; look at the server")
        return found


def harmless(text: str) -> str:
    """Text of others, in one line without control characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:200]


def _field(prompts: Sequence[str], tokens: int) -> dict[str, Any]:
    asked = prompts[0] if len(prompts) == 1 else list(prompts)
    return {"prompt": asked, "max_tokens": tokens, "temperature": 0, "seed": 0}


def _choices(answer: Mapping[str, Any], count: int, url: str) -> list[Said]:
    found = answer.get("choices")
    if not isinstance(found, list) or len(found) != count:
        given = len(found) if isinstance(found, list) else "no"
        raise UserError(f"{url} gave {given} choices for {count} prompts; look at the server")
    out = []
    for choice in sorted(found, key=lambda one: one.get("index", 0) if isinstance(one, dict) else 0):
        of = choice.get("logprobs") if isinstance(choice, dict) else None
        if not isinstance(of, dict):
            raise UserError(f"{url} gave no logprobs; the check stands on them: let the server give them")
        out.append(_said(str(choice.get("text", "")), of, url))
    return out


def _said(text: str, of: Mapping[str, Any], url: str) -> Said:
    tokens, logprobs = of.get("tokens") or [], of.get("token_logprobs") or []
    top = of.get("top_logprobs") or [None] * len(tokens)
    numbers = [*logprobs, *(value for one in top if isinstance(one, dict) for value in one.values())]
    named = all(one is None or isinstance(one, dict) for one in top)
    if not (named and len(tokens) == len(logprobs) == len(top)) or any(
        not isinstance(one, int | float) or math.isnan(one) for one in numbers if one is not None
    ):
        raise UserError(f"{url} gave logprobs of another form than tokens, token_logprobs, top_logprobs; check it")
    tokens = [str(one) for one in tokens]
    pairs = zip(tokens, logprobs, top, strict=True)  # where no others are named the token itself is
    return Said(text, tokens, list(logprobs), [dict(t or ({} if p is None else {one: p})) for one, p, t in pairs])
