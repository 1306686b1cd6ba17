"""SAEs that come with the package: what is named is what was measured, and a changed file is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from elicit.models import zoo
from elicit.models.saes import open_sae
from probes.errors import UserError


@pytest.mark.parametrize("name", zoo.SAES)
def test_a_shipped_sae_is_the_one_on_its_card(name: str) -> None:
    sae, folder = open_sae(name), zoo.sae_folder(name)
    assert folder is not None and sae.name == name and sae.model == zoo.SAES[name].model
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["sae"]["sha256"] == sae.sha256 == zoo.SAES[name].sha256
    made = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))["metadata"]
    assert card["model"]["sha256"] == made["model_sha256"]
    assert not card["below floor"]
    assert f"--sae {name} " in card["command"]
    assert zoo.saes_for(sae.model) == [name]


def test_a_changed_or_misspelt_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(zoo.SAES))
    monkeypatch.setitem(zoo.SAES, name, replace(zoo.SAES[name], sha256="0" * 64))
    with pytest.raises(UserError, match="are not those that were shipped"):
        open_sae(name)
    with pytest.raises(UserError, match=f"did you mean {name}"):
        open_sae(name.replace("resid", "rseid"))
