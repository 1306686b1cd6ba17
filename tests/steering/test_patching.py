"""Activation patching against hooks placed by hand, its fixed points, what it refuses, its figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.errors import UserError
from probes.sites import Site, on_site
from steering.hooks import attached
from steering.interventions import Intervention, Replace, When
from steering.patching import patch, patching_map
from tests.support.tiny import tiny_model

CLEAN = [3, 9, 4, 11, 5, 9, 12, 6]
CORRUPTED = [3, 9, 4, 21, 5, 8, 12, 6]


def by_hand(lm: Any, site: Site, position: int, source: list[int], answer: int, wrong: int) -> float:
    """The same cell with two plain hooks."""
    seen: dict[str, Tensor] = {}

    def keep(h: Tensor) -> None:
        seen["h"] = h[0, position].clone()

    def put(h: Tensor) -> Tensor:
        h = h.clone()
        h[0, position] = seen["h"]
        return h

    def difference(ids: list[int]) -> float:
        with torch.no_grad():
            logits = lm(input_ids=torch.tensor([ids])).logits[0, -1].double()
        return float(logits[answer] - logits[wrong])

    clean, corrupted = difference(CLEAN), difference(CORRUPTED)
    handle = on_site(lm, site, keep)
    difference(source)
    handle.remove()
    handle = on_site(lm, site, put)
    patched = difference(CORRUPTED)
    handle.remove()
    return (patched - corrupted) / (clean - corrupted)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("point", ["resid_post", "attn_out", "mlp_out"])
def test_a_cell_is_what_hooks_by_hand_make(architecture: str, point: str) -> None:
    lm = tiny_model(architecture)
    other = [7, 7, 30, 31, 2, 40, 1, 33]
    found = patch(lm, CLEAN, CORRUPTED, 10, 20, points=(point,), rows=5, unrelated=[other])
    assert found.effect.shape == (len(found.layers), len(CLEAN)) and found.null is not None
    for layer, position in ((0, 3), (1, 7), (2, 5)):
        site = Site(layer, point)
        assert found.effect[layer, position] == pytest.approx(
            by_hand(lm, site, position, CLEAN, 10, 20), abs=1e-5, rel=1e-5
        )
        assert found.null[layer, position] == pytest.approx(
            by_hand(lm, site, position, other, 10, 20), abs=1e-5, rel=1e-5
        )


def test_fixed_points() -> None:
    lm = tiny_model("llama")
    found = patch(lm, CLEAN, CORRUPTED, unrelated=2, rows=7, seed=3)
    assert found.first_difference == 3 and (found.effect[:, :3] == 0).all()  # nothing to bring over
    assert found.effect[-1, -1] == 1.0 and (found.effect[-1, :-1] == 0).all()  # only the last position is read
    assert found.null is not None and np.abs(found.null[0, :3]).max() > 0  # a strange activation disturbs there
    ratio = (0 - found.corrupted_difference) / (found.clean_difference - found.corrupted_difference)
    assert found.no_preference == pytest.approx(ratio)
    assert patch(lm, CLEAN, CORRUPTED, unrelated=2, rows=50, seed=3).effect == pytest.approx(found.effect, abs=1e-4)
    answers = [int(lm(input_ids=torch.tensor([ids])).logits[0, -1].argmax()) for ids in (CLEAN, CORRUPTED)]
    assert [found.answer, found.wrong] == answers


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_all_positions_of_a_layer_are_the_clean_run(layer: int) -> None:
    lm = tiny_model("llama")
    found = patch(lm, CLEAN, CORRUPTED, 10, 20, unrelated=0)
    seen: dict[str, Tensor] = {}

    def keep(h: Tensor) -> None:
        seen["h"] = h[0].clone()

    handle = on_site(lm, Site(layer), keep)
    with torch.no_grad():
        lm(input_ids=torch.tensor([CLEAN]))
    handle.remove()
    plan = (Intervention(Replace(seen["h"], 1 - len(CLEAN), Site(layer)), when=When.prompt()),)
    with torch.no_grad(), attached(lm, [plan]):
        logits = lm(input_ids=torch.tensor([CORRUPTED])).logits[0, -1]
    effect = (float(logits[10] - logits[20]) - found.corrupted_difference) / (
        found.clean_difference - found.corrupted_difference
    )
    assert effect == pytest.approx(1.0, abs=1e-5)


def test_points_side_by_side_and_special_tokens() -> None:
    lm = tiny_model("llama")
    found = patch(
        lm,
        CLEAN,
        CORRUPTED,
        10,
        20,
        points=("attn_out", "resid_post"),
        positions=(-1,),
        layers=(1, 3),
        unrelated=1,
        special=frozenset(CLEAN),  # each token stays: the unrelated prompt is the clean one
    )
    assert found.cells == ((7, "attn_out"), (7, "resid_post")) and found.layers == (1, 3)
    assert not found.by_position and found.null == pytest.approx(found.effect, abs=1e-6)
    assert found.effect[1, 1] == pytest.approx(1.0, abs=1e-6)
    assert list(patching_map(found, str).layout.xaxis.ticktext) == ["attn_out", "resid_post"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"corrupted": CORRUPTED[1:]}, "has 8 tokens and the corrupted one 7"),
        ({"corrupted": CLEAN}, "are the same"),
        ({"answer": 10, "wrong": 10}, "the same token"),
        ({"answer": 64, "wrong": 10}, "vocabulary is 0 to 63"),
        ({"layers": (4,)}, "layer 4 was given"),
        ({"positions": (8,)}, "position 8 was given"),
        ({"points": ("pattern",)}, "read and not written"),
        ({"rows": 0}, "at least 1"),
        ({"unrelated": [[1, 2]]}, "unrelated prompt of 2 tokens"),
    ],
)
def test_what_it_refuses(change: dict[str, Any], words: str) -> None:
    arguments = {"clean": CLEAN, "corrupted": CORRUPTED, **change}
    with pytest.raises(UserError, match=words):
        patch(tiny_model("llama"), **arguments)


def test_map() -> None:
    found = patch(tiny_model("llama"), CLEAN, CORRUPTED, 10, 20, unrelated=2)
    figure = patching_map(found, lambda token: f"t{token}")
    assert len(figure.data) == 2 and figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    assert np.allclose(figure.data[0].z, found.effect) and np.allclose(figure.data[1].z, found.null)
    assert figure.layout.xaxis.ticktext[3] == "t11<br>(t21)" and figure.layout.xaxis.ticktext[0] == "t3"
    assert "null" in figure.data[0].hovertext[0][0]
