"""A step as one CUDA graph: captured when its shapes are new, replayed until they change.

A step starts thousands of kernels, and a GPU waits for the process that starts them. A graph starts all of them at
once. It reads and writes the tensors that it was captured with, so whatever exchanges one says so (`stale`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from elicit.decoding.graph.rows import Step

WARM_UP = 3  # steps before a capture, in which libraries choose their kernels


class Captured:
    """A step that is replayed where that can be done.

    Args:
        step: what is computed.
        graphs: whether to capture; on a device without graphs the step is computed as it is.

    Attributes:
        refused: why a capture failed, after which each step is computed as it is; "" where none did.
        captures: how many were made.
    """

    def __init__(self, step: Step, graphs: bool) -> None:
        self.step, self.graphs = step, graphs
        self.refused = ""
        self.captures = 0
        self._replay: Callable[[], object] | None = None

    def stale(self) -> None:
        """A tensor that the step reads is another one: the next step is captured anew."""
        self._replay = None

    def __call__(self) -> None:
        if self.graphs and self._replay is None:
            self._capture()
        (self._replay or self.step)()

    def _capture(self) -> None:
        """With rows that all stand still, so that what runs meanwhile changes nothing."""
        rows = self.step.rows
        alive = rows.alive.clone()
        rows.alive.zero_()
        try:
            self._replay = self._captured()
            self.captures += 1
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a host value is read, or the driver has no graphs: told in the run
            self.graphs, self.refused = False, next(iter(str(error).strip().splitlines()), type(error).__name__)
        finally:
            self.step.now.zero_()
            rows.alive.copy_(alive)

    def _captured(self) -> Callable[[], object]:
        """Warm up on a stream beside the current one, as a capture must be, and capture, which computes nothing."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.step.now.zero_()
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay
