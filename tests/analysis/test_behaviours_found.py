"""Scores of discovered behaviours: against worked numbers, the truth itself, chance; what a probe never sees."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from elicit.analysis.organisms import behaviour_bench, behaviour_scores
from elicit.analysis.organisms.behaviour_bench import bench, discover, folds
from elicit.analysis.organisms.behaviour_scores import Corpus, conditional, corpus, covered, score
from elicit.models import Model
from elicit.tasks.base import split_of
from elicit.tasks.organism.language import BEHAVIOURS, PARAPHRASES, templates
from elicit.tasks.organism.problems import FAMILIES, draw
from elicit.training.organisms.variants import think
from probes.errors import UserError
from probes.sites import Site
from steering.categories.sentences import read

RNG = np.random.default_rng(0)


class Slow(PreTrainedTokenizerBase):
    is_fast = False


@pytest.fixture(scope="module")
def ending(tiny: Model) -> PreTrainedTokenizerBase:
    """The tokenizer, but with an end token after every text."""
    out = deepcopy(tiny.tokenizer)
    out._tokenizer.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)])
    return out


@pytest.fixture(scope="module")
def thoughts(tiny: Model) -> Corpus:
    return corpus(tiny.tokenizer, 80)


@pytest.fixture(scope="module")
def values(tiny: Model, thoughts: Corpus) -> np.ndarray:
    return behaviour_bench.features(tiny.lm, thoughts, 1)


def test_perfect_labels_under_any_names(thoughts: Corpus) -> None:
    truth = thoughts.truth
    assert set(truth) == set(BEHAVIOURS)
    numbers = {b: n for n, b in enumerate(reversed(BEHAVIOURS))}
    for found in (truth, np.array([numbers[b] for b in truth]), [(b, 1) for b in truth]):
        assert score(found, truth) == pytest.approx((1.0, 1.0, 1.0))


def test_random_labels_are_near_0(thoughts: Corpus) -> None:
    found = RNG.integers(7, size=len(thoughts.sentences))
    assert abs(score(found, thoughts.truth).ami) < 0.05
    low_high = [
        behaviour_scores.interval(RNG.integers(7, size=len(found)), thoughts.truth, thoughts.items) for _ in range(5)
    ]
    assert sum(i.low < 0 < i.high for i in low_high) >= 4


def test_a_matching_worked_by_hand() -> None:
    """F1 is 8/14 and 6/10 for x, 6/10 and 0 for y: y must have a, so that x gets b, though x is mostly a."""
    found, truth = ["x"] * 7 + ["y"] * 3, ["a"] * 4 + ["b"] * 3 + ["a"] * 3
    assert score(found, truth).macro_f1 == pytest.approx(0.6)
    # One cluster: F1 is 14/17 for a; b is left out and counts 0.
    assert score(["x"] * 10, truth).macro_f1 == pytest.approx(14 / 17 / 2)
    assert score(["x"] * 10, truth).ami == 0
    # More clusters than behaviours: x and z share a; x, the larger part (F1 8/10 against 4/8), is matched.
    assert score(list("xxxzzyyy"), list("aaaaabbb")).macro_f1 == pytest.approx((6 / 8 + 1) / 2)


def test_agreement_by_its_definition() -> None:
    """AMI = (MI − E MI) / (mean H − E MI), with E MI over all permutations of a small case; V = MI / mean H."""
    found, truth = [0, 0, 1, 1, 1, 2], list("aabbab")

    def entropy(labels: list) -> float:
        p = np.array(list(Counter(labels).values())) / len(labels)
        return float(-(p * np.log(p)).sum())

    def mutual(a: list, b: list) -> float:
        return entropy(a) + entropy(b) - entropy(list(zip(a, b, strict=True)))

    expected = np.mean([mutual(found, list(p)) for p in permutations(truth)])
    mean = (entropy(found) + entropy(truth)) / 2
    result = score(found, truth)
    assert result.ami == pytest.approx((mutual(found, truth) - expected) / (mean - expected))
    assert result.v_measure == pytest.approx(mutual(found, truth) / mean)


def test_merging_two_behaviours_costs_what_it_must(thoughts: Corpus) -> None:
    truth = thoughts.truth
    n = Counter(truth)
    merged = ["deduce" if b == "subgoal" else b for b in truth]
    large, small = n["deduce"], n["subgoal"]
    assert large > small
    expected = (len(n) - 2 + 2 * large / (2 * large + small)) / len(n)
    assert score(merged, truth).macro_f1 == pytest.approx(expected)


def test_within_equal_wording_the_wording_says_nothing(thoughts: Corpus) -> None:
    strata = thoughts.strata
    truth, wording = thoughts.truth, strata["wording"]
    kept = covered(truth, wording)
    assert kept and all(len(rows) >= 10 and len({wording[i] for i in rows}) == 1 for rows in kept)
    assert all(len({truth[i] for i in rows}) > 1 for rows in kept)
    assert score(wording, truth).ami > 0.3
    assert conditional(wording, truth, wording) == pytest.approx(0)
    assert conditional(truth, truth, wording) == pytest.approx(1)
    assert set(strata["position"]) == set(range(5))
    assert conditional(strata["position"], truth, strata["position"]) == pytest.approx(0)


def test_forms_by_hand(thoughts: Corpus) -> None:
    one = thoughts.sentences[0]
    for content, form in (
        ("12 + 5 = 17", "0 + 0 = 0"),
        ("7 is not there", "0 is not there"),
        ("Q goes to A for 9", "P goes to P for 0"),
        ("B goes nowhere", "P goes nowhere"),
        ("Z", "P"),
        ("40", "0"),
        ("- 8", "- 0"),
    ):
        assert replace(one, content=content).form == form
    said: dict[str, set[str]] = {}
    for s in thoughts.sentences:
        assert s.wording.replace("{x}", s.content).lower() + "." == s.text.lower()
        said.setdefault(s.form, set()).add(s.behaviour)
    assert thoughts.strata["form"] == [s.form for s in thoughts.sentences]
    # What is left to tell apart where the form is equal.
    assert said["0 + 0 = 0"] == said["0 - 0 = 0"] == {"compute", "check"}
    assert said["0"] == {"initialise", "subgoal", "backtrack", "conclude"}
    assert said["0 + 0"] == {"subgoal", "conclude"} and said["P"] == {"initialise", "backtrack"}
    assert sum(len(behaviours) > 1 for behaviours in said.values()) == 5
    forms = thoughts.strata["form"]
    assert score(forms, thoughts.truth).ami > 0.3
    assert conditional(forms, thoughts.truth, forms) == pytest.approx(0)
    assert conditional(thoughts.truth, thoughts.truth, forms) == pytest.approx(1)


def test_conditional_by_hand() -> None:
    """Of four strata one is too small and one has one behaviour; the others score 1 and 0, of 12 and 24 sentences."""
    sizes = {"right": 12, "blind": 24, "small": 8, "single": 20}
    strata = [name for name, size in sizes.items() for _ in range(size)]
    truth = ["a" if s == "single" or i % 2 else "b" for i, s in enumerate(strata)]
    found = [t if s == "right" else "x" for t, s in zip(truth, strata, strict=True)]
    assert sum(map(len, covered(truth, strata))) == 36
    assert conditional(found, truth, strata) == pytest.approx(12 / 36)
    assert conditional(found[-28:], truth[-28:], strata[-28:]) is None


def test_sentences_lie_where_their_tokens_are(tiny: Model, thoughts: Corpus) -> None:
    seen: list[int] = []
    for s in thoughts.sentences:
        ids = thoughts.texts[s.item]
        assert thoughts.lengths[s.item] <= s.first < s.last <= len(ids)
        assert tiny.tokenizer.decode(ids[s.first : s.last]).strip() == s.text
        before, after = s.wording.lower().split("{x}")
        assert s.text.lower().startswith(before) and s.text.lower().endswith(after + ".")
        assert s.wording in PARAPHRASES[s.behaviour] and 0 <= s.relative <= 1
        seen.append(s.item)
        last = s.position == thoughts.items.tolist().count(s.item) - 1
        assert (s.relative == 1) == last and (s.relative == 0) == (s.position == 0)
        assert not last or s.last == len(ids)
    assert seen == sorted(seen) and set(seen) == set(range(80))
    for ids, length in zip(thoughts.texts, thoughts.lengths, strict=True):
        prompt = tiny.tokenizer.decode(ids[:length])
        assert prompt.startswith("Q: ") and prompt.endswith("\nA:")
        assert split_of(prompt[3:-3]) == "test"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_appended_end_token_is_in_no_span(tiny: Model, ending: PreTrainedTokenizerBase, family: str) -> None:
    thought = think("thinking", draw(family, np.random.default_rng(1)), np.random.default_rng(2))
    plain, spans = thought.token_spans(tiny.tokenizer, "Q: What?\nA: ")
    ids, found = thought.token_spans(ending, "Q: What?\nA: ")
    assert ids == [*plain, 0] and found == spans
    assert found[-1][1] == len(ids) - 1
    assert ending.decode(ids[slice(*found[-1])]) == thought.sentence_text(len(found) - 1)


def test_a_corpus_by_family_and_part(tiny: Model) -> None:
    few = corpus(tiny.tokenizer, 6, families=["graph", "sums"], split="test")
    assert [next(s.family for s in few.sentences if s.item == i) for i in range(6)] == ["graph", "sums"] * 3
    for s in few.sentences:
        assert s.wording in [PARAPHRASES[s.behaviour][t] for t in templates(s.behaviour, "test")]
    assert behaviour_bench.held_out(few) == list(range(len(few.sentences)))
    assert corpus(tiny.tokenizer, 4, families=["graph", "sums"], split="test").texts == few.texts[:4]
    assert corpus(tiny.tokenizer, 6, families=["graph", "sums"], split="test", seed=1).texts != few.texts
    never = corpus(tiny.tokenizer, 6, arm="missing-skill", families=["countdown"])
    assert "backtrack" not in never.truth


def test_features_are_the_stream_over_a_sentence(tiny: Model, thoughts: Corpus, values: np.ndarray) -> None:
    for i in (0, 7, len(thoughts.sentences) - 1):
        s = thoughts.sentences[i]
        with torch.inference_mode():
            hidden = tiny.lm(input_ids=torch.tensor([thoughts.texts[s.item]]), output_hidden_states=True).hidden_states
        expected = hidden[2][0, s.first : s.last].mean(0).numpy()
        assert values[i] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    few = Corpus(thoughts.texts[:7], thoughts.lengths[:7], [s for s in thoughts.sentences if s.item < 7], "all")
    again = read(tiny.lm, few.texts, few.lengths, few.spans, [Site(1)], chunk=3)[Site(1), "mean"].numpy()
    assert again == pytest.approx(values[: len(again)], rel=1e-3, abs=1e-3)


def test_an_untrained_model_has_other_weights_of_the_same_shapes(tiny: Model) -> None:
    state = torch.random.get_rng_state()
    fresh, again = behaviour_bench.untrained(tiny.lm), behaviour_bench.untrained(tiny.lm)
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = zip(tiny.lm.parameters(), fresh.parameters(), again.parameters(), strict=True)
    for trained, a, b in pairs:
        assert trained.shape == a.shape and trained.dtype == a.dtype and torch.equal(a, b)
        assert trained.ndim == 1 or not torch.equal(trained, a)
    assert not fresh.training


def test_clusters_are_found_where_they_are() -> None:
    truth = RNG.integers(4, size=200)
    points = RNG.normal(size=(4, 40))[truth] * 5 + RNG.normal(size=(200, 40))
    names = [str(t) for t in truth]
    assert score(discover(points * 10.0 ** np.arange(-20, 20), 4), names).ami == pytest.approx(1)
    assert set(discover(points, 4, seed=1).tolist()) == set(range(4))
    assert (discover(points, 4, seed=1) == discover(points, 4, seed=1)).all()


def test_a_probe_sees_neither_thought_nor_paraphrase(
    thoughts: Corpus, values: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = folds(thoughts, seed=3)
    for fit, scored in both:
        fitted, held = [[thoughts.sentences[i] for i in rows] for rows in (fit, scored)]
        assert not {s.item for s in fitted} & {s.item for s in held}
        assert not {s.wording for s in fitted} & {s.wording for s in held}
        assert abs(len({s.item for s in fitted}) - 40) <= 1
    assert sorted(both[0][1] + both[1][1]) == behaviour_bench.held_out(thoughts)
    # Neither the labels of what is scored nor anything else that was not fitted reaches a prediction.
    fit, scored = both[0]
    changed, others = values.copy(), list(thoughts.sentences)
    for i in set(range(len(values))) - set(fit):
        others[i] = replace(others[i], behaviour="check")
        if i not in scored:
            changed[i] = 1e6
    said = dict(zip(*behaviour_bench.supervised(values, thoughts, seed=3), strict=True))
    monkeypatch.setattr(behaviour_bench, "folds", lambda *_: [(fit, scored)])
    again = behaviour_bench.supervised(changed, replace(thoughts, sentences=others), seed=3)
    assert again.scored == scored and again.predictions == [said[i] for i in scored]


def test_supervised_beats_chance(thoughts: Corpus, values: np.ndarray) -> None:
    for held in (behaviour_bench.supervised(values, thoughts), behaviour_bench.supervised_words(thoughts)):
        truth = [thoughts.sentences[i].behaviour for i in held.scored]
        often = Counter(truth).most_common(1)[0][1] / len(truth)
        right = np.mean([a == b for a, b in zip(held.predictions, truth, strict=True)])
        assert right > often + 0.1
        assert score(held.predictions, truth).ami > 0.1
    shuffled = behaviour_bench.supervised(RNG.permutation(values), thoughts)
    assert abs(score(shuffled.predictions, [thoughts.sentences[i].behaviour for i in shuffled.scored]).ami) < 0.05


def test_the_bootstrap_draws_whole_thoughts(thoughts: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    items = thoughts.items
    drawn: list[np.ndarray] = []
    plain = behaviour_scores.ami

    def kept(found: np.ndarray, truth: np.ndarray) -> float:
        drawn.append(found)
        return plain(found, truth)

    monkeypatch.setattr(behaviour_scores, "ami", kept)
    behaviour_scores.interval(np.arange(len(items)), thoughts.truth, items, resamples=20)
    drawn = [d for d in drawn if len(set(d.tolist())) < len(items)]
    assert len(drawn) == 20
    for found in drawn:
        times = np.bincount(found, minlength=len(items))
        for item in range(80):
            assert len(set(times[items == item].tolist())) == 1
        assert sum(times[items == item][0] for item in range(80)) == 80


def test_thoughts_that_are_wrong_as_a_whole_widen_the_interval(thoughts: Corpus) -> None:
    truth, items = thoughts.truth, thoughts.items
    whole = [t if item % 2 else "x" for t, item in zip(truth, items, strict=True)]
    single = [t if i % 2 else "x" for i, t in enumerate(truth)]
    a, b = [behaviour_scores.interval(found, truth, items) for found in (whole, single)]
    assert a.high - a.low > 1.5 * (b.high - b.low)
    assert a.low < score(whole, truth).ami < a.high
    sure = behaviour_scores.interval(truth, truth, items)
    assert sure.low == pytest.approx(1) and sure.high == pytest.approx(1)


def test_the_bench_has_a_row_a_method(tiny: Model, thoughts: Corpus, values: np.ndarray) -> None:
    rows = {row["method"]: row for row in bench(tiny.lm, thoughts, 1, resamples=20)}
    assert len(rows) == 8
    held = behaviour_bench.held_out(thoughts)
    for name, row in rows.items():
        assert row["n"] == (len(held) if name.startswith("supervised") else len(thoughts.sentences))
        assert row["interval"][0] - 0.05 < row["ami"] < row["interval"][1] + 0.05
        assert 0 <= row["macro_f1"] <= 1 and 0 <= row["v_measure"] <= 1
        assert all(row[f"{name}_n"] <= row["n"] for name in ("wording", "position", "form"))
    assert abs(rows["random labels"]["ami"]) < 0.05
    form = rows["form of the content"]
    assert form["ami"] > 0.3 and form["form"] == pytest.approx(0)
    assert form["form_n"] == sum(map(len, covered(thoughts.truth, thoughts.strata["form"])))
    assert rows["supervised probe"]["ami"] == pytest.approx(rows["supervised probe"]["ami_held_out"])
    assert rows["k-means on activations"] == behaviour_bench.score_discovered(
        discover(values, 7), thoughts, method="k-means on activations", resamples=20
    )
    shown = behaviour_bench.rows_of(list(rows.values()))
    assert all(len(row) == len(behaviour_bench.HEAD) for row in shown)
    assert tuple(thoughts.strata) == behaviour_bench.STRATA
    place = list(rows).index("random labels")
    for column, name in enumerate(behaviour_bench.STRATA, 4):
        assert name in behaviour_bench.HEAD[column]
        assert f"({rows['random labels'][f'{name}_n']})" in shown[place][column]
    partly = corpus(tiny.tokenizer, 12, split="train")
    rows = {row["method"]: row for row in bench(tiny.lm, partly, 1, clusters=3, resamples=5)}
    assert len(rows) == 6 and all(row["ami_held_out"] is None for row in rows.values())
    assert behaviour_bench.rows_of(list(rows.values()))[0][7] == "–"


def test_a_taxonomy_from_elsewhere_gets_the_same_row(thoughts: Corpus) -> None:
    row = behaviour_bench.score_discovered(thoughts.truth, thoughts, method="the truth", resamples=10)
    shares = ("ami", "macro_f1", "v_measure", "wording", "position", "form", "ami_held_out")
    assert [row[k] for k in shares] == pytest.approx([1.0] * 7)
    # As many labels as an SAE has features: nothing warns, and AMI pays for them.
    many = behaviour_bench.score_discovered(list(range(len(thoughts.sentences))), thoughts, resamples=3)
    assert many["v_measure"] > 0.3 and abs(many["ami"]) < 0.05


def test_an_end_token_after_every_text_is_left_out(tiny: Model, ending: PreTrainedTokenizerBase) -> None:
    assert corpus(ending, 4) == corpus(tiny.tokenizer, 4)


def test_what_it_refuses(tiny: Model, thoughts: Corpus, values: np.ndarray) -> None:
    fast = tiny.tokenizer
    for call, told in (
        (lambda: score([1, 2], ["a"]), "2 labels were given for 1 sentences"),
        (lambda: score([], []), "at least one"),
        (lambda: conditional([1, 2], ["a", "b"], [0]), "1 labels were given for 2"),
        (lambda: corpus(fast, 0), "0 thoughts of 4 families"),
        (lambda: corpus(fast, 1, families=[]), "of 0 families"),
        (lambda: corpus(fast, 1, families=["sum"]), "did you mean sums"),
        (lambda: corpus(fast, 1, arm="thinkin"), "did you mean thinking"),
        (lambda: corpus(Slow(), 1), "Slow tells no offsets"),
        (lambda: discover(values, 1), "1 clusters of"),
        (lambda: behaviour_bench.by_tfidf(thoughts, 10**6), "1000000 clusters"),
        (lambda: behaviour_bench.features(tiny.lm, thoughts, 9), "layer 9 was given"),
        (lambda: behaviour_bench.supervised(values[:5], thoughts), "5 rows were given"),
        (lambda: folds(corpus(fast, 8, split="train")), "split='all'"),
        (lambda: folds(corpus(fast, 8, split="test")), "split='all'"),
        (lambda: behaviour_scores.interval([1, 2], ["a", "b"], np.array([0, 0])), "1 thoughts"),
    ):
        with pytest.raises(UserError, match=told):
            call()
