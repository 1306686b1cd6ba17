"""Fused pieces of the graph engine: fewer operations, the same answers, nothing hidden, nothing left behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaMLP

from elicit.decoding.decoders import Branching, Greedy
from elicit.decoding.engine import Batch, decode_batch, engine_of
from elicit.decoding.graph import paged_cache
from elicit.decoding.graph.fused import Fused, Piece
from elicit.decoding.graph.paged_cache import PagedCache
from elicit.decoding.loop import StopRule
from elicit.models.model import Model
from probes.errors import UserError
from steering.adapters import Adapter, applied
from tests.decoding.test_engines import batch, plan
from tests.decoding.test_graph import asked, model_of, same
from tests.support.hybrid_parts import save_lora

NEW = 8
NO_END = StopRule(frozenset())
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fused() -> Model:
    return replace(model_of("llama", "graph"), engine_options={"fuse": True})


def untouched(lm: nn.Module) -> bool:
    functions = modeling_llama.apply_rotary_pos_emb, paged_cache._merged
    return not any("forward" in vars(m) for m in lm.modules()) and not any(isinstance(f, Piece) for f in functions)


def chains(model: Model, given: Batch) -> Counter[str]:
    """Operations of norms, rotations and activations that were started one by one for a batch."""
    with profile(activities=[ProfilerActivity.CPU]) as kept:
        decode_batch(model, given)
    names = {f"aten::{name}" for name in ("pow", "mean", "rsqrt", "neg", "silu")}
    return Counter({e.key: e.count for e in kept.key_averages() if e.key in names})


@pytest.mark.long
def test_a_step_is_of_fewer_operations_and_says_what_the_reference_says(fused: Model) -> None:
    """Forks, and questions that come in; fp32 within rounding, the same tokens. One row would be compiled anew."""
    hf, plain = model_of("llama"), model_of("llama", "graph")
    given = asked(Branching(3, NEW), NO_END, rows_at_once=6)
    same(decode_batch(fused, given), decode_batch(hf, given))
    engine: Any = engine_of(fused)
    assert not engine.notes and engine.how == "no graphs on cpu, fused"
    before, after = chains(plain, given), chains(fused, given)
    assert all(4 * after[name] < count for name, count in before.items()) and len(before) == 5  # prompts' alone
    assert untouched(fused.lm)


def test_plans_are_seen_and_nothing_is_left_behind_by_an_error(fused: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directions, a projection after the attention, an SAE feature whose gate reads the MLP's output."""
    given = replace(batch(Greedy(9), [plan(), ()], [0, 1, 0]), stop=NO_END)
    wanted = decode_batch(model_of("llama"), given)
    assert max(g.moved.max() for branches in wanted for g in branches) > 0
    same(decode_batch(fused, given), wanted)
    with pytest.raises(UserError, match="arm 0: the relative perturbation norms"):
        decode_batch(fused, batch(Greedy(3), [(replace(plan()[0], strength=1e38),)]))
    assert untouched(fused.lm)
    monkeypatch.setattr(PagedCache, "attend", lambda *_: 1 / 0)  # in the middle of a step
    with pytest.raises(ZeroDivisionError):
        decode_batch(fused, given)
    assert untouched(fused.lm) and not engine_of(fused).notes


def test_an_mlp_that_something_looks_into_stays_as_it_is(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    """A hook on a layer in it, an adapter's layers, packed weights; nothing is compiled here."""

    def mlps() -> int:
        return sum(isinstance(m, LlamaMLP) for m in Fused(tiny.lm).modules)

    assert mlps() == 4
    handle = tiny.lm.model.layers[1].mlp.down_proj.register_forward_hook(lambda *_: None)
    assert mlps() == 3
    handle.remove()
    with applied(tiny.lm, Adapter(save_lora(tiny_folder, tmp_path / "lora"))):
        assert mlps() == 0
    tiny.lm.model.layers[2].mlp.up_proj.forward = tiny.lm.model.layers[2].mlp.up_proj.forward
    assert mlps() == 3
    del tiny.lm.model.layers[2].mlp.up_proj.forward
    assert mlps() == 4


def test_what_does_not_compile_or_says_something_else_is_computed_as_it_was() -> None:
    x = torch.tensor([1.0, 2.0])
    read = Piece("scaled", lambda x: x * 2 if x.max() > 1 else x)
    other = Piece("other", lambda x: x + 1e-3 if torch.compiler.is_compiling() else x * 1)
    assert not other(x * float("nan")).isfinite().any() and not other.refused  # says nothing
    for piece, why in ((read, "Data-dependent branching"), (other, "compiled, it differs by 0.0005 of its largest")):
        for _ in range(2):
            assert piece(x).tolist() == piece.eager(x).tolist()
        assert why in piece.refused
