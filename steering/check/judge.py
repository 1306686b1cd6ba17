"""From passes to answers: what moved, where, by how much, and how passes that should be equal differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.sites import Site
from steering.check.passes import Batch, Pass
from steering.check.report import FAILS, HOLDS, UNTOLD, Answer
from steering.strength import kl

# Of log-probabilities in nats, and of ‖Δh‖: what rounding may do in float32, and in 16 bits.
NATS_FULL, NATS_HALF = 1e-3, 0.05
SHARE_FULL, SHARE_HALF = 0.01, 0.1
TIMES_UNSTEERED = 10.0  # the difference that the unsteered model shows between the same two passes may be so often met
UNEVEN_FULL, UNEVEN_HALF = 0.05, 1.0  # nats: unsteered passes that differ so much tell nothing of steered ones
EPSILONS = 8  # of the dtype, times ‖h‖: how far writes to forwards of other shapes may differ
# Of the dtype, times the size of a dimension of h (at least the median one): what more counts as moved. In 16 bits two
# roundings; in 32 steering is far above what any sum in another order does.
MOVED_FULL, MOVED_HALF = 64, 2
ROUNDED = 2  # likewise, of what two roundings do to a sum


@dataclass(frozen=True)
class Found:
    """Where hooks write.

    Args:
        points: of the stream, in order: 0 is the embedding's output, i what layer i − 1 hands over.
        deltas: of each prompt, what was written at each of them in a whole forward, [pos, d_model].
        layers: the number of layers.
    """

    points: tuple[int, ...]
    deltas: list[dict[int, Float[Tensor, "_ _"]]]

    @property
    def first(self) -> int:
        return self.points[0]


def place(point: int) -> str:
    """A point of the stream, in words."""
    return "the embedding" if point == 0 else f"layer {point - 1}"


def told(error: Exception) -> str:
    """What was raised, in one line that is safe to print."""
    words = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {''.join(c if c.isprintable() else '?' for c in words)}"


def _full(one: Pass) -> bool:
    return torch.finfo(one.stream[0].dtype).bits > 16


def _delta(steered: Pass, plain: Pass, point: int) -> Float[Tensor, "rows pos d_model"]:
    return steered.stream[point].float() - plain.stream[point].float()


def moves(
    delta: Float[Tensor, "*rows pos d_model"], h: Float[Tensor, "*rows pos d_model"]
) -> Bool[Tensor, "*rows pos"]:
    """Where a change is more than rounding: in some dimension, since a few may be thousands of times larger than all
    others at a text's first position (arXiv 2402.17762), and by the norm nothing would be seen there."""
    size = h.float().abs()
    typical = size.median(dim=-1, keepdim=True).values
    info = torch.finfo(h.dtype)
    least = (MOVED_FULL if info.bits > 16 else MOVED_HALF) * info.eps * size.maximum(typical)
    return (delta.abs() > least).any(-1)


def _seen(steered: Pass, plain: Pass, point: int) -> Bool[Tensor, "rows pos"]:
    return moves(_delta(steered, plain, point), plain.stream[point])


def find(plain: Sequence[Pass], whole: Sequence[Pass], local: Sequence[Sequence[Tensor]] | None) -> Found | None:
    """The points that are written to: the first that differs, and those where a block given the same input hands over
    something else (`local`; None where that cannot be trusted)."""
    count = len(plain[0].stream)
    pairs = list(zip(plain, whole, strict=True))
    first = next((n for n in range(count) if any(bool(_seen(s, p, n).any()) for p, s in pairs)), None)
    if first is None:
        return None
    points = [first]
    for n in range(first + 1, count if local is not None else 0):
        assert local is not None
        if any(bool(moves(d[n], s.stream[n]).any()) for d, s in zip(local, whole, strict=True)):
            points.append(n)
    deltas = []
    for n, (p, s) in enumerate(pairs):
        further = {} if local is None else {point: local[n][point][0] for point in points[1:]}
        deltas.append({first: _delta(s, p, first)[0], **further})
    return Found(tuple(points), deltas)


