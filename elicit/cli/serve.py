"""`elicit serve`: mechanisms and bundles behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli.lines import remark
from elicit.cli.options import Device, DeviceMap, Dtype, EngineName, EngineSetting, ModelName, load_given
from probes.errors import UserError

TOKEN = "ELICIT_SERVE_TOKEN"
THINKING = ("no-thinking", "budget-forcing")  # need a model whose thoughts have a form that is known
TOOLS = " puts the question to its tools again, and a request is one whole prompt; evaluate it with elicit run"
Named = Annotated[list[str] | None, typer.Option(help="NAME=FOLDER, a bundle served under that name. Repeatable.")]


def serve(
    context: typer.Context,
    model: ModelName = "smollm2-135m-latent",
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method that needs no fit, served under its name. Repeatable; all that the model can do."),
    ] = None,
    bundle: Named = None,
    vector: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE.gguf, a control vector that plans may name. Repeatable.")
    ] = None,
    put: Annotated[str, typer.Option(help="How the methods put a question: qa, chat, … as for elicit run.")] = "qa",
    kind: Annotated[str, typer.Option(help="Of answers, unless a request says so: number, option, math, …")] = "",
    host: Annotated[str, typer.Option(help=f"Any but a loopback address needs a token in ${TOKEN}.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
    rows: Annotated[int, typer.Option(min=1, help="Answers decoded together.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most new tokens of an answer.")] = 1024,
    queue: Annotated[int, typer.Option(min=1, help="The most requests that wait.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which a request is given up.")] = 300.0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    engine: EngineName = "hf",
    engine_setting: EngineSetting = None,
) -> None:
    """Serve mechanisms and bundles as the models of an OpenAI-compatible endpoint, with plans by request."""
    token = os.environ.get(TOKEN, "")
    local = _loopback(host)
    if not local and len(token) < 16:
        raise UserError(
            f"host {host!r} can be reached by others; set {TOKEN} to a token of at least 16 characters, "
            "or leave --host out"
        )
    try:
        import uvicorn

        from elicit.decoding.pace import without_pool
        from elicit.integrations.serve.app import application
    except ImportError as error:
        raise UserError(f"elicit serve needs more packages ({error.name}); pip install 'elicit[serve]'") from error
    with without_pool():
        served = _served(context.params)
    hosts = ("localhost", "127.0.0.1", "[::1]") if local else ("*",)
    app = application(served, token=token, hosts=hosts, rows=rows, most=queue, seconds=timeout)
    remark(f"serving {', '.join(served.handles)} of {model} at http://{host}:{port}/v1")
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", server_header=False, access_log=False)
    uvicorn.Server(config).run()


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _served(given: dict[str, Any]) -> Any:
    """What the options name, loaded.

    Raises:
        UserError: a method that needs a fit, or that the model cannot do; a name that is given twice, what cannot be
            read.
    """
    from elicit import methods
    from elicit.decoding.decoders import Tools
    from elicit.elicited import Elicited
    from elicit.integrations.serve.served import Served
    from elicit.tasks.answers import KINDS
    from probes.errors import unknown
    from steering.formats import from_gguf

    if given["kind"] and given["kind"] not in KINDS:
        raise unknown("kind of answer", given["kind"], KINDS)
    bundles, files = _pairs(given["bundle"], "--bundle"), _pairs(given["vector"], "--vector")
    free = [*methods.BASELINES, "cot-decoding", "power-sampling", *THINKING]
    names = given["method"] or free
    for name in names:
        methods.get(name)
        if name == "cognitive-tools":
            raise UserError(f"--method {name}{TOOLS}")
        if name not in free:
            raise UserError(f"--method {name} needs a fit; fit it with elicit run, and serve its --bundle")
    if twice := sorted(bundles.keys() & set(names)):
        raise UserError(f"--bundle {twice[0]}=… has a method's name; give another")
    vectors = {name: from_gguf(path) for name, path in files.items()}
    for name, plan in vectors.items():
        if len(plan) != 1:
            raise UserError(f"--vector {name} holds {len(plan)} layers; give a file with one, or a bundle")
    model = load_given(given, quiet=False)
    handles: dict[str, Elicited] = {}
    for name in names:
        try:
            handles[name] = methods.fit(name, model, None, prompt=given["put"])
        except UserError as error:
            if given["method"] or name not in THINKING:
                raise
            remark(f"{name} is left out: {error}")
    for name, folder in bundles.items():
        handles[name] = Elicited.load(folder, model)
        if isinstance(handles[name].decoder, Tools):
            raise UserError(f"--bundle {name}=…{TOOLS}")
    return Served(handles, vectors, given["max_tokens"], given["kind"])


def _pairs(given: Sequence[str] | None, option: str) -> dict[str, Path]:
    pairs: dict[str, Path] = {}
    for one in given or ():
        name, equals, path = one.partition("=")
        if not (name and equals and path):
            raise UserError(f"{option} {one!r} was given; write NAME=PATH")
        if name in pairs:
            raise UserError(f"{option} {name}=… was given twice; give each name once")
        pairs[name] = Path(path).expanduser()
    return pairs
