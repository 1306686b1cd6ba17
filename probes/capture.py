"""Capture: activations at any sites and positions, from prompts, from given continuations, and while generating.

A `Recorder` is hooks and a clock on a model; what it sees goes to a sink: memory, or safetensors shards that are
written as they fill, so that memory does not grow with the number of prompts. Padding never reaches a sink.

    acts = capture(lm, prompts, [Site(12)])                       # all prompt positions
    acts = capture(lm, prompts, sites, last=1)                    # the last prompt token
    acts = capture(lm, texts, sites, lengths=prompt_lengths)      # prompts with their continuations
    acts = capture(lm, prompts, sites, out=folder)                # to shards; read back with Activations.open
    with recording(lm, sites) as recorder: decode(…, recorder=recorder); recorder.activations()

Every captured position is known by (row, branch, step): step 0 is the last prompt token (see `probes.clock`).
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from probes.batching import by_length, left_pad
from probes.clock import Clock, Frame
from probes.errors import UserError
from probes.sites import Site, check_site, decoder, on_site

BATCH_TOKENS = 2048
SHARD_BYTES = 64 << 20
INDEX = ("row", "branch", "step")
_MANIFEST = "activations.json"


@dataclass(frozen=True, eq=False)
class Activations:
    """Captured activations: one entry a position.

    Args:
        values: for each site [positions, d_model].
        row: the prompt of each position, by its number.
        branch: the branch of that prompt, 0 where there is one.
        step: the step of each position.
        patterns: for `pattern` sites: for each (row, branch, step) [heads, keys], the keys from the first token on.
    """

    values: dict[Site, Float[Tensor, "positions d_model"]]
    row: Int[Tensor, " positions"]
    branch: Int[Tensor, " positions"]
    step: Int[Tensor, " positions"]
    patterns: dict[Site, dict[tuple[int, int, int], Float[Tensor, "heads keys"]]]

    def __len__(self) -> int:
        return len(self.row)

    def at(self, site: Site, *, step: int | None = None, row: int | None = None) -> Float[Tensor, "positions d_model"]:
        """The values at a site, of one step or one row only where given."""
        kept = torch.ones(len(self), dtype=torch.bool)
        if step is not None:
            kept &= self.step == step
        if row is not None:
            kept &= self.row == row
        return self.values[site][kept]

    @staticmethod
    def open(folder: Path | str) -> Activations:
        """Everything that was streamed to a folder, in memory. `shards` reads it a piece at a time.

        Raises:
            UserError: no capture there, or one that was not finished.
        """
        pieces = list(shards(folder))
        columns = {name: torch.cat([p[name] for p in pieces]) for name in pieces[0]}
        sites = {Site.parse(name): value for name, value in columns.items() if name not in INDEX}
        return Activations(sites, columns["row"], columns["branch"], columns["step"], {})


def shards(folder: Path | str) -> Iterator[dict[str, Tensor]]:
    """The shards of a capture, one after the other: `row`, `branch`, `step`, and a tensor a site under its name.

    Raises:
        UserError: no capture there, one that was not finished, or a shard that was cut.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    if not (folder / _MANIFEST).is_file():
        raise UserError(f"{str(folder)!r} holds no finished capture ({_MANIFEST} is missing); capture again")
    for name in json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["shards"]:
        try:
            yield load_file(folder / name)
        except (SafetensorError, FileNotFoundError) as error:
            raise UserError(f"shard {name!r} in {str(folder)!r} is broken ({error}); capture again") from error


@runtime_checkable
class Sink(Protocol):
    """Where a recorder puts what it sees: a batch of columns (`INDEX` and the sites) at a time."""

    def put(self, columns: dict[str, Tensor]) -> None: ...

    def close(self) -> None: ...


class Memory:
    """Keeps all."""

    def __init__(self) -> None:
        self.pieces: list[dict[str, Tensor]] = []

    def put(self, columns: dict[str, Tensor]) -> None:
        self.pieces.append(columns)

    def close(self) -> None:
        pass


