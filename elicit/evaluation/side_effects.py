"""What an intervention does where nobody asked for it: to plain text, and to what the model knows.

Each is measured once without the interventions and once with them, as they are used: of a sentence the first half
stands for the prompt and the second for what is generated, so that an intervention at the last prompt token acts at the
middle; of a fact the prompt ends where its last word is due.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from elicit.decoding.continuing import continuing_ids
from elicit.elicited import Elicited
from elicit.models.model import Model
from elicit.tasks.everyday_text import SENTENCES
from probes.encoding import encoded
from probes.errors import UserError
from steering.adapters import applied
from steering.interventions import Plan
from steering.strength import kl, logprobs, plain_kl

SIDE_EFFECTS = "side_effects"  # where a handle's options, and a run's metrics, have them
# A fact that small models know, its last word, and three of the same kind.
FACTS: tuple[tuple[str, str, tuple[str, str, str]], ...] = (
    ("The capital of France is", "Paris", ("London", "Madrid", "Rome")),
    ("The capital of Japan is", "Tokyo", ("Beijing", "Seoul", "Bangkok")),
    ("The capital of Italy is", "Rome", ("Paris", "Athens", "Vienna")),
    ("The capital of Russia is", "Moscow", ("Berlin", "Warsaw", "Prague")),
    ("The largest planet of the solar system is", "Jupiter", ("Mars", "Venus", "Mercury")),
    ("The planet closest to the Sun is", "Mercury", ("Saturn", "Neptune", "Jupiter")),
    ("Water is made of hydrogen and", "oxygen", ("carbon", "iron", "gold")),
    ("The opposite of hot is", "cold", ("green", "round", "loud")),
    ("The opposite of up is", "down", ("blue", "seven", "soft")),
    ("A young dog is called a", "puppy", ("kitten", "calf", "lamb")),
    ("A young cat is called a", "kitten", ("puppy", "foal", "chick")),
    ("The day after Monday is", "Tuesday", ("Friday", "Sunday", "Saturday")),
    ("The month after March is", "April", ("August", "October", "December")),
    ("Bees make", "honey", ("bread", "paper", "salt")),
    ("Romeo and Juliet was written by William", "Shakespeare", ("Newton", "Darwin", "Einstein")),
    ("The theory of evolution was proposed by Charles", "Darwin", ("Mozart", "Newton", "Picasso")),
    ("The sky on a clear day is", "blue", ("green", "brown", "purple")),
    ("Grass is usually", "green", ("purple", "black", "silver")),
    ("People in Brazil mostly speak", "Portuguese", ("Chinese", "German", "Russian")),
    ("The heart pumps", "blood", ("sand", "milk", "oil")),
)


@dataclass(frozen=True)
class SideEffects:
    """What interventions do beside what they are for.

    Args:
        plain_kl: their size, `steering.strength.plain_kl`: in place at every position of plain text.
        off_target_kl: mean KL(steered ‖ unsteered), nats, over the second halves of plain sentences, acting as they do.
        perplexity: of these second halves, unsteered and steered.
        knowledge: fraction of facts whose right last word is likelier, a token, than three others; likewise.
    """

    plain_kl: float
    off_target_kl: float
    perplexity: tuple[float, float]
    knowledge: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def plain_texts(model: Model) -> list[list[int]]:
    """Everyday sentences as the model's tokens."""
    return [encoded(model.tokenizer, sentence) for sentence in SENTENCES]


def side_effects(handle: Elicited) -> SideEffects:
    """Measure a handle's interventions beside the same without them (an adapter stays on).

    Raises:
        UserError: a handle without interventions.
    """
    if not handle.interventions:
        raise UserError(f"side effects were asked for and {handle.method} has no interventions; give a handle that has")
    lm, plan, texts = handle.model.lm, handle.interventions, plain_texts(handle.model)
    halves = [len(text) // 2 for text in texts]
    targets = torch.tensor([t for text, n in zip(texts, halves, strict=True) for t in text[n:]], device=lm.device)
    with applied(lm, handle.adapter):
        before, after = (logprobs(lm, texts, halves, given) for given in ((), plan))
        losses = [-float(one.gather(1, targets[:, None]).mean()) for one in (before, after)]
        return SideEffects(
            plain_kl(lm, plan, texts),
            float(kl(after, before).mean()),
            (math.exp(losses[0]), math.exp(losses[1])),
            (knowledge(handle.model, ()), knowledge(handle.model, plan)),
        )


def knowledge(model: Model, plan: Plan) -> float:
    """The fraction of `FACTS` whose right last word is the likeliest of four, by log-probability a token."""
    texts, lengths = [], []
    for stem, right, others in FACTS:
        head = encoded(model.tokenizer, stem)
        for word in (right, *others):
            texts.append(head + continuing_ids(model.tokenizer, f" {word}"))
            lengths.append(len(head))
    counts = [len(text) - n for text, n in zip(texts, lengths, strict=True)]
    said = logprobs(model.lm, texts, lengths, plan)
    targets = [t for text, n in zip(texts, lengths, strict=True) for t in text[n:]]
    each = said[range(len(targets)), targets].split(counts)
    scores = torch.stack([part.mean() for part in each]).view(len(FACTS), -1)
    return float((scores.argmax(1) == 0).float().mean())


def with_side_effects(handle: Elicited) -> Elicited:
    """The handle with its side effects in its options, from where a run has them."""
    return replace(handle, options={**handle.options, SIDE_EFFECTS: side_effects(handle).to_dict()})


def side_effect_sections(metrics: Mapping[str, Any]) -> list[str]:
    """For a page, the side effects of each arm that has any, as HTML."""
    from probes.figures import noted, table

    if not (effects := metrics.get(SIDE_EFFECTS)):
        return []
    note = (
        "KL of next-token distributions, steered to unsteered, in nats: the size by which strengths were found (acting "
        "at every position of everyday sentences, 95th percentile), and the mean after the place where it acts in use; "
        "perplexity there; and how many of some simple facts are completed rightly. An arrow goes from unsteered to "
        "steered."
    )
    rows = [
        (
            name, f"{e['plain_kl']:.3f}", f"{e['off_target_kl']:.3f}",
            " → ".join(f"{p:.1f}" for p in e["perplexity"]), " → ".join(f"{k:.0%}" for k in e["knowledge"]),
        )
        for name, e in effects.items()
    ]  # fmt: skip
    head = ("arm", "KL on plain text, 95%", "off-target KL", "perplexity", "facts known")
    return ["<h2>Side effects</h2>", noted(note), table(head, rows)]
