"""Turns of a chat as a prompt puts them: the last is the question, what goes before it is put into the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from elicit.models.prompts import Prompt
from probes.errors import UserError


def put(prompt: Prompt, turns: Sequence[tuple[str, str]], cure: str) -> tuple[Prompt, str]:
    """The prompt that puts these turns, and the question in it.

    Turns before the question go into a chat prompt alone, after its own; other prompts take one turn.

    Args:
        prompt: with a trigger, a form and a begin of its own, which stay.
        turns: roles (`system`, `user`, `assistant`) and texts.
        cure: what is to be done where the prompt is none of `chat`.

    Raises:
        UserError: turns that it cannot put: a system message or several without a chat prompt, an answer that is
            begun, roles in another order.
    """
    systems = [text for role, text in turns if role == "system"]
    rest = [(role, text) for role, text in turns if role != "system"]
    if not rest or [role for role, _ in rest] != ["user", *["assistant", "user"] * (len(rest) // 2)]:
        roles = ", ".join(role for role, _ in rest) or "none"
        raise UserError(f"messages of {roles} were given; give user and assistant in turn, the user's last")
    if prompt.base != "chat":
        if systems:
            raise UserError(f"a system message was given and the prompt has no place for one; {cure}")
        if len(rest) > 1:
            raise UserError(f"several turns were given and the prompt puts one question; {cure}")
        return prompt, rest[0][1]
    if systems:
        prompt = replace(prompt, system="\n\n".join([*([prompt.system] if prompt.system else []), *systems]))
    pairs = tuple((rest[n][1], rest[n + 1][1]) for n in range(0, len(rest) - 1, 2))
    return replace(prompt, shots=(*prompt.shots, *pairs)), rest[-1][1]
