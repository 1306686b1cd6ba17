"""Where the direction of `elicit steer` is from: a file, a contrast of two prompts, a feature of an SAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.files import file_named


def read_plan(path: Path, model: Any) -> Any:
    """A plan from a GGUF file or a bundle."""
    from elicit.elicited import Elicited
    from steering.formats import from_gguf

    if path.is_dir():
        plan = Elicited.load(path, model).interventions
        if not plan:
            raise UserError(f"the bundle {str(path)!r} holds no interventions; give one that steers")
        return plan
    return from_gguf(path)


def contrasted(given: dict[str, Any], model: Any, task: Any) -> Any:
    """The direction between two prompts on the task's fit items, or between the lines of two files."""
    from elicit.models.prompts import named_prompt
    from probes.encoding import encoded
    from probes.sites import Site, depth
    from steering.find import contrast

    names = [name.strip() for name in given["contrast"].split(",")]
    if len(names) != 2:
        raise UserError(f"--contrast {given['contrast']!r} was given; give two, positive,negative")
    sides = []
    for name in names:
        if file := file_named(name):
            sides.append([encoded(model.tokenizer, line) for line in _lines(file, given["limit"])])
        else:
            shape = named_prompt(name, model.tokenizer)
            sides.append([shape.ids(item.question, model.tokenizer) for item in task.fit[: given["limit"]]])
    layers = depth(model.lm)
    layer = given["layer"] if given["layer"] is not None else min(round(layers * 2 / 3), layers - 1)
    about = {"contrast": names, "task": task.name, "model": model.provenance.sha256, "seed": given["seed"]}
    label = f"{Path(names[0]).stem} − {Path(names[1]).stem}"
    return contrast(model.lm, sides[0], sides[1], Site(layer, given["point"]), method=given["how"], name=label, **about)


def _lines(file: Path, most: int) -> list[str]:
    """The first lines of a text file, blank ones left out."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{str(file)!r} is not text in UTF-8 (byte {error.start}); give a text file") from error
    if not lines:
        raise UserError(f"{str(file)!r} holds no text; give a file with a text a line")
    return lines[:most]


def transcoder_series(given: dict[str, Any], model: Any, task: Any, when: Any) -> Any:
    """A transcoder's decoder row at the MLP's output, and random directions as long.

    The other end of the feature, what the MLP is given, is read on the task's fit items for the unit `feature_max`.
    """
    from elicit.evaluation.strength_sweep import series_of
    from elicit.models.prompts import named_prompt
    from probes.sae.transcoder import Transcoder, largest
    from steering.directions import Direction
    from steering.find import stream_norm

    one, index, unit = Transcoder.load(given["sae"]), given["feature"], given["unit"]
    if index < 0:
        raise UserError(
            f"the transcoder {one.name!r} was given without a feature; what a search contrasts is read where it is "
            "steered, and a transcoder reads elsewhere: give --feature"
        )
    row = one.row(index)
    put = named_prompt(given["put"], model.tokenizer)
    prompts = [put.ids(item.question, model.tokenizer) for item in task.fit[: given["limit"]]]
    if unit == "feature_max":
        maximum = float(largest(model.lm, one, prompts)[index])
        if maximum <= 0:
            raise UserError(
                f"feature {index} of {one.name!r} fires nowhere in {len(prompts)} prompts, so a strength in its maxima "
                "has no size; give another feature, or --unit resid"
            )
        row, unit = row * maximum, "raw"
    made = {"transcoder": one.name, "sha256": one.sha256, "feature": index, "unit": given["unit"]}
    norm = stream_norm(model.lm, prompts, one.writes)
    direction = Direction(row, one.writes, f"feature {index}", resid_norm=norm, made=made)
    return series_of(direction, when=when, unit=unit, controls=given["random"])


def feature_series(given: dict[str, Any], model: Any, task: Any, when: Any) -> Any:
    """A feature of an SAE at strength 1, and random features that fire as often and move the residual stream as far."""
    from elicit.evaluation.strength_sweep import Series
    from elicit.methods import options_of
    from elicit.methods.sae_steer.options import Search
    from elicit.methods.sae_steer.pipeline import matched_features, pick, search_data, size_of
    from elicit.models.prompts import named_prompt
    from probes.sae.neuronpedia import with_feature

    put = named_prompt(given["put"], model.tokenizer)
    asked = options_of("sae-steer") | {k: given[k] for k in ("max_new_tokens", "seed")}
    asked["sae"], asked["feature"] = with_feature(given["sae"], given["feature"])
    options = Search(
        **{k: v for k, v in asked.items() if k != "prompt"}
        | {"read": given["limit"], "checked": not given["unchecked"]}
    )
    on = search_data(model, task.fit, put, options)
    (best,) = pick(on, options, count=1)
    intervention = best.intervention(1.0, unit=given["unit"], change="add", when=when)
    size = size_of(model, intervention, on)
    others = matched_features(best, intervention, size, given["random"], given["seed"])
    return [
        Series(f"feature {best.index}", (intervention,)),
        *(Series(name, (other,), control=True) for name, other in others.items()),
    ]
