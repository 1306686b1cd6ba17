"""Names that the shell completes (`elicit --install-completion`), read at each Tab: nothing heavy is imported."""

from __future__ import annotations

# Typed again, since importing the methods costs seconds; a test holds them to `elicit.methods.METHODS`.
METHODS = (
    "cot-decoding", "sae-steer", "vector-transfer", "critique-ft", "one-shot-rlvr",
    "direct", "cot-prompt", "self-consistency",
)  # fmt: skip


def methods() -> list[str]:
    return list(METHODS)


def models() -> list[str]:
    from elicit.models.zoo import ALIASES, ORGANISMS, WEIGHTS

    return [*WEIGHTS, *ORGANISMS, *ALIASES]


def tasks() -> list[str]:
    """Without reasoning-gym's data sets, whose names a process of their own is asked for."""
    from elicit.models.zoo import DEFAULT_TASK
    from elicit.tasks.hub import TASKS

    return ["organism", *TASKS, DEFAULT_TASK.partition(":")[0]]
