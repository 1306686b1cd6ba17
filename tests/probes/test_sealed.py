"""Files with a hash of their own: whatever bit of one is another, one line says so or nothing changed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from elicit.decoding import Greedy
from elicit.elicited import FILE, Elicited
from elicit.models import Model
from probes.errors import UserError
from probes.sae.autoencoder import SAE
from probes.sealed import check_tensors_file, json_seal, read_sealed, save_tensors, sealed_json, write_sealed
from tests.damage.damages import flip
from tests.support.saes import save_random_sae

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.bfloat16)}


def test_every_bit_and_every_cut_of_a_json_file_is_told_or_changes_nothing(tmp_path: Path) -> None:
    file, data = tmp_path / "x.json", {"a": [1, 2.5, None], "b": {"c": "é"}}
    write_sealed(file, data)
    assert read_sealed(file, "again") == (data, True)
    whole = file.read_bytes()
    others = [flip(whole, bit) for bit in range(8 * len(whole))] + [whole[:n] for n in range(len(whole))]
    told = 0
    for other in others:
        file.write_bytes(other)
        try:
            assert read_sealed(file, "again")[0] == data
        except UserError as error:
            told += "again" in str(error) and "\n" not in str(error)
    assert told == len(others)  # every one: the hash begins the last line and a mark the first
    file.write_text(json.dumps(data))
    assert read_sealed(file, "again") == (data, False)
    assert json_seal(sealed_json(data).encode()) is True and json_seal(b"{}") is None


def test_every_bit_of_a_tensors_file_is_told_or_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_tensors(TENSORS, file, "s" * 64, note="é")
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["note"] == "é"
    whole, silent = file.read_bytes(), 0
    for n in range(8):  # the library writes what a header says in any order
        save_tensors(TENSORS, tmp_path / f"{n}.safetensors", "s" * 64, note="é")
        assert (tmp_path / f"{n}.safetensors").read_bytes() == whole
    for bit in range(8 * len(whole)):
        file.write_bytes(flip(whole, bit))
        try:
            check_tensors_file(file, "x", "fetch it again", "s" * 64)
            found = load_file(file)
        except (UserError, SafetensorError):
            continue
        assert {k: t.tolist() for k, t in found.items()} == {k: t.tolist() for k, t in TENSORS.items()}
        silent += 1
    assert silent < 0.2 * 8 * len(whole)  # the key and the digits of the hash itself
    file.write_bytes(whole)
    check_tensors_file(file, "x", "fetch it again", "s" * 64)
    with pytest.raises(UserError, match=r"its settings are not those that x\.safetensors was written with; fetch"):
        check_tensors_file(file, "x", "fetch it again", "t" * 64)


def test_a_file_of_another_program_is_read_as_it_is(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", {"sha256": "0" * 64})
    check_tensors_file(tmp_path / "x.safetensors", "x", "fetch it again", "s" * 64)


def test_an_sae_of_ours_is_held_to_its_weights_and_settings(tmp_path: Path) -> None:
    folder = save_random_sae(tmp_path / "sae", d_sae=8, k=2, sealed=True)
    plain = save_random_sae(tmp_path / "plain", d_sae=8, k=2)
    assert torch.equal(SAE.load(folder).W_dec, SAE.load(plain).W_dec)
    settings, weights = folder / "cfg.json", folder / "sae_weights.safetensors"
    settings.write_text(settings.read_text().replace('"k": 2', '"k": 3'))
    with pytest.raises(UserError, match="its settings are not those"):
        SAE.load(folder)
    settings.write_text(settings.read_text().replace('"k": 3', '"k": 2'))
    weights.write_bytes(flip(weights.read_bytes(), 8 * weights.stat().st_size - 20))
    with pytest.raises(UserError, match=r"sae_weights\.safetensors is not as it was written; fetch or save it again"):
        SAE.load(folder)


def test_a_bundle_of_an_older_version_loads_and_says_so_once(tiny: Model, tmp_path: Path) -> None:
    Elicited(tiny, "x", decoder=Greedy(3)).save(tmp_path)
    data, _ = read_sealed(tmp_path / FILE, "")
    (tmp_path / FILE).write_text(json.dumps(data, indent=2))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        found = [Elicited.load(tmp_path, tiny) for _ in range(3)]
    assert len(said) == 1 and "keep no hash of their elicited.json" in str(said[0].message)
    assert found[0].decoder == Greedy(3)
