"""Activation patching: which activations of a clean run, put into a corrupted one, bring the clean answer back.

Causal tracing of arXiv 2202.05262 (section 2.1) with a counterfactual prompt instead of noise, and the metric of arXiv
2309.16042 (section 2): the logit difference of two answer tokens at the last position, as a fraction of the way from
the corrupted run (0) to the clean one (1), not clamped. A difference of log-probabilities is the same number.

Departure: a null. The same cells get activations of unrelated prompts of the same length; what those do is what any
disturbance does.

Many cells go through one forward: each row of a batch follows its own plan. All forwards have the same number of rows,
the reference runs as well, so that rounding is the same in all and a cell that changes nothing is 0 to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor
from transformers import PreTrainedModel

from probes.errors import UserError
from probes.figures import styled
from probes.finite import check_logits
from probes.lens import shown
from probes.sites import Site, check_site, depth, reading
from steering.hooks import attached
from steering.interventions import Intervention, Plan, Replace, When

ROWS = 32
POINTS = ("attn_out", "mlp_out", "resid_post")
# From what hinders the clean answer over nothing to what brings it back.
DIVERGING = [[0.0, "#b45309"], [0.25, "#f3b27a"], [0.5, "#f7f7f5"], [0.75, "#8fa9d6"], [1.0, "#1e3a78"]]


@dataclass(frozen=True, eq=False)
class Patching:
    """Effects of patching one cell at a time: 0 is the corrupted run, 1 the clean one.

    Args:
        clean, corrupted: token ids of the prompts.
        answer, wrong: the tokens whose logits are compared.
        layers: of the rows.
        cells: of the columns: (position, hook point).
        effect: with clean activations.
        null, null_spread: with activations of unrelated prompts, mean and standard deviation over them; None
            without them.
        clean_difference, corrupted_difference: the logit differences that stand for 1 and 0.
        unrelated: how many unrelated prompts.
    """

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answer: int
    wrong: int
    layers: tuple[int, ...]
    cells: tuple[tuple[int, str], ...]
    effect: Float[np.ndarray, "layers cells"]
    null: Float[np.ndarray, "layers cells"] | None
    null_spread: Float[np.ndarray, "layers cells"] | None
    clean_difference: float
    corrupted_difference: float
    unrelated: int

    @property
    def first_difference(self) -> int:
        """The first position at which the prompts differ."""
        return next(i for i, (a, b) in enumerate(zip(self.clean, self.corrupted, strict=True)) if a != b)

    @property
    def no_preference(self) -> float:
        """The effect of a logit difference of 0: where a patch ends that only wipes out the corrupted answer."""
        return self.corrupted_difference / (self.corrupted_difference - self.clean_difference)

    @property
    def by_position(self) -> bool:
        return len({point for _, point in self.cells}) == 1


@torch.no_grad()
def patch(
    lm: PreTrainedModel,
    clean: Sequence[int],
    corrupted: Sequence[int],
    answer: int | None = None,
    wrong: int | None = None,
    *,
    points: Sequence[str] = ("resid_post",),
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    unrelated: int | Sequence[Sequence[int]] = 4,
    special: frozenset[int] = frozenset(),
    rows: int = ROWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Patching:
    """Patch each layer × position × point, one cell at a time.

    Args:
        lm: a causal LM of `transformers`.
        clean, corrupted: token ids of one length.
        answer, wrong: what the clean and the corrupted run should say next; what they do say unless given.
        points: hook points; several are columns beside each other.
        positions: of the prompt (negative: from the end); all unless given.
        layers: all unless given.
        unrelated: prompts for the null, or how many to draw at random; 0 leaves it out.
        special: tokens that are not drawn, and stay where the clean prompt has them.
        rows: cells in one forward.
        seed: of the drawn prompts.
        progress: called with the cells done and all of them.

    Raises:
        UserError: prompts of different length or alike, a metric that does not tell them apart, a layer, position or
            point that there is not.
    """
    clean, corrupted = [int(i) for i in clean], [int(i) for i in corrupted]
    _check_prompts(clean, corrupted, rows)
    where = _positions(positions, len(clean))
    which = tuple(range(depth(lm))) if layers is None else tuple(layers)
    sites = [Site(layer, point) for layer in which for point in points]
    for site in sites:
        check_site(lm, site, write=True)
    cells = [(site, position) for site in sites for position in where]
    rows = min(rows, len(cells))
    bases = _unrelated(lm, clean, unrelated, special, seed)
    total, done = len(cells) * (1 + len(bases)), 0

    donor, clean_logits = _read(lm, clean, sites, rows)
    _, corrupted_logits = _read(lm, corrupted, [], rows)
    answer = int(clean_logits.argmax()) if answer is None else answer
    wrong = int(corrupted_logits.argmax()) if wrong is None else wrong
    _check_tokens(answer, wrong, len(clean_logits))
    best = float(clean_logits[answer] - clean_logits[wrong])
    worst = float(corrupted_logits[answer] - corrupted_logits[wrong])
    if abs(best - worst) < 1e-3:
        raise UserError(
            f"clean and corrupted prompt have the same logit difference ({best:.3f}); "
            "give prompts or answers that the model tells apart"
        )
    maps = []
    for source in [donor, *(_read(lm, ids, sites, rows)[0] for ids in bases)]:
        found: list[float] = []
        for batch in (cells[i : i + rows] for i in range(0, len(cells), rows)):
            difference = _patched(lm, corrupted, source, batch, rows, answer, wrong)
            found += ((difference - worst) / (best - worst)).tolist()
            done += len(batch)
            if progress is not None:
                progress(done, total)
        maps.append(np.array(found).reshape(len(which), -1))
    null = np.stack(maps[1:]) if bases else None
    return Patching(
        clean=tuple(clean),
        corrupted=tuple(corrupted),
        answer=answer,
        wrong=wrong,
        layers=which,
        cells=tuple((position, point) for point in points for position in where),
        effect=maps[0],
        null=None if null is None else null.mean(0),
        null_spread=None if null is None else null.std(0),
        clean_difference=best,
        corrupted_difference=worst,
        unrelated=len(bases),
    )


def _read(
    lm: PreTrainedModel, ids: Sequence[int], sites: Sequence[Site], rows: int
) -> tuple[dict[Site, Float[Tensor, "pos d_model"]], Float[Tensor, " vocab"]]:
    """Activations of a prompt at the sites, and its logits at the last position."""
    with reading(lm, sites) as seen:
        logits = _last_logits(lm, ids, rows)[0]
    return seen, logits


def _patched(
    lm: PreTrainedModel,
    ids: Sequence[int],
    source: dict[Site, Float[Tensor, "pos d_model"]],
    cells: Sequence[tuple[Site, int]],
    rows: int,
    answer: int,
    wrong: int,
) -> Float[np.ndarray, " cells"]:
    """The logit difference of each cell; a batch that the cells do not fill is filled up with the first."""
    plans: list[Plan] = []
    for site, position in cells:
        step = position - len(ids) + 1
        what = Replace(source[site][position : position + 1], step, site)
        plans.append((Intervention(what, when=When(first=step, stop=step + 1)),))
    of_row = [*range(len(cells)), *[0] * (rows - len(cells))]
    with attached(lm, plans, of_row=of_row):
        logits = _last_logits(lm, ids, rows)[: len(cells)]
    difference: np.ndarray = (logits[:, answer] - logits[:, wrong]).double().cpu().numpy()
    return difference


def _last_logits(lm: PreTrainedModel, ids: Sequence[int], rows: int) -> Float[Tensor, "rows vocab"]:
    given = torch.tensor([list(ids)] * rows, device=lm.device)
    logits = lm(input_ids=given, use_cache=False, logits_to_keep=1).logits[:, -1].float()
    check_logits(logits, lm.dtype, "the logits after the prompts")
    return logits


def _check_prompts(clean: Sequence[int], corrupted: Sequence[int], rows: int) -> None:
    if len(clean) != len(corrupted):
        raise UserError(
            f"the clean prompt has {len(clean)} tokens and the corrupted one {len(corrupted)}; "
            "patching needs as many, token by token"
        )
    if not clean or clean == corrupted:
        raise UserError("the clean and the corrupted prompt are the same; give prompts that differ in some tokens")
    if rows < 1:
        raise UserError(f"{rows} cells in one forward were asked for; give at least 1")


def _check_tokens(answer: int, wrong: int, vocab: int) -> None:
    if answer == wrong:
        raise UserError(
            "the right and the wrong answer are the same token (clean and corrupted prompt continue alike); "
            "give an answer and a wrong one"
        )
    for token in (answer, wrong):
        if not 0 <= token < vocab:
            raise UserError(f"answer token {token} was given; the vocabulary is 0 to {vocab - 1}")


def _positions(positions: Sequence[int] | None, count: int) -> list[int]:
    if positions is None:
        return list(range(count))
    for position in positions:
        if not -count <= position < count:
            raise UserError(f"position {position} was given; the prompts have {count} tokens, 0 to {count - 1}")
    return [position % count for position in positions]


def _unrelated(
    lm: PreTrainedModel,
    clean: Sequence[int],
    unrelated: int | Sequence[Sequence[int]],
    special: frozenset[int],
    seed: int,
) -> list[list[int]]:
    if not isinstance(unrelated, int):
        for ids in unrelated:
            if len(ids) != len(clean):
                raise UserError(
                    f"an unrelated prompt of {len(ids)} tokens was given; give {len(clean)} like the others"
                )
        return [list(ids) for ids in unrelated]
    vocab = int(lm.get_input_embeddings().weight.shape[0])  # type: ignore[union-attr,index]
    allowed = np.setdiff1d(np.arange(vocab), sorted(special))
    drawn = np.random.default_rng(seed).choice(allowed, size=(unrelated, len(clean)))
    stays = np.isin(clean, sorted(special))
    return [np.where(stays, clean, row).tolist() for row in drawn]


def patching_map(patching: Patching, piece: Callable[[int], str]) -> go.Figure:
    """The effect of each cell, layers up the side, and below it the null in the same colours.

    Args:
        piece: the text of a token id, like `tokenizer.decode`.
    """
    maps = [("clean activations", patching.effect)]
    if patching.null is not None:
        count = patching.unrelated
        prompts = f"{count} unrelated prompt{'s' if count > 1 else ''}"
        maps.append((f"null: activations of {prompts}{', mean' if count > 1 else ''}", patching.null))
    names = [_cell_name(patching, cell, piece) for cell in patching.cells]
    reach = max(1.0, float(np.abs(patching.effect).max()))
    across = max(520, 240 + 58 * len(names))
    many = len(names) > 16
    # A panel beside the other where both fit the page, else one below the other.
    beside = len(maps) == 2 and len(names) <= 8
    figure = make_subplots(
        rows=1 if beside or len(maps) == 1 else 2,
        cols=2 if beside else 1,
        subplot_titles=[name for name, _ in maps],
        vertical_spacing=0.11,
        horizontal_spacing=0.1,
        shared_yaxes=beside,
    )
    for number, (_, values) in enumerate(maps):
        figure.add_trace(
            go.Heatmap(
                z=values,
                x=list(range(len(names))),
                y=list(range(len(patching.layers))),
                coloraxis="coloraxis",
                hovertext=_hover(patching, values, names),
                hoverinfo="text",
                xgap=1,
                ygap=1,
            ),
            row=1 if beside else number + 1,
            col=number + 1 if beside else 1,
        )
    panel = 17 * len(patching.layers) + (130 if many else 110)
    figure = styled(figure, height=125 + panel * (1 if beside else len(maps)))
    every = max(1, -(-len(patching.layers) // 16))
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=names,
        tickangle=-45 if many else 0,
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(
        tickvals=list(range(0, len(patching.layers), every)),
        ticktext=[str(layer) for layer in patching.layers[::every]],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(title="layer", col=1)
    answer, wrong = (shown(piece(token)) for token in (patching.answer, patching.wrong))
    points = ", ".join(dict.fromkeys(point for _, point in patching.cells))
    figure.update_layout(
        title={"text": f"Patching {points}<br>“{answer}” against “{wrong}”: 0 corrupted run, 1 clean run"},
        width=max(across, 900) if beside else across,
        margin={"l": 80, "r": 30, "t": 105, "b": 80},
        coloraxis={
            "colorscale": DIVERGING,
            "cmin": -reach,
            "cmax": reach,
            "colorbar": {"title": {"text": "fraction of the way back", "side": "right"}, "thickness": 12},
        },
    )
    return figure


def _cell_name(patching: Patching, cell: tuple[int, str], piece: Callable[[int], str]) -> str:
    """The column's token, clean over corrupted where they differ; or its hook point."""
    position, point = cell
    if not patching.by_position:
        return point if len({p for p, _ in patching.cells}) == 1 else f"{point}<br>{position}"
    clean, corrupted = (shown(piece(ids[position]), 9) for ids in (patching.clean, patching.corrupted))
    return clean if patching.clean[position] == patching.corrupted[position] else f"{clean}<br>({corrupted})"


def _hover(patching: Patching, values: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    out = []
    for row, layer in enumerate(patching.layers):
        line = []
        for column, (position, point) in enumerate(patching.cells):
            text = f"layer {layer}, {point}, position {position}<br>{names[column]}<br>moves "
            text += f"{values[row, column]:+.3f} of the way"
            if patching.null is not None and patching.null_spread is not None:
                text += f"<br>null {patching.null[row, column]:+.3f} ± {patching.null_spread[row, column]:.3f}"
            line.append(text)
        out.append(line)
    return out
