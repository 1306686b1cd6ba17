"""SAELens's directory of published SAEs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from probes.errors import UserError


@dataclass(frozen=True)
class Release:
    """SAEs that were published together: their repository, the path of each id in it, and Neuronpedia's ids of some."""

    repo: str
    saes: Mapping[str, str]
    neuronpedia: Mapping[str, str] = field(default_factory=dict)


@cache
def releases() -> Mapping[str, Release]:
    """SAELens's directory of releases, by name. Its file is read; importing SAELens takes many times as long.

    Raises:
        UserError: SAELens is not installed.
    """
    import yaml  # type: ignore[import-untyped]

    found = find_spec("sae_lens")
    if found is None or not found.submodule_search_locations:
        raise UserError("releases are read by SAELens, which is not installed; run: pip install 'sae-lens>=6.54,<7'")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in Python takes seconds
    text = Path(found.submodule_search_locations[0], "pretrained_saes.yaml").read_text(encoding="utf-8")
    return {
        name: Release(
            entry["repo_id"],
            {sae["id"]: str(sae["path"]) for sae in entry["saes"]},
            {sae["id"]: sae["neuronpedia"] for sae in entry["saes"] if sae.get("neuronpedia")},
        )
        for name, entry in loader(text).get_single_data().items()
    }
