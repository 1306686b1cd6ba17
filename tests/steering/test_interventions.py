"""Interventions as data, what they do to activations, and the check that they did it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.cache_utils import DynamicCache

from elicit.decoding import Branching, Greedy, StopRule, decode
from experiments.compatibility.census import small
from probes.capture import capture
from probes.clock import Frame, cache_argument
from probes.errors import UserError
from probes.sae import SAE
from probes.sites import STREAM, Site, on_site, width
from steering import storage
from steering.directions import Direction
from steering.effect import effect
from steering.hooks import attached
from steering.interventions import (
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
from tests.support.tiny import VOCAB, tiny_model

PROMPTS = [[5, 9, 3], [7, 1, 2, 8, 40, 41, 42, 43, 44, 45], [11] * 6, [3]]
NO_STOP = StopRule(frozenset())
D = 32


def vector(seed: int = 0, length: float = 3.0) -> Tensor:
    v = torch.randn(D, generator=torch.Generator().manual_seed(seed))
    return v / v.norm() * length


def direction(seed: int = 0, layer: int = 1, point: str = "resid_post", **more: Any) -> Direction:
    return Direction(vector(seed), Site(layer, point), name=f"d{seed}", **more)


def small_sae(activation: str = "relu") -> SAE:
    g = torch.Generator().manual_seed(3)
    decoder = torch.randn(48, D, generator=g)
    decoder = decoder / decoder.norm(dim=-1, keepdim=True)
    return SAE(
        W_enc=decoder.T.clone() * 1.3,
        b_enc=torch.randn(48, generator=g) * 0.1,
        W_dec=decoder,
        b_dec=torch.randn(D, generator=g) * 0.1,
        site=Site(1),
        activation=activation,
        threshold=torch.rand(48, generator=g) if activation == "jumprelu" else None,
        k=5,
        name="small",
    )


def plans() -> list[Plan]:
    sae = small_sae()
    feature = sae.feature(3, maximum=5.0, resid_norm=10.0)
    gate = Gate(vector(9), Site(0), threshold=0.1, name="g")
    return [
        (Intervention(Add(direction(resid_norm=4.0)), 0.5, "resid", When.decaying(0.7)),),
        (Intervention(Add(feature), 2.0, "feature_max", When.every_step()),),
        (Intervention(SetFeature(feature), 1.0, "feature_max", When.steps(3)),),
        (Intervention(ScaleFeature(small_sae("topk").feature(3)), 0.0, when=When.prompt()),),
        (Intervention(ProjectOut(direction(2, center=vector(5))), when=When.everywhere(), layers=(0, 2)),),
        (Intervention(Replace(torch.randn(3, D), -2, Site(2)), 0.5, when=When(-2, 1)),),
        (Intervention(Add(direction()), 2.0, when=When.programmed([0.0, 1.0, 0.5]).gated(gate)),),
        (Intervention(Add(direction(1)), -1.0, when=When.prompt(0, -1)), Intervention(Add(direction(2)), 1.0)),
    ]


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan[0].kind)
def test_a_plan_is_saved_read_compared_and_hashed(plan: Plan, tmp_path: Path) -> None:
    storage.write(tmp_path, "plan", plan)
    back = storage.read(tmp_path, "plan")
    assert back == plan and hash(back) == hash(plan)
    other = (replace(plan[0], strength=plan[0].strength + 0.25), *plan[1:])
    assert other != plan and other[0].digest != plan[0].digest
    assert not list(tmp_path.glob("*.p*k*")) and not list(tmp_path.glob("*.pt"))


def by_hand(ids: list[int], length: int, site: Site, change: Any) -> Tensor:
    """Logits with a hook of six lines instead of the editor: `change(h, step)` at each position alone."""
    lm = tiny_model("llama")

    def hook(h: Tensor) -> Tensor:
        return torch.stack([change(h[0, p], p - length + 1) for p in range(h.shape[1])])[None]

    handle = on_site(lm, site, hook)
    try:
        with torch.no_grad():
            return lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        handle.remove()


def steered(ids: list[int], length: int, plan: Plan) -> Tensor:
    lm = tiny_model("llama")
    with torch.no_grad(), attached(lm, [plan], lengths=[length]):
        return lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


IDS, LENGTH = [7, 1, 2, 8, 40, 41, 42, 43, 44, 45], 6
V, SAE_ = vector(), small_sae()
UNIT, C = V / V.norm(), vector(5)
VALUES = torch.randn(2, D, generator=torch.Generator().manual_seed(1))


def _set(h: Tensor, value: float) -> Tensor:
    z = SAE_.encode(h)
    changed = z.clone()
    changed[3] = value
    return h + SAE_.decode(changed) - SAE_.decode(z)


CASES = {
    "add everywhere": (Intervention(Add(direction()), 2.0), lambda h, t: h + 2 * V),
    "add in residual norms": (
        Intervention(Add(direction(resid_norm=12.0)), 0.5, "resid"),
        lambda h, t: h + 6 * UNIT,
    ),
    "first three steps": (Intervention(Add(direction()), when=When.steps(3)), lambda h, t: h + V * (0 <= t < 3)),
    "last prompt token": (Intervention(Add(direction()), when=When.last_prompt_token()), lambda h, t: h + V * (t == 0)),
    "prompt": (Intervention(Add(direction()), when=When.prompt()), lambda h, t: h + V * (t <= 0)),
    "prompt positions": (
        Intervention(Add(direction()), when=When.prompt(0, 2, -2)),
        lambda h, t: h + V * (t + LENGTH - 1 in (0, 2, LENGTH - 2)),
    ),
    "decaying": (Intervention(Add(direction()), when=When.decaying(0.5)), lambda h, t: h + V * (t >= 0) * 0.5**t),
    "program": (
        Intervention(Add(direction()), when=When.programmed([0.0, 2.0, -1.0])),
        lambda h, t: h + V * {1: 2.0, 2: -1.0}.get(t, 0.0),
    ),
    "set feature": (
        Intervention(SetFeature(SAE_.feature(3, maximum=4.0)), 1.5, "feature_max", When.every_step()),
        lambda h, t: _set(h, 6.0) if t >= 0 else h,
    ),
    "scale feature": (
        Intervention(ScaleFeature(SAE_.feature(3)), 3.0),
        lambda h, t: _set(h, 3 * float(SAE_.encode(h)[3])),
    ),
    "project out": (
        Intervention(ProjectOut(direction(center=C))),
        lambda h, t: h - ((h - C) @ UNIT) * UNIT,
    ),
    "replace": (
        Intervention(Replace(VALUES, -1, Site(1)), when=When(-1, 1)),
        lambda h, t: VALUES[t + 1] if t in (-1, 0) else h,
    ),
    "gate": (
        Intervention(Add(direction()), when=When.everywhere().gated(Gate(vector(9), Site(1)))),
        lambda h, t: h + V * (h @ vector(9) > 0),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_does_what_its_formula_says(name: str) -> None:
    intervention, change = CASES[name]
    got = steered(IDS, LENGTH, (intervention,))
    expected = by_hand(IDS, LENGTH, Site(1), change)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        plain = tiny_model("llama")(input_ids=torch.tensor([IDS]), use_cache=False).logits[0]
    assert float((got - plain).abs().max()) > 1e-2


@pytest.mark.parametrize("activation", ["jumprelu", "topk"])
def test_a_feature_alone_reads_what_the_whole_sae_reads(activation: str) -> None:
    sae = small_sae(activation)
    x = torch.randn(200, D, generator=torch.Generator().manual_seed(2))
    z = sae.encode(x)
    for index in (0, 3, 17):
        torch.testing.assert_close(sae.feature(index).read(x), z[:, index])
        assert 0 < int((z[:, index] > 0).sum()) < 200


def test_several_act_in_their_order() -> None:
    """Set after add is not add after set."""
    add = Intervention(Add(direction()), 3.0)
    put = Intervention(SetFeature(SAE_.feature(3)), 6.0)
    for plan, change in (
        ((add, put), lambda h, t: _set(h + 3 * V, 6.0)),
        ((put, add), lambda h, t: _set(h, 6.0) + 3 * V),
    ):
        torch.testing.assert_close(
            steered(IDS, LENGTH, plan), by_hand(IDS, LENGTH, Site(1), change), rtol=1e-4, atol=1e-4
        )
    assert not torch.allclose(steered(IDS, LENGTH, (add, put)), steered(IDS, LENGTH, (put, add)), atol=1e-2)


def test_rows_of_one_forward_follow_their_own_plans() -> None:
    """Every kind in one batch, a row without any, and one plan in two strengths: each as if alone."""
    lm = tiny_model("llama")
    distinct: list[Plan] = [*plans(), (), (Intervention(Add(direction(1)), 3.0, when=When.prompt(0, -1)),)]
    texts = [PROMPTS[i % 4] for i in range(len(distinct))]
    together = _decode(texts, distinct, list(range(len(distinct))))
    for i, plan in enumerate(distinct):
        (alone,) = _decode([texts[i]], [plan], None)
        assert [g.tokens.tolist() for g in together[i]] == [g.tokens.tolist() for g in alone]
        for a, b in zip(together[i], alone, strict=True):
            torch.testing.assert_close(torch.tensor(a.logprob), torch.tensor(b.logprob), rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(torch.tensor(a.moved), torch.tensor(b.moved), rtol=1e-3, atol=1e-4)
            assert a.prompt_moved == b.prompt_moved
    assert not lm._forward_hooks


def _decode(texts: list[list[int]], distinct: list[Plan], of_row: list[int] | None) -> list[Any]:
    lm = tiny_model("llama")
    with attached(lm, distinct, of_row=of_row) as session:
        return decode(
            lm, texts, Branching(2).policy([""] * len(texts), VOCAB), max_new_tokens=6, stop=NO_STOP, steering=session
        )


@pytest.mark.parametrize("number", range(len(plans())), ids=lambda number: plans()[number][0].kind)
def test_without_numbers_all_rows_follow_the_first_plan(number: int) -> None:
    """Another that is given beside it acts on none, at no strength either, and its gate is not asked."""
    lm, ids = tiny_model("llama"), torch.tensor([[5, 9, 3, 8], [7, 1, 2, 8]])
    push = (Intervention(Add(direction(7)), 1.0, when=When.prompt()),)

    def run(*some: Plan) -> tuple[Tensor, Any]:
        with torch.no_grad(), attached(lm, some) as session:
            return lm(input_ids=ids, use_cache=False).logits, session.editor.delivery()

    alone, beside = run(push), run(push, plans()[number])
    assert torch.equal(alone[0], beside[0]) and alone[1] == beside[1]
    assert torch.equal(run((), plans()[number])[0], run(())[0])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(-3, 3).filter(lambda s: abs(s) > 0.1)), max_size=4),
    st.lists(st.tuples(st.integers(0, 2), st.floats(-3, 3).filter(lambda s: abs(s) > 0.1)), max_size=4),
)
def test_merged_operations_equal_plans_apart(first: list[tuple[int, float]], second: list[tuple[int, float]]) -> None:
    """Whatever order two plans name the same sources in, merging them by strength changes nothing."""
    kinds = [Add(direction()), SetFeature(SAE_.feature(3)), ProjectOut(direction(4))]
    both: list[Plan] = [tuple(Intervention(kinds[k], s) for k, s in one) for one in (first, second)]
    lm = tiny_model("llama")
    ids = torch.tensor([IDS, IDS])
    with torch.no_grad(), attached(lm, both, of_row=[0, 1], lengths=[LENGTH] * 2):
        together = lm(input_ids=ids, use_cache=False).logits
    for row, plan in enumerate(both):
        torch.testing.assert_close(together[row], steered(IDS, LENGTH, plan), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gpt2", "bloom"])
@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan[0].kind)
def test_steered_decoding_equals_full_forwards(architecture: str, plan: Plan) -> None:
    """The decoding loop with its shared prefix, padding and forks against one uncached forward a text."""
    lm = tiny_model(architecture)
    with attached(lm, [plan]) as session:
        out = decode(lm, PROMPTS, Branching(3).policy([""] * 4, VOCAB), max_new_tokens=6, stop=NO_STOP,
                     steering=session)  # fmt: skip
    for prompt, branches in zip(PROMPTS, out, strict=True):
        for generation in branches:
            ids = prompt + generation.tokens.tolist()
            with torch.no_grad(), attached(lm, [plan], lengths=[len(prompt)]) as whole:
                logits = lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
            picked = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(
                1, torch.tensor(generation.tokens)[:, None]
            )[:, 0]
            torch.testing.assert_close(torch.tensor(generation.logprob).double(), picked, rtol=1e-3, atol=2e-3)
            moved = whole.moved()
            if moved is not None:
                own = moved[0, len(prompt) - 1 : -1]
                torch.testing.assert_close(torch.tensor(generation.moved), own, rtol=1e-2, atol=1e-3)
                assert generation.prompt_moved == int((moved[0, : len(prompt) - 1] > 0).sum())


def test_generate_is_steered_as_our_loop_is() -> None:
    lm = tiny_model("qwen2")
    plan = (Intervention(Add(direction()), 2.0, when=When.every_step()),)
    with attached(lm, [plan]) as session:
        ours = decode(lm, PROMPTS, Greedy().policy([""] * 4, VOCAB), max_new_tokens=10, stop=NO_STOP, steering=session)
    for prompt, (generation,) in zip(PROMPTS, ours, strict=True):
        ids = torch.tensor([prompt])
        with attached(lm, [plan]):
            out = lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False,
                              eos_token_id=None, pad_token_id=0)  # fmt: skip
        assert out[0, len(prompt) :].tolist() == generation.tokens.tolist()


def test_what_is_recorded_inside_is_steered() -> None:
    lm = tiny_model("llama")
    plain = capture(lm, PROMPTS, [Site(1)])
    with attached(lm, [(Intervention(Add(direction()), 2.0),)]):
        moved = capture(lm, PROMPTS, [Site(1)])
    assert plain is not None and moved is not None
    torch.testing.assert_close(moved.values[Site(1)], plain.values[Site(1)] + 2 * V, rtol=1e-4, atol=1e-4)


def test_delivery_counts_and_measures() -> None:
    lm = tiny_model("llama")
    with torch.no_grad(), attached(lm, [(Intervention(Add(direction()), 2.0, when=When.prompt()),)]) as session:
        lm(input_ids=torch.tensor([IDS]), use_cache=False)
    delivery = session.editor.delivery()
    assert delivery.positions == len(IDS)
    assert delivery.mean_move == pytest.approx(6.0, rel=1e-4)
    assert 0 < delivery.mean_share <= delivery.max_share
    change = effect(lm, (Intervention(Add(direction()), 2.0, when=When.steps(2)),), IDS, LENGTH)
    assert change.positions == len(IDS) - LENGTH + 1 and change.max_logprob_change > 0.01 and change.mean_kl > 0


def test_delivery_is_told_plan_by_plan() -> None:
    lm = tiny_model("llama")
    gate = Gate(vector(9), Site(0), threshold=0.1)
    some: list[Plan] = [
        (Intervention(Add(direction()), 2.0, when=When.prompt()),),
        (),
        (Intervention(Add(direction(1)), 5.0, when=When.every_step().gated(gate)),),
        (Intervention(Add(direction()), 1e-12),),
    ]
    with attached(lm, some, of_row=[2, 0, 1, 0, 3]) as session:
        decode(lm, [*PROMPTS, PROMPTS[2]], Greedy().policy([""] * 5, VOCAB), max_new_tokens=6, stop=NO_STOP,
               steering=session)  # fmt: skip
        every = session.editor.delivery()
    pushed, nothing, gated, lost = (session.editor.delivery(n) for n in range(4))
    assert pushed.positions == len(PROMPTS[1]) + len(PROMPTS[3]) and pushed.mean_move == pytest.approx(6.0, rel=1e-4)
    assert pushed.gate_asked == nothing.gate_asked == 0 < gated.gate_fired <= gated.gate_asked == 6
    assert nothing.positions == lost.positions == 0 and gated.positions == gated.gate_fired
    assert every.positions == pushed.positions + gated.positions
    assert every.max_share == max(pushed.max_share, gated.max_share)
    with pytest.raises(UserError, match="changed nothing"):
        lost.check()


@pytest.mark.parametrize(
    ("plan", "word"),
    [
        (
            (Intervention(Add(direction()), when=When.steps(3).gated(Gate(vector(), Site(1), bias=-1e9))),),
            "never fired",
        ),
        ((Intervention(Add(direction()), 1e-12),), "changed nothing"),
        ((Intervention(Add(direction()), when=When(first=99)),), "changed nothing"),
        ((Intervention(Add(direction()), 1e38, layers=(0, 1, 2)),), "NaN or infinite"),
        ((Intervention(ProjectOut(Direction(torch.eye(D)[0], Site(3))), when=When.prompt(0)),), None),
    ],
)
def test_what_changed_nothing_is_an_error(plan: Plan, word: str | None) -> None:
    if word is None:
        effect(tiny_model("llama"), plan, IDS, LENGTH)
        return
    with pytest.raises(UserError, match=word):
        effect(tiny_model("llama"), plan, IDS, LENGTH)


BAD: list[tuple[Any, str]] = [
    (lambda: Direction(torch.full((D,), float("nan")), Site(1)), "NaN or infinity"),
    (lambda: Direction(torch.zeros(D), Site(1)), "all zeros"),
    (lambda: Direction(torch.ones(D), Site(1, "pattern")), "directions live at"),
    (lambda: Direction(torch.ones(D), Site(1), norm="units"), "did you mean unit"),
    (lambda: Intervention(Add(direction()), 1.0, "resid"), "does not know the residual norm"),
    (lambda: Intervention(Add(direction()), 1.0, "feature_max"), "SAE feature"),
    (lambda: Intervention(Add(direction()), 1.0, "norms"), "unknown unit"),
    (lambda: Intervention(Add(direction()), 0.0), "change nothing"),
    (lambda: Intervention(ScaleFeature(SAE_.feature(3)), 1.0), "change nothing"),
    (lambda: Intervention(Add(direction()), float("nan")), "finite"),
    (lambda: Intervention(Add(direction()), point="resid_mid"), "did you mean resid_"),
    (lambda: Intervention(Add(direction()), when=When.steps(1).gated(Gate(vector(), Site(2)))), "at or before"),
    (lambda: When.steps(0), "that is none"),
    (lambda: When(decay=0.5), "give first"),
    (lambda: When.programmed([0.0, 0.0]), "program of zeros"),
    (lambda: When.decaying(1.5), r"\(0, 1\]"),
    (lambda: small_sae().feature(48), "give 0 to 47"),
    (lambda: Intervention(SetFeature(SAE_.feature(3)), 1.0, "feature_max"), "largest activation"),
    (lambda: Gate(torch.full((D,), float("inf")), Site(1)), "finite"),
]


@pytest.mark.parametrize(("make", "word"), BAD, ids=[word for _, word in BAD])
def test_bad_input_is_told_in_one_line(make: Any, word: str) -> None:
    with pytest.raises(UserError, match=word) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "plan", "word"),
    [
        ("llama", (Intervention(Add(direction(layer=4))),), "4 layers, give 0 to 3"),
        ("llama", (Intervention(Add(Direction(torch.ones(16), Site(1)))),), "width 16"),
        ("bloom", (Intervention(Add(direction(point="attn_out"))),), "attn_out"),
        ("llama", (Intervention(Replace(VALUES, -1, Site(1))),), "steps -1 to 0"),
        ("llama", (Intervention(Add(direction()), when=When().gated(Gate(torch.ones(16), Site(0)))),), "gate of width"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_and_nothing_applied(architecture: str, plan: Plan, word: str) -> None:
    lm = tiny_model(architecture)
    before = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.modules()]
    with pytest.raises(UserError, match=word), attached(lm, [plan]):
        pass
    assert before == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.modules()]


@pytest.mark.parametrize("rows", [1, 3])
def test_plans_of_another_number_of_rows_end_the_run(rows: int) -> None:
    """One row with the plans of two came out as two rows."""
    lm = tiny_model("llama")
    plans = [(Intervention(Add(direction())),), ()]
    with attached(lm, plans, of_row=[0, 1]), torch.no_grad():
        with pytest.raises(UserError, match=f"plans were given for 2 rows and a forward has {rows} "):
            lm(input_ids=torch.tensor([IDS] * rows), use_cache=False)
        assert len(lm(input_ids=torch.tensor([IDS] * 2), use_cache=False).logits) == 2


def test_a_cache_that_was_not_followed_is_refused() -> None:
    """Steps would be counted from the wrong place: the context opened too late, or tokens taken back."""
    lm = tiny_model("llama")
    ids = torch.tensor([IDS])
    plan = (Intervention(Add(direction()), when=When.every_step()),)
    early, cache = ({cache_argument(lm): DynamicCache()} for _ in range(2))
    with torch.no_grad():
        lm(input_ids=ids, **early)
        with attached(lm, [plan]), pytest.raises(UserError, match="holds 10 positions and 0 were followed"):
            lm(input_ids=ids[:, :1], **early)
        with attached(lm, [plan]):
            lm(input_ids=ids, **cache)
            lm(input_ids=ids[:, :1], **cache)
            cache[cache_argument(lm)].crop(-3)
            with pytest.raises(UserError, match="holds 8 positions and 11 were followed"):
                lm(input_ids=ids[:, :1], **cache)


def test_random_directions_match_in_site_and_length() -> None:
    d = direction(resid_norm=5.0).normalized("resid")
    a, b = d.random_like(1), d.random_like(2)
    assert a.site == d.site and a.length == pytest.approx(d.length) == pytest.approx(5.0)
    assert not torch.allclose(a.vector, b.vector) and torch.equal(a.vector, d.random_like(1).vector)
    assert torch.equal(d.flipped().vector, -d.vector)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    plan = plans()[0]
    storage.write(tmp_path, "plan", plan)
    weights = tmp_path / "plan.safetensors"
    whole = weights.read_bytes()
    for broken, word in ((whole[:50], "not a whole safetensors"), (b"PK\x03\x04 pickled", "not a whole safetensors")):
        weights.write_bytes(broken)
        with pytest.raises(UserError, match=word):
            storage.read(tmp_path, "plan")
    weights.unlink()
    with pytest.raises(UserError, match="named and not there"):
        storage.read(tmp_path, "plan")
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        storage.read(tmp_path, "plan")


def test_every_point_can_be_written() -> None:
    for point in STREAM:
        plan = (Intervention(Add(direction(point=point)), 2.0),)
        assert effect(tiny_model("llama"), plan, IDS, LENGTH).mean_kl > 0


def test_vectors_that_share_memory_are_kept_apart() -> None:
    """A column of a matrix, and the matrix: safetensors refuses tensors that lie in one memory."""
    both = torch.arange(6.0).reshape(1, 6)
    tensors: dict[str, torch.Tensor] = {}
    packed = storage.pack([both, both[0]], tensors)
    one, other = storage.unpack(packed, safetensors.torch.load(safetensors.torch.save(tensors)))
    assert torch.equal(one, both)
    assert torch.equal(other, both[0])


@pytest.mark.parametrize(
    "when", [When.everywhere(), When.prompt(), When.prompt(0, -1), When(first=-3), When.every_step()]
)
def test_padding_weighs_nothing(when: When) -> None:
    steps = torch.arange(-4, 1).repeat(2, 1)
    valid = torch.tensor([[True] * 5, [False, False, False, True, True]])
    weight = when.weight(Frame(steps, torch.tensor([5, 2]), valid, None, None))
    assert isinstance(weight, Tensor) and (weight[~valid] == 0).all() and (weight[valid] != 0).any()


def test_a_time_says_what_it_is() -> None:
    """Everywhere and every step are those without a beginning or an end of their own."""
    kinds = {
        When(): "everywhere", When.everywhere(): "everywhere", When.every_step(): "every step", When.prompt(): "prompt",
        When.last_prompt_token(): "last prompt token", When.steps(8): "steps", When(stop=2): "steps",
        When(first=12): "steps", When(first=-2): "steps", When(first=0, stop=3): "steps",
    }  # fmt: skip
    assert {when: when.kind for when in kinds} == kinds


def test_streams_that_lie_beside_each_other_in_one_vector_are_refused() -> None:
    lm = small("qwen4_exp_text")  # its blocks hand over four streams, as one vector a position
    plan = (Intervention(Add(Direction(torch.ones(width(lm)), Site(0)))),)
    said = r"keeps \d+ numbers a position at 0\.resid_post and d_model is \d+"
    with pytest.raises(UserError, match=said), attached(lm, [plan]):
        lm(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
