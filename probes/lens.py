"""Logit lens (nostalgebraist 2020; arXiv 2303.08112, section 2): what the model would say if it ended at each layer.

LogitLens(h) = head(norm(h)) with the model's own final norm and output head, for h the embedding and the residual
stream after each block. Departures: the embedding is a layer of its own; final soft-capping is kept where the
architecture has it; beside the distribution's own numbers stands a null, the probability of the target of another
position.

    lens = logit_lens(lm, ids)
    lens_grid(lens, tokenizer.decode).show()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from probes.errors import UserError, unknown
from probes.figures import styled
from probes.inert import label
from probes.likelihood import are_same_logits, output_logits
from probes.sites import Site, blocks, decoder, depth, reading

POSITIONS = 64  # positions whose distributions are held at once: two of [positions, vocab]
NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f")
# One hue from light to dark, so that black or white text can be read on each tone.
SCALE: list[list[Any]] = [[0.0, "#fbfaf7"], [0.55, "#c3d3ee"], [0.75, "#5d84c4"], [1.0, "#1e3a78"]]
LABELS = {  # what may colour the grid
    "top_probability": "p of the top token",
    "probability": "p of the target",
    "rank": "rank of the target",
    "entropy": "entropy (nats)",
    "kl": "KL to the output (nats)",
}


@dataclass(frozen=True, eq=False)
class LogitLens:
    """The lens of one prompt. Row 0 of the arrays is the embedding, row l + 1 the residual stream after block l.

    Args:
        ids: the prompt.
        target: the token asked about at each position.
        top, top_probability: the likeliest token and its probability.
        probability, rank: of the target; rank 1 is the likeliest.
        other: mean probability of the targets of other positions that differ from the position's own: the null.
            NaN where there is none.
        entropy: in nats.
        kl: KL(output ‖ lens) in nats; 0 in the last row.
    """

    ids: Int[np.ndarray, " pos"]
    target: Int[np.ndarray, " pos"]
    top: Int[np.ndarray, "layers pos"]
    top_probability: Float[np.ndarray, "layers pos"]
    probability: Float[np.ndarray, "layers pos"]
    rank: Int[np.ndarray, "layers pos"]
    other: Float[np.ndarray, "layers pos"]
    entropy: Float[np.ndarray, "layers pos"]
    kl: Float[np.ndarray, "layers pos"]

    @property
    def layers(self) -> list[str]:
        """Names of the rows."""
        return ["embedding", *(str(layer) for layer in range(len(self.top) - 1))]


def final_norm(lm: nn.Module) -> nn.Module:
    """The norm between the last block and the head.

    Raises:
        UserError: the decoder has none after its blocks.
    """
    children = dict(decoder(lm).named_children())
    for name in NORMS:
        if name in children:
            return children[name]
    wanted = blocks(lm)
    modules = list(children.values())
    after = modules[next((i for i, m in enumerate(modules) if m is wanted), len(modules)) + 1 :]
    for module in after:
        if "norm" in type(module).__name__.lower():
            return module
    raise UserError(f"{type(lm).__name__} has no norm after its blocks; the logit lens needs the final norm")


def read_out(lm: PreTrainedModel, h: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos vocab"]:
    """Final norm, output head and soft-capping of the model, on any residual stream; fp32."""
    if lm.get_output_embeddings() is None:
        raise UserError(f"{type(lm).__name__} has no output head; the logit lens needs a causal language model")
    return output_logits(lm, final_norm(lm)(h))


@torch.no_grad()
def residuals(
    lm: PreTrainedModel, ids: Sequence[int]
) -> tuple[Float[Tensor, "layers pos d_model"], Float[Tensor, " vocab"]]:
    """The residual stream of one prompt (embedding, then after each block), and the model's logits at the last
    position."""
    sites = [Site(0, "resid_pre"), *(Site(layer) for layer in range(depth(lm)))]
    given = torch.tensor([list(ids)], device=lm.device)
    with reading(lm, sites) as seen:
        out = lm(input_ids=given, use_cache=False, logits_to_keep=1)
    return torch.stack([seen[site].to(lm.device) for site in sites]), out.logits[0, -1].float()


@torch.no_grad()
def logit_lens(lm: PreTrainedModel, ids: Sequence[int], *, target: int | Sequence[int] | None = None) -> LogitLens:
    """Read every layer at every position of a prompt.

    Memory: the residual stream [layers, pos, d_model] and two distributions of at most `POSITIONS` positions.

    Args:
        lm: a causal LM of `transformers`.
        ids: one prompt.
        target: a token to follow, or one for each position; the model's own next token unless given.

    Raises:
        UserError: an empty prompt, targets that do not fit, an architecture whose output is not head(norm(h)).
    """
    vocab = int(lm.get_output_embeddings().weight.shape[0])  # type: ignore[union-attr]
    if not len(ids):
        raise UserError("an empty prompt was given; give at least one token")
    if isinstance(target, Sequence) and len(target) != len(ids):
        raise UserError(f"{len(target)} targets were given for {len(ids)} positions; give one token, or one each")
    stream, own = residuals(lm, ids)
    _check_head(lm, read_out(lm, stream[-1, -1:])[0], own)
    chunks = torch.arange(len(ids)).split(POSITIONS)
    if target is None:
        wanted = torch.cat([read_out(lm, stream[-1, c]).argmax(-1).cpu() for c in chunks])
    else:
        wanted = torch.tensor([target] * len(ids) if isinstance(target, int) else list(target))
    if not 0 <= int(wanted.min()) <= int(wanted.max()) < vocab:
        wrong = next(one for one in wanted.tolist() if not 0 <= one < vocab)
        raise UserError(f"target token {wrong} was given; the vocabulary is 0 to {vocab - 1}")
    parts = [_chunk(lm, stream[:, chunk], wanted[chunk], wanted.unique()) for chunk in chunks]
    joined = {name: np.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}
    return LogitLens(ids=np.asarray(list(ids)), target=wanted.numpy(), **joined)


def _chunk(
    lm: PreTrainedModel,
    stream: Float[Tensor, "layers pos d_model"],
    target: Int[Tensor, " pos"],
    targets: Int[Tensor, " distinct"],
) -> dict[str, np.ndarray]:
    final = torch.log_softmax(read_out(lm, stream[-1]), dim=-1)
    target, targets = target.to(final.device)[:, None], targets.to(final.device)
    rows = []
    for h in stream:
        logp = torch.log_softmax(read_out(lm, h), dim=-1)
        top = logp.max(dim=-1)
        mine = logp.gather(1, target)
        p = logp[:, targets].exp()
        rows.append(
            {
                "top": top.indices,
                "top_probability": top.values.exp(),
                "probability": mine[:, 0].exp(),
                "rank": (logp > mine).sum(-1) + 1,
                "other": ((p.sum(-1) - mine[:, 0].exp()) / (len(targets) - 1)).clamp(min=0)
                if len(targets) > 1
                else torch.full_like(mine[:, 0], torch.nan),
                "entropy": _dot(logp, logp).neg().clamp(min=0),
                "kl": (_dot(final, final) - _dot(final, logp)).clamp(min=0),
            }
        )
    return {name: torch.stack([row[name] for row in rows]).cpu().numpy() for name in rows[0]}


def _dot(log_p: Tensor, log_q: Tensor) -> Float[Tensor, " pos"]:
    """Σ p log q; 0 · log 0 is 0."""
    return torch.where(log_p > -1e4, log_p.exp() * log_q, 0.0).sum(-1)


def _check_head(lm: PreTrainedModel, lens: Float[Tensor, " vocab"], own: Float[Tensor, " vocab"]) -> None:
    if not are_same_logits(lens, own.to(lens.device)):
        raise UserError(
            f"{type(lm).__name__} does more to its logits than its final norm and head "
            "(the lens of the last layer is not the model's output); the logit lens cannot read it"
        )


def shown(text: str, longest: int = 0) -> str:
    """A token's piece as a figure can show it (`visible`, as a label)."""
    return label(visible(text, longest))


