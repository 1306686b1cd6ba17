"""A step as one CUDA graph: captured when its shapes are new, replayed until they change.

A step starts thousands of kernels, and a GPU waits for the process that starts them. A graph starts all of them at
once. It reads and writes the tensors that it was captured with, so whatever exchanges one says so (`stale`).
"""

from __future__ import annotations

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
        self._graph: torch.cuda.CUDAGraph | None = None

    def stale(self) -> None:
        """A tensor that the step reads is another one: the next step is captured anew."""
        self._graph = None

    def __call__(self) -> None:
        if not self.graphs:
            self.step()
            return
        if self._graph is None:
            self._capture()
        if self._graph is None:
            self.step()
        else:
            self._graph.replay()

    def _capture(self) -> None:
        """Warm up with rows that all stand still, then capture, which computes nothing."""
        rows = self.step.rows
        alive = rows.alive.clone()
        rows.alive.zero_()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self.step.now.zero_()
                    self.step()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                self.step()
            self._graph = graph
            self.captures += 1
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a host value is read, or the driver has no graphs: told in the run
            self.graphs, self.refused = False, next(iter(str(error).strip().splitlines()), type(error).__name__)
        finally:
            self.step.now.zero_()
            rows.alive.copy_(alive)
