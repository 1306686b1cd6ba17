"""The default backend: plans on a Hugging Face model, as ordinary forward hooks placed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from probes.clock import Clock, Count
from probes.errors import UserError
from probes.sites import Site, check_site, on_site, width
from steering.editor import Editor, check_reach
from steering.interventions import Plan


class Session:
    """Plans on a model, for as long as `attached` is open.

    `generate`, plain forwards and a decoding loop of one's own are steered alike. A loop that forks or drops rows
    tells so, in the words of the decoding cache.
    """

    def __init__(self, editor: Editor, clock: Count) -> None:
        self.editor = editor
        self.clock = clock

    def expect(self, rows: Sequence[int] | None = None, *, of: int = 0, whole: bool = False) -> None:
        """Say what the next prompts' forward will be: these rows of a batch `of` so many; see `Count.expect`."""
        self.clock.expect(rows, whole=whole)

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        """Row r continues row `question[r]` of the prompts' forward."""
        self.clock.fork(question)

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows continue."""
        self.clock.keep(rows)

    def moved(self) -> Float[Tensor, "rows pos"] | None:
        """How far the last forward's positions were moved; see `Editor.moved`."""
        return self.editor.moved(self.clock.frame)


@contextmanager
def attached(
    lm: PreTrainedModel,
    plans: Sequence[Plan],
    *,
    of_row: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
    clock: Count | None = None,
) -> Iterator[Session]:
    """Steer a model inside the context.

    Args:
        lm: a causal LM of `transformers`; its modules are left as they are, and hooks are removed at the end.
        plans: one for all rows, or the distinct ones.
        of_row: the number of each row's plan, where there are several; unless given all follow the first.
        lengths: prompt tokens of each row, where a forward holds prompts together with continuations.
        clock: one that the caller keeps; without it one follows the forwards by itself.

    Raises:
        UserError: a layer or hook point that the model lacks, a direction of another width.
    """
    for plan in plans:
        check_plan(lm, plan)
    if of_row is not None and not all(0 <= number < len(plans) for number in of_row):
        raise UserError(f"rows are to follow plans {sorted(set(of_row))}; {len(plans)} were given, numbered from 0")
    editor = Editor(plans, of_row, lm.device)
    own = Clock(lm, lengths) if clock is None else None
    followed = clock or own
    assert followed is not None
    handles = [on_site(lm, site, _hook(lm, editor, followed, site)) for site in editor.sites]
    try:
        yield Session(editor, followed)
    finally:
        for handle in handles:
            handle.remove()
        if own is not None:
            own.remove()


def _hook(lm: PreTrainedModel, editor: Editor, clock: Count, site: Site) -> Callable[[Tensor], Tensor | None]:
    d_model = width(lm)

    def hook(h: Tensor) -> Tensor | None:
        assert clock.frame is not None
        if h.shape[-1] != d_model:
            raise UserError(
                f"{type(lm).__name__} keeps {h.shape[-1]} numbers a position at {site} and d_model is {d_model}; it "
                "can be decoded, and not steered there"
            )
        clock.frame.check(lm, h)
        return editor.edit(site, h, clock.frame)

    return hook


def check_plan(lm: PreTrainedModel, plan: Plan) -> None:
    """Refuse a plan that does not fit a model.

    Raises:
        UserError: a layer or hook point that the model lacks, another width.
    """
    check_fit(plan, width(lm), type(lm).__name__, lambda site, write: check_site(lm, site, write=write))


def check_fit(plan: Plan, d_model: int, model: str, check: Callable[[Site, bool], None]) -> None:
    """Refuse a plan that does not fit a model of this width; `check` refuses sites, to be read or written."""
    for one in plan:
        for site in one.sites:
            check(site, True)
        gate = one.when.gate
        if gate is not None:
            check(gate.site, False)
        for what, given in (("direction", one.d_model), ("gate", d_model if gate is None else len(gate.vector))):
            if given != d_model:
                raise UserError(
                    f"a {what} of width {given} was given; {model} has d_model {d_model}, use one made for this model"
                )
    check_reach(plan)
