#!/usr/bin/env bash
# transformers 5.23.0, 5.24.0: whether `output_hidden_states` shows what a forward hook did to a block hangs on whether anybody
# asked for hidden states before that hook was put on. Logits are steered either way.
#
# Documented: `hidden_states` are the "hidden-states of the model at the output of each layer plus the optional initial embedding
# outputs"; PyTorch's register_forward_hook says that a hook "can modify the output". Seen: in 5.x the first call with
# output_hidden_states=True puts hooks of transformers' own on all blocks and leaves them there. What was put on a block before
# that is in `hidden_states`, what is put on after is not, at that block's own entry; the next block's entry shows it. In 4.51.3
# both are in it, in 4.57.6 neither. For a user: a steering vector seems to do nothing at the layer where it is added (norms,
# projections, probes, "check that the hook works") as soon as a baseline was read first, and all of it in a fresh process.
# Output, 2026-11-29:
#     transformers 4.51.3: at the steered block +1.0 with a hook put on first, +1.0 with the same hook after a first call; logits alike
#     transformers 4.57.6: at the steered block +0.0 with a hook put on first, +0.0 with the same hook after a first call; logits alike
#     transformers 5.23.0: at the steered block +1.0 with a hook put on first, +0.0 with the same hook after a first call; logits alike
#     transformers 5.24.0: at the steered block +1.0 with a hook put on first, +0.0 with the same hook after a first call; logits alike
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
cat > "$folder/tried.py" <<'PYTHON'
import torch, transformers

torch.manual_seed(0)
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2)
lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
ids = torch.arange(6)[None]


def push(module, args, output):
    return (output[0] + 1, *output[1:]) if isinstance(output, tuple) else output + 1


@torch.no_grad()
def read(steered):
    hook = lm.model.layers[1].register_forward_hook(push) if steered else None
    found = lm(ids, output_hidden_states=True)
    if hook:
        hook.remove()
    return found.hidden_states[2], found.logits  # the first is the embedding's: 2 is the output of layers[1]


(first, logits), (plain, _), (after, again) = read(True), read(False), read(True)
moved = [round(float((one - plain).mean()), 3) for one in (first, after)]
same = torch.equal(logits, again)
print(f"transformers {transformers.__version__}: at the steered block {moved[0]:+} with a hook put on first, {moved[1]:+} with "
      f"the same hook after a first call; logits {'alike' if same else 'apart'}")
wanted = {"4.51.3": [1.0, 1.0], "4.57.6": [0.0, 0.0]}.get(transformers.__version__, [1.0, 0.0])
raise SystemExit(0 if moved == wanted and same else 1)  # 1: it is otherwise now
PYTHON
for version in 4.51.3 4.57.6 5.23.0 5.24.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
    "$folder/venv/bin/python" "$folder/tried.py"
done
