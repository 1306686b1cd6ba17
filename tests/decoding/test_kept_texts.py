"""Rows that are decoded again go on from what was kept of them as from the whole prompt."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from elicit.decoding import Sampling, StopRule, decode
from elicit.decoding.kept_texts import ROOM, KeptState, KeptTexts
from elicit.decoding.trunk import shares
from tests.support.tiny import VOCAB, tiny_model

PROMPTS = [[5, 9, 3, 7, 11, 2, 8, 40], [41, 42, 43], [44, 45, 46, 47, 48]]
# What was said in the answer of each row, time after time: nothing, more, less, something else, the same, some rows.
SAID: list[dict[int, list[int]]] = [
    {0: [], 1: [], 2: []},
    {0: [20, 21, 22], 1: [23], 2: [24, 25]},
    {0: [20], 1: [23, 26, 27, 28], 2: []},
    {0: [29], 1: [23, 26, 30], 2: [24, 25]},
    {0: [29], 1: [23, 26, 30], 2: [24, 25]},
    {1: [23, 26, 30, 31]},
    {0: [*range(20, 20 + ROOM // 2), *range(18, 18 + ROOM // 2)], 2: [24]},
]


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gpt2", "qwen3"])
@pytest.mark.parametrize("branches", [1, 3])
def test_answers_are_those_of_whole_prompts(architecture: str, branches: int) -> None:
    model = tiny_model(architecture)
    assert shares(model, 120)
    kept, stop = KeptTexts(model, len(PROMPTS)), StopRule(frozenset(range(0, VOCAB, 5)))
    how = Sampling(branches, 1.0, max_new_tokens=9)
    computed: list[int] = []
    watch = model.get_input_embeddings().register_forward_pre_hook(lambda _, given: computed.append(given[0].numel()))
    for time, said in enumerate(SAID):
        rows, prompts = list(said), [[*PROMPTS[row], *said[row]] for row in said]
        streams = [f"{row} {time}" for row in rows]
        computed.clear()
        found = decode(
            model, prompts, how.policy(streams, VOCAB), max_new_tokens=9, stop=stop,
            opened=partial(KeptState, kept, rows, max_new_tokens=9),
        )  # fmt: skip
        new = max(len(prompt) - known for prompt, known in zip(prompts, KNOWN[time], strict=True))
        assert time == 0 or computed[0] == new * len(rows)
        for prompt, stream, each in zip(prompts, streams, found, strict=True):
            (alone,) = decode(model, [prompt], how.policy([stream], VOCAB), max_new_tokens=9, stop=stop)
            for one, other in zip(each, alone, strict=True):
                assert one.tokens.tolist() == other.tokens.tolist() and one.finish == other.finish
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    watch.remove()


# Of each row the tokens that were known, by hand: the last one of a prompt is always computed.
KNOWN = [[0, 0, 0], [8, 3, 5], [8, 4, 4], [8, 5, 5], [8, 5, 6], [6], [8, 5]]


def test_what_is_known_is_the_common_beginning_without_the_last_token() -> None:
    kept = KeptTexts(tiny_model("llama"), 2)
    kept.texts[1] = [1, 2, 3]
    assert [kept.known(1, prompt) for prompt in ([1, 2, 3, 4], [1, 2, 3], [1, 2], [9, 2, 3], [1, 9, 3, 3], [1])] == [
        3, 2, 1, 0, 1, 0,
    ]  # fmt: skip
    assert kept.known(0, [1, 2]) == 0


def test_what_is_kept_grows_and_keeps_what_it_had() -> None:
    kept = KeptTexts(tiny_model("llama"), 2)
    one, far = torch.ones(1, 2, 4), torch.full((1, 2, 4), 7.0)
    kept.keep(0, torch.tensor([1]), torch.tensor([3]), (one, one))
    kept.keep(0, torch.tensor([0]), torch.tensor([ROOM]), (far, far))
    keys, _ = kept.layers[0]
    assert keys.shape == (2, 2, 2 * ROOM, 4)
    assert np.array_equal(keys[1, :, 3], one[0]) and np.array_equal(keys[0, :, ROOM], far[0])
    assert keys.sum() == one.sum() + far.sum()
