"""The logit lens against the model's own output, its numbers against a slow formula, its figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from probes import lens as module
from probes.errors import UserError
from probes.lens import LABELS, final_norm, lens_grid, logit_lens, read_out, residuals, shown
from probes.sweep import Band, layer_sweep
from tests.support.tiny import VOCAB, tiny_model

IDS = [3, 9, 4, 1, 5, 9, 2, 6]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "gpt_neox", "bloom", "qwen3"])
@torch.no_grad()
def test_the_last_layer_is_the_output(architecture: str) -> None:
    lm = tiny_model(architecture)
    own = lm(input_ids=torch.tensor([IDS])).logits[0]
    stream, last = residuals(lm, IDS)
    torch.testing.assert_close(read_out(lm, stream[-1]), own)
    torch.testing.assert_close(last, own[-1])
    lens = logit_lens(lm, IDS)
    assert lens.top[-1].tolist() == own.argmax(-1).tolist() == lens.target.tolist()
    assert np.allclose(lens.probability[-1], own.softmax(-1).amax(-1).numpy(), atol=1e-5)
    assert (lens.rank[-1] == 1).all() and np.abs(lens.kl[-1]).max() < 1e-5
    assert lens.top.shape == (len(stream), len(IDS)) and lens.layers[:2] == ["embedding", "0"]


@torch.no_grad()
def test_numbers_by_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_model("llama")
    monkeypatch.setattr(module, "POSITIONS", 3)  # pieces must not show
    target = [5, 5, 7, 9, 9, 9, 11, 5]
    lens = logit_lens(lm, IDS, target=target)
    stream, _ = residuals(lm, IDS)
    final = read_out(lm, stream[-1]).softmax(-1)
    for row, position in ((0, 0), (2, 4), (3, 7)):
        p = lm.lm_head(lm.model.norm(stream[row, position])).softmax(-1)  # type: ignore[operator,union-attr]
        wanted = target[position]
        assert lens.probability[row, position] == pytest.approx(float(p[wanted]), rel=1e-4)
        assert lens.rank[row, position] == 1 + int((p > p[wanted]).sum())
        assert lens.entropy[row, position] == pytest.approx(float(-(p * p.log()).sum()), rel=1e-4)
        q = final[position]
        assert lens.kl[row, position] == pytest.approx(float((q * (q / p).log()).sum()), rel=1e-3)
        others = [float(p[t]) for t in {*target} - {wanted}]
        assert lens.other[row, position] == pytest.approx(np.mean(others), rel=1e-3)
    assert np.isnan(logit_lens(lm, IDS, target=5).other).all()


def test_what_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_model("llama")
    for ids, target, words in (
        ([], None, "empty prompt"),
        (IDS, VOCAB, "vocabulary is 0 to 63"),
        (IDS, [1, 2], "2 targets were given for 8 positions"),
    ):
        with pytest.raises(UserError, match=words):
            logit_lens(lm, ids, target=target)
    capped = tiny_model("gemma2")
    monkeypatch.setattr(capped.config, "final_logit_softcapping", 2.0)
    assert logit_lens(capped, IDS).kl[-1].max() < 1e-5
    monkeypatch.setattr(module, "final_norm", lambda lm: nn.Identity())
    with pytest.raises(UserError, match="does more to its logits"):
        logit_lens(lm, IDS)


def test_the_norm_is_the_one_after_the_blocks() -> None:
    assert final_norm(tiny_model("bloom")) is tiny_model("bloom").transformer.ln_f
    assert final_norm(tiny_model("gpt_neox")) is tiny_model("gpt_neox").gpt_neox.final_layer_norm


@pytest.mark.parametrize("colour", LABELS)
def test_grid(colour: str) -> None:
    lens = logit_lens(tiny_model("llama"), IDS)
    figure = lens_grid(lens, lambda token: f"<{token}>", colour=colour, first=-5)
    heat = figure.data[0]
    assert np.shape(heat.z) == np.shape(heat.text) == (5, 5) and np.isfinite(np.array(heat.z, dtype=float)).all()
    assert figure.layout.yaxis.ticktext[0] == "embedding" and figure.layout.xaxis.ticktext[-1] == "&lt;6&gt;"
    assert heat.text[4][4] == f"&lt;{lens.top[-1, -1]}&gt;" and "rank" in heat.hovertext[0][0]
    with pytest.raises(UserError, match="unknown colour 'prob'"):
        lens_grid(lens, str, colour="prob")


def test_pieces_can_be_seen() -> None:
    assert [shown(t) for t in (" a", " ", "\n", "", "<b>")] == [" a", "␣", "⏎", "∅", "&lt;b&gt;"]
    assert shown(" a", 8) == "a" and shown(" wonderful", 5) == "wond…"


def test_sweep() -> None:
    figure = layer_sweep(
        {"a": Band([0.1, 0.5], [0.0, 0.4], [0.2, 0.6]), "b": Band([0.3, 0.3])},
        nulls={"null": Band([0.0, 0.1], [-0.1, 0.0], [0.1, 0.2])},
        references={"chance": 0.5},
        layers=["embedding", "0"],
    )
    assert [t.name for t in figure.data if t.name] == ["null", "a", "b", "chance"]
    assert list(figure.layout.xaxis.ticktext) == ["embedding", "0"]
    assert figure.data[1].y == (0.2, 0.6, 0.4, 0.0)  # the band of `a`, there and back
    assert figure.data[3].hovertext[1] == "a<br>layer 0: 0.5 [0.4, 0.6]" and figure.layout.xaxis.title.text == "layer"
    parts = layer_sweep({"a": Band([0.1, 0.5])}, layers=["0%", "100%"], x="part that was read")
    assert parts.data[0].hovertext[1] == "a<br>100% (part that was read): 0.5"
    assert parts.layout.xaxis.title.text == "part that was read"
    for bad in ({}, {"a": Band([1.0]), "b": Band([1.0, 2.0])}):
        with pytest.raises(UserError, match="all of one length"):
            layer_sweep(bad)
    with pytest.raises(UserError, match="low and high"):
        Band([1.0], low=[0.0])


@pytest.mark.parametrize(("target", "wrong"), [([5, -1, 7], -1), ([5, VOCAB, 7], VOCAB), (-100, -100)])
def test_a_target_that_is_no_token_is_named(target: int | list[int], wrong: int) -> None:
    with pytest.raises(UserError, match=f"target token {wrong} was given; the vocabulary is 0 to {VOCAB - 1}"):
        logit_lens(tiny_model("llama"), [5, 9, 3], target=target)
