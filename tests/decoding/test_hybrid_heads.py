"""Hybrid decoding with coefficients that are predicted from the base's own activation."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import elicit.decoding.cache
from elicit import load_model, load_task
from elicit.decoding import Hybrid
from elicit.decoding.decoders.gates import Gate, GateInputs, OracleGate, ProbeGate, TokenLabels, placed
from elicit.decoding.decoders.partner import HybridSteering
from elicit.elicited import Elicited
from elicit.models import Model
from probes.confidence import top2
from probes.errors import UserError
from probes.sites import Site, reading
from steering.adapters import Adapter, merge
from tests.support.hybrid_parts import (
    LIMIT,
    PROMPTS,
    as_model,
    directions,
    forward,
    heads,
    oracle,
    other,
    reference,
    run,
    save_lora,
    spied,
    tokens,
)
from tests.support.tiny import tiny_model


@pytest.mark.parametrize(
    ("architecture", "state", "coefficients", "windows", "select"),
    [
        ("llama", "shared", (1.0,), (1,), "likelihood"),
        ("llama", "per row", (0.5, 1.0), (1, 3), "likelihood"),
        ("gpt2", "shared", (1.0,), (2,), "none"),
    ],
)
def test_it_equals_a_reference_without_caches(
    architecture: str,
    state: str,
    coefficients: tuple[float, ...],
    windows: tuple[int, ...],
    select: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if state == "per row":
        monkeypatch.setattr(elicit.decoding.cache, "supports_shared_prefix", lambda _: False)
    base, partner = tiny_model(architecture), other(architecture)
    given = HybridSteering(directions(), oracle(), as_model(partner), directions(2.0, count=4)[3], heads())
    settings = Hybrid(coefficients, windows, select, max_new_tokens=LIMIT)
    steered = 0
    for prompt, generation in zip(PROMPTS, run(settings, as_model(base), given), strict=True):
        expected, taken = reference(base, partner, given, prompt, settings)
        assert generation.tokens.tolist() == expected
        assert generation.notes is not None and generation.notes[:, 1].tolist() == taken
        steered += sum(t > 0 for t in taken)
    assert steered


def test_one_candidate_does_what_the_head_says(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_model("llama")
    given = HybridSteering(directions(), oracle(), as_model(other("llama")), heads=heads())
    looked = spied(monkeypatch)
    settings = Hybrid((1.0,), max_new_tokens=1)
    found = run(settings, as_model(base), given)
    ((delta, rows),) = looked
    assert delta.shape[1] == 1  # where the grid would try each of its coefficients
    for added, row in zip(delta[:, 0], rows.tolist(), strict=True):
        notes = found[row].notes
        assert notes is not None and given.heads is not None
        with reading(base, [Site(1)]) as seen:
            forward(base, PROMPTS[row])
        category = int(notes[0, 2])
        said = given.heads[category](seen[Site(1)][-1:])
        torch.testing.assert_close(added, said * given.vectors[category].vector, rtol=1e-4, atol=1e-4)
    # A control moves each position as far as the method does.
    looked.clear()
    run(replace(settings, control="random-vector", seed=3), as_model(base), given)
    (true, every), (drawn, on) = looked
    torch.testing.assert_close(drawn.norm(dim=-1), true[torch.isin(every, on)].norm(dim=-1))


def test_on_shared_weights_the_head_reads_the_base(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    lora = save_lora(tiny_folder, tmp_path / "lora")
    merged = load_model(tiny.name, dtype="float32", device="cpu")
    merge(merged.lm, Adapter(lora))
    settings = Hybrid((1.0,), max_new_tokens=12)
    shared, apart = (
        run(settings, tiny, HybridSteering(directions(), oracle(), one, heads=heads()))
        for one in (Adapter(lora), merged)
    )
    assert tokens(shared) == tokens(apart)
    for one, two in zip(shared, apart, strict=True):
        assert one.notes is not None and two.notes is not None and (one.notes == two.notes).all()
        np.testing.assert_allclose(one.moved, two.moved, rtol=1e-3, atol=1e-5)


def test_heads_are_kept_with_the_rest(tiny: Model, tmp_path: Path) -> None:
    items = load_task("chain-sum", limit=2).test
    plain, with_heads = (HybridSteering(directions(), oracle(), tiny, heads=h) for h in (None, heads()))
    assert "heads" not in plain.data and plain.digest != with_heads.digest
    one = Elicited(tiny, "hybrid", decoder=Hybrid((1.0,), select="none", max_new_tokens=8), partner=with_heads)
    back = Elicited.load(one.save(tmp_path / "bundle"), tiny, tiny)
    assert back.decode_key == one.decode_key
    assert back.partner is not None and back.partner.heads is not None and list(back.partner.heads) == [0, 1, 2]
    assert [t.tokens for ts in back.answer(items) for t in ts] == [t.tokens for ts in one.answer(items) for t in ts]


def test_heads_are_one_a_vector_at_its_site() -> None:
    with pytest.raises(UserError, match="give one of that site for each"):
        HybridSteering(directions(), oracle(), heads=heads(2))
    with pytest.raises(UserError, match="give one of that site for each"):
        HybridSteering(directions(), oracle(), heads=heads(site=Site(2)))


def test_what_decides_lies_on_the_device_and_reads_no_value_of_it() -> None:
    labels = TokenLabels(torch.randn(3, 32), torch.zeros(3), torch.zeros(32), (4, 0, 2))
    nowhere, h = torch.device("meta"), torch.randn(5, 32)
    there = placed(OracleGate(labels, Site(1)), nowhere)
    assert isinstance(there.taxonomy, TokenLabels)
    assert there.taxonomy.weight.device == there.taxonomy._names.device == nowhere and there.site == Site(1)
    assert placed(heads()[0], nowhere).weight.device == nowhere
    for gate in (OracleGate(labels, Site(1)), ProbeGate(torch.randn(3, 32), torch.zeros(3), Site(1), (4, 0, 2))):
        assert placed(gate, h.device) is gate
        traced = make_fx(partial(_category, gate))(h)  # refuses what reads a value of a tensor
        assert traced(h).tolist() == _category(gate, h).tolist()


def _category(gate: Gate, h: Tensor) -> Tensor:
    return gate.decide(GateInputs(h, top2(h), h[:, 0] > 0, h)).category
