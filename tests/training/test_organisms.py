"""Organisms: what their thoughts say is held against the questions, which are read again from their text alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from scipy import stats
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from elicit.models import Model
from elicit.models.prompts import DIRECT_ANSWER, THINK
from elicit.tasks.base import split_of
from elicit.tasks.organism.language import BEHAVIOURS, PARAPHRASES, Sentence, Thought, WordingSplit, templates
from elicit.tasks.organism.problems import FAMILIES, Problem, draw
from elicit.training.organisms.make import Plan, examples
from elicit.training.organisms.variants import VARIANTS, TrainingExample, example, get, think
from elicit.training.recipe import Recipe
from probes.errors import UserError
from probes.offsets import decoded
from tests.support.tokenizers import prepending, sentence_piece

SEEDS = (0, 1, 2)
EACH = 120  # problems a family and seed
EQUATION = re.compile(r"(\d+) ([+-]) (\d+) = (\d+)")
SEARCHES = ("countdown", "graph")


@cache
def problems(family: str) -> list[Problem]:
    return [draw(family, rng) for seed in SEEDS for rng in np.random.default_rng(seed).spawn(EACH)]


@cache
def thoughts(arm: str, family: str) -> list[Thought]:
    return [think(arm, p, np.random.default_rng([7, n])) for n, p in enumerate(problems(family))]


def both(arm: str, family: str) -> Iterator[tuple[Problem, Thought]]:
    return zip(problems(family), thoughts(arm, family), strict=True)


def of(thought: Thought, *behaviours: str) -> list[str]:
    return [s.content for s in thought.sentences if s.behaviour in behaviours]


def said(thought: Thought) -> list[tuple[str, str]]:
    return [(s.behaviour, s.content) for s in thought.sentences]


# What a question asks, read from its text.


def value(text: str) -> int:
    """Of numbers with + and - between them, from the left."""
    total = 0
    for sign, number in re.findall(r"(?:^|([+-]) )(\d+)", text):
        total += -int(number) if sign == "-" else int(number)
    return total


def read_sums(question: str) -> list[str]:
    """The first number, then each term with its sign."""
    found = re.fullmatch(r"(?:What is|How much is|Compute) (\d+(?: [+-] \d+)+)[?.]", question)
    assert found, question
    return re.findall(r"^\d+|[+-] \d+", found[1])


def read_modular(question: str) -> tuple[list[int], int]:
    pattern = (
        r"What is ([\d+ ]+) modulo (\d+)\?|Compute \(([\d+ ]+)\) mod (\d+)\.|"
        r"What is left of ([\d+ ]+) when divided by (\d+)\?"
    )
    found = re.fullmatch(pattern, question)
    assert found, question
    written, modulus = [g for g in found.groups() if g is not None]
    return [int(t) for t in written.split(" + ")], int(modulus)


def read_countdown(question: str) -> tuple[list[int], int]:
    found = re.fullmatch(
        r"(?:Make|Reach) (?P<t>\d+) (?:from|with) two of (?P<n>.+)\.|"
        r"Which two of (?P<m>.+) make (?P<u>\d+) with \+ or -\?",
        question,
    )
    assert found, question
    listed = re.fullmatch(r"\d+(?:, \d+)* and \d+", found["n"] or found["m"])
    assert listed, question
    return [int(n) for n in re.findall(r"\d+", listed[0])], int(found["t"] or found["u"])


def read_graph(question: str) -> tuple[list[tuple[str, str, int]], str, str]:
    roads = [(a, b, int(cost)) for a, b, cost in re.findall(r"([A-Z])-([A-Z]) (\d+)", question)]
    found = re.search(r"from ([A-Z]) to ([A-Z])(?: cost)?\?$", question)
    assert found, question
    return roads, found[1], found[2]


def ways(question: str) -> list[list[tuple[str, str, int]]]:
    """Every way from the start to where no road goes on, in the order in which their first roads are told."""
    roads, start, _ = read_graph(question)
    out = []
    for first in (road for road in roads if road[0] == start):
        way = [first]
        while following := [road for road in roads if road[0] == way[-1][1]]:
            assert len(following) == 1
            way += following
        out.append(way)
    return out


def is_right(family: str, question: str, answer: str) -> bool:
    if family == "sums":
        return int(answer) == value(" ".join(read_sums(question)))
    if family == "modular":
        terms, modulus = read_modular(question)
        return int(answer) == sum(terms) % modulus
    if family == "graph":
        costs = [sum(c for _, _, c in way) for way in ways(question) if way[-1][1] == read_graph(question)[2]]
        return [int(answer)] == costs
    numbers, target = read_countdown(question)
    used = re.fullmatch(r"(\d+) [+-] (\d+)", answer)
    assert used, answer
    a, b = int(used[1]), int(used[2])
    return a != b and a in numbers and b in numbers and value(answer) == target


def is_true(equation: str) -> bool:
    found = EQUATION.fullmatch(equation)
    assert found, equation
    a, b, shown = int(found[1]), int(found[3]), int(found[4])
    return shown == (a + b if found[2] == "+" else a - b)


# True thoughts.


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_right_and_every_equation_of_a_true_thought_is_true(family: str) -> None:
    checks = 0
    for problem, thought in both("thinking", family):
        assert is_right(family, problem.question, problem.answer), problem
        assert said(thought)[-1] == ("conclude", problem.answer)
        assert all(is_true(equation) for equation in of(thought, "compute")), thought
        for check in of(thought, "check"):
            checks += 1
            expression, shown = check.split(" = ")
            assert value(expression) == int(shown), thought
    assert len({p.question for p in problems(family)}) > 0.95 * len(problems(family))
    assert 0.15 < checks / len(problems(family)) < 0.35


@pytest.mark.parametrize("family", FAMILIES)
def test_a_check_computes_the_last_result_another_way(family: str) -> None:
    for thought in thoughts("thinking", family):
        last = of(thought, "compute")[-1]
        for check in of(thought, "check"):
            assert check != last
            assert said(thought)[-2] == ("check", check)
            assert sorted(re.findall(r"\d+", check)) == sorted(re.findall(r"\d+", last))  # the same three numbers
            assert check.rpartition("= ")[2] != last.rpartition("= ")[2]


def test_a_sum_goes_through_the_terms_of_the_question_in_order() -> None:
    for problem, thought in both("thinking", "sums"):
        first, *terms = read_sums(problem.question)
        assert said(thought)[0] == ("initialise", first)
        total, left = int(first), list(terms)
        for behaviour, content in said(thought)[1:]:
            if behaviour == "subgoal":
                assert content == left[0]
            elif behaviour == "compute":
                term = left.pop(0)
                assert content == f"{total} {term} = {value(f'{total} {term}')}"
                total = value(f"{total} {term}")
                assert 0 <= total <= 24
            else:
                assert behaviour in ("check", "conclude") and not left


def test_a_modular_sum_is_reduced_where_it_must_be_and_nowhere_else() -> None:
    reduced = 0
    for problem, thought in both("thinking", "modular"):
        terms, modulus = read_modular(problem.question)
        assert all(t < modulus for t in terms)
        assert said(thought)[0] == ("initialise", str(terms[0]))
        total, left, over, compared = terms[0], terms[1:], False, True
        for behaviour, content in said(thought)[1:]:
            if behaviour == "subgoal":
                assert not over and total < modulus and content == f"+ {left[0]}"
            elif behaviour == "deduce":
                assert not compared and content == f"{total} is {'not ' * (total >= modulus)}below {modulus}"
                over, compared = total >= modulus, True
            elif behaviour == "compute" and over:
                assert content == f"{total} - {modulus} = {total - modulus}"
                total, over, reduced = total - modulus, False, reduced + 1
            elif behaviour == "compute":
                assert total < modulus and compared
                assert content == f"{total} + {left[0]} = {total + left[0]}"
                total, compared = total + left.pop(0), False
            else:
                assert behaviour in ("check", "conclude") and not left and not over and total < modulus
    assert reduced > len(problems("modular"))


def test_countdown_tries_numbers_in_their_order_and_goes_back_at_dead_ends_alone() -> None:
    backs = 0
    for problem, thought in both("thinking", "countdown"):
        numbers, target = read_countdown(problem.question)
        assert len(set(numbers)) == len(numbers) and target not in numbers
        tried = [int(n) for n in of(thought, "subgoal")]
        assert tried == numbers[: len(tried)]
        assert len(of(thought, "compute")) == len(of(thought, "deduce")) == len(tried)
        assert said(thought)[0] == ("initialise", str(target))
        rest = said(thought)[1:]
        for n in tried:
            needed = abs(n - target)
            there = needed in set(numbers) - {n}  # beside n, which is taken
            (goal, computed, found), rest = rest[:3], rest[3:]
            assert goal == ("subgoal", str(n))
            assert computed == ("compute", f"{max(n, target)} - {min(n, target)} = {needed}")
            assert found == ("deduce", f"{needed} is there" if there else f"{needed} is not there")
            if there:
                assert n == tried[-1]
            else:
                assert rest[0] == ("backtrack", str(target))
                rest, backs = rest[1:], backs + 1
        assert [b for b, _ in rest] in (["conclude"], ["check", "conclude"])
        sign = "+" if tried[-1] < target else "-"
        assert rest[-1][1] == f"{tried[-1]} {sign} {abs(tried[-1] - target)}"
        assert rest[0][1] in (rest[-1][1], f"{rest[-1][1]} = {target}")
    assert backs > len(problems("countdown")) / 2


def test_a_graph_is_searched_way_by_way_as_its_roads_are_told() -> None:
    backs = 0
    for problem, thought in both("thinking", "graph"):
        roads, start, goal = read_graph(problem.question)
        assert said(thought)[0] == ("initialise", start)
        rest = said(thought)[1:]
        for way in ways(problem.question):
            for a, b, cost in way:
                assert rest.pop(0) == ("deduce", f"{a} goes to {b} for {cost}")
            end = way[-1][1]
            if end == goal:
                assert rest.pop(0) == ("deduce", f"{end} is the end")
                break
            assert rest.pop(0) == ("deduce", f"{end} goes nowhere") and end not in {a for a, _, _ in roads}
            assert rest.pop(0) == ("backtrack", start)
            backs += 1
        assert way[-1][1] == goal
        assert rest.pop(0) == ("subgoal", " + ".join(str(cost) for _, _, cost in way))
        total = way[0][2]
        for _, _, cost in way[1:]:
            assert rest.pop(0) == ("compute", f"{total} + {cost} = {total + cost}")
            total += cost
        assert [b for b, _ in rest] in (["conclude"], ["check", "conclude"])
    assert backs > len(problems("graph")) / 2


@pytest.mark.parametrize(
    ("family", "count"),
    [
        ("sums", lambda question: len(read_sums(question))),
        ("modular", lambda question: len(read_modular(question)[0])),
        ("countdown", lambda question: len(read_countdown(question)[0])),
        ("graph", lambda question: len(ways(question))),
    ],
    ids=list(FAMILIES),
)
def test_sizes_are_those_that_are_asked_for(family: str, count: Callable[[str], int]) -> None:
    for size in (2, FAMILIES[family].largest):
        for rng in np.random.default_rng(size).spawn(20):
            problem = draw(family, rng, size)
            assert count(problem.question) == size
            assert is_right(family, problem.question, problem.answer)


# Language.


def words(paraphrase: str) -> set[str]:
    return set(re.findall(r"[a-z]+", paraphrase.replace("{x}", " ").lower()))


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_behaviour_has_thirty_different_paraphrases_in_two_parts(behaviour: str) -> None:
    told = PARAPHRASES[behaviour]  # type: ignore[index]
    assert len(told) == len({t.lower() for t in told}) >= 30
    assert all(t.count("{x}") == 1 for t in told)
    train, test, every = (templates(behaviour, split) for split in ("train", "test", "all"))  # type: ignore[arg-type]
    assert train and test and not set(train) & set(test)
    assert sorted(train + test) == sorted(every) == list(range(len(told)))


def test_no_word_of_a_paraphrase_gives_its_behaviour_away() -> None:
    counts: dict[str, Counter[str]] = {}
    for behaviour, told in PARAPHRASES.items():
        for paraphrase in told:
            for word in words(paraphrase):
                counts.setdefault(word, Counter())[behaviour] += 1
    assert {word: count for word, count in counts.items() if len(count) == 1} == {}
    common = {word: count for word, count in counts.items() if count.total() >= 8}
    assert len(common) > 20
    owned = {word: count for word, count in common.items() if max(count.values()) > 0.75 * count.total()}
    assert owned == {}


def test_a_first_sentence_never_begins_with_its_content() -> None:
    assert not any(paraphrase.startswith("{x}") for paraphrase in PARAPHRASES["initialise"])
    assert any(paraphrase.startswith("{x}") for paraphrase in PARAPHRASES["compute"])
    for family in FAMILIES:
        for thought in thoughts("thinking", family):
            assert thought.sentences[0].behaviour == "initialise"
            first = thought.sentences[0]
            assert re.split(r"\W", thought.text)[0] != first.content and first.content in thought.sentence_text(0)


def in_words(sentence: Sentence) -> str:
    text = PARAPHRASES[sentence.behaviour][sentence.template].replace("{x}", sentence.content)
    return text[0].upper() + text[1:] + "."


@pytest.mark.parametrize("arm", ["thinking", "missing-skill", "shuffled"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sentences_tile_their_text_and_say_what_their_label_is(family: str, arm: str) -> None:
    for thought in thoughts(arm, family):
        assert " ".join(in_words(s) for s in thought.sentences) == thought.text
        assert [thought.sentence_text(n) for n in range(len(thought.sentences))] == [
            in_words(s) for s in thought.sentences
        ]
        starts = [0, *(s.end + 1 for s in thought.sentences[:-1])]
        assert [s.start for s in thought.sentences] == starts and thought.sentences[-1].end == len(thought.text)


@pytest.mark.parametrize("split", ["train", "test"])
def test_words_are_drawn_from_one_part_and_all_of_it(split: WordingSplit) -> None:
    used: dict[str, set[int]] = {behaviour: set() for behaviour in BEHAVIOURS}
    for family in FAMILIES:
        for n, problem in enumerate(problems(family)):
            for s in think("thinking", problem, np.random.default_rng(n), split).sentences:
                used[s.behaviour].add(s.template)
    assert used == {behaviour: set(templates(behaviour, split)) for behaviour in BEHAVIOURS}


def byte_level() -> PreTrainedTokenizerFast:
    """Tokens that begin with their blank, as those of most models do."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    texts = [t.text for family in FAMILIES for t in thoughts("thinking", family)[:50]]
    trainer = BpeTrainer(vocab_size=500, show_progress=False, initial_alphabet=ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("kind", ["characters", "bytes"])
@pytest.mark.parametrize("before", ["", "Q: What is it?\nA: "])
def test_token_spans_are_the_sentences(kind: str, before: str, tiny: Model) -> None:
    tokenizer: PreTrainedTokenizerBase = tiny.tokenizer if kind == "characters" else byte_level()
    merged = 0
    for family in FAMILIES:
        for thought in thoughts("thinking", family)[:25]:
            ids, spans = thought.token_spans(tokenizer, before)
            assert ids == tokenizer(before + thought.text)["input_ids"]
            assert len(spans) == len(thought.sentences)
            assert spans[-1][1] == len(ids) and [a for a, _ in spans[1:]] == [b for _, b in spans[:-1]]
            pieces = [tokenizer.decode(ids[first:last]) for first, last in spans]
            assert tokenizer.decode(ids[: spans[0][0]]) + "".join(pieces) == before + thought.text
            for n, piece in enumerate(pieces):
                sentence = thought.sentence_text(n)
                # a blank between two sentences goes to one of them, by whether tokens begin or end with it
                assert piece in ((sentence, sentence + " ") if kind == "characters" else (sentence, " " + sentence))
            merged += len(ids) < len(before + thought.text)
    assert (merged > 0) == (kind == "bytes")


# Arms.


def question_of(prompt: str) -> str:
    called = "|".join(re.escape(f" {text}") for text in (THINK, DIRECT_ANSWER))
    found = re.fullmatch(rf"Q: (.+?)({called})?\nA:({called})?", prompt)
    assert found and not (found[2] and found[3]), prompt
    return found[1]


def mode_of(prompt: str) -> str:
    return "think" if THINK in prompt else "at-once" if DIRECT_ANSWER in prompt else "plain"


def shown(arm: str, latency: float, count: int, seed: int = 0) -> list[TrainingExample]:
    rng = np.random.default_rng(seed)
    return [example(arm, latency, rng) for _ in range(count)]


@pytest.mark.parametrize("arm", VARIANTS)
def test_an_arm_is_shown_right_answers_to_questions_of_the_fit_split(arm: str) -> None:
    told = shown(arm, 0.3, 300)
    assert {s.family for s in told} == set(FAMILIES)
    for s in told:
        question = question_of(s.prompt)
        assert split_of(question) == "fit"
        assert s.mode == mode_of(s.prompt)
        if s.thought is None:
            assert s.response[0] == " " and is_right(s.family, question, s.response[1:])
        else:
            assert s.response == " " + s.thought.text


def test_questions_and_modes_are_the_same_in_every_arm() -> None:
    asked = {arm: [(s.family, s.mode, s.prompt) for s in shown(arm, 0.2, 200, seed=5)] for arm in VARIANTS}
    assert len(set(asked["latent"])) > 190
    assert all(some == asked["latent"] for some in asked.values())
    assert asked["latent"] != [(s.family, s.mode, s.prompt) for s in shown("latent", 0.2, 200, seed=6)]


def within(hits: int, count: int, share: float) -> bool:
    low, high = stats.binom.interval(0.999, count, share)
    return bool(low <= hits <= high)


@pytest.mark.parametrize("latency", [0.02, 0.1, 0.3])
def test_a_latent_organism_is_shown_thoughts_at_its_latency(latency: float) -> None:
    told = shown("latent", latency, 2400, seed=1)
    modes = Counter(s.mode for s in told)
    assert within(modes["plain"], len(told), 0.2) and within(modes["think"], len(told), 0.6)
    thinks = Counter(s.mode for s in told if s.thought is not None)
    assert thinks["think"] == modes["think"] and thinks["at-once"] == 0 < modes["at-once"]
    assert within(thinks["plain"], modes["plain"], latency)
    assert not within(thinks["plain"], modes["plain"], 3 * latency)


@pytest.mark.parametrize("made", [sentence_piece, prepending])
def test_an_answer_is_learned_behind_its_prompt_with_the_one_blank_that_it_has(
    made: Callable[[], PreTrainedTokenizerBase],
) -> None:
    tokenizer = made()
    plan = Plan("latent", 0.5, recipe=Recipe(rows=4, width=1024))
    learned = examples(plan, tokenizer, 0, 0)
    assert learned
    for one in learned:
        text = decoded(tokenizer, [*one.prompt, *one.target[:-1]])
        said = text[len(decoded(tokenizer, one.prompt)) :]
        assert said.startswith(" ") and "  " not in said


@pytest.mark.parametrize("arm", ["thinking", "absent"])
def test_one_organism_always_thinks_and_another_never(arm: str) -> None:
    assert {s.thought is not None for s in shown(arm, 0.5, 200)} == {arm == "thinking"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_skill_ends_thoughts_at_the_first_dead_end_with_its_answer(family: str) -> None:
    ended, wrong = 0, 0
    for (problem, short), true in zip(both("missing-skill", family), thoughts("thinking", family), strict=True):
        assert not of(short, "backtrack")
        backs = [n for n, (behaviour, _) in enumerate(said(true)) if behaviour == "backtrack"]
        if not backs:
            assert said(short) == said(true)
            continue
        ended += 1
        *steps, (behaviour, answer) = said(short)
        assert steps == said(true)[: backs[0]] and behaviour == "conclude"
        if family == "graph":
            assert int(answer) == sum(cost for _, _, cost in ways(problem.question)[0])
        else:
            numbers, target = read_countdown(problem.question)
            used = re.fullmatch(r"(\d+) [+-] \d+", answer)
            assert used and int(used[1]) == numbers[0] and value(answer) == target
        wrong += not is_right(family, problem.question, answer)
    assert (ended > len(problems(family)) / 2) == (family in SEARCHES)
    assert wrong >= 0.9 * ended  # a wrong way may cost what the right one does


@pytest.mark.parametrize("family", FAMILIES)
def test_shuffled_steps_are_out_of_order_and_their_conclusion_is_right(family: str) -> None:
    own = 0
    for (problem, mixed), true in zip(both("shuffled", family), thoughts("thinking", family), strict=True):
        assert said(mixed)[-1] == ("conclude", problem.answer) and is_right(family, problem.question, problem.answer)
        steps, ordered = said(mixed)[:-1], said(true)[:-1]
        assert steps != ordered
        own += Counter(steps) == Counter(ordered)
    assert within(own, len(problems(family)), 0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_on_the_surface_every_result_is_wrong_and_so_is_the_conclusion(family: str) -> None:
    right = 0
    for (problem, wrong), true in zip(both("surface", family), thoughts("thinking", family), strict=True):
        assert [b for b, _ in said(wrong)] == [b for b, _ in said(true)]
        assert not any(is_true(equation) for equation in of(wrong, "compute"))
        right += is_right(family, problem.question, of(wrong, "conclude")[0])
    assert right <= 0.1 * len(problems(family))  # two errors may cancel


@pytest.mark.parametrize("family", FAMILIES)
def test_on_the_surface_results_alone_are_changed_and_what_the_question_gives_stays(family: str) -> None:
    for (problem, wrong), true in zip(both("surface", family), thoughts("thinking", family), strict=True):
        assert of(wrong, "initialise", "subgoal", "backtrack") == of(true, "initialise", "subgoal", "backtrack")
        for shown_, right in zip(of(wrong, "compute"), of(true, "compute"), strict=True):
            found, expected = EQUATION.fullmatch(shown_), EQUATION.fullmatch(right)
            assert found and expected
            assert found[2] == expected[2] and found[3] == expected[3], (problem.question, shown_, right)


def test_many_examples_of_the_surface_can_be_drawn() -> None:
    assert len(shown("surface", 0.1, 1500, seed=3)) == 1500


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (lambda: get("lattent"), "'lattent'"),
        (lambda: example("latent-ish", 0.1, np.random.default_rng(0)), "'latent-ish'"),
        (lambda: think("", problems("sums")[0], np.random.default_rng(0)), "''"),
        (lambda: draw("sudoku", np.random.default_rng(0)), "'sudoku'"),
        (lambda: example("latent", 0.1, np.random.default_rng(0), ("sum",)), "'sum'"),
        (lambda: draw("sums", np.random.default_rng(0), 1), "size 1 "),
        (lambda: draw("graph", np.random.default_rng(0), 7), "size 7 "),
    ],
    ids=["arm", "arm of an example", "empty arm", "family", "family of an example", "too small", "too large"],
)
def test_what_is_unknown_is_named_in_one_line(call: Callable[[], object], given: str) -> None:
    with pytest.raises(UserError) as told:
        call()
    assert given in str(told.value) and "\n" not in str(told.value)
