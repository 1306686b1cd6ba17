"""Every row of the table of names, against the library whose names they are, on tiny random models."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from steering_vectors import SteeringVector
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from probes.capture import capture
from probes.errors import UserError
from probes.namings import NAMINGS, hidden_states, name_of, site_named
from probes.sae.load import load_sae
from probes.sites import STREAM, Site, adds_up, check_site
from steering.backends.lens import TransformerLens
from steering.formats import from_steering_vectors
from steering.hooks import attached
from tests.support.tiny import ARCHITECTURES, VOCAB, tiny_model

IDS = torch.tensor([[5, 9, 3, 7, 40, 41]])
MORE: dict[str, dict[str, Any]] = {
    "olmo2": ARCHITECTURES["llama"],
    "glm4": dict(ARCHITECTURES["llama"], partial_rotary_factor=0.5),
    "granite": dict(ARCHITECTURES["llama"], residual_multiplier=0.3),
    "mamba": dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=4, state_size=4, use_mambapy=False),
}
POST_NORMED = ["gemma2", "gemma3", "olmo2", "glm4"]
PLAIN = ["llama", "gpt2", "gpt_neox"]


@cache
def model(architecture: str) -> PreTrainedModel:
    if architecture in ARCHITECTURES:
        return tiny_model(architecture)
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(CONFIG_MAPPING[architecture](**MORE[architecture])).float().eval()
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 1.0 if "embed" in name else 0.25)
            elif "norm" in name:
                parameter.normal_(1, 0.3)
    return lm


def at(lm: PreTrainedModel, site: Site) -> Tensor:
    found = capture(lm, IDS.tolist(), [site])
    assert found is not None
    return found.values[site]


def apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / ours.norm())


@pytest.mark.parametrize("architecture", [*PLAIN, *POST_NORMED, "mamba", "gpt_oss", "granite"])
def test_hidden_states_of_transformers(architecture: str) -> None:
    lm = model(architecture)
    with torch.no_grad():
        theirs = lm(input_ids=IDS, output_hidden_states=True, use_cache=False).hidden_states
    layers = lm.config.num_hidden_layers
    for layer in range(layers):
        for site in (Site(layer, "resid_pre"), Site(layer)):
            lacking = site == Site(layers - 1) or (architecture == "mamba" and site == Site(0, "resid_pre"))
            if lacking and architecture != "mamba":
                with pytest.raises(UserError, match="after the final norm"):
                    name_of(site, "transformers", lm)
                continue
            if lacking and site.layer == 0:
                with pytest.raises(UserError, match="none of"):
                    name_of(site, "transformers", lm)
                continue
            name = name_of(site, "transformers", lm)
            number = int(re.fullmatch(r"hidden_states\[(\d+)\]", name)[1])  # type: ignore[index]
            assert number == layer + (site.point == "resid_post") - (architecture == "mamba")
            assert torch.equal(theirs[number][0], at(lm, site))
            assert torch.equal(at(lm, site_named(name, "transformers", lm)), at(lm, site))
            assert site_named(f"out.hidden_states[{number - len(theirs)}]", "transformers", lm) == site_named(
                name, "transformers", lm
            )
    with pytest.raises(UserError, match="after the final norm"):
        site_named("hidden_states[-1]", "transformers", lm)
    with pytest.raises(UserError, match=f"{len(theirs)} hidden states"):
        site_named(f"hidden_states[{len(theirs)}]", "transformers", lm)
    assert hidden_states(lm)[-1] is None and None not in hidden_states(lm)[:-1]


@pytest.mark.parametrize("architecture", [*PLAIN, *POST_NORMED])
def test_hook_points_of_transformer_lens(architecture: str, tiny: Any) -> None:
    lm = model(architecture)
    bridge = TransformerLens(lm, tiny.tokenizer).bridge
    with torch.no_grad():
        _, theirs = bridge.run_with_cache(IDS, return_type="logits")
    naming = NAMINGS["transformer-lens"]
    for layer in (0, 2):
        for point in STREAM:
            site = Site(layer, point)
            name = name_of(site, "transformer-lens", lm)
            assert name == f"blocks.{layer}.hook_{point}" and site_named(name, "transformer-lens") == site
            assert apart(at(lm, site), theirs[name][0]) < 1e-5
        for template, point in naming.also.items():
            name = template.format(layer)
            site = Site(layer, point)
            if template in naming.before_norm and architecture in POST_NORMED:
                assert apart(at(lm, site), theirs[name][0]) > 0.1  # it is the norm that lies between
                with pytest.raises(UserError, match=f"a norm follows the .*{layer}.{point} is after it"):
                    site_named(name, "transformer-lens", lm)
            else:
                assert site_named(name, "transformer-lens", lm) == site
                assert apart(at(lm, site), theirs[name][0]) < 1e-5


def test_a_hooked_transformer_has_the_same_names() -> None:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights

    lm = model("llama")
    config = HookedTransformerConfig(
        n_layers=4, d_model=32, n_ctx=64, d_head=8, n_heads=4, d_mlp=48, d_vocab=VOCAB, act_fn="silu", gated_mlp=True,
        n_key_value_heads=2, normalization_type="RMS", positional_embedding_type="rotary", rotary_adjacent_pairs=False,
        rotary_dim=8, final_rms=True, eps=lm.config.rms_norm_eps, original_architecture="LlamaForCausalLM",
        rotary_base=int(lm.config.rope_parameters["rope_theta"]), device="cpu",
    )  # fmt: skip
    hooked = HookedTransformer(config)
    weights = convert_llama_weights(lm, config)
    assert not hooked.load_state_dict(weights, strict=False).unexpected_keys
    with torch.no_grad():
        _, theirs = hooked.run_with_cache(IDS)
    for point in STREAM:
        site = Site(2, point)
        assert apart(at(lm, site), theirs[name_of(site, "transformer-lens")][0]) < 1e-5
    pattern = capture(lm, IDS.tolist(), [Site(2, "pattern")])
    assert pattern is not None
    ours = pattern.patterns[Site(2, "pattern")][0, 0, 0]
    torch.testing.assert_close(ours, theirs[name_of(Site(2, "pattern"), "transformer-lens")][0, :, -1])


@pytest.mark.parametrize(
    ("hook_name", "site"),
    [
        *((f"blocks.3.hook_{point}", Site(3, point)) for point in STREAM),
        ("model.layers.3", Site(3)),
        ("model.layers.3.output", Site(3)),
        ("transformer.h.3.input", Site(3, "resid_pre")),
    ],
)
def test_hook_names_of_saelens(hook_name: str, site: Site, tmp_path: Path) -> None:
    sae = StandardSAE(StandardSAEConfig(d_in=8, d_sae=16))
    sae.cfg.metadata.hook_name = hook_name
    sae.save_model(tmp_path)
    assert load_sae(tmp_path).site == site
    if hook_name.startswith("blocks."):
        assert name_of(site, "sae-lens") == hook_name


@pytest.mark.parametrize(
    ("hook_name", "words"),
    [
        ("blocks.3.attn.hook_z", "the heads' outputs before the output projection, which is no site"),
        ("blocks.3.hook_resid_mid", "the residual stream between attention and MLP"),
        ("blocks.3.ln2.hook_normalized", "a normalised input"),
        ("blocks.3.mlp.hook_in", "the input of the MLP"),
    ],
)
def test_what_is_no_site_is_refused_with_what_it_is(hook_name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        site_named(hook_name, "sae-lens")


@pytest.mark.parametrize("architecture", [*PLAIN, *POST_NORMED])
def test_modules_and_envoys(architecture: str) -> None:
    import nnsight

    lm = model(architecture)
    traced = nnsight.NNsight(copy.deepcopy(lm))  # it sets the forward of each module, and for good
    for point in STREAM:
        site = Site(2, point)
        path, _, end = name_of(site, "modules", lm).rpartition(".")
        seen: dict[str, Any] = {}
        module = lm.get_submodule(path)
        handles = [
            module.register_forward_pre_hook(lambda _, args, keep=seen: keep.update(input=args and args[0])),
            module.register_forward_hook(lambda _, __, output, keep=seen: keep.update(output=output)),
        ]
        with torch.no_grad():
            lm(input_ids=IDS, use_cache=False)
        for handle in handles:
            handle.remove()
        theirs = seen[end][0] if isinstance(seen[end], tuple) else seen[end]
        assert torch.equal(theirs[0], at(lm, site))
        assert site_named(f"{path}.{end}", "modules", lm) == site

        name = name_of(site, "nnsight", lm)
        assert site_named(name, "nnsight", lm) == site
        envoy = eval(name.rpartition(".")[0], {"model": traced})  # as a user would write it
        with torch.no_grad(), traced.trace(input_ids=IDS, use_cache=False):
            got = envoy.input.save() if point == "resid_pre" else envoy.output.save()
        assert ("[0]" in name.rpartition(".")[2]) == isinstance(got, tuple)
        assert torch.equal((got[0] if isinstance(got, tuple) else got)[0], at(lm, site))
    assert site_named(name_of(Site(2, "pattern"), "nnsight", lm), "nnsight", lm) == Site(2, "pattern")


def test_a_bracket_too_many_or_too_few_is_told() -> None:
    lm = model("llama")
    with pytest.raises(UserError, match=r"a row of the batch; write model.model.layers\[1\].output$"):
        site_named("model.model.layers[1].output[0]", "nnsight", lm)
    with pytest.raises(UserError, match=r"is a tuple; write model.model.layers\[1\].self_attn.output\[0\]$"):
        site_named("lm.model.layers[1].self_attn.output", "nnsight", lm)
    with pytest.raises(UserError, match=r"no module 'model.layers.9'"):
        site_named("model.layers.9", "modules", lm)
    with pytest.raises(UserError, match="expected the residual stream"):
        site_named("model.layers.1.self_attn.q_proj.output", "modules", lm)


@pytest.mark.parametrize("architecture", POST_NORMED)
def test_a_sublayer_before_its_norm_is_refused_by_name(architecture: str) -> None:
    lm = model(architecture)
    for point in ("attn_out", "mlp_out"):
        check_site(lm, Site(1, point))
    for name, naming in (
        ("model.layers.1.self_attn.output", "modules"),
        ("model.model.layers[1].mlp.output", "nnsight"),
        ("self_attn 1", "steering-vectors"),
        ("mlp 1", "steering-vectors"),
    ):
        with pytest.raises(UserError, match=f"in {type(lm).__name__} a norm follows the .* is after it"):
            site_named(name, naming, lm)
    with pytest.raises(UserError, match="a norm follows"):
        name_of(Site(1, "attn_out"), "steering-vectors", lm)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "glm4"])
@pytest.mark.parametrize("kind", ["decoder_block", "self_attn", "mlp"])
def test_layers_of_steering_vectors(architecture: str, kind: Any) -> None:
    lm = model(architecture)
    vector = SteeringVector({1: torch.randn(32, generator=torch.Generator().manual_seed(0))}, kind)
    if kind != "decoder_block" and architecture in POST_NORMED:
        with pytest.raises(UserError, match="a norm follows"):
            from_steering_vectors(vector, lm)
        return
    with torch.no_grad(), vector.apply(lm):
        theirs = lm(input_ids=IDS, use_cache=False).logits
    with torch.no_grad(), attached(lm, [from_steering_vectors(vector, lm)]):
        ours = lm(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_what_only_the_model_can_say_is_asked_of_it() -> None:
    lm = model("llama")
    assert site_named("decoder_block -1", "steering-vectors", lm) == Site(3)
    for name, naming, words in (
        ("decoder_block -1", "steering-vectors", "counted from the end; give the model"),
        ("mlp 1", "steering-vectors", "a norm follows it: give the model"),
        ("hidden_states[1]", "transformers", "give it as lm"),
        ("model.model.layers[1].output", "nnsight", "give it as lm"),
        ("blocks.1.hook_resid_post", "transformerlens", "transformer-lens"),
    ):
        with pytest.raises(UserError, match=words):
            site_named(name, naming)
    with pytest.raises(UserError, match="4 layers"):
        site_named("direction.4", "gguf", lm)
    with pytest.raises(UserError, match="gguf has no name for its resid_pre"):
        name_of(Site(1, "resid_pre"), "gguf")


def test_every_name_of_the_table_is_read_as_it_is_written() -> None:
    lm = model("llama")
    for naming in NAMINGS:
        for site in (Site(2, point) for point in (*STREAM, "pattern")):
            try:
                name = name_of(site, naming, lm)
            except UserError:
                continue
            read = site_named(name, naming, lm)
            assert read == site or (naming == "transformers" and (read, site) == (Site(1), Site(2, "resid_pre")))


def test_one_long_token_does_not_hide_what_does_not_add_up() -> None:
    """As a first token's stream may be, thousands of times longer than the others'."""
    torch.manual_seed(0)
    seen = {point: torch.randn(5, 32) for point in STREAM}
    seen["resid_pre"][0] *= 10_000
    seen["resid_post"] = seen["resid_pre"] + seen["attn_out"] + seen["mlp_out"]
    assert adds_up(seen)
    assert not adds_up({**seen, "mlp_out": seen["mlp_out"] * 1.3})
    swallowed = {**seen, "mlp_out": -seen["resid_pre"] - seen["attn_out"] + 0.1}
    swallowed["resid_post"] = (swallowed["resid_pre"] + swallowed["attn_out"]).bfloat16() + swallowed["mlp_out"]
    assert adds_up({name: h.float() for name, h in swallowed.items()})
