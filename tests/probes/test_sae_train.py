"""Training SAEs: what was interrupted ends at the same bits, SAELens reads what is saved, mistakes are one line."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from probes.capture import capture
from probes.errors import UserError
from probes.sae import SAE
from probes.sae import cache as sae_cache
from probes.sae import train as sae_train
from probes.sae.cache import Cached, cache_activations
from probes.sae.control import gaussian, spectrum
from probes.sae.estimate import estimate
from probes.sae.train import ARCHITECTURES, CONFIG, CONTROL, STATE, WEIGHTS, Recipe, saelens, train
from probes.sites import Site
from tests.support.shell import shell
from tests.support.tiny import VOCAB, tiny_model

SITE = Site(1)
SMALL = Recipe(d_sae=48, k=4, epochs=3, batch=64, lr=3e-3, warmup=2, dead_after=2)
ABOUT = {"model": "0" * 64, "sources": "random"}


def some_texts(n: int = 24, seed: int = 0) -> tuple[list[list[int]], list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(8, 40, (n,), generator=generator).tolist()
    texts = [torch.randint(3, VOCAB, (length,), generator=generator).tolist() for length in lengths]
    return texts, [max(1, length // 2) for length in lengths]


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Cached:
    texts, lengths = some_texts()
    return cache_activations(
        tiny_model("llama"), texts, lengths, SITE, tmp_path_factory.mktemp("cache") / "a", identity={}
    )


class Killed(Exception):
    pass


def kill_after(steps: int) -> Any:
    def told(step: int, loss: float, tokens_per_second: float) -> None:
        if step + 1 == steps:
            raise Killed

    return told


def same_files(a: Path, b: Path) -> None:
    for name in (WEIGHTS, CONFIG):
        assert (a / name).read_bytes() == (b / name).read_bytes()


# --- the cache ---


def test_cached_activations_are_those_of_a_plain_capture_without_first_tokens(cached: Cached) -> None:
    texts, lengths = some_texts()
    plain = capture(tiny_model("llama"), texts, [SITE], lengths=lengths)
    assert plain is not None
    order = torch.tensor([lengths[r] for r in plain.row.tolist()])
    wanted = plain.values[SITE][plain.step != 1 - order]
    assert len(cached) == len(wanted) == sum(map(len, texts)) - len(texts)
    found = cached.rows(torch.arange(len(cached)))
    torch.testing.assert_close(found.sum(0), wanted.sum(0), rtol=1e-2, atol=0.5)
    sort = lambda x: x[x[:, 0].argsort()]  # noqa: E731
    torch.testing.assert_close(sort(found)[:, 0], sort(wanted)[:, 0], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(cached.mean, found.mean(0), rtol=1e-3, atol=1e-3)
    norms = found.norm(dim=-1)
    assert cached.facts["mean_norm"] == pytest.approx(float(norms.mean()), rel=1e-3)
    assert float((norms * cached.scale).mean()) == pytest.approx(math.sqrt(32), rel=1e-3)
    assert cached.facts["first"] == len(texts) and cached.facts["massive"] == 0


def test_massive_tokens_are_left_out_and_their_share_of_the_variance_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sae_cache, "CHUNK_TOKENS", 100)
    texts, lengths = some_texts()
    plain = capture(tiny_model("llama"), texts, [SITE], lengths=lengths)
    assert plain is not None
    first = plain.step == 1 - torch.tensor([lengths[r] for r in plain.row.tolist()])
    norms = plain.values[SITE].norm(dim=-1)
    factor = 1.2  # of the median: so that some tokens of a tiny model count as massive
    monkeypatch.setattr(sae_cache, "massive_limit", lambda n: factor * float(n.median()))
    cached = cache_activations(tiny_model("llama"), texts, lengths, SITE, tmp_path / "a", identity={})
    massive = (norms > factor * norms[~first].median()) & ~first
    assert 0 < int(massive.sum()) == cached.facts["massive"]
    assert len(cached) == len(norms) - int(massive.sum()) - len(texts)
    assert float(cached.rows(torch.arange(len(cached))).norm(dim=-1).max()) <= cached.facts["massive_above"] * 1.001
    x = plain.values[SITE].double()
    squared = (x - x.mean(0)).square().sum(-1)
    for name, left_out in (("massive", massive), ("first", first)):
        share = float(squared[left_out].sum() / squared.sum())
        assert cached.facts[f"variance_of_{name}"] == pytest.approx(share, rel=1e-2)


def test_an_interrupted_capture_goes_on_chunk_by_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sae_cache, "CHUNK_TOKENS", 100)
    lm, (texts, lengths) = tiny_model("llama"), some_texts()
    whole = cache_activations(lm, texts, lengths, SITE, tmp_path / "whole", identity={})
    assert len(list((tmp_path / "whole").glob("0*"))) > 3

    def told(done: int, total: int) -> None:
        assert total == sum(map(len, texts))
        if done > 200:
            raise Killed

    with pytest.raises(Killed):
        cache_activations(lm, texts, lengths, SITE, tmp_path / "cut", identity={}, progress=told)
    done = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cut").glob("0*")}
    assert 0 < len(done) < len(list((tmp_path / "whole").glob("0*")))
    (tmp_path / "cut" / ".00009").mkdir()  # as a killed process leaves it
    cut = cache_activations(lm, texts, lengths, SITE, tmp_path / "cut", identity={})
    assert all((tmp_path / "cut" / name).stat().st_mtime_ns == time for name, time in done.items())
    every = torch.arange(len(whole))
    assert torch.equal(whole.rows(every), cut.rows(every)) and whole.facts == cut.facts
    for changed in (
        lambda: cache_activations(lm, texts[1:], lengths[1:], SITE, tmp_path / "cut", identity={}),
        lambda: cache_activations(lm, texts, lengths, Site(2), tmp_path / "cut", identity={}),
        lambda: cache_activations(lm, texts, lengths, SITE, tmp_path / "cut", identity={"model": "x"}),
    ):
        with pytest.raises(UserError, match="activations of other texts"):
            changed()


@pytest.mark.processor
def test_a_bf16_models_activations_are_kept_as_they_are(tmp_path: Path) -> None:
    lm = copy.deepcopy(tiny_model("llama")).to(torch.bfloat16)
    texts, lengths = some_texts(4)
    cached = cache_activations(lm, texts, lengths, SITE, tmp_path, identity={})
    assert {p.dtype for p in cached.pieces} == {torch.bfloat16}


def test_what_is_beyond_fp16_is_massive_or_refused(tmp_path: Path) -> None:
    lm = copy.deepcopy(tiny_model("llama"))
    texts, lengths = some_texts(6)
    with torch.no_grad():
        lm.get_input_embeddings().weight[texts[0][3]] *= 1e6
    cached = cache_activations(lm, texts, lengths, SITE, tmp_path / "a", identity={})
    assert cached.facts["massive"] == sum(text[1:].count(texts[0][3]) for text in texts)
    assert bool(cached.rows(torch.arange(len(cached))).isfinite().all()) and cached.facts["variance_of_massive"] > 0.9
    with torch.no_grad():
        lm.get_input_embeddings().weight[:] *= 1e6
    with pytest.raises(UserError, match="load the model in bfloat16"):
        cache_activations(lm, texts, lengths, SITE, tmp_path / "b", identity={})


# --- training ---


def test_all_activations_on_one_device_are_those_of_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sae_cache, "CHUNK_TOKENS", 100)
    cached = cache_activations(tiny_model("llama"), *some_texts(), SITE, tmp_path, identity={})
    assert len(cached.pieces) > 1 and len(cached) < sum(map(len, cached.pieces))
    assert torch.equal(cached.onto(torch.device("cpu")).float(), cached.rows(torch.arange(len(cached))))


def test_a_training_that_is_looked_at_seldom_ends_at_the_same_bits(
    cached: Cached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: activations lie on the device, and losses are read every few steps."""
    told: list[tuple[int, float]] = []
    train(cached, SMALL, tmp_path / "plain", about=ABOUT, on_step=lambda step, loss, _: told.append((step, loss)))
    monkeypatch.setattr(sae_train, "_on_device", lambda cached, device: cached.onto(device))
    monkeypatch.setitem(sae_train.LOOKS, "cpu", 5)
    seldom: list[tuple[int, float]] = []
    with pytest.raises(Killed):
        train(cached, SMALL, tmp_path / "seldom", about=ABOUT, save_every=0.0, on_step=kill_after(7))
    train(cached, SMALL, tmp_path / "seldom", about=ABOUT, on_step=lambda n, loss, _: seldom.append((n, loss)))
    same_files(tmp_path / "plain", tmp_path / "seldom")
    assert seldom == told[10:]  # of two looks the state was saved


