"""Which of the answers to a question a selection takes, where nobody grades them."""

from __future__ import annotations

from collections.abc import Sequence

from elicit.decoding.answering import Draft, graded
from elicit.decoding.selection import select
from elicit.tasks.answers import Kind
from elicit.tasks.base import Item, Task
from elicit.tasks.grading import grader_for


def chosen(drafts: Sequence[Draft], rule: str, kind: Kind, *, filters: bool = False, branching: bool = False) -> Draft:
    """The answer that a rule takes; where no answer can be chosen, the first.

    Args:
        drafts: the answers to one question, in their order.
        rule: one of `elicit.decoding.selection.SELECTABLE`.
        kind: of the answer that was looked for: what makes two answers the same.
        filters, branching: as `elicit.decoding.answering.graded`.
    """
    if rule == "greedy" or len(drafts) == 1:
        return drafts[0]
    task, item = Task("", (), grader_for(kind), kind, {}), Item("", "", None, "test")
    traces = [graded(one, task, item, filters=filters, branching=branching) for one in drafts]
    branch = select(rule, traces, task.grader).branch
    return next(one for one in drafts if one.choice == branch)
