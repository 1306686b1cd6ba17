"""The vllm backend against the hf one: the same log-probabilities for each what × when × where.

One engine for each model, since each takes seconds to start; many plans go as rows of one batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from probes.errors import UserError
from probes.sae import SAE, Feature
from probes.sites import STREAM, Site
from steering.backends import Completion, Rows
from steering.backends.huggingface import HuggingFace
from steering.backends.vllm import VLLM
from steering.directions import Direction
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
    What,
    When,
)

# vLLM and what it brings warn of their own matters.
pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = 1e-4
# Thirty layers in fp32: each engine is up to 9e-5 from the weights' own values, so the reference runs in fp64 there.
NEW = 6
_COMMON: dict[str, Any] = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,  # the smallest that vLLM's CPU attention takes
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=95,
)
_GEMMA: dict[str, Any] = dict(_COMMON, sliding_window=6, query_pre_attn_scalar=32)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": _COMMON,
    "qwen2": {k: v for k, v in _COMMON.items() if k != "head_dim"} | dict(num_attention_heads=2),
    "gemma2": dict(_GEMMA, attn_logit_softcapping=2.0, final_logit_softcapping=5.0),
    "gemma3": dict(_GEMMA, model_type="gemma3_text", layer_types=["sliding_attention"] * 3 + ["full_attention"]),
    "gpt2": dict(vocab_size=96, n_embd=64, n_layer=4, n_head=2, n_positions=128, bos_token_id=1, eos_token_id=95),
}
OPTIONS: dict[str, dict[str, Any]] = {
    # Fewer tokens a forward than the batch has, and than the longest text: prompts come in chunks.
    "llama": dict(max_num_batched_tokens=12, max_num_seqs=8),
}
IN_PROCESS = {"qwen2", "gemma2", "gemma3", "gpt2"}
"""Models whose engines run in this process and not, as vLLM's default is, in one of its own: they start sooner."""


def save(folder: Path, architecture: str) -> Path:
    arguments = dict(ARCHITECTURES[architecture])
    config = CONFIG_MAPPING[arguments.pop("model_type", architecture)](**arguments)
    torch.manual_seed(2)
    lm = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.0 if "embed" in name or "wte" in name else 0.2)
    lm.save_pretrained(folder)
    return folder


@dataclass
class Pair:
    """A model in vLLM and in `transformers`, with texts."""

    architecture: str
    ours: VLLM
    reference: HuggingFace
    texts: list[list[int]]
    lengths: list[int]

    @property
    def lm(self) -> PreTrainedModel:
        return self.reference.lm

    def whole(self, *plans: Plan, of_row: Sequence[int] | None = None) -> Rows:
        """All texts."""
        return Rows(self.texts, plans, of_row, self.lengths)

    def rows(self, plans: Sequence[Plan]) -> Rows:
        """A text for each plan."""
        numbers = [i % len(self.texts) for i in range(len(plans))]
        texts, lengths = [self.texts[i] for i in numbers], [self.lengths[i] for i in numbers]
        return Rows(texts, plans, range(len(plans)), lengths)


def start(
    architecture: str,
    folder: Path,
    texts: list[list[int]],
    lengths: list[int],
    dtype: torch.dtype = torch.float32,
    attention: str = "eager",
) -> Iterator[Pair]:
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()
    with pytest.MonkeyPatch.context() as patch:
        if architecture in IN_PROCESS:
            patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        ours = VLLM(folder, dtype="float32", max_model_len=64, **OPTIONS.get(architecture, {}))
        yield Pair(architecture, ours, HuggingFace(lm), texts, lengths)
        ours.close()


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    torch.manual_seed(3)
    lengths = [7, 5, 9, 3]
    texts = [
        torch.randint(3, 95, (length + more,)).tolist() for length, more in zip(lengths, (4, 6, 5, 11), strict=True)
    ]
    folder = save(tmp_path_factory.mktemp(request.param), request.param)
    yield from start(request.param, folder, texts, lengths)


@pytest.fixture(scope="module")
def smollm() -> Iterator[Pair]:
    models = Path(os.environ.get("ELICIT_HOME", Path.home() / ".cache" / "elicit")) / "models"
    found = sorted(folder for folder in models.glob("smollm2-135m-*") if (folder / "config.json").is_file())
    if not found:
        pytest.skip("SmolLM2-135M has not been fetched; `make test` fetches it")
    tokenizer = AutoTokenizer.from_pretrained(found[0])
    texts = tokenizer(["The capital of France is Paris, and", "17 + 26 = 43, so 43 - 26 ="])["input_ids"]
    yield from start("smollm2", found[0], texts, [len(text) - 3 for text in texts], torch.float64, "sdpa")