def moved(plain: Sequence[Pass], whole: Sequence[Pass], found: Found | None) -> Answer:
    name = "anything moved"
    change = max(float((s.logprobs - p.logprobs).abs().max()) for p, s in zip(plain, whole, strict=True))
    numbers = {"max_logprob_change": change, "points": [] if found is None else list(found.points)}
    if found is None and change > 0:
        return Answer(name, UNTOLD, f"log-probabilities by up to {change:.3g} nats, the stream nowhere", "", numbers)
    if found is None:
        return Answer(name, FAILS, "no activation and no log-probability", "nothing moved", numbers)
    where = ", ".join(place(n) for n in found.points)
    if change == 0:
        return Answer(name, FAILS, f"{where}, and no log-probability: nothing reads it", "read by nothing", numbers)
    return Answer(name, HOLDS, f"written at {where}; log-probabilities change by up to {change:.3g} nats", "", numbers)


def prompt_positions(expected: Sequence[Bool[Tensor, " _"]], plain: Sequence[Pass], found: Found) -> Answer:
    """Whether a whole forward is moved where it is to be, at each point that is written to."""
    name, counts, fault = "positions, whole forward", [], ""
    for point in found.points:
        masks = []
        for want, p, deltas in zip(expected, plain, found.deltas, strict=True):
            got = moves(deltas[point], p.stream[point][0])
            masks.append((want[: len(got)], got))
        missing, extra = _tally(masks)
        total = sum(len(got) for _, got in masks)
        wanted = sum(int(want.sum()) for want, _ in masks)
        counts.append({"point": point, "expected": wanted, "missing": missing, "extra": extra, "positions": total})
        if missing or extra:
            last = all(int(got.sum()) == 1 and bool(got[-1]) for _, got in masks)
            fault = fault or (
                "last position only" if last else "positions missing" if missing else "positions too many"
            )
    bad = [one for one in counts if one["missing"] or one["extra"]]
    one = (bad or counts)[0]
    figure = (
        f"{one['expected'] - one['missing']} of {one['expected']} expected positions moved at {place(one['point'])}"
    )
    if one["extra"]:
        figure += f", and {one['extra']} others"
    return Answer(name, FAILS if bad else HOLDS, figure, fault, {"by_point": counts})


def _tally(masks: Sequence[tuple[Tensor, Tensor]]) -> tuple[int, int]:
    return sum(int((want & ~got).sum()) for want, got in masks), sum(int((got & ~want).sum()) for want, got in masks)


def cached_positions(
    expected: Sequence[Bool[Tensor, " _"]],
    prompts: Sequence[int],
    cached: Sequence[Pass] | str,
    plain: Sequence[Pass],
    found: Found,
    local: Sequence[Sequence[Tensor]] | None,
    *,
    everywhere: bool,
) -> Answer:
    """Whether a decoding from a cache is moved where it is to be, its prefill and each cached step, at each point:
    further ones by `local`, as in `find`."""
    name = "positions, cached decoding"
    if isinstance(cached, str):
        return Answer(name, FAILS, f"it raised {cached}", "fails when cached")
    answers = [
        _cached_at(
            found.first, expected, prompts, [_seen(s, p, found.first)[0] for s, p in zip(cached, plain, strict=True)]
        )
    ]
    for point in range(len(plain[0].stream) if local is not None else 0):
        assert local is not None
        if point == found.first:
            continue
        got = [moves(written[point], s.stream[point])[0] for written, s in zip(local, cached, strict=True)]
        if point in found.points or any(bool(one.any()) for one in got):
            wanted = expected if point in found.points else [torch.zeros_like(one) for one in expected]
            answers.append(_cached_at(point, wanted, prompts, got))
    worst = next((one for one in answers if one.verdict == FAILS), answers[0])
    if worst.verdict == HOLDS and local is None and len(found.points) > 1 and not everywhere:
        return replace(worst, verdict=UNTOLD, figure=f"{worst.figure}; what is written at further layers is not seen")
    return worst


def _cached_at(
    point: int, expected: Sequence[Bool[Tensor, " _"]], prompts: Sequence[int], seen: Sequence[Bool[Tensor, " _"]]
) -> Answer:
    """Whether positions are moved at one point where they are to be."""
    before = [(want[:n], got[:n]) for n, want, got in zip(prompts, expected, seen, strict=True)]
    after = [(want[n:], got[n:]) for n, want, got in zip(prompts, expected, seen, strict=True)]
    missing, extra = (sum(pair) for pair in zip(_tally(before), _tally(after), strict=True))
    parts, numbers = [], {}
    for what, masks in (("prefill", before), ("cached steps", after)):
        wanted, got = sum(int(w.sum()) for w, _ in masks), sum(int((w & g).sum()) for w, g in masks)
        others = sum(int((g & ~w).sum()) for w, g in masks)
        parts.append(f"{what} {got} of {wanted}" + (f" and {others} others" if others else ""))
        numbers[what] = {"expected": wanted, "moved": got, "others": others}
    fault = ""
    if missing or extra:
        none = not any(bool(got.any()) for _, got in after)
        lost = sum(_tally(after)[:1])
        fault = "prefill only" if lost and none else "cached steps missing" if lost else "other positions when cached"
    figure = f"{', '.join(parts)} at {place(point)}"
    return Answer("positions, cached decoding", FAILS if fault else HOLDS, figure, fault, numbers)


