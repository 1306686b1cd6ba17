"""Norms, rotations, gated activations and attention in few passes over memory, while training on a CPU.

What stands between the products of a layer is written out in `transformers`, one operation after the other, each of
which reads and writes all positions in memory; their gradients are as many operations again. Here each of the four is
one autograd step, made for `TILE` numbers at a time, which stay in the processor's cache from the first operation to
the last. What is kept for the gradient is the input alone, and attention's probabilities.

The forwards of norms, rotations and activations are the model's own, so that they are the same to the bit. Their
gradients, with g that of the output:

    y = s x r, r = (mean x² + ε)^(−1/2)     g' = g s;  r g' − x r³ mean(g' x)        arXiv 1910.07467, eq. 4
    y = x cos + (−x₂, x₁) sin               g cos + (h₂, −h₁), h = g sin             arXiv 2104.09864, eq. 34
    y = act(a) b                            g b act'(a),  g act(a)                   arXiv 2002.05202, eq. 6

Attention of a block of positions goes over the keys that one of them sees, which in a row of several examples are few.
It differs from the plain one by rounding.

What a model has is found by trying: a piece whose plain form computes something else is left as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import signature, unwrap
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from probes.sites import MLP

TILE = 1 << 16  # numbers of a tensor that are worked on at one time
BLOCK = 64  # positions whose attention is made at one time
NEAR = 1e-4  # of its norm: what a piece may differ by from its plain form, in float32
ATTENTION, ROTATION = "eager_attention_forward", "apply_rotary_pos_emb"
UNLIKE = (AttributeError, RuntimeError, TypeError)  # a piece that needs other arguments, or more of its module
PLAIN = ["module", "query", "key", "value", "attention_mask", "scaling", "dropout", "kwargs"]


@contextmanager
def few_passes(lm: PreTrainedModel) -> Iterator[None]:
    """Inside the context a model on a CPU computes so; it is the same before and after it."""
    modules: dict[nn.Module, Callable[..., Tensor]] = {}
    functions: dict[tuple[ModuleType, str], Callable[..., Any]] = {}
    if lm.device.type == "cpu":
        for m in lm.modules():
            if (found := _norm(m)) is not None:
                modules[m] = found
        modules |= {m: partial(_gated_mlp, m) for m in lm.modules() if _is_gated(m)}
        homes = {type(m).__module__ for m in lm.modules() if type(m).__module__.startswith("transformers.models.")}
        for home in (sys.modules[name] for name in sorted(homes)):
            if _is_plain_attention(vars(home).get(ATTENTION)):
                functions[home, ATTENTION] = _Attention(vars(home)[ATTENTION])
            if _is_plain_rotation(vars(home).get(ROTATION)):
                functions[home, ROTATION] = partial(_rotation, vars(home)[ROTATION])
    before = {(home, name): vars(home)[name] for home, name in functions}
    for m, forward in modules.items():
        m.forward = forward  # type: ignore[method-assign]
    for (home, name), function in functions.items():
        setattr(home, name, function)
    try:
        yield
    finally:
        for m in modules:
            del m.forward
        for (home, name), function in before.items():
            setattr(home, name, function)


def _tiles(rows: int, width: int) -> Iterator[slice]:
    step = max(1, TILE // width)
    return (slice(n, min(n + step, rows)) for n in range(0, rows, step))


def _flat(x: Tensor) -> Float[Tensor, "rows width"]:
    return x.reshape(-1, x.shape[-1])


def _near(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and bool((found - wanted).norm() <= NEAR * wanted.norm())


class _Norm(torch.autograd.Function):
    """`own(x)`, a root mean square norm with this scale and ε."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, own: Callable[[Tensor], Tensor], scale: Tensor, eps: float) -> Tensor:
        flat = _flat(x)
        out = torch.empty_like(flat)
        for tile in _tiles(*flat.shape):
            out[tile] = own(flat[tile])
        ctx.save_for_backward(flat, scale)
        ctx.eps = eps
        return out.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, scale = ctx.saved_tensors
        flat, out, width = _flat(grad), torch.empty_like(x), x.shape[-1]
        for tile in _tiles(*x.shape):
            h, g = x[tile].float(), flat[tile].float() * scale
            r = torch.rsqrt(torch.linalg.vecdot(h, h) / width + ctx.eps)
            pull = torch.linalg.vecdot(g, h) * r**3 / width
            out[tile] = g.mul_(r[:, None]).addcmul_(h, pull[:, None], value=-1)
        return out.view(grad.shape), None, None, None


