"""Each part of a handle says what it takes to say it, and a run and a comparison have the sum."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from elicit.analysis import analyse
from elicit.analysis.behaviour.bits_to_elicit import Point, figure_of
from elicit.decoding import decoders
from elicit.decoding.decoders import (
    DECODERS,
    Branching,
    Decoder,
    Forced,
    Greedy,
    Hybrid,
    ModeGate,
    Power,
    PowerRollouts,
    Quiet,
    RngStream,
    Sampling,
    Tools,
)
from elicit.decoding.loop import Policy
from elicit.decoding.selection import SELECTABLE
from elicit.elicited import Elicited
from elicit.evaluation import evaluate
from elicit.evaluation.description import SIGNAL, base_of, bits_of, describe, of_rewards, signal, text_bits
from elicit.methods import cognitive_tools, cot_decoding, cot_prompt, direct
from elicit.models import Model
from elicit.models.prompts import BOXED, THINK, Prompt
from elicit.report import compare_runs, head_of, rows_of
from probes.description import Described, number, one_of, total, whole_number
from probes.dots import Dot
from probes.errors import UserError
from probes.inert import label
from probes.sites import STREAM, Site
from steering.adapters import Adapter
from steering.directions import Direction
from steering.interventions import UNITS, WHATS, WHENS, Add, Intervention, When
from tests.support.toys import toy_task

HANDLES: tuple[Decoder, ...] = (
    Greedy(), Branching(3), Sampling(4), Sampling(4, top_p=0.9), Power(), PowerRollouts(), Forced(), Hybrid(),
    Tools((("recall", "Say what you know."),)), Quiet(), ModeGate(3, 4),
)  # fmt: skip


def bits(handle: Elicited) -> float | None:
    return total(describe(handle, base_of(handle.model)))


def test_every_decoder_says_its_choices(tiny: Model) -> None:
    assert {type(decoder) for decoder in HANDLES} == set(DECODERS.values())
    for decoder in HANDLES:
        assert isinstance(decoder, Described), decoder
        parts = decoder.description(base_of(tiny))
        known = total(parts)
        assert known is not None and (known > 0) == (type(decoder) is not Greedy)


def test_an_answer_at_once_costs_nothing_and_a_search_its_k_and_its_rule(tiny: Model) -> None:
    assert bits(direct.fit(tiny)) == 0
    found = bits(cot_decoding.fit(tiny, k=10, filters=False))
    assert found == pytest.approx(one_of(len(DECODERS)) + whole_number(11) + one_of(len(SELECTABLE)))
    assert bits(cot_decoding.fit(tiny, k=10)) == pytest.approx(found + 1)


def test_a_text_costs_what_the_model_pays_for_it(tiny: Model) -> None:
    """Beside the model's own log-probabilities, token by token."""
    ids = [int(i) for i in tiny.tokenizer(THINK)["input_ids"]]
    text = [int(tiny.tokenizer.eos_token_id), *ids]  # its tokenizer has no token that begins a text
    with torch.no_grad():
        logprobs = tiny.lm(torch.tensor([text])).logits[0].log_softmax(-1)
    slow = -sum(float(logprobs[n, token]) for n, token in enumerate(ids)) / math.log(2)
    assert text_bits(tiny, THINK) == pytest.approx(slow, rel=1e-4)
    assert bits(cot_prompt.fit(tiny)) == pytest.approx(slow, rel=1e-4)
    two = Prompt(trigger=THINK, begin="So", thought_tokens=3)
    expected = slow + text_bits(tiny, "So") + whole_number(4)
    assert bits(Elicited(tiny, "two", prompt=two)) == pytest.approx(expected, rel=1e-4)
    assert bits(Elicited(tiny, "form", prompt=Prompt(form=f"{BOXED}\nBe brief."))) == text_bits(tiny, "Be brief.")
    assert bits(Elicited(tiny, "boxed", prompt=Prompt(form=BOXED))) == 0
    flat = cognitive_tools.controls(cognitive_tools.fit(tiny))["flat prompt"]
    assert bits(flat) == text_bits(tiny, cognitive_tools.in_one(tuple(cognitive_tools.INSTRUCTIONS)))


