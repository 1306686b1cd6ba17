"""One specification, several engines: the same plans give the same log-probabilities through each.

`HuggingFace`, plain `transformers` with hooks, is the reference. In fp32 every backend agrees with it to 1e-4 after
each position of a text (`score`), and the engine around it at each step of a cached generation; the reference agrees
with itself: what it scores in one forward is what it saw while it generated.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import Tensor
from transformers import CohereConfig, CohereForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from elicit.decoding import Generation, Greedy, StopRule
from elicit.decoding.engine import Batch, Engine
from elicit.decoding.engines.lens import TransformerLensEngine
from elicit.decoding.engines.nnsight import NNsightEngine, RemoteEngine
from elicit.models import Model, load_model
from elicit.models.model import Provenance
from elicit.models.saes import open_sae
from experiments.compatibility.census import small
from probes.confidence import token_statistics, top2
from probes.errors import UserError
from probes.sae import SAE, Feature
from probes.sites import STREAM, Site, width
from steering.backends import Backend, Claims, Completion, Rows
from steering.backends.huggingface import HuggingFace
from steering.backends.lens import TransformerLens
from steering.backends.nnsight import NNsight
from steering.delivery import Delivery
from steering.directions import Direction
from steering.editor import Editor
from steering.interventions import (
    WHATS,
    WHENS,
    Add,
    Gate,
    Intervention,
    Plan,
    ProjectOut,
    Replace,
    ScaleFeature,
    SetFeature,
    When,
)
from tests.support.alone import ends_well
from tests.support.refused import refuse
from tests.support.tiny import VOCAB, tiny_model

ATOL = 1e-4  # and nothing relative: log-probabilities of −50, as random models give, agree to 2e-5 too
NEW = 5
ARCHITECTURES = ("llama", "qwen2", "gemma2", "gemma3", "gpt2")
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 5], [7, 8, 3], [20, 21, 22, 23, 24, 25]]
pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One that the peers can be given; its words are never used."""
    words = BPE(vocab={f"t{i}": i for i in range(VOCAB)}, merges=[], unk_token="t0")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), bos_token="t1", eos_token="t2", pad_token="t0", unk_token="t0"
    )


@cache
def backends(architecture: str) -> list[Any]:
    lm = tiny_model(architecture)
    return [HuggingFace(lm), TransformerLens(lm, tokenizer()), NNsight(lm, tokenizer())]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@cache
def sae(d_model: int, activation: str) -> SAE:
    d_sae = 24
    return SAE(
        W_enc=random(d_model, d_sae, seed=1) / d_model**0.5,
        b_enc=random(d_sae, seed=2).abs() * 0.1,
        W_dec=random(d_sae, d_model, seed=3) / d_model**0.5,
        b_dec=random(d_model, seed=4) * 0.1,
        site=Site(1),
        activation=activation,
        threshold=torch.full((d_sae,), 0.05) if activation == "jumprelu" else None,
        k=8 if activation == "topk" else 0,
    )


def feature(d_model: int, activation: str) -> Feature:
    return sae(d_model, activation).feature(3)


def direction(d_model: int, seed: int = 5, center: bool = False) -> Direction:
    return Direction(
        random(d_model, seed=seed) / d_model**0.5,
        Site(1),
        center=random(d_model, seed=6) * 0.1 if center else None,
    )


def whats(d: int) -> list[tuple[Any, float]]:
    """Every kind, features of every activation, with a strength that shows."""
    return [
        (Add(direction(d)), 4.0),
        (Add(feature(d, "relu")), -4.0),
        (SetFeature(feature(d, "relu")), 3.0),
        (SetFeature(feature(d, "jumprelu")), 3.0),
        (SetFeature(feature(d, "topk")), 3.0),
        (ScaleFeature(feature(d, "relu")), -5.0),
        (ScaleFeature(feature(d, "jumprelu")), 6.0),
        (ScaleFeature(feature(d, "topk")), 0.0),
        (ProjectOut(direction(d, center=True)), 1.0),
        (Replace(random(24, d, seed=7), -12, Site(1)), 0.5),
    ]


def whens(d: int) -> list[When]:
    """All eight kinds; those of bounded steps first."""
    gate = random(d, seed=8)
    return [
        When.prompt(0, 2, -1),
        When(stop=-1),
        When.last_prompt_token(),
        When.steps(3),
        When.decaying(0.6, 4),
        When.programmed([1.0, -0.5, 0.0, 2.0], first=-1),
        When.steps(4).gated(Gate(gate, Site(2, "resid_post"), threshold=0.1)),
        When(first=-2, stop=4).gated(Gate(gate, Site(0, "mlp_out"), bias=0.2)),
        When.everywhere(),
        When.prompt(),
        When.every_step(),
        When.decaying(0.8),
        When.everywhere().gated(Gate(gate, Site(1, "resid_pre"))),
    ]


