"""Likelihoods against a forward of one text at a time, and against lm-eval's own model."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from elicit.elicited import Elicited
from elicit.integrations.lm_eval.likelihood import Pair, fitting, likelihoods
from elicit.integrations.lm_eval.model import ElicitLM
from elicit.methods import fit
from elicit.models import Model
from probes.errors import UserError
from probes.sites import Site
from steering.adapters import Adapter
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Gate, Intervention, When
from tests.support.adapters import base, config, written
from tests.support.hybrid_parts import as_model, directions, oracle, other
from tests.support.tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval and what it brings warn of their own matters

WHENS = {
    "everywhere": When.everywhere(),
    "prompt": When.prompt(1, -2),
    "last prompt token": When.last_prompt_token(),
    "steps": When.steps(3),
    "every step": When.every_step(),
    "decaying": When.decaying(0.6, 4),
    "gate": When(first=-4, stop=5).gated(Gate(torch.ones(32), Site(0, "resid_pre"))),
}


def pairs(size: int) -> list[Pair]:
    """Ragged ones, some that share their row, and one text that is cut into prompt and continuation at two places."""
    draw = torch.Generator().manual_seed(3)
    texts = [torch.randint(1, size, (n,), generator=draw).tolist() for n in (9, 23, 4, 14)]
    out = [Pair(tuple(text[:cut]), tuple(text[cut:])) for text in texts for cut in (len(text) // 2, len(text) - 1)]
    return [*out, *(Pair(out[1].context, (token,)) for token in (5, 6, 7)), Pair((3,), (4, 5, 6))]


def steered(model: Model, when: When) -> Elicited:
    width = model.lm.config.hidden_size
    direction = Direction(torch.randn(width, generator=torch.Generator().manual_seed(1)), Site(1))
    return replace(fit("direct", model), interventions=(Intervention(Add(direction), 0.8, when=when),))


@torch.no_grad()
def reference(handle: Elicited, pair: Pair) -> tuple[float, bool]:
    """One text, one forward, nothing padded."""
    lm = handle.model.lm
    ids = torch.tensor([[*pair.context, *pair.continuation]])
    with attached(lm, [handle.interventions], lengths=[len(pair.context)]):
        logits = lm(ids[:, :-1]).logits[0, len(pair.context) - 1 :]
    said = ids[0, len(pair.context) :]
    logprobs = logits.log_softmax(-1)
    return float(logprobs[torch.arange(len(said)), said].double().sum()), bool((logprobs.argmax(-1) == said).all())


@pytest.mark.parametrize("name", WHENS)
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_likelihoods_are_those_of_one_text_at_a_time(architecture: str, name: str) -> None:
    handle = steered(as_model(tiny_model(architecture)), WHENS[name])
    given = pairs(64)
    wanted = [reference(handle, pair) for pair in given]
    for alone in (True, False):
        found = likelihoods(handle, given, alone=alone)
        assert [one.greedy for one in found] == [greedy for _, greedy in wanted]
        off = max(abs(one.logprob - logprob) for one, (logprob, _) in zip(found, wanted, strict=True))
        assert off < 1e-5
    plain = likelihoods(replace(handle, interventions=()), given)
    assert max(abs(one.logprob - logprob) for one, (logprob, _) in zip(plain, wanted, strict=True)) > 0.05


@pytest.mark.parametrize("plan", [False, True])
def test_in_float32_on_a_cpu_a_text_is_rounded_as_in_a_forward_of_its_own(plan: bool) -> None:
    """Deep enough that padding, or a product of one row, shows: it did, by 1e-6 to 1e-5."""
    torch.manual_seed(0)
    shape: dict[str, int] = {"hidden_size": 576, "intermediate_size": 640, "num_hidden_layers": 6}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
    lm = LlamaForCausalLM(LlamaConfig(vocab_size=2000, initializer_range=0.08, **shape, **heads)).eval()
    handle = steered(as_model(lm), WHENS["every step"])
    handle = handle if plan else replace(handle, interventions=())
    draw = torch.Generator().manual_seed(4)
    texts = [torch.randint(1, 2000, (n,), generator=draw).tolist() for n in (48, 48, 48, 41, 40, 36, 36)]
    given = [Pair(tuple(text[:cut]), tuple(text[cut:])) for text in texts for cut in (len(text) - 1, len(text) - 3)]
    given.append(Pair(given[0].context, (7,)))
    beside, alone = likelihoods(handle, given), [likelihoods(handle, [pair], alone=True)[0] for pair in given]
    assert max(abs(one.logprob - other.logprob) for one, other in zip(beside, alone, strict=True)) < 1e-4
    if rounds_alike(lm):
        assert beside == alone


@torch.no_grad()
def rounds_alike(lm: LlamaForCausalLM) -> bool:
    """Whether this processor rounds products of 32 rows as those of any more."""
    for linear in (lm.lm_head, *lm.model.layers[0].mlp.children(), *lm.model.layers[0].self_attn.children()):
        if isinstance(linear, torch.nn.Linear):
            whole = linear(given := torch.randn(150, linear.in_features))
            if not all(torch.equal(linear(given[:rows]), whole[:rows]) for rows in range(32, 150)):
                return False
    return True


def test_likelihoods_under_an_adapter_are_pefts(tmp_path: Path) -> None:
    written(tmp_path, "llama", config("LORA"))
    plain = fit("direct", as_model(base("llama")))
    adapted = replace(plain, adapter=Adapter(tmp_path))
    theirs = as_model(PeftModel.from_pretrained(base("llama"), str(tmp_path)).merge_and_unload().eval())
    given = pairs(64)
    wanted = [reference(replace(plain, model=theirs), pair)[0] for pair in given]
    for handle, near in ((adapted, True), (plain, False)):  # which is as it was
        found = likelihoods(handle, given)
        assert (max(abs(one.logprob - other) for one, other in zip(found, wanted, strict=True)) < 1e-5) is near


def test_lm_evals_own_batches_steer_at_other_places() -> None:
    """What this suite departs from: `HFLM` around a steered model takes padding and continuation for prompt."""
    model = as_model(tiny_model("llama"))
    handle = steered(model, When.last_prompt_token())
    given = pairs(64)
    theirs = HFLM(pretrained=model.lm, tokenizer=copy.deepcopy(model.tokenizer), batch_size=8, max_length=200)
    with attached(model.lm, [handle.interventions]):
        wrong = theirs._loglikelihood_tokens([(None, [*one.context], [*one.continuation]) for one in given])
    right = [reference(handle, pair)[0] for pair in given]
    assert max(abs(one - other) for (one, _), other in zip(wrong, right, strict=True)) > 0.1


@pytest.mark.parametrize(("size", "names"), [(1, ["sums", "choices"]), ("auto", ["choices", "letters", "texts"])])
def test_unsteered_it_is_lm_evals_own_model(organism: Model, manager: Any, size: Any, names: list[str]) -> None:
    lms = (
        ElicitLM(fit("direct", organism), batch_size=size),
        HFLM(pretrained=organism.lm, tokenizer=copy.deepcopy(organism.tokenizer), batch_size=1, logits_cache=False),
    )
    ours, theirs = (simple_evaluate(lm, tasks=[*names], task_manager=manager, bootstrap_iters=0, limit=4) for lm in lms)
    for name in names:
        mine, their = ({k: v for k, v in some["results"][name].items() if "," in k} for some in (ours, theirs))
        assert mine.keys() == their.keys()
        assert all(
            value == (their[key] if value == "N/A" else pytest.approx(their[key], rel=1e-6))
            for key, value in mine.items()
        )
        for one, other_ in zip(ours["samples"][name], theirs["samples"][name], strict=True):
            assert one["arguments"] == other_["arguments"]
            for a, b in zip(_flat(one["resps"]), _flat(other_["resps"]), strict=True):
                assert a == (pytest.approx(b, abs=1e-5) if isinstance(b, float) else b)


def _flat(resps: Any) -> list[Any]:
    return [part for some in resps for one in some for part in (one if isinstance(one, tuple) else (one,))]


def test_a_trigger_stands_between_context_and_continuation(tiny: Model) -> None:
    lm = ElicitLM(fit("cot-prompt", tiny))
    asked = Instance("loglikelihood", {}, ("Q: 1 + 1?\nA:", " 2"), 0)
    put = Instance("loglikelihood", {}, ("Q: 1 + 1?\nA: Let's think step by step.", " 2"), 0)
    (found,) = lm.loglikelihood([asked], disable_tqdm=True)
    (wanted,) = ElicitLM(fit("direct", tiny)).loglikelihood([put], disable_tqdm=True)
    assert found == wanted


def test_a_decoder_changes_no_likelihood_and_says_so_once(tiny: Model, caplog: pytest.LogCaptureFixture) -> None:
    lm = ElicitLM(fit("cot-decoding", tiny, k=3), kind="number")
    asked = [Instance("loglikelihood", {}, ("Q: 1 + 1?\nA:", " 2"), 0)]
    assert lm.loglikelihood(asked) == lm.loglikelihood(asked) == ElicitLM(fit("direct", tiny)).loglikelihood(asked)
    told = [one.getMessage() for one in caplog.records if "cot-decoding" in one.getMessage()]
    assert len(told) == 1
    assert "changes no likelihood" in told[0]


def test_hybrid_decoding_has_no_likelihood() -> None:
    from elicit.decoding import Hybrid
    from elicit.decoding.decoders.partner import HybridSteering

    model = as_model(tiny_model("llama"))
    handle = Elicited(
        model,
        "vector-transfer",
        decoder=Hybrid((1.0,), max_new_tokens=4),
        partner=HybridSteering(directions(), oracle(), as_model(other("llama"))),
    )
    lm = ElicitLM(handle)
    scored = Instance("loglikelihood", {}, ("w5", "w6"), 0)
    with pytest.raises(UserError, match="vector-transfer decodes with a partner"):
        lm.loglikelihood([scored])
    ((wanted,),) = handle.respond([lm.tok_encode("w5")], ["whole"], [""], stop=[])
    asked = Instance("generate_until", {}, ("w5", {"until": []}), 0)
    assert lm.generate_until([asked], disable_tqdm=True) == [lm.tok_decode(wanted.generation.tokens.tolist())]


def test_interventions_that_move_nothing_end_it() -> None:
    handle = steered(as_model(tiny_model("llama")), When(first=40, stop=44))
    with pytest.raises(UserError, match="changed nothing"):
        likelihoods(handle, pairs(64))


def test_a_context_that_is_too_long_is_cut_where_that_is_asked_for() -> None:
    assert fitting(range(10), [7, 8], 9, True) == Pair(tuple(range(2, 10)), (7, 8))
    assert fitting(range(8), [7, 8], 9, False) == Pair(tuple(range(8)), (7, 8))
    with pytest.raises(UserError, match="a context of 9 tokens and a continuation of 2"):
        fitting(range(9), [7, 8], 9, False)
    with pytest.raises(UserError, match="there are 1 positions"):
        fitting(range(9), [7, 8], 1, True)
    with pytest.raises(UserError, match="a continuation without a token"):
        fitting([1], [], 9, True)
