"""Steered and adapted handles: runs, their manipulation checks, bundles, and the models that a bundle fits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from elicit import evaluate, load_model, load_task
from elicit.decoding import Greedy
from elicit.elicited import Elicited
from elicit.evaluation.run.arms import model_of
from elicit.models import Model
from elicit.tasks import Task
from probes.errors import UserError
from probes.sites import Site
from steering.adapters import WEIGHTS, Adapter, applied
from steering.directions import Direction
from steering.interventions import Add, Gate, Intervention, When
from tests.support.tiny import save_tiny


def plan(strength: float = 4.0, when: When | None = None) -> tuple[Intervention, ...]:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    center = torch.randn(32, generator=torch.Generator().manual_seed(1))
    direction = Direction(vector, Site(1), name="d", resid_norm=7.0, center=center, made={"method": "test", "seed": 0})
    return (Intervention(Add(direction.normalized("resid")), strength, when=when or When.every_step()),)


def handle(model: Model, **changes: object) -> Elicited:
    return replace(Elicited(model, "test", decoder=Greedy(12), interventions=plan()), **changes)


@pytest.fixture
def task() -> Task:
    return load_task("chain-sum", limit=6)


@pytest.fixture(scope="module")
def lora(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    lm = AutoModelForCausalLM.from_pretrained(tiny_folder)
    wrapped = get_peft_model(lm, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    wrapped.save_pretrained(folder)
    return folder


def test_a_steered_run_proves_delivery_and_resumes(tiny: Model, task: Task, tmp_path: Path) -> None:
    run = evaluate(handle(tiny), task.test[:6], out=tmp_path / "run")
    check = run.metrics["delivery"]["test"]
    traces = [t for branches in run.traces["test"].values() for t in branches]
    assert check["tokens_moved"] == sum(m > 0 for t in traces for m in t.moved) == check["tokens"]
    assert check["effect"]["max_logprob_change"] > 0 and check["effect"]["mean_kl"] > 0
    assert 0 < check["mean_share"] <= check["max_share"]
    direct = [t for branches in run.traces["direct"].values() for t in branches]
    assert all(t.moved == [] and t.prompt_moved == 0 for t in direct)
    assert [t.tokens for t in traces] != [t.tokens for t in direct]
    (tmp_path / "run" / "metrics.json").unlink()
    again = evaluate(handle(tiny), task.test[:6], out=tmp_path / "run")
    assert again.metrics["delivery"]["test"] == check
    with pytest.raises(UserError, match="another"):
        evaluate(handle(tiny, interventions=plan(5.0)), task.test[:6], out=tmp_path / "run")


def test_a_run_whose_interventions_moved_nothing_ends_in_one_line(tiny: Model, task: Task, tmp_path: Path) -> None:
    never = Gate(torch.ones(32), Site(1), bias=-1e9)
    with pytest.raises(UserError, match="gate never fired"):
        evaluate(
            handle(tiny, interventions=plan(4.0, When.every_step().gated(never))), task.test[:3], out=tmp_path / "a"
        )
    with pytest.raises(UserError, match="moved nothing in 3 questions"):
        evaluate(handle(tiny, interventions=plan(4.0, When(first=500))), task.test[:3], out=tmp_path / "b")
    with pytest.raises(UserError, match="changed nothing"):
        evaluate(handle(tiny, interventions=plan(1e-12)), task.test[:3], out=tmp_path / "c")
    with pytest.raises(UserError, match="NaN or infinite"):
        evaluate(handle(tiny, interventions=plan(1e38)), task.test[:3], out=tmp_path / "d")
    assert not list(tmp_path.glob("*/metrics.json"))


def test_a_bundle_is_what_was_saved(tiny: Model, task: Task, lora: Path, tmp_path: Path) -> None:
    gate = Gate(torch.ones(32), Site(0), threshold=-1e9, name="open")
    one = handle(tiny, adapter=Adapter(lora), interventions=plan(3.0, When.steps(4).gated(gate)))
    back = Elicited.load(one.save(tmp_path / "bundle"), tiny)
    assert back.interventions == one.interventions and back.decode_key == one.decode_key
    source = back.interventions[0].what.source  # type: ignore[union-attr]
    assert (source.norm, source.resid_norm, source.made["method"]) == ("resid", 7.0, "test")
    assert source.center is not None and back.interventions[0].when.gate is not None
    assert [t.tokens for ts in back.answer(task.test[:3]) for t in ts] == [
        t.tokens for ts in one.answer(task.test[:3]) for t in ts
    ]
    names = {p.name for p in (tmp_path / "bundle").rglob("*") if p.is_file()}
    assert names == {
        "elicited.json", "interventions.json", "interventions.safetensors", "adapter_config.json",
        "adapter_model.safetensors",
    }  # fmt: skip
    fits = json.loads((tmp_path / "bundle" / "elicited.json").read_text())["fits"]
    assert fits == {"tokenizer": tiny.tokenizer_sha256, "d_model": 32, "n_layers": 4}


def test_a_bundle_goes_on_another_model_only_where_it_fits(tiny: Model, task: Task, lora: Path, tmp_path: Path) -> None:
    steered = handle(tiny).save(tmp_path / "steered")
    adapted = handle(tiny, adapter=Adapter(lora)).save(tmp_path / "adapted")
    bare = handle(tiny, interventions=()).save(tmp_path / "bare")
    twin_folder = save_tiny(tmp_path / "twin")
    lm = AutoModelForCausalLM.from_pretrained(twin_folder)
    with torch.no_grad():
        lm.lm_head.weight.mul_(1.5)
    lm.save_pretrained(twin_folder)
    twin = load_model(str(twin_folder), dtype="float32", device="cpu")
    assert Elicited.load(steered, twin).answer(task.test[:2])
    with pytest.raises(UserError, match="fits no other weights"):
        Elicited.load(adapted, twin)
    shallow = load_model(str(save_tiny(tmp_path / "gpt2", "gpt2")), dtype="float32", device="cpu")
    with pytest.raises(UserError, match="n_layers 4"):
        Elicited.load(steered, shallow)
    assert Elicited.load(bare, shallow).answer(task.test[:1])
    file = twin_folder / "tokenizer.json"
    file.write_text(file.read_text().replace('"+": ', '"plus": '))
    other = load_model(str(twin_folder), dtype="float32", device="cpu")
    with pytest.raises(UserError, match="another tokenizer"):
        Elicited.load(steered, other)


def test_another_model_of_the_bases_name_is_refused(task: Task, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "base")
    bare = handle(load_model(str(folder), dtype="float32", device="cpu"), interventions=())
    run = evaluate(bare, task.test[:1], out=tmp_path / "run")
    assert Elicited.load(bare.save(tmp_path / "bundle")).model.provenance == model_of([run]).provenance
    save_tiny(folder, "gpt2")
    with pytest.raises(UserError, match=r"the bundle was made on .*base .*, what has that name here is .*; give the"):
        Elicited.load(tmp_path / "bundle")
    with pytest.raises(UserError, match=r"run was made on .*base .*, what has that name here is .*; put the weights"):
        model_of([run])


def test_a_broken_bundle_is_refused(tiny: Model, lora: Path, tmp_path: Path) -> None:
    folder = handle(tiny, adapter=Adapter(lora)).save(tmp_path / "bundle")
    with pytest.raises(UserError, match=r"holds no elicited\.json"):
        Elicited.load(tmp_path, tiny)
    weights = folder / "interventions.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with pytest.raises(UserError, match="not a whole safetensors"):
        Elicited.load(folder, tiny)
    handle(tiny, interventions=plan(9.0)).save(tmp_path / "other")
    for name in ("interventions.json", "interventions.safetensors"):
        (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(UserError, match="not those that"):
        Elicited.load(folder, tiny)
    folder = handle(tiny, adapter=Adapter(lora)).save(tmp_path / "bundle")
    config = folder / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    with pytest.raises(UserError, match="adapter in"):
        Elicited.load(folder, tiny)


def test_an_adapter_is_on_inside_and_gone_outside(tiny: Model, tiny_folder: Path, lora: Path, tmp_path: Path) -> None:
    lm, ids = tiny.lm, torch.tensor([[5, 9, 3, 7]])
    before = dict(lm.named_modules())
    state = {k: v.clone() for k, v in lm.state_dict().items()}
    from peft import PeftModel

    reference = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), str(lora))
    with torch.no_grad():
        plain, expected = lm(input_ids=ids).logits, reference(input_ids=ids).logits
        for _ in range(2):
            with applied(lm, Adapter(lora)):
                torch.testing.assert_close(lm(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
            assert torch.equal(lm(input_ids=ids).logits, plain)
    assert float((plain - expected).abs().max()) > 1e-2
    assert dict(lm.named_modules()) == before and all(torch.equal(v, state[k]) for k, v in lm.state_dict().items())
    assert not any(p.requires_grad for p in lm.parameters())
    wide = load_model(str(save_tiny(tmp_path / "gpt2", "gpt2")), dtype="float32", device="cpu")
    with pytest.raises(UserError, match="does not fit"), applied(wide.lm, Adapter(lora)):
        pass
    assert "lora_" not in str([name for name, _ in wide.lm.named_modules()])  # what failed leaves nothing behind
    weights = load_file(lora / WEIGHTS)
    last = sorted(weights)[-1]
    fewer, more = (
        dict(list(weights.items())[1:]),
        {**weights, last.replace("layers.3", "layers.9"): weights[last].clone()},
    )
    for name, other in (("fewer", fewer), ("more", more)):
        shutil.copytree(lora, tmp_path / name)
        save_file(other, tmp_path / name / WEIGHTS)
        with pytest.raises(UserError, match="does not fit"), applied(lm, Adapter(tmp_path / name)):
            pass
        assert dict(lm.named_modules()) == before and not hasattr(lm, "peft_config")
    with pytest.raises(UserError, match="holds no adapter_config"):
        Adapter(tmp_path)


def test_an_adapter_that_writes_to_the_base_leaves_all_other_answers_alone(
    tiny: Model, tiny_folder: Path, task: Task, tmp_path: Path
) -> None:
    lm = AutoModelForCausalLM.from_pretrained(tiny_folder)
    options = dict(init_lora_weights="pissa", modules_to_save=["lm_head"], trainable_token_indices=[5, 6])
    wrapped = get_peft_model(lm, LoraConfig(r=2, target_modules=["q_proj"], **options))
    with torch.no_grad():
        for p in wrapped.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)), alpha=0.1 * p.requires_grad)
    wrapped.save_pretrained(tmp_path)

    def said(adapter: Adapter | None) -> list[list[int]]:
        one = Elicited(tiny, "test", decoder=Greedy(12), adapter=adapter)
        return [trace.tokens for branches in one.answer(task.test[:4]) for trace in branches]

    before, adapted = said(None), said(Adapter(tmp_path))
    assert said(None) == before != adapted == said(Adapter(tmp_path))
    merged = wrapped.eval().merge_and_unload()
    held = replace(tiny, lm=merged)
    again = Elicited(held, "test", decoder=Greedy(12)).answer(task.test[:4])
    assert [trace.tokens for branches in again for trace in branches] == adapted


def test_an_adapter_for_another_base_says_so(tiny: Model, lora: Path, tmp_path: Path) -> None:
    shutil.copytree(lora, tmp_path / "lora")
    config = tmp_path / "lora" / "adapter_config.json"
    told = {**json.loads(config.read_text()), "base_model_name_or_path": "them/Other-7B"}
    config.write_text(json.dumps(told))
    named = replace(tiny, name="us/Tiny")
    with pytest.warns(UserWarning, match="was made for them/Other-7B, and is put on us/Tiny"):
        Elicited(named, "test", adapter=Adapter(tmp_path / "lora"))
    Elicited(tiny, "test", adapter=Adapter(tmp_path / "lora"))  # a folder's name says nothing
