"""Engines behind the door: all give the texts of `hf`, and refuse by name what they cannot do."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elicit
from elicit.decoding.decoders import Branching, Decoder, Greedy, RngStream, Sampling
from elicit.decoding.engine import ENGINES, Batch, Can, Engine, decode_batch, engine_of, register_engine
from elicit.decoding.engines.lens import TransformerLensEngine
from elicit.decoding.loop import Generation, StopRule
from elicit.elicited import Elicited
from elicit.evaluation.run.run import Run
from elicit.methods import cot_prompt, direct
from elicit.models.model import Model, Provenance
from elicit.models.prompts import Prompt
from elicit.tasks.registry import load_task
from elicit.training.rl.loop import train
from elicit.training.rl.settings import Settings
from probes.clock import KEYS_AND_VALUES
from probes.errors import UserError
from probes.sites import Site
from steering.backends.lens import TransformerLens
from steering.interventions import Add, Gate, Intervention, Plan, ProjectOut, SetFeature, When
from tests.steering.test_backends import PROMPTS, direction, feature, random, tokenizer
from tests.support.alone import ends_well
from tests.support.ears import Ear
from tests.support.shell import shell
from tests.support.tiny import tiny_model

OTHERS = ("transformer-lens", "nnsight")
ARCHITECTURES = ("llama", "qwen2", "gemma2", "gemma3", "gpt2")
NEW = 9
PAGE = Path(__file__).parents[2] / "elicit" / "decoding" / "engines" / "README.md"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str], Model]:
    """Each architecture with each engine; engines are kept with them."""
    plain = {a: Model(a, tiny_model(a), tokenizer(), Provenance(a, "", "", a)) for a in ARCHITECTURES}
    return {(a, e): replace(plain[a], engine=e) for a, e in product(ARCHITECTURES, ("hf", *OTHERS))}


def batch(decoder: Decoder, plans: Sequence[Plan] = ((),), of: Sequence[int] | None = None, **more: Any) -> Batch:
    arms = [(f"arm {n}", plan) for n, plan in enumerate(plans)]
    return Batch(PROMPTS, ["a", "b", "c"], decoder, StopRule(frozenset({2})), arms, of, **more)


def plan() -> Plan:
    gate = Gate(random(32, seed=8), Site(0, "mlp_out"), bias=0.2)
    return (
        Intervention(Add(direction(32)), 6.0, layers=(1,)),
        Intervention(ProjectOut(direction(32, 9)), 1.0, layers=(2,), point="attn_out"),
        Intervention(SetFeature(feature(32, "relu")), 3.0, when=When(first=-2, stop=4).gated(gate), layers=(2,)),
    )


def same(given: list[list[Generation]], wanted: list[list[Generation]]) -> None:
    for one, other in zip(given, wanted, strict=True):
        for g, w in zip(one, other, strict=True):
            exact = ("finish", "spent", "end", "prompt_moved")
            assert g.tokens.tolist() == w.tokens.tolist()
            assert [getattr(g, name) for name in exact] == [getattr(w, name) for name in exact]
            for name in ("top1", "top2", "entropy", "logprob", "moved"):
                np.testing.assert_allclose(getattr(g, name), getattr(w, name), atol=1e-4)


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_engine_gives_the_reference_s_texts(models: Any, architecture: str, engine: str) -> None:
    """Greedy, sampled and branching; without a plan, with one in all rows, with one a row; from within an answer."""
    for decoder in (Greedy(NEW), Sampling(2, max_new_tokens=NEW), Branching(2, NEW)):
        for asked in (
            batch(decoder),
            batch(decoder, [plan()]),
            batch(decoder, [(), plan(), plan()[:1]], [1, 0, 2], lengths=[4, 3, 2]),
        ):
            wanted = decode_batch(models[architecture, "hf"], asked)
            same(decode_batch(models[architecture, engine], asked), wanted)


# Of a generation_config.json: each would choose, end or fail otherwise than the decoder says.
OWN = [
    {"suppress_tokens": list(range(20, 50))},
    {"begin_suppress_tokens": list(range(3, 60))},
    {"bad_words_ids": [[n] for n in range(5, 30)]},
    {"guidance_scale": 1.5},
    {"exponential_decay_length_penalty": (1, 9.0)},
    {"forced_eos_token_id": 2},
    {"num_beams": 2},
    {"max_time": 1e-9},
    {"stop_strings": ["t"]},
    {"prompt_lookup_num_tokens": 3},
    {"use_cache": False},
]


@pytest.mark.parametrize("fields", OWN, ids=lambda fields: next(iter(fields)))
def test_a_model_s_own_settings_touch_nothing(fields: dict[str, Any]) -> None:
    lm = copy.deepcopy(tiny_model("llama"))
    assert lm.generation_config is not None
    lm.generation_config.update(**fields)
    before = lm.generation_config.to_dict()
    model = Model("own", lm, tokenizer(), Provenance("own", "", "", "own"))
    asked = batch(Greedy(NEW), [(), plan()], [1, 0, 1])
    same(decode_batch(replace(model, engine="nnsight"), asked), decode_batch(model, asked))
    assert lm.generation_config.to_dict() == before


@pytest.mark.parametrize("engine", ["hf", *OTHERS])
def test_rows_end_where_they_should(models: Any, engine: str) -> None:
    """At an end token, at a stop string, at the limit; an engine is told of none but through the batch."""
    model = models["llama", engine]
    first, second, third = (g.tokens.tolist() for (g,) in decode_batch(models["llama", "hf"], batch(Greedy(NEW))))
    end = next(token for token in first[2:] if token not in second + third)
    last = next(token for token in second[2:] if not any(f"t{token}" in f"t{other}" for other in first + third))
    ends = StopRule(frozenset({end}), (f"t{last}",), tokenizer())
    said: list[tuple[int, int]] = []
    out = decode_batch(model, replace(batch(Greedy(NEW)), stop=ends), lambda *told: said.append(told))
    assert [g.finish for (g,) in out] == ["eos", "stop", "length"]
    assert said[0] == (1, 3) and said[-1][1] == 1
    same(out, decode_batch(models["llama", "hf"], replace(batch(Greedy(NEW)), stop=ends)))
    endless = decode_batch(model, replace(batch(Greedy(40)), stop=StopRule(frozenset())))
    assert [g.finish for (g,) in endless] == ["length"] * 3


@pytest.mark.parametrize("engine", ["hf", "graph", *OTHERS])
def test_who_waits_hears_every_token_and_rows_of_nobody_end(models: Any, engine: str) -> None:
    model = replace(models["llama", "hf"], engine=engine)
    for decoder in (Greedy(NEW), Sampling(2, max_new_tokens=NEW), Branching(2, NEW)):
        plain = decode_batch(model, batch(decoder))
        ends = StopRule(frozenset({int(plain[0][0].tokens[3])}))
        ears = [Ear(), Ear(), Ear()]
        made = decode_batch(model, replace(batch(decoder), stop=ends, listeners=ears))
        for ear, branches in zip(ears, made, strict=True):
            ear.check(branches)
        same(made, decode_batch(model, replace(batch(decoder), stop=ends)))
        made = decode_batch(model, replace(batch(decoder), listeners=[Ear(), Ear(3), Ear()]))
        assert sum(one.spent for one in made[1]) < sum(one.spent for one in plain[1])
        same([made[0], made[2]], [plain[0], plain[2]])


@pytest.mark.parametrize("engine", ["hf", *OTHERS])
def test_plans_that_do_nothing_or_break_are_told_with_their_arm(models: Any, engine: str) -> None:
    model = models["llama", engine]
    push = Intervention(Add(direction(32)), 6.0, layers=(1,))
    with pytest.raises(UserError, match="changed nothing"):
        decode_batch(model, batch(Greedy(3), [(replace(push, strength=1e-30),)]))
    with pytest.raises(UserError, match="arm 1: the relative perturbation norms of step 0 are NaN or") as caught:
        decode_batch(model, batch(Greedy(3), [(), (replace(push, strength=1e38),)], [0, 1, 0]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", OTHERS)
def test_methods_evaluate_through_an_engine(tiny: Model, engine: str, tmp_path: Path) -> None:
    """A steered handle beside its baselines: the samples of `hf`, in a run of another identity."""
    task = load_task("chain-sum", limit=4)
    push = Intervention(Add(direction(32)), 4.0, when=When.every_step(), layers=(2,))
    runs = []
    for model in (tiny, replace(tiny, engine=engine)):
        handle = replace(direct.fit(model, max_new_tokens=8), method="pushed", interventions=(push,))
        others = ["direct", "self-consistency"]
        runs.append(elicit.evaluate(handle, task.test, against=others, out=tmp_path / model.engine))
    for source, by_item in runs[0].traces.items():
        for item, traces in by_item.items():
            assert [t.text for t in traces] == [t.text for t in runs[1].traces[source][item]]
    ours, theirs = (run.store.config for run in runs)
    assert "engines" not in ours["identity"] and theirs["identity"]["engines"] == [engine]
    assert ours["identity"]["arms"] != theirs["identity"]["arms"]
    assert ours["execution"]["decoded_by"] == ["hf (shared-prefix)"] and theirs["execution"]["decoded_by"] == [engine]
    assert runs[1].metrics["model"]["engine"] == engine and runs[1].metrics["delivery"]["pushed"]["tokens_moved"] > 0
    again = Elicited.load(runs[1].folder / "elicited", replace(tiny, engine=engine))
    assert again.decode_key == handle.decode_key != replace(handle, model=tiny).decode_key


def test_the_command_line_takes_an_engine(tiny: Model, tiny_folder: Path, tmp_path: Path) -> None:
    """`elicit run --engine transformer-lens --method direct`."""
    common = ["run", "--model", str(tiny_folder), "--method", "direct", "--against", "none", "--limit", "3", "--json"]
    common += ["--max-new-tokens", "8", "--dtype", "float32", "--device", "cpu", "--out", str(tmp_path / "run")]
    code, out, error = shell(*common, "--engine", "transformer-lens")
    assert code == 0, error
    run = Run.load(json.loads(out)["run"])
    assert run.store.config["identity"]["engines"] == ["transformer-lens"]
    wanted = direct.fit(tiny, max_new_tokens=8).answer(run.items)
    assert [run.traces["direct"][item.id][0].text for item in run.items] == [trace.text for (trace,) in wanted]


def test_the_page_s_engine_runs_every_greedy_method(
    tiny: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code[0].splitlines()) <= 50
    (tmp_path / "my_engines.py").write_text(code[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("elicit.decoding.engine.ENGINES", dict(ENGINES))
    model = replace(tiny, engine="my_engines:Plain")
    register_engine("plain", type(engine_of(model)))
    named = replace(tiny, engine="plain")
    task = load_task("chain-sum", limit=5)
    for module in (direct, cot_prompt):
        wanted = module.fit(tiny, task.solved, max_new_tokens=12).answer(task.test)
        for one in (model, named):
            answered = module.fit(one, task.solved, max_new_tokens=12).answer(task.test)
            for (given,), (trace,) in zip(answered, wanted, strict=True):
                assert (given.tokens, given.text, given.answer) == (trace.tokens, trace.text, trace.answer)
                np.testing.assert_allclose([given.top1, given.entropy], [trace.top1, trace.entropy], atol=1e-4)
    run = elicit.evaluate(cot_prompt.fit(model, max_new_tokens=8), task.test, against="direct", out=tmp_path / "run")
    assert run.store.config["execution"]["decoded_by"] == ["plain"]
    with pytest.raises(UserError, match="the plain engine cannot do sampling decoding; it does greedy"):
        decode_batch(model, batch(Sampling(2)))
    with pytest.raises(UserError, match="the plain engine cannot carry interventions; use the hf engine"):
        decode_batch(model, batch(Greedy(2), [plan()]))
    with pytest.raises(UserError, match="'plain' is registered already"):
        register_engine("plain", Engine)


def test_what_an_engine_cannot_do_is_refused_in_one_line(tiny: Model, tmp_path: Path) -> None:
    class Narrow(Engine):
        name = "narrow"
        can = Can()

        def decode(self, batch: Batch, on_step: Any = None) -> list[list[Generation]]:
            raise AssertionError("asked")

    narrow = replace(tiny, engine="nowhere:Narrow")
    narrow.kept["engine"] = Narrow(narrow)
    with pytest.raises(UserError, match="cannot keep the statistics entropy, logprob, top2; it keeps none; use the hf"):
        Elicited(narrow, "x").answer(load_task("chain-sum", limit=2).test[:1])
    with pytest.raises(UserError, match="engine 'nowhere:Narrow' cannot be imported"):
        engine_of(replace(narrow))
    with pytest.raises(UserError, match="'json:JSONDecoder' is no engine"):
        engine_of(replace(tiny, engine="json:JSONDecoder"))
    with pytest.raises(UserError, match="unknown engine 'nsight'; did you mean nnsight"):
        Elicited(replace(tiny, engine="nsight"), "x")
    with pytest.raises(UserError, match="the nnsight engine does not see weights that are trained; train with the hf"):
        train(replace(tiny, engine="nnsight"), load_task("chain-sum", limit=2).fit, Settings(), tmp_path / "x")
    with pytest.raises(UserError, match="is no model of the hub"):
        engine_of(replace(tiny, engine="nnsight-remote"))


REMOTE = """
import sys
from dataclasses import replace
from elicit.decoding.decoders import Greedy
from elicit.decoding.engine import Batch, decode_batch
from elicit.decoding.engines.nnsight import RemoteEngine
from elicit.decoding.loop import StopRule
from elicit.models import load_model
from tests.decoding.test_engines import plan, same

