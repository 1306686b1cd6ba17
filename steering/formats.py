"""Other people's formats for steering vectors: GGUF control vectors (llama.cpp, repeng) and `steering-vectors`.

A GGUF control vector is one vector a layer, `direction.N`, added to the output of block N (counted from 0) at every
position, times a strength that the reader gives. `direction.0` is read, as repeng reads it; none is written, since
llama.cpp refuses such a file. Layers of zeros are left out.
`steering-vectors` keeps a dictionary of vectors by layer in memory and has no file format of its own; it too adds to
every position unless another is asked for. So a plan is exported only where that is what it does, strength included.
Its attention and MLP lie before a norm that may follow them, where no site is: such a model is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.errors import UserError
from probes.files import make_folder, ours_to_replace, whole
from probes.finite import check_tensors
from probes.gguf_header import check_counts
from probes.namings import name_of, site_named
from probes.sites import Site
from steering.directions import Direction
from steering.interventions import Add, Intervention, Plan

ARCHITECTURE = "controlvector"


def vectors_of(plan: Plan) -> dict[Site, Float[Tensor, " d_model"]]:
    """What a plan adds at each site, strengths included.

    Raises:
        UserError: the plan does something else than add vectors at every position.
    """
    out: dict[Site, Tensor] = {}
    for one in plan:
        if not isinstance(one.what, Add) or one.when.kind != "everywhere":
            raise UserError(
                f"an intervention that does {one.kind!r} at {one.when.kind!r} was given; these formats hold vectors "
                "that are added everywhere, give Add with When.everywhere()"
            )
        vector = one.what.source.vector if isinstance(one.what.source, Direction) else one.what.source.decoder
        for site in one.sites:
            out[site] = out.get(site, torch.zeros_like(vector)) + one.factor * vector
    if not out:
        raise UserError("an empty plan was given; give at least one intervention")
    return out


def plan_of(vectors: Mapping[Site, Float[Tensor, " d_model"]], name: str, **made: Any) -> Plan:
    """The plan that adds these vectors everywhere, at strength 1."""
    return tuple(
        Intervention(Add(Direction(vector.float(), site, f"{name} {site}", made=made)))
        for site, vector in sorted(vectors.items(), key=lambda pair: pair[0].order)
    )


def control_vectors(plan: Plan) -> dict[Site, Float[Tensor, " d_model"]]:
    """What a plan adds at each site, where a control vector can hold it.

    Raises:
        UserError: as `vectors_of`; another hook point than `resid_post`, layer 0.
    """
    vectors = vectors_of(plan)
    for site in vectors:
        if site.point != "resid_post" or site.layer == 0:
            raise UserError(
                f"a vector at {site} was given; a control vector lies at resid_post of layer 1 or higher "
                "(llama.cpp leaves block 0 unsteered)"
            )
    return vectors


def to_gguf(plan: Plan, path: Path | str, model_hint: str) -> Path:
    """Write a control vector that llama.cpp and repeng read.

    Args:
        plan: `Add` at `resid_post`, everywhere; not in layer 0.
        path: the file.
        model_hint: the architecture's name, e.g. `llama` (`config.model_type`).

    Raises:
        UserError: a plan that the format cannot hold, a path where another file lies.
    """
    from gguf import GGUFWriter

    vectors = control_vectors(plan)
    if not any(vector.any() for vector in vectors.values()):
        raise UserError("the plan's vectors add up to zeros alone; give one that changes something")
    path = Path(path)
    make_folder(path.parent)
    ours_to_replace(path, ARCHITECTURE)
    with whole(path) as part:
        writer = GGUFWriter(part, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
        for site, vector in sorted(vectors.items(), key=lambda pair: pair[0].layer):
            writer.add_tensor(f"direction.{site.layer}", vector.float().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def from_gguf(path: Path | str) -> Plan:
    """Read a control vector: the plan that does what llama.cpp and repeng do with it at strength 1.

    Raises:
        UserError: not there, not a GGUF file or cut, no control vector in it, two for one layer, of several widths,
            of a type that is not read, NaN, zeros alone.
    """
    from gguf import GGUFReader

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{str(path)!r} is not there; give a GGUF control vector")
    check_counts(path)
    try:
        reader = GGUFReader(path)
        tensors = {t.name: _numbers(t) for t in reader.tensors if t.name.startswith("direction.")}
        field = reader.fields.get(f"{ARCHITECTURE}.model_hint")
        hint = str(field.contents()) if field is not None else ""
    except (ValueError, IndexError, KeyError, TypeError, ArithmeticError) as error:
        raise UserError(f"{str(path)!r} is not a whole GGUF file ({error}); fetch or export it again") from error
    if not tensors:
        raise UserError(f"{str(path)!r} holds no direction.N tensors; give a control vector, not a model")
    vectors = _checked([(name, site_named(name, "gguf"), v) for name, v in tensors.items()], repr(str(path)))
    return plan_of(vectors, path.stem, method="GGUF control vector", model_hint=hint)


def _numbers(tensor: Any) -> Tensor:
    """A tensor of a GGUF file, whatever its type.

    Raises:
        UserError: a type that the `gguf` package does not turn into numbers.
    """
    from gguf import dequantize

    if tensor.data.dtype.kind in "fi":
        return torch.from_numpy(tensor.data.copy()).float()
    try:
        return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type)).float()
    except NotImplementedError as error:
        raise UserError(
            f"{tensor.name} is of the type {tensor.tensor_type.name}, which the gguf package does not read; "
            "give a control vector in F32 or F16"
        ) from error


def _checked(found: Sequence[tuple[str, Site, Tensor]], what: str) -> dict[Site, Float[Tensor, " d_model"]]:
    """The vectors that move anything, a site each.

    Args:
        found: name, site and vector of each; a vector may have further dimensions of length 1.
        what: whose they are, for messages.
    """
    if not found:
        raise UserError(f"{what} holds no vectors; give one that was trained")
    check_tensors({name: v for name, _, v in found}, what, "make it again")
    names: dict[Site, str] = {}
    vectors: dict[Site, Tensor] = {}
    for name, site, v in found:
        if site in names:
            raise UserError(f"{what} holds {names[site]} and {name}, both for {site}; keep one")
        if v.numel() != max(v.shape, default=0) or len(v.flatten()) != found[0][2].numel():
            shapes = f"{list(v.shape)} for {name}, {list(found[0][2].shape)} for {found[0][0]}"
            raise UserError(f"{what} holds vectors of shapes {shapes}; expected one vector a layer, all of one width")
        names[site] = name
        if v.any():
            vectors[site] = v.flatten()
    if not vectors:
        raise UserError(f"{what} holds zeros alone; give a vector that was trained")
    return vectors


def to_steering_vectors(plan: Plan, lm: nn.Module | None = None) -> Any:
    """A `steering_vectors.SteeringVector` that adds what the plan adds.

    Args:
        plan: `Add` at one hook point, everywhere.
        lm: the model that it is for; needed at `attn_out` and `mlp_out`.

    Raises:
        UserError: a plan that it cannot hold, a norm that follows the sublayer; the library is not installed.
    """
    vectors = vectors_of(plan)
    names = {site: name_of(site, "steering-vectors", lm).split()[0] for site in vectors}
    if len(set(names.values())) > 1:
        raise UserError(
            f"vectors at {', '.join(map(str, vectors))} were given; a SteeringVector has one kind of layer, "
            "give a plan for each"
        )
    try:
        from steering_vectors import SteeringVector
    except ImportError as error:
        raise UserError("steering-vectors is not installed; pip install steering-vectors") from error
    return SteeringVector({site.layer: v.clone() for site, v in vectors.items()}, next(iter(names.values())))


def from_steering_vectors(vector: Any, lm: nn.Module | None = None) -> Plan:
    """The plan that a `steering_vectors.SteeringVector` is.

    Args:
        vector: a SteeringVector.
        lm: the model that it is for; needed for attention and MLP, and for layers that are counted from the end.

    Raises:
        UserError: a kind of layer that has no hook point here, a norm that follows the sublayer, no model where it is
            needed; two vectors for one layer, of several widths, NaN, zeros alone.
    """
    names = {f"{vector.layer_type} {layer}": v.detach().cpu() for layer, v in vector.layer_activations.items()}
    found = [(name, site_named(name, "steering-vectors", lm), v) for name, v in names.items()]
    vectors = _checked(found, "the SteeringVector")
    return plan_of(vectors, "steering vector", method="steering-vectors")
