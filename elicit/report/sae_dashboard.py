"""The page of an SAE's features: where each is strongest, how it fires, what it writes, its neighbours; no network."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from jaxtyping import Int
from torch import Tensor

from elicit.methods.sae_steer.feature_card import AROUND, Context, context_line, written
from elicit.models.model import Model
from probes.errors import UserError
from probes.figures import BLUE, Part, Section, noted, page, styled, table
from probes.offsets import decoded
from probes.sae.activity import EDGES, Activity, nearest, values_in
from probes.sae.autoencoder import SAE
from probes.sae.neuronpedia import page_of

READ_LOGITS = (
    "What it writes: the decoder row's effect on each logit, a unit of activation. The row is divided by the stream's "
    "median root mean square, multiplied by the final norm's gain and put through the output head; the mean over the "
    "vocabulary is taken off. The layers above are left out, as in a logit lens."
)
READ_CONTEXTS = (
    "Where it is strongest: one line a text, the darker the stronger; the strongest token is underlined, and a value "
    "stands under the pointer."
)


def chosen(asked: str, sae: SAE) -> tuple[list[int] | None, int]:
    """What `3,17` or `top:50` ask for: the features' numbers, or None and how many.

    Raises:
        UserError: neither of the two, or features twice.
    """
    head, colon, count = asked.partition(":")
    try:
        if colon and head == "top" and int(count) > 0:
            return None, min(int(count), sae.d_sae)
        numbers = [int(part) for part in asked.split(",")]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers):
        raise UserError(f"features {asked!r} were given; give distinct numbers like 3,17, or top:50")
    return numbers, len(numbers)


def strongest(activity: Activity, sae: SAE, count: int) -> Int[Tensor, " count"]:
    """The places of the features that write most in the mean over positions (activation times the decoder's norm)."""
    written_most = activity.total / activity.positions * sae.W_dec.norm(dim=-1).cpu()[activity.features]
    return written_most.argsort(descending=True, stable=True)[:count]


def dashboard(model: Model, sae: SAE, activity: Activity, texts: Sequence[Sequence[int]], *, what: str) -> str:
    """The page.

    Args:
        model: whose SAE it is.
        sae: the SAE.
        activity: of the features that are shown, over the texts.
        texts: token ids.
        what: names the texts.
    """
    values = values_in(model.lm, sae, activity, texts)
    indices = activity.features.tolist()
    near = nearest(sae, indices)
    silent = sum(1 for fired in activity.fired.tolist() if not fired)
    first = f"{len(indices)} of {sae.d_sae} features" + (f"; {silent} never fire in these texts" if silent else "")
    note = (
        f"SAE {sae.name} ({sae.sha256[:12]}…) at {sae.site} of {model.name} {model.provenance.sha256[:12]}…; "
        f"{activity.positions} positions of {len(texts)} texts ({what}); left out: {activity.left_out} first and "
        "massive tokens."
    )
    parts: list[Part] = ["<nav class='note' aria-label='Features'>" + " · ".join(map(_link, indices)) + "</nav>"]
    parts.append(table(HEAD, [_row(activity, place) for place in range(len(indices))]))
    parts.append(noted(READ_CONTEXTS) + noted(READ_LOGITS))
    for place, index in enumerate(indices):
        found = [
            _context(model, texts[text], values[index, text].tolist(), position)
            for value, text, position in zip(
                activity.value[place].tolist(), activity.text[place].tolist(), activity.position[place].tolist(),
                strict=True,
            )
            if value > 0
        ]  # fmt: skip
        parts += [f"<span id='feature-{index}'></span>", _section(model, sae, activity, place, found, near[place])]
    return page(f"Features of {sae.name}", note, parts, first=first)


HEAD = ("feature", "fires", "mean where it fires", "largest")


def _row(activity: Activity, place: int) -> tuple[str, ...]:
    return (
        str(int(activity.features[place])),
        f"{100 * float(activity.density[place]):.3f}%",
        f"{float(activity.mean[place]):.3f}",
        f"{float(activity.value[place, 0]):.3f}",
    )


def _section(
    model: Model, sae: SAE, activity: Activity, place: int, found: list[Context], near: list[tuple[int, float]]
) -> Section:
    index = int(activity.features[place])
    feature = sae.feature(index, resid_norm=activity.resid_norm)
    note = (
        f"It fires at {int(activity.fired[place])} of {activity.positions} positions "
        f"({100 * float(activity.density[place]):.3f}%), by {float(activity.mean[place]):.3f} in the mean where it "
        f"does and {float(activity.value[place, 0]):.3f} at most."
    )
    if address := page_of(sae, index):
        note += f" On Neuronpedia: {address}"
    shown = set(activity.features.tolist())
    others = ", ".join(f"{_link(i) if i in shown else i} ({cosine:+.2f})" for i, cosine in near)
    up, down = written(model, feature)
    tokens = [(_visible(a), f"{x:+.3f}", _visible(b), f"{y:+.3f}") for (a, x), (b, y) in zip(up, down, strict=True)]
    most = found[0].value if found else 1.0
    parts: list[Part] = [
        "<h2>Where it is strongest</h2>" + ("".join(context_line(c, most) for c in found) or "<p>Nowhere here.</p>"),
        ("How strongly it fires", "Positions by activation, four bins an octave.", histogram(activity, place)),
        "<h2>What it writes</h2>" + table(("likelier", "", "less likely", ""), tokens),
        f"<p class='note'>Nearest decoder rows (cosine): {others}.</p>",
    ]
    return Section(f"Feature {index}", note, parts)


def histogram(activity: Activity, place: int) -> go.Figure:
    """Positions by activation, on a logarithmic axis, between the lowest and the highest bin that holds one."""
    counts = activity.counts[place, 1:].tolist()  # bin 0 lies below the first edge
    held = [i for i, count in enumerate(counts) if count]
    first, last = (held[0], held[-1] + 1) if held else (0, 1)
    figure = go.Figure(
        go.Scatter(
            x=EDGES[first : last + 1].tolist(),
            y=[*counts[first:last], 0][: last - first + 1],
            mode="lines",
            line={"shape": "hv", "color": BLUE, "width": 1.5},
            fill="tozeroy",
        )
    )
    octaves = EDGES[first : last + 1].log2().ceil().unique()
    ticks = (2.0**octaves).tolist()
    figure.update_xaxes(title="activation", type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    figure.update_yaxes(title="positions", rangemode="tozero")
    return styled(figure, height=260).update_layout(margin={"t": 20})


def _context(model: Model, ids: Sequence[int], values: list[float], at: int) -> Context:
    first, stop = max(0, at - AROUND), min(len(ids), at + AROUND + 1)
    tokens = [decoded(model.tokenizer, [i]) for i in ids[first:stop]]
    return Context(tokens, values[first:stop], at - first)


def _visible(token: str) -> str:
    """A token whose blanks can be seen, where it is nothing else."""
    token = token.replace("\n", "↵")
    return token if token.strip() else token.replace(" ", "␣")


def _link(index: int) -> str:
    return f"<a href='#feature-{index}'>{index}</a>"