@dataclass(frozen=True)
class Apart:
    """How far two steered passes over the same tokens are from each other.

    Args:
        share: the largest ‖Δh − Δh'‖ beyond rounding, over the largest ‖Δh'‖.
        nats: the largest difference of a log-probability.
        floor: the same without steering.
        full: whether the model computes in 32 bits or more.
    """

    share: float
    nats: float
    floor: float
    full: bool

    @property
    def verdict(self) -> str:
        if self.share > (SHARE_FULL if self.full else SHARE_HALF):
            return FAILS
        if self.floor > (UNEVEN_FULL if self.full else UNEVEN_HALF):
            return UNTOLD
        return FAILS if self.nats > max(TIMES_UNSTEERED * self.floor, NATS_FULL if self.full else NATS_HALF) else HOLDS

    @property
    def words(self) -> str:
        nats = f"{self.nats:.1e} nats (unsteered {self.floor:.1e})"
        return f"log-probabilities differ by {nats}, the write by {self.share:.1%}"

    @property
    def numbers(self) -> dict[str, float]:
        return {"nats": self.nats, "unsteered_nats": self.floor, "write": self.share}


def apart(
    deltas: Sequence[tuple[Tensor, Tensor, Tensor]], said: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], full: bool
) -> Apart:
    """From (Δh, Δh', h) and (log-probabilities steered here, there, unsteered here, there), each of the same tokens."""
    eps = torch.finfo(deltas[0][2].dtype).eps
    longest = max(max(float(one.norm(dim=-1).max()), float(two.norm(dim=-1).max())) for one, two, _ in deltas)
    off = 0.0
    for one, two, h in deltas:
        beyond = (one - two).norm(dim=-1) - EPSILONS * eps * h.float().norm(dim=-1)
        off = max(off, float(beyond.max()))
    nats = max(float((a - b).abs().max()) for a, b, _, _ in said)
    floor = max(float((a - b).abs().max()) for _, _, a, b in said)
    return Apart(off / longest if longest else 0.0, nats, floor, full)


def batched(
    name: str,
    given: Batch,
    steered: Pass | str,
    plain: Pass,
    singles: Sequence[Pass],
    plain_singles: Sequence[Pass],
    found: Found,
) -> Answer:
    """Whether each row of a padded batch is what it is alone."""
    if isinstance(steered, str):
        return Answer(name, FAILS, f"it raised {steered}", "fails on a batch")
    point, real = found.first, given.real
    alone = [_seen(s, p, point)[0] for s, p in zip(singles, plain_singles, strict=True)]
    beside = _seen(steered, plain, point)
    deltas, said = [], []
    for row, (s, p) in enumerate(zip(singles, plain_singles, strict=True)):
        here = _delta(steered, plain, point)[row][real[row]]
        deltas.append((here, _delta(s, p, point)[0], p.stream[point][0]))
        at = real[row] if given.forced is None else torch.ones(plain.logprobs.shape[1], dtype=torch.bool)
        said.append((steered.logprobs[row][at], s.logprobs[0], plain.logprobs[row][at], p.logprobs[0]))
    found_apart = apart(deltas, said, _full(plain))
    equal = [torch.equal(beside[row][real[row]], one) for row, one in enumerate(alone)]
    right = sum(equal)
    figure = f"{right} of {len(equal)} rows moved as alone; {found_apart.words}"
    numbers = {**found_apart.numbers, "rows": len(equal), "rows_as_alone": right}
    if right == len(equal):
        verdict = found_apart.verdict
        return Answer(name, verdict, figure, "batch differs" if verdict == FAILS else "", numbers)
    fault = "batch differs"
    if equal[0] and not any(bool(beside[row][real[row]].any()) for row in range(1, len(equal)) if alone[row].any()):
        fault = "first row only"
    elif _shifted(beside, real, alone):
        fault = "padding shifted"
    return Answer(name, FAILS, figure, fault, numbers)


