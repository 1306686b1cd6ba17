"""NaN and infinity end what meets them in one line, and nothing of it is kept; −inf of masked tokens does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

import elicit
from elicit.analysis.continuations import early_answers
from elicit.decoding import Branching, Greedy, Hybrid, Sampling, StopRule, decode
from elicit.decoding.decoders.gates import AlwaysGate
from elicit.decoding.decoders.partner import HybridSteering
from elicit.elicited import Elicited
from elicit.models import Model
from elicit.tasks import Task
from probes.capture import capture, recording
from probes.errors import UserError
from probes.finite import NotFiniteError, check_logits
from probes.likelihood import mean_losses, next_probabilities
from probes.sae import SAE
from probes.sae.card import sae_card
from probes.sites import Site, on_site
from steering.backends import Rows
from steering.backends.huggingface import HuggingFace
from steering.directions import Direction
from steering.effect import effect
from steering.hooks import attached
from steering.interventions import Add, Intervention
from steering.patching import patch
from tests.support.saes import save_random_sae
from tests.support.tiny import VOCAB, tiny_model

NAN, INF = float("nan"), float("inf")
PROMPTS = [[5, 9, 3], [7, 1, 2, 8, 40, 41, 42], [11] * 6]
NO_STOP = StopRule(frozenset())


@pytest.fixture(scope="module")
def task() -> Task:
    return elicit.load_task("chain-sum:min_terms=2,max_terms=3,min_digits=1,max_digits=1", limit=6)


def one_weight(lm: PreTrainedModel) -> None:
    lm.get_parameter("model.layers.2.mlp.up_proj.weight")[3, 4] = NAN


def all_weights(lm: PreTrainedModel) -> None:
    for parameter in lm.parameters():
        parameter.fill_(NAN)


def infinite_head(lm: PreTrainedModel) -> None:
    """One weight: the logits of one token are +inf or, elsewhere, −inf."""
    lm.get_parameter("lm_head.weight")[33, 5] = INF


def overflowing(lm: PreTrainedModel) -> None:
    """Finite in float32, not in float16."""
    for name, parameter in lm.named_parameters():
        if "mlp.up_proj" in name or "mlp.down_proj" in name:
            parameter.mul_(300)
    lm.half()


FAULTS: dict[str, tuple[Callable[[PreTrainedModel], None], str]] = {
    "NaN in one weight": (one_weight, "float32"),
    "NaN in all weights": (all_weights, "float32"),
    "infinity in the head": (infinite_head, "float32"),
    "too much for float16": (overflowing, "float16"),
}


def spoilt(tiny: Model, change: Callable[[PreTrainedModel], None]) -> Model:
    lm = deepcopy(tiny.lm)
    with torch.no_grad():
        change(lm)
    return replace(tiny, lm=lm)


def told(call: Callable[[], object], *words: str) -> str:
    with pytest.raises(NotFiniteError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


@contextmanager
def put(lm: PreTrainedModel, step: int, value: float, column: int | None = None) -> Iterator[None]:
    """Logits of a value from the forward of a step on, of all tokens or of one."""
    decode(lm, PROMPTS, Greedy().policy(["a", "b", "c"], VOCAB), max_new_tokens=1, stop=NO_STOP)  # it is tried before
    seen = 0

    def hook(_: nn.Module, __: object, logits: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        out = logits.clone()
        if seen > step:
            out[..., slice(None) if column is None else column] = value
        return out

    handle = lm.get_output_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("method", ["direct", "cot-decoding", "self-consistency"])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_evaluation_ends_and_keeps_nothing(tiny: Model, task: Task, tmp_path: Path, fault: str, method: str) -> None:
    change, dtype = FAULTS[fault]
    handle = elicit.methods.fit(method, spoilt(tiny, change), task.fit, max_new_tokens=4)
    words = (f"{method}: the logits of step 0", f"in {dtype}; ", "bfloat16 or float32" if dtype == "float16" else "")
    told(lambda: elicit.evaluate(handle, task.test[:2], out=tmp_path / "run"), *words)
    assert (tmp_path / "run" / "samples.jsonl").read_bytes() == b"" and not (tmp_path / "run" / "metrics.json").exists()
    told(lambda: handle.answers(task.test[:2]), *words)


def test_an_arm_that_fails_later_is_named_and_what_was_finished_stays(tiny: Model, task: Task, tmp_path: Path) -> None:
    fine = elicit.methods.direct.fit(tiny, task.fit, max_new_tokens=4)
    broken = elicit.methods.cot_decoding.fit(spoilt(tiny, one_weight), k=2, max_new_tokens=4)
    told(
        lambda: elicit.evaluate(fine, task.test[:2], against={"the other": broken}, out=tmp_path / "run"),
        "the other: the logits of step 0",
    )
    kept = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert {line["source"] for line in kept} == {"direct"} and len(kept) == 2
    mended = {"the other": replace(broken, model=tiny)}
    run = elicit.evaluate(fine, task.test[:2], against=mended, out=tmp_path / "run")
    lines = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    assert lines[:2] == kept and len(lines) == 6 and "NaN" not in (run.folder / "samples.jsonl").read_text()


@pytest.mark.parametrize("policy", [Greedy(), Branching(3), Sampling(2)])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("step", [0, 3])
def test_the_step_is_told(policy: Greedy | Branching | Sampling, value: float, step: int) -> None:
    """All logits, from a step on: NaN, +inf, or nothing but −inf."""
    lm = tiny_model("llama")
    with put(lm, step, value):
        told(
            lambda: decode(lm, PROMPTS, policy.policy(["a", "b", "c"], VOCAB), max_new_tokens=6, stop=NO_STOP),
            f"the logits of step {step} are NaN or infinite in float32; ",
        )


@pytest.mark.parametrize("value", [NAN, INF])
def test_one_logit_is_enough(value: float) -> None:
    lm = tiny_model("llama")
    with put(lm, 2, value, column=63):
        told(lambda: decode(lm, PROMPTS, Greedy().policy([""] * 3, VOCAB), max_new_tokens=6, stop=NO_STOP), "step 2")


@pytest.mark.parametrize("policy", [Greedy(), Branching(3), Sampling(2)])
def test_masked_tokens_are_no_error(policy: Greedy | Branching | Sampling) -> None:
    lm = tiny_model("llama")
    with put(lm, 0, -INF, column=63):
        out = decode(lm, PROMPTS, policy.policy(["a", "b", "c"], VOCAB), max_new_tokens=6, stop=NO_STOP)
    assert all(63 not in branch.tokens and branch.entropy.min() > 0 for branches in out for branch in branches)


def test_an_infinite_weight_is_found_where_its_logits_look_masked() -> None:
    """Its token's logits are −inf wherever the other factor is negative."""
    lm = deepcopy(tiny_model("llama"))
    with torch.no_grad():
        lm.get_parameter("model.norm.weight")[5] = 0.0
        lm.get_parameter("lm_head.weight")[33, 5] = -INF
    told(lambda: decode(lm, PROMPTS, Greedy().policy([""] * 3, VOCAB), max_new_tokens=2, stop=NO_STOP), "step 0")


