"""What a GGUF file says of its model and `transformers` leaves out when it reads the file.

Seen with transformers 5.23 and files of llama.cpp's own converter: the scaling of rotary positions (`linear`, `yarn`,
and Llama 3.1's, which stands in the tensor `rope_freqs.weight`), the caps of Gemma 2's logits and the scale of its
attention are dropped, and so are tensors that the model's class has no place for (biases of attention), without a
word; and a byte-level text is split as GPT-2 splits it wherever `tokenizer.ggml.pre` names a split that `transformers`
does not know. Here a setting is put into the configuration, and a split into the tokenizer, where they can hold it;
what is left over is refused by name.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from jaxtyping import Float
from tokenizers import Regex, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from probes.errors import UserError

FACTORS = "rope_freqs.weight"
CLOSE = 1e-5  # settings are written in single precision
BIG_GEMMAS = {"gemma2": 46, "gemma3_text": 62}  # layers of those whose attention is scaled by hidden width over heads
# Said of sizes, which the shapes of the weights must fit, or of files.
SIZES = (
    "context_length", "block_count", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "vocab_size", "expert_count", "expert_feed_forward_length",
    "expert_shared_feed_forward_length", "tensor_data_layout", "use_parallel_residual", "ssm.dt_b_c_rms",
    "attention.causal", "rope.scaling.finetuned",
)  # fmt: skip
YARN = {
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.yarn_beta_fast": "beta_fast", "rope.scaling.yarn_beta_slow": "beta_slow",
    "rope.scaling.yarn_attn_factor": "attention_factor",
}  # fmt: skip
# What the configuration may call a setting that is compared with it.
COMPARED = {
    "attention.key_length": ("head_dim",), "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_epsilon"),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"),
    "expert_used_count": ("num_experts_per_tok",), "expert_weights_norm": ("norm_topk_prob",),
}  # fmt: skip
SET = {
    "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
    "attention.sliding_window": "sliding_window",
}  # fmt: skip


# Names of `tokenizer.ggml.pre` by how llama.cpp splits text for them.
LIKE_GPT2 = (
    "default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "roberta-bpe",
    "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code", "gigachat", "a.x-4.0", "mellum",
    "modern-bert",
)  # fmt: skip
SINGLE_DIGITS = (
    "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"
)  # fmt: skip
LIKE_QWEN2 = ("stablelm2", "hunyuan", "solar-open")


def told(file: GGUFReader) -> dict[str, Any]:
    """What a GGUF file says of its model, by key without the architecture's name."""
    prefix = f"{file.fields['general.architecture'].contents()}."
    return {key.removeprefix(prefix): field.contents() for key, field in file.fields.items() if key.startswith(prefix)}


def settle(name: str, file: GGUFReader, lm: PreTrainedModel) -> None:
    """Put what a GGUF file says into the configuration of the model that was read from it.

    Args:
        name: of the file.
        file: open.
        lm: as `transformers` read it; its configuration is changed.

    Raises:
        UserError: the file has tensors or settings that this model has no place for.
    """
    architecture = str(file.fields["general.architecture"].contents())
    if architecture in GGUF_CONFIG_ARCHS:  # read by newer code, which says what it finds no place for
        return
    said = told(file)
    config, read = lm.config, _read(architecture)
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=said)
    known = get_gguf_hf_weights_map(lm, processor)
    joined = getattr(processor, "GGUF_MOE_WEIGHTS_PATTERN", None)  # experts, which are taken apart under other names
    tensors = {
        tensor.name: tensor.data for tensor in file.tensors
        if tensor.name not in known and not (joined and joined.match(tensor.name))
    }  # fmt: skip
    left = _rotary(config, said) + _stretched(config, tensors)
    if tensors:
        left.append(f"{len(tensors)} tensors, like {min(tensors)}")
    for key, setting in SET.items():
        if key not in said or key in read:
            continue
        value = said.pop(key) or None  # 0 is no window
        if value != getattr(config, setting, None):
            if hasattr(config, setting):
                setattr(config, setting, value)
            else:
                left.append(f"{key} {value}")
    if config.model_type in BIG_GEMMAS:
        big = config.num_hidden_layers == BIG_GEMMAS[config.model_type]
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if big else config.head_dim
    for key, names in COMPARED.items():
        if key in said:
            value, held = said.pop(key), [getattr(config, one) for one in names if hasattr(config, one)]
            if held and held[0] is not None and not math.isclose(value, held[0], rel_tol=CLOSE):
                left.append(f"{key} {value}, read as {held[0]}")
    left += [f"{key} {said[key]}" for key in sorted(said) if key not in SIZES and key not in read]
    if left:
        raise UserError(
            f"GGUF file {name!r} says of its model what transformers does not read ({'; '.join(left[:4])}); "
            "give the model as safetensors"
        )


