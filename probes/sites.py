"""Hook points: where in a decoder the residual stream and what is added to it can be read or written.

Names and meanings are TransformerLens's (`blocks.{layer}.hook_{point}`):

- `resid_pre`, `resid_post`: the residual stream before and after a block;
- `attn_out`, `mlp_out`: what the block's attention and its MLP add to the residual stream (after the post-norm, where
  an architecture has one);
- `pattern`: attention probabilities, [heads, query, key]; read only.

The modules are found by what they are, not by a table of model names, and `attn_out` and `mlp_out` are believed
only after a forward has shown that resid_pre + attn_out + mlp_out = resid_post: an architecture that adds the
residual inside its attention, or scales what it adds, is refused by name.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from probes.errors import UserError, unknown
from probes.finite import check_activations

STREAM = ("resid_pre", "attn_out", "mlp_out", "resid_post")  # in the order of the forward
POINTS = (*STREAM, "pattern")
ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "moe")
# Norms that stand between a sublayer and the residual stream, where both of a pair are there: Gemma 2 and 3, OLMo 2 and
# EXAONE 4; GLM-4, whose post_attention_layernorm is the one before its MLP.
POST_NORMS = (
    {"attn_out": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm"},
    {"attn_out": "post_self_attn_layernorm", "mlp_out": "post_mlp_layernorm"},
)
ADDED = ("attn_out", "mlp_out")  # what sublayers add to the residual stream
SUM_TOLERANCE = 0.02  # of the residual stream's norm at a position: bf16 rounds each sum to 0.4%


@dataclass(frozen=True)
class Site:
    """A hook point of a layer; `str` and `parse` are each other's inverse: `12.resid_post`.

    What other libraries call it: `probes.namings`.
    """

    layer: int
    point: str = "resid_post"

    def __post_init__(self) -> None:
        if self.point not in POINTS:
            raise unknown("hook point", self.point, POINTS)

    def __str__(self) -> str:
        return f"{self.layer}.{self.point}"

    @property
    def order(self) -> tuple[int, int]:
        """Where in a forward it comes."""
        return self.layer, (*STREAM[:1], "pattern", *STREAM[1:]).index(self.point)

    @staticmethod
    def parse(text: str) -> Site:
        found = re.fullmatch(r"(\d+)\.(\w+)", text)
        if not found:
            raise UserError(f"site {text!r} was given; write layer.point, like 12.resid_post")
        return Site(int(found[1]), found[2])


def blocks(lm: nn.Module) -> nn.ModuleList:
    """The decoder's blocks.

    Raises:
        UserError: none found.
    """
    return _blocks(lm)[1]


def _blocks(lm: nn.Module) -> tuple[str, nn.ModuleList]:
    """The blocks, with their place in the model."""
    config: Any = lm.config
    depth = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    for name, module in lm.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth and "vision" not in name:
            return name, module
    raise UserError(f"{type(lm).__name__} holds no list of {depth} blocks; hooks need one")


def decoder(lm: nn.Module) -> nn.Module:
    """The module that runs the blocks on token ids: the innermost one around them whose forward takes ids and cache."""
    path = _blocks(lm)[0].split(".")
    around = [lm.get_submodule(".".join(path[:count])) for count in range(len(path) - 1, -1, -1)]
    around = [one for one in around if not isinstance(one, nn.ModuleList)]
    return next((one for one in around if "input_ids" in signature(type(one).forward).parameters), around[0])


def depth(lm: nn.Module) -> int:
    return len(blocks(lm))


def width(lm: nn.Module) -> int:
    """d_model.

    Raises:
        UserError: a configuration that does not say it.
    """
    config: Any = lm.config
    found = getattr(config.get_text_config(decoder=True), "hidden_size", None)
    if found is None:
        raise UserError(f"the configuration of {type(lm).__name__} says no hidden_size; use another model")
    return int(found)


def module_of(lm: nn.Module, site: Site) -> nn.Module:
    """The module at whose input (`resid_pre`) or output (all others) the site lies.

    Raises:
        UserError: no such layer; a point that the architecture lacks.
    """
    layers = blocks(lm)
    if not 0 <= site.layer < len(layers):
        raise UserError(
            f"layer {site.layer} was given; {type(lm).__name__} has {len(layers)} layers, give 0 to {len(layers) - 1}"
        )
    block = layers[site.layer]
    if site.point in ("resid_pre", "resid_post"):
        return block
    norm = post_norm(block, site.point)
    return sublayer(lm, site) if norm is None else norm


def sublayer(lm: nn.Module, site: Site) -> nn.Module:
    """The attention, or the MLP, whose output a post-norm may follow.

    Raises:
        UserError: the architecture lacks it.
    """
    children = dict(blocks(lm)[site.layer].named_children())
    for name in MLP if site.point == "mlp_out" else ATTENTION:
        if name in children:
            return children[name]
    raise UserError(f"{type(lm).__name__} has no {site.point} in layer {site.layer}; use resid_pre or resid_post")


def post_norm(block: nn.Module, point: str) -> nn.Module | None:
    """The norm of a block through which a sublayer's output goes to the residual stream, where there is one."""
    children = dict(block.named_children())
    for pair in POST_NORMS:
        if point in pair and all(name in children for name in pair.values()):
            return children[pair[point]]
    return None