RemoteEngine.remote = "local"
model = load_model(sys.argv[1], dtype="float32", device="cpu")
away = replace(model, engine="nnsight-remote")
prompts = [[5, 6, 7, 8, 9], [7, 8, 3], [20, 21, 22, 23]]
for arms, of in (([("", ())], None), ([("pushed", plan()), ("", ())], [0, 1, 0])):
    asked = Batch(prompts, ["a", "b", "c"], Greedy(6), StopRule(model.eos_ids, ("e",), model.tokenizer), arms, of)
    same(decode_batch(away, asked), decode_batch(model, asked))
"""


def test_what_travels_to_a_server_gives_the_same(tiny_folder: Path, tmp_path: Path) -> None:
    """In a process of its own, since the type checks put into this one cannot be packed with the methods they check."""
    ends_well(tmp_path / "remote.py", REMOTE, tiny_folder)


def test_streams_say_what_is_drawn(tiny: Model) -> None:
    """Of epoch 0 they are those of an item's id; another epoch is another answer, and a choice has its place."""
    prompts, kinds = [[5, 6, 7], [5, 6, 7]], ["number", "number"]
    handle = Elicited(tiny, "x", Prompt(), Sampling(3, temperature=1.0, max_new_tokens=12, seed=4), select="vote")

    def drawn(*rng_streams: RngStream | str) -> list[list[str]]:
        return [[one.said.text for one in some] for some in handle.respond(prompts, kinds, rng_streams)]

    plain = drawn("a", "b")
    assert plain == drawn(RngStream(4, "a"), RngStream(4, "b")) and plain[0] != plain[1]
    assert drawn(RngStream(4, "a", 0, 1), "b")[0][:2] == plain[0][1:]
    assert not {*drawn(RngStream(4, "a", 1), RngStream(5, "a"))[0], *drawn(RngStream(5, "a"), "b")[0]} & set(plain[0])
    drafts = handle.respond(prompts, kinds, [RngStream(4, "a", 0, 7), "b"], limit=5, stop=["e"])
    assert [one.choice for one in drafts[0]] == [7, 8, 9] and [one.choice for one in drafts[1]] == [0, 1, 2]
    assert all(len(one.generation.tokens) <= 5 for some in drafts for one in some)


def test_an_engine_is_kept_with_its_model(tiny: Model) -> None:
    model = replace(tiny, engine="transformer-lens")
    assert engine_of(model) is engine_of(model) is not engine_of(replace(model))


def test_a_bridge_that_loses_its_cache_is_refused(tiny: Model) -> None:
    """As transformer-lens up to 4.3 does by itself with transformers 5.24, which has another name for it."""
    lens = TransformerLens(tiny.lm, tiny.tokenizer)
    for layer in lens.bridge.original_model.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda _, given, named: (given, {**named, **dict.fromkeys(KEYS_AND_VALUES)}), with_kwargs=True
        )
    with pytest.raises(UserError, match=r"^TransformerLens's steps from a cache are not those of LlamaForCausalLM"):
        TransformerLensEngine(tiny, lens)
