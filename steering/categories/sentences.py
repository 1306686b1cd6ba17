"""Reading sentences: one vector for each, from the activations at its positions.

A sentence with the tokens [first, last) is *chosen* at the positions [first − 1, last − 1): the model's state at a
position decides the token after it, and steering acts there. So the state before the first token knows what comes next
before any word of it is written, while the states at the sentence's own tokens know its words as well.

Which pooling is best is an empirical question (`elicit organism taxonomy --read`); what each is for stands in
`POOLINGS`. Poolings are joined by `+` (vectors put side by side), and `/thought` takes the thought's mean off: what all
sentences of a thought share (its task, its numbers) is then no category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from probes.capture import capture
from probes.errors import UserError, unknown
from probes.sites import Site
from steering.categories.segments import Span

POOLINGS = {
    "mean": "mean over its tokens: all that it says, words included",
    "first": "the position that chooses its first token: the model knows what comes before any word of it",
    "last": "its last token: what the sentence came to",
    "chosen": "mean over the positions that choose its tokens: what the model was about to say, all along",
    "step": "last less first: what the sentence changed; where both stand on a full stop, token identity cancels",
    "mean-token": "mean over its tokens, each less the mean of that token anywhere: what context adds to the words",
    "next": "√p of the tokens that begin sentences, where the first is chosen: what the model expects to be done",
}
THOUGHT = "/thought"
CHUNK = 32  # texts whose activations are held at once


def standardised(reading: str) -> bool:
    """Whether a reading's dimensions have scales of their own; those of `next` are in one unit."""
    return reading.removesuffix(THOUGHT) != "next"


def parts_of(reading: str) -> list[str]:
    """The readings that are joined in one.

    Raises:
        UserError: an unknown one.
    """
    parts = reading.removesuffix(THOUGHT).split("+")
    for part in parts:
        if part not in POOLINGS:
            raise unknown("reading", part, POOLINGS, f"(joined by +; {THOUGHT} at the end takes a thought's mean off)")
    return parts


@dataclass
class _Held:
    """What was read so far at a site: vectors of each plain reading; sums and counts of each token."""

    vectors: dict[str, list[Tensor]] = field(default_factory=dict)
    sums: dict[int, Tensor] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)


def read(
    lm: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    spans: Sequence[Sequence[Span]],
    sites: Sequence[Site],
    poolings: Sequence[str] = ("mean",),
    *,
    begins: Sequence[int] | None = None,
    chunk: int = CHUNK,
) -> dict[tuple[Site, str], Float[Tensor, "sentences d"]]:
    """One vector a sentence, fp32, for each site and reading; sentences in the order of texts and spans.

    All sites and poolings come from one forward of each text.

    Args:
        lm: the model whose activations are read.
        texts: token ids of prompts with their thoughts.
        lengths: prompt tokens of each text.
        spans: the sentences of each text, as tokens [first, last) after its prompt.
        sites, poolings: where, and how (`POOLINGS`).
        begins: the tokens that `next` tells of; those that begin a sentence here unless given.
        chunk: texts whose activations are held at once.

    Raises:
        UserError: lists that differ in length, no sentence, a sentence in a prompt or beyond its text, a text without
            a prompt, an unknown reading.
    """
    check_spans(texts, lengths, spans)
    asked = {part for reading in poolings for part in parts_of(reading)}
    plain = sorted(asked - {"next"} | ({"first"} if "next" in asked else set()))
    held = {site: _Held({name: [] for name in plain}) for site in sites}
    for start in range(0, len(texts), chunk):
        rows = range(start, min(start + chunk, len(texts)))
        acts = capture(
            lm, [texts[r] for r in rows], list(sites), lengths=[lengths[r] for r in rows], steps=(0, None),
            dtype=torch.float32,
        )  # fmt: skip
        assert acts is not None
        for r in rows:
            for site in sites:
                _keep(held[site], acts.at(site, row=r - start), texts[r], lengths[r], spans[r])
    if "mean-token" in plain:
        said = [texts[r][first:last] for r in range(len(texts)) for first, last in spans[r]]
        for one in held.values():
            one.vectors["mean-token"] = [
                v - torch.stack([one.sums[t] / one.counts[t] for t in tokens]).mean(0)
                for v, tokens in zip(one.vectors["mean-token"], said, strict=True)
            ]
    thought = texts_of(spans)
    values = {(site, name): torch.stack(v) for site, one in held.items() for name, v in one.vectors.items()}
    if "next" in asked:
        first_tokens = [texts[r][first] for r, those in enumerate(spans) for first, _ in those]
        tokens = first_tokens if begins is None else begins
        values |= {(site, "next"): next_tokens(lm, values[site, "first"], tokens) for site in sites}
    out = {}
    for site in sites:
        for reading in poolings:
            x = torch.cat([values[site, part] for part in parts_of(reading)], dim=1)
            out[site, reading] = within_thoughts(x, thought) if reading.endswith(THOUGHT) else x
    return out


