"""Export and import: GGUF read back by the `gguf` package itself, SteeringVector by steering-vectors itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from steering_vectors import SteeringVector

from probes.errors import UserError
from probes.sites import Site
from steering.directions import Direction
from steering.formats import from_gguf, from_steering_vectors, to_gguf, to_steering_vectors, vectors_of
from steering.hooks import attached
from steering.interventions import Add, Intervention, Plan, ProjectOut, When
from tests.support.gguf_files import finish
from tests.support.tiny import tiny_model

IDS = torch.tensor([[5, 9, 3, 7, 40, 41]])


def plan(point: str = "resid_post", layers: tuple[int, ...] = (1, 3)) -> Plan:
    g = torch.Generator().manual_seed(0)
    return tuple(
        Intervention(Add(Direction(torch.randn(32, generator=g), Site(layer, point), resid_norm=3.0)), 0.5, "resid")
        for layer in layers
    )


def logits(steered: Plan) -> torch.Tensor:
    lm = tiny_model("llama")
    with torch.no_grad(), attached(lm, [steered]):
        return lm(input_ids=IDS, use_cache=False).logits


def test_gguf_is_what_its_own_package_reads(tmp_path: Path) -> None:
    file = to_gguf(plan(), tmp_path / "c.gguf", "llama")
    reader = GGUFReader(file)
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "llama"
    assert reader.fields["controlvector.layer_count"].contents() == 2
    by_name = {t.name: t for t in reader.tensors}
    assert sorted(by_name) == ["direction.1", "direction.3"]
    for site, vector in vectors_of(plan()).items():
        data = by_name[f"direction.{site.layer}"].data
        assert data.dtype == np.float32 and np.array_equal(data, vector.numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["c.gguf"]


def test_gguf_comes_back_as_the_plan_that_it_was(tmp_path: Path) -> None:
    back = from_gguf(to_gguf(plan(), tmp_path / "c.gguf", "llama"))
    torch.testing.assert_close(logits(back), logits(plan()))
    with torch.no_grad():
        assert not torch.allclose(logits(back), tiny_model("llama")(input_ids=IDS).logits, atol=1e-2)
    assert back[0].what.source.made["model_hint"] == "llama"  # type: ignore[union-attr]


def written(path: Path, **tensors: torch.Tensor) -> Path:
    """A control vector with tensors of these names, as another program may write it."""
    writer = GGUFWriter(path, "controlvector")
    for name, tensor in tensors.items():
        writer.add_tensor(f"direction.{name.removeprefix('_')}", tensor.numpy())
    finish(writer)
    return path


def test_layer_0_is_read_as_repeng_reads_it_and_a_layer_of_zeros_left_out(tmp_path: Path) -> None:
    some, none = torch.ones(32), torch.zeros(32)
    assert [one.sites for one in from_gguf(written(tmp_path / "c", _0=some, _1=none))] == [(Site(0),)]
    assert [one.sites for one in from_gguf(written(tmp_path / "a", _1=none, _3=some))] == [(Site(3),)]
    for tensors, words in (
        ({"_1": some, "_01": some}, "holds direction.1 and direction.01, both for 1.resid_post"),
        (dict(_1=some, _2=torch.ones(16)), r"\[16\] for direction.2, \[32\] for direction.1"),
        (dict(_1=torch.ones(2, 16)), "expected one vector a layer"),
        (dict(_1=some * torch.nan), "NaN or infinity in direction.1"),
        ({"_-1": some}, "counted from the end"),
        (dict(_1=none, _2=none), "zeros alone"),
        ({"_1.weight": some}, "hook point 'direction.1.weight'.*like direction.12"),
    ):
        with pytest.raises(UserError, match=words):
            from_gguf(written(tmp_path / "b", **tensors))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
def test_half_precision_and_quantised_control_vectors(tmp_path: Path, kind: str) -> None:
    from gguf import GGMLQuantizationType, quantize

    vector = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    type_ = GGMLQuantizationType[kind]
    writer = GGUFWriter(tmp_path / "c", "controlvector")
    writer.add_tensor("direction.2", quantize(vector.numpy(), type_), raw_dtype=type_)
    finish(writer)
    (one,) = from_gguf(tmp_path / "c")
    torch.testing.assert_close(one.what.source.vector, vector[0], rtol=0, atol=2e-2)  # type: ignore[union-attr]


def test_steering_vectors_dictionaries_as_they_come() -> None:
    lm = tiny_model("llama")
    some, none = torch.randn(1, 32, generator=torch.Generator().manual_seed(0)).half(), torch.zeros(32)
    theirs = SteeringVector({0: none, -1: some, 2: some[0].bfloat16()})
    assert [one.sites for one in from_steering_vectors(theirs, lm)] == [(Site(2),), (Site(3),)]
    for layers, words in (
        ({}, "no vectors"),
        ({1: none}, "zeros alone"),
        ({3: some, -1: some}, "both for 3.resid_post"),
        ({1: some, 2: torch.ones(16)}, "all of one width"),
        ({1: some / 0}, "NaN or infinity"),
        ({4: some}, "4"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            from_steering_vectors(SteeringVector(layers), lm)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("point", ["attn_out", "mlp_out"])
def test_a_norm_behind_the_sublayer_is_told_in_both_directions(point: str) -> None:
    lm = tiny_model("gemma2")
    theirs = SteeringVector({1: torch.ones(32)}, "self_attn" if point == "attn_out" else "mlp")
    for call in (lambda: from_steering_vectors(theirs, lm), lambda: to_steering_vectors(plan(point), lm)):
        with pytest.raises(UserError, match="a norm follows the"):
            call()


@pytest.mark.parametrize("point", ["resid_post", "attn_out", "mlp_out"])
def test_steering_vectors_does_what_the_plan_does_and_comes_back(point: str) -> None:
    lm = tiny_model("llama")
    theirs = to_steering_vectors(plan(point), lm)
    assert isinstance(theirs, SteeringVector)
    with torch.no_grad(), theirs.apply(lm):
        expected = lm(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(logits(plan(point)), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(from_steering_vectors(theirs, lm)), expected, rtol=1e-5, atol=1e-5)


def test_what_the_formats_cannot_hold_is_refused(tmp_path: Path) -> None:
    d = Direction(torch.ones(32), Site(1))
    broken = to_gguf(plan(), tmp_path / "b.gguf", "llama")
    broken.write_bytes(broken.read_bytes()[:200])
    (tmp_path / "text.gguf").write_text("not one")
    for call, word in (
        (lambda: to_gguf(plan(layers=(0,)), tmp_path / "x", "llama"), "layer 1 or higher"),
        (lambda: to_gguf(plan("mlp_out"), tmp_path / "x", "llama"), "resid_post"),
        (lambda: to_gguf((Intervention(ProjectOut(d)),), tmp_path / "x", "llama"), "project out"),
        (lambda: to_gguf((Intervention(Add(d), when=When.steps(1)),), tmp_path / "x", "llama"), "last prompt token"),
        (lambda: to_gguf((), tmp_path / "x", "llama"), "empty plan"),
        (lambda: to_gguf((Intervention(Add(d)), Intervention(Add(d), -1.0)), tmp_path / "x", "llama"), "zeros alone"),
        (lambda: to_steering_vectors(plan("resid_pre")), "resid_pre"),
        (lambda: from_steering_vectors(SteeringVector({0: torch.ones(32)}, "input_layernorm")), "input_layernorm"),
        (lambda: from_gguf(tmp_path / "none.gguf"), "not there"),
        (lambda: from_gguf(broken), "not a whole GGUF"),
        (lambda: from_gguf(tmp_path / "text.gguf"), "not a whole GGUF"),
    ):
        with pytest.raises(UserError, match=word) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64, np.float16, np.float64])
def test_numbers_of_any_plain_type_are_read(kind: type[np.generic], tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "c.gguf", "controlvector")
    writer.add_tensor("direction.2", np.arange(-16, 16).astype(kind))
    finish(writer)
    (one,) = from_gguf(tmp_path / "c.gguf")
    assert isinstance(one.what, Add) and isinstance(one.what.source, Direction)
    assert one.what.source.vector.tolist() == list(range(-16, 16))


def test_a_type_that_the_package_does_not_turn_into_numbers_is_one_line(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "c.gguf", "controlvector")
    writer.add_tensor("direction.2", np.zeros(292, dtype=np.uint8), raw_dtype=GGMLQuantizationType.Q8_K)
    finish(writer)
    with pytest.raises(UserError, match=r"direction\.2 is of the type Q8_K, which the gguf package does not read"):
        from_gguf(tmp_path / "c.gguf")


def test_a_folder_for_a_control_vector_is_made(tmp_path: Path) -> None:
    assert len(from_gguf(to_gguf(plan(), tmp_path / "new" / "folder" / "c.gguf", "llama"))) == 2
