"""Somebody who listens to an answer while it is decoded."""

from __future__ import annotations

from elicit.decoding.loop import Generation


class Ear:
    """Goes away after so many tokens of all branches; −1: never."""

    def __init__(self, until: int = -1) -> None:
        self.until, self.heard = until, 0
        self.tokens: dict[int, list[int]] = {}
        self.logprobs: dict[int, list[float | None]] = {}
        self.ended: list[int] = []

    @property
    def gone(self) -> bool:
        return 0 <= self.until <= self.heard

    def hear(self, branch: int, step: int, token: int, logprob: float | None, ended: bool) -> None:
        assert step == len(self.tokens.setdefault(branch, []))
        self.tokens[branch].append(token)
        self.logprobs.setdefault(branch, []).append(logprob)
        self.ended += [branch] if ended else []
        self.heard += 1

    def check(self, made: list[Generation], *, logprobs: bool = True) -> None:
        """What was heard is what was made, each token once, with its log-probability where that is told."""
        assert self.ended == sorted(self.ended, key=lambda n: made[n].spent)
        assert sorted(self.ended) == [n for n, one in enumerate(made) if one.finish != "length"]
        for n, one in enumerate(made):
            end = [] if one.end is None else [one.end]
            assert self.tokens[n] == [*one.tokens.tolist(), *end]
            assert not logprobs or self.logprobs[n][: len(one.tokens)] == one.logprob.tolist()
