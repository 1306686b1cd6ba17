"""Thoughts that end by a budget: as a slow version written here, however they are decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import elicit
from elicit.decoding import Branching, Greedy, Sampling, StopRule
from elicit.decoding.decoders import Decoder, RngStream
from elicit.decoding.engine import Batch, decode_batch, engine_of
from elicit.decoding.thought import begun_in
from elicit.models.model import Model
from elicit.models.prompts import named_prompt
from tests.support.shell import shell
from tests.support.thinkers import thinker
from tests.support.tiny import save_tiny

PROMPTS = ("Q: 1 + 1\nA: <think>", "Q: 2\nA:", "Q: two times three, please\nA: <think>\n", "b <thinking>")
ENDS = {"<think>": "</think>", "<thinking>": "</thinking>"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return elicit.load_model(str(save_tiny(tmp_path_factory.mktemp("tiny"))), dtype="float32", device="cpu")


def batch_of(model: Model, decoder: Decoder, budget: int) -> Batch:
    prompts = [model.tokenizer(text)["input_ids"] for text in PROMPTS]
    stop = StopRule(frozenset(), (), model.tokenizer, thought_tokens=budget)
    return Batch(prompts, [f"item {n}" for n in range(len(prompts))], decoder, stop)  # type: ignore[arg-type]


def slow(model: Model, prompt: str, budget: int, limit: int, uniform: Any = None, first: int | None = None) -> str:
    """One answer, a whole forward a token; every token of this tokenizer is a character."""
    opened = next((mark for mark in ENDS if prompt.rstrip().endswith(mark)), "")
    answer = forced = ""
    spent = 0
    for step in range(limit):
        ids = torch.tensor([model.tokenizer(prompt + answer)["input_ids"]])
        logits = model.lm(ids).logits[0, -1].clone()
        logits[list(model.unlisted)] = float("-inf")
        chosen = int(logits.argmax())
        if uniform is not None:
            cumulative = torch.softmax(logits, -1).double().cumsum(-1)
            chosen = int(torch.searchsorted(cumulative, uniform[step] * cumulative[-1], right=True))
        if step == 0 and first is not None:
            chosen = int(logits.sort(descending=True, stable=True).indices[first])
        if opened and not forced and spent >= budget:
            forced = ENDS[opened]
        answer += forced[0] if forced else model.tokenizer.decode([chosen])
        forced, spent = forced[1:], spent + bool(opened)
        if opened and answer.endswith(ENDS[opened]):
            opened = ""
    return answer


@pytest.mark.parametrize("engine", ["hf", "graph", "nnsight"])
@pytest.mark.parametrize("budget", [1, 6, 100])
def test_it_is_the_slow_version(model: Model, engine: str, budget: int) -> None:
    limit = 20
    decoders = (Greedy(limit), Branching(2, limit), Sampling(2, 1.0, max_new_tokens=limit))
    for decoder in decoders if engine == "hf" else decoders[:1]:
        other = replace(model, engine=engine)
        made = decode_batch(other, batch_of(model, decoder, budget))
        for n, (prompt, branches) in enumerate(zip(PROMPTS, made, strict=True)):
            for branch, one in enumerate(branches):
                more: dict[str, Any] = {"first": branch} if isinstance(decoder, Branching) else {}
                if isinstance(decoder, Sampling):
                    more = {"uniform": RngStream(0, f"item {n}", 0, branch).uniform(limit)}
                assert model.tokenizer.decode(one.tokens) == slow(model, prompt, budget, limit, **more)
        if engine == "graph":
            assert any("thought" in note for note in engine_of(other).notes)


def test_without_a_thought_or_a_budget_nothing_changes(model: Model) -> None:
    plain = decode_batch(model, batch_of(model, Greedy(20), 0))
    ended = decode_batch(model, batch_of(model, Greedy(20), 6))
    same = [a.tokens.tolist() == b.tokens.tolist() for (a,), (b,) in zip(plain, ended, strict=True)]
    assert same == [False, True, False, False]
    assert "</think>" in model.tokenizer.decode(ended[0][0].tokens)


@pytest.mark.parametrize("engine", ["hf", "nnsight"])
def test_what_was_begun_counts(model: Model, engine: str) -> None:
    """An answer that is gone on with from any of its tokens, those of the mark too, comes out as it was."""
    whole, other = batch_of(model, Greedy(20), 6), replace(model, engine=engine)
    answers = [one.tokens.tolist() for (one,) in decode_batch(model, whole)]
    lengths = [len(prompt) for prompt in whole.prompts]
    for cut in range(1, 20) if engine == "hf" else (4, 9):
        paths = [[*prompt, *answer[:cut]] for prompt, answer in zip(whole.prompts, answers, strict=True)]
        made = decode_batch(other, replace(whole, prompts=paths, lengths=lengths, decoder=Greedy(20 - cut)))
        assert [one.tokens.tolist() for (one,) in made] == [answer[cut:] for answer in answers]
    branches = decode_batch(model, replace(whole, prompts=paths, lengths=lengths, decoder=Branching(2, 20 - cut)))
    assert [two.tokens.tolist() for _, two in branches] != [one.tokens.tolist() for one, _ in branches]


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ("12345678", "</think>"),  # beyond the budget
        ("123456</thi", "nk>"),  # within the end that was due
        ("12345</thi", "</think>"),  # within one of its own
        ("12345678</thi", "nk>"),
        ("12345678</think> 9", ""),
        ("1</think> 2<think>34", "</think>"),  # the first thought has spent all, its mark among it
    ],
)
def test_a_text_of_another_hand_counts_too(model: Model, said: str, ends: str) -> None:
    ids = [model.tokenizer(text)["input_ids"] for text in (PROMPTS[0], PROMPTS[0] + said)]
    stop = StopRule(frozenset(), (), model.tokenizer, thought_tokens=6)
    ((one,),) = decode_batch(model, Batch(ids[1:], ["a"], Greedy(12), stop, lengths=[len(ids[0])]))
    free = decode_batch(model, Batch(ids[1:], ["a"], Greedy(12), StopRule(frozenset())))[0][0]
    text = model.tokenizer.decode(one.tokens)
    assert text.startswith(ends) if ends else one.tokens.tolist() == free.tokens.tolist(), text


def test_it_is_a_detail_of_a_prompt(model: Model, tmp_path: Path) -> None:
    prompt = named_prompt("qa:begin=<think>,thought_tokens=5", model.tokenizer)
    assert prompt.thought_tokens == 5
    assert elicit.models.prompts.Prompt.from_dict(prompt.to_dict()) == prompt
    assert "thought_tokens" not in named_prompt("qa", model.tokenizer).to_dict()
    handle = elicit.methods.fit("direct", model, prompt="qa:begin=<think>,thought_tokens=5", max_new_tokens=20)
    items = elicit.load_task("chain-sum:min_terms=2,max_terms=2", limit=3).test
    assert all(trace.text[5:13] == "</think>" for (trace,) in handle.answer(items))
    longer = replace(handle, prompt=replace(prompt, thought_tokens=9))
    assert longer.batch_key != handle.batch_key
    handle.save(tmp_path / "bundle")
    assert elicit.Elicited.load(tmp_path / "bundle", model).prompt == prompt


@pytest.mark.parametrize("family", ["qwen3", "deepseek-r1"])
@pytest.mark.parametrize("words", ["", "Okay, so", "Okay. </think>\n\nSo"])
def test_a_thought_that_is_begun_with_words_ends_by_its_budget_too(family: str, words: str) -> None:
    thinking, ended = thinker(family, seed=8), "</think>" in words
    put = named_prompt("chat", thinking.tokenizer)
    put = replace(put, begin=words if put.begun("What?", thinking.tokenizer) else f"<think>\n{words}", thought_tokens=5)
    handle = replace(elicit.methods.fit("direct", thinking, max_new_tokens=24), prompt=put)
    items = elicit.load_task("chain-sum", limit=3).test
    assert begun_in(thinking.tokenizer, handle.prompt_ids(items[0])) == ("" if ended else "<think>")
    mark = thinking.tokenizer.convert_tokens_to_ids("</think>")
    assert ended or all(mark in trace.tokens[:6] for (trace,) in handle.answer(items))
    told = replace(items[0], question="What follows <think> here?")
    assert begun_in(thinking.tokenizer, replace(put, begin="").ids(told.question, thinking.tokenizer)) == (
        "<think>" if family == "deepseek-r1" else ""
    )


def test_what_is_refused(model: Model) -> None:
    for value in ("-1", "1.5", "true", "x"):
        code, _, error = shell("run", "--method", "direct", "--set", f"thought_tokens={value}", "--limit", "2")
        assert (code, "thought_tokens" in error) == (2, True), error