def push(strength: float, vector: Tensor | None = None) -> tuple[Intervention, ...]:
    return (Intervention(Add(Direction(torch.ones(32) if vector is None else vector, Site(1), "d")), strength),)


def test_steering_that_is_too_strong_is_told_to_be_less(tiny: Model, task: Task) -> None:
    handle = replace(Elicited(tiny, "mine", decoder=Greedy(4)), interventions=push(1e38))
    told(lambda: handle.answers(task.test[:2]), "mine: ", "step 0", "d × 1e+38 made", "lower its strength")
    finite = replace(handle, model=spoilt(tiny, overflowing), interventions=push(1.0))
    told(lambda: finite.answers(task.test[:2]), "in float16; lower the strength of the intervention d × 1", "float32")


def test_what_was_broken_before_it_is_not_the_interventions(tiny: Model) -> None:
    lm = spoilt(tiny, lambda lm: lm.get_parameter("model.layers.0.mlp.up_proj.weight").fill_(NAN)).lm
    with attached(lm, [push(1.0)]) as session, torch.no_grad():
        lm(torch.tensor(PROMPTS[:1]))
    assert session.editor.delivery().not_finite == 0


@pytest.mark.parametrize("whose", ["partner", "candidate"])
def test_hybrid_decoding_looks_at_both_models(tiny: Model, task: Task, whose: str) -> None:
    strong = torch.full((32,), 1e38 if whose == "candidate" else 0.1)
    partner = HybridSteering(
        {0: Direction(strong, Site(1), "d")}, AlwaysGate(0), spoilt(tiny, one_weight) if whose == "partner" else None
    )
    decoder = Hybrid(coefficients=(30.0,), select="likelihood" if whose == "partner" else "none", max_new_tokens=4)
    handle = Elicited(tiny, "both", decoder=decoder, partner=partner)
    met = {"partner": "the partner's logits of step 0", "candidate": "the logits of a steered candidate of step 0"}
    told(lambda: handle.answers(task.test[:2]), f"both: {met[whose]}")


