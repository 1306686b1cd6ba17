"""What a feature must survive before it is called one of reasoning.

Between 45 and 90% of features found by a contrast fire on a few tokens alone (arXiv 2601.05679). So the contrast (mean
activation with the instruction minus without, at the position that chooses the first token) is measured again
- with the instruction in other words (*paraphrase*),
- in other templates (*template*),
- with instructions that have nothing to do with reasoning (*irrelevant*),
and its strongest tokens are put into everyday sentences (*injection*). Each is a fraction of the contrast; for
injection, of the largest activation in thoughts above that in the same sentences without the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from elicit.methods.sae_steer.contrast import ContrastActivations, Text
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from elicit.tasks.everyday_text import SENTENCES
from probes.capture import capture
from probes.encoding import encoded
from probes.sae.autoencoder import Feature

PARAPHRASES = (
    "Think this through one step at a time.", "Work it out in small steps.", "Reason about it before you answer.",
    "Go through the problem slowly.", "Show how you get to the answer.",
)  # fmt: skip
IRRELEVANT = (
    "Answer in a friendly tone.", "Please use British spelling.", "This was asked on a Tuesday.",
    "Do not mention the weather.", "Write as if to an old friend.",
)  # fmt: skip
TEMPLATES = ("Question: {question}\nAnswer:", "{question}\nSolution:", "### Problem\n{question}\n### Answer\n")
INJECTED = 3  # tokens a sentence
LEAST_KEPT, MOST_SPURIOUS = 0.5, 0.5


def falsify(
    model: Model,
    feature: Feature,
    items: Items,
    prompt: Prompt,
    instruction: str,
    activations: ContrastActivations,
    thoughts: Sequence[Text],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """The falsification card of a feature.

    Args:
        model: the model.
        feature: of an SAE of this model.
        items: questions, none of the test split.
        prompt, instruction: the contrast that it was found by: the prompt with the instruction and without.
        activations, thoughts: of its site.
        seed: of where tokens are put.

    Returns:
        `contrast`, and fractions of it: `paraphrase`, `template`, `irrelevant` (each with its parts), `injection` with
        the tokens; `verdict`: what speaks against it, of which there may be nothing.
    """

    @cache  # most contrasts have the prompt without the instruction in common
    def mean(shape: Prompt) -> float:
        return float(_at_end(model, feature, [shape.ids(item.question, model.tokenizer) for item in items]).mean())

    def gain(shape: Prompt, words: str) -> float:
        return mean(shape.asked(words)) - mean(shape)

    whole = gain(prompt, instruction)
    fractions = {
        "paraphrase": {words: gain(prompt, words) for words in PARAPHRASES},
        "template": {shape: gain(Prompt("template", template=shape), instruction) for shape in TEMPLATES},
        "irrelevant": {words: gain(prompt, words) for words in IRRELEVANT},
    }
    card: dict[str, Any] = {"feature": feature.index, "questions": len(items), "contrast": whole}
    for name, parts in fractions.items():
        card[name] = float(np.mean(list(parts.values()))) / whole if whole > 0 else None
        card[f"{name} parts"] = parts
    card |= _injection(model, feature, activations, thoughts, seed)
    return {**card, "verdict": verdict(card)}


def verdict(card: dict[str, Any]) -> list[str]:
    """What speaks against a feature of reasoning, line by line."""
    if card["contrast"] <= 0:
        return ["it does not fire more with the instruction on these questions"]
    out = []
    if card["paraphrase"] < LEAST_KEPT:
        out.append(f"it keeps {card['paraphrase']:.0%} of its contrast when the instruction is put in other words")
    if card["template"] < LEAST_KEPT:
        out.append(f"it keeps {card['template']:.0%} of its contrast in other templates")
    if card["irrelevant"] > MOST_SPURIOUS:
        out.append(f"instructions that have nothing to do with reasoning give {card['irrelevant']:.0%} of its contrast")
    if card["injection"] is not None and card["injection"] > MOST_SPURIOUS:
        tokens = ", ".join(repr(t) for t in card["injected tokens"])
        out.append(
            f"a few of its tokens ({tokens}) in everyday sentences bring {card['injection']:.0%} of its activation"
        )
    return out


def strongest_tokens(
    values: Float[Tensor, " positions"], activations: ContrastActivations, thoughts: Sequence[Text], count: int
) -> list[str]:
    """The tokens on which a feature is strongest in the mean, of those that it fires on more than once."""
    by_token: dict[str, list[float]] = {}
    for value, text, position in zip(
        values.tolist(), activations.text.tolist(), activations.position.tolist(), strict=True
    ):
        by_token.setdefault(thoughts[text].tokens[position], []).append(value)
    usual = {t: float(np.mean(v)) for t, v in by_token.items() if len(v) > 1 and t.strip() and np.mean(v) > 0}
    return sorted(usual, key=lambda t: -usual[t])[:count]


def _injection(
    model: Model, feature: Feature, activations: ContrastActivations, thoughts: Sequence[Text], seed: int
) -> dict[str, Any]:
    values = feature.read(activations.thoughts)
    tokens = strongest_tokens(values, activations, thoughts, INJECTED)
    if not tokens:
        return {"injection": None, "injected tokens": []}
    rng = np.random.default_rng(seed)
    plain, injected = [], []
    for sentence in SENTENCES:
        words = sentence.split(" ")
        plain.append(sentence)
        for token in tokens:
            words.insert(int(rng.integers(1, len(words))), token.strip())
        injected.append(" ".join(words))
    by_text = torch.zeros(len(thoughts)).scatter_reduce_(0, activations.text, values, "amax")
    low, high = (float(_largest(model, feature, sentences).mean()) for sentences in (plain, injected))
    whole = float(by_text.mean()) - low
    return {"injection": (high - low) / whole if whole > 0 else None, "injected tokens": tokens}


def _at_end(model: Model, feature: Feature, ids: Sequence[Sequence[int]]) -> Float[Tensor, " texts"]:
    acts = capture(model.lm, ids, [feature.site], last=1)
    assert acts is not None
    return feature.read(acts.values[feature.site])


def _largest(model: Model, feature: Feature, sentences: Sequence[str]) -> Float[Tensor, " texts"]:
    """The largest activation in each text after its first token."""
    ids = [encoded(model.tokenizer, text) for text in sentences]
    acts = capture(model.lm, ids, [feature.site])
    assert acts is not None
    later = acts.step > torch.tensor([1 - len(i) for i in ids])[acts.row]
    values = feature.read(acts.values[feature.site][later])
    return torch.zeros(len(ids)).scatter_reduce_(0, acts.row[later], values, "amax")
