"""Weight differences: planted sparsity, rank and overlap are found; the null shows what the format alone does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from probes.errors import UserError
from probes.weights import SHARES, Folder, differences, overlap
from tests.support.tiny import save_tiny


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(share: float, size: float, seed: int = 1) -> tuple[Tensor, Tensor]:
    """A matrix, and the same with a fraction of its entries moved by `size`."""
    before = noise(64, 50)
    moved = torch.rand(64, 50, generator=torch.Generator().manual_seed(seed)) < share
    return before, before + size * moved


def test_planted_sparsity_is_found_exactly_and_the_null_has_none() -> None:
    before, after = planted(0.25, 0.5)
    moved = int((after != before).sum())
    found = differences({"w": before, "b": before[0]}, {"w": after, "b": before[0]})
    row = found.table.loc["w"]
    for share in SHARES:
        assert row[share] == pytest.approx(1 - moved / 3200)
    assert row["null_fp32"] < 0.01 and row["null_absolute"] < 0.01
    assert row["norm"] == pytest.approx(0.5 * moved**0.5, rel=1e-4)
    assert (row["dtype_before"], row["dtype_after"], row["shape"], row["n"]) == ("float32", "float32", "64×50", 3200)
    assert found.table.loc["b", "fp32"] == 1 and found.table.loc["b", "norm"] == 0
    assert found.summary["n"] == 3250 and found.summary["changed_tensors"] == 1
    assert found.summary["fp32"] == pytest.approx(1 - moved / 3250)
    assert found.summary["dtype_before"] == ["float32"]


@pytest.mark.parametrize(("size", "kept"), [
    (3e-6, {"fp32": 0, "absolute": 1, "bf16": 1}), (3e-4, {"fp32": 0, "absolute": 0, "relative": 1, "bf16": 1}),
    (3e-3, {"fp32": 0, "absolute": 0, "relative": 0}), (0.1, dict.fromkeys(SHARES, 0)),
])  # fmt: skip
def test_each_tolerance_reads_the_same_pair_in_its_own_way(size: float, kept: dict[str, float]) -> None:
    before = 1 + 0.001 * noise(40, 40)
    row = differences({"w": before}, {"w": before + size}).table.loc["w"]
    assert {name: round(row[name], 1) for name in kept} == kept


def test_sparsity_of_the_format_is_in_the_null_as_well() -> None:
    before = noise(128, 128).bfloat16()
    after = (before.float() + 1e-4 * noise(128, 128, seed=5)).bfloat16()
    row = differences({"w": before}, {"w": after}).table.loc["w"]
    assert row["fp32"] > 0.5 and row["dtype_after"] == "bfloat16"
    assert abs(row["fp32"] - row["null_fp32"]) < 0.35
    sparse = before.clone()
    sparse[:, :12] += 1
    row = differences({"w": before}, {"w": sparse}).table.loc["w"]
    assert row["fp32"] > 0.85 and row["null_fp32"] < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_planted_rank_is_found_through_rounding(rank: int, dtype: torch.dtype) -> None:
    before = noise(60, 48).to(dtype)
    change = noise(60, rank, seed=1) @ noise(rank, 48, seed=2)
    row = differences({"w": before}, {"w": (before.float() + change).to(dtype)}).table.loc["w"]
    assert row["rank"] == rank and row["full_rank"] == 48
    sigma = torch.linalg.svdvals(change)
    assert row["stable_rank"] == pytest.approx(float((sigma**2).sum() / sigma[0] ** 2), rel=0.05)


def test_ranks_of_no_change_and_of_a_dense_one() -> None:
    before = noise(20, 30)
    table = differences({"a": before, "b": before}, {"a": before, "b": before + noise(20, 30, seed=3)}).table
    assert list(table["rank"]) == [0, 20] and table.loc["a", "stable_rank"] == 0
    assert "rank" not in differences({"a": before}, {"a": before}, ranks=False).table


def test_overlap_is_measured_against_chance_and_the_dense_null() -> None:
    before, one = planted(0.2, 1.0, seed=1)
    _, other = planted(0.3, 1.0, seed=2)
    same = overlap({"w": before}, {"w": one}, {"w": one}).summary
    assert same["of_one"] == same["of_other"] == 1.0
    apart = overlap({"w": before}, {"w": one}, {"w": before + (one == before)}).summary
    assert apart["both"] == 0 and apart["of_one"] == 0.0
    random = overlap({"w": before}, {"w": one}, {"w": other}).summary
    assert random["of_one"] == pytest.approx(random["chance_of_one"], abs=0.05)
    assert random["chance_of_one"] == pytest.approx(random["other"] / 3200) and random["null_of_one"] > 0.99
    nothing = overlap({"w": before}, {"w": one}, {"w": before}).summary
    assert nothing["of_one"] == 0.0 and nothing["of_other"] is None


def test_two_dense_updates_in_bf16_overlap_above_chance_and_as_their_nulls_do() -> None:
    before = noise(128, 128).bfloat16()
    one, other = ((before.float() + 1e-3 * noise(128, 128, seed=s)).bfloat16() for s in (3, 4))
    found = overlap({"w": before}, {"w": one}, {"w": other}).summary
    assert found["of_one"] > found["chance_of_one"] + 0.1  # small weights change first
    assert found["of_one"] == pytest.approx(found["null_of_one"], abs=0.1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "llama")


def adapter(base: Path, folder: Path, **more: object) -> Path:
    """A LoRA adapter of rank 2 with random factors."""
    lm = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"], **more)  # type: ignore[arg-type]
    torch.manual_seed(0)
    wrapped = get_peft_model(lm, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    wrapped.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("more", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3}}])
def test_an_adapter_and_the_merged_model_agree(base: Path, tmp_path: Path, more: dict[str, object]) -> None:
    lora = adapter(base, tmp_path / "lora", **more)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(lora)).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    a, b = differences(base, lora), differences(base, tmp_path / "merged")
    assert list(a.table.index) == list(b.table.index)
    touched = a.table["norm"] > 0
    assert list(a.table.index[touched]) == [n for n in a.table.index if "q_proj" in n or "down_proj" in n]
    assert (a.table.loc[touched, "rank"] == 2).all() and (b.table.loc[touched, "rank"] == 2).all()
    for column in ("norm", "stable_rank", *SHARES):
        assert b.table[column].fillna(0).tolist() == pytest.approx(a.table[column].fillna(0).tolist(), abs=1e-3)
    assert overlap(base, lora, tmp_path / "merged").summary["of_one"] == pytest.approx(1, abs=1e-3)


def test_adapters_on_transposed_matrices(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "gpt2", "gpt2")
    lm = AutoModelForCausalLM.from_pretrained(base)
    wrapped = get_peft_model(lm, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    wrapped.save_pretrained(str(tmp_path / "lora"))
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    a, b = differences(base, tmp_path / "lora"), differences(base, tmp_path / "merged")
    assert b.summary["norm"] == pytest.approx(a.summary["norm"], rel=1e-4) and a.summary["changed_tensors"] == 3


def test_shards_are_read_one_tensor_at_a_time(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        lm.model.layers[1].mlp.up_proj.weight[0] += 1
    lm.save_pretrained(tmp_path / "whole")
    lm.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 3
    read: list[str] = []
    before = Folder.read

    def counted(self: Folder, name: str) -> Tensor:
        read.append(name)
        return before(self, name)

    monkeypatch.setattr(Folder, "read", counted)
    found = differences(base, tmp_path / "sharded")
    assert sorted(read) == sorted([*found.table.index] * 2)
    assert found.table.equals(differences(base, tmp_path / "whole").table)
    assert list(found.table.index[found.table["norm"] > 0]) == ["model.layers.1.mlp.up_proj.weight"]
    assert found.summary == differences(base, lm.state_dict()).summary


def test_what_is_refused_in_one_line(base: Path, tmp_path: Path) -> None:
    lora = adapter(base, tmp_path / "lora")
    gpt2 = save_tiny(tmp_path / "gpt2", "gpt2")
    with pytest.raises(UserError, match="give two of one configuration"):
        differences(base, gpt2)
    with pytest.raises(UserError, match="'w' is 2×3 in one checkpoint and 3×2"):
        differences({"w": noise(2, 3)}, {"w": noise(3, 2)})
    with pytest.raises(UserError, match="which the base lacks"):
        differences(gpt2, lora)
    with pytest.raises(UserError, match="is an adapter and no base"):
        differences(lora, base)
    with pytest.raises(UserError, match="no folder"):
        differences(base, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no safetensors"):
        differences(base, tmp_path / "empty")
    save_file({"w": noise(2, 3)}, tmp_path / "empty" / "model.safetensors")
    file = tmp_path / "empty" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match="not a whole safetensors"):
        differences(tmp_path / "empty", base)
    dora = adapter(base, tmp_path / "dora", use_dora=True)
    with pytest.raises(UserError, match="kind DoRA"):
        differences(base, dora)


@pytest.mark.parametrize("more", [
    {"alpha_pattern": {r".*layers\.1\..*q_proj": 64}}, {"alpha_pattern": {"q_proj|k_proj": 3, "q_proj": 64}},
    {"rank_pattern": {r"layers\.\d+\.self_attn.q_proj": 2}, "alpha_pattern": {r"^model.layers\.[01]\..*": 5}},
])  # fmt: skip
def test_patterns_of_alpha_are_read_as_peft_reads_them(base: Path, tmp_path: Path, more: dict[str, object]) -> None:
    """Regular expressions for the end of a module's name, of which the first that fits counts."""
    adapter(base, tmp_path / "adapter", **more)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter"))
    merged.merge_and_unload().save_pretrained(tmp_path / "merged")
    found = differences(base, tmp_path / "adapter").table
    expected = differences(base, tmp_path / "merged").table
    assert (found["norm"] > 0).sum() == 8
    assert found["norm"].tolist() == pytest.approx(expected["norm"].tolist(), rel=1e-4)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_begins_in_the_base_is_refused(base: Path, tmp_path: Path, start: str) -> None:
    """PEFT takes its first state off the base's weights, so that the base with it is not the base plus its product."""
    adapter(base, tmp_path / "adapter", init_lora_weights=start)
    with pytest.raises(UserError, match=f"init_lora_weights '{start}', by which PEFT takes") as error:
        differences(base, tmp_path / "adapter")
    assert "\n" not in str(error.value)


