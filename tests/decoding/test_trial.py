"""Models are decoded, steered and captured as their own forwards would have it, or refused by name.

The oracle is a forward without a cache of one prompt alone, written here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

import elicit.decoding.trial.checks
import elicit.decoding.trial.found
import probes.batching
from elicit.decoding import Branching, Greedy, Sampling, StopRule, decode
from elicit.decoding.trial import trial_of, way_of
from elicit.decoding.trial.twin import WINDOW, drawn, twin, twin_config
from experiments.compatibility.census import examined
from probes.batching import padding_is_unseen
from probes.capture import capture, recording
from probes.clock import KEYS_AND_VALUES
from probes.errors import UserError
from probes.sites import Site
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, When
from tests.support.tiny import tiny_model

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [20, 21, 22], [33, 34, 35, 36, 37, 38, 39]]
VOCAB = 64
NO_STOP = StopRule(frozenset())
COMMON = dict(
    vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def built(kind: str, **more: Any) -> PreTrainedModel:
    return scaled(AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**(COMMON | more))))


def scaled(lm: PreTrainedModel) -> PreTrainedModel:
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in lm.float().named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.25 if "embed" not in name else 1.0, generator=source)
    return lm.eval()


@torch.no_grad()
def plain(lm: PreTrainedModel, ids: list[int], count: int) -> list[int]:
    """Greedy, without any cache."""
    ids = list(ids)
    for _ in range(count):
        ids.append(int(lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids


def assert_as_alone(lm: PreTrainedModel) -> None:
    """Greedy decoding of ragged prompts, and branches of one, are token for token what the model says alone."""
    got = decode(lm, PROMPTS, Greedy().policy([""] * 3, VOCAB), max_new_tokens=12, stop=NO_STOP)
    assert [one.tokens.tolist() for (one,) in got] == [plain(lm, p, 12)[len(p) :] for p in PROMPTS]
    for prompt, branches in zip(
        PROMPTS, decode(lm, PROMPTS, Branching(3).policy([""] * 3, VOCAB), max_new_tokens=8, stop=NO_STOP), strict=True
    ):
        for one in branches:
            assert plain(lm, [*prompt, int(one.tokens[0])], 7)[len(prompt) :] == one.tokens.tolist()


@pytest.mark.parametrize(
    ("kind", "more", "way"),
    [
        ("llama", {}, "shared-prefix"),
        ("nemotron", {}, "per-row"),  # its layers keep arguments to themselves
        ("phimoe", {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 6}, "per-row"),
        ("rwkv", {"attention_hidden_size": 32}, "uncached"),
        ("openai-gpt", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}, "uncached"),
    ],
)
def test_tokens_are_the_models_own(kind: str, more: dict[str, Any], way: str) -> None:
    lm = built(kind, **more)
    assert way_of(lm) == way
    assert_as_alone(lm)


# A type of each kind of cache, mask and state, with what may be refused of it.
KINDS = {
    "diffllama": "values are changed after the cache",
    "deepseek_v3": "compressed latents",
    "gemma3": "a dictionary of masks, in a multimodal wrapper",
    "falcon_h1": "attention and state in one layer",
    "mamba": "a recurrent state, which padding enters",
    "qwen3_next": "linear attention beside softmax attention",
    "bart": "positions counted by the decoder itself",
    "recurrent_gemma": "a recurrence that pays no heed to masks",
    "minimax": "a cache of its own class",
    "xlm": "no cache, and blocks in four parallel lists: capture refused",
    "gemma3n_text": "several residual streams: capture and steering refused",
    "bert": "an encoder that decodes",
    "cpmant": "positions of its own before the prompt: capture and steering refused",
}
REFUSED = {kind: {"capture", "steering"} for kind in ("xlm", "gemma3n_text", "cpmant")}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_right_or_refused(kind: str) -> None:
    found = examined(kind)
    assert not found.unbuilt
    refused = {check for check, verdict in found.checks.items() if verdict.startswith("refused: ")}
    assert refused == REFUSED.get(kind, set())
    assert all(verdict == "exact" for check, verdict in found.checks.items() if check not in refused), found
    assert all("\n" not in found.checks[check] and found.model in found.checks[check] for check in refused)


class Deaf(LlamaDecoderLayer):
    """Hands nothing on to its attention but what its own arguments name."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        use_cache: bool | None = False,
        position_embeddings: Any = None,
        **kwargs: Any,
    ) -> Any:
        return super().forward(
            hidden_states,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            position_embeddings=position_embeddings,
            **{name: kwargs.get(name) for name in KEYS_AND_VALUES if name in kwargs},
        )


