"""The card of an SAE against straightforward computations, one text at a time with the model's own logits."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from probes.errors import UserError
from probes.sae import SAE
from probes.sae import card as module
from probes.sae.card import FLOORS, Card, check_model, fit_check, sae_card, similarity
from probes.sites import Site, on_site, reading
from tests.support.shell import shell
from tests.support.tiny import VOCAB, tiny_model

D = 32
SITE = Site(1)
ARCHITECTURES = ["llama", "gemma2", "gpt2", "recurrent_gemma"]  # padding is seen by the last


def random_sae(d_sae: int = 96, k: int = 6, site: Site = SITE) -> SAE:
    """A TopK SAE that rebuilds something and not all."""
    draw = torch.Generator().manual_seed(3)
    W_dec = torch.randn(d_sae, D, generator=draw)
    W_dec = W_dec / W_dec.norm(dim=-1, keepdim=True)
    b_dec = torch.randn(D, generator=draw) * 0.1
    return SAE(W_dec.T.clone() * 0.4, torch.zeros(d_sae), W_dec, b_dec, site, "topk", k=k)


def perfect_sae(site: Site = SITE) -> SAE:
    """x = relu(x) − relu(−x)."""
    both = torch.cat([torch.eye(D), -torch.eye(D)])
    return SAE(both.T.clone(), torch.zeros(2 * D), both, torch.zeros(D), site)


def zero_sae() -> SAE:
    one = random_sae()
    return replace(one, W_dec=torch.zeros_like(one.W_dec), b_dec=torch.zeros(D))


def some_texts(n: int = 9) -> tuple[list[list[int]], list[int]]:
    draw = torch.Generator().manual_seed(5)
    sizes = torch.randint(4, 30, (n,), generator=draw).tolist()
    texts = [torch.randint(3, VOCAB, (size,), generator=draw).tolist() for size in sizes]
    return texts, [max(2, size // 2) for size in sizes]


@torch.inference_mode()
def own_texts(lm: PreTrainedModel) -> tuple[list[list[int]], list[int]]:
    """Prompts that the model continues: of its own tokens it is nearly sure, so that ablation does harm."""
    texts = [text[:length] for text, length in zip(*some_texts(), strict=True)]
    lengths = [len(text) for text in texts]
    for _ in range(12):
        texts = [[*text, int(lm(input_ids=torch.tensor([text])).logits[0, -1].argmax())] for text in texts]
    return texts, lengths


@torch.inference_mode()
def slow_card(
    lm: PreTrainedModel, sae: SAE, texts: list[list[int]], lengths: list[int], steps: tuple[int | None, int | None]
) -> dict[str, float]:
    """The same figures, a text at a time, all logits kept."""
    activations, logits, places, targets = [], [], [], []
    for text in texts:
        with reading(lm, [sae.site]) as seen:
            logits.append(lm(input_ids=torch.tensor([text])).logits[0].float())
        activations.append(seen[sae.site].float())
    norms = torch.cat([h[1:] for h in activations]).norm(dim=-1)
    limit = 10 * norms.median()
    for text, length, h in zip(texts, lengths, activations, strict=True):
        first = 0 if steps[0] is None else steps[0] + length - 1
        stop = len(text) if steps[1] is None else steps[1] + length - 1
        places.append([p for p in range(max(0, first), min(stop, len(text))) if p > 0 and h[p].norm() <= limit])
        targets.append([p for p in places[-1] if p + 1 < len(text)])
    x = torch.cat([h[p] for h, p in zip(activations, places, strict=True)])
    z = sae.encode(x)
    out = sae.decode(z)
    mean = x.mean(0)
    alive = torch.cat([sae.encode(h[1:][h[1:].norm(dim=-1) <= limit]) for h in activations]).any(0)
    found = {
        "explained_variance": 1 - (x - out).square().sum() / (x - mean).square().sum(),
        "mse": (x - out).square().sum(-1).mean(),
        "cossim": nn.functional.cosine_similarity(x, out).mean(),
        "l2_norm_in": x.norm(dim=-1).mean(),
        "l2_norm_out": out.norm(dim=-1).mean(),
        "l2_ratio": (out.norm(dim=-1) / x.norm(dim=-1)).mean(),
        "relative_reconstruction_bias": out.square().sum(-1).mean() / (x * out).sum(-1).mean(),
        "l0": (z > 0).float().sum(-1).mean(),
        "l1": z.sum(-1).mean(),
        "frac_alive": alive.float().mean(),
        "freq_over_1_percent": ((z > 0).float().mean(0) > 0.01).float().mean(),
        "freq_over_10_percent": ((z > 0).float().mean(0) > 0.1).float().mean(),
        "total_tokens_eval_sparsity_variance": torch.tensor(len(x)),
        "total_tokens_eval_reconstruction": torch.tensor(sum(map(len, targets))),
    }

    def ce(every: list[Tensor]) -> Tensor:
        return torch.cat(
            [
                nn.functional.cross_entropy(one[t], torch.tensor(text)[[p + 1 for p in t]], reduction="none")
                for one, t, text in zip(every, targets, texts, strict=True)
                if t
            ]
        ).mean()

    found["ce_loss_without_sae"] = ce(logits)
    for name, put in {
        "sae": lambda h: sae.decode(sae.encode(h)),
        "ablation": torch.zeros_like,
        "mean_ablation": lambda h: mean.expand_as(h),
    }.items():
        changed = []
        for text, place in zip(texts, places, strict=True):

            def hook(h: Tensor, place: list[int] = place, put: Any = put) -> Tensor:
                new = h.clone()
                new[0, place] = put(h[0, place].float()).to(h.dtype)
                return new

            handle = on_site(lm, sae.site, hook)
            changed.append(lm(input_ids=torch.tensor([text])).logits[0].float())
            handle.remove()
        found[f"ce_loss_with_{name}"] = ce(changed)
        p = torch.cat([one[at] for one, at in zip(logits, places, strict=True)]).log_softmax(-1)
        q = torch.cat([one[at] for one, at in zip(changed, places, strict=True)]).log_softmax(-1)
        found[f"kl_div_with_{name}"] = nn.functional.kl_div(q, p, reduction="batchmean", log_target=True)
    for kind, with_without in (("ce_loss", found["ce_loss_without_sae"]), ("kl_div", torch.tensor(0.0))):
        for suffix in ("ablation", "mean_ablation"):
            ablated = found[f"{kind}_with_{suffix}"]
            score = (ablated - found[f"{kind}_with_sae"]) / (ablated - with_without)
            if ablated > with_without:
                found[f"{kind}_score" + ("_mean_ablation" if suffix == "mean_ablation" else "")] = score
    return {name: float(value) for name, value in found.items()}


def flat(card: Card) -> dict[str, int | float | None]:
    return {name: value for group in card.values() for name, value in group.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("steps", [(None, None), (0, 1), (-1, 2)])
@pytest.mark.parametrize("batch_tokens", [7, 2048])
def test_every_figure_is_that_of_a_slow_computation(
    architecture: str, steps: tuple[int | None, int | None], batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 8)
    lm, sae, (texts, lengths) = tiny_model(architecture), random_sae(), some_texts()
    found = flat(sae_card(lm, sae, texts, lengths, steps=steps, batch_tokens=batch_tokens))
    for name, expected in slow_card(lm, sae, texts, lengths, steps).items():
        assert found[name] == pytest.approx(expected, rel=2e-3, abs=2e-4), name
    assert found["l0"] == pytest.approx(6, abs=1)


def test_a_perfect_sae_loses_nothing() -> None:
    lm = tiny_model("llama")
    texts, lengths = own_texts(lm)
    for steps in ((None, None), (0, 1)):
        found = flat(sae_card(lm, perfect_sae(), texts, lengths, steps=steps))
        for name in ("explained_variance", "cossim", "l2_ratio", "relative_reconstruction_bias", "ce_loss_score",
                     "kl_div_score", "ce_loss_score_mean_ablation"):  # fmt: skip
            assert found[name] == pytest.approx(1, abs=1e-4), name
        assert found["ce_loss_with_sae"] == pytest.approx(found["ce_loss_without_sae"], abs=1e-5)
        assert found["mse"] == pytest.approx(0, abs=1e-8) and found["kl_div_with_sae"] == pytest.approx(0, abs=1e-6)
        assert found["l0"] == D
        assert fit_check(sae_card(lm, perfect_sae(), texts, lengths, steps=steps)) == []


def test_an_sae_that_gives_nothing_is_an_ablation() -> None:
    lm = tiny_model("llama")
    texts, lengths = own_texts(lm)
    card = sae_card(lm, zero_sae(), texts, lengths)
    found = flat(card)
    assert found["ce_loss_with_sae"] == found["ce_loss_with_ablation"] != found["ce_loss_without_sae"]
    assert found["kl_div_with_sae"] == found["kl_div_with_ablation"] and found["kl_div_score"] == 0
    assert found["ce_loss_score"] == 0 and found["l2_ratio"] == 0 and found["cossim"] == 0
    assert found["relative_reconstruction_bias"] is None
    said = fit_check(card)
    assert any("explained_variance is -" in line and "below 0.5" in line for line in said)


def test_massive_tokens_are_not_measured() -> None:
    """One token's embedding is made a hundred times as long: alone it would be nearly all of the variance."""
    lm = copy.deepcopy(tiny_model("llama"))
    with torch.no_grad():
        lm.get_input_embeddings().weight[7] *= 1000
    texts, lengths = some_texts()
    count = sum(text[1:].count(7) for text in texts)
    texts[0][2:2] = [7, 7]
    texts[1][1:1] = [7]
    lengths = [length + 2 for length in lengths]
    found = flat(sae_card(lm, random_sae(), texts, lengths))
    massive = count + 3
    assert found["massive_tokens_left_out"] == massive and found["first_tokens_left_out"] == len(texts)
    total = sum(map(len, texts)) - len(texts) - massive
    assert found["total_tokens_eval_sparsity_variance"] == total
    expected = slow_card(lm, random_sae(), texts, lengths, (None, None))
    for name in ("explained_variance", "mse", "ce_loss_with_sae", "kl_div_with_mean_ablation"):
        assert found[name] == pytest.approx(expected[name], rel=2e-3, abs=2e-4), name