def test_the_site_is_told_and_padding_is_not_looked_at(tiny: Model) -> None:
    texts, sites = [[5, 6, 7], [8]], [Site(0), Site(1, "mlp_out"), Site(3)]
    assert capture(tiny.lm, texts, sites) is not None
    lm = spoilt(tiny, one_weight).lm
    told(lambda: capture(lm, texts, sites), "the activations at 3.resid_post are NaN or infinite in float32; ")
    assert capture(lm, texts, sites[:1]) is not None
    told(lambda: capture(spoilt(tiny, overflowing).lm, texts, sites), "at 1.resid_pre are", "in float16", "or float32")

    def padding(h: Tensor) -> Tensor:
        out = h.clone()
        out[1, :2] = NAN
        return out

    handle = on_site(tiny.lm, Site(3), padding)
    try:
        found = capture(tiny.lm, texts, [Site(3)])
    finally:
        handle.remove()
    assert found is not None and len(found) == 4


def test_what_float16_is_too_narrow_for_is_not_kept_in_it(tiny: Model) -> None:
    lm = spoilt(tiny, lambda lm: lm.get_parameter("model.embed_tokens.weight").mul_(1e6)).lm
    assert capture(lm, [[5]], [Site(0, "resid_pre")]) is not None
    told(lambda: capture(lm, [[5]], [Site(0, "resid_pre")], dtype=torch.float16), "in float16; give dtype bfloat16")


def test_nothing_is_left_to_read_of_a_capture_that_failed(tiny: Model, tmp_path: Path) -> None:
    told(lambda: capture(spoilt(tiny, one_weight).lm, [[5, 6]], [Site(3)], out=tmp_path / "acts"), "3.resid_post")
    assert not (tmp_path / "acts" / "activations.json").exists()


def test_patterns_and_recorded_steps_are_looked_at(tiny: Model) -> None:
    lm = spoilt(tiny, lambda lm: lm.get_parameter("model.layers.1.self_attn.q_proj.weight").fill_(NAN)).lm
    told(lambda: capture(lm, [[5, 6]], [Site(1, "pattern")]), "1.pattern")
    policy = Greedy().policy([""] * 3, VOCAB)
    with put(tiny.lm, 9, NAN), recording(tiny.lm, [Site(2)]) as recorder:
        decode(tiny.lm, PROMPTS, policy, max_new_tokens=4, stop=NO_STOP, recorder=recorder)
    assert bool(recorder.activations().values[Site(2)].isfinite().all())


def test_forwards_over_given_texts_are_looked_at(tiny: Model, task: Task) -> None:
    lm = spoilt(tiny, one_weight).lm
    told(lambda: mean_losses(lm, PROMPTS, [1, 1, 1]), "the logits of given texts", "float32")
    told(lambda: list(next_probabilities(lm, PROMPTS)), "the logits of given texts")
    told(lambda: patch(lm, [5, 6, 7], [5, 6, 8], unrelated=0), "the logits after the prompts")
    told(lambda: effect(lm, push(1.0), [5, 6, 7], 2), "the logits without interventions")
    told(lambda: HuggingFace(lm).score(Rows(PROMPTS, [()], lengths=[1, 1, 1])), "the logits are")
    told(
        lambda: HuggingFace(lm).generate(Rows(PROMPTS, [()]), max_new_tokens=2, keep_logprobs=True),
        "the logits are",
    )
    handle = Elicited(spoilt(tiny, one_weight), "asked", decoder=Greedy(4))
    told(lambda: early_answers(handle, task.test[:1], [[5, 6]]), "asked: the logits of step 0")


def test_what_is_loaded_is_finite(tiny: Model, tmp_path: Path) -> None:
    folder = save_random_sae(tmp_path / "sae")
    whole = load_file(folder / "sae_weights.safetensors")
    for name, value in (("W_dec", INF), ("b_enc", NAN), ("W_enc", -INF)):
        changed = {key: tensor.clone() for key, tensor in whole.items()}
        changed[name].view(-1)[-1] = value
        save_file(changed, folder / "sae_weights.safetensors")
        with pytest.raises(UserError, match=f"NaN or infinity in {name}"):
            SAE.load(folder)


def test_a_card_of_an_sae_is_not_made_of_nan(tiny: Model, tmp_path: Path) -> None:
    sae = SAE.load(save_random_sae(tmp_path / "sae"))
    lm = spoilt(tiny, lambda lm: lm.get_parameter("model.embed_tokens.weight")[7].fill_(NAN)).lm
    texts = [[5, 6, 8, 9], [7, 6, 5, 8]]
    told(lambda: sae_card(lm, sae, texts, [4, 4]), f"the activations at {sae.site}")


def test_the_largest_logit_tells() -> None:
    for bad in ([1.0, NAN], [INF, 1.0], [-INF, -INF]):
        with pytest.raises(NotFiniteError):
            check_logits(torch.tensor([[1.0, 2.0], bad]), torch.float32)
    check_logits(torch.tensor([[1.0, -INF]]), torch.float32)
