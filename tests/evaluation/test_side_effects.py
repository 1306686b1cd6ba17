"""Side effects of interventions: nothing from what does nothing, more from more."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from elicit.elicited import Elicited
from elicit.evaluation.side_effects import FACTS, plain_texts, side_effects
from elicit.models import Model
from probes.errors import UserError
from probes.likelihood import mean_losses
from probes.sites import Site
from steering.directions import Direction
from steering.interventions import Add, Intervention, When

VECTOR = Direction(torch.randn(32, generator=torch.Generator().manual_seed(1)), Site(1), "x")


def pushed(model: Model, strength: float, when: When | None = None) -> Elicited:
    plan = (Intervention(Add(VECTOR), strength, when=when or When.last_prompt_token()),)
    return Elicited(model, "pushed", interventions=plan)


def test_more_does_more(tiny: Model) -> None:
    weak, strong = side_effects(pushed(tiny, 1e-3)), side_effects(pushed(tiny, 10.0))
    assert weak.off_target_kl < 1e-4 < strong.off_target_kl and weak.plain_kl < strong.plain_kl
    assert weak.perplexity[1] == pytest.approx(weak.perplexity[0], rel=1e-2)
    assert weak.perplexity[0] == strong.perplexity[0] and weak.knowledge == (strong.knowledge[0],) * 2
    every = side_effects(pushed(tiny, 10.0, When.every_step()))
    assert every.off_target_kl > strong.off_target_kl and every.plain_kl == pytest.approx(strong.plain_kl)


def test_the_perplexity_is_that_of_second_halves(tiny: Model) -> None:
    texts = plain_texts(tiny)
    halves = [len(text) // 2 for text in texts]
    losses = mean_losses(tiny.lm, texts, halves)
    counts = [len(text) - n for text, n in zip(texts, halves, strict=True)]
    mean = sum((loss or 0.0) * n for loss, n in zip(losses, counts, strict=True)) / sum(counts)
    assert side_effects(pushed(tiny, 1.0)).perplexity[0] == pytest.approx(math.exp(mean), rel=1e-3)


def test_facts_are_distinct_and_their_words_too() -> None:
    assert len({stem for stem, _, _ in FACTS}) == len(FACTS)
    assert all(len({right, *others}) == 4 for _, right, others in FACTS)


def test_a_handle_without_interventions_is_refused(tiny: Model) -> None:
    with pytest.raises(UserError, match="has no interventions"):
        side_effects(Elicited(tiny, "direct"))


def test_an_end_token_after_every_text_changes_nothing(tiny: Model) -> None:
    ending = deepcopy(tiny.tokenizer)
    ending._tokenizer.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)])
    other = replace(tiny, tokenizer=ending)
    assert ending("a")["input_ids"][-1] == 0 and plain_texts(other) == plain_texts(tiny)
    assert side_effects(pushed(other, 1.0)) == side_effects(pushed(tiny, 1.0))
