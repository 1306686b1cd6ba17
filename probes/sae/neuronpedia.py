"""Features by Neuronpedia's ids, in and out, by SAELens's directory of releases: no network is asked.

    neuronpedia:gemma-2-2b/20-gemmascope-res-16k        an SAE: gemma-scope-2b-pt-res-canonical:layer_20/width_16k/…
    neuronpedia:gemma-2-2b/20-gemmascope-res-16k/123    its feature 123
    https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k/123     the same

Whether a page is there is not known here: Neuronpedia may show fewer features than an SAE has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from probes.errors import UserError, unknown
from probes.sae.autoencoder import SAE
from probes.sae.releases import releases

PREFIX = "neuronpedia:"
SITE = "https://www.neuronpedia.org"
_HEAD = re.compile(rf"{PREFIX}|https?://(www\.)?neuronpedia\.org/")


def is_id(text: str) -> bool:
    """Whether it is written as an id, or is the address of a page."""
    return _HEAD.match(text) is not None


def named(text: str) -> tuple[str, int | None]:
    """The SAE of an id as `release:sae_id`, and the feature's number where it has one.

    Raises:
        UserError: another form, a number that is none, an SAE that SAELens's directory does not know.
    """
    parts = _HEAD.sub("", text, count=1).strip("/").split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(f"{text!r} was given; write {PREFIX}model/source or {PREFIX}model/source/feature")
    if len(parts) == 3 and not parts[2].isdecimal():
        raise UserError(f"{text!r} was given; a feature is a number: {PREFIX}{parts[0]}/{parts[1]}/123")
    known = _by_id()
    name = "/".join(parts[:2])
    if name not in known:
        raise unknown("SAE of Neuronpedia", name, known, "(of those that SAELens's directory maps to a release)")
    return known[name], int(parts[2]) if len(parts) == 3 else None


def with_feature(sae: str, feature: int = -1) -> tuple[str, int]:
    """An SAE's name and a feature's number, where the name may be an id that holds the number; −1: no feature.

    Raises:
        UserError: as `named`; two numbers that differ.
    """
    if not is_id(sae):
        return sae, feature
    name, index = named(sae)
    if index is not None and feature not in (-1, index):
        raise UserError(f"{sae!r} and feature {feature} were given; give one of them")
    return name, feature if index is None else index


def id_of(sae: SAE) -> str:
    """Neuronpedia's id of an SAE, `model/source`: as its settings say, or by its release; "" where it has none."""
    if said := sae.about.get("neuronpedia_id"):
        return str(said)
    release, _, sae_id = sae.name.partition(":")
    if not sae_id or "/" in release:
        return ""
    known = releases().get(release)
    return known.neuronpedia.get(sae_id, "") if known else ""


def page_of(sae: SAE, index: int) -> str:
    """The address of a feature's page; "" where the SAE has no id."""
    name = id_of(sae)
    return f"{SITE}/{name}/{index}" if name else ""


@cache
def _by_id() -> Mapping[str, str]:
    return {
        name: f"{release}:{sae_id}"
        for release, entry in releases().items()
        for sae_id, name in entry.neuronpedia.items()
    }
