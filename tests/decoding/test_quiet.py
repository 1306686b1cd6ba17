"""Thoughts before tokens, mixed in: against whole forwards, and against greedy decoding where nothing is mixed in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit.decoding import Greedy, StopRule
from elicit.decoding.decoders import Quiet, Sampling
from elicit.decoding.engine import Batch, decode_batch
from elicit.decoding.mixing import Mixing, MixingHead, TokenRows, with_rows
from elicit.elicited import Elicited
from elicit.models import Model
from probes.errors import UserError
from probes.sites import width
from tests.support.tiny import tiny_model

PROMPTS = [[9, 10, 11, 12], [7, 21, 3], [40, 41, 42, 43, 44, 45]]
RULE = StopRule(frozenset())


def mixing_of(lm: Any, *, zero: bool = False) -> Mixing:
    """Of random tensors; with `zero` the last layer is as it begins."""
    generator = torch.Generator().manual_seed(3)
    head = {k: 0.3 * torch.randn(t.shape, generator=generator) for k, t in MixingHead(width(lm)).state_dict().items()}
    if zero:
        head["layers.4.weight"] = torch.zeros_like(head["layers.4.weight"])
    return Mixing(torch.randn(2, width(lm), generator=generator), head)


def asked(decoder: Any, mixing: Mixing | None = None, prompts: list[list[int]] = PROMPTS) -> Batch:
    return Batch(prompts, [str(n) for n in range(len(prompts))], decoder, RULE, mixing=mixing)


@torch.no_grad()
def slow(lm: Any, prompt: list[int], mixing: Mixing, how: Quiet) -> list[int]:
    """Each state by a forward of the whole text, embedded by hand."""
    head, tokens = mixing.on(lm)
    embed = lm.get_input_embeddings()

    def state(parts: list[Any]) -> Any:
        rows = [part if isinstance(part, torch.Tensor) else embed(torch.tensor([part]))[0] for part in parts]
        return lm.base_model(inputs_embeds=torch.stack(rows)[None])[0][0, -1]

    out: list[int] = []
    for number in range(how.max_new_tokens):
        text: list[Any] = [*prompt, *out]
        chosen = state(text)
        if how.thinks(number):
            thought: list[int] = []
            for _ in range(how.thought_tokens):
                thought.append(int(lm.get_output_embeddings()(state([*text, tokens[0], *thought])).argmax()))
            chosen = head(chosen, state([*text, tokens[0], *thought, tokens[1]]))
        out.append(int(lm.get_output_embeddings()(chosen).argmax()))
    return out


@pytest.mark.parametrize("every", [1, 2, 0])
def test_tokens_are_those_of_whole_forwards(every: int, tiny: Model) -> None:
    how, mixing = Quiet(3, every, 6), mixing_of(tiny.lm)
    made = [one for (one,) in decode_batch(tiny, asked(how, mixing))]
    assert [one.tokens.tolist() for one in made] == [slow(tiny.lm, prompt, mixing, how) for prompt in PROMPTS]
    assert [one.spent for one in made] == [6 + 5 * {1: 6, 2: 3, 0: 1}[every]] * 3
    plain = [one.tokens.tolist() for (one,) in decode_batch(tiny, asked(Greedy(6)))]
    assert [one.tokens.tolist() for one in made] != plain
    alone = [one for prompt in PROMPTS for ((one,),) in [decode_batch(tiny, asked(how, mixing, [prompt]))]]
    assert [one.tokens.tolist() for one in alone] == [one.tokens.tolist() for one in made]


def test_a_weight_of_nothing_is_the_base(tiny: Model) -> None:
    mixing = mixing_of(tiny.lm, zero=True)
    before = tiny.lm.get_input_embeddings()
    for (quiet,), (plain,) in zip(
        decode_batch(tiny, asked(Quiet(3, 1, 6), mixing)), decode_batch(tiny, asked(Greedy(6))), strict=True
    ):
        assert quiet.tokens.tolist() == plain.tokens.tolist()
        assert quiet.logprob == pytest.approx(plain.logprob, abs=1e-5)
        assert quiet.entropy == pytest.approx(plain.entropy, abs=1e-5)
    assert tiny.lm.get_input_embeddings() is before
    without, having = torch.randn(2, 5, width(tiny.lm))
    assert torch.equal(MixingHead(width(tiny.lm))(without, having), without)
    head, _ = mixing_of(tiny.lm).on(tiny.lm)
    w = head.weight(without, having)
    assert torch.allclose(head(without, having), (1 - w) * without + w * having) and float(w.abs().min()) > 0


def test_rows_behind_the_embeddings(tiny: Model) -> None:
    base: Any = tiny.lm.get_input_embeddings()
    rows = torch.randn(2, base.weight.shape[1], requires_grad=True)
    first = len(base.weight)
    ids = torch.tensor([[3, first, 5, first + 1]])
    with with_rows(tiny.lm, rows) as mark:
        assert mark == first
        found = tiny.lm.get_input_embeddings()(ids)
    assert torch.equal(found[0, [1, 3]], rows) and torch.equal(found[0, [0, 2]], base(ids[:, [0, 2]])[0])
    found[0, 1].sum().backward()
    assert rows.grad is not None and rows.grad.abs().sum(1).tolist() == [rows.shape[1], 0.0]
    assert isinstance(TokenRows(base, rows).weight, torch.Tensor)


def test_a_handle_is_saved_and_loaded(tiny: Model, tmp_path: Path) -> None:
    mixing = mixing_of(tiny.lm)
    handle = Elicited(tiny, "quiet-star", decoder=Quiet(3, 2, 5), mixing=mixing)
    place = handle.save(tmp_path / "bundle")
    assert {"mixing.json", "mixing.safetensors", "elicited.json"} <= {p.name for p in place.iterdir()}
    again = Elicited.load(place, tiny)
    assert again.decoder == handle.decoder and again.mixing is not None
    assert again.mixing.digest == mixing.digest and again.decode_key == handle.decode_key
    assert torch.equal(again.mixing.tokens, mixing.tokens)
    other = replace(handle, mixing=mixing_of(tiny.lm, zero=True))
    assert other.batch_key != handle.batch_key and other.decode_key != handle.decode_key
    other.save(tmp_path / "other")
    (place / "mixing.safetensors").write_bytes((tmp_path / "other" / "mixing.safetensors").read_bytes())
    with pytest.raises(UserError) as error:
        Elicited.load(place, tiny)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"thought_tokens": 0}, "thought_tokens = 0"), ({"every": -1}, "every = -1"), ({"branches": 2}, "branches = 2")],
)
def test_decoders_that_are_none(given: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Quiet(**given)


def test_what_is_refused(tiny: Model) -> None:
    mixing = mixing_of(tiny.lm)
    for batch, words in (
        (asked(Quiet(3, 1, 4)), "no mixing head"),
        (asked(Quiet(3, 1, 4), mixing, [[5]]), "fewer than 2 tokens"),
        (replace(asked(Quiet(3, 1, 4), mixing), stop=StopRule(frozenset(), (), tiny.tokenizer, False, 4)), "thought_"),
    ):
        with pytest.raises(UserError, match=words):
            decode_batch(tiny, batch)
    mistral = replace(tiny, lm=tiny_model("mistral"))
    with pytest.raises(UserError, match="cannot be taken back"):
        decode_batch(mistral, asked(Quiet(3, 1, 9), mixing))
    for decoder, head in ((Quiet(3), None), (Greedy(), mixing), (Sampling(2, 1.0), mixing)):
        with pytest.raises(UserError, match="give both, or none"):
            Elicited(tiny, "quiet-star", decoder=decoder, mixing=head)
    with pytest.raises(UserError, match="other shapes"):
        Mixing(mixing.tokens, {**mixing.head, "layers.4.weight": torch.zeros(1, 3)})
    with pytest.raises(UserError, match="d_model 8"):
        Elicited(tiny, "quiet-star", decoder=Quiet(3), mixing=Mixing(torch.zeros(2, 8), MixingHead(8).state_dict()))