def check_site(lm: PreTrainedModel, site: Site, *, write: bool = False) -> None:
    """Refuse what cannot be hooked.

    Raises:
        UserError: no such layer, a point that the architecture lacks, `pattern` where it would be written.
    """
    if write and site.point == "pattern":
        raise UserError("attention patterns can be read and not written; use attn_out or the residual stream")
    module_of(lm, site)
    if site.point in STREAM and not _follow(lm):
        raise UserError(
            f"{type(lm).__name__} has no list of blocks that follow each other (none is given what the one before it "
            "hands over); it can be decoded, and neither captured nor steered"
        )
    if site.point in ADDED and not _adds_up(lm, site.layer):
        raise UserError(
            f"{type(lm).__name__} does not add its {site.point} to the residual stream as it is (layer {site.layer}: "
            "resid_pre + attn_out + mlp_out is not resid_post); use resid_pre or resid_post"
        )


_FOLLOW: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


@torch.no_grad()
def _follow(lm: PreTrainedModel) -> bool:
    """Whether any block is given what the one before it hands over: tried once, with a forward of three tokens.

    Lists of the right length may hold attentions alone, beside others of norms and MLPs (XLM). On weights that are held
    elsewhere nothing can be tried, and the list is believed.
    """
    if lm not in _FOLLOW:
        if any(parameter.is_meta for parameter in lm.parameters()):
            return True
        handed: list[tuple[Any, Any]] = []

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = args[0] if args else kwargs.get("hidden_states", kwargs.get("activations"))
            handed.append((given, output[0] if isinstance(output, tuple) else output))

        handles = [block.register_forward_hook(keep, with_kwargs=True) for block in blocks(lm)]
        try:
            with paused(lm):
                decoder(lm)(input_ids=torch.tensor([[1, 2, 3]], device=lm.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        pairs = [(before, after) for (_, before), (after, _) in pairwise(handed)]
        _FOLLOW[lm] = not pairs or any(
            isinstance(before, Tensor) and isinstance(after, Tensor) and before.shape == after.shape
            and torch.allclose(before, after.to(before.device), equal_nan=True)
            for before, after in pairs
        )  # fmt: skip
    return _FOLLOW[lm]


_SUMS: weakref.WeakKeyDictionary[nn.Module, dict[int, bool]] = weakref.WeakKeyDictionary()


def _adds_up(lm: PreTrainedModel, layer: int) -> bool:
    known = _SUMS.setdefault(lm, {})
    if layer not in known:
        with torch.no_grad(), reading(lm, [Site(layer, point) for point in STREAM]) as seen:
            decoder(lm)(input_ids=torch.tensor([[1, 2, 3]], device=lm.device), use_cache=False)
        for site, h in seen.items():
            check_activations(h, site)
        known[layer] = adds_up({site.point: h.float() for site, h in seen.items()})
    return known[layer]


def adds_up(seen: Mapping[str, Tensor]) -> bool:
    """Whether activations at the four points of a layer, fp32, are the residual stream and what is added to it."""
    total = seen["resid_pre"] + seen["attn_out"] + seen["mlp_out"]
    # Position by position, since the first token's stream can be thousands of times longer than the others', and by the
    # longest of the four, since a sublayer may take away what that is.
    longest = torch.stack([h.norm(dim=-1) for h in seen.values()]).amax(0)
    return bool(((total - seen["resid_post"]).norm(dim=-1) < SUM_TOLERANCE * longest).all())


@contextmanager
def reading(lm: nn.Module, sites: Iterable[Site]) -> Iterator[dict[Site, Tensor]]:
    """What the forward inside the context computes at the sites: copies, of its first row, [pos, d_model]."""
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[[Tensor], None]:
        def hook(h: Tensor) -> None:
            seen[site] = h[0].clone()

        return hook

    handles = [on_site(lm, site, keep(site)) for site in sites]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


Hook = Callable[[Float[Tensor, "rows pos d_model"]], Tensor | None]


def on_site(lm: nn.Module, site: Site, hook: Hook) -> RemovableHandle:
    """Call `hook` with the activations at a site in each forward; what it returns takes their place.

    For `pattern` the hook gets [rows, heads, query, key] and what it returns is dropped; the attention must be
    eager, since fused kernels hold no pattern.
    """
    module = module_of(lm, site)
    hook = partial(_guarded, lm, site, hook)
    if site.point == "resid_pre":
        return module.register_forward_pre_hook(partial(_before, hook), with_kwargs=True)
    return module.register_forward_hook(partial(_weights if site.point == "pattern" else _after, hook))


# Functions of the module and not of each call: under type checks a function within another is compiled anew each time.
def _before(hook: Hook, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    changed = hook(args[0] if args else kwargs["hidden_states"])
    if changed is None:
        return None
    return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})


def _weights(hook: Hook, _: nn.Module, __: Any, output: Any) -> None:
    if not isinstance(output, tuple) or output[1] is None:
        raise UserError("this attention returns no pattern; capture patterns with attn_implementation='eager'")
    hook(output[1])


def _after(hook: Hook, _: nn.Module, __: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        changed = hook(output[0])
        return None if changed is None else (changed, *output[1:])
    return hook(output)


_PAUSED: set[int] = set()


@contextmanager
def paused(lm: nn.Module) -> Iterator[None]:
    """Forwards inside the context are seen and changed by no hook of `on_site` and followed by no clock."""
    outermost = id(lm) not in _PAUSED
    _PAUSED.add(id(lm))
    try:
        yield
    finally:
        if outermost:
            _PAUSED.discard(id(lm))


def is_paused(lm: nn.Module) -> bool:
    return id(lm) in _PAUSED


def _guarded(lm: nn.Module, site: Site, hook: Hook, h: Tensor) -> Tensor | None:
    """Pass by where hooks are paused; refuse activations that are no residual stream of one vector a position."""
    if is_paused(lm):
        return None
    if h.ndim != 3 and site.point != "pattern":
        raise UserError(
            f"{type(lm).__name__} keeps several residual streams at {site} (activations of shape {list(h.shape)}); "
            "it can be decoded, and neither captured nor steered there"
        )
    return hook(h)
