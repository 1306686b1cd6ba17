"""What other libraries call a site, with their off-by-ones: one table, by which names are read and written here.

    site_named("blocks.12.hook_resid_post", "transformer-lens")   # 12.resid_post
    site_named("hidden_states[13]", "transformers", lm)           # 12.resid_post: the first one is the embedding
    name_of(Site(12, "attn_out"), "nnsight", lm)                  # model.model.layers[12].self_attn.output[0]

Layers are counted from 0 by all of them. A name that lies at no site is refused with what it is: the last of
`hidden_states` where it has been through the final norm, an attention's own output where a norm follows it.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from probes.errors import UserError, unknown
from probes.sites import ADDED, POINTS, STREAM, Site, blocks, depth, module_of, post_norm, reading, sublayer

LENS = {point: f"blocks.{{}}.hook_{point}" for point in STREAM}
# Hook points that are asked for and are no site.
NO_SITE = {
    "hook_resid_mid": "the residual stream between attention and MLP",
    "hook_z": "the heads' outputs before the output projection",
    "hook_result": "the heads' outputs one by one",
    "hook_mlp_in": "the input of the MLP",
    "mlp.hook_in": "the input of the MLP",
    "hook_normalized": "a normalised input of attention or MLP",
    "mlp.hook_post": "the MLP's hidden layer",
    "ln_final.hook_normalized": "the output of the final norm",
}
_TRIED = [[1, 2, 3]]


@dataclass(frozen=True)
class Naming:
    """A library's names for sites.

    Args:
        about: whose they are, and what is to be known of them.
        names: of each hook point that has one, with `{}` where the layer stands; where names depend on the model, an
            example.
        also: further names that are read.
        before_norm: those of sublayers, which are sites only where no norm follows them.
    """

    about: str
    names: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, str] = field(default_factory=dict)
    before_norm: frozenset[str] = frozenset()

    def name(self, site: Site, lm: nn.Module | None) -> str:
        """The name of a site, or "" where it has none."""
        template = self.names.get(site.point, "")
        if template in self.before_norm:
            _check_no_norm(lm, site)
        return template.format(site.layer)

    def site(self, name: str, lm: nn.Module | None) -> Site | None:
        """The site of a name, or None where this is none of the library's."""
        table = {**{template: point for point, template in self.names.items()}, **self.also}
        for template, point in table.items():
            found = re.fullmatch(re.escape(template).replace(r"\{\}", r"(-?\d+)"), name)
            if found is None:
                continue
            site = Site(_counted(int(found[1]), lm), point)
            if template in self.before_norm:
                _check_no_norm(lm, site)
            return site
        return None


class HiddenStates(Naming):
    """`output_hidden_states` of transformers: which entry is which site shows in a forward of the model."""

    def name(self, site: Site, lm: nn.Module | None) -> str:
        if site.point not in ("resid_pre", "resid_post"):
            return ""
        # What comes into a block is what left the one before it.
        wanted = Site(site.layer - 1) if site.point == "resid_pre" and site.layer else site
        entries = hidden_states(_given(lm))
        if wanted not in entries:
            where = f"the {len(entries)} hidden states of {type(lm).__name__}"
            raise UserError(f"{site} was asked for; it is none of {where}, whose last is after the final norm; hook it")
        return f"hidden_states[{entries.index(wanted)}]"

    def site(self, name: str, lm: nn.Module | None) -> Site | None:
        found = re.fullmatch(r"(?:\w+\.)?(?:hidden_states)?\[(-?\d+)\]", name)
        if found is None:
            return None
        entries = hidden_states(_given(lm))
        number = int(found[1])
        if not -len(entries) <= number < len(entries):
            raise UserError(f"{name} was given; {type(lm).__name__} has {len(entries)} hidden states, from 0")
        site = entries[number]
        if site is None:
            raise UserError(
                f"{name} was given; in {type(lm).__name__} it is no residual stream (the last one is after the final "
                f"norm); the stream after the last block is {Site(depth(_given(lm)) - 1)}"
            )
        return site


class Modules(Naming):
    """Paths of modules, as `named_modules` has them, with `.input` or `.output` where they say which."""

    def name(self, site: Site, lm: nn.Module | None) -> str:
        if site.point == "pattern":
            return ""
        return f"{module_name(_given(lm), site)}.{'input' if site.point == 'resid_pre' else 'output'}"

    def site(self, name: str, lm: nn.Module | None) -> Site | None:
        path, end = (name[: -len(e)], e) if (e := name[name.rfind(".") :]) in (".input", ".output") else (name, "")
        if lm is not None:
            return _at_module(lm, path, end or ".output", name)
        # Without the model a path that ends in a number is taken for a block.
        found = re.fullmatch(r"(?:[A-Za-z_]\w*\.)*(\d+)", path)
        return None if found is None else Site(int(found[1]), "resid_pre" if end == ".input" else "resid_post")


