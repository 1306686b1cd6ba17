#!/usr/bin/env bash
# peft 0.21.2: layers_to_transform and exclude_modules of a LoRA are passed over for what target_parameters names, the experts of MoEs.
#
# Documented: target_parameters "behaves similarly to `target_modules`, except that the parameter name should be passed"; with
# layers_to_transform PEFT "will apply the adapter to the layer indices that are specified in this list"; exclude_modules are "the names of
# the modules to not apply the adapter". Seen: experts are matched by the end of their name alone, so that a LoRA "on layer 0" is on
# every layer's experts, and an excluded layer's experts are trained all the same; for modules of the same LoRA both hold. Nothing is
# said; the saved config names the layers that were asked for. For a user of Mixtral, Qwen3-MoE, gpt-oss and all others whose experts are
# one tensor in transformers 5: which layer holds an ability, or what training only early layers does, is answered of all layers, and the
# adapter has several times the parameters. What helps: names with the layer in target_parameters ("layers.0.mlp.experts.down_proj").
# Output, 2026-11-29:
#     peft 0.21.2, layers that a step of training changes: attention, experts
#     layers_to_transform=[0]            0         0 1 2 3
#     layers_to_transform=0              0         0 1 2 3
#     exclude_modules=list               0 2 3     0 1 2 3
#     exclude_modules=regex              0 2 3     0 1 2 3
#     named with its layer               0         0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 peft==0.21.2
cd "$folder"
cat > tried.py <<'PYTHON'
import peft, torch, transformers

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
CASES = {
    "layers_to_transform=[0]": dict(layers_to_transform=[0]),
    "layers_to_transform=0": dict(layers_to_transform=0),
    "exclude_modules=list": dict(exclude_modules=["layers.1.self_attn.q_proj", "layers.1.mlp.experts"]),
    "exclude_modules=regex": dict(exclude_modules=r".*layers\.1\..*"),
    "named with its layer": dict(layers_to_transform=[0], target_parameters=[f"layers.0.{name}" for name in EXPERTS]),
}


def changed(**settings):
    """Layers whose attention, and whose experts, another forward and a step of training have changed."""
    torch.manual_seed(0)
    lm = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2))
    before = {name: weight.detach().clone() for name, weight in lm.named_parameters()}
    lm = peft.get_peft_model(lm, peft.LoraConfig(r=4, target_modules=["q_proj"], **{"target_parameters": EXPERTS, **settings}))
    ids = torch.arange(24)[None]
    lm(ids, labels=ids).loss.backward()
    torch.optim.SGD(lm.parameters(), 1.0).step()
    after = dict(lm.merge_and_unload().named_parameters())
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    return [sorted({name.split(".")[2] for name in moved if part in name}) for part in ("self_attn", "experts")]


print(f"peft {peft.__version__}, layers that a step of training changes: attention, experts")
seen = {name: changed(**settings) for name, settings in CASES.items()}
for name, (attention, experts) in seen.items():
    print(f"{name:34} {' '.join(attention):9} {' '.join(experts)}")
every = ["0", "1", "2", "3"]
stated = [[["0"], every]] * 2 + [[["0", "2", "3"], every]] * 2 + [[["0"], ["0"]]]
raise SystemExit(0 if list(seen.values()) == stated else 1)  # 1: it has been mended
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