def visible(text: str, longest: int = 0) -> str:
    """A token's piece with its line ends, and its spaces where it is nothing else."""
    piece = text.replace("\n", "⏎").replace("\t", "⇥")
    piece = piece.replace(" ", "␣") if not piece.strip() else piece.strip() if longest else piece
    if longest and len(piece) > longest:
        piece = piece[: longest - 1] + "…"
    return piece or "∅"


def lens_grid(
    lens: LogitLens, piece: Callable[[int], str], *, colour: str = "top_probability", first: int = 0
) -> go.Figure:
    """The grid of the lens: embedding at the bottom, the prompt along it, each cell its likeliest token.

    Args:
        piece: the text of a token id, like `tokenizer.decode`.
        colour: one of `LABELS`.
        first: the first position drawn, for long prompts (negative: from the end).

    Raises:
        UserError: an unknown colour, no position left.
    """
    if colour not in LABELS:
        raise unknown("colour", colour, LABELS)
    pos = list(range(len(lens.ids)))[first:]
    if not pos:
        raise UserError(f"positions from {first} were asked for; the prompt has {len(lens.ids)}")
    values = getattr(lens, colour)[:, pos].astype(float)
    texts = {int(i): piece(int(i)) for i in {*lens.ids.tolist(), *lens.target.tolist(), *lens.top.ravel().tolist()}}
    hover = [
        [
            f"{shown(texts[int(lens.top[row, p])])}  p {lens.top_probability[row, p]:.3f}"
            f"<br>layer {label(name)}, position {p}: after {shown(texts[int(lens.ids[p])])}"
            f"<br>target {shown(texts[int(lens.target[p])])}  p {lens.probability[row, p]:.3f}, "
            f"rank {lens.rank[row, p]}"
            f"<br>entropy {lens.entropy[row, p]:.2f} nats, KL to the output {lens.kl[row, p]:.2f} nats"
            for p in pos
        ]
        for row, name in enumerate(lens.layers)
    ]
    # Ranks and divergences span decades: their logarithm is drawn, their own values stand at the colour bar.
    bar: dict[str, Any] = {"title": {"text": LABELS[colour], "side": "right"}, "thickness": 12}
    high, scale = 1.0, SCALE
    if colour in ("rank", "kl", "entropy"):
        scale = [[1 - at, tone] for at, tone in reversed(SCALE)]
        offset = 0.0 if colour == "rank" else 1.0
        high = max(0.3, float(np.log10(values.max() + offset)))
        values = np.log10(values + offset)
        decades = [n for n in (0, 1, 3, 10, 30, 100, 300, 1000, 10**4, 10**5, 10**6) if n + offset > 0]
        marks = [n for n in decades if np.log10(n + offset) <= high]
        bar |= {"tickvals": [float(np.log10(n + offset)) for n in marks], "ticktext": [f"{n:,}" for n in marks]}
    wide = 53
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=list(range(len(pos))),
            y=list(range(len(lens.layers))),
            zmin=0.0,
            zmax=high,
            colorscale=scale,
            text=[[shown(texts[int(lens.top[row, p])], 8) for p in pos] for row in range(len(lens.layers))],
            texttemplate="%{text}",
            textfont={"size": 11},
            hovertext=hover,
            hoverinfo="text",
            xgap=1,
            ygap=1,
            colorbar=bar,
        )
    )
    figure = styled(figure, height=170 + 21 * len(lens.layers))
    figure.update_xaxes(
        tickvals=list(range(len(pos))),
        ticktext=[shown(texts[int(lens.ids[p])], 10) for p in pos],
        tickangle=0 if len(pos) <= 16 else -45,
        title="read at this token of the prompt",
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(
        tickvals=list(range(len(lens.layers))),
        ticktext=[label(one) for one in lens.layers],
        title="layer",
        showgrid=False,
        zeroline=False,
    )
    figure.update_layout(
        title={"text": f"The likeliest next token, layer by layer<br>colour: {LABELS[colour]}"},
        width=max(520, 200 + wide * len(pos)),
        margin={"l": 100, "r": 30, "t": 80, "b": 80},
    )
    return figure
