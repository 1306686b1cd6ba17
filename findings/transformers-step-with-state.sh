#!/usr/bin/env bash
# transformers 5.23.0: a step from the state of the text before is another model's in RWKV (in batches), Bamba and MiniMax (positions).
#
# Documented: RWKV's `state`, of shape (batch_size, …), "will give the output for the `input_ids` provided as if the model add
# `state_input_ids + input_ids` as context" (RwkvModel.forward); with past_key_values one is "expected to input only unprocessed
# `input_ids`" (docstring of every forward), and position_ids are optional. Seen, for prompts of 9 tokens and one token more by what the
# model returned: Llama, Jamba, Falcon-H1 give the logits of the whole text. RWKV does for one text alone. Of three, each row is mixed with
# another row's last hidden states (logits come as 3 × 3 × vocabulary), so generate gives every text other tokens than it gets alone, by
# its defaults and without any padding; with use_cache=False it does not. Bamba and MiniMax count the token's position from 0, unless
# position_ids are given, as generate gives them. Nothing is said. For a user: several samples of one prompt, RL and evaluations with a
# batch over 1 are another model's in RWKV; a decoding loop of one's own with a cache decodes another Bamba or MiniMax than generate does.
# Output, 2026-11-29:
#     transformers 5.23.0; how far logits are off: one text, three texts, three with position_ids; texts alike
#     Llama      0.00   0.00   0.00   3 of 3
#     Jamba      0.00   0.00   0.00   3 of 3
#     FalconH1   0.00   0.00   0.00   3 of 3
#     Rwkv       0.00   3.96      -   0 of 3
#     Bamba      0.88   1.28   0.00   3 of 3
#     MiniMax    4.91   5.58   0.00   3 of 3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0
cd "$folder"
cat > tried.py <<'PYTHON'
import torch, transformers

torch.set_grad_enabled(False)
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2)
mamba = dict(mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1)
KINDS = {
    "Llama": sizes,
    "Jamba": dict(sizes, attn_layer_period=2, attn_layer_offset=1, num_experts=2, use_mamba_kernels=False),
    "FalconH1": dict(sizes, **mamba, mamba_d_ssm=64),
    "Rwkv": dict(vocab_size=64, hidden_size=32, attention_hidden_size=32, intermediate_size=48, num_hidden_layers=4),
    "Bamba": dict(sizes, **mamba, attn_layer_indices=[1, 3]),
    "MiniMax": dict(sizes, layer_types=["linear_attention", "full_attention"] * 2, num_local_experts=4),
}
torch.manual_seed(1)
prompts, token = torch.randint(2, 64, (3, 9)), torch.randint(2, 64, (3, 1))


def made(kind):
    torch.manual_seed(0)
    lm = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**KINDS[kind])).eval()
    for weight in lm.parameters():
        if weight.ndim > 1:
            weight.normal_(0, 0.25)
    lm.generation_config.update(eos_token_id=None, pad_token_id=0)
    return lm


def off(lm, rows, **more):
    """How far the logits of one more token, by what the model returned for the prompts, are from those of the whole text."""
    whole = lm(torch.cat([prompts, token], 1)[:rows]).logits[:, -1]
    before = lm(prompts[:rows], use_cache=True)
    kept = {"state": before.state} if hasattr(before, "state") else {"past_key_values": before.past_key_values}
    return float((lm(token[:rows], use_cache=True, **kept, **more).logits[:, -1] - whole).abs().max())


def same(lm):
    """How many of three texts get in a batch the tokens that they get alone, by generate's defaults."""
    asked = dict(max_new_tokens=16, do_sample=False)
    together = lm.generate(prompts, attention_mask=torch.ones_like(prompts), **asked)
    alone = [lm.generate(text[None], attention_mask=torch.ones_like(text[None]), **asked)[0] for text in prompts]
    return sum(torch.equal(ours, theirs) for ours, theirs in zip(together, alone))


print(f"transformers {transformers.__version__}; how far logits are off: one text, three texts, three with position_ids; texts alike")
seen = {}
for kind in KINDS:
    lm = made(kind)
    told = off(lm, 3) if kind == "Rwkv" else off(lm, 3, position_ids=torch.full((3, 1), 9))
    seen[kind] = off(lm, 1), off(lm, 3), told, same(lm)
    print(f"{kind:10} {seen[kind][0]:.2f}   {seen[kind][1]:.2f}   {'   -' if kind == 'Rwkv' else f'{told:.2f}'}   {seen[kind][3]} of 3")
wrong = {kind: tuple(gap > 0.1 for gap in gaps) + (alike,) for kind, (*gaps, alike) in seen.items()}
expected = dict.fromkeys(KINDS, (False, False, False, 3)) | dict.fromkeys(("Bamba", "MiniMax"), (True, True, False, 3))
raise SystemExit(0 if wrong == expected | {"Rwkv": (False, True, True, 0)} else 1)  # 1: it has been mended
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
