"""Predictions of what comes next in a text: against the bytes of its tokens, read from boxes, filtered by entropy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest
import torch

from elicit.models import Model
from elicit.tasks.base import Items
from elicit.training.rl.learner import learner
from elicit.training.rl.next_token import PrefixMatch, entropies, is_prefix, last_box
from elicit.training.rl.positions import positions, put, tokenized
from elicit.training.rl.rewards import Rollout
from elicit.training.rl.settings import Settings
from probes.encoding import encoded
from probes.errors import UserError
from tests.support.tokenizers import byte_level, sentence_piece

SETTINGS = Settings(rank=2, seed=3)
SAID = "the theme is 17 \N{EURO SIGN} {or} é."


def slow(prediction: str, tokens: Sequence[bytes]) -> bool:
    """Eq. 4 of arXiv 2506.08007: y is a prefix of the bytes that come next, and ends where one of their tokens does."""
    whole, y = b"".join(tokens), prediction.encode()
    return whole[: len(y)] == y and len(y) in set(accumulate(map(len, tokens)))


@pytest.mark.parametrize("made", [byte_level, sentence_piece])
def test_a_prediction_ends_where_a_token_does(made: Any) -> None:
    tokenizer = made()
    ids = encoded(tokenizer, SAID)
    text, right = tokenizer.decode(ids), 0
    # The bytes that each token adds: what is decoded before it is complete is taken back to whole characters.
    ends = [tokenizer.decode(ids[: n + 1]) for n in range(len(ids))]
    for at in range(1, len(ids)):
        begin = ends[at - 1]
        if begin.endswith("\N{REPLACEMENT CHARACTER}"):
            continue  # within a character, whose rest is no text
        whole = [e for e in ends[at:] if not e.endswith("\N{REPLACEMENT CHARACTER}")]
        tokens = [one[len(before) :].encode() for before, one in zip([begin, *whole], whole, strict=False)]
        for length in range(1, len(text) - len(begin) + 1):
            for prediction in (text[len(begin) :][:length], text[len(begin) :][:length].swapcase()):
                found = is_prefix(prediction, tokenizer, ids, at)
                assert found == slow(prediction, tokens), (at, prediction)
                right += found
    assert right > 10 and not is_prefix("", tokenizer, ids, 1)


def test_the_last_closed_box_is_the_prediction() -> None:
    assert last_box(r"\boxed{a} or \boxed{ b} \boxed{c") == " b"
    assert last_box(r"\boxed{x{y}z} end") == "x{y}z"
    assert last_box(r"\boxed{.}") == "." and last_box("none") is None


@pytest.fixture(scope="module")
def items(tiny: Model) -> Items:
    return positions(tiny.tokenizer, tokenized(tiny.tokenizer, ["the cat sat"], 40, 4))


def of(items: Items, n: int, text: str, tokens: Sequence[int] = (5,), sample: int = 0) -> Rollout:
    return Rollout(items[n], sample, list(tokens), text, None, None, 0.0, "length", [])


def test_predictions_are_read_after_the_thought(tiny: Model, items: Items) -> None:
    prompt = put(tiny.tokenizer, tokenized(tiny.tokenizer, ["the cat sat"], 40, 4), "(", "</think>", True)
    assert prompt.stop == ()
    reward = PrefixMatch(prompt, 8)
    with learner(tiny, SETTINGS.recipe) as student:
        reward.begin(student, {})
        said = [r"\boxed{x}</think>\boxed{he c}", r"</think>\boxed{he x}", r"\boxed{he}", "</think> he"]
        reward.look([[of(items, 0, text, sample=n) for n, text in enumerate(said)]])
    assert [reward.found[items[0].id, n] for n in range(4)] == [1.0, 0.0, None, None]


def test_the_likeliest_token_is_that_of_a_whole_forward(tiny: Model, items: Items) -> None:
    prompt = put(tiny.tokenizer, tokenized(tiny.tokenizer, ["the cat sat"], 40, 4), "(", ")")
    reward = PrefixMatch(prompt, 4, "greedy")
    rollouts = [[of(items, n, "", tokens, s) for s, tokens in enumerate(([7, 9], [4, 4, 4, 4]))] for n in range(10)]
    with learner(tiny, SETTINGS.recipe) as student, torch.no_grad():
        reward.begin(student, {})
        likeliest = []
        for group in rollouts:
            for r in group:
                ids = [*prompt.ids(r.item.question, tiny.tokenizer), *r.tokens, *prompt.closing]
                likeliest.append(int(student.lm(torch.tensor([ids])).logits[0, -1].argmax()))
        # The text says what the model would: so that both verdicts are seen.
        for n, group in enumerate(rollouts[:5]):
            for r in group:
                r.item.metadata["next"] = likeliest[2 * n]
        reward.look(rollouts)
    flat = [r for group in rollouts for r in group]
    expected = [float(said == r.item.metadata["next"]) for said, r in zip(likeliest, flat, strict=True)]
    assert [reward.found[r.item.id, r.sample] for r in flat] == expected and 0 < sum(expected) < len(expected)


def test_an_unknown_way_to_predict(tiny: Model) -> None:
    with pytest.raises(UserError, match="unknown way to predict 'box'; did you mean boxed"):
        PrefixMatch(put(tiny.tokenizer, [(1, 2)], "(", ")"), 4, "box")


def test_entropy_of_the_likeliest_tokens(tiny: Model) -> None:
    documents = tokenized(tiny.tokenizer, ["the cat sat on", "a dog ran"], 40, 4)
    found = entropies(tiny.lm, documents, top=5)
    assert [len(one) for one in found] == [len(ids) - 1 for ids in documents]
    for ids, some in zip(documents, found, strict=True):
        for at, value in enumerate(some, 1):
            with torch.no_grad():
                p = tiny.lm(torch.tensor([ids[:at]])).logits[0, -1].softmax(-1).topk(5).values
            p = p / p.sum()
            assert value == pytest.approx(float(-(p * p.log()).sum()), abs=1e-4)
