"""Transcoders: encoded and rebuilt as SAELens does, read at the MLP's own input, steered along at its output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit.models import Model
from probes.errors import UserError
from probes.sae.config import TRANSCODERS
from probes.sae.load import load_sae
from probes.sae.train import saelens
from probes.sae.transcoder import Transcoder, is_transcoder, largest
from probes.sites import blocks
from tests.support.shell import shell

D, F = 32, 48


def saved(folder: Path, kind: str = "transcoder", **metadata: Any) -> Any:
    """A random one, as SAELens saves it."""
    lens = saelens()
    cls, config = lens.registry.get_sae_class(kind)
    given = {"hook_name": "blocks.2.mlp.hook_in", "hook_name_out": "blocks.2.hook_mlp_out", "model_name": "tiny"}
    about = lens.saes.sae.SAEMetadata(**given | metadata)
    made = cls(config(d_in=D, d_out=D, d_sae=F, apply_b_dec_to_input=False, metadata=about))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in made.named_parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (0.2 if name != "threshold" else 1))
    made.save_model(folder)
    return made


@pytest.mark.parametrize("kind", TRANSCODERS)
def test_saelens_encodes_and_rebuilds_the_same(kind: str, tmp_path: Path) -> None:
    theirs = saved(tmp_path / "t", kind)
    ours = Transcoder.load(tmp_path / "t")
    x = torch.randn(200, D, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        z = theirs.encode(x)
        assert 0 < float((z > 0).float().mean()) < 1
        torch.testing.assert_close(ours.encode(x), z, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.decode(z), theirs.decode(z), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.rebuilt(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert str(ours.writes) == "2.mlp_out" and torch.equal(ours.row(5), theirs.W_dec[5].data)
    with pytest.raises(UserError, match="elicit steer --sae FOLDER --feature N"):
        load_sae(tmp_path / "t")


@pytest.mark.parametrize(("metadata", "said"), [
    ({"hook_name": "blocks.2.ln2.hook_normalized"}, "before its gain"),
    ({"hook_name": "blocks.2.hook_mlp_in"}, "the stream before the norm"),
    ({"hook_name_out": "blocks.3.hook_mlp_out"}, "expected blocks.2.hook_mlp_out"),
])  # fmt: skip
def test_other_hook_points_are_refused_by_name(metadata: dict[str, str], said: str, tmp_path: Path) -> None:
    saved(tmp_path / "t", **metadata)
    with pytest.raises(UserError, match=said) as error:
        Transcoder.load(tmp_path / "t")
    assert "\n" not in str(error.value)


def test_a_folder_of_another_kind_is_no_transcoders(tmp_path: Path) -> None:
    (tmp_path / "cfg.json").write_text(json.dumps({"activation": "topk", "k": 4, "num_latents": 64, "d_in": 16}))
    assert not is_transcoder(tmp_path) and not is_transcoder(tmp_path / "none")


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "t")
    file = tmp_path / "t" / "cfg.json"
    settings = json.loads(file.read_text())
    for changed, said in (({"d_sae": 47}, "its settings say"), ({"d_out": 16}, "expected the same"),
                          ({"architecture": "skip_transcoder"}, "W_skip of shape none")):  # fmt: skip
        file.write_text(json.dumps(settings | changed))
        with pytest.raises(UserError, match=said):
            Transcoder.load(tmp_path / "t")


def test_it_is_read_at_the_mlps_own_input(tiny: Model, tmp_path: Path) -> None:
    saved(tmp_path / "t")
    one, texts = Transcoder.load(tmp_path / "t"), [[5, 9, 12, 40], [7, 8], [3]]
    seen: list[torch.Tensor] = []
    block: Any = blocks(tiny.lm)[2]
    handle = block.mlp.gate_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    with torch.no_grad():
        for text in texts:
            tiny.lm(torch.tensor([text]))
    handle.remove()
    wanted = torch.cat([one.encode(x)[1:] for x in seen]).amax(0)
    torch.testing.assert_close(largest(tiny.lm, one, texts), wanted, rtol=1e-4, atol=1e-4)


def test_its_feature_is_steered_by_dose(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "t")
    common = ["steer", "--sae", "t", "--model", str(tiny_folder), "--task", "chain-sum", "--limit", "4", "--random",
              "1", "--strength", "2", "--max-new-tokens", "6", "--device", "cpu", "--dtype", "float32"]  # fmt: skip
    code, out, err = shell(*common, "--feature", "3", "--unit", "feature_max", "--json")
    assert code == 0, err
    rows = {r["series"]: r for r in json.loads(out)["rows"]}
    assert rows["feature 3"]["push"] > 0 and rows["random 0"]["control"]
    for words, said in ((["--feature", "-1"], "without a feature"), (["--feature", "48"], "the transcoder has 48")):
        code, out, err = shell(*common, *words)
        assert code == 2 and said in err and err.count("\n") == 1 and not out


@pytest.mark.parametrize("settings", [
    {"activation_fn": "topk", "activation_fn_kwargs": [1]}, {"architecture": ["transcoder"]},
    {"normalize_activations": []},
])  # fmt: skip
def test_settings_that_are_not_as_expected_are_one_line(settings: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path / "t")
    (tmp_path / "t" / "cfg.json").write_text(json.dumps(settings))
    for read in (is_transcoder, Transcoder.load):
        with pytest.raises(UserError, match="not as expected") as error:
            read(tmp_path / "t")
        assert "\n" not in str(error.value)
