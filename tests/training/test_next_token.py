"""Thoughts rewarded by the next token of a text: against slow versions, resumed to the bit, refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from elicit.models import Model
from elicit.tasks.base import Items
from elicit.tasks.texts import documents, read_texts
from elicit.training.rl.learner import learner
from elicit.training.rl.log import LOG, read_log
from elicit.training.rl.loop import STATE, Trained, train
from elicit.training.rl.next_token import InformationGain, Shuffled
from elicit.training.rl.positions import Positions, positions, put, tokenized
from elicit.training.rl.rewards import Reward, Rollout
from elicit.training.rl.settings import Settings
from probes.errors import UserError
from steering.storage import read_tensors

TEXTS = ["the cat sat on the mat", "a dog and a cat ran"]
SETTINGS = Settings(
    updates=4, rollouts=12, group=2, per_rollout=2, reward="rlp", max_new_tokens=4, advantage="rloo",
    aggregate="sequence-mean", kl=0.0, entropy=0.0, lr=2e-2, rank=2, part=2, preflight=2, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def texts(tiny: Model) -> tuple[Positions, Items]:
    documents = tokenized(tiny.tokenizer, TEXTS, 12, 4)
    return put(tiny.tokenizer, documents, "(", ")"), positions(tiny.tokenizer, documents)


def trained(model: Model, texts: tuple[Positions, Items], folder: Path, shuffled: bool = False, **more: Any) -> Trained:
    prompt, items = texts
    gain = InformationGain(prompt, SETTINGS.max_new_tokens, 0.5)
    reward: Reward = Shuffled(gain, 1) if shuffled else gain
    return train(model, items, SETTINGS, folder, prompt=prompt, rewards={"rlp": reward}, looked_at=6, **more)


def of(items: Items, n: int, tokens: Sequence[int], finish: str, sample: int = 0) -> Rollout:
    return Rollout(items[n], sample, list(tokens), "", None, None, 0.0, finish, [])


@torch.no_grad()
def slow(lm: Any, ids: Sequence[int], following: int) -> float:
    """log p of one token after a text, by the model's own forward."""
    return float(lm(torch.tensor([list(ids)])).logits[0, -1].float().log_softmax(-1)[following])


def test_documents_are_cut_evenly_and_every_position_is_an_item(tiny: Model, texts: tuple[Positions, Items]) -> None:
    prompt, items = texts
    whole = [tiny.tokenizer(text)["input_ids"] for text in TEXTS]
    assert [len(d) for d in prompt.documents] == [n for ids in whole for n in halves(len(ids))]
    assert list(chain(*prompt.documents)) == list(chain(*whole))
    assert len(items) == sum(len(d) - 1 for d in prompt.documents)
    for item in items:
        document, at = item.metadata["document"], item.metadata["position"]
        assert prompt.ids(item.question, tiny.tokenizer) == [*prompt.documents[document][:at], *prompt.opening]
        assert item.metadata["next"] == prompt.documents[document][at]


def halves(length: int) -> list[int]:
    parts = -(-length // 12)
    return [length * (n + 1) // parts - length * n // parts for n in range(parts)]


def test_the_gain_is_that_of_whole_forwards(tiny: Model, texts: tuple[Positions, Items]) -> None:
    prompt, items = texts
    gain = InformationGain(prompt, 4, 0.75)
    thoughts = [([9, 12, 5], "length"), ([7, *prompt.closing], "stop"), ([8, 3, 2], "eos"), ([11], "length")]
    rollouts = [[of(items, n, *one, sample=s) for s, one in enumerate(thoughts)] for n in (0, 3, 14)]
    with learner(tiny, SETTINGS.recipe) as student:
        gain.begin(student, {})
        average = deepcopy(student.lm)
        before = {name: p.detach().clone() for name, p in student.trained.items()}
        with torch.no_grad():
            for number, p in enumerate(student.trained.values()):
                p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number))
        gain.stepped()
        with torch.no_grad():
            for name, p in average.named_parameters():
                if name in before:
                    p.copy_(0.75 * before[name] + 0.25 * student.trained[name])
        gain.look(rollouts)
        for group in rollouts:
            for r in group:
                said = list(r.tokens[:-1] if r.finish == "eos" else r.tokens)
                end = [] if r.finish == "stop" else list(prompt.closing)
                context = prompt.documents[r.item.metadata["document"]][: r.item.metadata["position"]]
                following = r.item.metadata["next"]
                expected = slow(student.lm, [*context, *prompt.opening, *said, *end], following)
                expected -= slow(average, context, following)
                assert gain.found[r.item.id, r.sample] == pytest.approx(expected, abs=1e-4)
    assert len(set(gain.found.values())) == 12


