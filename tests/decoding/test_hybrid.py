"""Hybrid decoding against a slow reference without caches, for both kinds of state; its gates, controls and bundles."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoModelForCausalLM

import elicit.decoding.cache
from elicit import evaluate, load_model, load_task
from elicit.decoding import Hybrid, StopRule, Trace, decode
from elicit.decoding.cache import Candidates, PerRowState, SharedPrefixState, open_state
from elicit.decoding.decoders.gates import AlwaysGate, EntropyGate, Gate, ProbeGate
from elicit.decoding.decoders.hybrid import SHARED
from elicit.decoding.decoders.partner import HybridSteering, Tokens, shared_ids
from elicit.decoding.trial import way_of
from elicit.elicited import Elicited
from elicit.methods.vector_transfer.hybrid_stats import summarise
from elicit.models import Model, Prompt
from probes.batching import left_pad
from probes.errors import UserError
from probes.sites import Site, reading
from steering.adapters import Adapter, merge
from steering.hooks import attached
from steering.interventions import Add, Intervention
from tests.support.hybrid_parts import (
    LIMIT,
    NAMES,
    NO_STOP,
    PROMPTS,
    Counting,
    as_model,
    directions,
    forward,
    greedy,
    oracle,
    other,
    probe,
    reference,
    run,
    save_lora,
    tokens,
    words,
)
from tests.support.tiny import VOCAB, save_tiny, tiny_model


@pytest.mark.parametrize(
    ("architecture", "state", "windows", "select"),
    [
        ("llama", "shared", (1,), "likelihood"),
        ("llama", "per row", (1,), "likelihood"),
        ("llama", "shared", (1, 4), "likelihood"),
        ("llama", "per row", (1, 4), "likelihood"),
        ("llama", "shared", (2,), "none"),
        ("llama", "shared", (0,), "likelihood"),
        ("llama", "per row", (0, 3), "likelihood"),
        ("gemma2", "shared", (0, 2), "likelihood"),
        ("gpt2", "shared", (0, 1), "likelihood"),
        ("mistral", "shared", (2,), "likelihood"),
        ("mistral", "per row", (2,), "likelihood"),
        ("gemma2", "shared", (1, 2), "likelihood"),
        ("gemma2", "per row", (1, 2), "likelihood"),
        ("gpt2", "shared", (1, 2), "likelihood"),
        ("bloom", "per row", (1, 2), "likelihood"),
        ("gpt_oss", "per row", (1, 2), "likelihood"),
    ],
)
def test_it_equals_a_reference_without_caches(
    architecture: str, state: str, windows: tuple[int, ...], select: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if state == "per row":
        monkeypatch.setattr(elicit.decoding.cache, "supports_shared_prefix", lambda _: False)
    base, partner = tiny_model(architecture), other(architecture)
    bias = directions(2.0, count=4)[3]
    if architecture == "gemma2":  # its tied embeddings, scaled, drown all else: it would repeat its last token
        base = deepcopy(base)
        with torch.no_grad():
            for lm in (base, partner):
                lm.get_input_embeddings().weight.mul_(0.1)
    given = HybridSteering(directions(), oracle(), as_model(partner), bias)
    settings = Hybrid((0.5, 1.0, 2.0), windows, select, max_new_tokens=LIMIT)
    found = run(settings, as_model(base), given)
    steered = 0
    for prompt, generation in zip(PROMPTS, found, strict=True):
        expected, taken = reference(base, partner, given, prompt, settings)
        assert generation.tokens.tolist() == expected
        assert generation.notes is not None and generation.notes[:, 1].tolist() == taken
        assert ((generation.moved > 0) == (np.array(taken) > 0)).all()
        steered += sum(t > 0 for t in taken)
    assert steered


def test_rows_that_end_leave_the_others_unchanged() -> None:
    base, given = as_model(tiny_model("mistral")), HybridSteering(directions(), oracle(), as_model(other("mistral")))
    settings = Hybrid((0.5, 1.0, 2.0), (1, 2), max_new_tokens=LIMIT)
    full = run(settings, base, given)
    stop = StopRule(frozenset({int(full[0].tokens[2]), int(full[3].tokens[5])}))
    lengths = set()
    for generation, whole in zip(run(settings, base, given, stop=stop), full, strict=True):
        end = next((i for i, t in enumerate(whole.tokens) if int(t) in stop.eos_ids), LIMIT)
        assert generation.tokens.tolist() == whole.tokens[:end].tolist()
        assert generation.notes is not None and whole.notes is not None
        assert (generation.notes == whole.notes[:end]).all()
        lengths.add(end)
    assert len(lengths) > 1


def test_the_statistics_are_the_base_s_own() -> None:
    base, given = as_model(tiny_model("llama")), HybridSteering(directions(), oracle(), as_model(other("llama")))
    for prompt, generation in zip(
        PROMPTS, run(Hybrid((2.0,), max_new_tokens=6, select="none"), base, given), strict=True
    ):
        ids = prompt + generation.tokens.tolist()
        with torch.no_grad():
            logp = base.lm(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = logp.gather(1, torch.from_numpy(generation.tokens)[:, None])[:, 0].numpy()
        np.testing.assert_allclose(generation.logprob, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(generation.top1, logp.max(-1).values.exp().numpy(), rtol=1e-4, atol=1e-5)


def test_a_partner_that_is_the_base_changes_nothing() -> None:
    base = as_model(tiny_model("llama"))
    found = run(Hybrid((1.0, 2.0), max_new_tokens=LIMIT), base, HybridSteering(directions(), oracle(), base))
    assert tokens(found) == greedy(base.lm)
    assert all(g.notes is not None and not g.notes[:, :2].any() and (g.notes[:, 3] == 1).all() for g in found)


def test_a_coefficient_of_0_changes_nothing_and_substitution_is_the_partner() -> None:
    base, partner = tiny_model("llama"), other("llama")
    given = HybridSteering(directions(), oracle(), as_model(partner))
    found = run(Hybrid((0.0,), (1, 2), max_new_tokens=LIMIT), as_model(base), given)
    assert tokens(found) == greedy(base)
    assert tokens(run(Hybrid((0.0,), select="none", max_new_tokens=LIMIT), as_model(base), given)) == greedy(base)
    found = run(Hybrid((1.0,), control="substitution", max_new_tokens=LIMIT), as_model(base), given)
    assert tokens(found) == greedy(partner) != greedy(base)
    for generation in found:
        assert generation.notes is not None
        assert (generation.notes[:, 3] == 1).all() and (generation.notes[:, 1] == -generation.notes[:, 0]).all()


def test_mixing_averages_the_logits_where_they_differ() -> None:
    base, partner = tiny_model("llama"), other("llama")
    given = HybridSteering(directions(), oracle(), as_model(partner))
    found = run(Hybrid(control="mixing", max_new_tokens=6), as_model(base), given)
    for prompt, generation in zip(PROMPTS, found, strict=True):
        ids = list(prompt)
        for _ in range(6):
            one, two = forward(base, ids), forward(partner, ids)
            ids.append(int((one + two).argmax() if one.argmax() != two.argmax() else one.argmax()))
        assert generation.tokens.tolist() == ids[len(prompt) :]


@pytest.mark.parametrize(("architecture", "kind"), [("gemma2", SharedPrefixState), ("bloom", PerRowState)])
@torch.inference_mode()
def test_a_peek_leaves_the_cache_as_it_was(architecture: str, kind: type) -> None:
    model = tiny_model(architecture)
    ids, mask, _ = left_pad(PROMPTS)
    with open_state(model, 8, peek=True) as state:
        assert isinstance(state, kind)
        logits = state.prefill(ids, mask)
        state.fork(torch.arange(4))
        tail = torch.stack([ids[:, -1], logits.argmax(-1)], 1)
        state.step(tail[:, -1])
        state.keep(torch.tensor([0, 1, 3]))
        tail = tail[[0, 1, 3]]

        def held() -> list[Tensor]:
            if isinstance(state, SharedPrefixState):
                pairs = [state.cache.past(layer) for layer in range(len(state.cache.layers))]
            else:
                assert isinstance(state, PerRowState)
                pairs = [(layer.keys, layer.values) for layer in state.cache.layers]  # type: ignore[union-attr]
            return [t.clone() for pair in pairs for t in pair] + [state.next_position.clone()]

        before = held()
        rows = torch.tensor([0, 2])
        delta = torch.zeros(2, 3, 32)
        delta[:, 1] = directions()[0].vector
        peeked = state.peek(Candidates(rows, tail[rows], (1, 1, 2), delta, Site(1)))
        assert all(torch.equal(a, b) for a, b in zip(before, held(), strict=True))
        assert (peeked.moved > 0).tolist() == [[False, True, False]] * 2
        # unsteered candidates say what the step said, whatever their window
        whole = [PROMPTS[i] + [int(tail[r, -1])] for r, i in ((0, 0), (2, 3))]
        for r, ids_ in enumerate(whole):
            for c in (0, 2):
                torch.testing.assert_close(peeked.logits[r, c], forward(model, ids_), rtol=1e-4, atol=1e-4)
            assert not torch.allclose(peeked.logits[r, 1], peeked.logits[r, 0], atol=1e-2)
        nexts = state.step(tail[:, -1])
        for r, i in enumerate((0, 1, 3)):
            expected = forward(model, [*PROMPTS[i], int(tail[r, -1]), int(tail[r, -1])])
            torch.testing.assert_close(nexts[r], expected, rtol=1e-4, atol=1e-4)


def test_a_look_ahead_is_refused_where_the_state_cannot_go_back() -> None:
    model = deepcopy(tiny_model("llama"))
    model.config.layer_types = ["linear_attention"] * 4
    with pytest.raises(UserError, match="layers of linear_attention"), open_state(model, 4, peek=True):
        pass


def test_the_probe_gate_reads_the_base_and_never_runs_the_partner() -> None:
    base, partner = tiny_model("llama"), other("llama")
    counting = Counting(partner)
    gate = probe(0.6)
    settings = Hybrid((3.0,), select="none", max_new_tokens=LIMIT)
    found = run(settings, as_model(base), HybridSteering(directions(), gate, as_model(partner)))
    alone = run(settings, as_model(base), HybridSteering(directions(), gate))
    assert counting.calls == 0 and tokens(found) == tokens(alone)
    fired = set()
    for prompt, generation in zip(PROMPTS, found, strict=True):
        assert generation.notes is not None
        assert (generation.notes[:, [0, 3]] == -1).all()
        ids = prompt + generation.tokens.tolist()
        with reading(base, [gate.site]) as seen:
            forward(base, ids[:-1])
        p = torch.sigmoid(seen[gate.site][len(prompt) - 1 :] @ gate.weight.T)
        best = p.max(-1)
        category = torch.tensor(gate.categories)[best.indices]
        expected = torch.where(best.values > gate.threshold, category, -1)
        assert generation.notes[:, 2].tolist() == expected.tolist()
        assert ((generation.notes[:, 1] == 1) == (expected >= 0).numpy()).all()
        fired |= set(expected.tolist())
    assert fired == {-1, 0, 2}
    with pytest.raises(UserError, match="gate on the base with select='none'"):
        run(Hybrid((3.0,)), as_model(base), HybridSteering(directions(), gate))


def test_a_probe_on_weights_that_an_adapter_shares_reads_the_base(tiny: Model, lora: Path) -> None:
    """The gate reads the base though the partner runs on the same modules right after it."""
    settings = Hybrid((3.0,), max_new_tokens=LIMIT)
    merged = load_model(tiny.name, dtype="float32", device="cpu")
    merge(merged.lm, Adapter(lora))
    gate = probe(0.6)
    shared = run(settings, tiny, HybridSteering(directions(), gate, Adapter(lora)))
    apart = run(settings, tiny, HybridSteering(directions(), gate, merged))
    assert tokens(shared) == tokens(apart)
    for one, two in zip(shared, apart, strict=True):
        assert one.notes is not None and two.notes is not None and (one.notes == two.notes).all()


def test_entropy_and_always() -> None:
    base = as_model(tiny_model("llama"))
    settings = Hybrid((3.0,), select="none", max_new_tokens=LIMIT)
    plain = run(settings, base, HybridSteering(directions(), AlwaysGate(1)))
    assert all(g.notes is not None and (g.notes[:, 1:3] == 1).all() and (g.moved > 0).all() for g in plain)
    middle = float(np.median(np.concatenate([g.entropy for g in plain])))
    for generation in run(settings, base, HybridSteering(directions(), EntropyGate(middle, 2))):
        assert generation.notes is not None
        assert ((generation.notes[:, 2] == 2) == (generation.entropy > middle)).all()
    assert tokens(run(settings, base, HybridSteering(directions(), EntropyGate(1e9)))) == greedy(base.lm)


def test_a_category_without_a_vector_is_not_steered() -> None:
    base = as_model(tiny_model("llama"))
    given = HybridSteering({5: directions()[0]}, oracle(), as_model(other("llama")))
    found = run(Hybrid((3.0,), select="none", max_new_tokens=LIMIT), base, given)
    assert tokens(found) == greedy(base.lm)
    assert any((g.notes[:, 2] >= 0).any() for g in found if g.notes is not None)


@pytest.mark.parametrize("control", ["", "random-vector", "random-position"])
def test_forward_passes_are_those_of_both_models_and_of_all_candidates(control: str) -> None:
    base, partner = as_model(tiny_model("llama")), other("llama")
    way_of(partner)  # found before what is counted
    counting = Counting(partner)
    given = HybridSteering(directions(), oracle(), as_model(partner))
    settings = Hybrid((0.5, 1.0, 2.0), control=control, share=0.4 if control in SHARED else 0.0, max_new_tokens=LIMIT)
    found = run(settings, base, given)
    assert counting.calls == LIMIT  # of all rows together
    for generation in found:
        assert generation.notes is not None and generation.spent == LIMIT == len(generation.notes)
        differs, taken, category = generation.notes[:, 0] == 1, generation.notes[:, 1], generation.notes[:, 2]
        tried = (category >= 0) if control == "random-position" else differs & (category >= 0)
        again = taken > 0 if control == "random-vector" else np.zeros_like(tried)
        assert generation.beside == LIMIT + 3 * (tried.sum() + again.sum())
    alone = replace(settings, select="none", control="", share=0.0)
    for generation in run(alone, base, HybridSteering(directions(), AlwaysGate(1))):
        assert generation.beside == LIMIT  # no partner; one candidate a token


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Hybrid(coefficients=(2.0, 1.0)), "ascending"),
        (lambda: Hybrid(coefficients=()), "at least one"),
        (lambda: Hybrid(coefficients=(float("nan"),)), "ascending"),
        (lambda: Hybrid(windows=(-1, 1)), "at least 1"),
        (lambda: Hybrid(select="best"), "unknown select"),
        (lambda: Hybrid(control="mixin"), "did you mean mixing"),
        (lambda: Hybrid(control="random-position"), "share"),
        (lambda: Hybrid(control="some-substitution"), "share"),
        (lambda: Hybrid(share=0.5), "share"),
        (lambda: Hybrid().policy(["a"], 4), "needs a partner"),
        (
            lambda: Hybrid(control="bias", select="none").check(HybridSteering(directions(), AlwaysGate())),
            "bias vector",
        ),
        (
            lambda: Hybrid(control="permuted-category", select="none").check(
                HybridSteering(directions(count=1), AlwaysGate())
            ),
            "two categories",
        ),
        (lambda: HybridSteering({}, AlwaysGate()), "at least one category"),
        (lambda: HybridSteering({0: directions()[0], 1: directions(site=Site(2))[1]}, AlwaysGate()), "one site"),
        (
            lambda: HybridSteering(directions(site=Site(9)), AlwaysGate()).check(as_model(tiny_model("llama"))),
            "layer 9",
        ),
        (lambda: ProbeGate(torch.zeros(2, 3), torch.zeros(2), Site(0), (1,)), "one of each"),
        (lambda: ProbeGate(torch.full((1, 3), float("nan")), torch.zeros(1), Site(0)), "NaN"),
        (lambda: summarise([]), "no traces"),
    ],
)
def test_bad_input_is_told_in_one_line(make: Callable[[], object], word: str) -> None:
    with pytest.raises(UserError, match=word):
        make()


def test_vocabularies_are_compared() -> None:
    lm = tiny_model("llama")
    base = as_model(lm, "base")
    assert shared_ids(base, as_model(lm, "same")) is None
    with pytest.raises(UserError, match="token 9 is 'w9' and 'other'"):
        shared_ids(base, as_model(lm, "else", words({9: "other"})))
    with pytest.raises(UserError, match="token 9"):
        HybridSteering(directions(), oracle(), as_model(lm, "else", words({9: "other"}))).check(base)
    # special tokens of other names, and ids that one lacks, are shared by nobody
    one, two = words({60: "<|user|>"}, size=VOCAB), words({60: "<think>"}, size=VOCAB - 2)
    shared = shared_ids(as_model(lm, "one", one), as_model(lm, "two", two))
    assert shared is not None and (~shared).nonzero()[:, 0].tolist() == [60, VOCAB - 2, VOCAB - 1]


def test_tokens_that_are_not_shared_are_never_emitted() -> None:
    base, partner = tiny_model("llama"), other("llama")
    usual = {t for row in greedy(base) + greedy(partner) for t in row} - {t for p in PROMPTS for t in p}
    hidden = {min(usual): "<s>"}
    mine, theirs = words(hidden), words(dict.fromkeys(hidden, "<t>"))
    given = HybridSteering(directions(), oracle(), as_model(partner, tokenizer=theirs))
    settings = Hybrid((2.0,), max_new_tokens=LIMIT)
    for control in ("", "substitution"):
        found = run(replace(settings, control=control), as_model(base, tokenizer=mine), given)
        assert not {t for row in tokens(found) for t in row} & set(hidden)
    with pytest.raises(UserError, match="'<s>', which means another thing"):
        run(settings, as_model(base, tokenizer=mine), given, [[3, *hidden]])


@pytest.fixture(scope="module")
def lora(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lora(tiny_folder, tmp_path_factory.mktemp("lora"))


def handle(model: Model, partner: HybridSteering, **changes: Any) -> Elicited:
    decoder = Hybrid((0.5, 1.0, 2.0), (1, 2), max_new_tokens=12)
    return Elicited(model, "hybrid", **{"decoder": decoder, "partner": partner, **changes})


def test_an_adapter_equals_the_merged_model(tiny: Model, lora: Path) -> None:
    merged = load_model(tiny.name, dtype="float32", device="cpu")
    merge(merged.lm, Adapter(lora))
    items = load_task("chain-sum", limit=5).test
    before = {k: v.clone() for k, v in tiny.lm.state_dict().items()}
    (one, two) = [
        [t for branch in handle(tiny, HybridSteering(directions(), oracle(), model)).answer(items) for t in branch]
        for model in (Adapter(lora), merged)
    ]
    assert [t.tokens for t in one] == [t.tokens for t in two]
    assert [t.taken for t in one] == [t.taken for t in two] and any(x > 0 for t in one for x in t.taken)
    assert all(torch.equal(v, before[k]) for k, v in tiny.lm.state_dict().items())


def test_a_bundle_is_what_was_saved(tiny: Model, tiny_folder: Path, lora: Path, tmp_path: Path) -> None:
    items = load_task("chain-sum", limit=3).test
    twin_folder = save_tiny(tmp_path / "twin")
    lm = AutoModelForCausalLM.from_pretrained(twin_folder)
    with torch.no_grad():
        lm.lm_head.weight.mul_(1.5).add_(torch.randn(lm.lm_head.weight.shape), alpha=0.2)
    lm.save_pretrained(twin_folder)
    twin = load_model(str(twin_folder), dtype="float32", device="cpu")
    bias = directions(count=4)[3]
    keys = set()
    gates: list[tuple[Gate, Model | Adapter | None, str]] = [
        (oracle(), twin, "likelihood"),
        (oracle(), Adapter(lora), "likelihood"),
        (probe(0.6), None, "none"),
        (EntropyGate(1.0), twin, "likelihood"),
    ]
    for number, (gate, model, select) in enumerate(gates):
        decoder = Hybrid((2.0,), (2,), select, max_new_tokens=12)
        one = handle(tiny, HybridSteering(directions(), gate, model, bias), decoder=decoder)
        back = Elicited.load(one.save(tmp_path / str(number)), tiny)
        assert back.decode_key == one.decode_key and back.decoder == one.decoder
        assert [t.to_dict() for ts in back.answer(items) for t in ts] == [
            t.to_dict() for ts in one.answer(items) for t in ts
        ]
        keys.add(one.decode_key)
    assert len(keys) == len(gates)
    changed = handle(tiny, HybridSteering(directions(5.9), oracle(), twin, bias), decoder=Hybrid((2.0,), (2,)))
    assert changed.decode_key not in keys
    for name in ("partner.json", "partner.safetensors"):
        (tmp_path / "0" / name).write_bytes((changed.save(tmp_path / "changed") / name).read_bytes())
    with pytest.raises(UserError, match="partner in"):
        Elicited.load(tmp_path / "0", tiny)
    with pytest.raises(UserError, match="partner in"):  # another model than it was saved with
        Elicited.load(tmp_path / "3", tiny, tiny)


def test_what_does_not_go_together_is_refused(tiny: Model, lora: Path) -> None:
    given = HybridSteering(directions(), oracle(), tiny)
    with pytest.raises(UserError, match="without a partner"):
        Elicited(tiny, "x", decoder=Hybrid())
    with pytest.raises(UserError, match="given to Greedy"):
        Elicited(tiny, "x", partner=given)
    with pytest.raises(UserError, match="interventions and a partner"):
        handle(tiny, given, interventions=(Intervention(Add(directions()[0])),))
    with pytest.raises(UserError, match="share weights"):
        handle(tiny, given, adapter=Adapter(lora))
    policy = Hybrid(max_new_tokens=2).joint(tiny, given, ["a"])
    with attached(tiny.lm, [()]) as session, pytest.raises(UserError, match="tries steered tokens itself"):
        decode(tiny.lm, [[3]], policy, max_new_tokens=2, stop=NO_STOP, steering=session)


def test_a_run_and_its_summary(tiny: Model, lora: Path, tmp_path: Path) -> None:
    task = load_task("chain-sum", limit=6)
    one = handle(tiny, HybridSteering(directions(), oracle(), Adapter(lora)))
    done = evaluate(one, task.test[:6], out=tmp_path / "run")
    traces = [t for branches in done.traces["hybrid"].values() for t in branches]
    found = summarise(traces)
    assert found.tokens == sum(len(t.tokens) for t in traces)
    assert found.differs is not None and found.copied is not None and found.steered is not None
    assert 0 < found.steered <= found.differs < 1
    # wherever they agree the token is the partner's own
    assert found.copied >= 1 - found.differs and found.copied_where_differs is not None
    assert found.copied == pytest.approx(1 - found.differs + found.differs * found.copied_where_differs)
    assert found.moved is not None and found.moved > 0 and found.replaced == 0
    assert sum(found.by_candidate.values()) == pytest.approx(1)
    assert sum(share for share, _ in found.by_category.values()) == pytest.approx(1)
    assert found.truncated == np.mean([t.finish == "length" for t in traces])
    json.dumps(found.to_dict(), allow_nan=False)
    direct = [t for branches in done.traces["direct"].values() for t in branches]
    with pytest.raises(UserError, match="another decoder"):
        summarise(direct)
    old = {k: v for k, v in direct[0].to_dict().items() if k not in ("differs", "taken", "category", "copied")}
    assert Trace.from_dict(old) == direct[0]


def own_prompts(count: int) -> list[list[int]]:
    """Longer than the base's, and not in its order of lengths."""
    return [[20 + n, *p, 30, 31 + n] for n, p in enumerate(reversed(PROMPTS[:count]))]