def test_a_pattern_that_is_none_is_one_line(base: Path, tmp_path: Path) -> None:
    adapter(base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"alpha_pattern": {"q_proj(": 3}}))
    with pytest.raises(UserError, match="is no pattern"):
        differences(base, tmp_path / "adapter")


def test_a_pattern_has_a_limit_of_time(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(base, tmp_path / "adapter", alpha_pattern={r"(\w*\.?)*q_proj": 3})
    monkeypatch.setattr("probes.weights.PATIENCE", 1e-9)
    with pytest.raises(UserError, match="takes too long"):
        differences(base, tmp_path / "adapter")


def test_whole_numbers_are_passed_over_where_they_are_the_same_alone() -> None:
    """Quantised weights are packed in them: what they hold would be left out, and nothing seem to have changed."""
    one = {"norm": noise(4), "places": torch.arange(4), "packed": torch.ones(4, 2, dtype=torch.int32)}
    assert differences(one, one).table.index.tolist() == ["norm"]
    with pytest.raises(UserError, match="'packed' is int32 and int32 and differs; packed weights cannot be compared"):
        differences(one, {**one, "packed": one["packed"] + 1})
    with pytest.raises(UserError, match="'packed' is int32 and float32"):
        overlap(one, {**one, "packed": one["packed"].float()}, one)
    with pytest.raises(UserError, match="no tensor of floating point"):
        differences({"places": torch.arange(4)}, {"places": torch.arange(4)})


def test_weights_that_are_nan_are_one_line() -> None:
    broken = noise(4, 4).index_fill(0, torch.tensor([1]), torch.nan)
    for ranks in (True, False):
        with pytest.raises(UserError, match="the checkpoint after holds NaN or infinity in w"):
            differences({"w": noise(4, 4)}, {"w": broken}, ranks=ranks)


def test_weights_in_8_bits_of_floating_point_are_read() -> None:
    before, after = (noise(4, 4, seed=seed).to(torch.float8_e4m3fn) for seed in (0, 1))
    found = differences({"w": before}, {"w": after})
    assert found.summary["norm"] == pytest.approx(float((after.float() - before.float()).norm()))
