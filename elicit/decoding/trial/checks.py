"""What is tried of a model: each way of decoding it, steering in each, and capture, against the model's own forward.

The reference is the model's own forward without a cache, of one prompt alone, which is given token ids and nothing
else. Prompts are ragged, each has two branches, steps go past the twin's window, and a row is dropped on the way. What
is compared are log-probabilities, so that a difference counts that changes no token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.decoding.cache import PADDED, open_state
from elicit.decoding.parts import of_one_length
from probes.batching import left_pad
from probes.capture import capture
from probes.errors import UserError
from probes.sites import Site, depth, on_site, width
from steering.directions import Direction
from steering.hooks import Session, attached
from steering.interventions import Add, Intervention, Plan, When

# Of a log-probability of the twin, and of an activation's norm; rounding in fp32 is about a tenth of it.
TOLERANCE = 3e-4
LENGTHS = (10, 6, 3)
STEPS = 9
DROPPED, DROPPED_AFTER = 1, 4  # the row that is dropped, and after how many steps
STRENGTH = 0.5  # of the hidden size's root: about half of a residual stream of unit variance


@dataclass(frozen=True)
class Finding:
    """What came of one check.

    Args:
        off: the largest difference from the reference; None where the model could not do it.
        reason: why not, or "".
    """

    off: float | None
    reason: str = ""

    @property
    def right(self) -> bool:
        return self.off is not None and self.off <= TOLERANCE

    def __str__(self) -> str:
        if self.off is None:
            return f"no: {self.reason}"
        return f"exact (off by {self.off:.1e})" if self.right else f"WRONG (off by {self.off:.2g})"


T = TypeVar("T")
Logprobs = Float[Tensor, "rows steps vocab"]


@dataclass(frozen=True)
class Rows:
    """The prompts of a trial and the tokens that follow them, two branches a prompt."""

    prompts: list[list[int]]
    tokens: Int[Tensor, "rows steps"]

    @staticmethod
    def of(lm: PreTrainedModel) -> Rows:
        """Drawn from a vocabulary's middle, where no special tokens are."""
        embedding: Any = lm.get_input_embeddings()
        high = min(100, len(embedding.weight))
        draw = torch.Generator().manual_seed(1)
        prompts = [torch.randint(min(5, high - 1), high, (n,), generator=draw).tolist() for n in LENGTHS]
        return Rows(prompts, torch.randint(min(5, high - 1), high, (2 * len(LENGTHS), STEPS), generator=draw))

    def pair(self, *, alike: bool) -> Rows:
        """Two prompts, of one length or of two, with a branch of two tokens each: five forwards, their references
        among them."""
        first, second = self.prompts[:2]
        return Rows([first[: len(second)] if alike else first, second], self.tokens[:2, :2])

    @property
    def steps(self) -> int:
        return self.tokens.shape[1]

    def first_branch(self) -> Rows:
        return Rows(self.prompts, self.tokens[::2])

    @property
    def branches(self) -> int:
        return len(self.tokens) // len(self.prompts)

    def whole(self, row: int) -> list[int]:
        return [*self.prompts[row // self.branches], *self.tokens[row].tolist()]


@torch.inference_mode()
def reference(
    lm: PreTrainedModel, rows: Rows, steered: Callable[[int], Any] | None = None, *, at_once: bool = False
) -> Logprobs:
    """Log-probabilities after each prompt and after each token, by forwards of one row alone.

    Args:
        steered: for the length of a prompt, a context in which its forward is steered.
        at_once: whether a forward of the whole row is believed to say what those of its beginnings do.
    """
    out = []
    for row in range(len(rows.tokens)):
        ids = torch.tensor([rows.whole(row)], device=lm.device)
        start = ids.shape[1] - rows.steps
        with nullcontext() if steered is None else steered(start):
            found = _logprobs(lm, ids)[start - 1 :]
            if not at_once and not torch.allclose(_logprobs(lm, ids[:, : start + 2])[-1], found[2], atol=TOLERANCE):
                # It sees what comes.
                found = torch.stack([_logprobs(lm, ids[:, : start + n])[-1] for n in range(rows.steps + 1)])
        out.append(found)
    return torch.stack(out)


def _logprobs(lm: PreTrainedModel, ids: Int[Tensor, "1 pos"]) -> Float[Tensor, "pos vocab"]:
    return torch.log_softmax(lm(input_ids=ids, use_cache=False).logits[0].float(), -1)


@torch.inference_mode()
def decoded(lm: PreTrainedModel, rows: Rows, way: str, session: Session | None = None) -> Logprobs:
    """The same by a state of the loop; NaN where a row was dropped."""
    parts = of_one_length(rows.prompts) if way not in PADDED else [list(range(len(rows.prompts)))]
    found: Tensor | None = None
    for part in parts:
        ids, mask, _ = left_pad([rows.prompts[i] for i in part], lm.device)
        live = torch.tensor([i * rows.branches + b for i in part for b in range(rows.branches)])
        question = torch.arange(len(part)).repeat_interleave(rows.branches)
        with open_state(lm, rows.steps + 1, way=way) as state:
            observers: list[Any] = [state, *([] if session is None else [session])]
            if session is not None:
                whole = way == "uncached"
                session.expect(None if way in PADDED else part, of=len(rows.prompts), whole=whole)
            logits = torch.log_softmax(state.prefill(ids, mask).float(), -1)
            if found is None:
                found = logits.new_full((len(rows.tokens), rows.steps + 1, logits.shape[-1]), torch.nan)
            found[live, 0] = logits[question]
            for one in observers:
                one.fork(question.to(lm.device))
            for step in range(rows.steps):
                if step == DROPPED_AFTER and DROPPED in live and len(live) > 1:
                    kept = (live != DROPPED).nonzero()[:, 0]
                    live = live[kept]
                    for one in observers:
                        one.keep(kept.to(lm.device))
                logits = state.step(rows.tokens[live, step].to(lm.device))
                found[live, step + 1] = torch.log_softmax(logits.float(), -1)
    assert found is not None
    return found


def off(found: Logprobs, wanted: Logprobs) -> float:
    """The largest difference where a row was not dropped; the likeliest tokens' alone, whose tails round more."""
    there = ~found[..., 0].isnan()
    there[:DROPPED] = there[DROPPED + 1 :] = True
    worth = wanted > wanted.amax(-1, keepdim=True) - 20
    difference = torch.where(worth, (found - wanted).abs(), 0.0)[there]
    return float(difference.nan_to_num(torch.inf).max())


def tried(check: Callable[[], float]) -> Finding:
    """A check's finding; what the model cannot do at all is its reason, in one line."""
    found = attempt(check)
    return found if isinstance(found, Finding) else Finding(found)


def attempt(work: Callable[[], T]) -> T | Finding:
    """What came of it, or the finding that it cannot be done."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001  whatever the model's own code raises is why it cannot
        first = next(iter(str(error).strip().splitlines()), "")
        said = first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
        return Finding(None, said[:200])


def decoding(lm: PreTrainedModel, rows: Rows, way: str, wanted: Logprobs) -> float:
    """Two branches a prompt, and one."""
    one = rows.first_branch()
    return max(off(decoded(lm, rows, way), wanted), off(decoded(lm, one, way), wanted[::2]))


def middle(lm: PreTrainedModel) -> Site:
    return Site(max(0, depth(lm) // 2 - 1))


def vector(lm: PreTrainedModel) -> Float[Tensor, " d_model"]:
    return torch.randn(width(lm), generator=torch.Generator().manual_seed(2)) * STRENGTH


@contextmanager
def added(lm: PreTrainedModel, start: int) -> Iterator[None]:
    """Add the trial's vector at each position from the prompt's last on, in forwards of one whole row."""
    change = vector(lm).to(lm.device)

    def hook(h: Tensor) -> Tensor:
        new = h.clone()
        new[:, start - 1 :] += change.to(h.dtype)
        return new

    handle = on_site(lm, middle(lm), hook)
    try:
        yield
    finally:
        handle.remove()


def steering(lm: PreTrainedModel, rows: Rows, way: str, wanted: Logprobs, steered: Logprobs) -> float:
    """Every other prompt is steered, at its last position and at each cached step; the others are not."""
    one = Intervention(Add(Direction(vector(lm), middle(lm))), when=When.every_step())
    plans: list[Plan] = [(one,), ()]
    of_row = [i % 2 for i in range(len(rows.prompts))]
    with attached(lm, plans, of_row=of_row) as session:
        found = decoded(lm, rows, way, session)
    acted = torch.tensor(of_row).repeat_interleave(rows.branches) == 0
    if not session.editor.delivery(0).positions or off(steered[acted], wanted[acted]) < TOLERANCE:
        raise UserError("a vector that is added to the residual stream changes nothing")
    return off(found, torch.where(acted[:, None, None].to(wanted.device), steered, wanted))


@torch.inference_mode()
def capturing(lm: PreTrainedModel, rows: Rows) -> float:
    """The residual stream after each block, from a ragged batch, against the model's own hidden states of each alone.

    Some models leave the embedding out of these; the last of them is after the final norm in most.
    """
    sites = [Site(layer) for layer in range(depth(lm))]
    together = capture(lm, rows.prompts, sites)
    assert together is not None
    worst = 0.0
    for number, prompt in enumerate(rows.prompts):
        mine = torch.stack([together.values[site][together.row == number] for site in sites])
        alone = capture(lm, [prompt], sites)
        assert alone is not None
        worst = max(worst, _apart(mine, torch.stack([alone.values[site] for site in sites])))
        states = getattr(
            lm(input_ids=torch.tensor([prompt], device=lm.device), use_cache=False, output_hidden_states=True),
            "hidden_states", None,
        )  # fmt: skip
        if states and all(isinstance(h, Tensor) and h.ndim == 3 for h in states) and len(states) >= len(sites):
            first = [torch.stack([h[0].cpu() for h in states[at : at + len(sites) - 1]]) for at in (0, 1)]
            worst = max(worst, min(_apart(mine[:-1], some) for some in first if len(some) == len(sites) - 1))
    return worst


def _apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of two activations, in norms of the second."""
    if found.shape != wanted.shape:
        return float("inf")
    share = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1).clamp(min=1e-6)
    return float(share.nan_to_num(torch.inf).max())
