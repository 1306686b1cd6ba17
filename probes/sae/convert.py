"""SAEs that other libraries saved, read or brought into SAELens's form: sparsify, Gemma Scope, and pickled ones.

sparsify's folders (`cfg.json`, `sae.safetensors`; named by the module whose output they read) and Gemma Scope's
(`params.npz`; their path names model, hook point and layer) are read as they are. Files that are pickled
(dictionary-learning's `ae.pt`, Goodfire, Qwen Scope) are not opened in this process at all: `convert` lets the
interpreter that the user names write their tensors into safetensors (`unpickle.py`).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from probes.errors import UserError
from probes.estimate import Estimate
from probes.files import ours_to_replace, sha256_of, whole_files
from probes.namings import name_of, site_named
from probes.sae.autoencoder import CONFIG, SAE, WEIGHTS, assemble, save_sealed
from probes.sae.config import read_config
from probes.sae.layouts import as_saelens, numbers
from probes.sites import Site

SPARSIFY, GEMMA, PICKLED = "sae.safetensors", "params.npz", (".pt", ".pth", ".bin", ".pkl", ".ckpt")
TRIED, PASSES = 1 << 26, 8  # bytes that are read to time it; passes over the file, the slower ones counted twice
WIDENED = 2  # fp32 over 16 bits
POINTS = {"res": "resid_post", "mlp": "mlp_out"}


@dataclass(frozen=True)
class Foreign:
    """A file of another library's with what is known of it beside its tensors."""

    file: Path
    settings: dict[str, Any]
    hook: str = ""
    model: str = ""

    @property
    def what(self) -> str:
        return f"the SAE in {str(self.file)!r}"


def foreign_file(folder: Path) -> Path | None:
    """The file in a folder that is not SAELens's and is read as it is."""
    if (folder / WEIGHTS).is_file():
        return None
    return next((folder / name for name in (SPARSIFY, GEMMA) if (folder / name).is_file()), None)


def load_foreign(file: Path) -> SAE:
    """Read a `sae.safetensors` of sparsify's or a `params.npz` of Gemma Scope's.

    Raises:
        UserError: what the layout or `check` refuses; a hook point that its path does not name.
    """
    one = described(file)
    made, tensors, layout = as_saelens(tensors_of(file, one.what), one.settings, one.what)
    sha256 = sha256_of(file)
    made["metadata"] = _metadata(one, layout, one.hook, one.model, sha256)
    return assemble(made, tensors, what=one.what, name=file.parent.name, sha256=sha256)


def forecast(source: Path) -> Estimate:
    """What converting takes at most: the file is read, hashed, written in fp32 and read back.

    Raises:
        UserError: no such file, or several.
    """
    file = _file(source)
    size = file.stat().st_size
    began = time.perf_counter()
    with file.open("rb") as opened:
        tried = len(opened.read(TRIED))
    each = (time.perf_counter() - began) / max(1, tried)
    return Estimate(PASSES * each * size, memory=2 * WIDENED * size, disk=WIDENED * size, most=True)


def convert(
    source: Path,
    out: Path,
    *,
    site: str = "",
    model: str = "",
    k: int = 0,
    python: str = sys.executable,
    say: Callable[[str], None] = lambda line: None,
) -> SAE:
    """Write the SAE of a file, or of a folder with one, as SAELens's two files, and read it back.

    Args:
        source: `ae.pt`, `params.npz`, `sae.safetensors` or another file of tensors; or its folder.
        out: a new folder, or one that was converted before.
        site: like `12.resid_post`, where the file or its path does not say it.
        model: the name of the model that it is of, likewise.
        k: of a TopK SAE whose file, and the settings beside it, do not hold it.
        python: the interpreter that opens what is pickled, with torch and safetensors; this one unless given.
        say: is told the command that opens it.

    Raises:
        UserError: no such file, several, one that is not read, a hook point or k that is nowhere said, a k of an SAE
            that has none or says another, a folder with something else in it.
    """
    file = _file(source)
    ours_to_replace(out / CONFIG, "converted_from")
    if not (out / CONFIG).exists() and (out / WEIGHTS).exists():
        raise UserError(f"{str(out)!r} holds {WEIGHTS}, which was not converted here; give another folder")
    one = described(file)
    hook = name_of(_site(site), "sae-lens") if site else one.hook
    if not hook:
        raise UserError(f"{one.what} does not say where in the model it is; give site, like 12.resid_post")
    held = unpickled(file, python, say) if file.suffix in PICKLED else tensors_of(file, one.what)
    made, tensors, layout = as_saelens(held, one.settings | ({"k": k} if k else {}), one.what)
    if k and made["architecture"] != "topk":
        raise UserError(f"k = {k} was given; {one.what} is of architecture {made['architecture']!r}: leave k out")
    said = one.settings.get("k", k) if file.name == SPARSIFY else made.get("k")
    if k and said != k:
        raise UserError(f"k = {k} was given; {one.what} says itself that it keeps {said} features: leave k out")
    made["dtype"] = "float32"
    made["metadata"] = _metadata(one, layout, hook, model or one.model, sha256_of(file))
    assemble(made, tensors, what=one.what, name=out.name)  # refused before anything is written
    with whole_files(out) as part:
        save_sealed(part, made, tensors)
    return SAE.load(out)


