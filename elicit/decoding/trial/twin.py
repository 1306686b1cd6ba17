"""A small random model of the same class and configuration, whose caches and masks do what the model's do.

Every size in the configuration is exchanged by its name, relations between sizes are kept (as many key-value heads as
query heads, or fewer; an inner width that is a multiple of the hidden one), layers are cut to one period of their
pattern, and windows to `WINDOW`, so that a few tokens go past them. What is no size stays as it is. Weights are drawn
at the scale of their fan-in, since those of an untrained model make logits that hide faults.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

WINDOW = 6
VOCABULARY = 200
HIDDEN, HEADS, HEAD = 32, 4, 8
MOST_LAYERS = 8
PARTS = re.compile(r"vision|audio|visual|image|speech|encoder_config|vq|depth_decoder|perceiver|adapter")
LAYERS = re.compile(r"(num_hidden_layers|n_layers?|num_layers|(num_)?(decoder|encoder)_layers|num_blocks|depth)")
SPACED = ("attn_layer_period", "layer_group_size", "global_attn_every_n_layers", "full_attention_interval",
          "sliding_window_pattern", "_sliding_window_pattern", "no_rope_layer_interval")  # fmt: skip
# Lists that name layers by their numbers.
NUMBERED = ("cross_attention_layers", "moe_layers", "full_attn_idxs", "hybrid_layer_ids", "mlp_only_layers",
            "attn_layer_indices", "intermediate_layers_indices", "ple_layer_ids", "global_attn_indexes")  # fmt: skip

Rule = Callable[[int, dict[str, Any]], int]


def _hidden(old: int, given: dict[str, Any]) -> int:
    """As many times the hidden size as it was."""
    whole = _first(given, "hidden_size", "n_embd", "d_model", "emb_dim", "embedding_dim") or old
    return max(HEAD, HIDDEN * old // whole // HEAD * HEAD)


def _kv_heads(old: int, given: dict[str, Any]) -> int:
    heads = _first(given, "num_attention_heads", "n_head", "n_heads", "swa_num_attention_heads") or old
    return old if old <= 1 else HEADS if old >= heads else 2


def _at_most(most: int) -> Rule:
    return lambda old, _: min(old, most)


def _to(new: int) -> Rule:
    return lambda old, _: new


RULES: list[tuple[Rule, str]] = [
    (_hidden, "hidden_size n_embd d_model emb_dim embedding_dim embed_dim word_embed_proj_dim embedding_size "
     "attention_hidden_size lru_width input_embedding_size output_embedding_size ple_embed_dim out_hidden_size "
     "dim_model_base"),
    (_kv_heads, "num_key_value_heads swa_num_key_value_heads num_kv_heads kv_n_heads num_global_key_value_heads "
     "num_query_groups"),
    (_to(HEADS), "num_attention_heads swa_num_attention_heads attention_heads decoder_attention_heads n_head n_heads "
     "encoder_attention_heads num_decoder_attention_heads num_encoder_attention_heads num_heads index_n_heads "
     "linear_num_value_heads"),
    (_to(HEAD), "head_dim swa_head_dim global_head_dim attention_head_dim d_head dim_head d_kv kv_channels "
     "attention_head_size index_head_dim v_head_dim qk_nope_head_dim linear_head_dim linear_key_head_dim "
     "linear_value_head_dim query_pre_attn_scalar mamba_n_heads mamba_num_heads n_mamba_heads mamba_d_head "
     "mamba_head_dim mamba_headdim state_size ssm_state_size d_state mamba_d_state hidden_size_per_layer_input "
     "laurel_rank hc_lowrank router_hidden_size gated_norm_rank d_rel adapter_rank pronunciation_embed_dim "
     "shape_embed_dim"),
    (_to(HEAD + 4), "qk_head_dim"),
    (_to(4), "qk_rope_head_dim rotary_dim time_step_rank mamba_dt_rank"),
    (_to(2), "linear_num_heads linear_num_key_heads"),
    (_to(1), "topk_group"),
    (_to(16), "kv_lora_rank"),
    (_to(24), "q_lora_rank o_lora_rank"),
    (_to(HIDDEN), "hidden_size_global mlp_dim output_channels"),
    (_to(48), "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size expert_ffn_hidden_size "
     "n_inner dff d_ff dim_ff feed_forward_size d_inner intermediate_size_mlp"),
    (_to(2 * HIDDEN), "mamba_d_ssm"),
    (_to(2 * WINDOW), "local_attention"),
    (_at_most(2), "num_experts_per_tok num_experts_per_token moe_k moe_top_k moe_topk top_k_experts n_group "
     "num_expert_group zero_expert_num n_groups mamba_n_groups mamba_ngroups o_groups"),
    (_at_most(4), "num_experts num_local_experts n_routed_experts moe_num_experts chunk_size mamba_chunk_size "
     "altup_num_inputs hc_mult hc_count prompt_length split_ngram_parts num_position_embeddings"),
    (_at_most(WINDOW), "sliding_window sliding_window_size attention_chunk_size attention_window_size window_size "
     "keep_window_size"),
    (_at_most(32), "position_bias_max_distance rel_extent relative_attention_max_distance position_bias_num_buckets"),
    (_at_most(VOCABULARY), "vocab_size ngram_vocab_size_base encoder_hash_byte_group_vocab"),
    (_at_most(512), "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions context_length "
     "model_max_length"),
]  # fmt: skip
SIZES = {name: rule for rule, names in RULES for name in names.split()}


def _rule(key: str) -> Rule | None:
    """The rule for a size of this name; names that end like these are of one kind with them."""
    for ending in ("intermediate_size", "vocab_size"):
        if key.endswith(ending) or key.startswith(ending):
            key = ending
    return SIZES.get(key)


def twin_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """A configuration of the same class in miniature."""
    given = copy.deepcopy(config.to_dict())
    given.pop("quantization_config", None)
    ids = iter(range(VOCABULARY - 1, VOCABULARY // 2, -1))
    return type(config).from_dict(_shrunk(given, ids))


def _shrunk(given: dict[str, Any], ids: Any, part: str = "") -> dict[str, Any]:
    """One level of a configuration; `part` names what is no language model."""
    depth = _depth(given)
    chosen = layers_of(given)[: 2 if part else None]
    count = len(chosen)
    out: dict[str, Any] = {}
    for key, old in given.items():
        if key == "per_layer_config" and old:
            own = {str(new): _own(given, layer) for new, layer in enumerate(chosen)}
            out[key] = {new: {k: _sized(k, v, given | one) for k, v in one.items()} for new, one in own.items() if one}
        elif isinstance(old, dict):
            out[key] = _rope(old, given) if key.startswith("rope") else _inner(key, old, ids, part)
        elif key in ("mrope_section",):
            out[key] = _sections(old, _rotary(given))
        elif isinstance(old, list) and depth and len(old) == depth:
            out[key] = [_sized(key, old[layer], given) for layer in chosen]
        elif isinstance(old, bool) or not isinstance(old, int):
            out[key] = old
        elif re.search(r"token_(id|index)$", key):
            out[key] = old if old < 3 else next(ids)
        elif LAYERS.fullmatch(key):
            out[key] = count
        else:
            out[key] = _sized(key, old, given)
    return _reconciled(out, chosen)


def _inner(key: str, old: dict[Any, Any], ids: Any, part: str) -> Any:
    if not key.endswith("config") and key not in ("layer_types_config",):
        return old
    return _shrunk(old, ids, part or (key if PARTS.search(key) else ""))


def _sized(key: str, old: Any, given: dict[str, Any]) -> Any:
    if key == "head_dim" and old == given.get("qk_rope_head_dim"):  # what is rotated, where latents are compressed
        return 4
    rule = _rule(key)
    if rule is None or isinstance(old, bool) or not isinstance(old, int) or old <= 0:
        return old
    return rule(old, given)


def _depth(given: dict[str, Any]) -> int:
    return next((v for k, v in given.items() if LAYERS.fullmatch(k) and isinstance(v, int) and v), 0)


def layers_of(given: dict[str, Any]) -> list[int]:
    """The layers that the twin has, by their numbers: one period of the pattern, at least 2, at most `MOST_LAYERS`."""
    depth = _depth(given) or 2
    lists = [v for v in given.values() if isinstance(v, list) and len(v) == depth and len(set(map(str, v))) > 1]
    among = [given[name] for name in NUMBERED if isinstance(given.get(name), list)]
    kinds = [str([*(one[i] for one in lists), *(i in one for one in among), _own(given, i)]) for i in range(depth)]
    period = next((p for p in range(1, depth) if all(kinds[i] == kinds[i % p] for i in range(depth))), 0)
    if not period:  # as far as there are two of each kind that has two
        second = [[i for i, k in enumerate(kinds) if k == kind][:2][-1] for kind in set(kinds)]
        period = max(second) + 1
    spaced = [given.get(name) for name in SPACED]
    count = min(max(2, period, *(n for n in spaced if isinstance(n, int) and n <= depth)), depth, MOST_LAYERS)
    chosen = list(range(max(count, 2) if depth > 1 else 1))
    if period > count and not any(spaced):  # two of each kind instead
        chosen = sorted({i for kind in set(kinds) for i in [i for i, k in enumerate(kinds) if k == kind][:2]})[:count]
    lacking = [kinds.index(k) for k in dict.fromkeys(kinds) if k not in {kinds[i] for i in chosen}]
    for place, layer in enumerate(lacking[: len(chosen) - 1]):
        chosen[-1 - place] = layer
    return sorted(chosen)


def _own(given: dict[str, Any], layer: int) -> Any:
    """What a configuration says of one layer alone."""
    found: dict[Any, Any] = given.get("per_layer_config") or {}
    return next((v for k, v in found.items() if str(k).isdigit() and int(k) == layer), None)


def _rotary(given: dict[str, Any]) -> int:
    """Dimensions of a head that are rotated."""
    rope = given.get("rope_parameters") or {}
    factor = given.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or 1.0
    return max(2, int(HEAD * factor))


def _rope(old: dict[Any, Any], given: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    pairs = _rotary(given) // 2 if not given.get("qk_rope_head_dim") else 2
    for key, value in old.items():
        if isinstance(value, dict):
            out[key] = _rope(value, given)
        elif key == "mrope_section" and value:
            out[key] = _sections(value, 2 * pairs)
        elif key in ("long_factor", "short_factor") and value:
            out[key] = list(value[:pairs])
        else:
            out[key] = value
    return out


def _sections(old: list[int], rotary: int) -> list[int]:
    """Parts of the rotated pairs, in about the same proportions."""
    pairs = rotary // 2
    new = [max(1, math.floor(pairs * one / sum(old))) for one in old]
    new[0] += pairs - sum(new)
    return new


def _reconciled(out: dict[str, Any], chosen: list[int]) -> dict[str, Any]:
    """Sizes that follow from others, and numbers of layers that are no longer there."""
    count = len(chosen)
    if "attention_types" in out:  # gpt_neo: [[kinds], how often]
        kinds = out["attention_types"][0][0]
        out["attention_types"] = [[kinds, 1]] if len(kinds) <= count else out["attention_types"]
        out["attention_layers"] = kinds[:count]
        out["num_layers"] = len(kinds[:count])
    if out.get("expand") and out.get("num_heads") and out.get("head_dim"):  # mamba2
        out["num_heads"], out["head_dim"] = out["expand"] * HIDDEN // HEAD, HEAD
    for key in ("num_kv_shared_layers", "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index",
                "num_nextn_predict_layers"):  # fmt: skip
        if isinstance(out.get(key), int) and not isinstance(out[key], bool) and out[key] > 0:
            out[key] = 1
    for key in NUMBERED:
        if isinstance(out.get(key), list):
            out[key] = [new for new, layer in enumerate(chosen) if layer in out[key]]
    if isinstance(out.get("moe_layer_end_index"), int):
        out["moe_layer_end_index"] = count - 1
    if isinstance(out.get("axial_pos_embds_dim"), list):
        out["axial_pos_embds_dim"] = [HEAD, HIDDEN - HEAD]
        out["axial_pos_shape"] = [16, 16]
    return out


def _first(given: dict[str, Any], *names: str) -> int | None:
    return next((given[n] for n in names if isinstance(given.get(n), int)), None)


def drawn(lm: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Draw a model's weights: matrices at the scale of their fan-in, all others nudged off their defaults."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in lm.named_parameters():
            if not weight.is_floating_point():
                continue
            noise = torch.empty(weight.shape).normal_(generator=source)
            if weight.ndim >= 2 and not name.endswith(("A_log", "D", "dt_bias")):
                table = re.search(r"embed|wte|wpe", name) is not None
                weight.copy_(noise if table else noise / math.sqrt(max(1, weight[0].numel())))
            else:
                weight.add_(0.1 * noise.to(weight))
    return lm.eval()


def twin(lm: PreTrainedModel) -> PreTrainedModel:
    """A model of the same class and configuration in miniature, with weights of its own, in fp32 on the CPU."""
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(0)
        made: PreTrainedModel = type(lm)._from_config(
            twin_config(lm.config), attn_implementation=lm.config._attn_implementation, dtype=torch.float32
        )
    finally:
        torch.random.set_rng_state(state)
    return drawn(made.float())
