"""Wrong input ends in one line, and no evaluation succeeds without scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ContentImage, GenerateConfig, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import Tool, tool


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("direct", {}, "write elicit/<method>:<model> or elicit/bundle:<folder>"),
        ("direct:", {}, "write elicit/<method>:<model>"),
        ("dirct:{tiny}", {}, "unknown method 'dirct'; did you mean direct"),
        ("direct:no-such-model", {}, "no-such-model"),
        ("direct:{tiny},k=3", {}, "was given with a comma"),
        (
            "cot-decoding:{tiny}",
            {},
            "cot-decoding chooses by answers .max. and their kind was not given; give -M kind=",
        ),
        ("cot-decoding:{tiny}", {"kind": "numbr"}, "answer kind 'numbr' was given"),
        ("cot-decoding:{tiny}", {"kind": "number", "kk": 3}, "unknown option of cot-decoding 'kk'"),
        ("cot-decoding:{tiny}", {"kind": "number", "k": "3"}, "option k = '3' was given"),
        ("direct:{tiny}", {"prompt": ["chat:a=1", "b=2"]}, "-M prompt = .* a comma separates values"),
        ("direct:{tiny}", {"batch_rows": 0}, "batch_rows = 0"),
        ("direct:{tiny}", {"dtype": 16}, "-M dtype = 16 was given; expected a text"),
        ("direct:{tiny}", {"fit_limit": 4}, "fit_limit and fit_seed go with fit_task"),
        ("direct:{tiny}", {"activations": "a"}, "activations and sites go together"),
        ("direct:{tiny}", {"activations": "{tmp}", "sites": "9.resid_post"}, "9"),
        ("sae-steer:{tiny}", {}, "sae-steer is fitted on items and none were given; give -M fit_task="),
        ("thinkless:{tiny}", {}, "thinkless is fitted on items and none were given; give -M fit_task="),
        ("rlp:{tiny}", {}, "rlp trains on texts; give text=FILE, -M fit_task=…, or elicit/bundle:<folder>"),
        ("bundle:{tiny}", {}, "holds no elicited.json"),
        ("bundle:{tiny}", {"fit_task": "organism"}, "which is fitted already"),
    ],
)
def test_what_is_known_when_the_model_is_made(
    name: str, given: dict[str, Any], told: str, tiny: Path, tmp_path: Path
) -> None:
    given = {key: str(tmp_path) if value == "{tmp}" else value for key, value in given.items()}
    with pytest.raises(PrerequisiteError, match=told) as caught:
        get_model(f"elicit/{name.format(tiny=tiny)}", **given)
    assert "\n" not in str(caught.value)


def test_a_configuration_is_refused_when_the_model_is_made(tiny: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"presence_penalty = 1\.0 was given and direct cannot honour it"):
        get_model(f"elicit/direct:{tiny}", config=GenerateConfig(presence_penalty=1.0))
    with pytest.raises(PrerequisiteError, match="base_url"):
        get_model(f"elicit/direct:{tiny}", base_url="http://localhost")


@tool
def lookup() -> Tool:
    async def execute(word: str) -> str:
        """Look a word up.

        Args:
            word: the word.
        """
        return word

    return execute


@solver
def asks(**config: Any) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        return await generate(state, **config)

    return solve


IMAGE = ContentImage(image="data:image/png;base64,iVBORw0KGgo=")
ASKED: dict[str, tuple[Any, Any, str]] = {
    "tools": ("a", [use_tools(lookup()), generate()], "tool 'lookup' was given"),
    "image": ([ChatMessageUser(content=[IMAGE])], generate(), "image content was given"),
    "system": (
        [ChatMessageSystem(content="Be brief."), ChatMessageUser(content="a")], generate(),
        "a system message was given and the prompt has no place for one; give -M prompt=chat",
    ),
    "config": ("a", asks(logit_bias={1: 1.0}), "logit_bias = "),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
@pytest.mark.parametrize("goes_on", [False, True])
def test_no_evaluation_succeeds_without_scores(
    case: str, goes_on: bool, tiny: Path, evaluated: Callable[..., Any]
) -> None:
    asked, steps, told = ASKED[case]
    task = Task(dataset=[Sample(input=asked, target="b")], solver=steps, scorer=includes())
    log = evaluated(task, f"elicit/direct:{tiny}", model_args={"max_new_tokens": 4}, fail_on_error=not goes_on)
    assert log.status == "error"
    assert told in (log.error.traceback if goes_on else log.error.message)


def test_a_kind_that_one_sample_lacks_is_told(tiny: Path, evaluated: Callable[..., Any]) -> None:
    task = Task(dataset=[Sample(id="lacks", input="a", target="b")], solver=generate(), scorer=includes())
    log = evaluated(task, f"elicit/cot-decoding:{tiny}", model_args={"kind": "by-sample", "k": 2})
    assert log.status == "error"
    assert "this sample does not say their kind; give it as metadata elicit_kind" in log.error.message
