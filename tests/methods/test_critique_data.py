"""Files of critiques, rows, targets, losses and candidates are what they say."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit.methods.critique_ft import critique_file
from elicit.methods.critique_ft import examples as data
from elicit.methods.critique_ft.candidates import sample
from elicit.methods.critique_ft.examples import Row
from elicit.models import Model, Prompt
from elicit.tasks import load_task
from elicit.tasks.base import Item, Task
from elicit.training import packed
from elicit.training.sft import batches, target_loss
from probes.errors import UserError


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("organism", limit=4)


OURS = {"question": "What is 1 + 1?", "candidate": "3", "critique": "1 + 1 = 2. Conclusion: wrong"}
ALPACA = {
    "instruction": "Please critique whether the following solution to the question is correct.\n\n",
    "input": "Question:\nWhat is 1 + 1?\nSolution:\n1 + 1\n= 2\n",
    "output": "Critique:\nThat holds.\n\nConclusion: right [END]",
}
MESSAGES = {
    "messages": [
        {"role": "user", "content": f"{ALPACA['instruction']}{ALPACA['input']}"},
        {"role": "assistant", "content": ALPACA["output"]},
    ]
}


def test_three_formats_and_arrays_are_read(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    silent = {**OURS, "critique": "Hm."}
    rows = [OURS, ALPACA, MESSAGES, silent]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    found = critique_file.load(file)
    assert [e.candidate for e in found.entries] == ["3", "1 + 1\n= 2", "1 + 1\n= 2"]
    assert [e.critique.right for e in found.entries] == [False, True, True] and found.unusable == 1
    assert found.entries[1].critique.text == ALPACA["output"] and found.entries[1] == found.entries[2]
    item = Item("i", "What is 1 + 1?", "2", "fit")
    assert found(item, "3").right is False
    with pytest.raises(UserError, match="no critique of this candidate"):
        found(item, "4")
    file.write_text(json.dumps(rows))
    assert critique_file.load(file).entries == found.entries


@pytest.mark.parametrize(("line", "words"), [
    ('{"question": ', "line 2: not JSON"), ("[1]", "line 2: a list"), ("3", "line 2: a int"),
    ('{"question": "a"}', "line 2: neither question"), (json.dumps({**OURS, "critique": 3}), "line 2: critique is 3"),
    (json.dumps({**OURS, "question": " "}), "line 2: question is ' '"),
    (json.dumps({**ALPACA, "input": "What?"}), "line 2: no 'Question:'"),
    (json.dumps({"messages": [{"role": "user", "content": "x"}]}), "line 2: neither"),
])  # fmt: skip
def test_a_broken_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text(f"{json.dumps(OURS)}\n{line}\n")
    with pytest.raises(UserError, match=re.escape(words)):
        critique_file.load(file)


def test_files_without_critiques_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    for text, words in (
        (json.dumps({**OURS, "critique": "Hm."}), r"no usable critique \(1 come"), ("", r"no usable critique \(0 come"),
        ("[{]", "line 1: not JSON"),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(UserError, match=words):
            critique_file.load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        critique_file.load(file)
    with pytest.raises(UserError, match="not there"):
        critique_file.load(tmp_path / "nowhere.jsonl")


def rows_of(candidates: dict[str, list[str]]) -> list[Row]:
    return [
        Row(question, question, c, f"On {c}. Conclusion: right", n == 0, f"Of {c}. Conclusion: wrong", None)
        for question, some in candidates.items()
        for n, c in enumerate(some)
    ]


ROWS = rows_of({"One?": ["a", "b", "c"], "Two?": ["d", "e"]})


def test_rows_in_the_authors_format_come_back_as_they_were(tmp_path: Path) -> None:
    assert [Row.from_dict(json.loads(json.dumps(row.to_dict()))) for row in ROWS] == ROWS
    theirs = {k: v for k, v in ROWS[0].to_dict().items() if k in ("instruction", "input", "output")}
    (tmp_path / "c.jsonl").write_text(json.dumps(theirs))
    (entry,) = critique_file.load(tmp_path / "c.jsonl").entries
    assert (entry.question, entry.candidate, entry.critique.text) == ("One?", "a", ROWS[0].critique)


def test_the_loss_is_on_the_critique_alone_token_by_token(tiny: Model) -> None:
    some = data.examples("critiques", ROWS, Prompt(trigger="Hm.", begin="To"), tiny.tokenizer)
    decode = tiny.tokenizer.decode
    for row, one in zip(ROWS, some, strict=True):
        put = f"Q: {data.INSTRUCTION}\n\nQuestion:\n{row.question}\nSolution:\n{row.candidate}\nA:"
        assert decode(one.prompt) == put
        assert decode(one.target[:-1]) == f" {row.critique}" and one.target[-1] == tiny.tokenizer.eos_token_id
    longest = max(one.tokens for one in some)
    with torch.no_grad():
        total = target_loss(tiny.lm, packed(some, longest), longest)
        each = []
        for one in some:
            logits = tiny.lm(input_ids=torch.tensor([[*one.prompt, *one.target]])).logits[0].log_softmax(-1)
            for n, token in enumerate(one.target):
                each.append(-logits[len(one.prompt) - 1 + n, token])
    assert len(each) == sum(len(row.critique) + 2 for row in ROWS)
    assert float(total) == pytest.approx(float(torch.stack(each).sum()), rel=1e-4)


def test_controls_differ_from_the_truth_only_in_what_they_should(tiny: Model) -> None:
    made = {kind: data.examples(kind, ROWS, Prompt(), tiny.tokenizer) for kind in data.TARGETS}
    truth = made["critiques"]
    for kind in ("shuffled", "untruthful", "unrelated"):
        assert [one.prompt for one in made[kind]] == [one.prompt for one in truth]
        assert all(a.target != b.target for a, b in zip(made[kind], truth, strict=True)), kind
    count = Counter(tuple(one.target) for one in truth)
    assert Counter(tuple(one.target) for one in made["shuffled"]) == count
    for of_one, so in (("abc", slice(0, 3)), ("de", slice(3, 5))):  # within a problem
        texts = [tiny.tokenizer.decode(one.target[:-1]) for one in made["shuffled"][so]]
        assert sorted(text.split()[1] for text in texts) == [f"{c}." for c in of_one]
    assert [len(one.target) for one in made["unrelated"]] == [len(one.target) for one in truth]
    assert tiny.tokenizer.decode(made["solutions"][0].prompt) == "Q: One?\nA:"
    assert [tiny.tokenizer.decode(one.target[:-1]) for one in made["solutions"]] == [" a", " d"]
    alone = rows_of({"One?": ["a"], "Two?": ["b"]})
    assert [said for _, said in data.targets("shuffled", alone)] == [alone[1].critique, alone[0].critique]


def test_targets_that_cannot_be_made(tiny: Model) -> None:
    with pytest.raises(UserError, match="give two candidates"):
        data.targets("shuffled", ROWS[:1])
    with pytest.raises(UserError, match="none of 2 candidates is right"):
        data.targets("solutions", ROWS[1:3])
    with pytest.raises(UserError, match="did you mean shuffled"):
        data.targets("shufled", ROWS)
    some = data.examples("critiques", ROWS, Prompt(), tiny.tokenizer)
    assert data.fitting(some, 1000) == some
    with pytest.raises(UserError, match="no usable row"):
        data.fitting(some, 20)


def test_a_step_is_full_rows_whatever_the_targets(tiny: Model) -> None:
    for kind in data.TARGETS:
        some = data.examples(kind, ROWS, Prompt(), tiny.tokenizer)
        batch = batches(some, 3, 400, seed=0)
        for step in range(3):
            assert batch(step) == batch(step) and 2.5 * 300 < sum(one.tokens for one in batch(step)) <= 1200
        assert batch(0) != batch(1)


def test_candidates_are_different_and_the_same_again(tiny: Model, task: Task) -> None:
    item = task.fit[0]
    arguments: dict[str, Any] = {"count": 7, "max_new_tokens": 5, "seed": 3}
    found = sample(tiny, task.fit, item, Prompt(), **arguments)
    assert len({one.text for one in found}) == len(found) == 7 and all(one.text == one.text.strip() for one in found)
    assert [one.asked for one in found] == [False] * 3 + [True] * 4
    assert found == sample(tiny, task.fit, item, Prompt(), **arguments)
    assert {one.asked for one in sample(tiny, task.fit, item, Prompt(), ask="think", **arguments)} == {True}
    few = sample(tiny, task.fit, item, Prompt(), count=500, max_new_tokens=1, seed=3)
    assert 20 < len(few) < 200  # there are no more tokens than that
    with pytest.raises(UserError, match="unknown way to ask"):
        sample(tiny, task.fit, item, Prompt(), ask="nicely")
    with pytest.raises(UserError, match="at least 1"):
        sample(tiny, task.fit, item, Prompt(), count=0)
