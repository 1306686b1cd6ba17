"""Quiet-STaR's loss and gradients against ten slow lines, resumed to the bit, refused."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit.decoding.mixing import MixingHead, with_rows
from elicit.models import Model
from elicit.tasks.base import Items
from elicit.training.rl.learner import learner
from elicit.training.rl.policy import Batch, hidden_states, logprobs, pieces, prefix_of
from elicit.training.rl.positions import positions
from elicit.training.rl.quiet_star import (
    STATE,
    QuietSettings,
    QuietTrained,
    Thoughts,
    _Run,
    begun_at,
    losses,
    quiet_positions,
    train_quietly,
)  # fmt: skip
from probes.batching import left_pad
from probes.errors import UserError
from probes.sites import width
from steering.storage import read_tensors
from tests.support.tiny import tiny_model

DOCUMENTS = [(5, 9, 3, 7, 11, 2, 8, 40, 17), (41, 42, 43, 44, 45, 46)]
SETTINGS = QuietSettings(
    updates=3, positions=5, group=2, thought_tokens=3, ahead=2, policy=2.0, lr=1e-2, rank=2, part=3, seed=1
)


def items_of(model: Model, ahead: int = 2) -> Items:
    kept = [[at + ahead <= len(ids) for at in range(1, len(ids))] for ids in DOCUMENTS]
    return positions(model.tokenizer, DOCUMENTS, kept)


def slow(lm: Any, head: Any, tokens: Any, places: Any, said: Any, beta: float, ahead: int) -> Any:
    """The loss of the head of the module, a forward for each text. `places`: (document, position) of each."""
    embed, project, terms = lm.get_input_embeddings(), lm.get_output_embeddings(), []
    for (d, t), thoughts in zip(places, said, strict=True):
        text, likely, chosen = torch.tensor(DOCUMENTS[d]), [], []
        plain = lm.base_model(inputs_embeds=embed(text)[None])[0][0]
        for c in map(torch.tensor, thoughts):
            parts = [embed(text[:t]), tokens[:1], embed(c), tokens[1:], embed(text[t : t + ahead - 1])]
            states, e = lm.base_model(inputs_embeds=torch.cat(parts)[None])[0][0], t + len(c) + 1
            mixed = torch.stack([head(plain[t - 1 + i], states[e + i]) for i in range(ahead)])
            likely.append(project(mixed).log_softmax(-1)[range(ahead), text[t : t + ahead]].sum())
            chosen.append(project(states[t : t + len(c)]).log_softmax(-1)[range(len(c)), c].mean())
        worth = [(one - sum(likely) / len(likely)).detach().clamp(min=0) for one in likely]
        terms += [-one / ahead - beta * r * logp for one, r, logp in zip(likely, worth, chosen, strict=True)]
    return sum(terms) / len(terms)


def test_loss_and_gradients_are_those_of_whole_forwards(tiny: Model) -> None:
    settings, items = SETTINGS, items_of(tiny)
    some = Items(items.task, tuple(items[n] for n in (0, 2, 5, 7, 9)))
    places = [(i.metadata["document"], i.metadata["position"]) for i in some]
    generator = torch.Generator().manual_seed(0)
    said = torch.randint(3, 60, (5, 2, 3), generator=generator)
    with learner(tiny, settings.recipe) as student:
        head = MixingHead(width(tiny.lm))
        with torch.no_grad():  # B of LoRA and the last layer begin at 0
            for p in [*student.trained.values(), *head.parameters()]:
                p += 0.1 * torch.randn(p.shape, generator=generator)
        tokens = torch.nn.Parameter(begun_at(tiny.tokenizer, tiny.lm) / settings.token_scale)
        trained = [*student.trained.values(), *head.parameters(), tokens]
        run = _Run(student, head, tokens, quiet_positions(DOCUMENTS, tiny.lm), settings)
        loss, rewards = 0.0, []
        for part in (slice(0, 3), slice(3, 5)):
            rows = [thought.tolist() for each in said[part] for thought in each]
            thoughts = Thoughts.of(
                run.prompt,
                Items(some.task, tuple(some[n] for n in range(*part.indices(5)))),
                rows,
                2,
                2,
                tiny.lm.device,
            )
            value, found = run.part(thoughts, 10)
            loss, rewards = loss + value, [*rewards, *found.reward.tolist()]
        fast = [p.grad.clone() for p in trained if p.grad is not None]
        for p in trained:
            p.grad = None
        student.lm.double()
        head.double()
        expected = slow(student.lm, head, tokens.double() * settings.token_scale, places, said.tolist(), 2.0, 2)
        expected.backward()
        assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
        assert len(fast) == len(trained)
        for grad, p in zip(fast, trained, strict=True):
            assert p.grad is not None and float(p.grad.abs().max()) > 0
            assert float((grad - p.grad).abs().max()) < 1e-4 * float(p.grad.abs().max()) + 1e-7
        assert max(map(abs, rewards)) > 0 and sum(rewards) == pytest.approx(0, abs=1e-5)
        student.lm.float()


def test_a_head_that_begins_is_the_base(tiny: Model) -> None:
    settings, items = SETTINGS, items_of(tiny)
    with learner(tiny, settings.recipe) as student:
        head = MixingHead(width(tiny.lm))
        tokens = torch.nn.Parameter(begun_at(tiny.tokenizer, tiny.lm) / settings.token_scale)
        run = _Run(student, head, tokens, quiet_positions(DOCUMENTS, tiny.lm), settings)
        thoughts = run.thoughts(items[:4], 0)
        with torch.no_grad(), with_rows(tiny.lm, tokens * settings.token_scale):
            prefix = prefix_of(tiny.lm, thoughts.batch.prompts, every=True)
            hidden = hidden_states(tiny.lm, prefix, thoughts.batch)
            found = losses(tiny.lm, head, prefix.tensors[-1], hidden, thoughts, 1.0)
        assert torch.equal(found.having, found.without) and not found.reward.any() and not found.weight.any()
        assert thoughts.said.shape == (8, 3) and len({tuple(one) for one in thoughts.said.tolist()}) > 4
        assert int(thoughts.said.max()) < len(tiny.lm.get_output_embeddings().weight)  # no mark is ever chosen


def trained(model: Model, folder: Path, settings: QuietSettings = SETTINGS, **more: Any) -> QuietTrained:
    return train_quietly(model, items_of(model), DOCUMENTS, settings, folder, identity={"of": "tests"}, **more)


class Killed(Exception):
    pass


@pytest.mark.parametrize("rank", [2, 0])
def test_what_was_stopped_ends_at_the_same_bits(rank: int, tiny: Model, tmp_path: Path) -> None:
    def kill(curve: Sequence[object]) -> None:
        if len(curve) == 2:
            raise Killed

    settings, before = replace(SETTINGS, rank=rank), tiny.lm.get_input_embeddings()
    weights = {name: p.clone() for name, p in tiny.lm.named_parameters()}
    whole = trained(tiny, tmp_path / "whole", settings)
    with pytest.raises(Killed):
        trained(tiny, tmp_path / "twice", settings, on_step=kill)
    twice = trained(tiny, tmp_path / "twice", settings)
    first, second = (read_tensors(one.folder / STATE) for one in (whole, twice))
    assert set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)
    assert whole.adapter.sha256 == twice.adapter.sha256 and whole.mixing.digest == twice.mixing.digest
    assert tiny.lm.get_input_embeddings() is before and set(weights) == {n for n, _ in tiny.lm.named_parameters()}
    assert all(torch.equal(p, weights[name]) for name, p in tiny.lm.named_parameters())
    one, _, last = whole.curve
    assert one.weight == one.reward == 0 and one.having == one.without
    assert last.weight != 0 and last.reward > 0 and last.having != last.without
    begun = begun_at(tiny.tokenizer, tiny.lm)
    assert not torch.equal(whole.mixing.tokens, begun) and float(whole.mixing.head["layers.4.weight"].abs().max()) > 0
    with pytest.raises(UserError, match="another policy"):
        trained(tiny, tmp_path / "whole", replace(settings, policy=3.0))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"group": 1}, "group = 1 was given"),
        ({"updates": 1}, "never read"),
        ({"ahead": 0}, "ahead"),
        ({"token_scale": 0.0}, "token_scale"),
        ({"policy": -1.0}, "policy"),
    ],
)
def test_settings_that_are_none(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        replace(SETTINGS, **given)
    assert "\n" not in str(error.value)


def test_models_that_cannot(tiny: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="knows no learned tokens"):
        trained(replace(tiny, engine="int8"), tmp_path)
    with pytest.raises(UserError, match="cannot compute a text of"):
        trained(replace(tiny, lm=tiny_model("mistral")), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_neox"])
@pytest.mark.parametrize("segment", [0, 2])
def test_a_text_that_is_computed_once_has_the_gradients_of_prompts_alone(architecture: str, segment: int) -> None:
    lm = copy.deepcopy(tiny_model(architecture))
    lm.requires_grad_(True)
    prompt = replace(quiet_positions(DOCUMENTS, lm), opening=(20, 21))
    places = [(0, 1), (0, 4), (0, 8), (1, 2)] if architecture != "gemma3" else [(0, 1), (1, 1)]
    items = [
        next(i for i in positions_of() if (i.metadata["document"], i.metadata["position"]) == place) for place in places
    ]
    said = [[7, 8, 9, 10], [30], [31, 32], [33, 34, 35, 36], [1, 2, 3], [50, 51]][: len(places) + 2]
    question = [0, 0, *range(1, len(places))][: len(said)]
    said = said[: len(question)]
    shared = Batch.leaving(prompt.trunk(items), prompt.opening, question, said, 4, lm.device)
    alone = Batch.of(left_pad([prompt.before(i.question) for i in items]), question, said, 4)
    found = []
    for batch in (shared, alone):
        lm.zero_grad()
        prefix = prefix_of(lm, batch.prompts)
        leaves = prefix.leaves()
        for piece in pieces(lm, leaves, batch, segment):
            weights = torch.linspace(-1, 1, piece.hidden.shape[1])
            piece.backward((piece.hidden @ weights).pow(2).sum())
        prefix.backward(leaves)
        grads = {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}
        found.append((logprobs(lm, batch, 2, 1.0, segment), grads))
    (ours, fast), (theirs, plain) = found
    assert torch.allclose(ours, theirs, atol=1e-5) and set(fast) == set(plain)
    for name, grad in plain.items():
        assert float((fast[name] - grad).abs().max()) <= 2e-5 * float(grad.abs().max()) + 1e-6, name


def positions_of() -> Items:
    from tests.support.tokenizers import byte_level

    return positions(byte_level(), DOCUMENTS)