def state(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / STATE)


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2])
def test_what_was_stopped_ends_at_the_same_bits(
    after: int, tiny: Model, texts: tuple[Positions, Items], tmp_path: Path
) -> None:
    def kill(curve: Sequence[object]) -> None:
        if len(curve) == after:
            raise Killed

    whole = trained(tiny, texts, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(tiny, texts, tmp_path / "twice", on_step=kill)
    twice = trained(tiny, texts, tmp_path / "twice")
    first, second = state(whole.folder), state(twice.folder)
    assert set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)
    assert any(name.startswith("average/") for name in first)
    assert (whole.folder / LOG).read_bytes() == (twice.folder / LOG).read_bytes()
    assert whole.adapter.sha256 == twice.adapter.sha256


def test_advantages_are_of_the_position_and_shuffled_rewards_are_another_positions(
    tiny: Model, texts: tuple[Positions, Items], tmp_path: Path
) -> None:
    trained(tiny, texts, tmp_path / "own")
    trained(tiny, texts, tmp_path / "shuffled", shuffled=True)
    own, other = ([r for r in read_log(tmp_path / name) if r["update"] < 2] for name in ("own", "shuffled"))
    assert [r["tokens"] for r in own] == [r["tokens"] for r in other]  # the first rollout is the base's
    pairs = {r["item"]: [q["reward"] for q in own if q["item"] == r["item"]] for r in own}
    for item, rewards in pairs.items():
        mean = sum(rewards) / 2
        said = [r["advantage"] for r in own if r["item"] == item]
        assert said == pytest.approx([2 / (2 - 1) * (r - mean) for r in rewards], abs=1e-5)
        taken = [r["reward"] for r in other if r["item"] == item]
        assert taken != rewards and taken in pairs.values()
    assert [json.loads(line)["item"] for line in (tmp_path / "own" / LOG).read_text().splitlines()][::2] == [
        item.id for item in texts[1][:12]
    ]


def test_a_moving_reward_belongs_to_its_training(tiny: Model, texts: tuple[Positions, Items], tmp_path: Path) -> None:
    trained(tiny, texts, tmp_path)
    with pytest.raises(UserError, match="another rewards"):
        trained(tiny, texts, tmp_path, shuffled=True)


def test_one_position_cannot_be_shuffled(tiny: Model, texts: tuple[Positions, Items]) -> None:
    prompt, items = texts
    with pytest.raises(UserError, match="give positions of 2 or more"):
        Shuffled(InformationGain(prompt, 4, 0.5), 0).look([[of(items, 0, [5], "length")]])


def test_thoughts_of_all_positions_share_their_documents(tiny: Model, texts: tuple[Positions, Items]) -> None:
    prompt, items = texts
    shared = prompt.trunk(items)
    assert [list(text) for text in shared.texts] == [list(d[:-1]) for d in prompt.documents]
    assert list(prompt.trunk(items[3:5]).cut) == [4, 5]
    assert shared.after([prompt.ids(item.question, tiny.tokenizer) for item in items]) == len(prompt.opening)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, "no such file"),
        ("a.txt", b"\n \n", "holds no text"),
        ("a.txt", b"\xff\xfe\xfa", "not text in UTF-8"),
        ("a.jsonl", b'{"text": "so"}\n{"text": 3}', "line 2: the text is a int"),
        ("a.jsonl", b'{"txt": "so"}', "line 1: no object with a text"),
        ("a.jsonl", b"{", "line 1: no object with a text"),
        ("a.parquet", b"PAR1", "cut or no Parquet file"),
        ("hub:one", None, "write hub:owner/name"),
    ],
)
def test_texts_that_cannot_be_read(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    place = name if name.startswith("hub:") else str(tmp_path / name)
    if content is not None:
        Path(place).write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        read_texts(place, 4)
    assert "\n" not in str(error.value)


def test_documents_that_cannot_be_used(tiny: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"document 2 .* fewer than a thought may have"):
        tokenized(tiny.tokenizer, ["the cat sat", "so"], 12, 4)
    with pytest.raises(UserError, match="document 1 of 1 is empty"):
        tokenized(tiny.tokenizer, [" "], 12, 4)
    with pytest.raises(UserError, match="closing = ' ' was given"):
        put(tiny.tokenizer, [(1, 2)], "(", " ")
    with pytest.raises(UserError, match="no position"):
        positions(tiny.tokenizer, [(1,)])
    (tmp_path / "a.txt").write_text("\none\ntwo\n\n \nthree\n")
    assert read_texts(str(tmp_path / "a.txt"), 9) == ["one\ntwo", "three"]
    (tmp_path / "a.jsonl").write_text('{"text": "one\\n\\ntwo"}\n\n{"text": "three"}\n')
    assert read_texts(str(tmp_path / "a.jsonl"), 9) == ["one\n\ntwo", "three"]
    pq.write_table(pa.table({"text": ["one", "", "two"]}), tmp_path / "a.parquet")
    assert read_texts(str(tmp_path / "a.parquet"), 1) == ["one"]
    assert list(documents(str(tmp_path / "a.txt"))) == ["\none\ntwo\n\n \nthree\n"]
