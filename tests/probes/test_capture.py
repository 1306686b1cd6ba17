"""Captured activations against `output_hidden_states`, `output_attentions`, TransformerLens, and themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from elicit.decoding import Branching, StopRule, decode
from elicit.models import Model
from probes.activations import Activations, shards
from probes.capture import capture, recording
from probes.errors import UserError
from probes.sites import POINTS, Site, depth, on_site
from steering.backends.lens import TransformerLens
from tests.support.tiny import ARCHITECTURES, VOCAB, tiny_model

PROMPTS = [[5, 9, 3], [7, 1, 2, 8, 40, 41, 42, 43, 44, 45], [11] * 6, [3]]
# `output_attentions` and bloom's sublayers are out of reach there; see probes.sites.
WITH_SUBLAYERS = [a for a in ARCHITECTURES if a != "bloom"]


def stream(lm: PreTrainedModel) -> list[Site]:
    return [Site(0, "resid_pre")] + [Site(layer) for layer in range(depth(lm))]


def hidden(lm: PreTrainedModel, ids: list[int]) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return lm(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_stream_equals_output_hidden_states(architecture: str) -> None:
    """Batched with padding, against each prompt alone; the last of `hidden_states` is normed and not compared."""
    lm = tiny_model(architecture)
    acts = capture(lm, PROMPTS, stream(lm), batch_tokens=24)
    assert acts is not None and len(acts) == sum(map(len, PROMPTS))
    for row, ids in enumerate(PROMPTS):
        expected = hidden(lm, ids)
        for i, site in enumerate(stream(lm)[:-1]):
            torch.testing.assert_close(acts.at(site, row=row), expected[i][0], rtol=1e-4, atol=1e-4)
        assert acts.step[acts.row == row].tolist() == list(range(1 - len(ids), 1))


@pytest.mark.parametrize("architecture", WITH_SUBLAYERS)
def test_sublayers_add_up_to_the_stream(architecture: str) -> None:
    lm = tiny_model(architecture)
    sites = [Site(1, p) for p in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    acts = capture(lm, PROMPTS, sites)
    assert acts is not None
    pre, attention, mlp, post = (acts.values[s] for s in sites)
    torch.testing.assert_close(pre + attention + mlp, post, rtol=1e-4, atol=1e-4)
    assert float(attention.norm()) > 0 and float(mlp.norm()) > 0


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gpt2", "gpt_neox", "bloom"])
def test_while_generating_equals_one_forward_over_the_text(architecture: str) -> None:
    """Branches, padding, and rows that finish and are dropped."""
    lm = tiny_model(architecture)
    sites = [Site(0, "resid_pre"), Site(2)]
    free = decode(lm, PROMPTS, Branching(3).policy([""] * 4, VOCAB), max_new_tokens=8, stop=StopRule(frozenset()))
    ends = frozenset(int(branches[1].tokens[3]) for branches in free)
    with recording(lm, sites) as recorder:
        out = decode(
            lm, PROMPTS, Branching(3).policy([""] * 4, VOCAB), max_new_tokens=8, stop=StopRule(ends), recorder=recorder
        )
    acts = recorder.activations()
    texts, lengths, names = [], [], []
    for row, branches in enumerate(out):
        for branch, generation in enumerate(branches):
            texts.append(PROMPTS[row] + generation.tokens.tolist()[:-1] if generation.finish == "length" else
                         PROMPTS[row] + generation.tokens.tolist())  # fmt: skip
            lengths.append(len(PROMPTS[row]))
            names.append((row, branch))
    whole = capture(lm, texts, sites, lengths=lengths)
    assert whole is not None
    compared = 0
    for i, (row, branch) in enumerate(names):
        own = (acts.row == row) & (acts.branch == branch) & (acts.step > 0)
        for step in whole.step[whole.row == i].tolist():
            here = own & (acts.step == step) if step > 0 else (acts.row == row) & (acts.step == step)
            if step > 0 and not here.any():
                continue  # the last token of a branch that ended: chosen, never read
            assert int(here.sum()) == 1
            for site in sites:
                there = (whole.row == i) & (whole.step == step)
                torch.testing.assert_close(acts.values[site][here], whole.values[site][there], rtol=1e-3, atol=1e-3)
            compared += 1
    assert compared > 60


def test_steps_and_last_select() -> None:
    lm = tiny_model("llama")
    everything = capture(lm, PROMPTS, [Site(1)], lengths=[2, 4, 6, 1])
    some = capture(lm, PROMPTS, [Site(1)], lengths=[2, 4, 6, 1], steps=(-1, 2))
    final = capture(lm, PROMPTS, [Site(1)], last=1)
    assert everything is not None and some is not None and final is not None
    assert set(some.step.tolist()) == {-1, 0, 1}
    kept = (everything.step >= -1) & (everything.step < 2)
    torch.testing.assert_close(some.values[Site(1)], everything.values[Site(1)][kept])
    assert len(final) == 4 and set(final.step.tolist()) == {0}


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
def test_patterns_equal_output_attentions(architecture: str) -> None:
    lm = tiny_model(architecture)
    site = Site(1, "pattern")
    acts = capture(lm, PROMPTS, [site, Site(0)])
    assert acts is not None
    before = lm.config._attn_implementation
    lm.set_attn_implementation("eager")
    try:
        for row, ids in enumerate(PROMPTS):
            with torch.inference_mode():
                expected = lm(input_ids=torch.tensor([ids]), output_attentions=True).attentions[1][0]
            for q in range(len(ids)):
                got = acts.patterns[site][(row, 0, q - len(ids) + 1)]
                assert got.shape == (4, q + 1)
                torch.testing.assert_close(got, expected[:, q, : q + 1], rtol=1e-4, atol=1e-5)
    finally:
        lm.set_attn_implementation(before)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gpt2"])
def test_every_point_equals_the_cache_of_transformer_lens(architecture: str, tiny: Model) -> None:
    lm = tiny_model(architecture)
    bridge = TransformerLens(lm, tiny.tokenizer).bridge
    sites = [Site(layer, point) for layer in (0, 2) for point in POINTS]
    ids = PROMPTS[1]
    acts = capture(lm, [ids], sites)
    assert acts is not None
    with torch.no_grad():
        _, cache = bridge.run_with_cache(torch.tensor([ids]))
    for site in sites:
        if site.point == "pattern":
            expected = cache[f"blocks.{site.layer}.attn.hook_pattern"][0]
            for q in range(len(ids)):
                got = acts.patterns[site][(0, 0, q - len(ids) + 1)]
                torch.testing.assert_close(got, expected[:, q, : q + 1], rtol=1e-4, atol=1e-5)
        else:
            expected = cache[f"blocks.{site.layer}.hook_{site.point}"][0]
            torch.testing.assert_close(acts.values[site], expected, rtol=1e-4, atol=1e-4)


def test_layers_after_the_last_site_are_not_run() -> None:
    lm = tiny_model("llama")
    ran: list[int] = []
    handles = [on_site(lm, Site(layer, "resid_pre"), lambda _, layer=layer: ran.append(layer)) for layer in range(4)]
    try:
        early = capture(lm, PROMPTS, [Site(1), Site(0, "mlp_out")])
        assert set(ran) == {0, 1}
        late = capture(lm, PROMPTS, [Site(3), Site(1), Site(0, "mlp_out")])
        assert set(ran) == {0, 1, 2, 3}
    finally:
        for handle in handles:
            handle.remove()
    assert early is not None and late is not None
    assert torch.equal(early.values[Site(1)], late.values[Site(1)])


def test_patterns_while_generating() -> None:
    lm = tiny_model("llama")
    site = Site(2, "pattern")
    with recording(lm, [site]) as recorder:
        out = decode(
            lm, PROMPTS, Branching(2).policy([""] * 4, VOCAB), max_new_tokens=4, stop=StopRule(frozenset()),
            recorder=recorder,
        )  # fmt: skip
    text = PROMPTS[1] + out[1][1].tokens.tolist()[:-1]
    whole = capture(lm, [text], [site], lengths=[len(PROMPTS[1])])
    assert whole is not None
    for step in range(1, 4):
        got = recorder.activations().patterns[site][(1, 1, step)]
        torch.testing.assert_close(got, whole.patterns[site][(0, 0, step)], rtol=1e-4, atol=1e-5)
    assert lm.config._attn_implementation != "eager"


def test_shards_hold_what_memory_holds(tmp_path: Path) -> None:
    lm = tiny_model("llama")
    sites = [Site(0), Site(3)]
    memory = capture(lm, PROMPTS * 5, sites, batch_tokens=24)
    assert capture(lm, PROMPTS * 5, sites, batch_tokens=24, out=tmp_path / "acts") is None
    back = Activations.open(tmp_path / "acts")
    assert memory is not None
    for site in sites:
        assert torch.equal(back.values[site], memory.values[site])
    assert torch.equal(back.row, memory.row) and torch.equal(back.step, memory.step)
    with pytest.raises(UserError, match="holds a capture already"):
        capture(lm, PROMPTS, sites, out=tmp_path / "acts")


def test_a_broken_or_unfinished_capture_is_refused(tmp_path: Path) -> None:
    lm = tiny_model("llama")
    with pytest.raises(UserError, match="no finished capture"):
        Activations.open(tmp_path)

    def interrupted() -> None:
        with recording(lm, [Site(0)], out=tmp_path / "cut"):
            lm(input_ids=torch.tensor([PROMPTS[0]]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(UserError, match="no finished capture"):
        Activations.open(tmp_path / "cut")
    capture(lm, PROMPTS, [Site(0)], out=tmp_path / "good")
    file = next((tmp_path / "good").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match="broken"):
        list(shards(tmp_path / "good"))


def test_a_sink_that_fails_ends_the_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("probes.activations.Shards._write", full)
    with pytest.raises(OSError, match="No space"):
        capture(tiny_model("llama"), PROMPTS, [Site(0)], out=tmp_path / "full")
    assert not list(tmp_path.glob("full/*.json"))


def test_hooks_are_gone_afterwards() -> None:
    lm = tiny_model("llama")

    def hooks() -> list[int]:  # transformers leaves hooks of its own where hidden states were asked for
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.modules()]

    before = hooks()
    with pytest.raises(UserError, match="layer 9"), recording(lm, [Site(0), Site(9)]):
        pass
    capture(lm, PROMPTS, stream(lm))
    assert hooks() == before


@pytest.mark.parametrize(
    ("architecture", "site", "word"),
    [
        ("llama", Site(4), "4 layers"),
        ("bloom", Site(0, "mlp_out"), "mlp_out"),
    ],
)
def test_sites_that_the_model_lacks_are_refused(architecture: str, site: Site, word: str) -> None:
    with pytest.raises(UserError, match=word):
        capture(tiny_model(architecture), PROMPTS, [site])


def test_a_site_is_written_and_read_alike() -> None:
    for site in (Site(3), Site(12, "attn_out"), Site(0, "pattern")):
        assert Site.parse(str(site)) == site
    for wrong, word in (("12", "layer.point"), ("1.resid_pots", "resid_post")):
        with pytest.raises(UserError, match=word):
            Site.parse(wrong)


@pytest.mark.processor
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shards_of_several_batches_are_whole(tmp_path: Path, dtype: torch.dtype) -> None:
    lm = tiny_model("llama")
    capture(lm, PROMPTS * 9, [Site(0), Site(2)], batch_tokens=24, dtype=dtype, out=tmp_path / "a")
    memory = capture(lm, PROMPTS * 9, [Site(0), Site(2)], batch_tokens=24, dtype=dtype)
    assert memory is not None and len(list((tmp_path / "a").glob("*.safetensors"))) == 1
    back = Activations.open(tmp_path / "a")
    assert back.values[Site(2)].dtype == dtype and torch.equal(back.values[Site(2)], memory.values[Site(2)])


def test_files_are_plain_safetensors(tmp_path: Path) -> None:
    lm = tiny_model("llama")
    capture(lm, PROMPTS, [Site(0)], out=tmp_path / "a")
    data = load_file(next((tmp_path / "a").glob("*.safetensors")))
    assert set(data) == {"row", "branch", "step", "0.resid_post"}
    save_file(data, tmp_path / "copy.safetensors")


def test_a_site_that_is_given_twice_is_read_once() -> None:
    lm = tiny_model("llama")
    with recording(lm, [Site(1), Site(0), Site(1)]) as recorder, torch.inference_mode():
        for ids in PROMPTS[:2]:
            lm(input_ids=torch.tensor([ids]), use_cache=False)
    acts = recorder.activations()
    assert list(acts.values) == [Site(1), Site(0)] and len(acts) == sum(map(len, PROMPTS[:2]))
    torch.testing.assert_close(acts.at(Site(1), row=1), hidden(lm, PROMPTS[1])[2][0])


@pytest.mark.parametrize(("texts", "lengths", "said"), [
    ([[1, 2, 3], [1, 2]], [1], "1 prompt lengths were given for 2 texts"),
    ([[1, -100, 3]], None, "a text holds the token id -100; give ids from 0 to 63"),
])  # fmt: skip
def test_texts_and_lengths_that_cannot_be(texts: list[list[int]], lengths: list[int] | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        capture(tiny_model("llama"), texts, [Site(1)], lengths=lengths)


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from probes.direct import DirectFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    file = DirectFile(Path(sys.argv[1]))
    file.write(np.zeros(100_000, dtype=np.uint8))
    file.close()
except OSError as error:
    print(error.strerror)
"""


def test_a_limit_of_size_is_told_as_what_it_is(tmp_path: Path) -> None:
    """A direct write that was cut short leaves a rest that is not aligned, of which the system only says "invalid"."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "File too large\n"
