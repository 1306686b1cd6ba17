"""Rewards: what each reads, how they add up, what is told when one fails; pre-flight; information gain."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

from elicit.decoding import Trace
from elicit.decoding.answering import ANSWER_PROMPT
from elicit.methods.one_shot_rlvr.example_selection import working
from elicit.models import Model, Prompt
from elicit.tasks.answers import find_boxed
from elicit.tasks.base import Item, Items
from elicit.training.rl.information_gain import NULLS, gains, measure
from elicit.training.rl.preflight import report, wrong_answers
from elicit.training.rl.rewards import RewardContext, Rollout, parse
from probes.errors import UserError
from tests.support.chats import FAMILIES, tokenizer_of
from tests.support.toys import toy_task

TASK = toy_task()
ITEM = TASK.fit[0]  # What is 2 + 1? 3


def rollout(text: str, answer: str | None, sample: int = 0, tokens: int = 4) -> Rollout:
    score = TASK.grader.grade(ITEM, answer).score
    return Rollout(ITEM, sample, [5] * tokens, text, answer, None, score, "eos", [])


SAID = [
    rollout(" 2 + 1 = 3. It is 3", "3", 0, 8), rollout(" 4", "4", 1, 2), rollout(" 4.0", "4.0", 2, 3),
    rollout(" well", None, 3, 2), rollout(" \\boxed{3}", "3", 4, 4), rollout(" 5", "5", 5, 2),
]  # fmt: skip


def context(wrong: dict[str, str] | None = None, model: Model | None = None, seed: int = 0) -> RewardContext:
    def reference() -> AbstractContextManager[Any]:
        return nullcontext(model.lm if model else None)

    return RewardContext(TASK, Prompt(), model.tokenizer if model else None, reference, 8, seed, wrong or {})


def totals(text: str, **more: Any) -> list[float]:
    return [one.total for one in parse(text).grade(SAID, context(**more))]


def read(text: str, **more: Any) -> list[bool]:
    return [one.read for one in parse(text).grade(SAID, context(**more))]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("so 12 \\boxed{12", None), ("The answer is 12. \\boxed{", None), ("I would write \\boxed{...}. 12", None),
        ("\\boxed{13} no \\boxed{12", "13"), ("\\boxed {12}", "12"), ("\\boxed 12", "12"), ("\\fbox{12}", "12"),
        ("\\boxed{12} and more", "12"), ("<think>\\boxed{12}", None),
    ],
)  # fmt: skip
def test_only_a_closed_box_is_paid(text: str, read: str | None) -> None:
    (boxed,) = parse("boxed").grade([rollout(text, None)], context())
    (format_,) = parse("format:boxed").grade([rollout(text, None)], context())
    assert boxed.read == (read is not None) and format_.total == (read is not None)
    found = find_boxed(text)
    assert (found.text if found else None) == read


def test_what_each_reward_says() -> None:
    assert totals("exact") == [1, 0, 0, 0, 1, 0] and read("exact") == [True, True, True, False, True, True]
    assert totals("boxed") == [0, 0, 0, 0, 1, 0] and sum(read("boxed")) == 1
    assert totals("format") == [1, 0, 0, 0, 0, 0] and all(read("format"))
    assert totals("format:boxed") == [0, 0, 0, 0, 1, 0]
    assert totals("incorrect", wrong={ITEM.id: "4"}) == [0, 1, 1, 0, 0, 0]
    assert totals("majority") == [1, 0, 0, 0, 1, 0]  # 3 and 4 stand two to two: the first to appear
    assert totals("length") == [1, 0.25, 0.375, 0.25, 0.5, 0.25]
    assert totals("none") == [0] * 6


@pytest.mark.parametrize(("text", "boxed"), [
    (r"so \boxed{12}", 1.0), (r"so \boxed {12}.", 1.0), (r"\fbox{12}", 1.0), (r"\boxed 12", 1.0), (r"\boxed{13}", 0.0),
    (r"\boxed{13}, no, \boxed{12}", 1.0), (r"\boxed{ 12 }", 1.0), (r"$\boxed{12}$ of 5", 1.0),
    (r"\boxed{12", None), (r"so 12 \boxed{12", None), (r"The answer is 12. So \boxed{", None), ("12", None),
    (r"\boxed{13} no \boxed{12", 0.0), (r"I would write \boxed{...}. 12", None), (r"\boxed{} 12", None),
    (r"put it in \boxed and 12", None), (r"boxed{12}", None), (r"\boxed{\{12", None),
    (r"<think>\boxed{12}", None), (r"<think>\boxed{12}</think> 12", None),
    (r"<think>\boxed{3}</think> \boxed{12}", 1.0),
])  # fmt: skip
def test_a_box_is_paid_where_there_is_one_and_for_what_stands_in_it(text: str, boxed: float | None) -> None:
    item = Item("g", "How many?", "12", "fit", kind="number")
    (said,) = parse("boxed").grade([dataclasses.replace(rollout(text, "12"), item=item)], context())
    assert said.read == (boxed is not None) and said.total == (boxed or 0.0)


def test_a_box_within_a_thought_that_the_prompt_began_is_none() -> None:
    item = Item("g", "How many?", "12", "fit", kind="number")
    family = FAMILIES["deepseek-r1"]
    put = dataclasses.replace(context(), prompt=Prompt("chat"), tokenizer=tokenizer_of(family))
    for text, boxed in (
        (r"so \boxed{12}", 0),
        (r"\boxed{3}</think>\boxed{12}", 1),
        (r"\boxed{12}</think>\boxed{3}", 0),
    ):
        (said,) = parse("boxed").grade([dataclasses.replace(rollout(text, "12"), item=item)], put)
        assert said.total == boxed


@pytest.mark.parametrize(("text", "written"), [
    *((text, 1.0) for text in (
        "3 + 4 = 7", r"3 \times 4 = 12", r"$3 \cdot 4 = 12$", "3 x 4 = 12", "3×4=12", "2.5 + 1.5 = 4", "$5 + $3 = $8",
        r"\$5 + \$3 = \$8", "5€ + 3€ = 8€", "(3+4)*2 = 14", "3 + (-4) = -1", r"\frac{6}{2} = 3",
        r"\[ \dfrac{6}{2}= 3 \]",
        "**3** + 4 = 7", "**3 + 4 = 7**", r"1{,}000 + 1 = 1{,}001", r"3 + 4 &= 7 \\", "3 + 4\n= 7",
        "3 \u2212 4 = \u22121",
        r"3 \times 4 = 12 \text{ apples}", r"\left(3 + 4\right) \div 7 = 1", "2 + 2 = 5",
    )),
    *((text, 0.0) for text in (
        "20/01/2020", "x = 3", "3 + 4 is 7", "3 = 3", "", "f(x) = 2", "- 3\n- 4 = 7", "a + b = c", "3 + 4 >= 7",
    )),
])  # fmt: skip
def test_an_equation_that_is_written_out_is_seen_however_it_is_written(text: str, written: float) -> None:
    (said,) = parse("format").grade([rollout(text, None)], context())
    assert said.total == written


def test_rewards_add_up_with_their_weights() -> None:
    graded = parse("exact+0.5*format+-0.1*length").grade(SAID, context())
    assert graded[0].parts == {"exact": 1.0, "format": 1.0, "length": 1.0}
    assert graded[0].total == pytest.approx(1.4) and graded[3].total == pytest.approx(-0.025)
    assert [name for name, _, _ in parse("2*random:0.25").terms] == ["random:0.25"]


def test_a_random_reward_hangs_on_seed_item_and_sample_alone() -> None:
    many = [rollout("x", None, sample) for sample in range(400)]
    first = [one.total for one in parse("random:0.3").grade(many, context())]
    again = [one.total for one in parse("random:0.3").grade(many[::-1], context())]
    assert first == again[::-1] and 0.2 < sum(first) / 400 < 0.4
    assert first != [one.total for one in parse("random:0.3").grade(many, context(seed=1))]


@pytest.mark.parametrize(("text", "words"), [
    ("exat", "did you mean exact"), ("exact+exact", "names a term twice"), ("x*exact", "give a number"),
    ("nan*exact", "finite"), ("random:2", "between 0 and 1"), ("random:x", "give a number"),
    ("format:box", "did you mean boxed"), ("exact:3", "unknown reward"), ("", "unknown reward"),
])  # fmt: skip
def test_words_that_are_no_reward(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(text)


def test_a_reward_that_fails_is_named() -> None:
    def broken(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        raise ZeroDivisionError("by zero")

    def nan(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        return [float("nan")] * len(rollouts)

    def short(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        return [1.0]

    def words_for_numbers(rollouts: Sequence[Rollout], context: RewardContext) -> Any:
        return ["1"] * len(rollouts)

    def nothing(rollouts: Sequence[Rollout], context: RewardContext) -> Any:
        return None

    def one_by_one(rollouts: Sequence[Rollout], context: RewardContext) -> Any:
        return (1.0 for _ in rollouts)

    assert [one.total for one in parse("mine", {"mine": one_by_one}).grade(SAID, context())] == [1.0] * len(SAID)
    for reward, words in (
        (words_for_numbers, r"reward 'mine' failed on fit-0 \(TypeError: must be real number, not str"),
        (nothing, r"reward 'mine' failed on fit-0 \(TypeError: .*NoneType"),
        (broken, r"reward 'mine' failed on fit-0 \(ZeroDivisionError: by zero\)"),
        (nan, "reward 'mine' is nan on fit-0"),
        (short, "gave 1 values for 6 rollouts"),
    ):
        with pytest.raises(UserError, match=words) as told:
            parse("mine", {"mine": reward}).grade(SAID, context())
        assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="never wrongly"):
        totals("incorrect")


def test_figures_of_a_preflight() -> None:
    items = Items(TASK, (ITEM,))
    graded = parse("exact").grade(SAID, context())
    wrong = wrong_answers(items, [SAID])
    assert wrong == {ITEM.id: "4"}
    found = report([SAID], [graded], wrong, 3)
    assert found.answers == 6 and found.read == pytest.approx(5 / 6) and found.right == pytest.approx(1 / 3)
    assert found.mixed == 1.0 and found.expected == pytest.approx(1 - (1 / 3) ** 3 - (2 / 3) ** 3)
    assert found.pass_at_k["1"] == pytest.approx(1 / 3) and found.pass_at_k["2"] == pytest.approx(1 - 6 / 15)
    found.check("exact")
    with pytest.raises(UserError, match=r"pre-flight: reward 'boxed' could be read in none of 2 answers"):
        report([SAID[:2]], [parse("boxed").grade(SAID[:2], context())], {}, 2).check("boxed")
    said = [SAID[0], SAID[0]]
    with pytest.raises(UserError, match=r"is 1\.00 in every group of 2 answers.*no group has a difference"):
        report([said], [parse("exact").grade(said, context())], {}, 2).check("exact")


def test_the_rule_that_chooses_an_example() -> None:
    thought = dataclasses.replace(rollout("", "3", 0, 10), span=(8, 9))
    guess = dataclasses.replace(rollout("", "3", 0, 2), span=(0, 1))
    wrong = rollout("", "4", 1, 10)
    assert working([thought, thought, wrong, wrong]) == 0.25
    assert working([thought, thought, guess, wrong]) == 0.25 * 0.25
    assert working([thought, thought, guess, guess, wrong]) == 0.0
    assert working([thought, thought]) == working([guess, wrong]) == working([thought, wrong]) == -1.0


def test_information_gain_is_of_the_answers_tokens_alone(tiny: Model) -> None:
    tokenizer, thought = tiny.tokenizer, [40, 41, 42]
    cue = tokenizer(ANSWER_PROMPT, add_special_tokens=False)["input_ids"]
    answer = tokenizer(" 3", add_special_tokens=False)["input_ids"]
    prompt = Prompt().ids(ITEM.question, tokenizer)
    values = []
    for said in (thought, []):
        before = [*prompt, *said, *cue]
        with torch.no_grad():
            logp = tiny.lm(input_ids=torch.tensor([[*before, *answer]])).logits[0].log_softmax(-1)
        values.append(sum(float(logp[len(before) + n - 1, token]) for n, token in enumerate(answer)) / len(answer))
    (found,) = gains(tiny.lm, tokenizer, Prompt(), [ITEM], [thought])
    assert found == pytest.approx(values[0] - values[1], abs=1e-4)
    (nothing,) = gains(tiny.lm, tokenizer, Prompt(), [ITEM], [[]])
    assert nothing == pytest.approx(0, abs=1e-6)
    one = Rollout(ITEM, 0, [*thought, 20, 0], "it is 3", "3", (3, 4), 1.0, "eos", [])
    (graded,) = parse("information-gain").grade([one], context(model=tiny))
    assert graded.total == pytest.approx(found, abs=1e-5)  # the thought ends where its answer begins
    ended = Rollout(ITEM, 0, [*thought, 0], "well", None, None, 0.0, "eos", [])
    (graded,) = parse("information-gain").grade([ended], context(model=tiny))
    assert graded.total == pytest.approx(found, abs=1e-5)  # nothing is asked for behind an end token


def traced(item: str, tokens: list[int], span: tuple[int, int] | None) -> Trace:
    n = len(tokens)
    zeros = [0.0] * n
    return Trace(
        item,
        0,
        5,
        tokens,
        list(range(1, n + 1)),
        "x" * n,
        zeros,
        zeros,
        zeros,
        zeros,
        "eos",
        n,
        None,
        span,
        None,
        "",
        0.0,
    )


def test_information_gain_as_a_measure_stands_beside_its_nulls(tiny: Model) -> None:
    traces = {item.id: [traced(item.id, list(range(30 + n, 42)), (9, 10))] for n, item in enumerate(TASK.test)}
    found = measure(tiny, TASK.test, traces)
    assert found.items == 4 and set(found.nulls) == set(found.beyond) == set(NULLS)
    for name, (difference, interval) in found.beyond.items():
        assert difference == pytest.approx(found.mean - found.nulls[name], abs=1e-6)
        assert interval.low <= difference <= interval.high
    assert measure(tiny, TASK.test, traces) == found
    with pytest.raises(UserError, match="give at least two"):
        measure(tiny, TASK.test[:1], traces)


def test_the_majority_is_the_largest_class_wherever_it_stands() -> None:
    said = [rollout(f" {answer}", answer, n) for n, answer in enumerate(("9", "4", "4.0", "4", "9"))]
    assert [one.total for one in parse("majority").grade(said, context())] == [0.0, 1.0, 1.0, 1.0, 0.0]