def settle_split(name: str, file: GGUFReader, tokenizer: Any) -> None:
    """Let a tokenizer split text as its GGUF file says.

    Args:
        name: of the file.
        file: open.
        tokenizer: as `transformers` read it, a fast one; changed.

    Raises:
        UserError: a split that is not known here.
    """
    kind, split = (file.fields.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if kind is None or split is None or kind.contents() != "gpt2":
        return
    said = str(split.contents())
    if said in GGUF_PRE_TOKENIZER_SPLITS or said in LIKE_GPT2:
        return
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=said in SINGLE_DIGITS)
    if said in SINGLE_DIGITS:
        first: Any = pre_tokenizers.Digits(individual_digits=True)
    elif said in LIKE_QWEN2:
        first = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS["qwen2"]), behavior="isolated")
    else:
        raise UserError(
            f"GGUF file {name!r} says that text is split as {said!r}, which transformers does not do; "
            "give the model as safetensors"
        )
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, bytes_of])


def _rotary(config: Any, said: dict[str, Any]) -> list[str]:
    """Rotary settings, into the configuration; those that it cannot hold are returned."""
    kind, factor = said.pop("rope.scaling.type", "none"), said.pop("rope.scaling.factor", None)
    more = {name: said.pop(key) for key, name in YARN.items() if key in said}
    every = getattr(config, "rope_parameters", None) or {}
    rotary = every.get("full_attention", every)  # Gemma 3 scales those of its full layers alone
    left = []
    if (base := said.pop("rope.freq_base_swa", None)) is not None:
        if "sliding_attention" in every:
            every["sliding_attention"]["rope_theta"] = float(base)
        else:
            left.append(f"rope.freq_base_swa {base:g}")
    dimensions, head = said.pop("rope.dimension_count", None), getattr(config, "head_dim", None)
    if head is None and getattr(config, "num_attention_heads", None):
        head = config.hidden_size // config.num_attention_heads
    if dimensions and head and dimensions != int(head * rotary.get("partial_rotary_factor", 1.0)):
        left.append(f"rope.dimension_count {dimensions} of {head}")
    base = said.pop("rope.freq_base", None)
    if base and not math.isclose(base, rotary.get("rope_theta", base), rel_tol=CLOSE):
        left.append(f"rope.freq_base {base:g}")
    if kind == "none" or not factor or factor == 1:
        return left
    if kind == "linear":
        rotary.update(rope_type="linear", factor=float(factor))
    elif kind == "yarn":
        rotary.update(rope_type="yarn", factor=float(factor), **more)
    else:
        left.append(f"rope.scaling.type {kind}")
    return left


def _stretched(config: Any, tensors: dict[str, np.ndarray]) -> list[str]:
    """The stretching of Llama 3.1, kept as factors that frequencies are divided by, into the configuration."""
    factors = torch.tensor(tensors.pop(FACTORS, [1.0])).double()
    if bool((factors == 1).all()):
        return []
    kept = config.rope_parameters or {}
    plain = kept.get("rope_type", "default") == "default" and "rope_theta" in kept
    if not plain or (found := _llama3(kept["rope_theta"], factors)) is None:
        return [f"{FACTORS} of another kind than Llama 3.1's"]
    kept.update(found)
    return []


def _llama3(base: float, factors: Float[Tensor, " half"]) -> dict[str, Any] | None:
    """The parameters of Llama 3.1's stretching by which these factors came about, if they did."""
    low, high, length = 1.0, 4.0, 8192
    n = len(factors)
    waves = 2 * math.pi * base ** (torch.arange(n, dtype=torch.float64) / n)
    smooth = ((length / waves - low) / (high - low)).clamp(0, 1)
    for factor in (float(factors.max()), 8.0, 32.0):
        if torch.allclose(1 / ((1 - smooth) / factor + smooth), factors, rtol=1e-4):
            return {
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": length,
            }  # fmt: skip
    return None


def _read(architecture: str) -> set[str]:
    """Settings that `transformers` reads of an architecture."""
    mapping: dict[str, dict[str, Any]] = GGUF_CONFIG_MAPPING  # type: ignore[assignment]
    for name in (architecture, architecture.replace("-", "_"), architecture.replace("moe", "_moe")):
        if name in mapping:
            return {key for key, value in mapping[name].items() if value is not None}
    return set()