class Shards:
    """Writes safetensors shards in a thread of its own, a few batches behind at most."""

    def __init__(self, folder: Path | str, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = Path(folder)
        if (self.folder / _MANIFEST).exists():
            raise UserError(f"{str(folder)!r} holds a capture already; give another folder or remove it")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.shard_bytes = shard_bytes
        self.names: list[str] = []
        self.error: BaseException | None = None
        self._waiting: queue.Queue[dict[str, Tensor] | None] = queue.Queue(maxsize=2)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, columns: dict[str, Tensor]) -> None:
        self._fail()
        self._waiting.put(columns)

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()
        self._fail()
        part = self.folder / f".{_MANIFEST}"
        part.write_text(json.dumps({"shards": self.names}), encoding="utf-8")
        part.replace(self.folder / _MANIFEST)

    def abandon(self) -> None:
        """Stop without a manifest: what was not finished cannot be opened."""
        self._waiting.put(None)
        self._thread.join()

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        held: list[dict[str, Tensor]] = []
        size = 0
        while True:
            columns = self._waiting.get()
            if self.error is not None:
                if columns is None:
                    return
                continue  # the writer is told at its next put; until then nothing may block it
            try:
                if columns is not None:
                    held.append(columns)
                    size += sum(t.numel() * t.element_size() for t in columns.values())
                if held and (columns is None or size >= self.shard_bytes):
                    self._write(held)
                    held, size = [], 0
            except BaseException as error:  # noqa: BLE001  handed to the thread that captures, which raises it
                self.error = error
            if columns is None:
                return

    def _write(self, held: list[dict[str, Tensor]]) -> None:
        from safetensors.torch import save_file

        name = f"{len(self.names):05d}.safetensors"
        whole = {k: held[0][k] if len(held) == 1 else torch.cat([h[k] for h in held]) for k in held[0]}
        save_file({k: v.contiguous() for k, v in whole.items()}, self.folder / name)
        self.names.append(name)


