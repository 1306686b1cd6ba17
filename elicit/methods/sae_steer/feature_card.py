"""A feature's card: where it fires, how strongly, what it writes, and what could falsify it; one page, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from elicit.methods.sae_steer.contrast import ContrastActivations, Text
from elicit.models.model import Model
from probes.figures import BLUE, STEPS, page, styled, table
from probes.inert import escaped
from probes.lens import final_norm
from probes.offsets import decoded
from probes.sae.autoencoder import SAE, Feature
from probes.sae.neuronpedia import page_of

CONTEXTS, AROUND = 12, 16  # contexts shown, tokens shown on each side
WRITTEN = 12  # tokens that it makes likelier, and less likely


@dataclass(frozen=True)
class Context:
    """Tokens around one activation, with the feature's value at each."""

    tokens: list[str]
    values: list[float]
    at: int

    @property
    def value(self) -> float:
        return self.values[self.at]


def contexts(
    feature: Feature, activations: ContrastActivations, thoughts: Sequence[Text], count: int = CONTEXTS
) -> list[Context]:
    """The strongest activations, one a text."""
    values = feature.read(activations.thoughts)
    by_text: dict[int, dict[int, float]] = {}
    for value, text, position in zip(
        values.tolist(), activations.text.tolist(), activations.position.tolist(), strict=True
    ):
        by_text.setdefault(text, {})[position] = value
    out = []
    for text, by_position in by_text.items():
        peak = max(by_position, key=lambda position: by_position[position])
        if by_position[peak] <= 0:
            continue
        first = max(0, peak - AROUND)
        shown = range(first, min(len(thoughts[text].tokens), peak + AROUND + 1))
        tokens = [thoughts[text].tokens[i] for i in shown]
        out.append(Context(tokens, [by_position.get(i, 0.0) for i in shown], peak - first))
    return sorted(out, key=lambda context: -context.value)[:count]


@torch.no_grad()
def written(
    model: Model, feature: Feature, count: int = WRITTEN
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The tokens whose logits the decoder column raises and lowers most, a unit of activation.

    Read through the final norm's weights and the output head, on a stream of the norm that was measured at the
    feature's site: the layers between are left out, as in a logit lens.
    """
    lm: Any = model.lm
    scale = torch.sqrt(torch.tensor(float(feature.d_model))) / feature.scale_of_stream()
    gain = _norm_gain(final_norm(lm), feature.d_model)
    row = feature.decoder.to(lm.device).float() * scale.to(lm.device) * gain
    effect = lm.get_output_embeddings().weight.float() @ row
    never = set(model.unlisted)
    listed = torch.tensor([i for i in range(len(effect)) if i not in never], device=effect.device)
    effect = effect[listed] - effect[listed].mean()
    both = []
    for found in (effect.topk(count), effect.topk(count, largest=False)):
        ids = listed[found.indices].tolist()
        both.append([(decoded(model.tokenizer, [i]), v) for i, v in zip(ids, found.values.tolist(), strict=True)])
    return both[0], both[1]


def _norm_gain(norm: Any, width: int) -> Float[Tensor, " d_model"]:
    """What the norm multiplies each coordinate by; asked of the norm itself, since some keep the gain less 1."""
    if getattr(norm, "bias", None) is not None:  # a LayerNorm would take the mean off
        return norm.weight.float()
    ones = torch.ones(1, 1, width, device=norm.weight.device, dtype=norm.weight.dtype)
    return norm(ones)[0, 0].float()


def histogram(feature: Feature, activations: ContrastActivations) -> go.Figure:
    """Activations above 0 over all positions that were read."""
    values = feature.read(activations.thoughts)
    alive = values[values > 0].tolist()
    figure = go.Figure(go.Histogram(x=alive, nbinsx=40, marker={"color": BLUE}))
    figure.update_layout(xaxis_title="activation", yaxis_title="positions", bargap=0.05)
    return styled(figure)


def card_page(
    model: Model,
    sae: SAE,
    feature: Feature,
    activations: ContrastActivations,
    thoughts: Sequence[Text],
    falsified: Mapping[str, Any],
) -> str:
    """The page."""
    values = feature.read(activations.thoughts)
    density = float((values > 0).float().mean())
    up, down = written(model, feature)
    note = (
        f"SAE {sae.name} at {sae.site} of {model.name} {model.provenance.sha256[:12]}…; {len(values)} positions "
        f"of {len(thoughts)} prompts with the model's own answers; fires at {density:.1%} of them, largest activation "
        f"{float(values.max()):.2f}."
    )
    tokens = [(a, f"{x:+.3f}", b, f"{y:+.3f}") for (a, x), (b, y) in zip(up, down, strict=True)]
    found = contexts(feature, activations, thoughts)
    if address := page_of(sae, feature.index):
        note += f" On Neuronpedia: {address}"
    parts: list[Any] = [
        "<h2>Where it is strongest</h2>",
        "<p class='note'>One line a text; the darker, the stronger. The strongest token is underlined.</p>",
        "".join(context_line(context, found[0].value) for context in found) or "<p>It never fires here.</p>",
        ("Activations", "Positions where it fires, by how strongly.", histogram(feature, activations)),
        "<h2>What it writes</h2>",
        "<p class='note'>Change of logits a unit of activation, read past the layers above.</p>",
        table(("likelier", "", "less likely", ""), tokens),
        "<h2>What could falsify it</h2>",
        *falsified_parts(falsified),
    ]
    return page(f"Feature {feature.index}", note, parts)


def falsified_parts(card: Mapping[str, Any]) -> list[str]:
    """The falsification card as HTML."""
    rows = [("contrast, with the instruction minus without", f"{card['contrast']:.2f}", "")]
    for name, wanted in (
        ("paraphrase", "near 1"),
        ("template", "near 1"),
        ("irrelevant", "near 0"),
        ("injection", "near 0"),
    ):
        if card.get(name) is not None:
            rows.append((name, f"{card[name]:.2f}", wanted))
    verdict = "; ".join(card["verdict"]) or "nothing speaks against it"
    return [table(("", "share", "wanted"), rows), f"<p class='note'>{escaped(verdict)}.</p>"]


def context_line(context: Context, most: float) -> str:
    """A context as HTML: the darker a token, the nearer its activation to `most`; the strongest is underlined."""
    spans = []
    for i, (token, value) in enumerate(zip(context.tokens, context.values, strict=True)):
        shade = f"shade-{round(STEPS * min(1.0, max(0.0, value) / most))}" + (" strongest" if i == context.at else "")
        text = escaped(token).replace("\n", "↵")
        spans.append(f"<span class='{shade}' title='{value:.2f}'>{text}</span>")
    return f"<p class='context'><b>{context.value:.2f}</b>&nbsp; {''.join(spans)}</p>"
