"""What an output holds: choices, log-probabilities, stop reasons, Δ, steering, activations; and who fails alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
from safetensors.torch import load_file

from elicit import methods
from elicit.elicited import Elicited
from elicit.evaluation.seen import SEEN, seen
from elicit.models.model import load_model
from elicit.tasks.registry import load_task
from probes.sites import Site
from steering.directions import Direction
from steering.interventions import Add, Intervention, When
from tests.inspect.task import as_task


@pytest.fixture(scope="module")
def plain(tiny: Path) -> Elicited:
    return methods.fit("direct", load_model(str(tiny), dtype="float32"), max_new_tokens=8)


@pytest.fixture(scope="module")
def bundle(plain: Elicited, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A handle that is steered at every step, and was fitted on one item of the organism."""
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    plan = (Intervention(Add(Direction(vector, Site(1, "resid_post"))), 2.0, when=When.every_step()),)
    (item,) = load_task("organism", limit=1).test
    handle = replace(plain, interventions=plan, options={"prompt": "qa", SEEN: seen([item.id])})
    return handle.save(tmp_path_factory.mktemp("bundle") / "elicited").parent


def asked(*questions: str, **options: Any) -> Task:
    samples = [Sample(id=n + 1, input=question, target="7") for n, question in enumerate(questions)]
    return Task(dataset=samples, solver=generate(), scorer=includes(), **options)


def test_inspect_finds_the_provider() -> None:
    (found,) = (one for one in entry_points(group="inspect_ai") if one.name == "elicit")
    assert found.value == "elicit.integrations.inspect.registry"
    code = f"import sys, {found.value}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_bundle_is_steered_and_says_so(bundle: Path, plain: Elicited, evaluated: Callable[..., Any]) -> None:
    items = load_task("organism", limit=2).test
    log = evaluated(as_task(items), f"elicit/bundle:{bundle}", model_args={"kind": "number"})
    assert log.status == "success"
    handle = Elicited.load(bundle / "elicited", plain.model)
    outputs = {sample.id: sample.output for sample in log.samples}
    for item, (trace,) in zip(items, handle.answer(items), strict=True):
        about = outputs[item.id].metadata["elicit"]
        assert about["branches"][0]["tokens"] == trace.tokens
        assert about["branches"][0]["moved"] == trace.moved
        assert about["delta"] == trace.delta
        assert about["interventions"] == json.loads(json.dumps([one.describe() for one in handle.interventions]))
        assert about["model"]["sha256"] == plain.model.provenance.sha256
        assert about["decode_key"] == handle.decode_key
    first, second = (outputs[item.id].metadata["elicit"] for item in items)
    assert first["seen"] == "fitted"
    assert "seen" not in second
    assert [outputs[item.id].completion for item in items] != [t.text for (t,) in plain.answer(items)]


def test_log_probabilities_are_those_of_a_forward_over_the_text(
    bundle: Path, plain: Elicited, evaluated: Callable[..., Any]
) -> None:
    log = evaluated(
        asked("3 + 4"), f"elicit/direct:{plain.model.name}", model_args={"dtype": "float32"},
        max_tokens=6, logprobs=True, top_logprobs=3, prompt_logprobs=2,
    )  # fmt: skip
    (choice,) = log.samples[0].output.choices
    prompt = plain.prompt.ids("3 + 4", plain.model.tokenizer)
    tokens = log.samples[0].output.metadata["elicit"]["branches"][0]["tokens"]
    with torch.no_grad():
        logits = plain.model.lm(torch.tensor([[*prompt, *tokens]])).logits[0, :-1].float()
    logits[:, list(plain.model.unlisted)] = -torch.inf
    expected = torch.log_softmax(logits, -1)
    own = [expected[n, token].item() for n, token in enumerate([*prompt[1:], *tokens])]
    told = [*choice.prompt_logprobs.content, *choice.logprobs.content]
    assert [one.logprob for one in told] == pytest.approx(own[: len(told)], abs=1e-4)
    assert [len(one.top_logprobs) for one in told] == [2] * (len(prompt) - 1) + [3] * len(choice.logprobs.content)
    assert [one.top_logprobs[0].token for one in choice.logprobs.content] == [o.token for o in choice.logprobs.content]
    assert "".join(one.token for one in choice.logprobs.content).startswith(choice.message.content)

    steered = evaluated(
        asked("3 + 4"), f"elicit/bundle:{bundle}", max_tokens=6, logprobs=True, top_logprobs=1
    ).samples[0].output.choices[0]  # fmt: skip
    for one in steered.logprobs.content:  # greedy: the likeliest, by the steered forward too
        assert one.top_logprobs[0].token == one.token
        assert one.top_logprobs[0].logprob == pytest.approx(one.logprob, abs=1e-4)


