"""Capture: activations at any sites and positions, from prompts, from given continuations, and while generating.

A `Recorder` is hooks and a clock on a model; what it sees goes to a sink: memory, or safetensors shards that are
written as they fill, so that memory does not grow with the number of prompts. Padding never reaches a sink.

    acts = capture(lm, prompts, [Site(12)])                       # all prompt positions
    acts = capture(lm, prompts, sites, last=1)                    # the last prompt token
    acts = capture(lm, texts, sites, lengths=prompt_lengths)      # prompts with their continuations
    acts = capture(lm, prompts, sites, out=folder)                # to shards; read back with Activations.open
    with recording(lm, sites) as recorder: decode(…, recorder=recorder); recorder.activations()

On a GPU nothing waits for a copy: positions are chosen on the device, what is kept is copied on a stream of its own
while forwards go on, and two forwards later it is looked at and handed to the sink.

Every captured position is known by (row, branch, step): step 0 is the last prompt token (see `probes.clock`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from probes.activations import INDEX, WRITERS, Activations, Memory, Shards, Sink
from probes.batching import by_length, check_embedded, inputs, may_be_ragged, tokens_together
from probes.clock import Clock, Frame
from probes.errors import UserError
from probes.finite import NotFiniteError, extremes
from probes.sites import Site, check_site, decoder, on_site
from probes.transfer import ToHost


class _Enough(Exception):
    """Raised by the last hook of a capture: what comes after it in the forward is not needed."""


class _Taken(NamedTuple):
    """Of one forward, copies that may be under way.

    Attributes:
        columns: for the sink.
        sites: what was read, and the dtype that is named where it is not finite.
        extremes: of each.
        wait: until the copies are there.
    """

    columns: dict[str, Tensor]
    sites: list[tuple[Site, torch.dtype]]
    extremes: Float[Tensor, "sites two"]
    wait: Callable[[], None]


class Recorder:
    """Hooks that hand activations to a sink, and the clock that tells them what they see.

    Args:
        lm: the model.
        sites: where to read; one that is given twice is read once.
        steps: only these steps are kept, [first, stop); None: no limit.
        dtype: of what is kept; the model's own unless given.
        sink: memory unless given.
        overflow: what is finite, but beyond the dtype that is kept, is kept as infinity and is no error.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        sites: Sequence[Site],
        *,
        steps: tuple[int | None, int | None] = (None, None),
        dtype: torch.dtype | None = None,
        sink: Sink | None = None,
        overflow: bool = False,
    ) -> None:
        if not sites:
            raise UserError("no sites were given to capture; give at least one, like Site(12)")
        sites = tuple(dict.fromkeys(sites))
        for site in sites:
            check_site(lm, site)
        self.lm = lm
        self.sites = sites
        self.steps = steps
        self.dtype = dtype
        self.overflow = overflow
        self.sink: Sink = sink or Memory()
        self.stop_early = False
        self.numbers: Tensor | None = None  # of the prompts' rows; counted on from forward to forward unless given
        self.branch: Tensor | None = None
        self.patterns: dict[Site, dict[tuple[int, int, int], Tensor]] = {}
        self._columns: dict[str, Tensor] = {}
        self._extremes: list[tuple[Site, torch.dtype, Tensor]] = []  # of what is about to go to the sink
        self._host = ToHost(lm.device)
        self._taken: deque[_Taken] = deque()
        self._frame: Frame | None = None
        self._count = 0  # positions of this forward that are kept
        self._kept: dict[torch.device, Tensor] = {}  # which, on each device; empty where it is all of them
        self._padding: dict[int, int] = {}  # left padding of each row
        self._seen = 0
        self._first = self._expected = 0  # of a batch that comes in parts: its first row, rows that are to come
        self._numbers = torch.empty(0, dtype=torch.long)
        self.clock = Clock(lm)
        self._last = max(sites, key=lambda site: site.order)
        # In the forward's order, whatever order they were given in.
        ordered = sorted(sites, key=lambda site: site.order)
        self._handles = [on_site(lm, site, self._hook(site)) for site in ordered]

    @property
    def needs_patterns(self) -> bool:
        """Whether attention must be one that returns its pattern."""
        return any(site.point == "pattern" for site in self.sites)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self.clock.remove()

    def expect(self, rows: Sequence[int] | None = None, *, of: int = 0, whole: bool = False) -> None:
        """Say what the next prompts' forward will be: these rows of a batch `of` so many; see `Count.expect`."""
        self.clock.expect(rows, whole=whole)
        if rows is not None and self._expected <= 0:
            self._first, self._expected = self._seen, of
        self._expected -= 0 if rows is None else len(rows)

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        """Row r continues prompt `question[r]`; a prompt's rows are numbered as its branches."""
        self.clock.fork(question)
        counts = torch.bincount(question)
        self.branch = torch.arange(len(question), device=question.device) - (counts.cumsum(0) - counts)[question]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows continue."""
        self.clock.keep(rows)
        if self.branch is not None:
            self.branch = self.branch[rows]

    def _hook(self, site: Site) -> Callable[[Tensor], None]:
        def hook(h: Tensor) -> None:
            frame = self.clock.frame
            assert frame is not None
            if frame is not self._frame:
                self._begin(frame, h)
            if site.point == "pattern":
                self._keep_pattern(site, h, frame)
            elif self._count:
                flat = h.detach().flatten(0, 1)
                # A copy in any case: later modules may write into what they were handed.
                taken = flat[self._index(h.device)] if self._kept else flat.clone()
                self._columns[str(site)] = self._host.copy(self._seen_at(site, taken))
            if site == self._last and self._columns:
                self.check_reached()
                device = self._extremes[0][2].device
                ends = torch.stack([ends.to(device) for _, _, ends in self._extremes])
                named = [(at, dtype) for at, dtype, _ in self._extremes]
                self._taken.append(_Taken(self._columns, named, self._host.copy(ends), self._host.marked()))
                self._columns, self._extremes = {}, []
                self._hand_over(0 if self.needs_patterns else self._host.ahead)
            if site == self._last and self.stop_early:
                raise _Enough

        return hook

    def _seen_at(self, site: Site, taken: Tensor) -> Tensor:
        """In the dtype that is kept, which float16 may be too narrow for."""
        kept = taken.to(self.dtype or taken.dtype)
        narrow = kept.dtype if kept.dtype == torch.float16 else taken.dtype
        if self.overflow:
            narrow = taken.dtype
        self._extremes.append((site, narrow, extremes(taken if self.overflow else kept)))
        return kept

    def flush(self) -> None:
        """Hand over what is still under way.

        Raises:
            NotFiniteError: the forward computed it at a site.
        """
        self._hand_over(0)

    def _hand_over(self, ahead: int) -> None:
        """All but the last so many forwards, to the sink; refuse the first site where one is not finite."""
        while len(self._taken) > ahead:
            taken = self._taken.popleft()
            taken.wait()
            for (site, dtype), fine in zip(taken.sites, taken.extremes.isfinite().all(1).tolist(), strict=True):
                if not fine:
                    raise NotFiniteError(f"the activations at {site}", dtype)
            self.sink.put(taken.columns)

    def _index(self, device: torch.device) -> Int[Tensor, " kept"]:
        """Which of the flattened positions are kept."""
        if device not in self._kept:
            self._kept[device] = next(iter(self._kept.values())).to(device)
        return self._kept[device]

    def _begin(self, frame: Frame, h: Tensor) -> None:
        self.check_reached()  # what a forward leaves, whose last site was not run
        self._frame, self._extremes = frame, []
        rows = h.shape[0]
        pos = h.shape[2] if h.ndim == 4 else h.shape[1]
        if h.ndim == 3:
            frame.check(self.lm, h)
        steps = frame.steps.expand(rows, pos)  # on the device of the model's inputs, where a site's may be another
        self._choose(frame, steps)
        if frame.lengths is not None and frame.fresh is None:  # the prompts' own forward
            first, count = (self._seen, rows) if frame.rows is None else (self._first, int(frame.rows.max()) + 1)
            self._numbers = torch.arange(first, first + count) if self.numbers is None else self.numbers
            self._numbers = self._numbers.to(steps.device)
            self._seen += rows
            self.branch = None
        row = self._numbers if frame.rows is None else self._numbers[frame.rows]
        branch = torch.zeros_like(row) if self.branch is None else self.branch
        if self._count:
            each = {"row": row[:, None].expand(rows, pos), "branch": branch[:, None].expand(rows, pos), "step": steps}
            index = self._index(steps.device) if self._kept else slice(None)
            self._columns = {name: self._host.copy(value.flatten()[index]) for name, value in each.items()}

    def _choose(self, frame: Frame, steps: Int[Tensor, "rows pos"]) -> None:
        """Which positions of this forward are kept; without a look at the device where all are, or none."""
        self._kept, self._count = {}, steps.numel()
        first, stop = self.steps
        if frame.step is not None and frame.counted is None:  # one step of all rows
            if (first is not None and frame.step < first) or (stop is not None and frame.step >= stop):
                self._count = 0
            return
        if frame.counted is None and first is None and stop is None:
            return
        kept = torch.ones_like(steps, dtype=torch.bool) if frame.counted is None else frame.counted
        if first is not None:
            kept = kept & (steps >= first)
        if stop is not None:
            kept = kept & (steps < stop)
        index = kept.flatten().nonzero()[:, 0]
        self._count = len(index)
        if len(index) < kept.numel():
            self._kept = {index.device: index}

    def _keep_pattern(self, site: Site, weights: Tensor, frame: Frame) -> None:
        pos = weights.shape[2]
        table = self.patterns.setdefault(site, {})
        self._host.marked()()  # the columns are read below
        kept = self._index(weights.device).tolist() if self._kept else range(self._count)
        for place, flat in enumerate(kept):
            r, q = divmod(flat, pos)
            keys = tuple(int(self._columns[name][place]) for name in INDEX)
            held = weights[r, :, q].detach()
            if frame.lengths is not None:  # later keys and padding are cut off
                held = (
                    held[:, : q + 1]
                    if frame.valid is None
                    else held[:, : q + 1][:, frame.valid[r, : q + 1].to(held.device)]
                )
                self._padding[keys[0]] = 0 if frame.valid is None else int((~frame.valid[r]).sum())
            else:
                held = _from_first_token(held, self.clock.seen - pos + q, self.clock.seen, self._padding[keys[0]])
            table[keys] = self._seen_at(site, held).to("cpu")  # type: ignore[index]

    def check_reached(self) -> None:
        """Refuse a forward that ended and passed by a site.

        Raises:
            UserError: the sites are named.
        """
        lacking = [str(site) for site in self.sites if site.point != "pattern" and str(site) not in self._columns]
        if self._columns and lacking:
            self._columns = {}
            raise UserError(
                f"{type(self.lm).__name__} did not run {', '.join(lacking)} in this forward (layers that attend "
                "to an image are skipped without one); give sites of other layers"
            )

    def activations(self) -> Activations:
        """What was kept in memory so far.

        Raises:
            UserError: nothing was seen, or the sink is not memory.
            NotFiniteError: of a forward that was not looked at yet.
        """
        self.flush()
        if not isinstance(self.sink, Memory):
            raise UserError("these activations were streamed to shards; read them with Activations.open")
        pieces = self.sink.pieces
        if not pieces:
            raise UserError("nothing was captured: no forward ran, or none of its steps were asked for")
        sites = [site for site in self.sites if site.point != "pattern"]
        values = {site: torch.cat([p[str(site)] for p in pieces]) for site in sites}
        row, branch, step = (torch.cat([p[name] for p in pieces]) for name in INDEX)
        return Activations(values, row, branch, step, self.patterns)


def _from_first_token(
    weights: Float[Tensor, "heads held"], query: int, count: int, padding: int
) -> Float[Tensor, "heads keys"]:
    """What a cached step attends to, from its row's first token on.

    A cache of a window holds the last keys alone, and those before them weigh 0; a static one has room for more.

    Args:
        query: the place of the step's token, padding included.
        count: places that were computed so far, likewise.
        padding: at the row's left.
    """
    gone = max(0, count - weights.shape[1])
    kept = weights[:, max(0, padding - gone) : query + 1 - gone]
    return functional.pad(kept, (max(0, gone - padding), 0))


@contextmanager
def recording(
    lm: PreTrainedModel,
    sites: Sequence[Site],
    *,
    steps: tuple[int | None, int | None] = (None, None),
    dtype: torch.dtype | None = None,
    out: Path | str | None = None,
    overflow: bool = False,
) -> Iterator[Recorder]:
    """Record every forward of a model inside the context, prompts and cached steps alike.

    Sites are read as later layers see them: open `steering.hooks.attached` first, and what is recorded is steered.

    Args:
        lm: a causal LM of `transformers`.
        sites: where to read; `pattern` sites exchange the attention for the eager one inside the context.
        steps: only steps [first, stop) are kept.
        dtype: of what is kept; the model's own unless given.
        out: a folder for shards instead of memory.
        overflow: what is finite, but beyond `dtype`, is kept as infinity and is no error.

    Raises:
        UserError: a site that the model lacks, a folder with another capture, patterns into shards.
        NotFiniteError: from a forward inside the context whose activations are NaN or infinite.
    """
    patterns = any(site.point == "pattern" for site in sites)
    if patterns and out is not None:
        raise UserError("attention patterns have a size a position and do not go into shards; capture them in memory")
    sink = Shards(out, writers=1 if lm.device.type == "cpu" else WRITERS) if out is not None else None
    before = lm.config._attn_implementation
    recorder = None
    try:
        if patterns:
            lm.set_attn_implementation("eager")
        recorder = Recorder(lm, sites, steps=steps, dtype=dtype, sink=sink, overflow=overflow)
        yield recorder
        recorder.flush()
    except BaseException:
        if sink is not None:
            sink.abandon()
        raise
    finally:
        if recorder is not None:
            recorder.remove()
        if patterns:
            lm.set_attn_implementation(before)
    recorder.sink.close()


@torch.inference_mode()
def capture(
    lm: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    sites: Sequence[Site],
    *,
    lengths: Sequence[int] | None = None,
    steps: tuple[int | None, int | None] = (None, None),
    last: int | None = None,
    batch_tokens: int | None = None,
    dtype: torch.dtype | None = None,
    out: Path | str | None = None,
    overflow: bool = False,
) -> Activations | None:
    """Activations of given texts, in batches of similar length; layers after the last site are not run.

    Args:
        lm: a causal LM of `transformers`.
        texts: token ids of each text.
        sites: where to read.
        lengths: how many tokens of each text are prompt; all unless given.
        steps: only steps [first, stop) are kept.
        last: only the last so many prompt tokens: steps (1 − last, 1).
        batch_tokens: tokens of a batch, padding included; unless given 2,048 on a CPU, up to 16,384 elsewhere.
        dtype: of what is kept; the model's own unless given.
        out: a folder for shards; then nothing is returned.
        overflow: what is finite, but beyond `dtype`, is kept as infinity and is no error.

    Returns:
        The activations, texts numbered as given; None where they went to `out`.

    Raises:
        UserError: no texts, an empty text, not one length a text, a token or a site that the model lacks.
        NotFiniteError: activations that are NaN or infinite; padding aside, which nobody keeps.
    """
    if not texts or not all(len(text) for text in texts):
        raise UserError("no texts, or an empty one, were given to capture; give token ids for each")
    if lengths is not None and len(lengths) != len(texts):
        raise UserError(f"{len(lengths)} prompt lengths were given for {len(texts)} texts; give one each")
    if last is not None:
        steps = (1 - last, 1)
    check_embedded(lm, texts)
    with recording(lm, sites, steps=steps, dtype=dtype, out=out, overflow=overflow) as recorder:
        recorder.stop_early = True
        run = decoder(lm)
        together = batch_tokens or tokens_together(lm, len(sites))
        for batch in by_length(texts, together, ragged=may_be_ragged(lm, texts)):
            recorder.numbers = torch.tensor(batch)
            recorder.clock.given = None if lengths is None else torch.tensor([lengths[i] for i in batch])
            with suppress(_Enough):
                run(**inputs(lm, [texts[i] for i in batch]), use_cache=False)
            recorder.check_reached()
    return recorder.activations() if out is None else None
