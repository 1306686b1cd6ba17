"""The int8 engine: the reference loop with its linear layers in eight bits, for CPUs; it measures what that changes.

Everything else is the reference's: attention, norms, the residual stream that is steered and captured, what adapters
add, the statistics of tokens. An activation that is rounded another way by its last bit can change a token, so that,
as in bf16, a token may depend on which rows are computed together; a run keeps its batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from elicit.decoding.decoders import DECODERS
from elicit.decoding.engine import STATISTICS, Batch, Can
from elicit.decoding.engines.hf import HuggingFaceEngine
from elicit.decoding.int8_weights import Channels, channels_of, check_room, int8, layers
from elicit.decoding.ready import check_prompts
from elicit.decoding.trial import way_of
from elicit.models.model import Model
from elicit.models.processor import has
from probes.errors import UserError
from probes.sites import paused
from steering.backends import Claims

MOST = 256  # tokens of each text
SMOOTHED_BY = """\
Q: A baker sells 24 loaves in the morning and twice as many in the afternoon. Each loaf costs 3 dollars. How much \
money does she earn in one day?
A: Let's think step by step. In the morning she sells 24 loaves. In the afternoon she sells 2 * 24 = 48 loaves. \
Together these are 24 + 48 = 72 loaves. At 3 dollars each she earns 72 * 3 = 216 dollars. The answer is 216.

The river rises in the mountains, crosses a wide plain, and reaches the sea after six hundred kilometres. Towns grew \
where it could be crossed, and most of them still have their old bridges."""
MEASURED_ON = """\
Question: Three friends share the cost of a boat for five days. The boat costs 84 euros a day, and the fuel for the \
whole trip is 60 euros. How much does each of them pay?
Answer: First find the cost of the boat for all days: 5 * 84 = 420 euros. With the fuel that is 420 + 60 = 480 euros. \
Divided by three, each friend pays 480 / 3 = 160 euros.

def mean(values):
    total = 0
    for value in values:
        total += value
    return total / len(values)

The lights of the harbour were seen long before the wind brought the noise of the crowd. Nobody had expected that the \
ship would come home in winter, least of all her owners, who had paid the insurance twice."""


@dataclass(frozen=True)
class Departure:
    """How far log-probabilities are from those of the model's own forward, on a text that the smoothing has not seen.

    Args:
        tokens: of the text that were predicted.
        mean, largest: |Δ log-probability| of these tokens, in nats.
        same: the share of positions whose most likely token is the same.
        dtype: of the model's own forward.
    """

    tokens: int
    mean: float
    largest: float
    same: float
    dtype: str

    def __str__(self) -> str:
        return (
            f"on a fixed text of {self.tokens} tokens log-probabilities depart from those of {self.dtype} by "
            f"{self.mean:.2g} nats in the mean and {self.largest:.2g} at most, and the most likely token is the same "
            f"at {self.same:.0%} of positions"
        )


class Int8Engine(HuggingFaceEngine):
    """Everything that the suite can do but training."""

    name = "int8"
    can = Can(frozenset(DECODERS), frozenset(STATISTICS), Claims(), adapters=True)

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        cure = "; use the hf engine"
        if model.lm.device.type != "cpu":
            raise UserError(f"the int8 engine computes on a CPU and {model.name} is on {model.lm.device}{cure}")
        if not has("int8-products"):
            raise UserError(f"the int8 engine needs oneDNN's products of an x86 processor with AVX2{cure}")
        if model.quantised:
            raise UserError(f"{model.name} holds quantised weights already ({model.quantised}){cure}")
        if model.dtype not in ("float32", "bfloat16"):
            raise UserError(f"the int8 engine takes models in float32 or bfloat16 and this is {model.dtype}{cure}")
        if not layers(model.lm):
            raise UserError(f"{type(model.lm).__name__} has no linear layers that are worth computing in int8{cure}")
        check_room(layers(model.lm).values())

    @cached_property
    def channels(self) -> Channels:
        """By what each layer is smoothed."""
        with paused(self.model.lm):
            return channels_of(self.model.lm, self._ids(SMOOTHED_BY))

    @cached_property
    def departure(self) -> Departure:
        """Measured once, without an adapter: three forwards of one text each."""
        lm, ids = self.model.lm, self._ids(MEASURED_ON)
        with paused(lm):
            wanted, best = _predicted(lm, ids)
            with int8(lm, self.channels):
                found, chosen = _predicted(lm, ids)
        off = (found - wanted).abs()
        same = float((best == chosen).float().mean())
        return Departure(len(off), float(off.mean()), float(off.max()), same, self.model.dtype)

    @property
    def how(self) -> str:
        bits = "" if has("int8-sums") else ", activations in 7 bits"
        return f"{super().how}, {self._share:.0%} of weights in 8 bits{bits}; {self.departure}"

    @property
    def _share(self) -> float:
        """Of the weights of the model's layers, embeddings aside, those that are multiplied in eight bits."""
        lm = self.model.lm
        others = (m for m in lm.modules() if m is not lm.get_input_embeddings())
        held = {id(p): p.numel() for m in others for p in m._parameters.values() if p is not None}
        return sum(m.weight.numel() for m in layers(lm).values()) / sum(held.values())

    @contextmanager
    def computed(self, batch: Batch) -> Iterator[None]:
        way_of(self.model.lm, steered=batch.steered or batch.partner is not None)  # tried as its own forward has it
        self.note(f"linear layers were computed in int8: {self.departure}")
        if batch.partner is not None and batch.partner.lm(self.model) is not self.model.lm:
            self.note("the partner's layers were not computed in int8")
        with int8(self.model.lm, self.channels):
            yield

    def _ids(self, text: str) -> Int[Tensor, "one pos"]:
        lm = self.model.lm
        most = min(MOST, (getattr(lm.config.get_text_config(), "max_position_embeddings", None) or MOST + 1) - 1)
        ids = self.model.tokenizer(text)["input_ids"][:most]
        if len(ids) < 2:
            raise UserError(
                f"the tokenizer of {self.model.name} makes {len(ids)} tokens of a text, by which the int8 engine could "
                "not say how far it departs; use the hf engine"
            )
        check_prompts(lm, [ids], 1, self.model.tokenizer)
        return torch.tensor([ids], device=lm.device)


@torch.inference_mode()
def _predicted(
    lm: torch.nn.Module, ids: Int[Tensor, "one pos"]
) -> tuple[Float[Tensor, " tokens"], Int[Tensor, " tokens"]]:
    """The log-probability of each token but the first, and which was the most likely in its place."""
    logits = lm(input_ids=ids, use_cache=False).logits[0, :-1].float()
    said = logits.gather(1, ids[0, 1:, None])[:, 0]
    return said - logits.logsumexp(-1), logits.argmax(-1)
