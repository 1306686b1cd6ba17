"""`elicit check-steering`: does a vector, somebody's hooks or a server steer at every token?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli.lines import show_json
from elicit.cli.options import Device, DeviceMap, Dtype, Json, load
from probes.errors import UserError

TIMEOUT = 60.0  # seconds


def check_steering(
    model: Annotated[
        str, typer.Option(help="A model's name, hub id, folder or GGUF file; with --endpoint its name there.")
    ] = "smollm2-135m",
    vector: Annotated[
        Path | None,
        typer.Option(
            help="A GGUF control vector or a bundle's folder: added by this suite's hooks, or meant by --hooks."
        ),
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Only what the vector file holds for this layer.")] = None,
    hooks: Annotated[
        str,
        typer.Option(
            help="file.py:function, called as function(model) or function(model, strength=…); returns what removes its "
            "hooks. The file is run as your own program is: with all your rights, unchecked."
        ),
    ] = "",
    strength: Annotated[float | None, typer.Option(help="Of one time; twice of it is tried as well.")] = None,
    expect: Annotated[
        str,
        typer.Option(help="Where it is to act: everywhere, prompt, last-prompt-token, every-step, steps:8."),
    ] = "",
    prompt: Annotated[list[str] | None, typer.Option(help="A text; at least two, of different lengths.")] = None,
    steps: Annotated[int, typer.Option(help="Generated tokens that are looked at.")] = 6,
    endpoint: Annotated[str, typer.Option(help="A server with /v1/completions and logprobs, instead of a model.")] = "",
    plan: Annotated[
        str, typer.Option(help="With --endpoint: the fields of a steered request, as JSON or the file that holds it.")
    ] = "",
    timeout: Annotated[float, typer.Option(help="With --endpoint: seconds for one answer.")] = TIMEOUT,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    as_json: Json = False,
) -> None:
    """Check that steering acts at every token: batched and padded, prefill and cached steps.

    Exit code 0: nothing fails; 1: something does; 2: nothing could be told, or wrong input. A bearer token for the
    endpoint is taken from OPENAI_API_KEY.
    """
    if sum(map(bool, (endpoint, hooks or vector))) != 1:
        raise UserError("give --vector FILE, --hooks file.py:function or --endpoint URL: one of them says what steers")
    if endpoint:
        if layer is not None or strength is not None:
            raise UserError("--layer and --strength say nothing to a server; put them into --plan")
        if (dtype, device, device_map) != ("auto", "auto", None):
            raise UserError("--dtype, --device and --device-map say nothing to a server, which has loaded its model")
        report = _of_endpoint(endpoint, model, plan, expect, prompt, steps, timeout)
    elif plan:
        raise UserError("--plan was given without --endpoint; a vector's own file says where it acts")
    elif timeout != TIMEOUT:
        raise UserError(f"--timeout {timeout:g} was given without --endpoint; a model of one's own has no limit")
    elif layer is not None and vector is None:
        raise UserError(f"--layer {layer} was given without --vector, of whose file it is: leave it out")
    else:
        function = _function(hooks) if hooks else None
        loaded = load(model, dtype, device, device_map, quiet=as_json)
        report = _of_model(loaded, vector, layer, function, strength, expect, prompt, steps)
    if as_json:
        show_json(report.to_dict(), indent=2)
    else:
        from elicit.cli.terminal import out

        out.print(str(report), soft_wrap=True)
    raise typer.Exit(report.exit_code)


def _of_model(
    loaded: Any,
    vector: Path | None,
    layer: int | None,
    function: Any,
    strength: float | None,
    expect: str,
    prompt: list[str] | None,
    steps: int,
) -> Any:
    from steering.check import check_steering as checked
    from steering.check.model import PROMPTS
    from steering.formats import vectors_of
    from steering.hooks import attached
    from steering.interventions import Add, When

    interventions = () if vector is None else _of_layer(vector, layer, loaded)
    everywhere = all(isinstance(one.what, Add) and one.when == When.everywhere() for one in interventions)
    adds = vectors_of(interventions) if interventions and everywhere else None
    when: Any = expect or "everywhere"
    if function is None:
        whens = {one.when for one in interventions}
        if not expect and len(whens) > 1:
            raise UserError(f"the plan in {str(vector)!r} acts at {len(whens)} kinds of places; say which: --expect")
        when = expect or next(iter(whens))

        def function(lm: Any, strength: float = 1.0) -> Any:
            return attached(lm, [tuple(one.times(strength) for one in interventions)])

    return checked(
        loaded.lm, loaded.tokenizer, function, expect=when, prompts=prompt or PROMPTS, adds=adds, strength=strength,
        steps=steps,
    )  # fmt: skip


def _of_layer(vector: Path, layer: int | None, loaded: Any) -> Any:
    from elicit.cli.directions import read_plan

    found = read_plan(vector, loaded)
    if layer is None:
        return found
    kept = tuple(replace(one, layers=(layer,)) for one in found if layer in {site.layer for site in one.sites})
    if not kept:
        there = sorted({site.layer for one in found for site in one.sites})
        raise UserError(f"layer {layer} was given; {str(vector)!r} steers at {', '.join(map(str, there))}")
    return kept


def _function(hooks: str) -> Any:
    """The user's own function, out of the user's own file, which is run."""
    import importlib.util

    name, _, function = hooks.rpartition(":")
    file = Path(name)
    if not name or not function.isidentifier() or not file.is_file():
        raise UserError(f"--hooks {hooks!r} was given; give file.py:function, with a file that is there")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise UserError(f"--hooks {hooks!r} was given; its file is no Python file: end its name in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{name!r} could not be run ({type(error).__name__}: {error}); mend it") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise UserError(f"{name!r} has no function {function!r}; give one that takes the model")
    return found


def _of_endpoint(
    endpoint: str, model: str, plan: str, expect: str, prompt: list[str] | None, tokens: int, timeout: float
) -> Any:
    import os

    from steering.check import check_endpoint
    from steering.check.model import PROMPTS

    return check_endpoint(
        endpoint, model, plan_fields(plan), expect=expect or "everywhere", prompts=prompt or PROMPTS, tokens=tokens,
        timeout=timeout, key=os.environ.get("OPENAI_API_KEY", ""),
    )  # fmt: skip


def plan_fields(plan: str) -> dict[str, Any]:
    """The fields of a steered request: JSON, or the file that holds it.

    Raises:
        UserError: no such file, no JSON, no object.
    """
    text = plan
    if not plan.lstrip().startswith("{"):
        if not Path(plan).is_file():
            raise UserError(f"--plan {plan!r} was given; give a JSON object, or the file that holds one")
        text = ""
    try:
        fields = json.loads(text or Path(plan).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"--plan {plan!r} holds no JSON ({error}); give the fields of a steered request") from error
    if not isinstance(fields, dict):
        raise UserError(f"--plan {plan!r} holds no object; give the fields of a steered request, by name")
    return fields