def test_choices_are_samples_or_branches_and_none_twice(plain: Elicited, evaluated: Callable[..., Any]) -> None:
    name = plain.model.name
    sampled = evaluated(
        asked("3 + 4"), f"elicit/direct:{name}", max_tokens=8, temperature=0.9, num_choices=3, seed=2
    ).samples[0].output  # fmt: skip
    texts = [choice.message.text for choice in sampled.choices]
    branches = sampled.metadata["elicit"]["branches"]
    assert texts == [one["text"] for one in branches]
    assert [one["index"] for one in branches] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert sampled.usage.output_tokens == sum(one["spent"] for one in branches)
    assert {choice.stop_reason for choice in sampled.choices} <= {"stop", "max_tokens"}
    branching = evaluated(
        asked("3 + 4"), f"elicit/cot-decoding:{name}", model_args={"k": 3, "kind": "whole"}, max_tokens=8, num_choices=3
    ).samples[0].output  # fmt: skip
    about = branching.metadata["elicit"]
    others = [one["text"] for one in about["branches"] if one["index"] != about["branch"]]
    chosen = about["branches"][about["branch"]]["text"]
    assert [choice.message.text for choice in branching.choices] == [chosen, *others]


def test_stop_sequences_end_an_answer_and_are_not_in_it(plain: Elicited, evaluated: Callable[..., Any]) -> None:
    name = f"elicit/direct:{plain.model.name}"
    whole = evaluated(asked("3 + 4"), name, max_tokens=12).samples[0].output
    mark = whole.completion.lstrip()[3]
    cut = evaluated(asked("3 + 4"), name, max_tokens=12, stop_seqs=[mark]).samples[0].output
    said = whole.completion
    start = len(said) - len(said.lstrip())
    assert cut.completion == said[: said.index(mark, start + 1)]
    assert cut.stop_reason == "stop"


def test_one_bad_prompt_fails_alone(plain: Elicited, evaluated: Callable[..., Any]) -> None:
    task = asked("3 + 4", "9" * 3000, "5 + 6", "8 - 1")
    log = evaluated(task, f"elicit/direct:{plain.model.name}", max_tokens=4, fail_on_error=False)
    assert log.status == "success"
    failed = [sample for sample in log.samples if sample.error is not None]
    assert [sample.id for sample in failed] == [2]
    assert "a prompt and its answer need" in failed[0].error.message
    assert all(sample.scores for sample in log.samples if sample.id != 2)


def test_where_all_fail_the_evaluation_does(plain: Elicited, evaluated: Callable[..., Any]) -> None:
    log = evaluated(
        asked("9" * 3000, "8" * 3000), f"elicit/direct:{plain.model.name}", max_tokens=4, fail_on_error=False
    )
    assert log.status == "error"