def _shifted(seen: Bool[Tensor, "rows pos"], real: Bool[Tensor, "rows pos"], alone: Sequence[Tensor]) -> bool:
    """Whether rows are moved as if they were padded at the other side, or as if padding counted as tokens."""
    longest = next(row for row, mask in enumerate(real) if bool(mask.all()))
    if all(torch.equal(one[mask], alone[longest][mask]) for one, mask in zip(seen, real, strict=True)):
        return True
    for one, mask, own in zip(seen, real, alone, strict=True):
        rest = torch.zeros(int((~mask).sum()), dtype=torch.bool)
        other = torch.cat([rest, own]) if bool(mask[0]) else torch.cat([own, rest])
        if not torch.equal(one[mask], other[mask]):
            return False
    return True


def cached_as_whole(
    prompts: Sequence[int],
    whole: Sequence[Pass],
    plain: Sequence[Pass],
    cached: Sequence[Pass],
    plain_cached: Sequence[Pass],
    found: Found,
) -> Answer:
    """Whether a decoding from a cache is the forward without one, over the same tokens."""
    point, deltas, said = found.first, [], []
    for n, w, p, c, pc in zip(prompts, whole, plain, cached, plain_cached, strict=True):
        deltas.append((_delta(c, pc, point)[0], _delta(w, p, point)[0], p.stream[point][0]))
        said.append((c.logprobs[0], w.logprobs[0, n - 1 :], pc.logprobs[0], p.logprobs[0, n - 1 :]))
    one = apart(deltas, said, _full(plain[0]))
    fault = "cached steps differ" if one.verdict == FAILS else ""
    return Answer("cached = without a cache", one.verdict, one.words, fault, one.numbers)


def scale(whole: Sequence[Pass], twice: Sequence[Pass], plain: Sequence[Pass], found: Found) -> Answer:
    """Whether twice the strength writes twice as much, in the same direction."""
    point = found.first
    once = torch.cat([_delta(s, p, point)[0] for s, p in zip(whole, plain, strict=True)])
    doubled = torch.cat([_delta(s, p, point)[0] for s, p in zip(twice, plain, strict=True)])
    at = torch.cat([_seen(s, p, point)[0] for s, p in zip(whole, plain, strict=True)])
    ratio = float((doubled[at].norm(dim=-1) / once[at].norm(dim=-1)).median())
    cosine = float(torch.cosine_similarity(doubled[at], once[at], dim=-1).median())
    slack = SHARE_FULL if _full(plain[0]) else SHARE_HALF
    good = abs(ratio - 2) <= 2 * slack and cosine >= 1 - slack
    fault = "" if good else "strength ignored" if abs(ratio - 1) <= slack else "not proportional"
    figure = f"twice the strength writes {ratio:.3g} times as much, cosine {cosine:.4f}"
    return Answer("scale", HOLDS if good else FAILS, figure, fault, {"ratio": ratio, "cosine": cosine})


def amount(
    whole: Sequence[Pass], plain: Sequence[Pass], strength: float, adds: Mapping[Site, Tensor] | None, found: Found
) -> Answer:
    """Whether what is written is the vector that was meant, at the layer that was meant."""
    name = "amount"
    if not adds:
        return Answer(name, UNTOLD, "what is to be added was not given")
    if any(site.point not in ("resid_pre", "resid_post") for site in adds):
        return Answer(name, UNTOLD, "what is added inside a block is seen after what the block makes of it")
    wanted = {
        site.layer + (site.point == "resid_post"): strength * v.detach().float().cpu() for site, v in adds.items()
    }
    if other := sorted(set(wanted) ^ set(found.points)):
        figure = f"to be written at {_places(sorted(wanted))}, written at {_places(found.points)}"
        return Answer(name, FAILS, figure, "another layer", {"differ": other})
    worst, ratio = 0.0, 1.0
    for s, p, deltas in zip(whole, plain, found.deltas, strict=True):
        for point, vector in wanted.items():
            delta = deltas[point]
            at = moves(delta, p.stream[point][0])
            rows = delta[at]
            if not len(rows):
                continue
            after = s.stream[point][0].float()[at]
            noise = ROUNDED * torch.finfo(s.stream[point].dtype).eps * after.abs()
            off = float(((rows - vector).abs() - noise).clamp(min=0).norm(dim=-1).max()) / float(vector.norm())
            if off >= worst:
                worst, ratio = off, float((rows @ vector).median() / vector.square().sum())
    good = worst <= (SHARE_FULL if _full(plain[0]) else SHARE_HALF)
    fault = "" if good else "applied twice" if abs(ratio - 2) < 0.05 else "another amount"
    figure = f"{ratio:.3g} times what was meant, off by up to {worst:.1%} of it"
    return Answer(name, HOLDS if good else FAILS, figure, fault, {"ratio": ratio, "off": worst})


