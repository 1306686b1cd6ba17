"""SAEs by name: those that come with the package, and whatever `probes.sae.load` finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from elicit.models import zoo
from probes.errors import UserError, unknown
from probes.sae.autoencoder import SAE
from probes.sae.load import FORMS, load_sae
from probes.sae.releases import releases


def open_sae(name: str) -> SAE:
    """A shipped SAE, a folder, `release:sae_id` of SAELens, `neuronpedia:model/source`, or `owner/repo:path`.

    Raises:
        UserError: an unknown name, files that cannot be reached or read, a shipped file that was changed.
    """
    folder = zoo.sae_folder(name)
    if folder is not None:
        made = load_sae(folder)
        if made.sha256 != zoo.SAES[name].sha256:
            raise UserError(f"the weights of {name!r} are not those that were shipped; install elicit again")
        return replace(made, name=name)
    release = name.partition(":")[0]
    if "/" not in name and not Path(name).expanduser().exists() and release not in releases():
        raise unknown("SAE", name, [*zoo.SAES, *releases()], f"(or {FORMS})")
    return load_sae(name)