def test_an_intervention_costs_its_vector_and_the_choice_of_all_else(tiny: Model) -> None:
    size = tiny.lm.config.hidden_size
    layers = tiny.lm.config.num_hidden_layers
    vector = Direction(torch.ones(size), Site(1, "resid_post"))
    add = Intervention(Add(vector), 2.0, when=When.last_prompt_token())
    choice = sum(map(one_of, map(len, (WHATS, WHENS, UNITS, STREAM)))) + one_of(layers)
    once = 32 * size + choice + whole_number(1) + number(2.0)
    assert bits(Elicited(tiny, "steered", interventions=(add,))) == pytest.approx(once)
    later = replace(add, when=When.steps(8), layers=(1, 2))
    more = once - whole_number(1) + whole_number(2) + one_of(layers) + number(0.0) + number(8.0) + number(1.0)
    assert bits(Elicited(tiny, "later", interventions=(later,))) == pytest.approx(more)
    assert bits(Elicited(tiny, "both", interventions=(add, later))) == pytest.approx(once + more)


def test_a_training_costs_its_signal_or_else_its_weights(tiny: Model, tmp_path: Path) -> None:
    get_peft_model(copy.deepcopy(tiny.lm), LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path)
    adapter = Adapter(tmp_path)
    weights = 8 * (tmp_path / "adapter_model.safetensors").stat().st_size
    trained = Elicited(tiny, "trained", adapter=adapter)
    assert bits(trained) == weights
    assert bits(replace(trained, options={SIGNAL: signal("targets", 123.5)})) == 123.5
    told = of_rewards({"bits of reward": 40.0}, 2, 16)
    assert bits(replace(trained, options={SIGNAL: told})) == 40 + 2 * 4
    assert of_rewards({"updates": 3}) == []


@dataclass(frozen=True)
class Silent:
    """A decoder of somebody's that says nothing of itself."""

    max_new_tokens: int = 4
    branches: int = 1

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        raise NotImplementedError


def test_what_says_nothing_of_itself_is_not_known(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(decoders._READ, "silent", Silent)
    assert bits(Elicited(tiny, "silent", decoder=Silent())) is None


def test_runs_comparisons_and_the_analysis_have_the_bits(tiny: Model, tmp_path: Path) -> None:
    task = toy_task()
    handle = cot_decoding.fit(tiny, k=3, max_new_tokens=4)
    beside = {m.NAME: m.fit(tiny, max_new_tokens=4) for m in (direct, cot_prompt)}
    run = evaluate(handle, task.test[:3], against=beside, out=tmp_path / "run")
    expected = {name: bits(one) for name, one in {"cot-decoding": handle, **beside}.items()}
    assert {name: bits_of(run.metrics, name) for name in expected} == pytest.approx(expected)
    result = compare_runs([run])
    at = head_of(result).index("bits")
    shown = {row[0]: row[at] for row in rows_of(result)}
    assert shown["direct"] == "0" and shown["cot-decoding"] == f"{expected['cot-decoding']:,.0f}"

    found = analyse("bits-to-elicit", [run])
    assert next(row["arm"] for row in found.table) == "direct"
    assert {one["arm"]: one["bits"] for one in found.data["arms"]} == pytest.approx(expected)
    drawn = {one.name: one for one in found.figure.data}
    assert drawn["direct"].x == (1.0,) and "<br>0.0 bits, " in drawn["direct"].hovertext
    assert "fewer than 1 stand at 1" in found.figure.layout.xaxis.title.text
    hostile = figure_of([Point("<b>$x$", 0.0, 0.5, "", "reached")], [Dot(0.5, 0.4, 0.6)], 0.5)
    assert hostile.data[0].name == label("<b>$x$") != "<b>$x$"
    assert all(one["verdict"] in ("reached", "undecided", "not reached") for one in found.data["arms"])
    with pytest.raises(UserError, match="share = 2"):
        analyse("bits-to-elicit", [run], share=2.0)

    older = run.metrics.pop("description")
    assert bits_of(run.metrics, "direct") is None
    assert {row[at] for row in rows_of(compare_runs([run]))} == {"–"}
    with pytest.raises(UserError, match="before bits were counted"):
        analyse("bits-to-elicit", [run])
    run.metrics["description"] = older