class Recorder:
    """Hooks that hand activations to a sink, and the clock that tells them what they see.

    Args:
        lm: the model.
        sites: where to read.
        steps: only these steps are kept, [first, stop); None: no limit.
        dtype: of what is kept; the model's own unless given.
        sink: memory unless given.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        sites: Sequence[Site],
        *,
        steps: tuple[int | None, int | None] = (None, None),
        dtype: torch.dtype | None = None,
        sink: Sink | None = None,
    ) -> None:
        if not sites:
            raise UserError("no sites were given to capture; give at least one, like Site(12)")
        for site in sites:
            check_site(lm, site)
        self.sites = tuple(sites)
        self.steps = steps
        self.dtype = dtype
        self.sink: Sink = sink or Memory()
        self.numbers: Tensor | None = None  # of the prompts' rows; counted on from forward to forward unless given
        self.branch: Tensor | None = None
        self.patterns: dict[Site, dict[tuple[int, int, int], Tensor]] = {}
        self._columns: dict[str, Tensor] = {}
        self._frame: Frame | None = None
        self._kept: Tensor | None = None
        self._padding: dict[int, int] = {}  # left padding of each row
        self._seen = 0
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

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        """Row r continues prompt `question[r]`; a prompt's rows are numbered as its branches."""
        self.clock.fork(question)
        counts = torch.bincount(question)
        self.branch = torch.arange(len(question), device=question.device) - (counts.cumsum(0) - counts)[question]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows go on."""
        self.clock.keep(rows)
        if self.branch is not None:
            self.branch = self.branch[rows]

    def _hook(self, site: Site) -> Callable[[Tensor], None]:
        def hook(h: Tensor) -> None:
            frame = self.clock.frame
            assert frame is not None
            if frame is not self._frame:
                self._begin(frame, h)
            assert self._kept is not None
            if site.point == "pattern":
                self._keep_pattern(site, h, frame)
            elif len(self._kept):
                rows, width = h.shape[0] * h.shape[1], h.shape[2]
                flat = h.detach().reshape(rows, width)
                # A copy in any case: later modules may write into what they were handed.
                taken = flat.clone() if len(self._kept) == rows else flat[self._kept]
                self._columns[str(site)] = taken.to("cpu", self.dtype or taken.dtype)
            if site == self._last and self._columns:
                self.sink.put(self._columns)
                self._columns = {}

        return hook

    def _begin(self, frame: Frame, h: Tensor) -> None:
        self._frame = frame
        rows = h.shape[0]
        pos = h.shape[2] if h.ndim == 4 else h.shape[1]
        steps = frame.steps.expand(rows, pos)
        kept = torch.ones(rows, pos, dtype=torch.bool, device=h.device) if frame.valid is None else frame.valid
        first, stop = self.steps
        if first is not None:
            kept = kept & (steps >= first)
        if stop is not None:
            kept = kept & (steps < stop)
        index = kept.flatten().nonzero()[:, 0]
        if frame.lengths is not None:  # the prompts' own forward
            self._numbers = torch.arange(self._seen, self._seen + rows) if self.numbers is None else self.numbers
            self._numbers = self._numbers.to(h.device)
            self._seen += rows
            self.branch = None
        row = self._numbers if frame.rows is None else self._numbers[frame.rows]
        branch = torch.zeros_like(row) if self.branch is None else self.branch
        self._kept = index
        if len(index):
            self._columns = {
                "row": row[:, None].expand(rows, pos).flatten()[index].cpu(),
                "branch": branch[:, None].expand(rows, pos).flatten()[index].cpu(),
                "step": steps.flatten()[index].cpu(),
            }

    def _keep_pattern(self, site: Site, weights: Tensor, frame: Frame) -> None:
        assert self._kept is not None
        pos = weights.shape[2]
        table = self.patterns.setdefault(site, {})
        for place, flat in enumerate(self._kept.tolist()):
            r, q = divmod(flat, pos)
            keys = tuple(int(self._columns[name][place]) for name in INDEX)
            held = weights[r, :, q].detach()
            if frame.lengths is not None:  # later keys and padding are cut off
                held = held[:, : q + 1] if frame.valid is None else held[:, : q + 1][:, frame.valid[r, : q + 1]]
                self._padding[keys[0]] = 0 if frame.valid is None else int((~frame.valid[r]).sum())
            else:
                held = held[:, self._padding[keys[0]] :]
            table[keys] = held.to("cpu", self.dtype or held.dtype)  # type: ignore[index]

    def activations(self) -> Activations:
        """What was kept in memory so far.

        Raises:
            UserError: nothing was seen, or the sink is not memory.
        """
        if not isinstance(self.sink, Memory):
            raise UserError("these activations were streamed to shards; read them with Activations.open")
        pieces = self.sink.pieces
        if not pieces:
            raise UserError("nothing was captured: no forward ran, or none of its steps were asked for")
        sites = [site for site in self.sites if site.point != "pattern"]
        values = {site: torch.cat([p[str(site)] for p in pieces]) for site in sites}
        row, branch, step = (torch.cat([p[name] for p in pieces]) for name in INDEX)
        return Activations(values, row, branch, step, self.patterns)


@contextmanager
def recording(
    lm: PreTrainedModel,
    sites: Sequence[Site],
    *,
    steps: tuple[int | None, int | None] = (None, None),
    dtype: torch.dtype | None = None,
    out: Path | str | None = None,
) -> Iterator[Recorder]:
    """Record every forward of a model inside the context, prompts and cached steps alike.

    Sites are read as later layers see them: open `steering.hooks.attached` first, and what is recorded is steered.

    Args:
        lm: a causal LM of `transformers`.
        sites: where to read; `pattern` sites exchange the attention for the eager one inside the context.
        steps: only steps [first, stop) are kept.
        dtype: of what is kept; the model's own unless given.
        out: a folder for shards instead of memory.

    Raises:
        UserError: a site that the model lacks, a folder with another capture, patterns into shards.
    """
    patterns = any(site.point == "pattern" for site in sites)
    if patterns and out is not None:
        raise UserError("attention patterns have a size a position and do not go into shards; capture them in memory")
    sink = Shards(out) if out is not None else None
    before = lm.config._attn_implementation
    recorder = None
    try:
        if patterns:
            lm.set_attn_implementation("eager")
        recorder = Recorder(lm, sites, steps=steps, dtype=dtype, sink=sink)
        yield recorder
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
    batch_tokens: int = BATCH_TOKENS,
    dtype: torch.dtype | None = None,
    out: Path | str | None = None,
) -> Activations | None:
    """Activations of given texts, in batches of similar length; the output layer is not run.

    Args:
        lm: a causal LM of `transformers`.
        texts: token ids of each text.
        sites: where to read.
        lengths: how many tokens of each text are prompt; all unless given.
        steps: only steps [first, stop) are kept.
        last: only the last so many prompt tokens: steps (1 − last, 1).
        batch_tokens: tokens of a batch, padding included.
        dtype: of what is kept; the model's own unless given.
        out: a folder for shards; then nothing is returned.

    Returns:
        The activations, texts numbered as given; None where they went to `out`.

    Raises:
        UserError: no texts, an empty text, a site that the model lacks.
    """
    if not texts or not all(len(text) for text in texts):
        raise UserError("no texts, or an empty one, were given to capture; give token ids for each")
    if last is not None:
        steps = (1 - last, 1)
    with recording(lm, sites, steps=steps, dtype=dtype, out=out) as recorder:
        for batch in by_length(texts, batch_tokens):
            recorder.numbers = torch.tensor(batch)
            recorder.clock.given = None if lengths is None else torch.tensor([lengths[i] for i in batch])
            padded = left_pad([texts[i] for i in batch], lm.device)
            decoder(lm)(
                input_ids=padded.ids,
                attention_mask=padded.mask.long(),
                position_ids=padded.positions,
                use_cache=False,
            )
    return recorder.activations() if out is None else None