class NNsight(Naming):
    """Envoys of nnsight: a module's path with brackets, then `.input` or `.output`, and `[0]` where that is a tuple."""

    def name(self, site: Site, lm: nn.Module | None) -> str:
        model = _given(lm)
        path = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", "model." + module_name(model, site))
        if site.point == "resid_pre":
            return f"{path}.input"
        if site.point == "pattern":
            return f"{path}.output[1]"
        return f"{path}.output[0]" if _gives_tuple(model, module_of(model, site)) else f"{path}.output"

    def site(self, name: str, lm: nn.Module | None) -> Site | None:
        found = re.fullmatch(r"\w+\.(.+)\.(input|output)(?:\[(\d+)\])?", name)
        if found is None:
            return None
        model = _given(lm)
        path, second = re.sub(r"\[(\d+)\]", r".\1", found[1]), found[2] == "output" and found[3] == "1"
        site = _at_module(model, path, f".{found[2]}{'[1]' * second}", name)
        if site is not None and (right := self.name(site, lm)).rpartition(".")[2] != name.rpartition(".")[2]:
            kind = "a tuple" if right.endswith("[0]") else "no tuple: a number in brackets is a row of the batch"
            raise UserError(f"{name} was given; what {type(model).__name__} hands over there is {kind}; write {right}")
        return site


class SAELens(Naming):
    """`hook_name` of a `cfg.json`: mostly a name of TransformerLens's, in some a module."""

    def site(self, name: str, lm: nn.Module | None) -> Site | None:
        return super().site(name, lm) or Modules(self.about).site(name, lm)


NAMINGS: dict[str, Naming] = {
    "elicit": Naming("this suite", {point: f"{{}}.{point}" for point in POINTS}),
    "transformer-lens": Naming(
        "TransformerLens: HookedTransformer and TransformerBridge; `attn_out` and `mlp_out` lie after a post-norm",
        {**LENS, "pattern": "blocks.{}.attn.hook_pattern"},
        also={
            "blocks.{}.hook_in": "resid_pre", "blocks.{}.hook_out": "resid_post",
            "blocks.{}.attn.hook_out": "attn_out", "blocks.{}.mlp.hook_out": "mlp_out",
        },
        before_norm=frozenset({"blocks.{}.attn.hook_out", "blocks.{}.mlp.hook_out"}),
    ),
    "sae-lens": SAELens(
        "SAELens: `hook_name` of a `cfg.json`",
        LENS,
        also={f"{{}}.{point}": point for point in STREAM} | {f"{{}}.hook_{point}": point for point in STREAM},
    ),
    "transformers": HiddenStates(
        "transformers: `output_hidden_states`; the first is the embedding (not in Mamba), the last after a final norm",
        {"resid_pre": "hidden_states[{}]"},
    ),
    "modules": Modules(
        "transformers: modules, for PyTorch's hooks; also `hf_hook_name` of SAELens",
        {"resid_post": "model.layers.{}.output"},
    ),
    "nnsight": NNsight(
        "nnsight: envoys of a model that is named `model`", {"resid_post": "model.model.layers[{}].output"}
    ),
    "steering-vectors": Naming(
        "steering-vectors: kind and number of a layer; attention and MLP lie before a post-norm",
        {"resid_post": "decoder_block {}", "attn_out": "self_attn {}", "mlp_out": "mlp {}"},
        before_norm=frozenset({"self_attn {}", "mlp {}"}),
    ),
    "gguf": Naming(
        "GGUF control vectors of llama.cpp and repeng: added to a block's output; llama.cpp leaves block 0 unsteered",
        {"resid_post": "direction.{}"},
    ),
}  # fmt: skip


def site_named(name: str, naming: str, lm: nn.Module | None = None) -> Site:
    """The site that another library calls so.

    Args:
        name: as the library writes it, like the names that `name_of` gives.
        naming: one of `NAMINGS`.
        lm: the model, by whose modules and depth some names mean something: those of `transformers` and `nnsight`,
            layers that are counted from the end, and sublayers, which may be followed by a norm.

    Raises:
        UserError: a name that lies at no site; a layer that the model lacks; no model where one is needed.
    """
    site = _of(naming).site(name, lm)
    if site is None:
        what = next((what for point, what in NO_SITE.items() if name.endswith(point)), "")
        examples = [template.format(12) for template in _of(naming).names.values()]
        raise UserError(
            f"the hook point {name!r} was given{f', {what}, which is no site' * bool(what)}; expected the residual "
            f"stream or what is added to it{', like ' * bool(examples)}{' or '.join(examples)} "
            f"(points: {', '.join(STREAM)})"
        )
    if lm is not None:
        module_of(lm, site)
    return site


