"""The graph engine: the reference's tokens and statistics, whatever is in flight together, and what it leaves to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import elicit
from elicit.decoding.decoders import Branching, Decoder, Greedy, Hybrid, Sampling
from elicit.decoding.decoders.partner import HybridSteering
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
from steering.adapters import Adapter
from tests.decoding.test_engines import batch, plan
from tests.steering.test_backends import tokenizer
from tests.support.hybrid_parts import directions, oracle, other, save_lora
from tests.support.tiny import tiny_model

PROMPTS = [[5, 9, 3], [7, 1, 2, 8, 40, 41, 42, 43, 44, 45], [11] * 6, [3], [4, 4, 8], [9, 8, 7, 6, 5], [33, 21]]
ENDS = StopRule(frozenset({2, 7, 13, 30, 21, 50}))
NEW = 16
SHAPES = ((100, 1, 64), (3, 1, 8), (7, 5, 4))  # rows in flight, steps between looks, positions of a page
pytestmark = pytest.mark.usefixtures("one_thread")


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
    for ours, theirs in zip(given, wanted, strict=True):
        for g, w in zip(ours, theirs, strict=True):
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

    made: ClassVar[list[Captured]] = []

    def __init__(self, step: Any, graphs: bool) -> None:
        super().__init__(step, graphs)
        self.made.append(self)

    def _captured(self) -> Callable[[], object]:
        return make_fx(self.step)()  # refuses a step that reads a value of a tensor


def test_a_step_that_is_replayed_reads_and_writes_what_it_was_captured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refilled, closed up into buckets, with pages that grow, and with plans: nothing of it is left behind."""
    monkeypatch.setattr(schedule, "Captured", Replayed)
    model, graph = model_of("gemma3"), model_of("gemma3", "graph")
    given = replace(batch(Branching(2, 8)), prompts=PROMPTS[:3])
    made, done = run(model, given, rows=4, every=4, page=4, graphs=True)
    same(made, decode_batch(model, given))
    assert done.run.captures > 1 and not done.run.refused
    engine: Any = engine_of(graph)
    engine.graphs, engine.every = True, 4
    given = batch(Greedy(6), [plan(), ()], [0, 1, 0], rows_at_once=2)
    same(decode_batch(graph, given), decode_batch(model, given))
    assert Replayed.made[-1].captures and not Replayed.made[-1].refused and not engine.notes


def test_a_device_without_graphs_is_told_and_steps_are_computed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Captured) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand a trace")

    monkeypatch.setattr(Captured, "_captured", refuse)
    model, graph = model_of("llama"), model_of("llama", "graph")
    engine: Any = engine_of(graph)
    engine.graphs, engine.every = True, 3
    same(decode_batch(graph, asked(Greedy(NEW))), decode_batch(model, asked(Greedy(NEW))))
    assert engine.notes == ["steps were computed without CUDA graphs: operation not permitted when stream is capturing"]


def test_no_memory_in_the_middle_halves_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = Schedule._advance

    def crowded(self: Schedule, live: Any) -> int:
        if len(self.answer) > room and self.steps > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return advance(self, live)

    monkeypatch.setattr(Schedule, "_advance", crowded)
    model, graph = model_of("llama"), model_of("llama", "graph")
    given, room = asked(Branching(2, NEW)), 4
    same(decode_batch(graph, given), decode_batch(model, given))
    assert engine_of(graph).notes == [
        "cpu had no memory left for 14 rows: decoded again with 7",
        "cpu had no memory left for 7 rows: decoded again with 3",
    ]
    coarse = Model("llama", copy.deepcopy(model.lm).bfloat16(), tokenizer(), model.provenance, "graph")
    decode_batch(coarse, given)
    assert engine_of(coarse).notes[1].endswith("again with 3, which in bfloat16 may change a token")
    room = 1
    with pytest.raises(UserError, match="cpu has no memory for llama with 2 rows of up to 16 tokens; lower max_new"):
        decode_batch(graph, given)


def test_answers_end_where_they_should() -> None:
    """At an end token, at a stop string, which is seen at a look, at the limit, at limits of their own."""
    model = model_of("llama")
    plain = decode_batch(model, asked(Greedy(NEW), StopRule(frozenset())))
    said = [g.tokens.tolist() for (g,) in plain]
    end, last = said[0][6], next(t for t in said[1][3:] if t not in said[0])
    for stop in (StopRule(frozenset({end}), (f"t{last}",), tokenizer()), StopRule(frozenset())):
        wanted = decode_batch(model, asked(Greedy(NEW), stop))
        for every in (1, 6):
            same(run(model, asked(Greedy(NEW), stop), rows=4, every=every)[0], wanted)
    same(run(model, asked(Greedy(1)))[0], decode_batch(model, asked(Greedy(1))))
    limits = [1, 9, 2, 16, 3, 4, 5]
    short, done = run(model, asked(Greedy(NEW), StopRule(frozenset())), rows=3, every=4, limits=limits)
    assert [g.tokens.tolist() for (g,) in short] == [whole[:n] for whole, n in zip(said, limits, strict=True)]
    assert {g.finish for (g,) in short} == {"length"} and done.steps < sum(limits)


def test_what_it_cannot_do_goes_to_the_reference_by_name() -> None:
    model, graph = model_of("gpt_oss"), model_of("gpt_oss", "graph")
    engine: Any = engine_of(graph)
    assert "as hf, per-row" in engine.how
    given = asked(Greedy(6), rows_at_once=3)
    same(decode_batch(graph, given), decode_batch(model, given))
    assert len(engine.notes) == 1 and "is decoded per-row" in engine.notes[0]


