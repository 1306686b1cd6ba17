"""The table of `probes.namings` as Markdown, with names as they come out for tiny models of some architectures."""

from __future__ import annotations

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from experiments.markdown import markdown
from probes.errors import UserError
from probes.namings import NAMINGS, hidden_states, name_of
from probes.sites import ADDED, POINTS, Site, check_site, depth

LAYER, LAYERS = 3, 5
SIZES = dict(
    vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=LAYERS, num_attention_heads=2,
    num_key_value_heads=2, head_dim=8, max_position_embeddings=32, pad_token_id=0,
)  # fmt: skip
SHOWN = ("llama", "qwen3", "gemma2", "gemma3_text", "olmo2", "exaone4", "glm4", "gpt_neox", "granite", "mamba")


def tiny(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    more = {"residual_multiplier": 0.2} if kind == "granite" else {}
    lm: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**SIZES, **more)).float().eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.normal_(0, 0.5)
    return lm


def hook_points() -> str:
    """A row a naming: what each of our points is called, in layer 3 of 5 of a Llama."""
    lm = tiny("llama")
    rows = [(f"`{name}`", *(called(Site(LAYER, point), name, lm) for point in POINTS)) for name in NAMINGS]
    return markdown(("naming", *(f"`{point}`" for point in POINTS)), rows)


def about() -> str:
    """What is to be known of each naming."""
    return "\n".join(f"- `{name}`: {naming.about}." for name, naming in NAMINGS.items())


def by_architecture() -> str:
    """A row an architecture: its hidden states, and where what its attention and MLP add is found."""
    rows = []
    for kind in SHOWN:
        lm = tiny(kind)
        entries = [f"`{site}`" if site else "none" for site in hidden_states(lm)]
        first, last = f"`[0]` is {entries[0]}", f"`[{len(entries) - 1}]` is {entries[-1]}"
        added = []
        for point in ADDED:
            try:
                check_site(lm, Site(LAYER, point))
            except UserError:
                added.append("refused")
            else:
                added.append(called(Site(LAYER, point), "modules", lm))
        rows.append((f"{type(lm).__name__} ({depth(lm)} layers)", f"{first}, {last}", *added))
    return markdown(("model", "`hidden_states`", "`3.attn_out`", "`3.mlp_out`"), rows)


def called(site: Site, naming: str, lm: PreTrainedModel) -> str:
    try:
        return f"`{name_of(site, naming, lm)}`"
    except UserError:
        return ""