@pytest.mark.parametrize(("architecture", "autocast"), [*((a, False) for a in ARCHITECTURES), ("topk", True)])
def test_a_resumed_training_is_equal_to_the_bit(
    architecture: str, autocast: bool, cached: Cached, tmp_path: Path
) -> None:
    recipe = Recipe(**{**vars(SMALL), "architecture": architecture, "autocast": autocast})
    steps = recipe.steps(len(cached))
    assert steps == 3 * (len(cached) // 64) > 12
    losses: list[float] = []

    def told(step: int, loss: float, tokens_per_second: float) -> None:
        losses.append(loss)

    train(cached, recipe, tmp_path / "whole", about=ABOUT, on_step=told)
    assert len(losses) == steps
    assert losses[-1] < losses[0] or architecture == "jumprelu"  # its sparsity loss rises with its coefficient
    for stop in (2, steps // 3 + 1, steps):
        with pytest.raises(Killed):
            train(cached, recipe, tmp_path / "cut", about=ABOUT, save_every=0.0, on_step=kill_after(stop))
        assert not (tmp_path / "cut" / CONFIG).exists()
    train(cached, recipe, tmp_path / "cut", about=ABOUT, save_every=0.0)
    same_files(tmp_path / "whole", tmp_path / "cut")
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == [CONFIG, WEIGHTS]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("half", [True, False])
def test_saelens_reads_what_was_saved_as_we_do(architecture: str, half: bool, cached: Cached, tmp_path: Path) -> None:
    recipe = Recipe(**{**vars(SMALL), "architecture": architecture})
    train(cached, recipe, tmp_path, about=ABOUT, metadata={"model_name": "tiny"}, half=half)
    theirs = saelens().SAE.load_from_disk(tmp_path)
    ours = SAE.load(tmp_path)
    assert theirs.dtype == torch.float32 and all(p.dtype == torch.float32 for p in theirs.parameters())
    assert theirs.cfg.normalize_activations == "none" and theirs.cfg.metadata.model_name == "tiny"
    assert theirs.cfg.metadata.hook_name == "blocks.1.hook_resid_post" and ours.site == SITE
    x = cached.rows(torch.arange(200))
    with torch.no_grad():
        z = theirs.encode(x)
        torch.testing.assert_close(ours.encode(x), z, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.decode(ours.encode(x)), theirs.decode(z), rtol=1e-4, atol=1e-3)
    error = (ours.decode(ours.encode(x)) - x).square().sum()
    assert 1 - float(error / (x - x.mean(0)).square().sum()) > (0.1 if architecture in ("topk", "standard") else -1)
    if architecture == "topk":
        assert float((z != 0).sum(-1).float().mean()) == pytest.approx(4, abs=0.2)
    torch.testing.assert_close(ours.W_dec.norm(dim=-1), torch.ones(48), rtol=2e-2, atol=2e-2)
    from safetensors.torch import load_file

    kinds = {name: t.dtype for name, t in load_file(tmp_path / WEIGHTS).items()}
    assert kinds["b_enc"] == torch.float32
    assert (kinds["W_enc"] in (torch.float16, torch.bfloat16)) == half
    made = json.loads((tmp_path / CONFIG).read_text())["metadata"]
    assert made["made"]["recipe"]["architecture"] == architecture and made["made"]["sources"] == "random"
    assert made["activations"]["kept"] == len(cached) and set(made["versions"]) == {"sae_lens", "torch"}


def test_the_saved_map_is_the_trained_one_on_unscaled_activations(cached: Cached, tmp_path: Path) -> None:
    """The loss that is told of the last step is that of the saved SAE, but for that step's own small update."""
    recipe = Recipe(**{**vars(SMALL), "epochs": 6})
    train(cached, recipe, tmp_path, about=ABOUT, half=False)
    sae = SAE.load(tmp_path)
    x = cached.rows(torch.arange(len(cached)))
    error = (sae.decode(sae.encode(x)) - x).square().sum()
    explained = 1 - float(error / (x - x.mean(0)).square().sum())
    said = json.loads((tmp_path / CONFIG).read_text())["metadata"]["training"]["explained_variance"]
    assert explained == pytest.approx(said, abs=0.1) and explained > 0.3


@pytest.mark.parametrize("epochs", [3, 12])
def test_a_batchtopk_sae_fires_as_often_as_it_was_trained_to(epochs: int, cached: Cached, tmp_path: Path) -> None:
    recipe = Recipe(**{**vars(SMALL), "architecture": "batchtopk", "epochs": epochs})
    train(cached, recipe, tmp_path, about=ABOUT, half=False)
    sae = SAE.load(tmp_path)
    x = cached.rows(torch.arange(len(cached)))
    z = sae.encode(x)
    assert float((z > 0).sum(-1).float().mean()) == pytest.approx(recipe.k, rel=0.1)
    explained = 1 - float((sae.decode(z) - x).square().sum() / (x - x.mean(0)).square().sum())
    said = json.loads((tmp_path / CONFIG).read_text())["metadata"]["training"]["explained_variance"]
    assert explained == pytest.approx(said, abs=0.1)


def test_a_finished_folder_is_left_and_another_trainings_is_refused(cached: Cached, tmp_path: Path) -> None:
    train(cached, SMALL, tmp_path / "a", about=ABOUT)
    before = (tmp_path / "a" / WEIGHTS).stat().st_mtime_ns
    train(cached, SMALL, tmp_path / "a", about=ABOUT, on_step=kill_after(1))
    assert (tmp_path / "a" / WEIGHTS).stat().st_mtime_ns == before
    with pytest.raises(Killed):
        train(cached, SMALL, tmp_path / "b", about=ABOUT, save_every=0.0, on_step=kill_after(2))
    assert (tmp_path / "b" / STATE).is_file()
    other = Recipe(**{**vars(SMALL), "lr": 1e-4})
    for folder in ("a", "b"):
        with pytest.raises(UserError, match="another lr; give another folder"):
            train(cached, other, tmp_path / folder, about=ABOUT)
        with pytest.raises(UserError, match="another sources, half; give"):
            train(cached, SMALL, tmp_path / folder, about={**ABOUT, "sources": "x"}, half=False)
    texts, lengths = some_texts(20, seed=1)
    elsewhere = cache_activations(tiny_model("llama"), texts, lengths, SITE, tmp_path / "c", identity={})
    with pytest.raises(UserError, match="other activations"):
        train(elsewhere, SMALL, tmp_path / "b", about=ABOUT)
    (tmp_path / "b" / STATE).write_bytes(b"cut")
    with pytest.raises(UserError, match="broken"):
        train(cached, SMALL, tmp_path / "b", about=ABOUT)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / CONFIG).write_text("{}")
    with pytest.raises(UserError, match="not trained here"):
        train(cached, SMALL, tmp_path / "d", about=ABOUT)


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    recipe = Recipe(lr=1.0, warmup=10)
    rates = [recipe.rate(step, 1000) for step in range(1000)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert set(rates[10:801]) == {1.0}
    assert rates[800:] == pytest.approx([(1000 - n) / 200 for n in range(800, 1000)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "topq"}, "unknown architecture 'topq'; did you mean topk"),
        ({"k": 0}, "k = 0"),
        ({"lr": -1.0}, "lr = -1"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"d_sae": 16, "k": 32}, "16 latents and k = 32"),
        ({"lr": float("inf")}, "lr = inf was given; give a finite number"),
        ({"d_sae": -1}, "d_sae = -1 was given; give at least 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_recipes_out_of_range_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Recipe(**changes)


def test_too_few_tokens_and_unreadable_sites_are_refused(cached: Cached, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a batch has 4096"):
        train(cached, Recipe(d_sae=48, k=4, batch=4096), tmp_path, about=ABOUT)
    lm, (texts, lengths) = tiny_model("llama"), some_texts(3)
    with pytest.raises(UserError, match="'pattern' is none"):
        cache_activations(lm, texts, lengths, Site(1, "pattern"), tmp_path / "a", identity={})
    with pytest.raises(UserError, match="layer 9 was given"):
        cache_activations(lm, texts, lengths, Site(9), tmp_path / "a", identity={})
    with pytest.raises(UserError, match="no texts"):
        cache_activations(lm, [], [], SITE, tmp_path / "a", identity={})
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="texts of one token"):
        cache_activations(lm, [[3], [4]], [1, 1], SITE, tmp_path / "a", identity={})


# --- its controls and its cost ---


def test_controls_are_components_and_noise_of_the_same_covariance(cached: Cached, tmp_path: Path) -> None:
    x = cached.rows(torch.arange(len(cached))).double()
    values = torch.linalg.svdvals(x - x.mean(0)).square()
    found = spectrum(cached)
    assert found.explained(4) == pytest.approx(float(values[:4].sum() / values.sum()), rel=1e-3)
    assert found.explained(32) == pytest.approx(1)
    noise = gaussian(cached, found, 0)
    drawn = torch.cat([noise.rows(torch.arange(n, n + 500)) for n in range(0, 20_000, 500)]).double()
    assert len(noise) == len(cached) and noise.scale == cached.scale
    assert float((drawn.T.cov() - x.T.cov()).norm() / x.T.cov().norm()) < 0.05
    assert torch.equal(noise.rows(torch.arange(9)), noise.rows(torch.arange(9)))
    train(noise, SMALL, tmp_path / "noise", about=ABOUT)
    train(cached, SMALL, tmp_path / "real", about=ABOUT)
    real, control = (
        json.loads((tmp_path / name / CONFIG).read_text())["metadata"]["training"]["explained_variance"]
        for name in ("real", "noise")
    )
    assert real > control  # some hundred tokens of a vocabulary of few are learnt by heart, noise is not


def test_what_a_training_takes_is_told() -> None:
    needed = estimate(tiny_model("llama"), SITE, SMALL, 10_000, 16, trainings=2)
    assert needed.disk == 2 * 10_000 * 32 + 2 * 4 * 4 * (2 * 32 * 48 + 48 + 32)
    assert needed.capture_seconds > 0 and needed.training_seconds > 0 and "0.74 MB of disk" in needed.line
    assert needed.seconds == needed.capture_seconds + needed.training_seconds


# --- the command ---


def arguments(model: Path, out: Path, *more: str) -> tuple[str, ...]:
    return (
        "sae", "train", "--model", str(model), "--layer", "1", "--sources", "organism+samples", "--tokens", "4000",
        "--context", "16", "--width", "48", "--k", "4", "--epochs", "2", "--batch", "256", "--out", str(out),
        "--device", "cpu", "--dtype", "float32", *more,
    )  # fmt: skip


def test_the_command_trains_saves_and_measures(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sae"
    code, said, err = shell(*arguments(tiny_folder, out, "--dry-run", "--control"))
    assert code == 0 and "to read the activations" in said and not out.exists()
    code, said, err = shell(*arguments(tiny_folder, out, "--control", "--json"))
    assert code == 0, err
    result = json.loads(said)
    assert result["sae"] == str(out) and result["made"]["sources"] == "organism+samples"
    assert sorted(p.name for p in out.iterdir()) == ["README.md", CONFIG, CONTROL, WEIGHTS]
    assert SAE.load(out).d_sae == SAE.load(out / CONTROL).d_sae == 48
    assert set(result["controls"]) == {"components", "gaussian"} and result["controls"]["components"]["rank"] == 4
    before = (out / WEIGHTS).read_bytes()
    code, said, _ = shell(*arguments(tiny_folder, out, "--control"))
    assert code == 0 and f"elicit sae card --sae {out}" in " ".join(said.split())
    assert (out / WEIGHTS).read_bytes() == before
    # what a training leaves that is stopped between its last file and the tidying up
    readme = (out / "README.md").read_text()
    (out / "README.md").unlink()
    (out / "activations" / "1.resid_post").mkdir(parents=True)
    for left in (out / "activations" / "texts.jsonl", out / STATE, out / CONTROL / STATE):
        left.write_text("")
    code, _, err = shell(*arguments(tiny_folder, out, "--control"))
    assert code == 0, err
    assert sorted(p.name for p in out.iterdir()) == ["README.md", CONFIG, CONTROL, WEIGHTS]
    assert not (out / CONTROL / STATE).exists() and (out / "README.md").read_text() == readme
    assert "4 principal components explain" in said and f"--set sae={out}" in " ".join(said.split())
    readme = (out / "README.md").read_text()
    assert "elicit sae train --model" in readme and "--sources organism+samples --tokens 4000" in readme
    assert "Control: trained alike on noise" in readme and " --control" in readme
    given = ("sae", "card", "--sae", str(out), "--model", str(tiny_folder), "--sources", "organism+samples",
             "--tokens", "4000", "--context", "16", "--device", "cpu", "--dtype", "float32")  # fmt: skip
    code, said, err = shell(*given, "--json")
    assert code == 0, err
    cards = json.loads(said)["cards"]
    assert list(cards) == ["steering, direct", "steering, CoT", "plain text"]
    assert cards["steering, direct"]["sparsity"]["l0"] == pytest.approx(4, abs=0.5)
    assert json.loads((out / "card.json").read_text())["cards"] == cards
    assert "| explained variance |" in (out / "README.md").read_text()
    code, said, _ = shell(*given)
    assert code == 0 and "explained variance" in said and "plain text" in said


def test_an_interrupted_command_ends_at_the_same_bits(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    shell(*arguments(tiny_folder, tmp_path / "whole", "--activations", str(kept)))
    assert (kept / "texts.jsonl").is_file() and (kept / "1.resid_post" / "cache.json").is_file()
    update = sae_train._update

    def dying(*given: Any) -> Any:
        if given[5] == 9:
            raise KeyboardInterrupt
        return update(*given)

    monkeypatch.setattr(sae_train, "_update", dying)
    code, _, err = shell(*arguments(tiny_folder, tmp_path / "cut"))
    assert code == 130 and "resumes from there" in err
    assert not (tmp_path / "cut" / CONFIG).exists()
    monkeypatch.setattr(sae_train, "_update", update)
    assert shell(*arguments(tiny_folder, tmp_path / "cut"))[0] == 0
    same_files(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--layer", "40"), "layer 40 was given"),
        (("--sources", "organsim"), "did you mean organism"),
        (("--tokens", "0"), "tokens 0"),
        (("--k", "0"), "k = 0"),
        (("--architecture", "gated"), "unknown architecture 'gated'"),
        (("--point", "resid"), "unknown hook point 'resid'"),
        (("--point", "pattern"), "patterns can be read and not written"),
        (("--model", "smolm2-135m"), "did you mean smollm2-135m"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    changed: tuple[str, str], said: str, tiny_folder: Path, tmp_path: Path
) -> None:
    code, _, err = shell(*arguments(tiny_folder, tmp_path / "out", *changed))
    assert code == 2 and said in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_standard_sae_may_have_fewer_latents_than_k() -> None:
    """Which says nothing of one: as many latents fire as the sparsity loss leaves."""
    assert Recipe(architecture="standard", d_sae=16).d_sae == 16
    with pytest.raises(UserError, match="16 latents and k = 32 were given"):
        Recipe(architecture="topk", d_sae=16)


def test_noise_is_drawn_wherever_it_is_trained_on(cached: Cached) -> None:
    """A GPU was given the activations themselves in its place, so that the control was the training once more."""
    noise = gaussian(cached, spectrum(cached), 0)
    assert sae_train._on_device(noise, torch.device("cuda")) is None
    rows = torch.arange(len(cached))
    assert noise.drawn and not cached.drawn and not torch.equal(noise.rows(rows), cached.rows(rows))