def _norm(module: nn.Module) -> Callable[..., Tensor] | None:
    """A norm in one step, where its gradient by the formula is what autograd makes of it."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or type(module).__module__.startswith("torch."):
        return None
    if not isinstance(weight, Tensor) or weight.ndim != 1 or not isinstance(eps, float) or "forward" in vars(module):
        return None
    if len(list(module.parameters())) != 1 or list(module.children()):
        return None
    own = partial(type(module).forward, module)
    with torch.no_grad():
        scale = own(torch.ones(1, len(weight), device=weight.device))[0].float() * (1 + eps) ** 0.5
    probe, pull = torch.randn(2, 3, len(weight), generator=torch.Generator().manual_seed(0))
    with torch.enable_grad():
        x, y = probe.clone().requires_grad_(), probe.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(own(x), x, pull)
        (found,) = torch.autograd.grad(_Norm.apply(y, own, scale, eps), y, pull)
    if not _near(found, wanted):
        return None

    def forward(x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or not x.requires_grad or weight.requires_grad:
            return own(x)  # type: ignore[no-any-return]
        out: Tensor = _Norm.apply(x, own, scale, eps)
        return out

    return forward


class _Gated(torch.autograd.Function):
    """act(a) b."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
        a, b = _flat(gate), _flat(up)
        out = torch.empty_like(b)
        for tile in _tiles(*a.shape):
            torch.mul(act(a[tile]), b[tile], out=out[tile])
        ctx.save_for_backward(a, b)
        ctx.act = act
        return out.view(up.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        a, b = ctx.saved_tensors
        flat, grad_a, grad_b = _flat(grad), torch.empty_like(a), torch.empty_like(b)
        for tile in _tiles(*a.shape):
            with torch.enable_grad():
                x = a[tile].detach().requires_grad_()
                y = ctx.act(x)
            torch.mul(flat[tile], y.detach(), out=grad_b[tile])
            (grad_a[tile],) = torch.autograd.grad(y, x, flat[tile] * b[tile])
        return grad_a.view(grad.shape), grad_b.view(grad.shape), None


def _gated_mlp(module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    if not torch.is_grad_enabled() or not gate.requires_grad or gate.dtype != up.dtype:
        return module.down_proj(module.act_fn(gate) * up)  # type: ignore[no-any-return]
    return module.down_proj(_Gated.apply(gate, up, module.act_fn))  # type: ignore[no-any-return]


def _is_gated(module: Any) -> bool:
    """Whether it computes down(act(gate(x)) up(x)), as its like does with other layers."""
    layers = ("gate_proj", "up_proj", "down_proj", "act_fn")
    if "forward" in vars(module) or {name for name, _ in module.named_children()} != set(layers):
        return False
    if not type(module).__name__.lower().endswith(MLP) or list(module.act_fn.parameters()):
        return False
    alike = SimpleNamespace(
        gate_proj=lambda x: 2 * x + 1, up_proj=lambda x: x - 3, down_proj=lambda x: 5 * x, act_fn=module.act_fn
    )
    x = torch.linspace(-4, 4, 32)
    try:
        made = type(module).forward(alike, x)
    except UNLIKE:
        return False
    return isinstance(made, Tensor) and _near(made, 5 * module.act_fn(2 * x + 1) * (x - 3))


class _Rotation(torch.autograd.Function):
    """`own(x)`: x cos + (−x₂, x₁) sin, with x = (x₁, x₂)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, own: Callable[..., Any]) -> Tensor:
        ctx.save_for_backward(cos, sin)
        out = torch.empty(x.shape, dtype=x.dtype)
        none = x[:1, :0]
        for row, c, s in _rows(x, cos, sin):
            out[row], _ = own(x[row], none, c, s)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        out, half = torch.empty(grad.shape, dtype=grad.dtype), grad.shape[-1] // 2
        for row, c, s in _rows(grad, *ctx.saved_tensors):
            g, s = grad[row], s[:, None]
            made = torch.mul(g, c[:, None], out=out[row])
            made[..., :half].addcmul_(g[..., half:], s[..., half:])
            made[..., half:].addcmul_(g[..., :half], s[..., :half], value=-1)
        return out, None, None, None


def _rows(x: Tensor, cos: Tensor, sin: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Each row of a batch with its angles, of which there may be those of one row for all."""
    for n in range(len(x)):
        of = slice(n, n + 1) if len(cos) > 1 else slice(0, 1)
        yield slice(n, n + 1), cos[of], sin[of]


def _rotation(own: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """For a model's own calls; those in another form than q, k, cos, sin are left to it."""
    if len(args) != 4 or named or not torch.is_grad_enabled():
        return own(*args, **named)
    q, k, cos, sin = args
    plain = cos.ndim == 3 and q.ndim == 4 and cos.shape[-1] == q.shape[-1] == k.shape[-1]
    if not plain or {q.dtype, k.dtype} != {cos.dtype}:
        return own(q, k, cos, sin)
    return _Rotation.apply(q, cos, sin, own), _Rotation.apply(k, cos, sin, own)


def _is_plain_rotation(own: Callable[..., Any] | None) -> bool:
    if own is None or list(signature(own).parameters)[:4] != ["q", "k", "cos", "sin"]:
        return False
    q, k, pull = torch.randn(3, 2, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    cos, sin = torch.randn(2, 2, 3, 8, generator=torch.Generator().manual_seed(1))
    with torch.enable_grad():
        x, y = q.requires_grad_(), q.detach().clone().requires_grad_()
        try:
            wanted = own(x, k, cos, sin)[0]
        except UNLIKE:
            return False
        found = _rotation(own, y, k, cos, sin)[0]
        grads = torch.autograd.grad(wanted, x, pull)[0], torch.autograd.grad(found, y, pull)[0]
    return _near(found.detach(), wanted.detach()) and _near(grads[1], grads[0])


class _Seen(NamedTuple):
    """A block of positions of a row, and the keys that one of them sees."""

    row: int
    queries: slice
    keys: slice


def _seen(mask: Float[Tensor, "some one queries keys"], rows: int) -> list[_Seen]:
    """For each block; a mask of one row is that of all."""
    visible = mask[:, 0] > torch.finfo(mask.dtype).min / 2
    visible |= ~visible.any(-1, keepdim=True)  # who sees nothing gives all the same weight
    out = []
    for row, one in enumerate(visible.expand(rows, -1, -1)):
        for start in range(0, one.shape[0], BLOCK):
            block = slice(start, min(start + BLOCK, one.shape[0]))
            some = one[block].any(0).nonzero()
            # Few shapes: the kernels of a CPU are made for each.
            first, last = int(some[0]) // BLOCK * BLOCK, -(-(int(some[-1]) + 1) // BLOCK) * BLOCK
            out.append(_Seen(row, block, slice(first, min(last, one.shape[1]))))
    return out


class _Attended(torch.autograd.Function):
    """softmax(scaling q kᵀ + mask) v, heads of one key together."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scaling: float, seen: list[_Seen]
    ) -> Float[Tensor, "rows queries heads d_head"]:
        out = torch.empty(q.shape[0], q.shape[2], q.shape[1], v.shape[-1], dtype=q.dtype)
        kept = []
        for one in seen:
            keys, values = k[one.row, :, one.keys], v[one.row, :, one.keys]
            scores = torch.bmm(_grouped(q, one, len(keys)), keys.transpose(1, 2))
            wide = scores.view(q.shape[1], -1, scores.shape[-1])
            wide.mul_(scaling).add_(mask[min(one.row, len(mask) - 1), :, one.queries, one.keys])
            share = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype)
            made = torch.bmm(share, values).view(q.shape[1], -1, v.shape[-1])
            out[one.row, one.queries] = made.transpose(0, 1)
            if any(ctx.needs_input_grad):
                kept.append(share)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.scaling, ctx.seen = scaling, seen
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        q, k, v, *kept = ctx.saved_tensors
        grad_q = torch.empty(q.shape, dtype=q.dtype)
        grad_k, grad_v = (torch.zeros(t.shape, dtype=torch.float32) for t in (k, v))
        pulls = grad.transpose(1, 2)
        for one, share in zip(ctx.seen, kept, strict=True):
            keys, values = k[one.row, :, one.keys], v[one.row, :, one.keys]
            pull = _grouped(pulls, one, len(keys))
            grad_v[one.row, :, one.keys] += torch.bmm(share.transpose(1, 2), pull)
            by_share = torch.bmm(pull, values.transpose(1, 2))
            by_score = torch._softmax_backward_data(by_share, share, -1, share.dtype)
            made = torch.bmm(by_score, keys).mul_(ctx.scaling)
            grad_q[one.row, :, one.queries] = made.view(q.shape[1], -1, q.shape[-1])
            grad_k[one.row, :, one.keys] += torch.bmm(by_score.transpose(1, 2), _grouped(q, one, len(keys)))
        return grad_q, grad_k.mul_(ctx.scaling).to(k.dtype), grad_v.to(v.dtype), None, None, None


def _grouped(q: Tensor, one: _Seen, heads: int) -> Float[Tensor, "heads group_queries d_head"]:
    """The queries of a block, those of the heads that share a key together."""
    block = q[one.row, :, one.queries]
    return block.reshape(heads, -1, block.shape[-1])


class _Attention:
    """In the place of a model's plain attention.

    Args:
        own: that.
    """

    def __init__(self, own: Callable[..., Any]) -> None:
        self.own = own
        self._mask: Tensor | None = None
        self._ranges: list[_Seen] = []

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
        scaling: float, dropout: float = 0.0, **more: Any,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        mask = attention_mask
        if mask is None or dropout or not self._fits(query, key, value, mask):
            made: tuple[Tensor, Tensor] = self.own(
                module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **more
            )
            return made
        if mask is not self._mask:
            self._mask, self._ranges = mask, _seen(mask, len(query))
        return _Attended.apply(query, key, value, mask, scaling, self._ranges), None

    @staticmethod
    def _fits(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> bool:
        """Of one precision, with one mask for all heads; one position at a time, as in decoding, has no use for it."""
        if query.shape[2] == 1 or torch.is_autocast_enabled("cpu") or mask.shape[1] != 1:
            return False
        alike = mask.is_floating_point() and {query.dtype, key.dtype, value.dtype, mask.dtype} == {query.dtype}
        return alike and mask.shape[0] in (1, len(query)) and mask.shape[2:] == (query.shape[2], key.shape[2])


def _is_plain_attention(own: Callable[..., Any] | None) -> bool:
    """Whether the attention of a model's source is that of `_Attended`, with nothing beside its arguments."""
    if own is None or list(signature(own).parameters) != PLAIN:
        return False
    generator = torch.Generator().manual_seed(0)
    group = 2 if "repeat_kv" in unwrap(own).__code__.co_names else 1
    q, (k, v) = (
        torch.randn(2, 4, 5, 8, generator=generator) * 3,
        torch.randn(2, 2, 4 // group, 7, 8, generator=generator),
    )
    hidden = torch.arange(7)[None, :] > torch.arange(5)[:, None] + 2
    mask = torch.zeros(2, 1, 5, 7).masked_fill(hidden, torch.finfo(torch.float32).min)
    alike = SimpleNamespace(num_key_value_groups=group, training=False)
    try:
        wanted, _ = own(alike, q, k, v, mask, scaling=0.5)
    except UNLIKE:
        return False
    found: Tensor = _Attended.apply(q, k, v, mask, 0.5, _seen(mask, len(q)))
    return _near(found, wanted)
