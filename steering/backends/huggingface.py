"""Raw Hugging Face hooks behind the common interface: the reference that the other backends are compared with.

`elicit` decodes with its own loop and `steering.hooks.attached`; this is plain `transformers` with the same hooks. Its
`generate` is what tests hold engines to, and vLLM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from probes.batching import batchable, inputs, left_pad
from probes.finite import check_logits
from steering.backends import Claims, Completion, Rows
from steering.delivery import Delivery
from steering.hooks import attached


class HuggingFace:
    """Plans on a causal LM of `transformers`."""

    name = "hf"
    claims = Claims()

    def __init__(self, lm: PreTrainedModel) -> None:
        self.lm = lm
        self.delivery = Delivery()

    @torch.no_grad()
    def score(self, rows: Rows) -> list[Float[Tensor, "pos vocab"]]:
        found: dict[int, Tensor] = {}
        together = batchable(self.lm, rows.texts)  # tried before the plans are there
        with attached(self.lm, rows.plans, of_row=rows.of_row, lengths=rows.lengths) as session:
            for some in together:
                session.expect(some, of=len(rows.texts))
                texts = [rows.texts[i] for i in some]
                logits = self.lm(**inputs(self.lm, texts), use_cache=False).logits
                found |= zip(some, per_text(logits, texts), strict=True)
        self.delivery = session.editor.delivery()
        return [found[i] for i in range(len(found))]

    @torch.no_grad()
    def generate(
        self, rows: Rows, *, max_new_tokens: int, eos_ids: Sequence[int] = (), keep_logprobs: bool = False
    ) -> list[Completion]:
        found: dict[int, Completion] = {}
        together = batchable(self.lm, rows.texts)  # tried before the plans are there
        plans = attached(self.lm, rows.plans, of_row=rows.of_row, lengths=rows.lengths)
        with own_settings_out(self.lm), plans as session:
            for some in together:
                session.expect(some, of=len(rows.texts))
                ids, mask, _ = left_pad([rows.texts[i] for i in some], self.lm.device)
                out = self.lm.generate(  # type: ignore[operator]
                    ids,
                    attention_mask=mask.long(),
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    eos_token_id=list(eos_ids) or None,
                    pad_token_id=0,
                    return_dict_in_generate=True,
                    output_logits=keep_logprobs,
                )
                logits = torch.stack(out.logits, 1) if keep_logprobs else None
                found |= zip(some, completions(out.sequences[:, ids.shape[1] :], logits, eos_ids), strict=True)
        self.delivery = session.editor.delivery()
        return [found[i] for i in range(len(found))]


@contextmanager
def own_settings_out(lm: PreTrainedModel) -> Iterator[None]:
    """Inside it `generate` does what it is told and no more.

    It takes each field that it is not given from the model's `generation_config`, whose file may ban tokens, ask for
    beams, or end answers.
    """
    own, lm.generation_config = lm.generation_config, GenerationConfig()
    try:
        yield
    finally:
        lm.generation_config = own


def per_text(logits: Float[Tensor, "rows pos vocab"], texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Log-probabilities (fp32) after each position of left-padded texts, [pos, vocab] each."""
    found = [logits[row, -len(text) :] for row, text in enumerate(texts)]
    for some in found:
        check_logits(some, logits.dtype)
    return [torch.log_softmax(some.float(), dim=-1) for some in found]


def completions(new: Tensor, logits: Tensor | None, eos_ids: Sequence[int]) -> list[Completion]:
    """Cut each row of new tokens [rows, steps] at its end token."""
    out = []
    for row, tokens in enumerate(new.tolist()):
        end = next((i for i, token in enumerate(tokens) if token in eos_ids), len(tokens))
        kept = None
        if logits is not None:
            check_logits(logits[row, :end], logits.dtype)
            kept = torch.log_softmax(logits[row, :end].float(), dim=-1)
        out.append(Completion(tokens[:end], kept))
    return out