def _places(points: Sequence[int]) -> str:
    return ", ".join(place(n) for n in points)


def precision(whole: Sequence[Pass], plain: Sequence[Pass], found: Found) -> Answer:
    """Whether the stream keeps its dtype, and the digits that it had."""
    point, name = found.first, "precision"
    was, now = plain[0].stream[point].dtype, whole[0].stream[point].dtype
    if was != now:
        figure = f"the stream is {_dtype(was)} without and {_dtype(now)} with the hooks"
        return Answer(name, FAILS, figure, "dtype cast")
    for narrow in (torch.bfloat16, torch.float16) if was.itemsize > 2 else ():
        kept = [_fits(one.stream[point], narrow) for one in (*plain, *whole)]
        if all(kept[len(plain) :]) and not any(kept[: len(plain)]):
            return Answer(name, FAILS, f"{_dtype(was)} activations come back rounded to {_dtype(narrow)}", "dtype cast")
    return Answer(name, HOLDS, f"the stream stays {_dtype(was)}")


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _fits(h: Tensor, narrow: torch.dtype) -> bool:
    return torch.equal(h.to(narrow).to(h.dtype), h)


def same(plain: Sequence[Pass], again: Sequence[Pass]) -> bool:
    """Whether log-probabilities are equal to the bit."""
    return all(torch.equal(p.logprobs, a.logprobs) for p, a in zip(plain, again, strict=True))


def cleaned(plain: Sequence[Pass], again: Sequence[Pass], left: Sequence[str]) -> Answer:
    """Whether the model is what it was before."""
    change = max(float((a.logprobs - p.logprobs).abs().max()) for p, a in zip(plain, again, strict=True))
    figure = f"log-probabilities after removal differ by {change:.1e} nats"
    if left:
        figure += f"; {'; '.join(left[:3])}" + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    good = same(plain, again) and not left
    fault = "" if good else "left behind"
    return Answer("clean-up", HOLDS if good else FAILS, figure, fault, {"nats": change, "left": list(left)})


def size(
    whole: Sequence[Pass],
    plain: Sequence[Pass],
    cached: Sequence[Pass] | str,
    plain_cached: Sequence[Pass],
    found: Found,
    *,
    everywhere: bool,
) -> Answer:
    """How far the stream is moved in its own norm, and KL(steered ‖ unsteered) of the next token."""
    point = found.first
    pairs = list(zip(whole, plain, strict=True))
    share = torch.cat([_delta(s, p, point)[0].norm(dim=-1) / p.stream[point][0].float().norm(dim=-1) for s, p in pairs])
    share = share[torch.cat([_seen(s, p, point)[0] for s, p in pairs])]
    read = pairs if everywhere or isinstance(cached, str) else list(zip(cached, plain_cached, strict=True))
    nats = torch.cat([kl(s.logprobs[0], p.logprobs[0]) for s, p in read])
    finite = bool(share.isfinite().all() and nats.isfinite().all())
    of_norm, of_kl = _middle(share), _middle(nats)
    figure = (
        f"{of_norm[0]:.2g} of the stream's norm (95%: {of_norm[1]:.2g}); KL {of_kl[0]:.2g} nats (95%: {of_kl[1]:.2g})"
    )
    numbers = dict(zip(("norm_median", "norm_95", "kl_median", "kl_95"), (*of_norm, *of_kl), strict=True))
    return Answer("size", HOLDS if finite else FAILS, figure, "" if finite else "not finite", numbers)


def _middle(values: Float[Tensor, " n"]) -> tuple[float, float]:
    """Median and 95th percentile."""
    return float(values.quantile(0.5)), float(values.quantile(0.95))
