"""A call of the engine as a worker sees it: whose tokens are chosen how, and what is kept of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor

from elicit.decoding.decoders import Greedy, RngStream, Sampling
from elicit.decoding.decoders.sampling import SamplingPolicy
from elicit.decoding.parts import without
from elicit.decoding.thought import Thought
from probes.confidence import Top2, token_statistics, top2

MARK = "elicit"
"""The request's extra argument that holds [call, row, and of a sample its stream: seed, sample, epoch, choice]."""


class Call:
    """Chooses the tokens of the requests that carry its number.

    Args:
        decoder: greedy, or sampling; each row is one branch.
        opened: 0, or how many of the likeliest tokens are kept instead, of a first step that branches.
        unlisted: ids that are never chosen.
        device: of the logits.
        thoughts: what a row has thought when its request begins; None: thoughts are not ended.
    """

    def __init__(
        self,
        decoder: Greedy | Sampling,
        opened: int,
        unlisted: Sequence[int],
        device: torch.device,
        thoughts: Callable[[int], Thought] | None = None,
    ) -> None:
        self.thoughts = thoughts
        self.thinking: dict[int, tuple[int, Thought]] = {}  # steps of each row, and its thought after them
        self.decoder, self.opened = decoder, opened
        self.never = torch.tensor(list(unlisted), dtype=torch.long, device=device)
        self.uniform: dict[int, Float[np.ndarray, " steps"]] = {}
        self.kept: list[tuple[list[int], list[int], Tensor, Tensor]] = []
        self.sampling = None
        if isinstance(decoder, Sampling):
            self.sampling = SamplingPolicy(replace(decoder, samples=1), [RngStream(0, "")])

    def add(self, row: int, stream: Sequence[int | str]) -> None:
        """A request enters the batch; its numbers are made once."""
        if stream and row not in self.uniform:
            seed, sample, epoch, choice = stream
            drawn = RngStream(int(seed), str(sample), int(epoch), int(choice))
            self.uniform[row] = drawn.uniform(self.decoder.max_new_tokens)

    def choose(
        self, logits: Float[Tensor, "rows vocab"], rows: Sequence[int], outputs: Sequence[Sequence[int]]
    ) -> Int[Tensor, " rows"]:
        """The token of each row after what it has written; statistics are kept."""
        steps = [len(output) for output in outputs]
        logits = without(logits, self.never)
        top = top2(logits)
        if self.opened:
            # Stable, as `BranchingPolicy`: of equal logits the lower id comes first.
            opened = logits.float().sort(dim=-1, descending=True, stable=True).indices[:, : self.opened]
            flat = opened.reshape(-1)
            every = logits.repeat_interleave(self.opened, 0)
            both = Top2(*(part.repeat_interleave(self.opened, 0) for part in top))
            self._keep(rows, steps, flat, every, both)
            return opened[:, 0]
        if self.sampling is None:
            tokens = top.argmax
        else:
            numbers = np.array([self.uniform[row][step] for row, step in zip(rows, steps, strict=True)])
            tokens = self.sampling.chosen(logits, torch.from_numpy(numbers).to(logits.device))
        if self.thoughts is not None:
            pairs = zip(rows, outputs, tokens.tolist(), strict=True)
            tokens = torch.tensor([self._written(*one) for one in pairs], device=logits.device)
        self._keep(rows, steps, tokens, logits, top)
        return tokens

    def _written(self, row: int, output: Sequence[int], chosen: int) -> int:
        """The token that a row writes, where its thought may have to end."""
        assert self.thoughts is not None
        steps, thought = self.thinking.get(row, (-1, None))
        if thought is None or steps != len(output):  # it begins, or this step is computed again
            thought = self.thoughts(row)
            for token in output:
                thought.token(token)
        written = thought.token(chosen)
        self.thinking[row] = len(output) + 1, thought
        return written

    def _keep(self, rows: Sequence[int], steps: Sequence[int], tokens: Tensor, logits: Tensor, top: Top2) -> None:
        values = torch.stack([top.values[:, 0].float(), *token_statistics(logits, top, tokens)])
        self.kept.append((list(rows), list(steps), tokens, values))

    def packed(self) -> bytes:
        """What was kept, in the order in which it was computed: what a request computed twice comes again.

        Returns:
            Safetensors: `rows` and `steps` [kept], `tokens` [kept, width] and `values` [5, kept, width]; width is 1, or
            the number of tokens that were opened. Values are the largest logit and the statistics of `measured`.
        """
        width = max(1, self.opened)
        rows = [row for some, _, _, _ in self.kept for row in some]
        steps = [step for _, some, _, _ in self.kept for step in some]
        tokens = [one.cpu() for _, _, one, _ in self.kept]
        values = [one.cpu() for _, _, _, one in self.kept]
        return save(
            {
                "rows": torch.tensor(rows, dtype=torch.long),
                "steps": torch.tensor(steps, dtype=torch.long),
                "tokens": torch.cat([*tokens, torch.empty(0, dtype=torch.long)]).view(-1, width).contiguous(),
                "values": torch.cat([*values, torch.empty(5, 0)], 1).view(5, -1, width).contiguous(),
            }
        )


CALLS: dict[int, Call] = {}
"""By number; of this process."""