def unpickled(file: Path, python: str, say: Callable[[str], None] = lambda line: None) -> dict[str, Tensor]:
    """The tensors of a pickled file, which another process reads; in neither is code run that the file holds.

    Raises:
        UserError: no such interpreter, one without torch or safetensors, a file that holds more than tensors.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "tensors.safetensors"
        program = str(Path(__file__).with_name("unpickle.py"))
        command = [python, "-I", program, str(file.resolve()), str(target)]
        say(shlex.join(command))
        # Under that variable torch would run code all the same.
        own = {key: value for key, value in os.environ.items() if key != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=own)
        except OSError as error:
            raise UserError(f"{python!r} cannot be run ({error.strerror}); give python, an interpreter") from error
        if done.returncode or not target.is_file():
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UserError(f"{str(file)!r} was not converted by {python}: {reason}")
        return tensors_of(target, f"what {python} made of {str(file)!r}")


def tensors_of(file: Path, what: str) -> dict[str, Tensor]:
    """The tensors of an `.npz` or a safetensors file.

    Raises:
        UserError: cut, or another kind of file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.suffix == ".npz":
        return numbers(str(file), what)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{what} is cut or no safetensors file ({error}); fetch it again") from error


def described(file: Path) -> Foreign:
    """What the settings beside a file, and its path, say of it.

    Raises:
        UserError: settings that are needed and not there, or are no table.
    """
    if file.name == SPARSIFY:
        if not (file.parent / CONFIG).is_file():
            raise UserError(f"{str(file.parent)!r} holds {SPARSIFY} and no {CONFIG}; fetch sparsify's folder whole")
        run = file.parent.parent / "config.json"
        model = read_config(run).get("model", "") if run.is_file() else ""
        return Foreign(file, read_config(file.parent / CONFIG), file.absolute().parent.name, str(model))
    if file.suffix == ".npz":
        path = file.absolute().as_posix()
        if re.search(r"gemma-scope-[\w-]*transcoders?\b", path):
            raise UserError(
                f"{str(file)!r} is a transcoder of Gemma Scope: it reads at one point of the model and writes at "
                "another; give an SAE (-res or -mlp)"
            )
        layer = re.search(r"/layer_(\d+)/", path)
        kind = re.search(r"gemma-scope-(\w+)-(pt|it)-(res|mlp|att)\b", path)
        hook, model = "", ""
        if kind:
            model = f"google/gemma-2-{kind[1]}" + ("-it" if kind[2] == "it" else "")
        if kind and kind[3] == "att":
            hook = f"blocks.{layer[1] if layer else 0}.attn.hook_z"  # refused by its name
        elif kind and layer:
            hook = name_of(Site(int(layer[1]), POINTS[kind[3]]), "sae-lens")
        return Foreign(file, {}, hook, model)
    beside = file.parent / "config.json"
    settings = read_config(beside) if beside.is_file() else {}
    trainer = settings.get("trainer")
    if not isinstance(trainer, dict):  # another library's
        kept = re.search(r"[-_]L0[-_](\d+)", file.absolute().as_posix())
        return Foreign(file, {"k": int(kept[1])} if kept else {})
    layer, module = trainer.get("layer"), str(trainer.get("submodule_name") or "")
    hook = f"blocks.{layer}.hook_resid_post" if isinstance(layer, int) and "resid_post" in module else ""
    return Foreign(file, settings, hook, str(trainer.get("lm_name") or ""))


def _file(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise UserError(f"{str(source)!r} is not there; give a file with an SAE's tensors, or its folder")
    if (source / WEIGHTS).is_file():
        raise UserError(f"{str(source)!r} is in SAELens's form already; give it as it is")
    found = [source / name for name in (SPARSIFY, GEMMA, "ae.pt") if (source / name).is_file()]
    found = found or sorted(file for file in source.iterdir() if file.suffix in (*PICKLED, ".npz", ".safetensors"))
    if len(found) != 1:
        some = ", ".join(file.name for file in found[:5]) or "none"
        raise UserError(f"{str(source)!r} holds not one file with tensors but {some}; give the file itself")
    return found[0]


def _site(text: str) -> Site:
    try:
        return site_named(text, "sae-lens")
    except UserError as error:
        raise UserError(f"site: {error}") from None


def _metadata(one: Foreign, layout: str, hook: str, model: str, sha256: str) -> dict[str, Any]:
    if not hook:
        raise UserError(
            f"{one.what} does not say where in the model it is; say it with: elicit sae convert "
            f"{shlex.quote(str(one.file))} --site 12.resid_post --out FOLDER"
        )
    made: dict[str, Any] = {"hook_name": hook}
    if model:
        made["model_name"] = model
    return made | {"converted_from": {"file": one.file.name, "layout": layout, "sha256": sha256}}