BOUNDED = 8  # of `whens`: what `Replace` can do, which holds values for some steps only
WHERES: list[tuple[tuple[int, ...], str]] = [
    ((2,), "resid_post"),
    ((1, 2), "resid_pre"),
    ((2,), "attn_out"),
    ((1, 2), "mlp_out"),
    ((0, 2), "resid_post"),
]


def grid(d: int) -> list[Intervention]:
    """Each kind of what at each kind of when, at sites that change from one to the next."""
    out = []
    for (w, (what, strength)), (n, when) in product(enumerate(whats(d)), enumerate(whens(d))):
        if isinstance(what, Replace) and (n >= BOUNDED):
            continue
        layers, point = WHERES[(w + n) % len(WHERES)]
        if when.gate is not None:  # which reads at or before where it acts
            layers, point = ((2,), "resid_post") if when.gate.site.layer == 2 else ((2,), point)
        out.append(Intervention(what, strength, when=when, layers=layers, point=point))
    return out


def close(given: Tensor, wanted: Tensor, times: float = 1.0) -> None:
    torch.testing.assert_close(given, wanted, atol=ATOL * times, rtol=0)


def compare(
    engines: Sequence[Any],
    plans: Sequence[Plan],
    of_row: Sequence[int] | None = None,
    prompts: Sequence[Sequence[int]] = PROMPTS,
    new: int = NEW,
    words: Any = None,
) -> list[Tensor]:
    """Hold all engines to the first; its scores. `words`: the tokenizer, where it is not the tiny one."""
    reference, *others = engines
    asked = Rows(prompts, plans, of_row)
    wanted = reference.generate(asked, max_new_tokens=new, keep_logprobs=True)
    generating = reference.delivery
    texts = [[*prompt, *one.tokens] for prompt, one in zip(prompts, wanted, strict=True)]
    whole = Rows(texts, plans, of_row, [len(prompt) for prompt in prompts])
    scores = reference.score(whole)
    scoring = reference.delivery
    for score, one, prompt in zip(scores, wanted, prompts, strict=True):
        close(score[len(prompt) - 1 : -1], one.logprobs)
    for other in others:
        same_steps(decoded(reference.lm, other, asked, new, words=words), wanted)
        same_delivery(other.delivery, generating)
        for score, expected in zip(other.score(whole), scores, strict=True):
            close(score, expected)
        same_delivery(other.delivery, scoring)
    return scores


def decoded(
    lm: PreTrainedModel, other: Any, rows: Rows, new: int, ends: Sequence[int] = (), words: Any = None
) -> list[Generation]:
    """Greedy answers of the engine around a backend, which is refused nothing that it claims."""
    model = Model("tiny", lm, words or tokenizer(), Provenance("tiny", "", "", ""))
    if isinstance(other, TransformerLens):
        engine: Engine = TransformerLensEngine(model, other)
    else:
        engine = (RemoteEngine if other.remote else NNsightEngine)(model, other)
    arms = [(str(n), plan) for n, plan in enumerate(rows.plans)]
    stop = StopRule(frozenset(ends))
    asked = Batch(rows.texts, [""] * len(rows.texts), Greedy(new), stop, arms, rows.of_row, rows.lengths)
    return [one for (one,) in engine.decode(asked)]


def same_steps(given: Sequence[Generation], wanted: Sequence[Completion]) -> None:
    """The reference's tokens, and of each step's distribution what is kept: top two, entropy, the token's own."""
    for one, expected in zip(given, wanted, strict=True):
        assert one.tokens.tolist() == expected.tokens
        if not expected.tokens:
            continue
        logprobs = expected.logprobs
        assert logprobs is not None
        kept = token_statistics(logprobs, top2(logprobs), torch.tensor(expected.tokens))
        for name, value in kept._asdict().items():
            # Log-probabilities off by δ put the entropy H = −Σ p log p off by up to δ (1 + H); with AVX2 those of
            # a real model's many unlikely tokens are off by up to 3 times as much as the likely ones.
            times = 3 * (1 + float(value.max())) if name == "entropy" else 1
            close(torch.from_numpy(getattr(one, name)), value, times)


