"""A system message and earlier turns go into the served prompt, all of which stays as it is without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import elicit
from elicit.integrations.serve.requests import Chat, read
from elicit.integrations.serve.served import Job, Served
from elicit.methods.no_thinking import FINISHED
from elicit.models.model import Model
from elicit.models.prompts import THINK
from probes.errors import UserError
from tests.support.tiny import save_tiny

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
    "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% else %}<think>\n</think>\n{% endif %}"
)
USER = {"role": "user", "content": "a b c"}
SYSTEM = [{"role": "system", "content": "x y"}, USER]
TURNS = [{"role": "user", "content": "h"}, {"role": "assistant", "content": "i"}, USER]
PUT = {
    "trigger": "chat-cot",
    "begin": 'chat:{"begin": "Sure:"}',
    "form": "chat-boxed",
    "arguments": "chat:enable_thinking=false",
    "system": 'chat:{"system": "Be brief."}',
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    loaded = elicit.load_model(str(save_tiny(tmp_path_factory.mktemp("tiny"))), dtype="float32", device="cpu")
    loaded.tokenizer.chat_template = TEMPLATE
    return loaded


@pytest.fixture(scope="module")
def served(model: Model) -> Served:
    handles = {name: elicit.methods.fit("direct", model, prompt=put) for name, put in PUT.items()}
    for name in ("no-thinking", "cot-prompt"):
        handles[name] = elicit.methods.fit(name, model, prompt="chat")
    handles["budget-forcing"] = elicit.methods.fit("budget-forcing", model, prompt="chat", waits=0)
    handles["qa"] = elicit.methods.fit("direct", model)
    return Served(handles, kind="text")


def asked(served: Served, name: str, messages: list[dict[str, Any]]) -> tuple[str, Job]:
    job = served.job(read(Chat, {"model": name, "messages": messages}))
    return served.handles[name].model.tokenizer.decode(job.prompt), job


@pytest.mark.parametrize("name", [*PUT, "no-thinking", "budget-forcing", "cot-prompt"])
def test_what_is_put_with_a_question_is_put_with_turns_before_it(served: Served, name: str) -> None:
    alone, job = asked(served, name, [USER])
    own = "<system>Be brief.\n" if name == "system" else ""
    rest = alone.removeprefix(own)
    assert alone == own + rest and rest.startswith("<user>a b c\n")
    for messages, before in (
        (SYSTEM, "<system>Be brief.\n\nx y\n" if own else "<system>x y\n"),
        (TURNS, f"{own}<user>h\n<assistant>i\n"),
        ([SYSTEM[0], *TURNS], ("<system>Be brief.\n\nx y\n" if own else "<system>x y\n") + "<user>h\n<assistant>i\n"),
    ):
        text, other = asked(served, name, messages)
        assert text == before + rest
        assert (other.begun, other.stop, other.key) == (job.begun, job.stop, job.key)


def test_each_part_of_a_prompt_is_there_to_stay(served: Served) -> None:
    """Else the test above would hold of prompts that have none."""
    said = {name: asked(served, name, TURNS) for name in served.handles if name != "qa"}
    begun = {name for name, (_, job) in said.items() if job.begun == "<think>"}
    assert THINK in said["trigger"][0] and THINK in said["cot-prompt"][0] and "\\boxed{}" in said["form"][0]
    assert said["begin"][0].endswith("<think>\nSure:") and said["arguments"][0].endswith("</think>\n")
    assert said["no-thinking"][0].endswith(f"<think>\n{FINISHED}\n</think>\n\n")
    assert begun == {*said} - {"arguments", "no-thinking"}


def test_a_developer_speaks_as_the_system(served: Served) -> None:
    developer = [{"role": "developer", "content": "x y"}, USER]
    assert asked(served, "trigger", developer)[0] == asked(served, "trigger", SYSTEM)[0]


@pytest.mark.parametrize(
    ("name", "roles", "told"),
    [
        ("trigger", ["assistant"], "messages of assistant were given"),
        ("trigger", ["user", "assistant"], "give user and assistant in turn, the user's last"),
        ("trigger", ["user", "user"], "messages of user, user were given"),
        ("trigger", ["assistant", "user"], "messages of assistant, user were given"),
        ("trigger", ["system"], "messages of none were given"),
        ("trigger", ["user", "assistant", "system", "user"], "a system message was given after another; give it first"),
        ("qa", ["system", "user"], "--put chat"),
        ("qa", ["user", "assistant", "user"], "--put chat"),
    ],
)
def test_other_orders_of_roles_are_one_line(served: Served, name: str, roles: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        asked(served, name, [{"role": role, "content": "a b c"} for role in roles])
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_template_that_takes_no_system_message_is_one_line(tmp_path: Path) -> None:
    model = elicit.load_model(str(save_tiny(tmp_path)), dtype="float32", device="cpu")
    model.tokenizer.chat_template = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match="leaves the system message out"):
        asked(Served({"direct": elicit.methods.fit("direct", model, prompt="chat")}), "direct", SYSTEM)
