"""What an SAE is read on: the same questions with and without an instruction, and the thoughts that follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from probes.capture import capture
from probes.errors import UserError
from probes.offsets import decoded
from probes.sae.card import massive_limit
from probes.sites import Site


@dataclass(frozen=True, eq=False)
class Text:
    """A prompt with the model's own answer to it."""

    ids: list[int]
    prompt: int  # tokens
    tokens: list[str]


@dataclass(frozen=True, eq=False)
class ContrastActivations:
    """Activations at one site.

    Args:
        site: where.
        positive, negative: at the chosen step, with the instruction and without.
        thoughts: at every position of prompts with the instruction and their answers, but the first of each text and
            massive ones.
        text, position: of each row of `thoughts`.
        resid_norm: the median norm of `thoughts`.
    """

    site: Site
    positive: Float[Tensor, "questions d_model"]
    negative: Float[Tensor, "questions d_model"]
    thoughts: Float[Tensor, "positions d_model"]
    text: Int[Tensor, " positions"]
    position: Int[Tensor, " positions"]
    resid_norm: float

    def labels(self, tables: Sequence[Sequence[int]]) -> Int[Tensor, " positions"]:
        """A label for each row of `thoughts`, from a table of labels for each text."""
        pairs = zip(self.text.tolist(), self.position.tolist(), strict=True)
        return torch.tensor([tables[text][position] for text, position in pairs])


def answered(
    model: Model, items: Items, prompt: Prompt, max_new_tokens: int, progress: Progress | None = None
) -> list[Text]:
    """Prompts with the model's own greedy answers."""
    handle = Elicited(model, "answers", prompt, Greedy(max_new_tokens))
    out = []
    for item, (trace,) in zip(items, handle.answers(items, progress), strict=True):
        head = handle.prompt_ids(item)
        ids = [*head, *trace.tokens]
        out.append(Text(ids, len(head), [decoded(model.tokenizer, [i]) for i in ids]))
    return out


def check_step(texts: Sequence[Text], step: int, what: str = "answers") -> None:
    """Refuse texts of which any ends before a step, as an answer without a token ends before its first one."""
    short = sum(len(text.ids) <= text.prompt + step - 1 for text in texts)
    if short:
        raise UserError(f"{short} of {len(texts)} {what} are too short for step {step}; contrast at step 0")


def read_contrast(
    model: Model, thoughts: Sequence[Text], plain: Sequence[Sequence[int]], sites: Sequence[Site], *, step: int = 0
) -> dict[Site, ContrastActivations]:
    """Read prompts with the instruction (with their answers) and without, at some sites in one pass each.

    Args:
        model: the model.
        thoughts: prompts with the instruction, answered.
        plain: the same questions without it, as token ids; with `step=1` each ends in the first token of its answer
            (`check_step` refuses those that have none).
        sites: where to read.
        step: at which step the two are contrasted: 0 is the last prompt token, 1 the first generated one.

    Raises:
        UserError: texts without that step.
    """
    lengths = [text.prompt for text in thoughts]
    check_step(thoughts, step)
    acts = capture(model.lm, [text.ids for text in thoughts], sites, lengths=lengths)
    before = capture(model.lm, plain, sites, lengths=[len(p) - step for p in plain], steps=(step, step + 1))
    assert acts is not None and before is not None
    chosen = acts.step == step
    position = acts.step + torch.tensor(lengths)[acts.row] - 1
    out = {}
    for site in sites:
        values = acts.values[site].float()
        norms = values.norm(dim=-1)
        later = position > 0
        kept = later & (norms <= massive_limit(norms[later]))
        out[site] = ContrastActivations(
            site,
            values[chosen][acts.row[chosen].argsort()],
            before.values[site].float()[before.row.argsort()],
            values[kept],
            acts.row[kept],
            position[kept],
            float(norms[kept].median()),
        )
    return out