def name_of(site: Site, naming: str, lm: nn.Module | None = None) -> str:
    """What another library calls a site; arguments as of `site_named`.

    Raises:
        UserError: the library has no name for it; a layer that the model lacks; no model where one is needed.
    """
    if lm is not None:
        module_of(lm, site)
    name = _of(naming).name(site, lm)
    if not name:
        raise UserError(f"{site} was given; {naming} has no name for its {site.point}, use a residual stream")
    return name


def module_name(lm: nn.Module, site: Site) -> str:
    """The path of the module at whose input or output a site lies."""
    wanted = module_of(lm, site)
    return next(name for name, module in lm.named_modules() if module is wanted)


_HIDDEN: weakref.WeakKeyDictionary[nn.Module, list[Site | None]] = weakref.WeakKeyDictionary()


def hidden_states(lm: nn.Module) -> list[Site | None]:
    """Which site each entry of a model's `hidden_states` is, tried on a forward; None: none.

    An entry between two blocks is given as the first one's `resid_post`.

    Raises:
        UserError: a model that hands over none.
    """
    if lm not in _HIDDEN:
        sites = [Site(0, "resid_pre"), *(Site(layer) for layer in range(depth(lm)))]
        with torch.no_grad(), reading(lm, sites) as seen:
            given = lm(input_ids=_ids(lm), output_hidden_states=True, use_cache=False).hidden_states
        if not given:
            raise UserError(f"{type(lm).__name__} hands over no hidden states; hook its blocks")
        entries: list[Site | None] = []
        for h in given:
            entries.append(next((s for s in sites if torch.equal(h[0].to(seen[s].device), seen[s])), None))
            if entries[-1] is not None:
                sites = sites[sites.index(entries[-1]) + 1 :]
        _HIDDEN[lm] = entries
    return _HIDDEN[lm]


def _of(naming: str) -> Naming:
    if naming not in NAMINGS:
        raise unknown("naming of sites", naming, NAMINGS)
    return NAMINGS[naming]


def _given(lm: nn.Module | None) -> nn.Module:
    if lm is None:
        raise UserError("these names depend on the model; give it as lm")
    return lm


def _counted(layer: int, lm: nn.Module | None) -> int:
    if layer >= 0:
        return layer
    if lm is None:
        raise UserError(f"layer {layer} was given, counted from the end; give the model as lm, or count from 0")
    return layer + depth(lm)


def _check_no_norm(lm: nn.Module | None, site: Site) -> None:
    if lm is None:
        raise UserError(
            f"a name at the {'attention' if site.point == 'attn_out' else 'MLP'} of layer {site.layer} was given; "
            "in some models a norm follows it: give the model as lm"
        )
    _refuse_before_norm(lm, site)


def _refuse_before_norm(lm: nn.Module, site: Site) -> None:
    module_of(lm, site)
    if post_norm(blocks(lm)[site.layer], site.point) is not None:
        raise UserError(
            f"in {type(lm).__name__} a norm follows the {'attention' if site.point == 'attn_out' else 'MLP'}, and this "
            f"name lies before it; {site} is after it, what is added to the residual stream: make the vector there, or "
            "at resid_pre or resid_post"
        )


def _at_module(lm: nn.Module, path: str, end: str, name: str) -> Site | None:
    """The site at a module's `.input`, `.output` or, of an attention, `.output[1]`; None where none lies there."""
    module = dict(lm.named_modules()).get(path)
    if module is None:
        raise UserError(f"{name} was given; {type(lm).__name__} has no module {path!r}")
    for layer, block in enumerate(blocks(lm)):
        if end == ".output[1]":
            if any(module is child for child in block.children()) and module is sublayer(lm, Site(layer, "pattern")):
                return Site(layer, "pattern")
            continue
        if module is block:
            return Site(layer, "resid_pre" if end == ".input" else "resid_post")
        if end == ".input" or all(module is not child for child in block.children()):
            continue
        for point in ADDED:
            site = Site(layer, point)
            if module is post_norm(block, point):
                return site
            if module is sublayer(lm, site):
                _refuse_before_norm(lm, site)
                return site
    return None


def _gives_tuple(lm: nn.Module, module: nn.Module) -> bool:
    """Whether a module hands over a tuple, tried on a forward."""
    kinds: list[bool] = []
    handle = module.register_forward_hook(lambda _, __, output: kinds.append(isinstance(output, tuple)))
    try:
        with torch.no_grad():
            lm(input_ids=_ids(lm), use_cache=False)
    finally:
        handle.remove()
    if not kinds:
        raise UserError(f"{type(module).__name__} is not run in a forward of {type(lm).__name__}; choose another site")
    return kinds[-1]


def _ids(lm: nn.Module) -> Tensor:
    device = next(lm.get_input_embeddings().parameters()).device  # type: ignore[operator]
    return torch.tensor(_TRIED, device=device)
