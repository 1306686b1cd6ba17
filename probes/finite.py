"""NaN and infinity end whatever met them: in logits, in activations that are kept, in tensors that are loaded.

Logits of −inf alone are no error: a model may mask tokens with them. NaN, +inf and a row of nothing but −inf are; of a
row all three show in its largest logit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from probes.errors import UserError

CURES = {
    "float16": "give dtype bfloat16 or float32, or other weights if they hold NaN",
    "bfloat16": "give dtype float32, or other weights if they hold NaN",
}
LAST_CURE = "the weights hold NaN or infinity, or overflow even so; fetch or train them again"


class NotFiniteError(UserError):
    """Numbers that are NaN or infinite.

    Args:
        met: which, like "the logits of step 3".
        dtype: in which they were computed.
        row: the prompt of the batch that has such, where it is known.
        who: what ran, like the name of an arm.
        cure: what to do; by the dtype unless given.
    """

    def __init__(self, met: str, dtype: torch.dtype, *, row: int = 0, who: str = "", cure: str = "") -> None:
        self.met, self.dtype, self.row, self.who, self.cure = met, dtype, row, who, cure
        name = str(dtype).removeprefix("torch.")
        told = f"{who}: {met}" if who else met
        super().__init__(f"{told} are NaN or infinite in {name}; {cure or CURES.get(name, LAST_CURE)}")

    def of(self, who: str, cure: str = "") -> NotFiniteError:
        """The same, with what ran."""
        return NotFiniteError(self.met, self.dtype, row=self.row, who=who, cure=cure or self.cure)


@contextmanager
def errors_of(who: str) -> Iterator[None]:
    """Name what ran in a `NotFiniteError` that leaves the context, if it names nothing yet."""
    try:
        yield
    except NotFiniteError as error:
        if error.who:
            raise
        raise error.of(who) from None


def check_largest(largest: Float[Tensor, " rows"], dtype: torch.dtype, met: str, cure: str = "") -> None:
    """Refuse rows of logits by the largest of each.

    Raises:
        NotFiniteError: one is NaN or infinite.
    """
    if not bool(largest.isfinite().all()):
        raise NotFiniteError(met, dtype, cure=cure)


def check_logits(logits: Float[Tensor, "*rows vocab"], dtype: torch.dtype, met: str = "the logits") -> None:
    """Refuse logits, or log-probabilities, that are NaN or infinite.

    Raises:
        NotFiniteError: a row is.
    """
    check_largest(logits.detach().amax(-1).flatten(), dtype, met)


def extremes(x: Tensor) -> Float[Tensor, " two"]:
    """The smallest and the largest number, finite where all are: one pass, and no copy to the host."""
    x = x.detach() if x.dtype.itemsize > 1 else x.detach().bfloat16()  # of 8 bits torch tells no extremes
    return torch.stack(x.aminmax()).float()


def check_activations(x: Tensor, where: object) -> None:
    """Refuse activations that are NaN or infinite; `where` is their site.

    Raises:
        NotFiniteError: one is.
    """
    if x.numel() and not bool(extremes(x).isfinite().all()):
        raise NotFiniteError(f"the activations at {where}", x.dtype)


def check_tensors(tensors: Mapping[str, Tensor], what: str, remedy: str) -> None:
    """Refuse tensors that were loaded with NaN or infinity in them.

    Raises:
        UserError: for the first that has.
    """
    for name, tensor in tensors.items():
        if tensor.numel() and tensor.is_floating_point() and not bool(extremes(tensor).isfinite().all()):
            raise UserError(f"{what} holds NaN or infinity in {name}; {remedy}")