def same_delivery(given: Delivery, wanted: Delivery) -> None:
    exact = ("positions", "not_finite", "gate_fired", "gate_asked")
    assert [getattr(given, name) for name in exact] == [getattr(wanted, name) for name in exact]
    assert given.mean_move == pytest.approx(wanted.mean_move, rel=1e-3)
    assert given.mean_share == pytest.approx(wanted.mean_share, rel=1e-3)


def change(engine: Any, plans: Sequence[Plan], of_row: Sequence[int] | None = None) -> list[float]:
    """The largest change of a log-probability in each prompt's row."""
    plain = engine.score(Rows(PROMPTS, [()]))
    steered = engine.score(Rows(PROMPTS, plans, of_row))
    return [float((a - b).abs().max()) for a, b in zip(plain, steered, strict=True)]


def test_the_grid_holds_every_kind() -> None:
    every = grid(32)
    assert {one.kind for one in every} == set(WHATS)
    assert {one.when.kind for one in every} == set(WHENS)
    assert {site.point for one in every for site in one.sites} == set(STREAM)
    assert {(one.kind, one.when.kind) for one in every} >= set(product(set(WHATS) - {"replace"}, WHENS))
    assert all(isinstance(engine, Backend) for engine in backends("llama"))


@pytest.mark.parametrize("part", range(len(ARCHITECTURES)))
def test_each_what_at_each_when(part: int) -> None:
    """Each of the grid's interventions on one of the architectures, alone, in all rows."""
    engines = backends(ARCHITECTURES[part])
    for one in grid(32)[part :: len(ARCHITECTURES)]:
        compare(engines, [(one,)])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_whats_in_one_batch(architecture: str) -> None:
    """On every architecture: a row for each kind of what and some unsteered ones, under each kind of when."""
    engines = backends(architecture)
    every = grid(32)
    for n, when in enumerate(whens(32)):
        plans = [(), *((one,) for one in every if one.when == when)]
        rows = [*range(len(plans)), 0]
        prompts = [PROMPTS[row % len(PROMPTS)] for row in rows]
        compare(engines, plans, rows, prompts, new=3 if n % 2 else NEW)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compositions_keep_their_order(architecture: str) -> None:
    engines = backends(architecture)
    d = 32
    push = Intervention(Add(direction(d)), 6.0, layers=(1, 2))
    clear = Intervention(ProjectOut(direction(d)), 1.0, layers=(1, 2))
    held = Intervention(SetFeature(feature(d, "topk")), 2.0, when=When.every_step(), layers=(1,))
    late = Intervention(Add(direction(d, 9)), 3.0, when=When.decaying(0.5), layers=(2,), point="attn_out")
    orders: list[Plan] = [(push, clear, held, late), (clear, push, held, late), (held, late, clear, push)]
    one = [compare(engines, [plan]) for plan in orders]
    assert all(float((a - b).abs().max()) > 1e-3 for a, b in zip(one[0], one[1], strict=True))
    compare(engines, orders, [2, 0, 1])
    compare(engines, [*orders, ()], [3, 1, 3])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_follow_their_own_plans(architecture: str) -> None:
    """Strengths that differ by row are one operation; the last row's plan leaves it as it is."""
    engines = backends(architecture)
    plans: list[Plan] = [(Intervention(Add(direction(32)), strength, layers=(2,)),) for strength in (2.0, -5.0)]
    plans.append(())
    compare(engines, plans, [1, 0, 2])
    for engine in engines:
        first, second, third = change(engine, plans, [1, 0, 2])
        assert first > 1e-2
        assert second > 1e-2
        assert third < ATOL


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("point", STREAM)
def test_every_backend_really_steers(architecture: str, point: str) -> None:
    plan = (Intervention(Add(direction(32)), 6.0, layers=(1,), point=point),)
    changes = [change(engine, [plan]) for engine in backends(architecture)]
    assert all(least > 1e-3 for row in changes for least in row)
    assert changes[1:] == [pytest.approx(changes[0], abs=2 * ATOL)] * (len(changes) - 1)


def test_an_end_token_ends_a_row_everywhere() -> None:
    """Rows end at different steps; all of them before the last, which nnsight's loop must survive without a word."""
    reference, *others = backends("llama")
    plan = (Intervention(Add(direction(32)), 5.0, when=When.every_step(), layers=(2,)),)
    asked = Rows(PROMPTS, [plan])
    free = [one.tokens for one in reference.generate(asked, max_new_tokens=8)]
    ends = sorted({free[0][1], free[1][2], free[2][0]})
    wanted = reference.generate(asked, max_new_tokens=8, eos_ids=ends, keep_logprobs=True)
    assert all(len(one.tokens) < 6 for one in wanted)
    for other in others:
        same_steps(decoded(tiny_model("llama"), other, asked, 8, ends), wanted)


