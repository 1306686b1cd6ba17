#!/usr/bin/env bash
# eai-sparsify 1.3.3: the FVU that it logs is divided by micro_acc_steps and by wandb_log_frequency, and "kl_loss" is no KL.
#
# Documented: `micro_acc_steps` is to "chunk the activations into this number of microbatches for training", the README uses 2; the loss
# `kl` is the "KL divergence of the final model logits w.r.t. the original logits". Seen: since 1.3.3 each chunk's error is divided by
# the whole batch's variance, so that the chunks' FVUs add up to the batch's; they are averaged all the same. And sums are divided by
# wandb_log_frequency but emptied after every step. A coder that leaves 48% unexplained is logged with 12% at 4 chunks, or at every 4th
# step, or 3% with both; `save_best` states the same number, and micro_acc_steps makes the gradient as many times too small (which Adam
# and signum hide but for an epsilon). `kl` is trained and logged as cross-entropy: where nothing is lost it shows the model's entropy, not 0.
# For a user: FVUs of runs with other settings do not compare, and look better than they are. What helps: both settings at 1, or an FVU
# that is computed after training, and subtracting the clean model's entropy.
# Output, 2026-11-29:
#     eai-sparsify 1.3.3, last batch, by itself and as logged
#     plain                                      fvu   0.4796   0.4796
#     micro_acc_steps=4                          fvu   0.4796   0.1199
#     wandb_log_frequency=4                      fvu   0.4796   0.1199
#     micro_acc_steps=4, wandb_log_frequency=4   fvu   0.4796   0.0300
#     loss_fn=kl                                 kl    0.0016   4.1571
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 eai-sparsify==1.3.3
cd "$folder"
cat > wandb.py <<'PYTHON'
"""Stands in for Weights & Biases: it keeps what is logged, and sends nothing."""
logged, init = [], lambda **settings: None
log = lambda info, step=None: logged.append(info)
PYTHON
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import torch, transformers, wandb
from datasets import Dataset
from sparsify import SaeConfig, TrainConfig, Trainer

torch.manual_seed(1)
texts = Dataset.from_dict({"input_ids": torch.randint(0, 64, (56, 16)).tolist()}).with_format("torch")


def tried(**settings):
    """The last batch's loss, computed here and as it was logged; the learning rate is so low that the coder stays as it began."""
    torch.manual_seed(0)
    lm = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2))
    trainer = Trainer(TrainConfig(SaeConfig(num_latents=64, k=8), batch_size=8, lr=1e-9, hookpoints=["layers.1"], **settings), texts, lm)
    trainer.fit()
    coder, seen = trainer.saes["layers.1"], {}

    def replaced(module, inputs, output):
        out = coder(output.flatten(0, 1))
        seen["fvu"] = float(out.fvu)
        return out.sae_out.reshape(output.shape)

    last = texts[-8:]["input_ids"]
    with torch.no_grad():
        clean = lm(last).logits.log_softmax(-1)
        with_hook = lm.model.layers[1].register_forward_hook(replaced)
        dirty = lm(last).logits.log_softmax(-1)
        with_hook.remove()
    seen["kl"] = float((clean.exp() * (clean - dirty)).sum(-1).mean())
    key = "kl" if settings.get("loss_fn") == "kl" else "fvu"
    logged = wandb.logged[-1]["kl_loss" if key == "kl" else "fvu/layers.1"]
    return key, seen[key], float(logged)


cases = [{}, {"micro_acc_steps": 4}, {"wandb_log_frequency": 4}, {"micro_acc_steps": 4, "wandb_log_frequency": 4}, {"loss_fn": "kl"}]
results = [tried(**case) for case in cases]
print(f"eai-sparsify {version('eai-sparsify')}, last batch, by itself and as logged")
for case, (key, right, logged) in zip(cases, results):
    print(f"{', '.join(f'{k}={v}' for k, v in case.items()) or 'plain':42} {key:3} {right:8.4f} {logged:8.4f}")
factors = [round(right / logged) for _, right, logged in results[:4]]
# 1: it has been mended
raise SystemExit(0 if factors == [1, 4, 4, 16] and results[4][2] > 1 > results[4][1] else 1)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said" | grep -v "^[NILST][a-z]* "