def _keep(held: _Held, h: Float[Tensor, "pos d"], text: Sequence[int], length: int, spans: Sequence[Span]) -> None:
    """Read the sentences of one text; h[0] is its last prompt token, h[t − length + 1] token t."""
    if "mean-token" in held.vectors:
        for token, value in zip(text[length:], h[1:], strict=True):
            held.sums[token] = held.sums[token] + value if token in held.sums else value.clone()
            held.counts[token] = held.counts.get(token, 0) + 1
    for first, last in spans:
        a, b = first - length, last - length  # of the positions that choose its first and its next sentence's token
        for name, vectors in held.vectors.items():
            if name == "first":
                vectors.append(h[a].clone())
            elif name == "last":
                vectors.append(h[b].clone())
            elif name == "step":
                vectors.append(h[b] - h[a])
            elif name == "chosen":
                vectors.append(h[a:b].mean(0))
            else:
                vectors.append(h[a + 1 : b + 1].mean(0))


def within_thoughts(x: Float[Tensor, "n d"], thought: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Each vector less the mean of its thought's."""
    index = thought.unique(return_inverse=True)[1]
    count = int(index.max()) + 1
    sums = torch.zeros(count, x.shape[1], dtype=x.dtype).index_add_(0, index, x)
    return x - (sums / index.bincount(minlength=count)[:, None])[index]


@torch.no_grad()
def next_tokens(
    lm: PreTrainedModel, first: Float[Tensor, "n d_model"], tokens: Sequence[int]
) -> Float[Tensor, "n tokens"]:
    """What the model expects next: √p of some tokens, from a residual stream read at `first`, through the model's head.

    A behaviour has many wordings, so it is recognised by the distribution of the next token and not by the token that
    came. Between square roots Euclidean distance is Hellinger's. Before the last layer this is the logit lens.

    Args:
        lm: the model.
        first: the residual stream at the positions that choose first tokens.
        tokens: which, such as those that begin sentences anywhere in the corpus.
    """
    from probes.lens import read_out

    columns = torch.tensor(sorted(set(tokens)), device=lm.device)
    out = []
    for part in first.split(256):
        p = read_out(lm, part.to(lm.device, lm.dtype)).softmax(-1)
        out.append(p[:, columns].sqrt().cpu())
    return torch.cat(out).float()


def check_spans(
    texts: Sequence[Sequence[int]], lengths: Sequence[int], spans: Sequence[Sequence[Span]], labels: int | None = None
) -> None:
    """Refuse sentences that do not lie in their texts, or (where given) labels that are not one a sentence.

    Raises:
        UserError: as said there.
    """
    if not len(texts) == len(lengths) == len(spans):
        raise UserError(
            f"{len(texts)} texts, {len(lengths)} lengths and lists of sentences for {len(spans)} were given; "
            "give one of each a text"
        )
    count = sum(map(len, spans))
    if not count:
        raise UserError("no sentences were given; give at least one (steering.categories.segments finds them)")
    for r, (text, length, those) in enumerate(zip(texts, lengths, spans, strict=True)):
        if length < 1 and those:
            raise UserError(f"text {r} has no prompt, so nothing chooses its first token; give it a prompt token")
        for first, last in those:
            if not length <= first < last <= len(text):
                raise UserError(
                    f"sentence [{first}, {last}) of text {r} was given; its thought is tokens {length} to {len(text)}"
                )
    if labels is not None and labels != count:
        raise UserError(f"{labels} labels were given for {count} sentences; give one each")


def texts_of(spans: Sequence[Sequence[Span]]) -> Int[Tensor, " sentences"]:
    """The number of the text that each sentence stands in, in the order in which `read` has them."""
    return torch.tensor([r for r, those in enumerate(spans) for _ in those])
