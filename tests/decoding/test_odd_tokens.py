"""Ids that a tokenizer lacks and a model has, and the reverse; tables that are kept for a tokenizer."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import sentencepiece
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertGenerationTokenizer,
    ByT5Tokenizer,
    PreTrainedTokenizerBase,
)

from elicit.decoding import Greedy, StopRule, decode
from elicit.decoding.record import _COULD_END, Record, Rows, _tokens_that_could_end, stop_at
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.methods import cot_decoding, direct, self_consistency
from elicit.models import Model, load_model
from elicit.models.identity import grounds
from elicit.tasks import load_task
from elicit.tasks.base import Task
from probes.capture import capture
from probes.errors import UserError
from probes.offsets import decoded, token_ends
from probes.sites import Site
from tests.support.tiny import save_tiny, tiny_model
from tests.support.tokenizers import FAMILIES

TOKENS = 97  # of the tiny tokenizer


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with 40 more output rows than its tokenizer has tokens, which it likes to emit."""
    folder = save_tiny(tmp_path_factory.mktemp("model") / "wide")
    lm = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(2)
    lm.resize_token_embeddings(TOKENS + 40, mean_resizing=False)
    with torch.no_grad():
        lm.get_input_embeddings().weight.normal_(0, 1.0)
        lm.get_output_embeddings().weight.normal_(0, 0.25)
    lm.save_pretrained(folder)
    return load_model(str(folder), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("chain-sum", limit=4)


def ids_of(answers: list[list[Trace]]) -> set[int]:
    return {int(token) for traces in answers for trace in traces for token in trace.tokens}


@pytest.mark.parametrize("method", [cot_decoding, self_consistency, direct])
def test_ids_beyond_the_tokenizer_are_never_chosen(wide: Model, task: Task, method: ModuleType) -> None:
    """And what is chosen is what a softmax over the others says."""
    handle: Elicited = method.fit(wide, task.fit, max_new_tokens=24)
    assert wide.unlisted == tuple(range(TOKENS, TOKENS + 40)) and wide.choices == TOKENS
    answers = handle.answers(task.test)
    assert max(ids_of(answers)) < TOKENS
    (prompt, trace), *_ = zip([handle.prompt_ids(item) for item in task.test], (t[0] for t in answers), strict=True)
    with torch.no_grad():
        whole = wide.lm(torch.tensor([[*prompt, *trace.tokens]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    assert (whole.argmax(-1) >= TOKENS).any()  # it would have said one
    expected = whole[:, :TOKENS].log_softmax(-1).gather(1, torch.tensor(trace.tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(trace.logprob).float(), expected, atol=1e-4, rtol=1e-4)


def test_without_the_rule_they_are_chosen(wide: Model) -> None:
    ids = [list(wide.tokenizer("Q: 1 + 2 =", add_special_tokens=False)["input_ids"])]
    policies = [Greedy().policy([""], wide.vocab_size) for _ in range(2)]
    (free,), (held,) = (
        decode(wide.lm, ids, policy, max_new_tokens=24, stop=StopRule(frozenset()), unlisted=never)
        for policy, never in zip(policies, ((), wide.unlisted), strict=True)
    )
    assert max(free[0].tokens) >= TOKENS > max(held[0].tokens)


@pytest.mark.parametrize("engine", ["transformer-lens", "nnsight"])
def test_other_engines_choose_the_same(wide: Model, task: Task, engine: str) -> None:
    theirs = replace(wide, engine=engine)
    ours, other = (
        self_consistency.fit(model, task.fit, samples=2, max_new_tokens=8).answers(task.test[:2])
        for model in (wide, theirs)
    )
    assert ids_of(other) and max(ids_of(other)) < TOKENS
    assert [[list(t.tokens) for t in traces] for traces in ours] == [
        [list(t.tokens) for t in traces] for traces in other
    ]


def test_branches_are_counted_by_what_can_be_chosen(wide: Model, task: Task) -> None:
    with pytest.raises(UserError, match=f"give a k from 1 to the vocabulary's {TOKENS}"):
        cot_decoding.fit(wide, task.fit, k=TOKENS + 1)
    answers = cot_decoding.fit(wide, task.fit, k=TOKENS, max_new_tokens=1).answers(task.test[:1])
    assert len(answers[0]) == TOKENS and max(ids_of(answers)) < TOKENS


def test_how_many_are_never_chosen_is_in_the_identity(wide: Model, tiny: Model, task: Task) -> None:
    assert grounds(task.test, [wide])["unlisted"] == [40]
    assert "unlisted" not in grounds(task.test, [tiny])


def test_end_tokens_that_the_tokenizer_lacks_still_end(wide: Model) -> None:
    ending = replace(wide)
    before = wide.lm.generation_config.eos_token_id
    try:
        wide.lm.generation_config.eos_token_id = TOKENS + 3
        assert TOKENS + 3 not in ending.unlisted and ending.choices == TOKENS + 1
    finally:
        wide.lm.generation_config.eos_token_id = before


def test_a_path_with_such_ids_is_asked_for_its_answer(wide: Model, task: Task) -> None:
    handle = Elicited(wide, "prompted", decoder=Greedy(12), span="prompted")
    assert len(handle.answers(task.test)) == len(task.test)


def slow_tokenizers(folder: Path) -> list[PreTrainedTokenizerBase]:
    """Tokenizers written in Python, which raise where an id has no token."""
    (folder / "text").write_text("\n".join(f"the cat sat on the mat {n} times" for n in range(300)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "m"), vocab_size=50, minloglevel=2
    )
    return [ByT5Tokenizer(), BertGenerationTokenizer(str(folder / "m.model"))]


def test_tokenizers_written_in_python_pass_over_them_too(tmp_path: Path) -> None:
    for tokenizer in slow_tokenizers(tmp_path):
        ids = tokenizer("the cat sat", add_special_tokens=False)["input_ids"]
        odd = [*ids[:2], 5000, *ids[2:], 9999]
        with pytest.raises((ValueError, IndexError)):
            tokenizer.decode(odd)
        text = decoded(tokenizer, odd)
        assert text == decoded(tokenizer, ids) == "the cat sat"
        ends = token_ends(tokenizer, odd, text)
        assert ends[-1] == ends[-2] == len(text) and ends[2] == ends[1] and token_ends(tokenizer, [], "") == []
        stop = StopRule(frozenset(), ("t",), tokenizer)
        assert _tokens_that_could_end(stop)[ids].any() and not _tokens_that_could_end(stop)[-1]


def test_a_token_that_the_weights_lack_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "more")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(folder)
    (tmp_path / "t.jsonl").write_text('{"question": "What does <tool> do?", "answer": "4", "split": "test"}\n')
    model, task = load_model(str(folder), dtype="float32", device="cpu"), load_task(str(tmp_path / "t.jsonl"))
    sizes = f"its tokenizer has {TOKENS + 1} tokens and the model has {TOKENS} embeddings; leave"
    with pytest.raises(
        UserError,
        match=rf"holds '<tool>' \(id {TOKENS}\), {sizes}",
    ):
        direct.fit(model, task.solved, max_new_tokens=4).answers(task.test)
    with pytest.raises(UserError, match=f"id {TOKENS}"):
        capture(model.lm, [[1, TOKENS]], [Site(0)])


def test_the_table_of_stop_tokens_is_of_its_own_tokenizer(tiny: Model, tiny_folder: Path) -> None:
    gc.collect()
    kept = len(_COULD_END)
    first, second = (AutoTokenizer.from_pretrained(tiny_folder) for _ in range(2))
    second.add_tokens(["so\nQ:"])
    rules = [StopRule(frozenset(), ("\nQ:",), tokenizer) for tokenizer in (first, second)]
    tables = [_tokens_that_could_end(rule) for rule in rules]
    assert len(tables[1]) == len(tables[0]) + 1 and tables[1][TOKENS] and not tables[0][TOKENS]
    assert len(_COULD_END) == kept + 2
    first.add_tokens(["well\nQ:"])  # of the same tokenizer, which has grown
    assert _tokens_that_could_end(rules[0])[TOKENS]
    ids = [list(tiny.tokenizer("Q: 1", add_special_tokens=False)["input_ids"])]
    assert decode(tiny.lm, ids, Greedy().policy([""], TOKENS), max_new_tokens=4, stop=rules[0])
    del first, second, rules
    gc.collect()
    assert len(_COULD_END) == kept  # a later tokenizer at the same address finds nothing


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("text", "strings"),
    [
        ("So the sum is 17. Answer: the end", ("Answer: ",)),  # a blank that is a part of the next token
        ("It is 17.\n\nQ: no", ("\nQ:",)),
        ("So 17 ☃ and more", ("☃",)),  # one character of three tokens
        ("数学 is 数学你好 or 你好 y 好", ("你好", "no")),
        ("Is 17.问题：no 问题：", ("\n问题：", "问题：")),
        ("naïve ☃☃ 你 naïve", ("☃ 你", "naïve n")),
    ],
)
def test_a_stop_string_ends_an_answer_at_the_token_that_completes_it(
    family: str, text: str, strings: tuple[str, ...]
) -> None:
    tokenizer = FAMILIES[family]
    ids = [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    stops = (n for n in range(len(ids)) if stop_at(decoded(tokenizer, ids[: n + 1]), strings) is not None)
    expected = next(stops, None)
    one = np.zeros(1, dtype=np.int64)
    record = Record(Rows(one, one), len(ids), StopRule(frozenset(), strings, tokenizer), tiny_model("llama"))
    ended = (n for n, token in enumerate(ids) if record.emit(one, one + n, one + token)[0])
    assert next(ended, None) == expected is not None
    assert record.finish[0] == "stop"
