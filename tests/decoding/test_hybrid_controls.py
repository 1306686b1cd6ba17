"""Controls of hybrid decoding: other vectors, positions, candidates and tokens, as much as the method steers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from elicit.decoding import Hybrid, decode
from elicit.decoding.decoders import decoder_from_dict, decoder_to_dict
from elicit.decoding.decoders.hybrid import CONTROLS, DISTRIBUTIONS, SHARED
from elicit.decoding.decoders.partner import HybridSteering
from probes.errors import UserError
from probes.sites import Site
from steering.directions import Direction
from tests.support.hybrid_parts import (
    NAMES,
    NO_STOP,
    PROMPTS,
    as_model,
    directions,
    oracle,
    other,
    run,
    spied,
    tokens,
)
from tests.support.tiny import tiny_model


@pytest.mark.parametrize("control", ["permuted-category", "random-category", "random-vector", "bias"])
def test_controls_with_other_vectors_keep_place_and_length(control: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, partner = as_model(tiny_model("llama")), as_model(other("llama"))
    vectors = directions() | {1: Direction(directions()[1].vector * 2, Site(1))}
    bias = directions(1.0, count=4)[3]
    given = HybridSteering(vectors, oracle(), partner, bias)
    settings = Hybrid((1.0, 2.0), control=control, seed=3, max_new_tokens=1)
    truly = run(replace(settings, control=""), base, given)
    looked = spied(monkeypatch)
    found = run(settings, base, given)
    where, number = ([g.notes[0, 1] for g in some if g.notes is not None] for some in (truly, found))
    # at the first token nothing has parted yet: it steers exactly where the method does
    assert [w > 0 for w in where] == [n > 0 for n in number] and any(w > 0 for w in where)
    candidates = [[g.notes[0, 1] for g in some if g.notes is not None] for some in (truly, found)]
    assert candidates[0] == candidates[1]  # at the coefficient that the true vectors were given
    (true, rows), (added, on) = looked  # the look ahead that decides where, and the one that is used
    kept = torch.isin(rows, on)
    torch.testing.assert_close(added.norm(dim=-1), true[kept].norm(dim=-1))
    assert added.shape[1] == 2
    cosines = torch.cosine_similarity(added, true[kept], dim=-1)
    if control == "bias":
        torch.testing.assert_close(torch.cosine_similarity(added[:, 0], bias.vector[None]), torch.ones(len(added)))
    elif control != "random-category":
        assert (cosines < 0.99).all()
    again = run(settings, base, given)
    assert tokens(again) == tokens(found)


@pytest.mark.parametrize("control", ["permuted-category", "random-category", "random-vector", "bias"])
def test_other_vectors_steer_no_more_than_asked_for(control: str) -> None:
    base, bias = as_model(tiny_model("llama")), directions(1.0, count=4)[3]
    given = HybridSteering(directions(), oracle(), as_model(other("llama")), bias)
    settings = Hybrid((1.0, 2.0), control=control, max_new_tokens=40)
    free, capped = (run(replace(settings, share=share), base, given) for share in (0.0, 0.1))
    most = [[np.cumsum(g.notes[:, 1] > 0) for g in some if g.notes is not None] for some in (free, capped)]
    assert max(counts[-1] for counts in most[0]) > 4
    for counts in most[1]:
        assert (counts <= np.ceil(0.1 * np.arange(1, len(counts) + 1))).all()
    assert any(counts[-1] == 4 for counts in most[1] if len(counts) == 40)


def test_random_positions_are_as_many_as_asked_for_and_keyed_by_the_item() -> None:
    base, given = as_model(tiny_model("llama")), HybridSteering(directions(), oracle(), as_model(other("llama")))
    settings = Hybrid((1.0, 2.0), control="random-position", share=0.4, max_new_tokens=60)
    found = run(settings, base, given)
    notes = np.concatenate([g.notes for g in found if g.notes is not None])
    assert 0.3 < (notes[:, 1] > 0).mean() < 0.5
    assert ((notes[:, 1] > 0) == (notes[:, 2] >= 0)).all()
    assert (notes[notes[:, 0] == 0][:, 1] > 0).any()  # also where the models agree
    policy = settings.joint(base, given, NAMES[1:2])
    ((alone,),) = decode(base.lm, PROMPTS[1:2], policy, max_new_tokens=60, stop=NO_STOP)
    assert alone.tokens.tolist() == found[1].tokens.tolist()
    assert tokens(run(replace(settings, seed=1), base, given)) != tokens(found)


def test_at_random_positions_candidates_are_taken_as_often_as_the_method_took_them() -> None:
    """The choice by likelihood takes another mixture; so large a coefficient is not the method's."""
    base, given = as_model(tiny_model("llama")), HybridSteering(directions(), oracle(), as_model(other("llama")))
    settings = Hybrid((0.5, 1.0, 2.0), control="random-position", share=0.8, max_new_tokens=200)
    often = (0.7, 0.0, 0.3)
    found = run(replace(settings, often=often), base, given)
    notes = np.concatenate([g.notes for g in found if g.notes is not None])
    taken = notes[notes[:, 1] > 0][:, 1]
    assert [float((taken == number).mean()) for number in (1, 2, 3)] == pytest.approx(often, abs=0.06)
    likeliest = np.concatenate([g.notes for g in run(settings, base, given) if g.notes is not None])
    assert (likeliest[:, 1] == 2).any()
    one = replace(settings, often=often)
    assert decoder_from_dict(json.loads(json.dumps(decoder_to_dict(one)))) == one
    assert "often" not in decoder_to_dict(settings)  # runs that were made before are found
    with pytest.raises(UserError, match="one number for each of its 3 candidates"):
        replace(settings, often=(0.5, 0.5))
    with pytest.raises(UserError, match="and others none"):
        Hybrid((1.0, 2.0), often=(0.5, 0.5))


def test_a_random_candidate_may_be_any() -> None:
    base, given = as_model(tiny_model("llama")), HybridSteering(directions(), oracle(), as_model(other("llama")))
    found = run(Hybrid((1.0, 2.0), control="random-candidate", select="none", max_new_tokens=60), base, given)
    notes = np.concatenate([g.notes for g in found if g.notes is not None])
    assert set(notes[notes[:, 0] == 1][:, 1]) == {0, 1, 2}


def test_some_of_the_partners_tokens_are_substituted() -> None:
    base, given = as_model(tiny_model("llama")), HybridSteering(directions(), oracle(), as_model(other("llama")))
    settings = Hybrid((1.0,), control="some-substitution", share=0.4, max_new_tokens=60)
    notes = np.concatenate([g.notes for g in run(settings, base, given) if g.notes is not None])
    differs, taken, copied = notes[:, 0] == 1, notes[:, 1], notes[:, 3]
    assert set(taken) == {0, -1} and (copied[taken == -1] == 1).all() and (taken[~differs] == 0).all()
    assert 0.25 < (taken[differs] == -1).mean() < 0.55


def test_every_control_is_listed_and_runs() -> None:
    base, bias = as_model(tiny_model("gpt2")), directions(count=4)[3]
    given = HybridSteering(directions(), oracle(), as_model(other("gpt2")), bias)
    for control in CONTROLS:
        settings = Hybrid(control=control, share=0.5 if control in SHARED else 0.0, max_new_tokens=3)
        for generation in run(settings, base, given):
            assert generation.notes is not None
            assert control in DISTRIBUTIONS or (generation.notes[:, 1] >= 0).all()
