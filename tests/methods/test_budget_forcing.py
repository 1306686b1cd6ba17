"""Budget forcing as a method: what it is given, what stands beside it, and what an organism does with more time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import elicit
from elicit.decoding import Forced, Greedy
from elicit.methods import budget_forcing
from elicit.models import Model
from elicit.models.thoughts import CONCLUDES
from elicit.tasks.organism.language import PARAPHRASES, templates
from probes.errors import UserError
from tests.support.chats import QUESTION
from tests.support.shell import shell
from tests.support.thinkers import thinker
from tests.support.tiny import save_tiny

TASK = "chain-sum:min_terms=2,max_terms=2"


def test_answers_begin_within_a_thought_and_controls_differ_in_one_thing() -> None:
    for family, begin in (("qwen3", "<think>\n"), ("deepseek-r1", "")):
        handle = budget_forcing.fit(thinker(family), prompt="chat", thought_tokens=9, max_new_tokens=20)
        assert handle.prompt.begin == begin
        assert handle.prompt.begun(QUESTION, handle.model.tokenizer) == "<think>"
    decoder = handle.decoder
    assert decoder == Forced(9, 2, "Wait", "Final Answer:", False, 20)
    beside = budget_forcing.controls(handle)
    assert beside["no forcing"].decoder == Greedy(20)
    assert beside["no waits"].decoder == replace(decoder, waits=0)
    for word in (".", "So", "The"):
        assert beside[f"another word {word!r}"].decoder == replace(decoder, word=word)
    assert all(one.prompt == handle.prompt for name, one in beside.items() if name not in _BASELINES)
    alone = budget_forcing.controls(budget_forcing.fit(handle.model, prompt="chat", waits=0))
    assert "no waits" not in alone and not any("word" in name for name in alone)


_BASELINES = ("direct@budget", "cot-prompt@budget")


def test_a_run_counts_what_was_written(tmp_path: Path) -> None:
    items = elicit.load_task(TASK, limit=2).test
    handle = budget_forcing.fit(thinker("deepseek-r1"), prompt="chat", thought_tokens=4, waits=1, max_new_tokens=32)
    thought_end = handle.model.tokenizer.convert_tokens_to_ids("</think>")
    beside = {name: one for name, one in budget_forcing.controls(handle).items() if name.startswith("parallel")}
    run = elicit.evaluate(handle, items, against=beside, out=tmp_path / "run")
    for item in items:
        (trace,) = run.traces["budget-forcing"][item.id]
        assert "</think>\n\nFinal Answer:" in trace.text and trace.begun == "<think>"
        assert trace.tokens.index(thought_end) <= 4 + len("Wait")
        parallel = run.traces["parallel samples@budget"][item.id]
        assert len(parallel) == 1 or sum(t.spent for t in parallel) <= trace.spent
    assert elicit.Elicited.load(run.folder / "elicited", handle.model).decoder == handle.decoder


@pytest.mark.real
def test_an_organism_that_may_not_end_begins_to_think() -> None:
    words = CONCLUDES.removesuffix(":").lower()
    assert any(PARAPHRASES["conclude"][n].startswith(words) for n in templates("conclude", "train"))
    model = elicit.load_model("smollm2-135m-latent", device="cpu")
    task = elicit.load_task("organism", limit=2)
    handle = budget_forcing.fit(model, task.solved, thought_tokens=10, max_new_tokens=24)
    plain = budget_forcing.controls(handle, task.solved)["no forcing"]
    for (forced,), (at_once,) in zip(handle.answers(task.test), plain.answers(task.test), strict=True):
        assert at_once.finish == "eos" and forced.text.startswith(f"{at_once.text} Wait")
        assert f" {CONCLUDES}" in forced.text and forced.spent > at_once.spent


def test_what_does_not_fit_is_one_line(tiny: Model, tmp_path: Path) -> None:
    model = str(save_tiny(tmp_path))
    for option, said in (
        ("thought_tokens=0", "thought_tokens = 0 was given to budget forcing; give 1 token or more"),
        ("waits=-1", "waits = -1 was given to budget forcing; give 0 (none) or more"),
        ("word= ", "word = ' '"),
        ("waits=1", "has no marks around thoughts and is no organism"),
    ):
        code, _, err = shell("run", "--method", "budget-forcing", "--model", model, "--limit", "2", "--set", option)
        assert code == 2 and said in err and err.count("\n") == 1, err
    tokenizer = thinker("qwen3").tokenizer
    tiny.tokenizer.chat_template, kept = tokenizer.chat_template, tiny.tokenizer.chat_template
    try:
        with pytest.raises(UserError, match=r"</think> is no token of .* give waits=0"):
            budget_forcing.fit(tiny)
        assert budget_forcing.fit(tiny, waits=0).prompt.begin == "<think>\n"
        with pytest.raises(UserError, match=r"begins a thought with words behind a mark .*; leave the words out"):
            budget_forcing.fit(tiny, waits=0, prompt='qa:{"begin": "<think>\\nOkay, so"}')
    finally:
        tiny.tokenizer.chat_template = kept
    with pytest.raises(UserError, match="controls of budget-forcing"):
        budget_forcing.controls(elicit.methods.get("direct").fit(tiny))
