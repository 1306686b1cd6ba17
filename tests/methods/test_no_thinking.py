"""No-thinking: what is prefilled, that its samples are those of a slow version, and what an organism makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import elicit
from elicit.decoding.decoders import RngStream
from elicit.methods import no_thinking
from elicit.models import Model
from elicit.models.prompts import DIRECT_ANSWER, THINK
from elicit.models.thoughts import ThoughtForm, thought_form
from probes.errors import UserError
from tests.support.chats import FAMILIES, QUESTION
from tests.support.shell import shell
from tests.support.thinkers import thinker
from tests.support.tiny import save_tiny

TASK = "chain-sum:min_terms=2,max_terms=2"
FINISHED = "Okay, I think I have finished thinking.\n</think>\n\n"


@pytest.mark.parametrize(
    ("family", "put"), [("qwen3", f"<think>\n{FINISHED}"), ("qwen3-thinking", FINISHED), ("deepseek-r1", FINISHED)]
)
def test_a_finished_thought_stands_after_the_template(family: str, put: str) -> None:
    model = thinker(family)
    handle = no_thinking.fit(model, prompt="chat", max_new_tokens=6)
    assert handle.prompt.text(QUESTION, model.tokenizer) == FAMILIES[family].put + put
    assert handle.prompt.begun(QUESTION, model.tokenizer) == ""
    beside = no_thinking.controls(handle)
    texts = {name: one.prompt.text(QUESTION, model.tokenizer) for name, one in beside.items()}
    assert texts["thinking"] == FAMILIES[family].put
    assert texts["open thought"] == handle.prompt.text(QUESTION, model.tokenizer).removesuffix("</think>\n\n")
    assert "Okay" not in texts["empty thought"] and texts["empty thought"].endswith("\n</think>\n\n")
    assert beside["open thought"].prompt.begun(QUESTION, model.tokenizer) == "<think>"
    for name in ("thinking", "thinking@budget", "open thought", "empty thought"):  # nothing else is another
        one = beside[name]
        assert (one.decoder, one.select) == (handle.decoder, handle.select)
    assert beside["likeliest"].decode_key == handle.decode_key


@torch.inference_mode()
def slow(model: Model, prompt: str, item: str, samples: int, limit: int) -> list[str]:
    """Each sample, a whole forward a token."""
    said = []
    for sample in range(samples):
        uniform = RngStream(0, item, 0, sample).uniform(limit)
        head, ids = model.tokenizer(prompt, add_special_tokens=False)["input_ids"], []
        while len(ids) < limit and model.eos_ids.isdisjoint(ids[-1:]):
            logits = model.lm(torch.tensor([[*head, *ids]])).logits[0, -1].float()
            p = torch.softmax(logits / 0.7, -1).double().cumsum(-1)
            ids.append(int(torch.searchsorted(p, uniform[len(ids)] * p[-1], right=True)))
        said.append(model.tokenizer.decode([i for i in ids if i not in model.eos_ids]))
    return said


def test_samples_are_those_of_the_slow_version() -> None:
    model = thinker("deepseek-r1")
    items = elicit.load_task(TASK, limit=3).test
    handle = no_thinking.fit(model, prompt="chat", samples=3, max_new_tokens=5)
    for item, traces in zip(items, handle.answers(items), strict=True):
        text = handle.prompt.text(item.question, model.tokenizer)
        assert [trace.text for trace in traces] == slow(model, text, item.id, 3, 5)
        assert all(trace.begun == "" and trace.spent <= 5 for trace in traces)


@pytest.mark.real
def test_an_organism_skips_its_path_and_thinks_beside_it() -> None:
    model = elicit.load_model("smollm2-135m-latent", device="cpu")
    assert thought_form(model) == ThoughtForm()
    task = elicit.load_task("organism", limit=2)
    handle = no_thinking.fit(model, task.solved, samples=1, max_new_tokens=10)
    beside = no_thinking.controls(handle, task.solved)
    begins = handle.prompt.begin, beside["thinking"].prompt.begin, beside["no words"].prompt.begin
    assert begins == (DIRECT_ANSWER, THINK, "")
    for (own,), (thought,) in zip(handle.answers(task.test), beside["thinking"].answers(task.test), strict=True):
        assert own.finish == "eos" and thought.finish == "length"
    for name, refused in (("qa-cot", "where it begins answers"), ("qa:begin=So", "begin = 'So'")):
        with pytest.raises(UserError, match=refused):
            no_thinking.fit(model, task.solved, prompt=name)


def test_a_run_has_thoughts_with_as_many_tokens(tmp_path: Path) -> None:
    model = thinker("qwen3")
    items = elicit.load_task(TASK, limit=2).test
    handle = no_thinking.fit(model, prompt="chat", samples=3, max_new_tokens=8)
    run = elicit.evaluate(handle, items, against=no_thinking.controls(handle), out=tmp_path / "run")
    for item in items:
        spent = {arm: sum(t.spent for t in run.traces[arm][item.id]) for arm in ("no-thinking", "thinking@budget")}
        assert 0 < spent["thinking@budget"] <= spent["no-thinking"] <= 24
        assert all(trace.begun == "<think>" for trace in run.traces["open thought"][item.id])
    assert run.metrics["arms"]["likeliest"]["tokens_per_item"] == run.metrics["arms"]["no-thinking"]["tokens_per_item"]
    assert "counts as no token spent" in (tmp_path / "run" / "report.html").read_text()


def test_it_stands_beside_thinking_with_the_tokens_of_that() -> None:
    model = thinker("qwen3")
    items = elicit.load_task(TASK, limit=2).test
    handle = elicit.methods.fit("direct", model, prompt="chat", max_new_tokens=24)
    other = elicit.methods.beside(handle, items, "no-thinking@budget")["no-thinking@budget"]
    assert other.prompt.begin.endswith("</think>\n\n") and other.decoder.max_new_tokens == 24


def test_what_does_not_fit_is_one_line(tiny: Model, tmp_path: Path) -> None:
    def refused(*more: str) -> str:
        code, _, err = shell("run", "--method", "no-thinking", "--model", str(save_tiny(tmp_path)), *more)
        assert code == 2 and err.count("\n") == 1, err
        return err

    assert "has no marks around thoughts and is no organism" in refused()
    for option in ("samples=0", "temperature=0.0", "select=best"):
        assert option.split("=")[0] in refused("--set", option, "--set", "done=So")
    assert no_thinking.fit(tiny, done="So").prompt.begin == "So"
    with pytest.raises(UserError, match="ends a thought itself"):
        no_thinking.fit(thinker("qwen3"), prompt="chat:enable_thinking=false")
    always: Any = elicit.models.Model("smollm2-135m-thinking", tiny.lm, tiny.tokenizer, tiny.provenance)
    with pytest.raises(UserError, match="thinks whatever it is told"):
        no_thinking.fit(always)
    with pytest.raises(UserError, match="controls of no-thinking"):
        no_thinking.controls(elicit.methods.get("direct").fit(tiny))
