"""Prompts that leave one text at places of their own are answered as each of them alone."""

from __future__ import annotations

import pytest

from elicit.decoding import Sampling, StopRule, cache, decode, loop
from elicit.decoding.trunk import Trunk, TrunkState, can_leave
from tests.support.tiny import VOCAB, tiny_model

TEXTS = [[5, 9, 3, 7, 11, 2, 8, 40], [41, 42, 43, 44, 45]]
OF = [0] * 8 + [1] * 4
CUT = [*range(1, 9), 1, 3, 4, 5]
OWN = [20, 21]
PROMPTS = [[*TEXTS[n][:cut], *OWN] for n, cut in zip(OF, CUT, strict=True)]


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt_neox"])
@pytest.mark.parametrize("texts", [1, 2])
def test_answers_are_those_of_the_prompts_alone(architecture: str, texts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(architecture)
    count = OF.count(0) if texts == 1 else len(OF)
    trunk, prompts = Trunk(TEXTS[:texts], OF[:count], CUT[:count]), PROMPTS[:count]
    # End tokens, so that rows end at different steps and are dropped, texts with them.
    stop = StopRule(frozenset(range(0, VOCAB, 5)))
    opened: list[TrunkState] = []

    def counted(*args: object) -> TrunkState:
        opened.append(TrunkState(*args))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(loop, "TrunkState", counted)
    streams = [f"position {n}" for n in range(count)]
    policy = Sampling(3, 1.0, max_new_tokens=12)
    found = decode(model, prompts, policy.policy(streams, VOCAB), max_new_tokens=12, stop=stop, trunk=trunk)
    used = cache.supports_shared_prefix(model) and can_leave(model, 8 + 2 + 12)
    assert bool(opened) == used
    for prompt, stream, branches in zip(prompts, streams, found, strict=True):
        (alone,) = decode(model, [prompt], policy.policy([stream], VOCAB), max_new_tokens=12, stop=stop)
        for one, other in zip(branches, alone, strict=True):
            assert one.tokens.tolist() == other.tokens.tolist() and one.finish == other.finish
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_some_architecture_shares_its_text() -> None:
    assert can_leave(tiny_model("llama"), 200) and not can_leave(tiny_model("mistral"), 7)


@pytest.mark.parametrize(
    ("of", "cut", "words"),
    [([1, 0], [1, 1], "in the order"), ([0, 0], [1, 1], "in the order"), ([0, 1], [0, 1], "at least one token")],
)
def test_what_is_no_trunk(of: list[int], cut: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Trunk(TEXTS, of, cut)


def test_prompts_that_do_not_fit() -> None:
    trunk = Trunk(TEXTS, [0, 1], [2, 2])
    with pytest.raises(ValueError, match="one number of tokens"):
        trunk.after([[5, 9, 1], [41, 42, 1, 1]])
    with pytest.raises(ValueError, match="does not begin"):
        trunk.after([[5, 8, 1], [41, 42, 1]])
    assert trunk.after([[5, 9, 1], [41, 42, 1]]) == 1
