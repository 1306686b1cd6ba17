"""Neuronpedia's ids: in and out by SAELens's directory, without a network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from probes.errors import UserError
from probes.sae import SAE
from probes.sae.load import load_sae
from probes.sae.neuronpedia import id_of, is_id, named, page_of, with_feature
from probes.sae.releases import releases
from tests.support.saes import save_random_sae
from tests.support.shell import shell

ID = "gemma-2-2b/20-gemmascope-res-16k"
RELEASE = "gemma-scope-2b-pt-res-canonical:layer_20/width_16k/canonical"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = save_random_sae(tmp_path_factory.mktemp("sae") / "random")
    config = json.loads((made / "cfg.json").read_text())
    config["metadata"]["neuronpedia_id"] = ID
    (made / "cfg.json").write_text(json.dumps(config))
    return made


def test_ids_are_mapped_in_both_directions(folder: Path) -> None:
    assert named(f"neuronpedia:{ID}") == (RELEASE, None)
    for text in (f"neuronpedia:{ID}/123", f"https://www.neuronpedia.org/{ID}/123", f"https://neuronpedia.org/{ID}/123"):
        assert is_id(text) and named(text) == (RELEASE, 123) == with_feature(text)
    plain = replace(SAE.load(folder), about={})
    known = [(r, i, name) for r, entry in releases().items() for i, name in entry.neuronpedia.items()]
    assert len(known) > 2000 and len({name for _, _, name in known}) == len(known)
    for release, sae_id, name in known[::50]:
        assert named(f"neuronpedia:{name}")[0] == f"{release}:{sae_id}"
        assert id_of(replace(plain, name=f"{release}:{sae_id}")) == name
    assert page_of(replace(plain, name=RELEASE), 7) == f"https://www.neuronpedia.org/{ID}/7"
    assert page_of(SAE.load(folder), 7) == f"https://www.neuronpedia.org/{ID}/7"
    assert page_of(plain, 7) == "" and page_of(replace(plain, name="owner/repo:path"), 7) == ""
    assert not is_id("release:id") and with_feature("a,b", 3) == ("a,b", 3)


@pytest.mark.parametrize(("text", "said"), [
    ("neuronpedia:gemma-2-2b", "write neuronpedia:model/source"),
    ("neuronpedia:gemma-2-2b//1", "write neuronpedia:model/source"),
    (f"neuronpedia:{ID}/x", "a feature is a number"),
    ("neuronpedia:gemma-2-2b/20-gemmascope-rez-16k", f"did you mean {ID}"),
])  # fmt: skip
def test_ids_that_are_none_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        named(text)
    assert "\n" not in str(error.value)


def test_numbers_that_do_not_belong_are_refused() -> None:
    with pytest.raises(UserError, match="names a feature where an SAE is asked for"):
        load_sae(f"neuronpedia:{ID}/5")
    with pytest.raises(UserError, match="give one of them"):
        with_feature(f"neuronpedia:{ID}/5", 6)
    for words, said in (
        ([f"neuronpedia:{ID}"], "names no feature"),
        ([f"neuronpedia:{ID}/5", "--sae", "x"], "leave --sae out"),
        (["five"], "give a number, or neuronpedia:model/source/number"),
        (["neuronpedia:gemma-2-2b/none/5"], "of those that SAELens's directory maps"),
    ):
        code, out, err = shell("sae", "feature", *words)
        assert code == 2 and said in err and err.count("\n") == 1 and not out


def test_the_page_is_told_where_a_feature_is_reported(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    common = ["--sae", str(folder), "--model", str(tiny_folder), "--task", "chain-sum", "--device", "cpu",
              "--max-new-tokens", "8", "--read", "6", "--json"]  # fmt: skip
    code, out, err = shell("sae", "feature", "19", *common, "--out", str(tmp_path / "card.html"))
    assert code == 0, err
    address = f"https://www.neuronpedia.org/{ID}/19"
    assert json.loads(out)["neuronpedia"] == address and address in (tmp_path / "card.html").read_text()
    code, out, _ = shell("sae", "find", *common, "--top", "2")
    assert code == 0 and all(f"/{r['feature']}" in r["page"] for r in json.loads(out)["features"])
