"""Activations that an SAE is trained on: captured at one site into shards, a chunk of texts at a time.

The first position of each text and *massive* tokens (norm over ten times the median, arXiv 2402.17762) are left out of
what is trained on: a few of them carry most of the variance. An interrupted capture resumes chunk by chunk.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from probes.activations import remove_shards, shards
from probes.capture import capture
from probes.errors import UserError
from probes.files import make_folder, no_link, write_whole
from probes.sae.card import massive_limit
from probes.sites import STREAM, Site, check_site

CHUNK_TOKENS = 1 << 15  # of texts that are captured together
KEPT, FIRST, MASSIVE_TOKEN = range(3)


@dataclass(frozen=True, eq=False)
class Cached:
    """Activations of texts at a site, mapped from their shards.

    Args:
        pieces: the shards, fp16 or bf16, in the order of their capture.
        kept: the positions that are trained on, numbered over all pieces.
        mean: of the kept activations.
        site: where they were read.
        facts: how many positions were captured, kept and left out, what fraction of the variance those carry, norms.
        digest: of the texts and of the model's identity that was given.
    """

    pieces: list[Float[Tensor, "_ d_model"]]
    kept: Int[Tensor, " kept"]
    mean: Float[Tensor, " d_model"]
    site: Site
    facts: dict[str, int | float]
    digest: str
    drawn: ClassVar[bool] = False  # whether rows are made when they are asked for, and are not the pieces

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def scale(self) -> float:
        """Brings the mean norm to √d_model."""
        return math.sqrt(len(self.mean)) / self.facts["mean_norm"]

    def rows(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
        """Kept activations by number, fp32."""
        starts = torch.tensor([0, *accumulate(len(p) for p in self.pieces)])
        place = self.kept[index]
        piece = torch.bucketize(place, starts[1:], right=True)
        out = torch.empty(len(index), len(self.mean))
        for n in piece.unique().tolist():
            at = (piece == n).nonzero()[:, 0]
            out[at] = self.pieces[n][place[at] - starts[n]].float()
        return out

    def onto(self, device: torch.device) -> Float[Tensor, "kept d_model"]:
        """All kept activations on a device, as they were captured."""
        out = torch.empty(len(self), len(self.mean), dtype=self.pieces[0].dtype, device=device)
        starts = torch.tensor([0, *accumulate(len(p) for p in self.pieces)])
        ends = torch.searchsorted(self.kept, starts).tolist()
        for piece, start, (first, last) in zip(self.pieces, starts.tolist(), pairwise(ends), strict=False):
            out[first:last] = piece[self.kept[first:last] - start].to(device)
        return out


def cache_activations(
    lm: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    site: Site,
    folder: Path,
    *,
    identity: dict[str, Any],
    batch_tokens: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Cached:
    """Capture texts at a site into a folder; the same call resumes what was interrupted, chunk by chunk.

    A bf16 model's activations are kept as they are, others in fp16.

    Args:
        lm: a causal LM of `transformers`.
        texts: token ids of each text.
        lengths: how many tokens of each text are prompt.
        site: of the residual stream or of what is added to it.
        folder: for the shards.
        identity: what else decides the activations (the model's hash and dtype).
        batch_tokens: tokens of a batch, padding included; as `capture` has them unless given.
        progress: called with the tokens done, and of how many.

    Raises:
        UserError: no texts, a site that cannot be read, a folder with other activations, too few tokens.
    """
    if site.point not in STREAM:
        raise UserError(f"an SAE reads one vector a position, and {site.point!r} is none; give {', '.join(STREAM)}")
    check_site(lm, site)
    if not texts or not all(len(text) for text in texts):
        raise UserError("no texts, or an empty one, were given to train an SAE on; give token ids for each")
    content = json.dumps([identity, str(site), list(map(list, texts)), list(lengths)])
    digest = hashlib.sha256(content.encode()).hexdigest()
    _claim(folder, digest)
    dtype = torch.bfloat16 if lm.dtype == torch.bfloat16 else torch.float16
    total = sum(map(len, texts))
    chunks = _chunks(texts)
    for n, (first, last) in enumerate(chunks):
        done = folder / f"{n:05d}"
        if not done.is_dir():
            part = folder / f".{n:05d}"
            no_link(part)
            shutil.rmtree(part, ignore_errors=True)  # what an interrupted call left
            some = slice(first, last)
            capture(  # what is beyond fp16 is massive, and left out or refused when the pieces are opened
                lm, texts[some], [site], lengths=lengths[some], dtype=dtype, out=part, batch_tokens=batch_tokens,
                overflow=True,
            )  # fmt: skip
            part.replace(done)
        if progress is not None:
            progress(sum(map(len, texts[:last])), total)
    return _open(folder, lengths, [first for first, _ in chunks], site, digest)


def _claim(folder: Path, digest: str) -> None:
    """Write down whose activations a folder holds, or refuse one that holds others."""
    file = folder / "cache.json"
    if file.is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # another program's file
            found = None
        if found != {"digest": digest}:
            raise UserError(f"{str(folder)!r} holds activations of other texts, or of another model or site; remove it")
        return
    make_folder(folder)
    if any(path.name != f".{file.name}.part" for path in folder.iterdir()):
        raise UserError(f"{str(folder)!r} is not empty and holds no activations; give another folder")
    write_whole(file, json.dumps({"digest": digest}))


def remove_cache(folder: Path) -> None:
    """Remove what `cache_activations` wrote into a folder; anything else that lies there stays."""
    for chunk in (path for path in folder.glob("[0-9]" * 5) if not path.is_symlink()):
        remove_shards(chunk)
    (folder / "cache.json").unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _chunks(texts: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """[first, last) of texts that are captured together."""
    out, first, tokens = [], 0, 0
    for n, text in enumerate(texts):
        tokens += len(text)
        if tokens >= CHUNK_TOKENS or n + 1 == len(texts):
            out.append((first, n + 1))
            first, tokens = n + 1, 0
    return out


def _open(folder: Path, lengths: Sequence[int], firsts: Sequence[int], site: Site, digest: str) -> Cached:
    """Read the shards back, and decide which positions are trained on."""
    pieces: list[Tensor] = []
    norms, is_first = [], []
    prompt = torch.tensor(list(lengths))
    for n, start in enumerate(firsts):
        for held in shards(folder / f"{n:05d}"):
            pieces.append(held[str(site)])
            norms.append(pieces[-1].float().norm(dim=-1))
            is_first.append(held["step"] == 1 - prompt[held["row"] + start])
    norm, first = torch.cat(norms), torch.cat(is_first)
    limit = massive_limit(norm[~first])
    if not math.isfinite(limit):
        raise UserError("most activations are beyond fp16; load the model in bfloat16")
    # Written so that what alone is beyond fp16 (infinite, NaN) is massive too.
    label = torch.where(first, FIRST, torch.where(norm <= limit, KEPT, MASSIVE_TOKEN))
    kept = (label == KEPT).nonzero()[:, 0]
    if not len(kept):
        raise UserError("texts of one token leave nothing to train an SAE on: the first of each is left out")
    counts = label.bincount(minlength=3)
    sums = torch.zeros(3, pieces[0].shape[1], dtype=torch.float64)
    squares = torch.zeros(3, dtype=torch.float64)
    for piece, labels in zip(pieces, label.split([len(p) for p in pieces]), strict=True):
        x = piece.nan_to_num().double()
        sums.index_add_(0, labels, x)
        squares.index_add_(0, labels, x.square().sum(-1))
    mean = sums.sum(0) / counts.sum()
    variance = squares - 2 * sums @ mean + counts * mean.square().sum()
    share = (variance / variance.sum()).tolist()
    facts = {
        "captured": len(label), "kept": len(kept),
        "first": int(counts[FIRST]), "variance_of_first": share[FIRST],
        "massive": int(counts[MASSIVE_TOKEN]), "variance_of_massive": share[MASSIVE_TOKEN],
        "massive_above": limit, "mean_norm": float(norm[kept].mean()),
    }  # fmt: skip
    return Cached(pieces, kept, (sums[KEPT] / counts[KEPT]).float(), site, facts, digest)
