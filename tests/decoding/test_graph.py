"""The graph engine: the reference's tokens and statistics, whatever is in flight together, and what it leaves to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import elicit
from elicit.decoding.decoders import Branching, Decoder, Greedy, Sampling
from elicit.decoding.engine import Batch, decode_batch, engine_of
from elicit.decoding.graph import schedule
from elicit.decoding.graph.captured import Captured
from elicit.decoding.graph.fit import paged
from elicit.decoding.graph.pages import NOBODY, PAGE, Pages
from elicit.decoding.graph.schedule import Schedule
from elicit.decoding.loop import Generation, StopRule
from elicit.methods import direct
from elicit.models.model import Model, Provenance
from elicit.tasks.registry import load_task
from probes.errors import UserError
from tests.decoding.test_engines import batch, plan
from tests.steering.test_backends import tokenizer
from tests.support.tiny import tiny_model

PROMPTS = [[5, 9, 3], [7, 1, 2, 8, 40, 41, 42, 43, 44, 45], [11] * 6, [3], [4, 4, 8], [9, 8, 7, 6, 5], [33, 21]]
ENDS = StopRule(frozenset({2, 7, 13, 30, 21, 50}))
NEW = 16
SHAPES = ((100, 1, 64), (3, 1, 8), (7, 5, 4))  # rows in flight, steps between looks, positions of a page


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model_of(architecture: str, engine: str = "hf") -> Model:
    return Model(architecture, tiny_model(architecture), tokenizer(), Provenance(architecture, "", "", ""), engine)


def asked(decoder: Decoder, stop: StopRule = ENDS, **more: Any) -> Batch:
    return Batch(PROMPTS, [f"item {n}" for n in range(len(PROMPTS))], decoder, stop, **more)


@torch.inference_mode()
def run(model: Model, given: Batch, **more: Any) -> tuple[list[list[Generation]], Schedule]:
    options = {"rows": 320, "every": 1, "graphs": False, "choices": model.choices, **more}
    with paged(model.lm):
        made = Schedule(model.lm, given, **options)
        return made.decode(), made


def same(given: Sequence[Sequence[Generation]], wanted: Sequence[Sequence[Generation]]) -> None:
    for one, other in zip(given, wanted, strict=True):
        for g, w in zip(one, other, strict=True):
            assert g.tokens.tolist() == w.tokens.tolist()
            assert (g.finish, g.spent, g.end, g.prompt_moved) == (w.finish, w.spent, w.end, w.prompt_moved)
            for name in ("top1", "top2", "entropy", "logprob", "moved"):
                np.testing.assert_allclose(getattr(g, name), getattr(w, name), atol=1.5e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gemma3", "gpt2"])
def test_rows_that_come_and_go_say_what_the_reference_says(architecture: str) -> None:
    """Ragged prompts, early ends, forks, windows, soft caps; whatever is in flight together and however it is paged."""
    model, lengths = model_of(architecture), set()
    decoders = (Greedy(NEW), Branching(3, NEW), Sampling(2, top_p=0.9, max_new_tokens=NEW))
    for decoder, shape in zip(decoders, SHAPES, strict=True):
        wanted = decode_batch(model, asked(decoder))
        lengths |= {g.spent for branches in wanted for g in branches}
        for rows, every, page in SHAPES if architecture == "llama" else [shape]:
            given, _ = run(model, asked(decoder), rows=rows, every=every, page=page)
            same(given, wanted)
    assert len(lengths) > (1 if architecture == "gemma3" else 3)


def test_plans_of_each_row_and_an_adapter_s_place_are_the_reference_s() -> None:
    """Directions, projections, an SAE feature behind a gate, a program; steps counted from within the prompts."""
    model, graph = model_of("gemma3"), model_of("gemma3", "graph")
    for decoder in (Greedy(9), Branching(2, 9)):
        for given in (
            batch(decoder, [plan()]),
            batch(decoder, [(), plan(), plan()[:1]], [1, 0, 2], lengths=[4, 3, 2]),
        ):
            wanted = decode_batch(model, given)
            assert max(g.moved.max() for branches in wanted for g in branches) > 0
            same(decode_batch(graph, replace(given, rows_at_once=2)), wanted)
    assert not engine_of(graph).notes


class Replayed(Captured):
    """A step that is traced to the operations on its tensors, and only these are run: what a CUDA graph does."""

    made: list[Captured] = []

    def __init__(self, step: Any, graphs: bool) -> None:
        super().__init__(step, graphs)
        self.made.append(self)

    def _captured(self) -> Callable[[], object]:
        return make_fx(self.step)()  # refuses a step that reads a value of a tensor


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_step_that_is_replayed_reads_and_writes_what_it_was_captured_with(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refilled and closed up into buckets, with plans and a look every fifth step: nothing of it is left behind."""
    monkeypatch.setattr(schedule, "Captured", Replayed)
    model, graph = model_of(architecture), model_of(architecture, "graph")
    engine: Any = engine_of(graph)
    engine.graphs, engine.every = True, 5
    for given in (
        asked(Branching(2, NEW)),
        asked(Sampling(2, max_new_tokens=NEW)),
        asked(Greedy(NEW), arms=[("a", plan()), ("b", ())], arm_of=[0, 1, 0, 1, 0, 1, 0]),
    ):
        same(decode_batch(graph, replace(given, rows_at_once=6)), decode_batch(model, given))
        assert Replayed.made[-1].captures and not Replayed.made[-1].refused
    assert not engine.notes
