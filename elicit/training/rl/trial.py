"""Whether log-probabilities after a prompt that is computed once are the model's own: tried before anything is sampled.

A model that keeps another state than keys and values, or that sees the padding of a shorter prompt, would be trained on
log-probabilities of something else, and its curve would not show it. Two short texts, computed as a batch of rollouts
is (`elicit.training.rl.policy`), are held to the model's own forward of each alone, without a cache and without
padding: the states that choose the tokens, and the log-probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from elicit.training.rl.policy import Batch, hidden_states, logprobs, prefix_of
from probes.batching import LONG, SAME_FULL, SAME_HALF, SHORT, left_pad, trial_texts, trial_vocab
from probes.errors import UserError
from probes.sites import decoder, paused

ANSWERS = 3, 8  # tokens of the completions; the shorter prompt has the longer one
SEGMENT = 2


def check_after_prompts(lm: PreTrainedModel, *, ragged: bool, segment: int = 0) -> None:
    """Refuse a model whose log-probabilities come out wrong in the way in which they are trained.

    Args:
        lm: the model, as it is trained.
        ragged: whether its prompts are of several lengths, so that the shorter ones are padded.
        segment: whether completions go by segments; 0: they do not.

    Raises:
        UserError: a state that is not keys and values, or log-probabilities that are not those of the model's forward.
    """
    off = _off(lm, SHORT if ragged else LONG, segment)
    if off < 1:
        return
    name = type(lm).__name__
    if ragged and _off(lm, LONG, segment) < 1:
        raise UserError(
            f"{name} sees the padding of a prompt that is shorter than another, which reinforcement learning would "
            "train on; use another base, or examples whose prompts have one length"
        )
    raise UserError(
        f"{name} gives other log-probabilities after a prompt that is computed once than in one forward ({off:.2g} "
        "times what rounding may do), so it keeps a state that is not keys and values; use another base"
    )


@torch.no_grad()
def _off(lm: PreTrainedModel, shorter: int, segment: int) -> float:
    """How far states and log-probabilities are off, in units of what rounding may do."""
    few, prompts = trial_vocab(lm), trial_texts(lm, shorter)
    answers = [[(3 * i + row) % few for i in range(length)] for row, length in enumerate(ANSWERS)]
    batch = Batch.of(left_pad(prompts, lm.device), [0, 1], answers, max(ANSWERS) + 1)
    # Products of fp32 weights are made in fp32 here also where they are trained in bf16: what is wrong stands out.
    with paused(lm), torch.autocast(lm.device.type, enabled=False):
        try:
            states, logp = zip(*(_alone(lm, p, a) for p, a in zip(prompts, answers, strict=True)), strict=True)
            own = torch.cat(states).float(), torch.cat(logp)
            found = (
                hidden_states(lm, prefix_of(lm, batch.prompts), batch).float(),
                logprobs(lm, batch, len(prompts), 1.0, SEGMENT if segment else 0)[batch.mask],
            )
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            said = next(iter(str(error).strip().splitlines()), "")
            raise UserError(
                f"{type(lm).__name__} keeps a state that is not keys and values ({type(error).__name__}: "
                f"{said[:160]}); use another base"
            ) from error
    if not all(bool(t.isfinite().all()) for t in own):
        return 0.0  # the first sample will meet it
    # Of all positions together: what is wrong is wrong along a text, rounding is the worst at single tokens.
    off = torch.stack([(f - o).norm() / o.norm() for f, o in zip(found, own, strict=True)]).nan_to_num(torch.inf).max()
    return float(off) / (SAME_FULL if torch.finfo(states[0].dtype).bits > 16 else SAME_HALF)


def _alone(lm: PreTrainedModel, prompt: list[int], answer: list[int]) -> tuple[Tensor, Tensor]:
    """The states that choose an answer's tokens, and their log-probabilities, in one forward."""
    ids = torch.tensor([[*prompt, *answer]], device=lm.device)
    chosen = slice(len(prompt) - 1, -1)
    made = lm(input_ids=ids, use_cache=False).logits[0, chosen].float().log_softmax(-1)
    return decoder(lm)(input_ids=ids, use_cache=False)[0][0, chosen], made.gather(1, ids[0, len(prompt) :, None])[:, 0]