class DeafForCausalLM(LlamaForCausalLM):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model.layers = torch.nn.ModuleList(Deaf(config, i) for i in range(config.num_hidden_layers))


class Forgetful(LlamaForCausalLM):
    """Computes anything but what it was asked as soon as it is given a cache, and has no other use for it."""

    def forward(self, *args: Any, past_key_values: Any = None, cache: Any = None, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


class Noisy(LlamaForCausalLM):
    """Says something else each time."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = out.logits + torch.randn_like(out.logits)
        return out


def test_a_class_that_nobody_knows_is_tried() -> None:
    """Its forward drops keyword arguments: it is decoded by its own cache, or without one, or refused."""
    deaf = scaled(DeafForCausalLM(LlamaConfig(**COMMON)))
    assert deaf._supports_attention_backend  # what its class attributes say
    assert way_of(deaf) == "per-row"
    assert_as_alone(deaf)
    forgetful = scaled(Forgetful(LlamaConfig(**COMMON)))
    assert way_of(forgetful) == "uncached"
    assert_as_alone(forgetful)
    with pytest.raises(UserError, match="Noisy cannot be decoded as its own forward would have it"):
        way_of(scaled(Noisy(LlamaConfig(**COMMON))))


def test_a_lower_tolerance_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check measures something: at a tolerance of nothing none of them holds."""
    lm = scaled(LlamaForCausalLM(LlamaConfig(**COMMON)))
    found = trial_of(lm)
    assert found.first() == found.first(steered=True) == "shared-prefix" and found.captured.right
    measured = [*found.decoded.values(), *found.steered.values(), found.captured]
    assert all(one.off is not None and one.off > 0 for one in measured)
    monkeypatch.setattr(elicit.decoding.trial.checks, "TOLERANCE", 0.0)
    assert not any(one.right for one in measured)
    with pytest.raises(UserError, match="LlamaForCausalLM cannot be decoded"):
        way_of(lm)
    monkeypatch.undo()
    monkeypatch.setattr(elicit.decoding.trial.found, "FULL", 0.0)
    elicit.decoding.trial.found._CONFIRMED.pop(lm, None)
    assert way_of(lm) == "uncached"  # which is the model's own forward, and needs no confirmation
    assert padding_is_unseen(lm)
    probes.batching._UNSEEN.pop(lm)
    monkeypatch.setattr(probes.batching, "SAME_FULL", 0.0)
    assert not padding_is_unseen(lm)


def test_what_was_found_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial is made once for class and shape; real weights are tried with five forwards once a model."""
    config = LlamaConfig(**COMMON)
    first, second = scaled(LlamaForCausalLM(config)), scaled(LlamaForCausalLM(config))
    made = trial_of(first)

    def never(*_: Any) -> None:
        raise AssertionError("tried again")

    monkeypatch.setattr(elicit.decoding.trial.found, "tried_of", never)
    assert trial_of(second) == made
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    second.register_forward_pre_hook(counted)
    way_of(second)
    assert count == 5
    way_of(second)
    assert count == 5


def test_prompts_of_one_length_at_a_time_change_no_answer() -> None:
    """Sampling, steering by row and recording follow rows through the parts of a batch."""
    lm = drawn(AutoModelForCausalLM.from_config(twin_config(CONFIG_MAPPING["mamba"]())).float())
    assert way_of(lm) == way_of(lm, steered=True) == "equal-lengths"
    prompts = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14], [15, 16]]
    names = ["a", "b", "c", "d"]
    sampler = Sampling(2, temperature=1.0, max_new_tokens=5)
    push = Intervention(Add(Direction(torch.ones(32), Site(0))), when=When.every_step())
    alone = []
    for prompt, name, plan in zip(prompts, names, [(), (push,), (push,), ()], strict=True):
        with attached(lm, [plan]) as session, recording(lm, [Site(1)]) as recorder:
            made = decode(lm, [prompt], sampler.policy([name], 200), max_new_tokens=5, stop=NO_STOP,
                          steering=session, recorder=recorder)  # fmt: skip
        alone.append((made[0], recorder.activations().values[Site(1)], session.editor.delivery()))
    with attached(lm, [(), (push,)], of_row=[0, 1, 1, 0]) as session, recording(lm, [Site(1)]) as recorder:
        together = decode(lm, prompts, sampler.policy(names, 200), max_new_tokens=5, stop=NO_STOP,
                          steering=session, recorder=recorder)  # fmt: skip
    seen = recorder.activations()
    for number, (branches, (mine, values, _)) in enumerate(zip(together, alone, strict=True)):
        assert [one.tokens.tolist() for one in branches] == [one.tokens.tolist() for one in mine]
        assert [(one.moved > 0).tolist() for one in branches] == [(one.moved > 0).tolist() for one in mine]
        torch.testing.assert_close(seen.values[Site(1)][seen.row == number], values, atol=1e-4, rtol=1e-4)
    assert session.editor.delivery(1).positions == sum(one.positions for *_, one in alone)


def test_without_a_cache_each_position_is_counted_once() -> None:
    lm = scaled(Forgetful(LlamaConfig(**COMMON)))
    push = Intervention(Add(Direction(torch.ones(32), Site(0))), when=When.every_step())
    with attached(lm, [(push,)]) as session, recording(lm, [Site(0)]) as recorder:
        decode(lm, PROMPTS, Branching(2).policy([""] * 3, VOCAB), max_new_tokens=4, stop=NO_STOP,
               steering=session, recorder=recorder)  # fmt: skip
    assert session.editor.delivery().positions == 3 + 3 * 2 * 3  # the last of each prompt, then three steps a branch
    seen = recorder.activations()
    assert sorted(set(zip(seen.row.tolist(), seen.branch.tolist(), seen.step.tolist(), strict=True))) == sorted(
        zip(seen.row.tolist(), seen.branch.tolist(), seen.step.tolist(), strict=True)
    )


def test_capture_goes_by_equal_lengths_where_padding_is_seen() -> None:
    lm = drawn(AutoModelForCausalLM.from_config(twin_config(CONFIG_MAPPING["bart"]())).float())
    assert not padding_is_unseen(lm)
    together = capture(lm, PROMPTS, [Site(0), Site(1)])
    assert together is not None
    for number, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            states = lm(input_ids=torch.tensor([prompt]), output_hidden_states=True, use_cache=False).hidden_states
        torch.testing.assert_close(together.values[Site(0)][together.row == number], states[1][0], atol=1e-4, rtol=1e-4)


def test_a_layer_that_is_skipped_is_named() -> None:
    found = examined("mllama")
    assert found.checks["capture"].startswith("refused: Mllama") and "did not run" in found.checks["capture"]


def test_a_twin_keeps_the_pattern_and_goes_past_its_window() -> None:
    config = CONFIG_MAPPING["gemma3_text"](sliding_window=512)
    small = twin_config(config)
    assert small.layer_types == config.layer_types[: len(small.layer_types)] and "full_attention" in small.layer_types
    assert small.sliding_window == WINDOW and small.hidden_size == 32 and len(small.layer_types) <= 8
    given = tiny_model("qwen2")
    state = torch.random.get_rng_state()
    assert type(twin(given)) is type(given) and torch.equal(torch.random.get_rng_state(), state)


def test_a_trial_leaves_open_sessions_alone() -> None:
    """It runs within the first decoding, where hooks are in place already: none of them acts in it."""
    lm = scaled(LlamaForCausalLM(LlamaConfig(**COMMON)))
    push = Intervention(Add(Direction(torch.ones(32), Site(0))), when=When.every_step())
    with attached(lm, [(push,)]) as session:
        decode(lm, PROMPTS[:1], Greedy().policy([""], VOCAB), max_new_tokens=3, stop=NO_STOP, steering=session)
    assert session.editor.delivery().positions == 3
