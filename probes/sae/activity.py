"""How features fire over texts, read in one pass: density, mean, a histogram, the texts where each is strongest.

Memory does not grow with the number of texts: a feature keeps `contexts` places and `len(EDGES) + 1` counts, and
activations are held a chunk of texts at a time. The values around the places that are shown are read from those few
texts again. The first position of each text and massive tokens (norm over ten times the median, which a sample of the
texts gives) are left out, as in the training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from probes.capture import capture
from probes.errors import UserError
from probes.sae.autoencoder import SAE, check_feature
from probes.sae.card import check_model, massive_limit

CHUNK_TOKENS = 1 << 14  # of texts whose activations are held together
SAMPLE = 64  # texts that give the median norm
EDGES = 2.0 ** (torch.arange(-40, 61) / 4)  # of the histogram: four bins an octave


@dataclass(frozen=True, eq=False)
class Activity:
    """What features did over texts.

    Args:
        features: their numbers.
        fired: positions at which each is above 0.
        total: the sum of its activations.
        counts: positions by activation, in the bins of `EDGES`.
        value, text, position: the strongest activation of each of the texts where it is strongest, falling; 0 where
            there are fewer such texts.
        positions: that were read.
        left_out: first positions and massive tokens.
        limit: the norm above which a token is massive.
        resid_norm: the median norm of the stream.
    """

    features: Int[Tensor, " n"]
    fired: Int[Tensor, " n"]
    total: Float[Tensor, " n"]
    counts: Int[Tensor, "n bins"]
    value: Float[Tensor, "n contexts"]
    text: Int[Tensor, "n contexts"]
    position: Int[Tensor, "n contexts"]
    positions: int
    left_out: int
    limit: float
    resid_norm: float

    @property
    def density(self) -> Float[Tensor, " n"]:
        return self.fired / self.positions

    @property
    def mean(self) -> Float[Tensor, " n"]:
        """Over positions where it fires; 0 where it never does."""
        return self.total / self.fired.clamp(min=1)

    def of(self, rows: Int[Tensor, " chosen"]) -> Activity:
        """Of some features alone, by their place here."""
        kept = {name: getattr(self, name)[rows] for name in ("features", "fired", "total", "counts", *PLACES)}
        return Activity(
            **kept, positions=self.positions, left_out=self.left_out, limit=self.limit, resid_norm=self.resid_norm
        )


PLACES = ("value", "text", "position")


def read_activity(
    lm: PreTrainedModel,
    sae: SAE,
    texts: Sequence[Sequence[int]],
    features: Sequence[int] | None = None,
    *,
    contexts: int = 12,
    progress: Callable[[int, int], None] | None = None,
) -> Activity:
    """Read texts once.

    Args:
        lm: a causal LM of `transformers`.
        sae: of this model.
        texts: token ids of each.
        features: their numbers; all unless given.
        contexts: texts that are kept of each.
        progress: called with the tokens done, and of how many.

    Raises:
        UserError: an SAE that cannot be of this model, a feature that it lacks, no texts, none with two tokens.
    """
    check_model(lm, sae)
    numbers = list(range(sae.d_sae) if features is None else features)
    for index in numbers:
        check_feature(index, sae.d_sae)
    if not numbers or contexts < 1 or not any(len(text) > 1 for text in texts):
        raise UserError(
            f"{len(numbers)} features, {contexts} contexts and {len(texts)} texts were given; give at least one of "
            "each, and a text of two tokens or more"
        )
    resid_norm, limit = _norms(lm, sae, texts)
    sums = _Sums(sae, torch.tensor(numbers), contexts)
    total, done = sum(map(len, texts)), 0
    for some in _chunks(texts):
        for row, position, x in _read(lm, sae, [texts[i] for i in some], limit):
            sums.add(some[row], position, x)
        sums.merge()
        done += sum(len(texts[i]) for i in some)
        if progress is not None:
            progress(done, total)
    return sums.activity(total, limit, resid_norm)


def values_in(
    lm: PreTrainedModel, sae: SAE, activity: Activity, texts: Sequence[Sequence[int]]
) -> dict[tuple[int, int], Float[Tensor, " pos"]]:
    """The activation at each position of the texts where features are strongest, by feature and text.

    It is 0 at positions that are left out.
    """
    wanted: dict[int, list[int]] = {}
    for place, index in enumerate(activity.features.tolist()):
        for value, text in zip(activity.value[place].tolist(), activity.text[place].tolist(), strict=True):
            if value > 0:
                wanted.setdefault(text, []).append(index)
    names = list(wanted)
    out: dict[tuple[int, int], Tensor] = {}
    for chunk in _chunks([texts[i] for i in names]):
        for row, position, x in _read(lm, sae, [texts[names[i]] for i in chunk], activity.limit):
            text = names[chunk[row]]
            columns = torch.tensor(wanted[text])
            z = _encoded(sae, x, columns)
            for column, index in enumerate(wanted[text]):
                held = torch.zeros(len(texts[text]))
                held[position] = z[:, column]
                out[index, text] = held
    return out


def nearest(sae: SAE, features: Sequence[int], count: int = 5) -> list[list[tuple[int, float]]]:
    """For each feature the others whose decoder rows have the largest cosine to its own, of either sign; and it."""
    unit = functional.normalize(sae.W_dec.float(), dim=-1)
    out = []
    for index in features:
        cosines = unit @ unit[index]
        cosines[index] = 0
        found = cosines.abs().topk(min(count, sae.d_sae - 1)).indices.tolist()
        out.append([(i, float(cosines[i])) for i in found])
    return out


class _Sums:
    """Running sums of some features, and the places where they are strongest."""

    def __init__(self, sae: SAE, features: Int[Tensor, " n"], contexts: int) -> None:
        self.sae, self.features, self.contexts = sae, features, contexts
        n = len(features)
        self.fired = torch.zeros(n, dtype=torch.long)
        self.total = torch.zeros(n, dtype=torch.float64)
        self.counts = torch.zeros(n * (len(EDGES) + 1), dtype=torch.int32)
        self.value = torch.zeros(contexts, n)
        self.text, self.position = (torch.zeros(contexts, n, dtype=torch.long) for _ in range(2))
        self.positions = 0
        self._new: list[tuple[int, Tensor, Tensor]] = []

    def add(self, text: int, position: Int[Tensor, " pos"], x: Float[Tensor, "pos d_model"]) -> None:
        z = _encoded(self.sae, x, self.features)
        place, feature = (z > 0).nonzero(as_tuple=True)
        alive = z[place, feature]
        self.fired += (z > 0).sum(0)
        self.total += z.double().sum(0)
        bins = feature * (len(EDGES) + 1) + torch.bucketize(alive, EDGES, right=True)
        self.counts.index_add_(0, bins, torch.ones_like(bins, dtype=torch.int32))
        self.positions += len(x)
        most = z.max(0)
        self._new.append((text, most.values, position[most.indices]))

    def merge(self) -> None:
        """Of what is kept and the new texts keep the strongest."""
        if not self._new:
            return
        texts, values, positions = zip(*self._new, strict=True)
        numbers = torch.tensor(texts)[:, None].expand(-1, len(self.features))
        joined = torch.cat([self.value, torch.stack(values)])
        order = joined.topk(self.contexts, dim=0)
        self.value = order.values
        self.text = torch.cat([self.text, numbers]).gather(0, order.indices)
        self.position = torch.cat([self.position, torch.stack(positions)]).gather(0, order.indices)
        self._new = []

    def activity(self, tokens: int, limit: float, resid_norm: float) -> Activity:
        return Activity(
            self.features, self.fired, self.total.float(), self.counts.view(len(self.features), -1),
            self.value.T.contiguous(), self.text.T.contiguous(), self.position.T.contiguous(),
            self.positions, tokens - self.positions, limit, resid_norm,
        )  # fmt: skip


def _encoded(sae: SAE, x: Float[Tensor, "pos d_model"], columns: Int[Tensor, " n"]) -> Float[Tensor, "pos n"]:
    """Activations above 0 of some features, on the CPU."""
    z = sae.encode(x.to(sae.W_enc.device)).cpu().clamp(min=0)
    return z if torch.equal(columns, torch.arange(sae.d_sae)) else z[:, columns]


def _chunks(texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers of texts that are read together."""
    out: list[list[int]] = [[]]
    tokens = 0
    for i, text in enumerate(texts):
        if tokens + len(text) > CHUNK_TOKENS and out[-1]:
            out.append([])
            tokens = 0
        out[-1].append(i)
        tokens += len(text)
    return out


def _read(
    lm: PreTrainedModel, sae: SAE, texts: Sequence[Sequence[int]], limit: float
) -> list[tuple[int, Int[Tensor, " pos"], Float[Tensor, "pos d_model"]]]:
    """For each text with something to read its number, the positions, and the activations there."""
    acts = capture(lm, texts, [sae.site], lengths=[1] * len(texts))
    assert acts is not None
    values = acts.values[sae.site].float()
    kept = (acts.step > 0) & (values.norm(dim=-1) <= limit)
    out = []
    for row in acts.row[kept].unique().tolist():
        mine = (kept & (acts.row == row)).nonzero()[:, 0]
        mine = mine[acts.step[mine].argsort()]
        out.append((row, acts.step[mine], values[mine]))
    return out


def _norms(lm: PreTrainedModel, sae: SAE, texts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """The median norm, and the norm above which a token is massive, from texts spread over all."""
    longer = [text for text in texts if len(text) > 1]
    some = longer[:: -(-len(longer) // SAMPLE)]
    norms = torch.cat([x.norm(dim=-1) for _, _, x in _read(lm, sae, some, float("inf"))])
    limit = massive_limit(norms)
    return float(norms[norms <= limit].median()), limit
