"""Bundles: an `Elicited` as one folder, and the question whether it fits a model.

    elicited.json             method, prompt, decoder, selection; the base with its hash, its tokenizer's, its shape
    interventions.json        what × where × when × strength, with norm conventions, centring means, gates
    interventions.safetensors their tensors
    adapter/                  as PEFT saves it
    partner.json, .safetensors, partner/   hybrid decoding's vectors and gate; its adapter, where it is one

The base is named, not copied, and so is a partner that is a model. Given another base, a bundle goes on only where it
fits: interventions and vectors need the same tokenizer, width and depth; an adapter needs the base that it was
trained on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from elicit.decoding.decoders import decoder_from_dict
from elicit.decoding.decoders.partner import Partner
from elicit.elicited import Elicited
from elicit.models.model import Model, load_model
from elicit.models.prompts import Prompt
from probes.errors import UserError
from probes.files import inner_folder, make_folder, whole, write_whole
from probes.sites import depth, width
from steering import storage
from steering.adapters import CONFIG, WEIGHTS, Adapter

FILE, PLAN, ADAPTER, PARTNER = "elicited.json", "interventions", "adapter", "partner"


def save(handle: Elicited, folder: Path | str) -> Path:
    """Write a bundle; `elicited.json` comes last and makes it one.

    Raises:
        UserError: the folder cannot be made, or holds another adapter than a bundle's; a link where a folder goes.
    """
    folder = make_folder(Path(folder))
    if handle.interventions:
        storage.write(folder, PLAN, handle.interventions)
    if handle.adapter is not None:
        _copy(handle.adapter, folder / ADAPTER)
    if handle.partner is not None:
        storage.write(folder, PARTNER, handle.partner.data)
        if isinstance(handle.partner.model, Adapter):
            _copy(handle.partner.model, folder / PARTNER)
    lm = handle.model.lm
    fits = {"tokenizer": handle.model.tokenizer_sha256, "d_model": width(lm), "n_layers": depth(lm)}
    write_whole(folder / FILE, json.dumps({**handle.to_dict(), "fits": fits}, indent=2))
    return folder


def _copy(adapter: Adapter, folder: Path) -> None:
    if adapter.folder.resolve() == folder.resolve():
        return
    inner_folder(folder)
    files = {folder / name: (adapter.folder / name).read_bytes() for name in (WEIGHTS, CONFIG)}
    if not (folder.parent / FILE).is_file():
        for path, data in files.items():  # what an interrupted call left is the same
            if path.exists() and path.read_bytes() != data:
                raise UserError(f"{str(folder)!r} holds another adapter and is of no bundle; give another folder")
    for path, data in files.items():
        with whole(path) as part:
            part.write_bytes(data)


def load(folder: Path | str, model: Model | None = None, partner: Model | None = None) -> Elicited:
    """Read a bundle; its base, and a partner that is a model, are loaded by name unless they are given.

    Raises:
        UserError: no bundle there, a file of it cut or mixed with another's, a model that it does not fit.
    """
    folder = Path(folder)
    if not (folder / FILE).is_file():
        raise UserError(f"{str(folder)!r} holds no {FILE}; give the elicited/ folder of a run")
    try:
        data = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{str(folder / FILE)!r} is not JSON ({error}); save the bundle again") from error
    plan = storage.read(folder, PLAN) if data.get("interventions") else ()
    if [one.digest for one in plan] != [one["digest"] for one in data.get("interventions", [])]:
        raise UserError(f"the interventions in {str(folder)!r} are not those that {FILE} names; save the bundle again")
    adapter = _adapter(folder / ADAPTER, data["adapter"]) if "adapter" in data else None
    model = _named(data["model"], model)
    guide = _partner(folder, data["partner"], partner) if "partner" in data else None
    adapted = adapter is not None or (guide is not None and isinstance(guide.model, Adapter))
    _check_fit(data, model, bool(plan) or guide is not None, adapted)
    return Elicited(
        model=model,
        method=data["method"],
        prompt=Prompt.from_dict(data["prompt"]),
        decoder=decoder_from_dict(data["decoder"]),
        select=data["select"],
        span=data["span"],
        filters=data["filters"],
        adapter=adapter,
        interventions=tuple(plan),
        partner=guide,
        options=data["options"],
    )


def _adapter(folder: Path, sha256: str) -> Adapter:
    adapter = Adapter(folder)
    if adapter.sha256 != sha256:
        raise UserError(f"the adapter in {str(folder)!r} is not the one that {FILE} names; save the bundle again")
    return adapter


def _named(wanted: dict[str, Any], model: Model | None) -> Model:
    """The model given, or the one of this name, if it is still the same."""
    if model is not None:
        return model
    model = load_model(wanted["name"], dtype=wanted["dtype"])
    if model.provenance.sha256 != wanted["sha256"]:
        raise UserError(
            f"the bundle was made for {wanted['name']} {wanted['sha256'][:12]}…, what has that name here is "
            f"{model.provenance.sha256[:12]}…; give the model to load it on"
        )
    return model


def _partner(folder: Path, about: dict[str, Any], model: Model | None) -> Partner:
    data = storage.read(folder, PARTNER)
    thinking: Model | Adapter | None = None
    if "model" in about:
        thinking = _named(about["model"], model)
    elif "adapter" in about:
        thinking = _adapter(folder / PARTNER, about["adapter"])
    vectors, heads = ({int(c): one for c, one in (data.get(name) or {}).items()} for name in ("vectors", "heads"))
    partner = Partner(vectors, data["gate"], thinking, data["bias"], heads or None)
    if partner.digest != about["digest"]:
        raise UserError(f"the partner in {str(folder)!r} is not the one that {FILE} names; give the model it had")
    return partner


def _check_fit(data: dict[str, Any], model: Model, steered: bool, adapted: bool) -> None:
    wanted = data["model"]
    made_for = f"the bundle was made for {wanted['name']} {wanted['sha256'][:12]}…"
    if model.provenance.sha256 == wanted["sha256"]:
        return
    if adapted:
        raise UserError(f"{made_for} and holds an adapter, which fits no other weights; load that model")
    if not steered:
        return
    fits = data["fits"]
    for name, here in (("d_model", width(model.lm)), ("n_layers", depth(model.lm))):
        if fits[name] != here:
            raise UserError(f"{made_for} with {name} {fits[name]}, {model.name} has {here}; load a model of its shape")
    if fits["tokenizer"] != model.tokenizer_sha256:
        raise UserError(f"{made_for} with another tokenizer than {model.name}'s; load a model of the same family")