def test_hybrid_decoding_goes_to_the_reference_and_the_run_says_so() -> None:
    model, graph = model_of("llama"), model_of("llama", "graph")
    partner = HybridSteering(directions(), oracle(), replace(model, lm=other("llama")))
    given = asked(Hybrid(control="random-candidate", max_new_tokens=6), partner=partner)
    wanted = decode_batch(model, given)
    assert any((g.notes[:, 1] > 0).any() for (g,) in wanted if g.notes is not None)  # some positions are steered
    same(decode_batch(graph, given), wanted)
    assert engine_of(graph).notes == ["decoded as hf: hybrid decoding looks into the cache of the reference"]


def test_in_bfloat16_it_is_no_further_from_float32_than_generate() -> None:
    """Log-probabilities of each side's own tokens, against a forward in fp32 without a cache: the mean error may be
    above `generate`'s by two standard errors of their difference over prompts, which are few percent of it."""
    coarse = copy.deepcopy(tiny_model("llama")).bfloat16()
    fine = copy.deepcopy(coarse).float()
    graph = Model("llama", coarse, tokenizer(), Provenance("llama", "", "", ""), "graph")
    new, draw = 64, torch.Generator().manual_seed(0)

    def far(prompts: torch.Tensor, tokens: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            own = torch.log_softmax(fine(torch.cat([prompts, tokens[:, :-1]], 1)).logits[:, -new:], -1)
        return (own.gather(2, tokens[..., None])[..., 0] - kept).abs().mean(1)

    ours, theirs = [], []
    for length in (3, 40):
        prompts = torch.randint(3, 60, (48, length), generator=draw)
        given = Batch(
            prompts.tolist(), [str(n) for n in range(48)], Greedy(new), StopRule(frozenset()), rows_at_once=32
        )
        made = [one for (one,) in decode_batch(graph, given)]
        tokens, kept = (torch.from_numpy(np.stack([getattr(g, name) for g in made])) for name in ("tokens", "logprob"))
        ours.append(far(prompts, tokens, kept))
        out = coarse.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new, do_sample=False, eos_token_id=None,
            pad_token_id=0, return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        tokens = out.sequences[:, length:]
        kept = torch.log_softmax(torch.stack(out.logits, 1).float(), -1).gather(2, tokens[..., None])[..., 0]
        theirs.append(far(prompts, tokens, kept))
    further, whole = torch.cat(ours) - torch.cat(theirs), float(torch.cat(theirs).mean())
    error = float(further.std()) / len(further) ** 0.5
    assert error < 0.04 * whole  # it can tell
    assert float(further.mean()) <= 3 * error


def test_errors_name_the_arm() -> None:
    graph = model_of("llama", "graph")
    push = plan()[0]
    with pytest.raises(UserError, match="changed nothing"):
        decode_batch(graph, batch(Greedy(3), [(replace(push, strength=1e-30),)]))
    with pytest.raises(UserError, match="arm 1: the relative perturbation norms of step 0 are NaN or"):
        decode_batch(graph, batch(Greedy(3), [(), (replace(push, strength=1e38),)], [0, 1, 0]))


def test_an_evaluation_takes_several_rounds_at_once(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    """Under an adapter; the same texts as `hf`, in a run that says what decoded it."""
    task, adapter = load_task("chain-sum", limit=6), Adapter(save_lora(tiny_folder, tmp_path / "lora"))
    runs = []
    for model in (tiny, replace(tiny, engine="graph")):
        handle = replace(direct.fit(model, max_new_tokens=12), method="tuned", adapter=adapter)
        runs.append(elicit.evaluate(handle, task.test, against=["direct"], batch_rows=4, out=tmp_path / model.engine))
    for source, by_item in runs[0].traces.items():
        for item, traces in by_item.items():
            assert [t.text for t in traces] == [t.text for t in runs[1].traces[source][item]]
    execution = runs[1].store.config["execution"]
    assert (execution["decoded_by"], execution["rounds"]) == (["graph (no graphs on cpu)"], 8)
    assert "decoding_notes" not in runs[1].metrics


def test_memory_grows_with_the_tokens_that_were_written() -> None:
    """320 rows of up to 4,096 new tokens on a model of 7B (28 layers, 4 key-value heads of 128, bf16)."""
    position = 28 * 2 * 4 * 128 * 2  # bytes
    rows, limit = 320, 4096
    assert 75e9 < rows * limit * position < 75.2e9
    ends = np.exp(np.random.default_rng(0).uniform(np.log(20), np.log(limit), rows)).astype(int)
    pages, live, peak = Pages(rows), np.arange(rows), 0
    for said in range(16, limit + 16, 16):
        pages.reserve(live, np.minimum(said, ends[live]))
        written = int(np.minimum(said, ends[live]).sum())
        assert pages.used * PAGE <= written + PAGE * len(live)  # a page a row at most beside what is written
        peak = max(peak, pages.count)
        for row in live[ends[live] <= said]:
            pages.release(int(row))
        live = live[ends[live] > said]
    assert not len(live) and pages.used == 0
    assert peak * PAGE * position < 20e9  # where each row's buffer of the full length takes 75 GB
    again = Pages(4, 8)
    again.reserve(np.arange(4), np.array([3, 9, 17, 1]))
    assert again.used == 7 and [int((row > 0).sum()) for row in again.table] == [1, 2, 3, 1]
    for row in (1, 3):
        again.release(row)
    again.keep(np.array([0, 2]), 3)
    old = again.closed_up()
    assert again.count == 5 and old[0] == 0 and (again.start == NOBODY).sum() == 1
    assert again.owner[again.table[1, :3]].tolist() == [1] * 3 and again.start[again.table[1, :3]].tolist() == [
        0,
        8,
        16,
    ]