def test_similarity_is_the_mean_largest_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 10)
    sae = random_sae(d_sae=33)
    for name, rows in (("encoder", sae.W_enc.T), ("decoder", sae.W_dec)):
        cosines = nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1)
        cosines.fill_diagonal_(-1)
        expected = float(cosines.max(-1).values.mean())
        assert similarity(sae)[f"average_max_{name}_cosine_sim"] == pytest.approx(expected, abs=1e-5)


class Largest(TorchDispatchMode):
    """The most elements of a tensor with the vocabulary as its last dimension."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in torch.utils._pytree.tree_leaves(out):
            if isinstance(t, Tensor) and t.ndim and t.shape[-1] == self.vocabulary:
                self.rows = max(self.rows, t.numel() // self.vocabulary)
        return out


def test_no_more_logits_exist_than_a_chunk_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    texts, lengths = some_texts()
    with Largest(VOCAB) as seen:
        sae_card(tiny_model("llama"), random_sae(), texts, lengths)
    assert seen.rows == 4


def test_the_model_is_as_it_was_afterwards() -> None:
    lm, (texts, lengths) = tiny_model("llama"), some_texts()
    before = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in lm.modules()]
    sae_card(lm, random_sae(), texts, lengths)
    with pytest.raises(UserError, match="no position to measure"):
        sae_card(lm, random_sae(), [[5], [6]], [1, 1])
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in lm.modules()] == before


def test_an_sae_of_another_model_is_refused() -> None:
    lm, (texts, lengths) = tiny_model("llama"), some_texts()
    narrow = SAE(torch.zeros(16, 8), torch.zeros(8), torch.zeros(8, 16), torch.zeros(16), SITE, name="narrow")
    with pytest.raises(UserError, match="'narrow' reads 16 dimensions and LlamaForCausalLM has 32"):
        check_model(lm, narrow)
    with pytest.raises(UserError, match="layer 7 was given"):
        sae_card(lm, random_sae(site=Site(7)), texts, lengths)
    with pytest.raises(UserError, match="no texts"):
        sae_card(lm, random_sae(), [], [])


def test_what_is_below_a_floor_is_told() -> None:
    lm = tiny_model("llama")
    texts, lengths = own_texts(lm)
    card = sae_card(lm, perfect_sae(), texts, lengths)
    assert set(FLOORS) == {(group, name) for group, name in FLOORS if name in card[group]}
    assert fit_check(card, {("sparsity", "l0"): 100.0}) == ["l0 is 32, below 100"]
    card["model_performance_preservation"]["ce_loss_score"] = None
    assert len(fit_check(card)) == 1 and "not defined" in fit_check(card)[0]
    card["reconstruction_quality"]["explained_variance"] = float("nan")
    assert len(fit_check(card)) == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--sae", "no/such/folder/at/all"), "no/such/folder/at/all"),
        (("--tokens", "0"), "tokens 0"),
        (("--batch-tokens", "0"), "batch-tokens 0"),
        (("--sources", "organsim"), "did you mean organism"),
    ],
)
def test_mistakes_are_one_line(changed: tuple[str, str], said: str, tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    sae = random_sae()
    save_file({n: t.contiguous() for n, t in sae.tensors().items()}, tmp_path / "sae_weights.safetensors")
    config = {
        "architecture": "topk",
        "d_in": D,
        "d_sae": 96,
        "k": 6,
        "metadata": {"hook_name": "blocks.1.hook_resid_post"},
    }
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    given = ("sae", "card", "--sae", str(tmp_path), "--model", str(tiny_folder), "--device", "cpu", *changed)
    code, _, err = shell(*given)
    assert code == 2 and said in err and err.count("\n") == 1
    config["d_in"] = 16
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
