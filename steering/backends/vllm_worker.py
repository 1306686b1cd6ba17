"""What runs inside vLLM's workers: hooks on the decoder's blocks, and which token belongs to whom.

vLLM flattens the tokens of all requests to [tokens, d_model] and carries the residual stream as two summands,
(hidden, residual). Here each token becomes a row of its own, with its step and its request's row, and the edited
stream goes back as (stream, 0).

With tensor parallelism every rank holds the whole stream, so every rank edits it alike and reports the same delivery.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from probes.clock import Frame
from probes.errors import UserError
from probes.sites import ADDED, STREAM, Site, adds_up, blocks, module_of, width
from steering.editor import Editor
from steering.storage import unpack

MARK = "steering"
"""The request's extra argument that holds [call, row]."""

Edit = Callable[[Float[Tensor, "tokens d_model"]], Tensor | None]


class SteeringExtension:
    """Methods that vLLM adds to its worker; called through `collective_rpc`."""

    model_runner: Any
    steering_session: _Session

    def steering_probe_begin(self) -> None:
        """Watch the next forward at every site."""
        runner = self.model_runner
        # The runner's second generation keeps its batch elsewhere, and is asked for by an environment variable.
        if not hasattr(runner, "input_batch") or not hasattr(runner, "query_start_loc"):
            raise UserError("this vLLM runs its second model runner; set VLLM_USE_V2_MODEL_RUNNER=0")
        self.steering_session = _Probe(runner)

    def steering_probe_end(self) -> dict[str, Any]:
        """d_model and, for each layer, the hook points that were seen and do what their names say."""
        session = self.steering_session
        session.remove()
        assert isinstance(session, _Probe)
        return {"d_model": width(session.lm), "points": session.points()}

    def steering_begin(
        self, call: int, plans: str, tensors: bytes, of_row: list[int] | None, lengths: list[int]
    ) -> None:
        """Steer the requests that are marked with this call, until `steering_end`."""
        unpacked = unpack(json.loads(plans), load(tensors))
        self.steering_session.remove()
        self.steering_session = _Steering(self.model_runner, call, unpacked, of_row, lengths)

    def steering_moved(self) -> tuple[bytes, list[dict[str, Any]]]:
        """How far each position of each row was moved so far, in the order in which it was computed, and what was done
        by each plan.

        Returns:
            Safetensors: `rows` and `positions` [kept], the number of a position counted from the text's first token,
            and `shares` [kept], ‖Δh‖ / ‖h‖; then the fields of a `Delivery` a plan.
        """
        session = self.steering_session
        assert isinstance(session, _Steering)
        return session.moved()

    def steering_end(self) -> dict[str, Any]:
        """Remove the hooks and tell what they did."""
        session = self.steering_session
        session.remove()
        return session.editor.delivery().to_dict() if isinstance(session, _Steering) else {}


