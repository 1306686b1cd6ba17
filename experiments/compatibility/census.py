"""One type of model: built small and random, decoded, branched, steered and captured by this suite, and compared.

The reference is the model's own forward without a cache of one text alone. Token for token: what was emitted is as
likely as the likeliest, and its log-probability is the one that is kept.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from elicit.decoding import Branching, Generation, Greedy, StopRule, decode
from elicit.decoding.trial import Rows, trial_of
from elicit.decoding.trial.checks import added, capturing, middle, vector
from elicit.decoding.trial.twin import drawn, twin_config
from probes.errors import UserError
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, When

CHECKS = ("greedy", "branching", "steering", "capture")
TOLERANCE = 2e-3  # of a log-probability, and of an activation's norm: above what a trial lets pass
NEW_TOKENS = 10
BRANCHES = 3
TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
# What configurations lack that are made without arguments, or say of models that are no decoders.
GIVEN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "granitemoehybrid": {"layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 8},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "phimoe": {"sliding_window": 2047},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 256,
        "indexer_budget": 2048,
        "indexer_compress_ratio": 4,
    },
    "reformer": {"is_decoder": True},
    "xmod": {"default_language": "en_XX"},
}


@dataclass
class Found:
    """What came of one type.

    Args:
        type: as `transformers` names it.
        model: the class; "" where it could not be built.
        unbuilt: why not.
        way: in which it was decoded.
        checks: "exact", "refused: …", "wrong: …" or "crash: …" of each check.
    """

    type: str
    model: str = ""
    unbuilt: str = ""
    way: str = ""
    checks: dict[str, str] = field(default_factory=dict)


def small(kind: str) -> PreTrainedModel:
    """A random model of a type, from its published configuration in miniature."""
    config = CONFIG_MAPPING[kind](**GIVEN.get(kind, {}))
    if hasattr(config, "is_decoder") and not config.is_encoder_decoder:
        config.is_decoder = True
    torch.manual_seed(3)
    made: PreTrainedConfig = twin_config(config)
    return drawn(AutoModelForCausalLM.from_config(made).float(), seed=3)


def examined(kind: str) -> Found:
    """Build a type and run all checks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _examined(kind)


def _examined(kind: str) -> Found:
    found = Found(kind)
    try:
        lm = small(kind)
        with torch.inference_mode():
            lm(input_ids=torch.tensor([[5, 6, 7, 8]]), use_cache=False)
    except Exception as error:  # noqa: BLE001  whatever it is, it is told in the table
        found.unbuilt = _line(error)
        return found
    found.model = type(lm).__name__
    rows = Rows.of(lm)
    for name, check in zip(CHECKS, (_greedy, _branching, _steering, capturing), strict=True):
        found.checks[name] = _verdict(lambda check=check: check(lm, rows))  # type: ignore[misc]
    found.way = trial_of(lm).first() if "crash" not in found.checks["greedy"] else ""
    return found


def _verdict(check: Callable[[], float]) -> str:
    try:
        off = check()
    except UserError as error:
        return f"refused: {error}"
    except Exception as error:  # noqa: BLE001  counted as a crash, and told
        return f"crash: {_line(error)}"
    return "exact" if off <= TOLERANCE else f"wrong: off by {off:.2g}"


def _line(error: Exception) -> str:
    at = traceback.extract_tb(error.__traceback__)[-1]
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first} ({at.filename.rpartition('/')[2]}:{at.lineno})"


def _greedy(lm: PreTrainedModel, rows: Rows) -> float:
    made = decode(lm, rows.prompts, Greedy().policy([""] * len(rows.prompts), _vocabulary(lm)), **_limits())
    return max(_off(lm, prompt, one) for prompt, (one,) in zip(rows.prompts, made, strict=True))


def _branching(lm: PreTrainedModel, rows: Rows) -> float:
    policy = Branching(BRANCHES).policy([""] * len(rows.prompts), _vocabulary(lm))
    made = decode(lm, rows.prompts, policy, **_limits())
    worst = 0.0
    for prompt, branches in zip(rows.prompts, made, strict=True):
        first = _logprobs(lm, prompt)[-1]
        for rank, one in enumerate(branches):
            rank_off = float(first.sort(descending=True).values[rank] - first[int(one.tokens[0])])
            worst = max(worst, abs(rank_off), _off(lm, prompt, one, chosen_from=1))
    return worst


def _steering(lm: PreTrainedModel, rows: Rows) -> float:
    plan = (Intervention(Add(Direction(vector(lm), middle(lm))), when=When.every_step()),)
    policy = Greedy().policy([""] * len(rows.prompts), _vocabulary(lm))
    with attached(lm, [plan]) as session:
        made = decode(lm, rows.prompts, policy, steering=session, **_limits())
    worst = 0.0
    for prompt, (one,) in zip(rows.prompts, made, strict=True):
        with added(lm, len(prompt)):
            worst = max(worst, _off(lm, prompt, one))
    return worst


def _limits() -> dict[str, Any]:
    return {"max_new_tokens": NEW_TOKENS, "stop": StopRule(frozenset())}


def _vocabulary(lm: PreTrainedModel) -> int:
    return _logprobs(lm, [5]).shape[-1]


@torch.inference_mode()
def _logprobs(lm: PreTrainedModel, ids: list[int]) -> Tensor:
    logits = lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return torch.log_softmax(logits.float(), -1)


def _off(lm: PreTrainedModel, prompt: list[int], made: Generation, chosen_from: int = 0) -> float:
    """How far an answer is from the model's own: of log-probabilities kept, and of each token from the likeliest."""
    tokens = made.tokens.tolist()
    own = _logprobs(lm, [*prompt, *tokens[:-1]])[-len(tokens) :]
    if not torch.allclose(_logprobs(lm, [*prompt, *tokens[:1]])[-1], own[1], atol=TOLERANCE / 10):  # it sees what comes
        own = torch.stack([_logprobs(lm, [*prompt, *tokens[:step]])[-1] for step in range(len(tokens))])
    chosen = own.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    kept = (chosen - torch.from_numpy(made.logprob)).abs().max()
    behind = (own.amax(-1) - chosen)[chosen_from:].max()
    return float(torch.maximum(kept, behind))
