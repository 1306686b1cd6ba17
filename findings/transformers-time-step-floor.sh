#!/usr/bin/env bash
# transformers 5.23.0: Mamba-2 layers keep the floor of their time steps over a whole text and not in a cached step: other log-probabilities.
#
# Documented: with a cache one is "expected to input only unprocessed `input_ids`", of the same text. Seen: in Zamba2 and Nemotron-H the time
# steps of a whole text are held above time_step_min (0.001 by default), in Mamba-2, Falcon-H1 and Bamba within time_step_limit where it is
# set; a step with a cache holds them above nothing (shown with the code that runs without mamba_ssm; the call of its step kernel hands it no
# limit either). Such a layer forgets little by small steps, so what was read stays longer in a text that is generated than in one that is
# read again. For a user: log-probabilities from sampling are not those of one pass over the same tokens, by defaults in two families: ratios
# of RL are off from 1 before any update, and a greedy continuation need not be the likeliest by the model's own forward.
# Output, 2026-11-30 (20 tokens step by step after 10; nats, largest difference from the whole text):
#     transformers 5.23.0, NemotronH: with a floor (default) 1.5e-01, with none 4.5e-05
#     transformers 5.23.0, Zamba2: with a floor (default) 4.1e-01, with none 7.1e-05
#     transformers 5.23.0, Mamba2: with a floor ({'time_step_limit': (0.02, inf)}) 2.9e+00, with none 5.7e-06
#     transformers 5.23.0, FalconH1: with a floor ({'time_step_limit': (0.02, inf)}) 3.2e-01, with none 3.6e-05
#     transformers 5.23.0, Bamba: with a floor ({'time_step_limit': (0.02, inf)}) 1.2e-01, with none 2.7e-05
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2> "$folder/log" || { tail -n 5 "$folder/log"; exit 1; }
import torch, transformers

common = dict(vocab_size=64, hidden_size=32, initializer_range=0.5)
attention = dict(common, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2)
mamba = dict(mamba_n_heads=4, mamba_n_groups=1, mamba_d_state=8)
kinds = {
    "NemotronH": dict(attention, mamba_num_heads=4, mamba_head_dim=16, n_groups=1, ssm_state_size=8, layers_block_type=["mamba", "attention"] * 2),
    "Zamba2": dict(
        attention, num_hidden_layers=4, layers_block_type=["mamba", "hybrid", "mamba", "mamba"], mamba_d_state=8, mamba_ngroups=1, n_mamba_heads=4, num_mem_blocks=1
    ),
    "Mamba2": dict(common, num_hidden_layers=2, num_heads=8, head_dim=8, n_groups=1, state_size=8),
    "FalconH1": dict(attention, **mamba, num_hidden_layers=2, mamba_d_ssm=32, mamba_d_head=8),
    "Bamba": dict(attention, **mamba, num_hidden_layers=4, attn_layer_indices=[1, 3], mamba_d_head=16),
}


@torch.no_grad()
def off(kind, **more):
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**kinds[kind], **more)).eval()
    ids = torch.randint(0, 64, (1, 30))
    whole = model(ids, use_cache=False).logits.log_softmax(-1)
    cache = "cache_params" if kind == "Mamba2" else "past_key_values"
    out = model(ids[:, :10], use_cache=True)
    found = [out.logits]
    for place in range(10, 30):
        where = {} if kind == "Mamba2" else {"position_ids": torch.tensor([[place]])}
        out = model(ids[:, place : place + 1], use_cache=True, **{cache: getattr(out, cache)}, **where)
        found.append(out.logits)
    return (torch.cat(found, dim=1).log_softmax(-1) - whole).abs().max().item()


right = True
for kind in kinds:
    floored, none = ({}, {"time_step_min": 1e-9}) if kind in ("NemotronH", "Zamba2") else ({"time_step_limit": (0.02, float("inf"))}, {})
    with_floor, without = off(kind, **floored), off(kind, **none)
    right &= with_floor > 0.01 and without < 1e-3
    print(f"transformers {transformers.__version__}, {kind}: with a floor ({'default' if not floored else floored}) {with_floor:.1e}, with none {without:.1e}")
raise SystemExit(0 if right else 1)  # 1: it has been mended
PYTHON