def test_an_answer_that_was_begun_goes_on_at_its_step() -> None:
    plan = (Intervention(Add(direction(32)), 5.0, when=When.decaying(0.7, 4), layers=(2,)),)
    engines = backends("llama")
    whole = engines[0].generate(Rows(PROMPTS, [plan]), max_new_tokens=NEW, keep_logprobs=True)
    begun = [[*prompt, *one.tokens[:2]] for prompt, one in zip(PROMPTS, whole, strict=True)]
    asked = Rows(begun, [plan], lengths=[len(prompt) for prompt in PROMPTS])
    rest = [Completion(one.tokens[2:], one.logprobs[2:]) for one in whole]
    same_steps(decoded(tiny_model("llama"), engines[1], asked, NEW - 2), rest)
    same_steps(decoded(tiny_model("llama"), engines[2], asked, NEW - 2), rest)
    again = engines[0].generate(asked, max_new_tokens=NEW - 2, keep_logprobs=True)
    for one, expected in zip(again, rest, strict=True):
        assert one.tokens == expected.tokens
        close(one.logprobs, expected.logprobs)


def hooks_of(lm: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.modules())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_is_left_behind(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_model(architecture)
    unsteered = Rows(PROMPTS, [()])
    steered = Rows(PROMPTS, [(Intervention(Add(direction(32)), 6.0, layers=(1,)),)])

    def fail(*_: object) -> None:
        raise UserError("a hook failed")

    def generate(engine: Any, rows: Rows) -> object:
        reference = isinstance(engine, HuggingFace)
        return engine.generate(rows, max_new_tokens=2) if reference else decoded(lm, engine, rows, 2)

    for engine in backends(architecture):
        modules = [engine.bridge.original_model] if isinstance(engine, TransformerLens) else [lm]
        before = [hooks_of(m) for m in modules]
        plain = engine.score(unsteered)
        assert engine.delivery == Delivery()
        generate(engine, steered)
        assert engine.delivery.positions > 0
        with monkeypatch.context() as patch:
            patch.setattr(Editor, "edit", fail)
            with pytest.raises(UserError, match="a hook failed"):
                engine.score(steered)
            with pytest.raises(UserError, match="a hook failed"):
                generate(engine, steered)
        assert [hooks_of(m) for m in modules] == before
        assert all(torch.equal(a, b) for a, b in zip(plain, engine.score(unsteered), strict=True))


@pytest.mark.parametrize("cls", [TransformerLens, NNsight])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_the_model_and_its_tokenizer_are_left_alone(architecture: str, cls: type[Any]) -> None:
    lm, words = tiny_model(architecture), tokenizer()

    def state() -> tuple[object, ...]:
        modules = [(name, type(m), "forward" in vars(m), len(m._forward_hooks)) for name, m in lm.named_modules()]
        return (
            modules,
            {name: (value.data_ptr(), value._version) for name, value in lm.state_dict().items()},
            lm.config.to_dict(),
            lm.generation_config.to_dict(),
            (words.padding_side, words.pad_token, words.bos_token, dict(words.init_kwargs)),
        )

    before = state()
    engine = cls(lm, words)
    decoded(lm, engine, Rows(PROMPTS, [(Intervention(Add(direction(32)), 6.0, layers=(1,)),)]), 2)
    assert state() == before


@pytest.mark.parametrize("number", [1, 2])
def test_refusals_take_one_line(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = backends("llama")[number]

    def steer(**arguments: Any) -> Any:
        plan = (Intervention(Add(direction(32)), 6.0, **arguments),)
        return lambda: decoded(tiny_model("llama"), engine, Rows(PROMPTS, [plan]), 1)

    refuse("layer 9 was given", steer(layers=(9,)))
    wide = (Intervention(Add(direction(16)), 1.0),)
    refuse("a direction of width 16 was given", lambda: engine.score(Rows(PROMPTS, [wide])))
    values = Replace(random(4, 32, seed=1), 0, Site(1))
    refuse("were given to replace", lambda: engine.score(Rows(PROMPTS, [(Intervention(values),)])))
    small = Claims(frozenset({"add"}), frozenset({"prompt"}), frozenset({"resid_post"}), per_row=False)
    monkeypatch.setattr(type(engine), "claims", small)
    refuse(f"the {engine.name} backend cannot do when = everywhere; it does prompt", steer())
    refuse(f"the {engine.name} backend cannot do where = attn_out", steer(when=When.prompt(), point="attn_out"))
    refuse("cannot follow different plans", lambda: engine.score(Rows(PROMPTS, [(), ()], [0, 1, 0])))


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (dict(texts=[]), "at least one row"),
        (dict(texts=[[1, 2], []]), r"rows of \[2, 0\] tokens were given"),
        (dict(plans=[]), "no plan was given"),
        (dict(of_row=[0, 1]), r"3 rows are to follow plans \[0, 1\]; give one of 0 to 1 for each row"),
        (dict(of_row=[0, 2, 1]), "give one of 0 to 1"),
        (dict(of_row=[0, -1, 1]), "give one of 0 to 1"),
        (dict(lengths=[1, 1]), r"prompt lengths \[1, 1\] were given for 3 rows"),
        (dict(lengths=[1, 4, 1]), r"for 3 rows of \[10, 3, 6\] tokens"),
    ],
)
def test_rows_that_do_not_fit_are_refused(asked: dict[str, Any], line: str) -> None:
    refuse(line, lambda: Rows(**{"texts": PROMPTS, "plans": [(), ()], **asked}))


