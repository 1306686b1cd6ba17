"""Chats as text, written by a tokenizer's chat template.

A template is a program that came with the model. It may fail, refuse a role, leave a message out, or read arguments of
its own (`enable_thinking`); each is told in one line. One that asks for today's date gets 26 July 2024, so that a
prompt is the same tomorrow.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

from probes.errors import UserError

DAY = date(2024, 7, 26)  # which templates of Llama 3 name where there is no clock
CURE = "give prompt qa, or a template file with {question} in it"

Message = Mapping[str, str]


def written(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    arguments: Mapping[str, Any] | None = None,
    *,
    begun: bool = False,
) -> str:
    """The chat up to where the answer begins, or to where one that is begun goes on.

    Args:
        tokenizer: with a chat template.
        messages: `role` and `content` of each; the last is the question, or what is begun.
        arguments: of the template.
        begun: whether the last message is the beginning of the answer.

    Raises:
        UserError: a template that is broken, refuses the messages or leaves the question or the system message out; an
            argument that it does not read.
    """
    arguments = dict(arguments or {})
    try:
        source = tokenizer.get_chat_template()
    except ValueError as error:  # none, or several and no default
        raise UserError(f"the tokenizer's chat template cannot be chosen ({_line(error)}); {CURE}") from error
    _check_arguments(tokenizer, source, arguments)
    try:
        text = _render(tokenizer, source, messages, arguments, begun)
    except Exception as error:
        first, *rest = messages
        if first["role"] == "system" and _renders(tokenizer, source, rest, arguments, begun):
            raise UserError(
                f"the chat template takes no system message ({_line(error)}); leave system out, or put its words into "
                "the question"
            ) from error
        raise UserError(f"the chat template cannot be used ({_line(error)}); {CURE}") from error
    said = _plain(text)
    asked = messages[:-1] if begun else messages
    for message in (m for m in (*asked[:1], *asked[-1:]) if m["role"] != "assistant"):
        if _plain(message["content"]) not in said:
            what, cure = "the question", CURE
            if message["role"] == "system":
                what, cure = "the system message", "leave system out, or put its words into the question"
            raise UserError(f"the chat template leaves {what} out; {cure}")
    return text


def _check_arguments(tokenizer: PreTrainedTokenizerBase, source: str, arguments: Mapping[str, Any]) -> None:
    taken = {*inspect.signature(tokenizer.apply_chat_template).parameters, "messages"} - {"kwargs"}
    for name, value in arguments.items():
        if name in taken or not re.search(rf"\b{re.escape(name)}\b", source):
            raise UserError(
                f"template argument {name!r} was given, and this tokenizer's chat template reads none of that name; "
                "leave it out, or look into the template for the names that it reads"
            )
        if isinstance(value, str) and value.lower() in ("true", "false", "none", "yes", "no"):
            raise UserError(
                f"template argument {name} = {value!r} was given, a text, which a template holds for true; "
                "give true, false or null"
            )


def _render(
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    messages: Sequence[Message],
    arguments: Mapping[str, Any],
    begun: bool,
) -> str:
    dated = re.sub(
        r"""\bstrftime_now\(\s*(["'])(.*?)\1\s*\)""", lambda found: json.dumps(DAY.strftime(found[2])), source
    )
    text = tokenizer.apply_chat_template(
        [dict(message) for message in messages], chat_template=dated, tokenize=False,
        add_generation_prompt=not begun, continue_final_message=begun, **arguments,
    )  # fmt: skip
    return str(text)


def _renders(
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    messages: Sequence[Message],
    arguments: Mapping[str, Any],
    begun: bool,
) -> bool:
    with suppress(Exception):
        _render(tokenizer, source, messages, arguments, begun)
        return True
    return False


def _plain(text: str) -> str:
    return " ".join(text.split())


def _line(error: Exception) -> str:
    """What an error says, in its first line."""
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__
