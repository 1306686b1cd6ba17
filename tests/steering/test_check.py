"""`check_steering`: right hooks hold on several architectures, and each deliberately wrong one is found by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import elicit
from probes.capture import capture
from probes.errors import UserError
from probes.sites import Site, blocks
from steering.check import SteeringReport, check_steering
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, When
from tests.support.hooks import LAYER, RIGHT, WRONG, added, hooked, on_output, vector
from tests.support.tiny import tiny_model

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [11, 12, 13]]


def checked(lm: PreTrainedModel, apply: Any, layers: tuple[int, ...] = (LAYER,), **options: Any) -> SteeringReport:
    adds = {Site(layer): vector(lm, layer) for layer in layers}
    return check_steering(lm, None, apply, **{"prompts": PROMPTS, "adds": adds, "steps": 2, **options})


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("llama", name) for name in RIGHT]
    + [(other, name) for other in ("gpt2", "gemma3") for name in ("wrapped blocks", "steering_vectors")],
)
def test_right_hooks_hold(architecture: str, name: str) -> None:
    apply, layers = RIGHT[name]
    report = checked(tiny_model(architecture), apply, layers)
    assert {one.name: one.verdict for one in report.answers if one.verdict != "holds"} == {}, str(report)
    assert report.ok and report.exit_code == 0 and not report.faults
    assert report["anything moved"].numbers["points"] == [layer + 1 for layer in layers]


def test_a_models_own_settings_of_generation_change_nothing() -> None:
    lm = copy.deepcopy(tiny_model("llama"))
    apply, layers = RIGHT["wrapped blocks"]
    plain = checked(lm, apply, layers)
    lm.generation_config.guidance_scale, lm.generation_config.suppress_tokens = 1.5, list(range(30, 60))
    lm.generation_config.max_time = 1e-4
    assert str(checked(lm, apply, layers)) == str(plain) and plain.ok
    assert lm.generation_config.guidance_scale == 1.5


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_hook_is_found_by_name(name: str) -> None:
    lm = copy.deepcopy(tiny_model("llama"))  # one of them leaves a hook behind
    apply, fault, question = WRONG[name]
    report = checked(lm, apply, adds={Site(0, "resid_pre"): vector(lm)} if fault == "applied twice" else None)
    assert fault in report.faults, str(report)
    assert report[question].verdict == "fails" and report.exit_code == 1


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("strength ignored", set()),
        ("dtype cast", {"scale", "right-padded batch", "left-padded batch", "padded batch, cached"}),
        ("twice on the embedding", set()),
        ("other amount when cached", set()),
    ],
)
def test_a_wrong_hook_fails_where_it_is_wrong_and_nowhere_else(name: str, others: set[str]) -> None:
    lm = tiny_model("llama")
    apply, fault, question = WRONG[name]
    report = checked(lm, apply, adds={Site(0, "resid_pre"): vector(lm)} if fault == "applied twice" else None)
    assert question in report.failed and set(report.failed) - {question} <= others, str(report)


@pytest.mark.parametrize("when", ["last-prompt-token", "prompt", "every-step", "steps:2"])
def test_the_suites_own_plans_are_where_they_say(when: str) -> None:
    lm = tiny_model("qwen2")
    plan = (Intervention(Add(Direction(vector(lm), Site(LAYER))), 1.0, when=When.parse(when)),)
    report = checked(lm, lambda lm: attached(lm, [plan]), expect=when)
    untold = {"scale", "cached = without a cache"}
    assert report.ok and {one.name for one in report.answers if one.verdict != "holds"} == untold, str(report)
    assert not checked(lm, lambda lm: attached(lm, [plan])).ok


def test_a_further_layer_that_is_moved_elsewhere_is_found() -> None:
    def apply(lm: PreTrainedModel) -> list[Any]:
        v = vector(lm)

        def late(h: torch.Tensor) -> torch.Tensor:
            h = h.clone()
            h[:, -1] += v
            return h

        return [on_output(blocks(lm)[1], lambda h: h + v), on_output(blocks(lm)[3], late)]

    report = checked(tiny_model("llama"), apply, adds=None)
    assert report["anything moved"].numbers["points"] == [2, 4]
    answer = report["positions, whole forward"]
    assert answer.verdict == "fails" and answer.fault == "last position only" and "layer 3" in answer.figure


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize(
    ("expect", "first", "further", "fault", "figure"),
    [
        (
            "prompt",
            "prompt",
            "all",
            "other positions when cached",
            "prefill 10 of 10, cached steps 0 of 0 and 4 others",
        ),
        (
            "prompt",
            "prompt",
            "steps",
            "other positions when cached",
            "prefill 0 of 0, cached steps 0 of 0 and 4 others",
        ),
        ("everywhere", "all", "prompt", "prefill only", "prefill 10 of 10, cached steps 0 of 4"),
        ("prompt", "prompt", "prompt", "", "prefill 10 of 10, cached steps 0 of 0 at layer 1"),
    ],
)
def test_a_further_layer_that_is_moved_at_other_steps_is_found(
    architecture: str, expect: str, first: str, further: str, fault: str, figure: str
) -> None:
    def edit(where: str) -> Any:
        def edited(h: torch.Tensor) -> torch.Tensor:
            return h if where == ("steps" if h.shape[1] > 1 else "prompt") else h + v

        return edited

    lm = tiny_model(architecture)
    v = vector(lm)
    report = checked(
        lm, lambda lm: [on_output(blocks(lm)[n], edit(one)) for n, one in ((1, first), (2, further))], adds=None,
        expect=expect, steps=2,
    )  # fmt: skip
    answer = report["positions, cached decoding"]
    assert answer.fault == fault and figure in answer.figure, str(report)
    assert (report.exit_code == 1) == bool(fault)
    assert ("layer 2" in answer.figure) == bool(fault)


def test_sixteen_bits() -> None:
    lm = copy.deepcopy(tiny_model("llama")).bfloat16()
    assert checked(lm, RIGHT["steering_vectors"][0], RIGHT["steering_vectors"][1]).ok
    wide = hooked(lambda h, v: (h.float() + v.float()).to(h.dtype))
    assert checked(lm, wide).ok
    assert "prefill only" in checked(lm, WRONG["only at prefill"][0]).faults


def _with_a_massive_first_token(dtype: torch.dtype) -> PreTrainedModel:
    """As in most large models, one dimension of the stream is thousands of times larger at the first position."""
    lm = copy.deepcopy(tiny_model("llama"))
    with torch.no_grad():
        lm.get_input_embeddings().weight[1, 3] = 3000.0  # type: ignore[union-attr,index]
    return lm.to(dtype)


MASSIVE = [[1, 5, 6, 7, 8, 9, 10], [1, 11, 12]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_16_bits_a_massive_first_position_is_seen_to_be_steered(dtype: torch.dtype) -> None:
    lm = _with_a_massive_first_token(dtype)
    report = checked(lm, hooked(lambda h, v: h + v), prompts=MASSIVE)
    assert report.ok and report["amount"].verdict == "holds", str(report)
    twice = checked(lm, hooked(lambda h, v: h + 2 * v), prompts=MASSIVE)
    assert twice.failed == ("amount",) and twice.faults == ("applied twice",), str(twice)

    def but_the_first(h: Tensor, v: Tensor) -> Tensor:
        where = torch.ones(h.shape[:2])
        where[:, 0] = float(h.shape[1] == 1)
        return added(h, v, where)

    assert "positions missing" in checked(lm, hooked(but_the_first), prompts=MASSIVE).faults


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_faint_steering_is_seen_in_bf16(share: float) -> None:
    lm = copy.deepcopy(tiny_model("llama")).to(torch.bfloat16)
    acts = capture(lm, PROMPTS, [Site(LAYER)], dtype=torch.float32)
    assert acts is not None
    stream = float(acts.values[Site(LAYER)].norm(dim=-1).median())
    faint = share * stream / float(vector(lm).float().norm())
    adds = {Site(LAYER): vector(lm)}
    report = checked(lm, hooked(lambda h, v: h + v), adds=adds, strength=faint)
    assert report.ok and report["amount"].verdict == "holds", str(report)
    assert "applied twice" in checked(lm, hooked(lambda h, v: h + 2 * v), adds=adds, strength=faint).faults


def test_the_figures_are_those_of_the_vector() -> None:
    lm = tiny_model("llama")
    once, twice = (checked(lm, hooked(lambda h, v, s=s: h + s * v))["size"].numbers for s in (1, 2))
    assert twice["norm_median"] == pytest.approx(2 * once["norm_median"], rel=1e-4)
    assert 0 < once["kl_median"] < once["kl_95"] and once["kl_95"] < twice["kl_95"]
    with attached(lm, [(Intervention(Add(Direction(vector(lm), Site(LAYER))), 1.0),)]) as session:
        lm(torch.tensor([PROMPTS[0]]))
    assert once["norm_median"] == pytest.approx(session.editor.delivery().mean_share, rel=0.3)


def test_a_text_that_a_hook_raises_is_harmless() -> None:
    report = checked(tiny_model("llama"), WRONG["fails on a batch"][0])
    said = report["left-padded batch"].figure
    assert "\x1b" not in said and "\n" not in said and "ValueError: one row expected" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"apply": lambda lm: None}, "gave NoneType; return what removes them"),
        ({"apply": lambda lm: lm}, "gave LlamaForCausalLM"),
        ({"apply": lambda lm: 1 / 0}, "the steered forward of one row failed .ZeroDivisionError"),
        ({"prompts": [[1, 2], [3, 4]]}, "at least two, of different lengths"),
        ({"strength": 2.0, "apply": lambda lm: on_output(blocks(lm)[1], lambda h: h + 1)}, "the function takes none"),
        ({"expect": "sometimes"}, "unknown when 'sometimes'"),
        ({"steps": 0}, "give at least 1"),
    ],
)
def test_wrong_input_is_one_line(options: dict[str, Any], said: str) -> None:
    given = {"apply": hooked(lambda h, v: h + v), **options}
    with pytest.raises(UserError, match=said):
        checked(tiny_model("llama"), given.pop("apply"), **given)


def test_a_model_in_training_mode_is_refused() -> None:
    lm = copy.deepcopy(tiny_model("llama")).train()
    with pytest.raises(UserError, match=r"model\.eval"):
        checked(lm, hooked(lambda h, v: h + v))


def test_it_stands_at_the_top() -> None:
    assert elicit.check_steering is check_steering
