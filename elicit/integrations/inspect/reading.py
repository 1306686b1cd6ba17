"""What only a forward over prompt and answer tells: alternatives to each token, the prompt's log-probabilities, and
activations. Adapter and interventions act in it as while decoding: steps are counted from the prompt's last token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from elicit.analysis.continuations import applied_handle
from elicit.elicited import Elicited
from probes.batching import inputs
from probes.capture import capture
from probes.files import sha256_of, whole
from probes.sites import Site


class Alternative(NamedTuple):
    """A token that could stand at a position, and its log-probability there."""

    token: int
    logprob: float


class Position(NamedTuple):
    """A token of a text, its log-probability, and the likeliest tokens at its place."""

    token: int
    logprob: float
    top: list[Alternative]


@torch.inference_mode()
def positions(handle: Elicited, prompt: Sequence[int], answer: Sequence[int], most: int) -> list[Position]:
    """Every token of prompt and answer but the first, which nothing comes before.

    Args:
        handle: whose adapter and interventions act.
        prompt, answer: token ids.
        most: likeliest tokens of each place.
    """
    lm, text = handle.model.lm, [*prompt, *answer]
    with applied_handle(handle) as before:
        before([len(prompt)])
        logits = lm(**inputs(lm, [text]), use_cache=False).logits[0, :-1].float()
    if handle.model.unlisted:
        logits[:, list(handle.model.unlisted)] = -torch.inf
    logprobs = torch.log_softmax(logits, -1)
    own = logprobs.gather(1, torch.tensor(text[1:], device=logprobs.device)[:, None])[:, 0].tolist()
    values, ids = logprobs.topk(most, dim=-1) if most else (logprobs[:, :0], logprobs[:, :0].long())
    return [
        Position(token, logprob, [Alternative(*pair) for pair in zip(some, likely, strict=True)])
        for token, logprob, some, likely in zip(text[1:], own, ids.tolist(), values.tolist(), strict=True)
    ]


def keep(
    handle: Elicited,
    prompt: Sequence[int],
    answer: Sequence[int],
    sites: Sequence[Site],
    folder: Path,
    name: Sequence[Any],
) -> dict[str, Any]:
    """Write the activations of prompt and answer to a file, and say where they are.

    Args:
        handle: whose adapter and interventions act.
        prompt, answer: token ids.
        sites: where they are read: for each a tensor [positions, d_model]; `step` is 0 at the prompt's last token.
        folder: where the file goes.
        name: what tells this answer from others; the file's name is its hash.
    """
    with applied_handle(handle) as before:
        before([len(prompt)])
        found = capture(handle.model.lm, [[*prompt, *answer]], sites, lengths=[len(prompt)])
    assert found is not None
    tensors = {str(site): found.values[site].contiguous() for site in sites}
    stem = hashlib.sha256(json.dumps([*name, list(prompt), list(answer)]).encode()).hexdigest()[:16]
    path = folder.absolute() / f"{stem}.safetensors"
    with whole(path) as part:
        save_file({**tensors, "step": found.step}, part)
    return {
        "file": str(path),
        "sha256": sha256_of(path),
        "sites": [str(site) for site in sites],
        "shape": list(tensors[str(sites[0])].shape),
        "dtype": handle.model.dtype,
    }
