"""Ids that a tokenizer lacks and a model has, and the reverse; tables that are kept for a tokenizer."""

from __future__ import annotations

import gc
from pathlib import Path
from types import ModuleType

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
from elicit.decoding.loop import _COULD_END, _tokens_that_could_end
from elicit.elicited import Elicited
from elicit.methods import cot_decoding, direct, self_consistency
from elicit.models import Model, load_model
from elicit.tasks import load_task
from elicit.tasks.base import Task
from probes.capture import capture
from probes.errors import UserError
from probes.offsets import decoded, token_ends
from probes.sites import Site
from tests.support.tiny import save_tiny

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


@pytest.mark.parametrize("method", [cot_decoding, self_consistency])
def test_ids_beyond_the_tokenizer_are_no_text_and_end_nothing(wide: Model, task: Task, method: ModuleType) -> None:
    handle: Elicited = method.fit(wide, task.fit, max_new_tokens=24)
    seen = 0
    for traces in handle.answers(task.test):
        for trace in traces:
            beyond = [n for n, token in enumerate(trace.tokens) if token >= TOKENS]
            seen += len(beyond)
            starts = [0, *trace.ends[:-1]]
            assert all(starts[n] == trace.ends[n] for n in beyond)
            inside = [token for token in trace.tokens if token < TOKENS]
            assert decoded(wide.tokenizer, trace.tokens) == decoded(wide.tokenizer, inside)
    assert seen


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
        assert ends[-1] == ends[-2] == len(text) and ends[2] == ends[1]
        stop = StopRule(frozenset(), ("t",), tokenizer)
        assert _tokens_that_could_end(stop)[ids].any() and not _tokens_that_could_end(stop)[-1]


def test_a_token_that_the_weights_lack_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "more")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(folder)
    (tmp_path / "t.jsonl").write_text('{"question": "What does <tool> do?", "answer": "4", "split": "test"}\n')
    model, task = load_model(str(folder), dtype="float32", device="cpu"), load_task(str(tmp_path / "t.jsonl"))
    with pytest.raises(
        UserError, match=rf"a text holds '<tool>' \(id {TOKENS}\) and the model has {TOKENS} embeddings"
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