def prompts(rows: Rows) -> Rows:
    """The same rows without their continuations."""
    assert rows.lengths is not None
    texts = [text[:length] for text, length in zip(rows.texts, rows.lengths, strict=True)]
    return Rows(texts, rows.plans, rows.of_row)


def vector(d_model: int, seed: int) -> torch.Tensor:
    return torch.randn(d_model, generator=torch.Generator().manual_seed(seed))


def whats(d_model: int, site: Site, scale: float) -> dict[str, tuple[What, float]]:
    """Each kind with a strength; `scale` is the length of the activations."""
    unit = vector(d_model, 5) / vector(d_model, 5).norm()
    direction = Direction(unit * scale, site, center=0.1 * vector(d_model, 6))
    awake = 2 * scale / d_model**0.5  # a bias that leaves few positions silent
    feature = Feature(0, vector(d_model, 7) / d_model**0.5, 4 * unit, awake, site, activation="relu")
    values = torch.randn(12, d_model, generator=torch.Generator().manual_seed(8)) * scale / d_model**0.5
    return {
        "add": (Add(direction), 0.7),
        "set feature": (SetFeature(feature), 3 * awake),
        "scale feature": (ScaleFeature(feature), 2.5),
        "project out": (ProjectOut(direction), 1.0),
        "replace": (Replace(values, -6, site), 0.8),
    }


def whens(d_model: int, what: str, site: Site) -> dict[str, When]:
    gate = Gate(vector(d_model, 9), Site(0, "resid_pre") if site.layer else site, bias=0.1)
    wanted = {
        "everywhere": When.everywhere(),
        "prompt": When.prompt(1, -2),
        "last prompt token": When.last_prompt_token(),
        "steps": When.steps(3),
        "every step": When.every_step(),
        "decaying": When.decaying(0.6, 4),
        "program": When.programmed([0.5, 0.0, -1.0, 0.7], first=-1),
        "gate": When(first=-4, stop=5).gated(gate),
    }
    assert list(wanted) == list(WHENS)
    assert all(when.kind == kind for kind, when in wanted.items())
    if what == "replace":  # without an end it would act where it holds no values, and is refused
        del wanted["everywhere"], wanted["every step"]
    return wanted


def grid(pair: Pair, point: str) -> dict[str, Plan]:
    """A plan for each what × when at a point."""
    d_model = pair.ours.d_model
    layer = 1 if point != "resid_post" else 2
    site = Site(layer, point)
    scale = norm(pair.lm, site)
    made = whats(d_model, site, scale)
    assert list(made) == list(WHATS)
    return {
        f"{kind} × {name}": (Intervention(what, strength, when=when),)
        for kind, (what, strength) in made.items()
        for name, when in whens(d_model, kind, site).items()
    }


def norm(lm: PreTrainedModel, site: Site) -> float:
    """The typical length of the activations at a site."""
    from probes.sites import on_site

    seen: list[float] = []
    handle = on_site(lm, site, lambda h: seen.append(float(h.norm(dim=-1).median())))
    with torch.no_grad():
        lm(input_ids=torch.tensor([[5, 9, 30, 41, 17]]))
    handle.remove()
    return seen[0]


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    return float((ours - theirs).abs().max())


def agree(
    names: list[str], ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = TOLERANCE
) -> float:
    off = {name: apart(*both) for name, *both in zip(names, ours, theirs, strict=True)}
    worst = {name: value for name, value in off.items() if not value < tolerance}
    assert not worst
    return max(off.values())


def same_steps(
    names: list[str], ours: list[Completion], theirs: list[Completion], tolerance: float = TOLERANCE
) -> float:
    for name, mine, other in zip(names, ours, theirs, strict=True):
        assert mine.tokens == other.tokens, name
    return agree(names, [one.logprobs for one in ours], [one.logprobs for one in theirs], tolerance)


def same_delivery(pair: Pair) -> None:
    ours, theirs = pair.ours.delivery, pair.reference.delivery
    assert (ours.positions, ours.gate_fired, ours.gate_asked) == (
        theirs.positions,
        theirs.gate_fired,
        theirs.gate_asked,
    )
    assert ours.mean_share == pytest.approx(theirs.mean_share, rel=1e-3)
    assert ours.max_share == pytest.approx(theirs.max_share, rel=1e-3)
    assert not ours.not_finite


