"""Categories of sentences: planted ones are found, chance is 0, poolings are at the positions that they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score

from elicit.analysis.organisms.behaviour_bench import bench
from elicit.analysis.organisms.behaviour_scores import corpus
from elicit.methods.vector_transfer.category_names import cleaned, namer
from elicit.models import Model
from probes.errors import UserError
from probes.sites import Site
from steering.categories import Taxonomy, taxonomy
from steering.categories.agreement import agreement, choose
from steering.categories.agreement import rows_of as agreement_rows
from steering.categories.cards import cards, distinguishing, keyword_names, named
from steering.categories.sentences import read, texts_of, within_thoughts
from steering.categories.taxonomy import KINDS, fit
from tests.support.tiny import tiny_model

SITE = Site(1)


def planted(n: int = 600, groups: int = 6, d: int = 24, size: float = 4.0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    truth = torch.randint(groups, (n,), generator=g)
    centers = torch.linalg.qr(torch.randn(d, groups, generator=g)).Q.T * d**0.5  # none nearer to another than the rest
    return size * centers[truth] + torch.randn(n, d, generator=g) + 100.0, truth


def ami(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(adjusted_mutual_info_score(a.numpy(), b.numpy()))


@pytest.mark.parametrize("kind", KINDS)
def test_planted_categories_are_found(kind: str, tmp_path: Path) -> None:
    x, truth = planted()
    found = fit(x, kind, 6, seed=1, site=SITE, reading="first", model="m")
    assert ami(found.labels(x), truth) > 0.95
    assert found.categories == 6 and found.scores(x).shape == (600, 6)
    assert torch.equal(found.scores(x).argmax(1), found.labels(x))
    again = fit(x, kind, 6, seed=1, site=SITE, reading="first", model="m")
    assert again.digest == found.digest
    kept = Taxonomy.load(found.save(tmp_path / "t"))
    assert kept.digest == found.digest and kept.site == SITE and kept.reading == "first" and kept.made["model"] == "m"
    assert torch.equal(kept.labels(x), found.labels(x))
    # Labels hang on the activations alone, one by one.
    assert torch.equal(found.labels(x[:5]), found.labels(x)[:5])


def test_a_large_dimension_is_no_category() -> None:
    """Two halves of one dimension that is a thousand times larger than what tells the groups."""
    x, truth = planted()
    x[:, 0] = torch.randn(600, generator=torch.Generator().manual_seed(1)) * 1000
    assert ami(fit(x, "k-means", 6, site=SITE).labels(x), truth) > 0.8
    assert ami(fit(x, "k-means", 6, site=SITE, standardise=False).labels(x), truth) < 0.3
    assert not fit(x, "k-means", 6, site=SITE, reading="next").made["standardise"]
    assert fit(x, "k-means", 6, site=SITE, reading="next+first/thought").made["standardise"]


def test_full_covariances_tell_categories_apart_that_are_longer_than_they_lie_apart() -> None:
    """Of three groups each varies more along the line that they share than the groups differ."""
    g = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (900,), generator=g)
    plane = torch.linalg.qr(torch.randn(40, 2, generator=g)).Q
    along = (
        torch.stack([truth * 4.0, torch.randn(900, generator=g) * 6], dim=1) + torch.randn(900, 2, generator=g) * 0.3
    )
    x = along @ plane.T + torch.randn(900, 40, generator=g) * 0.05
    labels = {k: KINDS[k].scores(x, KINDS[k].fit(x, 3, 0)).argmax(1) for k in ("k-means", "full-gmm")}
    assert ami(labels["full-gmm"], truth) > ami(labels["k-means"], truth) + 0.3


def test_an_sae_is_what_its_equation_says() -> None:
    x, _ = planted()
    found = fit(x, "topk-sae", 6, site=SITE)
    p, z = found.parameters, found.normalised(x)
    torch.testing.assert_close(p["decoder"].norm(dim=1), torch.ones(6))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(600))
    top = found.scores(x).topk(3, dim=1)
    rebuilt = torch.einsum("nk,nkd->nd", top.values, p["decoder"][top.indices]) + p["b_dec"]
    assert float((rebuilt - z).square().sum() / (z - z.mean(0)).square().sum()) < 0.5


@pytest.mark.parametrize("kind", ["k-means", "spherical-k-means", "gmm"])
def test_held_out_agreement_prefers_what_was_planted(kind: str) -> None:
    x, _ = planted(groups=4, size=2.0)
    text = torch.arange(600) // 10
    rows = choose({SITE: x}, text, [kind], [3, 4, 8], splits=2)
    assert rows[0].n == 4 and rows[0].held_out > 0.9 and rows[0].stability > 0.9
    assert rows[0].smallest > 0.1 and rows[0].spread < 0.2
    assert [len(row) for row in agreement_rows(rows)] == [6, 6, 6]


def test_agreement_on_noise_is_near_0_and_whole_texts_are_split() -> None:
    x = torch.randn(900, 32, generator=torch.Generator().manual_seed(0))
    text = torch.arange(900) // 10
    for kind in ("k-means", "topk-sae"):
        assert abs(agreement(x, text, kind, 6, site=SITE, splits=2).held_out) < 0.1
    # Three latents at work share a sentence, so an SAE finds the planted number less surely than centres do.
    assert agreement(planted()[0], torch.arange(600) // 10, "topk-sae", 6, site=SITE, splits=2).held_out > 0.4
    # Categories that are the texts themselves: another half of the texts has none of them.
    own = torch.eye(90)[text] * 20 + torch.randn(900, 90, generator=torch.Generator().manual_seed(1)) * 0.1
    assert agreement(own, text, "k-means", 20, site=SITE, splits=1).held_out < 0.3


TEXTS = [[5, 9, 3, 20, 21, 22, 23, 24], [7, 11, 30, 31, 30, 33], [8, 12, 20, 40, 41]]
LENGTHS = [3, 2, 2]
SPANS = [[(3, 5), (5, 8)], [(2, 3), (3, 6)], [(2, 5)]]


def hidden(text: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return tiny_model("llama")(input_ids=torch.tensor([text]), output_hidden_states=True).hidden_states[2][0]


def test_readings_are_at_the_positions_that_they_say() -> None:
    lm = tiny_model("llama")
    names = ["mean", "first", "last", "chosen", "step", "mean-token", "next", "first+last", "first/thought"]
    found = read(lm, TEXTS, LENGTHS, SPANS, [SITE, Site(3)], names, chunk=2)
    got = {name: found[SITE, name] for name in names}
    h = [hidden(text) for text in TEXTS]
    flat = [(r, *span) for r, those in enumerate(SPANS) for span in those]

    def close(name: str, expected: list[torch.Tensor]) -> None:
        torch.testing.assert_close(got[name], torch.stack(expected), rtol=1e-3, atol=1e-4)

    close("mean", [h[r][a:b].mean(0) for r, a, b in flat])
    close("first", [h[r][a - 1] for r, a, b in flat])
    close("last", [h[r][b - 1] for r, a, b in flat])
    close("chosen", [h[r][a - 1 : b - 1].mean(0) for r, a, b in flat])
    close("step", [h[r][b - 1] - h[r][a - 1] for r, a, b in flat])
    close("first+last", [torch.cat([h[r][a - 1], h[r][b - 1]]) for r, a, b in flat])
    of_token: dict[int, list[torch.Tensor]] = {}
    for r, text in enumerate(TEXTS):
        for p in range(LENGTHS[r], len(text)):
            of_token.setdefault(text[p], []).append(h[r][p])
    mean = {t: torch.stack(v).mean(0) for t, v in of_token.items()}
    close(
        "mean-token",
        [torch.stack([h[r][p] - mean[TEXTS[r][p]] for p in range(a, b)]).mean(0) for r, a, b in flat],
    )
    first = got["first"]
    means = [first[:2].mean(0), first[2:4].mean(0), first[4]]
    close("first/thought", [first[i] - means[r] for i, (r, _, _) in enumerate(flat)])
    assert texts_of(SPANS).tolist() == [0, 0, 1, 1, 2]
    # At the last layer `next` is the model's own distribution, on the tokens that begin sentences.
    begins = sorted({TEXTS[r][a] for r, a, _ in flat})
    for i, (r, a, _) in enumerate(flat):
        with torch.inference_mode():
            p = lm(input_ids=torch.tensor([TEXTS[r]])).logits[0, a - 1].softmax(-1)[begins].sqrt()
        torch.testing.assert_close(found[Site(3), "next"][i], p, rtol=1e-3, atol=1e-4)


def test_within_thoughts_takes_off_what_a_thought_shares() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 0.0]])
    expected = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(within_thoughts(x, torch.tensor([7, 7, 2])), expected)


SENTENCES = ["We get 3 + 4 = 7.", "That gives 1 + 2 = 3.", "So back to 5.", "We go back to 7."] * 10


def test_cards_say_what_is_in_a_category() -> None:
    x = torch.tensor([[1.0, 0.0], [1.1, 0.0], [0.0, 1.0], [0.0, 1.2]]).repeat(10, 1)
    found = fit(x, "k-means", 2, site=SITE)
    both = cards(found, x, SENTENCES, [0.0, 0.5, 1.0, 1.0] * 10)
    back = int(found.labels(x)[2])
    assert [card.size for card in both] == [20, 20] and both[back].share == 0.5
    assert "back" in both[back].words and "=" in both[1 - back].words and "back" not in both[1 - back].words
    assert both[back].positions == (0, 0, 0, 0, 1) and both[1 - back].positions == (0.5, 0, 0.5, 0, 0)
    # The same words with other numbers are shown once.
    assert sorted(both[back].typical) == ["So back to 5.", "We go back to 7."]
    assert named(both, {back: "backtrack"})[back].name == "backtrack"
    assert [card.name for card in named(both, lambda sentences: str(len(sentences)))] == ["2", "2"]
    labels = found.labels(x).tolist()
    assert keyword_names(labels, SENTENCES, {"returns": ["back to"], "sums": ["="]}) == {
        back: "returns",
        1 - back: "sums",
    }
    tied = keyword_names(labels, SENTENCES, {"returns": ["back"], "goes": ["BACK TO"], "no": ["ack"]})
    assert tied == {back: "returns or goes", 1 - back: "none"}
    assert distinguishing([["a", "b"]] * 20, [["c", "b"]] * 20, 5) == ["a"]


def test_a_model_names_a_category(tiny: Model) -> None:
    name = namer(tiny, max_new_tokens=6)
    said = name(SENTENCES[:2])
    assert said == name(SENTENCES[:2]) == cleaned(said)
    assert cleaned('\n "They all compute the sum, of two numbers or more. Yes."') == "compute the sum of two"
    assert cleaned("**Backtracking**: going back") == "backtracking" and cleaned(" .\n") == ""


def test_the_bench_takes_kinds_and_readings(tiny: Model) -> None:
    thoughts = corpus(tiny.tokenizer, 12, split="test")
    rows = {r["method"]: r for r in bench(tiny.lm, thoughts, 1, kinds=["gmm"], poolings=["first", "mean"], resamples=2)}
    assert len(rows) == 8 and {"gmm, first", "gmm, mean"} < set(rows)
    assert rows["gmm, first"]["n"] == len(thoughts.sentences)
    for arguments, told in (({"kinds": ["gm"]}, "did you mean gmm"), ({"poolings": ["frist"]}, "did you mean first")):
        with pytest.raises(UserError, match=told):
            bench(tiny.lm, thoughts, 1, **arguments)


def test_what_it_refuses(tmp_path: Path) -> None:
    x, _ = planted(40)
    found = fit(x, "k-means", 2, site=SITE)
    lm = tiny_model("llama")
    broken = x.clone()
    broken[3, 2] = torch.nan
    text = torch.arange(40)
    for call, told in (
        (lambda: fit(x, "kmean", 2, site=SITE), "did you mean k-means"),
        (lambda: fit(x, "k-means", 1, site=SITE), "1 categories of 40"),
        (lambda: fit(x, "gmm", 41, site=SITE), "41 categories of 40"),
        (lambda: fit(x, "k-means", 2, site=SITE, reading="firts"), "did you mean first"),
        (lambda: fit(broken, "k-means", 2, site=SITE), "NaN or infinity"),
        (lambda: fit(torch.ones(9, 4), "k-means", 2, site=SITE), "nothing to tell apart"),
        (lambda: fit(x[:2].repeat(9, 1), "topk-sae", 5, site=SITE), "only 2 activations differ"),
        (lambda: fit(x[:2].repeat(9, 1), "k-means", 5, site=SITE), "fewer activations differ"),
        (lambda: fit(x[:2].repeat(9, 1), "gmm", 5, site=SITE), "fewer activations differ"),
        (lambda: fit(x[:2].repeat(9, 1), "full-gmm", 5, site=SITE), "fewer activations differ"),
        (lambda: found.labels(x[:, :5]), "width 5 were given"),
        (lambda: Taxonomy.load(tmp_path), "holds no taxonomy.json"),
        (lambda: agreement(x, text[:5], "k-means", 2, site=SITE), "5 numbers of texts"),
        (lambda: agreement(x, text * 0, "k-means", 2, site=SITE), "1 texts and 5 splits"),
        (lambda: agreement(x, text, "k-means", 20, site=SITE), "20 categories of"),
        (lambda: read(lm, TEXTS, LENGTHS, SPANS[:2], [SITE]), "3 texts, 3 lengths"),
        (lambda: read(lm, TEXTS, LENGTHS, [[], [], []], [SITE]), "no sentences were given"),
        (lambda: read(lm, TEXTS, LENGTHS, [[(2, 5)], [], []], [SITE]), r"sentence \[2, 5\) of text 0"),
        (lambda: read(lm, TEXTS, [0, 2, 2], [[(0, 5)], [], []], [SITE]), "text 0 has no prompt"),
        (lambda: cards(found, x, ["a"], [0.0]), "give one each"),
        (lambda: named([], {3: "x"}), "category 3"),
        (lambda: keyword_names([1], ["a"], {}), "keywords for 0 names"),
    ):
        with pytest.raises(UserError, match=told) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="2 names were given for 3"):
        Taxonomy(SITE, "mean", "k-means", x[0], x[0], {"centers": torch.zeros(3, 24)}, names=("a", "b"))
    assert taxonomy.TOP_K == 3 and np.isfinite(found.scores(x).numpy()).all()
