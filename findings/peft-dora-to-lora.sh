#!/usr/bin/env bash
# peft 0.21.2: convert_to_lora takes DoRA and LoRA with biases, and leaves the magnitudes and the biases out.
#
# Documented: it converts "PEFT methods that allow an equivalent conversion", those "that work by updating the base weight with a delta
# weight", as close as the rank allows; a layer says by supports_lora_conversion whether it can be, and a model of one that cannot is a
# TypeError. Methods that are not additive (OFT, BOFT, IA3, HRA) are refused so. Seen, at the full rank, where nothing is lost to the
# approximation: LoHa, LoKr, VeRA, DeLoRA come out to the sixth digit; DoRA, whose magnitudes rescale the base weight too, and LoRA with
# lora_bias=True, whose lora_B has a bias, say that they can be converted and come out as another model, without an error. All that is
# said is what plain LoRA is told as well: that it is a LoRA adapter already, and there is no need. For a user: a DoRA made into LoRA for a
# server that takes plain LoRA alone is not the trained model. What helps: merge it instead, or subtract the base from the merged weights
# and factor that.
# Output, 2026-11-29:
#     peft 0.21.2; how far logits are off after conversion at the full rank, and how far the base is
#     LoHa         0.00   2.81
#     LoKr         0.00   4.08
#     VeRA         0.00   1.41
#     DeLoRA       0.00   7.16
#     LoRA         0.00   3.62
#     DoRA         1.82   4.72
#     lora_bias    2.22   6.97
#     refused: BOFT, HRA, IA3, OFT
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 peft==0.21.2
cd "$folder"
cat > tried.py <<'PYTHON'
import peft, torch, transformers

TARGETS = dict(target_modules=["q_proj", "v_proj"])
ids = torch.arange(9)[None]
ADAPTERS = {
    "LoHa": peft.LoHaConfig(r=4, **TARGETS), "LoKr": peft.LoKrConfig(r=4, **TARGETS), "VeRA": peft.VeraConfig(**TARGETS),
    "DeLoRA": peft.DeloraConfig(**TARGETS), "LoRA": peft.LoraConfig(r=4, **TARGETS),
    "DoRA": peft.LoraConfig(r=4, use_dora=True, **TARGETS), "lora_bias": peft.LoraConfig(r=4, lora_bias=True, **TARGETS),
    "BOFT": peft.BOFTConfig(**TARGETS), "HRA": peft.HRAConfig(**TARGETS), "IA3": peft.IA3Config(feedforward_modules=[], **TARGETS),
    "OFT": peft.OFTConfig(**TARGETS),
}


def base():
    torch.manual_seed(0)
    lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)).eval()
    for weight in lm.parameters():
        if weight.ndim > 1:
            weight.normal_(0, 0.3)
    return lm


def off(config):
    """How far logits of the converted adapter are off, and those of the base; a training's updates are random numbers here."""
    lm = peft.get_peft_model(base(), config).eval()
    torch.manual_seed(1)
    for weight in lm.parameters():
        if weight.requires_grad:
            weight.add_(torch.randn_like(weight) * 0.2)
    logits = lm(ids).logits
    lora, weights = peft.convert_to_lora(lm, rank=32)
    converted = peft.get_peft_model(base(), lora).eval()
    told = peft.set_peft_model_state_dict(converted, weights)
    assert not told.unexpected_keys and not [key for key in told.missing_keys if "lora" in key]
    return [float((now(ids).logits - logits).abs().max()) for now in (converted, base())]


seen, refused = {}, []
with torch.no_grad():
    for name, config in ADAPTERS.items():
        try:
            seen[name] = off(config)
        except TypeError as error:
            assert "do not support LoRA conversion" in str(error), error
            refused.append(name)
print(f"peft {peft.__version__}; how far logits are off after conversion at the full rank, and how far the base is")
for name, (converted, unchanged) in seen.items():
    print(f"{name:10} {converted:6.2f} {unchanged:6.2f}")
print(f"refused: {', '.join(refused)}")
wrong = [name for name, (converted, _) in seen.items() if converted > 1e-3]
raise SystemExit(0 if wrong == ["DoRA", "lora_bias"] and refused == ["BOFT", "HRA", "IA3", "OFT"] else 1)  # 1: it has been mended
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
