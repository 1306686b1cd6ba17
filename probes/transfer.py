"""Copies from a device to the host that nobody waits for until they are read.

On a GPU they run on a stream of their own beside the forward, into page-locked buffers. PyTorch gives a buffer out
again once it is let go of, so there are as many as copies that are not yet done with: a ring, where whoever takes the
copies is bounded. Elsewhere a copy is done when it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

AHEAD = 2  # batches whose copies may be under way


class ToHost:
    """Copies to the host, in the order in which they were asked for.

    Args:
        device: of the model's inputs; layers may be on others.
    """

    def __init__(self, device: torch.device) -> None:
        self.ahead = AHEAD if device.type == "cuda" else 0
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def copy(self, x: Tensor) -> Tensor:
        """A tensor on the host; of one on a GPU it has its numbers when what `marked` gave was called."""
        if x.device.type != "cuda":
            return x.to("cpu")
        if x.device not in self._streams:
            self._streams[x.device] = torch.cuda.Stream(x.device)
        stream = self._streams[x.device]
        stream.wait_stream(torch.cuda.current_stream(x.device))
        out = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        with torch.cuda.stream(stream):
            out.copy_(x, non_blocking=True)
        x.record_stream(stream)  # its memory is not given to others before
        return out

    def marked(self) -> Callable[[], None]:
        """Waits for all copies that were asked for so far."""
        return partial(_wait, [stream.record_event() for stream in self._streams.values()])


def _wait(events: list[torch.cuda.Event]) -> None:
    for event in events:
        event.synchronize()