@pytest.mark.parametrize("point", STREAM)
def test_prefill_is_steered_as_by_hooks(pair: Pair, point: str, record: dict[str, float]) -> None:
    plans = grid(pair, point)
    given = pair.rows(list(plans.values()))
    ours, theirs = pair.ours.score(given), pair.reference.score(given)
    note(record, pair, "score", agree(list(plans), ours, theirs))
    same_delivery(pair)
    plain = pair.reference.score(Rows(given.texts, [()], lengths=given.lengths))
    unmoved = [name for name, *both in zip(plans, ours, plain, strict=True) if apart(*both) < 1e-2]
    assert not unmoved


@pytest.mark.parametrize("point", STREAM)
def test_each_cached_step_is_steered_as_by_hooks(pair: Pair, point: str, record: dict[str, float]) -> None:
    plans = grid(pair, point)
    given = prompts(pair.rows(list(plans.values())))
    asked = dict(max_new_tokens=NEW, keep_logprobs=True)
    ours, theirs = (one.generate(given, eos_ids=[], **asked) for one in (pair.ours, pair.reference))
    note(record, pair, "generate", same_steps(list(plans), ours, theirs))
    same_delivery(pair)


def test_one_plan_for_all_rows(pair: Pair, record: dict[str, float]) -> None:
    first, last = grid(pair, "resid_pre"), grid(pair, "mlp_out")
    addition = replace(first["add × decaying"][0], layers=(0, 2, 3), strength=0.3)
    plan = (addition, *first["project out × gate"], *last["set feature × steps"], *last["replace × program"])
    given = pair.whole(plan)
    note(record, pair, "score", agree([*"abcd"], pair.ours.score(given), pair.reference.score(given)))
    same_delivery(pair)
    asked = dict(max_new_tokens=NEW, keep_logprobs=True)
    ours, theirs = (one.generate(prompts(given), **asked) for one in (pair.ours, pair.reference))
    note(record, pair, "generate", same_steps([*"abcd"], ours, theirs))
    same_delivery(pair)


def test_answers_end_at_the_callers_end_token(pair: Pair) -> None:
    given = prompts(pair.whole(grid(pair, "resid_post")["add × everywhere"]))
    asked = dict(max_new_tokens=NEW)
    free = pair.ours.generate(given, **asked)
    assert all(len(one.tokens) == NEW and one.logprobs is None for one in free)
    ends = [free[0].tokens[2], free[1].tokens[4]]
    asked |= dict(eos_ids=ends, keep_logprobs=True)
    ours, theirs = (one.generate(given, **asked) for one in (pair.ours, pair.reference))
    assert len(ours[0].tokens) <= 2
    assert all(len(one.logprobs) == len(one.tokens) for one in ours)
    filled = [i for i, one in enumerate(ours) if one.tokens]
    assert filled
    same_steps([str(i) for i in filled], [ours[i] for i in filled], [theirs[i] for i in filled])


def test_nothing_is_left_behind(pair: Pair) -> None:
    strong = replace(grid(pair, "resid_pre")["add × everywhere"][0], strength=20.0)
    names = [*"abcd"]
    plain = pair.reference.score(pair.whole(()))
    pair.ours.score(pair.whole((strong,)))
    assert pair.ours.delivery.positions == sum(map(len, pair.texts))
    agree(names, pair.ours.score(pair.whole(())), plain)
    assert pair.ours.delivery.positions == 0
    with pytest.raises(UserError, match="changed nothing"):
        pair.ours.delivery.check()


def test_only_the_rows_of_a_plan_are_steered(pair: Pair) -> None:
    strong = replace(grid(pair, "resid_post")["add × everywhere"][0], strength=20.0)
    plain = pair.reference.score(pair.whole(()))
    ours = pair.ours.score(pair.whole((), (strong,), of_row=[0, 1, 0, 1]))
    agree(["a", "c"], ours[::2], plain[::2])
    assert all(apart(*both) > 0.1 for both in zip(ours[1::2], plain[1::2], strict=True))


def test_a_gate_that_never_fires_is_seen(pair: Pair) -> None:
    (gated,) = grid(pair, "resid_post")["add × gate"]
    assert gated.when.gate is not None
    shut = replace(gated, when=gated.when.gated(replace(gated.when.gate, threshold=1e6)))
    pair.ours.score(pair.whole((shut,)))
    assert pair.ours.delivery.gate_fired == 0
    assert pair.ours.delivery.gate_asked > 0
    with pytest.raises(UserError, match="never fired"):
        pair.ours.delivery.check()