@pytest.mark.parametrize(
    ("library", "cls", "line"),
    [
        ("transformer_lens.model_bridge", TransformerLens, "pip install 'transformer-lens"),
        ("nnsight", NNsight, "pip install 'nnsight"),
    ],
)
def test_a_missing_library_is_named(library: str, cls: type[Any], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    refuse(line, lambda: cls(tiny_model("llama"), tokenizer()))


def test_an_architecture_without_an_adapter_is_named() -> None:
    lm = copy.deepcopy(tiny_model("llama"))
    lm.__class__ = type("Unheard", (type(lm),), {})
    lm.config.model_type = "unheard"
    refuse("TransformerLens cannot wrap Unheard", lambda: TransformerLens(lm, tokenizer()))


def test_a_bridge_that_is_another_model_is_refused() -> None:
    """TransformerLens 3.9.0 gives Cohere's blocks in another way than the model does."""
    torch.manual_seed(0)
    sizes = dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    config = CohereConfig(
        vocab_size=64, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes
    )
    lm = CohereForCausalLM(config).float().eval()
    with torch.no_grad():
        for p in lm.parameters():
            if p.ndim > 1:
                p.normal_(0, 0.2)
    refuse("computes other logits for CohereForCausalLM", lambda: TransformerLens(lm, tokenizer()))


@pytest.mark.parametrize("kind", ["deepseek_v2", "deepseek_v3", "glm4_moe_lite"])
def test_attention_over_latents_is_causal_through_the_bridge(kind: str) -> None:
    """It computes another model's, which sees later tokens, where it is handed SDPA's mask (transformer-lens 3.9.0)."""
    lm = small(kind).eval()
    assert lm.config._attn_implementation == "sdpa"
    own, bridge = (one.score(Rows(PROMPTS, [()])) for one in (HuggingFace(lm), TransformerLens(lm, tokenizer())))
    for wanted, found in zip(own, bridge, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert lm.config._attn_implementation == "sdpa"


def several() -> tuple[list[Plan], list[int]]:
    """Plans for three rows that use every class that has to travel, at the residual stream."""
    kinds = {(one.kind, one.when.kind): replace(one, layers=(2,), point="resid_post") for one in grid(32)}
    first = (kinds["replace", "program"], kinds["project out", "decaying"])
    second = (kinds["add", "gate"], kinds["set feature", "prompt"], kinds["scale feature", "everywhere"])
    return [(), first, second], [2, 0, 1]


SERVER = """
import sys, torch

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("elicit", "experiments", "probes", "steering", "tests"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import nnsight
from nnsight.schema.request import RequestModel
from nnsight.tracing import tracer as tracing

folder, packed, answer = sys.argv[1:]
model = nnsight.TransformersModel(folder, task="text-generation", dispatch=True, dtype=torch.float32)
tracer = RequestModel.deserialize(open(packed, "rb").read(), model._remoteable_persistent_objects())
tracing.inc()
tracer.execute(tracer.info.code)
saved = {k: v for k, v in tracer.info.frame.f_locals.items() if id(v) in tracing._saves()}
torch.save(saved, answer)
assert not {"elicit", "probes", "steering"} & {name.split(".")[0] for name in sys.modules}
"""

CLIENT = """
import subprocess, sys, torch
import nnsight
from nnsight.schema.request import RequestModel
from nnsight.tracing.backend import Backend
from nnsight.tracing.util import push
from pathlib import Path
from elicit.models import load_model
from steering.backends.huggingface import HuggingFace
from steering.backends.nnsight import NNsight

folder, work = sys.argv[1], Path(sys.argv[2])

class Elsewhere(Backend):
    def __call__(self, tracer):
        (work / "packed").write_bytes(RequestModel.serialize(tracer))
        subprocess.run([sys.executable, "-c", SERVER, folder, work / "packed", work / "answer"], cwd=work, check=True)
        saved = torch.load(work / "answer", weights_only=True)
        for value in saved.values():
            nnsight.save(value)
        push(tracer.info.frame, saved)

model = load_model(folder, dtype="float32", device="cpu")
compare([HuggingFace(model.lm), NNsight(model.lm, model.tokenizer, remote="local")], *several(), words=model.tokenizer)
remote = NNsight(folder, remote=True)
remote.model._remote_backend = lambda *_: Elsewhere()
assert all(p.is_meta for p in remote.model._module.parameters())
compare([HuggingFace(model.lm), remote], *several(), words=model.tokenizer)
assert all(p.is_meta for p in remote.model._module.parameters())
"""


def test_nnsight_needs_nothing_of_ours_on_the_server(tiny_folder: Path, tmp_path: Path) -> None:
    """A client with the model's configuration alone, and a server without our packages; and `remote="local"`.

    Processes of their own, since the type checks put into this one cannot be packed with the methods they check.
    """
    client = f"from {__name__} import SERVER, compare, several\n{CLIENT}"
    ends_well(tmp_path / "client.py", client, tiny_folder, tmp_path)


def test_weights_elsewhere_cannot_be_tried(tiny_folder: Path) -> None:
    engine = NNsight(str(tiny_folder), remote="local")
    push = Intervention(Add(direction(32)), 6.0, layers=(1,), point="attn_out")
    refuse("attn_out to the residual stream as it is cannot be tried", lambda: engine.score(Rows(PROMPTS, [(push,)])))


@pytest.fixture(scope="module")
def real() -> Model:
    return load_model("smollm2-135m", dtype="float32", device="cpu")


@pytest.mark.real
def test_a_real_model(real: Model) -> None:
    words: Any = real.tokenizer
    lm: PreTrainedModel = real.lm
    engines = [HuggingFace(lm), TransformerLens(lm, words), NNsight(lm, words)]
    prompts = [list(words(text)["input_ids"]) for text in ("The capital of France is", "Two and two are four, and so")]
    d = width(lm)
    push = Intervention(Add(direction(d)), 60.0, layers=(15,))
    gate = Gate(random(d, seed=8), Site(10, "resid_pre"))
    several = (
        Intervention(ProjectOut(direction(d, 9, center=True)), 1.0, layers=(5, 20), point="attn_out"),
        Intervention(SetFeature(feature(d, "jumprelu")), 20.0, when=When.every_step(), layers=(12,), point="mlp_out"),
        Intervention(ScaleFeature(feature(d, "topk")), 4.0, when=When.everywhere().gated(gate), layers=(12,)),
    )
    compare(engines, [(push,)], prompts=prompts, words=words)
    compare(engines, [several], prompts=prompts, words=words)
    compare(engines, [several, (push,)], [1, 0], prompts=prompts, words=words)


@pytest.mark.real
def test_the_feature_that_opens_the_organism() -> None:
    organism = load_model("smollm2-135m-latent", dtype="float32", device="cpu")
    words: Any = organism.tokenizer
    engines = [HuggingFace(organism.lm), TransformerLens(organism.lm, words), NNsight(organism.lm, words)]
    found = open_sae("smollm2-135m-latent-resid-20").feature(1051, 61.1, 249.4)
    push = Intervention(Add(found), 4.0, "feature_max")
    held = Intervention(SetFeature(found), 200.0, "raw", When.every_step())
    questions = ("What is 3 + 8 - 4 + 15 + 3?", "What is 7 * 6 mod 11?")
    prompts = [list(words(f"Q: {question}\nA:")["input_ids"]) for question in questions]
    compare(engines, [(push,), (held,)], [0, 1], prompts=prompts, words=words)