def test_activations_lie_in_the_file_that_is_named(
    bundle: Path, plain: Elicited, tmp_path: Path, evaluated: Callable[..., Any]
) -> None:
    given = {"activations": str(tmp_path / "kept"), "sites": ["0.resid_post", "2.resid_post"]}
    log = evaluated(asked("3 + 4", "5"), f"elicit/bundle:{bundle}", model_args=given, max_tokens=4)
    prompt = plain.prompt.ids("3 + 4", plain.model.tokenizer)
    about = log.samples[0].output.metadata["elicit"]
    kept = about["activations"]
    tensors = load_file(kept["file"])
    text = [*prompt, *about["branches"][0]["tokens"]]
    assert list(tensors["2.resid_post"].shape) == kept["shape"] == [len(text), 32]
    assert tensors["step"].tolist() == list(range(1 - len(prompt), len(text) - len(prompt) + 1))
    with torch.inference_mode():
        hidden = plain.model.lm(torch.tensor([text]), output_hidden_states=True).hidden_states
    assert torch.allclose(tensors["0.resid_post"], hidden[1][0], atol=1e-4)  # before the layer that is steered
    assert not torch.allclose(tensors["2.resid_post"], hidden[3][0], atol=1e-2)


def test_requests_of_one_sample_draw_anew(plain: Elicited, evaluated: Callable[..., Any]) -> None:
    task = asked("3 + 4")
    task.solver = [generate(), _again()]
    log = evaluated(task, f"elicit/direct:{plain.model.name}", max_tokens=8, temperature=0.9)
    first, second = log.samples[0].metadata["said"], log.samples[0].output.completion
    assert first != second


def _again() -> Any:
    from inspect_ai.solver import Generate, TaskState, solver

    @solver
    def again() -> Any:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            state.metadata["said"] = state.output.completion
            state.messages = state.messages[:1]
            return await generate(state)

        return solve

    return again()


def test_outside_of_a_sample_a_prompt_is_asked_in_epochs(plain: Elicited) -> None:
    import anyio

    async def twice() -> list[str]:
        model = get_model(f"elicit/self-consistency:{plain.model.name}", kind="whole", samples=2, max_new_tokens=6)
        return [(await model.generate("3 + 4")).completion for _ in range(2)]

    one, other = anyio.run(twice)
    assert one != other


def test_the_command_line_evaluates_and_refuses(tiny: Path, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("inspect")), "eval", "tests/inspect/task.py", "-T", "items=2",
        "--model", f"elicit/cot-decoding:{tiny}", "-M", "k=2", "--max-tokens", "6", "--max-connections", "64",
        "--log-dir", str(tmp_path), "--log-format", "json", "--display", "plain",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([*command, "-M", "kind=number"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.json")
    log = read_eval_log(str(path))
    assert log.status == "success"
    assert [sample.output.metadata["elicit"]["batch"] for sample in log.samples] == [2, 2]
    refused = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert refused.returncode == 1
    said = [line for line in (refused.stdout + refused.stderr).splitlines() if line.strip()]
    assert "cot-decoding chooses by answers (max) and their kind was not given" in " ".join(said)
    assert "Traceback" not in " ".join(said)


def test_a_cached_answer_is_that_of_the_same_handle(
    tiny: Path, evaluated: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSPECT_CACHE_DIR", str(tmp_path / "cache"))

    def answered(**given: Any) -> tuple[int, str | None]:
        (sample,) = evaluated(asked("What?"), f"elicit/direct:{tiny}", model_args=given, cache=True).samples
        (event,) = (one for one in sample.events if one.event == "model")
        return len(sample.output.metadata["elicit"]["branches"][0]["tokens"]), event.cache

    assert answered(max_new_tokens=3) == (3, "write")
    assert answered(max_new_tokens=3) == (3, "read")
    assert answered(max_new_tokens=5) == (5, "write")  # `-M` is no part of Inspect's key


def test_an_address_in_a_log_is_that_of_what_answered(tiny: Path) -> None:
    own = get_model(f"elicit/direct:{tiny}", max_new_tokens=3, memoize=False).api.base_url
    again = get_model(f"elicit/direct:{tiny}", base_url=own, max_new_tokens=3, memoize=False)
    assert again.api.base_url == own
    with pytest.raises(Exception, match=r"is not what the log's .elicit:\w+. was made of; give the log's -M"):
        get_model(f"elicit/direct:{tiny}", base_url=own, max_new_tokens=5, memoize=False)