def test_plans_that_do_not_fit_are_refused(pair: Pair) -> None:
    grown = grid(pair, "resid_post")
    (good,) = grown["add × everywhere"]
    (gated,) = grown["add × gate"]
    (replaced,) = grown["replace × steps"]
    other = Direction(torch.ones(48), Site(1))
    narrow = replace(gated, when=When().gated(Gate(torch.ones(48), Site(0, "resid_pre"))))
    for one, message in (
        (replace(good, layers=(9,)), "layer 9 was given; the model has 4 layers, give 0 to 3"),
        (Intervention(Add(other)), "a direction of width 48 was given; the model has d_model 64"),
        (narrow, "a gate of width 48 was given; the model has d_model 64"),
        (replace(replaced, when=When.every_step()), "were given to replace"),
    ):
        with pytest.raises(UserError, match=message):
            pair.ours.score(pair.whole((one,)))
    with pytest.raises(UserError, match="give a larger max_model_len"):
        pair.ours.score(Rows([[1] * 64], [(good,)], lengths=[2]))


@pytest.mark.parametrize(
    ("option", "value"), [("enforce_eager", False), ("enable_prefix_caching", True), ("pipeline_parallel_size", 2)]
)
def test_options_that_break_steering_are_refused(option: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{option}={value} was given; the vllm backend needs"):
        VLLM("nowhere", **{option: value})


@pytest.mark.parametrize("number", range(len(STREAM)), ids=STREAM)
def test_a_real_model_is_steered_as_by_hooks(smollm: Pair, number: int, record: dict[str, float]) -> None:
    everything = grid(smollm, STREAM[number])
    plans = {name: tuple(map(gentle, everything[name])) for name in list(everything)[number::8]}
    given = smollm.rows(list(plans.values()))
    ours, theirs = (one.score(given) for one in (smollm.ours, smollm.reference))
    # Thirty layers in fp32 on kernels of other libraries: 1.1e-4 apart on one of the processors that were tried.
    note(record, smollm, "score", agree(list(plans), ours, theirs, 2 * TOLERANCE))
    same_delivery(smollm)
    asked = dict(max_new_tokens=3, keep_logprobs=True)
    answers = (one.generate(prompts(given), **asked) for one in (smollm.ours, smollm.reference))
    note(record, smollm, "generate", same_steps(list(plans), *answers, TOLERANCE))
    same_delivery(smollm)


def test_a_trained_feature_is_pushed_as_by_hooks(smollm: Pair, record: dict[str, float]) -> None:
    sae = SAE.load("elicit/models/shipped/saes/smollm2-135m-resid-20")
    feature = sae.feature(int(sae.W_dec.norm(dim=1).argmax()), 10.0, 100.0)
    plans = [
        (Intervention(Add(feature), 2.0, "feature_max"),),
        (Intervention(SetFeature(feature), 20.0, "raw", When.every_step()),),
    ]
    given = smollm.rows(plans)
    ours, theirs = (one.score(given) for one in (smollm.ours, smollm.reference))
    note(record, smollm, "trained feature", agree(["add", "set"], ours, theirs, TOLERANCE))
    same_delivery(smollm)


def gentle(one: Intervention) -> Intervention:
    """A real model pushed far out of its range amplifies rounding."""
    return one if isinstance(one.what, SetFeature | ScaleFeature) else one.times(0.3)


def test_a_hook_that_fails_ends_the_call(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    # Last, since vLLM gives up an engine whose worker failed.
    monkeypatch.setattr(pair.ours, "_check_plan", lambda plan: None)
    broken = Intervention(Add(Direction(torch.ones(48), Site(1))))
    with pytest.raises(Exception, match=r".") as raised:
        pair.ours.score(pair.whole((broken,)))
    assert type(raised.value).__name__ in ("EngineDeadError", "RuntimeError")


def note(record: dict[str, float], pair: Pair, what: str, value: float) -> None:
    key = f"{pair.architecture} {what}"
    record[key] = max(record.get(key, 0.0), value)


@pytest.fixture(scope="module")
def record() -> Iterator[dict[str, float]]:
    """The largest difference of each model, printed at the end where pytest shows output."""
    kept: dict[str, float] = {}
    yield kept
    print("\n".join(f"{key}: {value:.1e}" for key, value in kept.items()))