class _Session:
    """Hooks on a worker's model."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.lm: nn.Module = runner.get_model()
        self.handles: list[RemovableHandle] = []

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []


class _Probe(_Session):
    """Sees one forward, to find the sites that can be steered.

    A layer's points are believed only if hooks ran there at all (compiled graphs skip them) and
    resid_pre + attn_out + mlp_out = resid_post.
    """

    def __init__(self, runner: Any) -> None:
        super().__init__(runner)
        self.depth = len(blocks(self.lm))
        self.seen: dict[Site, Tensor] = {}
        for layer in range(self.depth):
            for point in STREAM:
                self.handles += self._watch(Site(layer, point))

    def _watch(self, site: Site) -> list[RemovableHandle]:
        def look(h: Tensor) -> None:
            self.seen[site] = h.float().clone()  # vLLM's norms write into their inputs

        try:
            return [_on_site(self.lm, site, look)]
        except UserError:
            return []  # an architecture without this point: it is not offered

    def points(self) -> list[list[str]]:
        return [self._points(layer) for layer in range(self.depth)]

    def _points(self, layer: int) -> list[str]:
        seen = {point: self.seen[Site(layer, point)] for point in STREAM if Site(layer, point) in self.seen}
        stream = [point for point in seen if point not in ADDED]
        if len(seen) < len(STREAM):
            return stream
        return list(STREAM) if adds_up(seen) else stream


class _Steering(_Session):
    """Plans on marked requests."""

    def __init__(
        self, runner: Any, call: int, plans: tuple[Any, ...], of_row: list[int] | None, lengths: list[int]
    ) -> None:
        super().__init__(runner)
        self.call = call
        self.lengths = lengths
        self.frame: Frame | None = None
        self.editor = Editor(plans, of_row, runner.device)
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []  # rows, positions and shares of the forwards before this
        # vLLM calls the decoder's `forward` directly, past any hook on it: the first block is where a forward begins.
        self.handles.append(blocks(self.lm)[0].register_forward_pre_hook(self._begin))
        self.handles += [_on_site(self.lm, site, self._edit(site)) for site in self.editor.sites]

    def _edit(self, site: Site) -> Edit:
        def edit(h: Tensor) -> Tensor | None:
            if self.frame is None:
                return None
            count = len(self.frame.steps)
            new = self.editor.edit(site, h[:count, None], self.frame)
            if new is None:
                return None
            return torch.cat([new[:, 0], h[count:]]) if count < len(h) else new[:, 0]  # a batch may be padded

        return edit

    def moved(self) -> tuple[bytes, list[dict[str, Any]]]:
        self._keep()
        self.frame = None
        empty = torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long), torch.empty(0)
        parts = [torch.cat(part).cpu() for part in zip(empty, *self.kept, strict=True)]
        named = dict(zip(("rows", "positions", "shares"), parts, strict=True))
        return save(named), [self.editor.delivery(plan).to_dict() for plan in range(len(self.editor.plans))]

    def _keep(self) -> None:
        """How far the last forward's positions were moved."""
        frame = self.frame
        moved = None if frame is None else self.editor.moved(frame)
        if frame is None or moved is None:
            return
        assert frame.rows is not None and frame.lengths is not None and frame.valid is not None
        marked = frame.valid[:, 0]
        positions = frame.steps[:, 0] + frame.lengths - 1
        self.kept.append((frame.rows[marked].cpu(), positions[marked].cpu(), moved[marked, 0].float().cpu()))

    def _begin(self, *_: Any) -> None:
        self._keep()
        from vllm.forward_context import get_forward_context

        # Profiling and warm-up forwards carry no attention metadata, and no requests.
        self.frame = None if get_forward_context().attn_metadata is None else self._frame()

    def _frame(self) -> Frame | None:
        """Each token of the batch as a row; None where no request of this call is among them."""
        batch = self.runner.input_batch
        start = self.runner.query_start_loc.np
        rows: list[int] = []
        steps: list[int] = []
        valid: list[bool] = []
        for place in range(batch.num_reqs):
            request = self.runner.requests[batch.req_ids[place]]
            call, row = (request.sampling_params.extra_args or {}).get(MARK, (None, 0))
            marked = call == self.call
            # The position counts from the prompt's first token, whether it is computed whole, in chunks or from the
            # cache, and again after a preemption; what of the text is prompt the caller says.
            first = int(batch.num_computed_tokens_cpu[place]) - (self.lengths[row] if marked else 0) + 1
            count = int(start[place + 1] - start[place])
            rows += [row if marked else 0] * count
            steps += range(first, first + count)
            valid += [marked] * count
        if not any(valid):
            return None
        device = self.editor.device
        owner = torch.tensor(rows, device=device)
        return Frame(
            steps=torch.tensor(steps, device=device)[:, None],
            lengths=torch.tensor(self.lengths, device=device)[owner],
            valid=torch.tensor(valid, device=device)[:, None],
            step=None,
            rows=owner,
        )


def _on_site(lm: nn.Module, site: Site, edit: Edit) -> RemovableHandle:
    """Call `edit` with the activations at a site; what it returns takes their place."""
    module = module_of(lm, site)
    if site.point == "resid_pre":
        signature = inspect.signature(module.forward)
        if "hidden_states" not in signature.parameters:
            raise UserError(f"the blocks of {type(lm).__name__} take no hidden_states; use resid_post")

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            given = signature.bind(*args, **kwargs)
            changed = _stream(given.arguments["hidden_states"], given.arguments.get("residual"), edit)
            if changed is None:
                return None
            given.arguments["hidden_states"] = changed[0]
            if changed[1] is not None:
                given.arguments["residual"] = changed[1]
            return given.args, given.kwargs

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return edit(output)
        if site.point != "resid_post":
            changed = edit(output[0])
            return None if changed is None else (changed, *output[1:])
        pair = _stream(output[0], output[1], edit)
        return None if pair is None else (*pair, *output[2:])

    return module.register_forward_hook(after)


def _stream(hidden: Tensor, residual: Tensor | None, edit: Edit) -> tuple[Tensor, Tensor | None] | None:
    """The residual stream's two summands after an edit of their sum."""
    changed = edit(hidden if residual is None else hidden + residual)
    if changed is None:
        return None
    # All of it in one summand: taking the residual off again would round twice in bfloat16.
    return changed, None if residual is None else torch.zeros_like(residual)