@pytest.mark.parametrize("state", ["shared", "per row"])
def test_each_model_answers_after_a_prompt_of_its_own(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if state == "per row":
        monkeypatch.setattr(elicit.decoding.cache, "supports_shared_prefix", lambda _: False)
    base, partner = tiny_model("llama"), other("llama")
    asked = Prompt("template", template="{question}")
    given = HybridSteering(directions(), oracle(), as_model(partner), prompt=asked)
    settings = Hybrid((1.0, 2.0), max_new_tokens=LIMIT)
    put = own_prompts(len(PROMPTS))

    def decoded_with(control: str, prompts: list[list[int]] | None) -> list[list[int]]:
        policy = replace(settings, control=control).joint(as_model(base), given, NAMES, prompts)
        out = decode(base, PROMPTS, policy, max_new_tokens=LIMIT, stop=NO_STOP)
        return [generation.tokens.tolist() for (generation,) in out]

    alone = []
    for prompt in put:
        ids = list(prompt)
        for _ in range(LIMIT):
            ids.append(int(forward(partner, ids).argmax()))
        alone.append(ids[len(prompt) :])
    assert decoded_with("substitution", put) == alone
    same = replace(given, prompt=None)
    assert tokens(run(settings, as_model(base), same)) == decoded_with("", PROMPTS) != decoded_with("", put)
    with pytest.raises(UserError, match="ask with items"):
        decoded_with("", None)


def test_prompts_that_are_given_to_a_handle_may_be_put_otherwise_to_its_partner() -> None:
    given = HybridSteering(
        directions(), oracle(), as_model(other("llama")), prompt=Prompt("template", template="{question}")
    )
    base, settings = as_model(tiny_model("llama")), Hybrid((1.0, 2.0), max_new_tokens=LIMIT)
    handle = Elicited(base, "hybrid", decoder=settings, partner=given)
    put = own_prompts(len(PROMPTS))
    drafts = handle.respond(PROMPTS, ["whole"] * len(PROMPTS), NAMES, stop=[], partner_prompts=put)
    policy = settings.joint(base, given, NAMES, put)
    stop = StopRule(base.eos_ids, (), base.tokenizer)
    expected = decode(base.lm, PROMPTS, policy, max_new_tokens=LIMIT, stop=stop)
    assert tokens([one.generation for (one,) in drafts]) == tokens([one for (one,) in expected])
    with pytest.raises(UserError, match="ask with items"):
        handle.respond(PROMPTS, ["whole"] * len(PROMPTS), NAMES)


def test_special_tokens_are_carried_by_their_names() -> None:
    """`</think>` is 61 in the base and 62 in the partner; `<user>` is the partner's alone, and end tokens are one."""
    base, partner = tiny_model("llama"), other("llama")
    mine = as_model(base, "base", words({61: "</think>", 62: "<box>"}))
    theirs = as_model(partner, "partner", words({61: "<user>", 62: "</think>"}))
    found = Tokens.between(mine, theirs)
    assert found is not None
    assert found.theirs[:61].tolist() == list(range(61)) and found.theirs[61:].tolist() == [62, -1, 63]
    assert found.to_base([5, 62, 61]) == [[5], [61], []]
    assert found.prompts(mine, torch.tensor([[0, 61, 5]]), torch.tensor([[False, True, True]])).tolist() == [[0, 62, 5]]
    heard = found.base_logits(torch.arange(VOCAB).float())
    assert heard[61] == 62 and heard[62] == float("-inf")
    # What the partner would say, said by the base: the same as with a base whose ids are the partner's.
    swapped = deepcopy(partner)
    with torch.no_grad():
        for weight in (swapped.get_input_embeddings().weight, swapped.get_output_embeddings().weight):
            weight[[61, 62]] = weight[[62, 61]].clone()
    put = [[3, 61, 7], [61], [9, 9, 61, 4]]
    substitution = Hybrid((1.0,), control="substitution", max_new_tokens=LIMIT)
    given = HybridSteering(directions(), oracle(), theirs)
    expected = run(substitution, as_model(base), HybridSteering(directions(), oracle(), as_model(swapped)), put)
    assert tokens(run(substitution, mine, given, put)) == tokens(expected)


def test_a_mark_that_the_base_has_not_is_said_in_pieces(tmp_path: Path) -> None:
    """As `</think>` by a base whose tokenizer knows it as text alone: the wish for it is one for its first piece."""
    base = load_model(str(save_tiny(tmp_path / "base")), dtype="float32", device="cpu")
    tokenizer = deepcopy(base.tokenizer)
    tokenizer.add_tokens([AddedToken("</think>", special=True), AddedToken("<|stop|>", special=True)])
    lm = deepcopy(base.lm)
    lm.resize_token_embeddings(len(tokenizer))
    assert lm.generation_config is not None
    lm.generation_config.eos_token_id = [0, tokenizer.convert_tokens_to_ids("<|stop|>")]
    partner = replace(base, lm=lm, tokenizer=tokenizer)
    found = Tokens.between(base, partner)
    assert found is not None and (found.theirs >= 0).all()
    mark, stop = tokenizer.convert_tokens_to_ids(["</think>", "<|stop|>"])
    pieces = base.tokenizer("</think>")["input_ids"]
    assert found.to_base([mark, stop]) == [pieces, [0]]
    logits = torch.zeros(len(tokenizer))
    logits[mark] = 9.0
    assert int(found.base_logits(logits).argmax()) == pieces[0]
    logits[stop] = 12.0
    assert int(found.base_logits(logits).argmax()) == 0


def test_what_ends_the_partner_s_answers_alone_is_the_base_s_end() -> None:
    """As `<|user|>` in one vocabulary, by which one of two models ends: it stands in prompts and is never emitted."""
    base, partner = deepcopy(tiny_model("llama")), other("llama")
    alone = greedy(partner)
    turn = alone[0][3]
    mine, theirs = (as_model(lm, name, words({turn: "<turn>"})) for lm, name in ((base, "base"), (partner, "partner")))
    assert Tokens.between(mine, theirs) is None
    assert partner.generation_config is not None
    partner.generation_config.eos_token_id = [2, turn]
    found = Tokens.between(mine, theirs)
    assert found is not None and found.theirs.tolist() == list(range(VOCAB)) and found.foreign == (turn,)
    heard = found.base_logits(torch.arange(VOCAB).float() + 100 * (torch.arange(VOCAB) == turn))
    assert int(heard.argmax()) == 2 and heard[turn] == float("-inf")
    given, stop = HybridSteering(directions(), oracle(), theirs), StopRule(mine.eos_ids)
    made = run(Hybrid((1.0,), control="substitution", max_new_tokens=LIMIT), mine, given, stop=stop)
    for one, said in zip(made, alone, strict=True):
        end = next((n for n, token in enumerate(said) if token in theirs.eos_ids), LIMIT)
        assert one.tokens.tolist() == said[:end] and one.finish == ("eos" if end < LIMIT else "length")
    tried = run(Hybrid((1.0, 2.0), max_new_tokens=LIMIT), mine, given, [[3, turn, 7], [turn]], stop=stop)
    assert all(turn not in one.tokens for one in tried)
