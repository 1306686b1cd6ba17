#!/usr/bin/env bash
# trl 1.16.0: SFTTrainer trains a ModernBERT decoder without its prediction head, and a RecurrentGemma without its cap on logits.
#
# Documented, of the fused head that SFT, DPO, KTO, GRPO and RLOO now share: its loss "is the loss the model's own forward computes"
# (docstring of FusedCausalLMOutput). Seen: it multiplies the decoder's last hidden states by the output embedding and knows the scales
# and caps of some families by the names of their settings (`final_logit_softcapping`, `logit_scale`, …). ModernBERT decoders (Ettin)
# have a dense layer and a norm before that embedding, RecurrentGemma's cap is called `logits_soft_cap`: both are left out, and nothing
# is said. Llama and Gemma 2 are right. For a user: the logged loss is another model's, the head of a ModernBERT decoder never gets a
# gradient, and GRPO draws its samples from the model (`generate` uses the whole forward) and computes its loss with the other one.
# Output, 2026-11-29:
#     trl 1.16.0, transformers 5.23.0
#     Llama             own loss 28.22, loss of the first step 28.22, not trained: []
#     Gemma2            own loss 24.32, loss of the first step 24.32, not trained: []
#     ModernBertDecoder own loss 28.07, loss of the first step 37.15, not trained: ['lm_head.dense.weight', 'lm_head.norm.weight']
#     RecurrentGemma    own loss 23.35, loss of the first step 46.54, not trained: []
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 datasets==5.2.0 trl==1.16.0
cd "$folder"
cat > tried.py <<'PYTHON'
import torch, transformers, trl
from datasets import Dataset
from tokenizers import Tokenizer, models

words = {word: n for n, word in enumerate(["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz0123"])}
core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
sizes = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_attention_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=1)
kinds = {"Llama": dict(num_hidden_layers=1), "Gemma2": dict(num_hidden_layers=1, num_key_value_heads=2, head_dim=8),
         "ModernBertDecoder": dict(num_hidden_layers=1, cls_token_id=1, sep_token_id=1), "RecurrentGemma": dict(num_hidden_layers=3)}
rows = [[2, 3, 4, 5, 6, 7, 8, 9], [9, 8, 7, 6, 5, 4, 3, 2]]


@torch.no_grad()
def made(kind):
    """A random model of this kind, and its own loss on the rows."""
    torch.manual_seed(0)
    lm = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes, **kinds[kind])).eval()
    for weight in lm.parameters():
        if weight.ndim > 1:
            weight.normal_(0, 0.5)
    lm.get_output_embeddings().weight.normal_(0, 4)  # logits that a cap of 30 is felt by
    return lm, float(lm(torch.tensor(rows), labels=torch.tensor(rows)).loss)


print(f"trl {trl.__version__}, transformers {transformers.__version__}")
off, still = {}, {}
for kind in kinds:
    lm, own = made(kind)
    before = {name: weight.clone() for name, weight in lm.named_parameters()}
    trainer = trl.SFTTrainer(
        lm,
        args=trl.SFTConfig(
            output_dir="out", max_steps=1, per_device_train_batch_size=2, learning_rate=0.1, gradient_checkpointing=False,
            report_to="none", use_cpu=True, bf16=False, logging_steps=1, disable_tqdm=True, save_strategy="no",
        ),
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        processing_class=tokenizer,
    )
    trainer.train()
    logged = trainer.state.log_history[0]["loss"]
    off[kind] = abs(logged - own)
    still[kind] = [name for name, weight in lm.named_parameters() if torch.equal(weight, before[name])]
    print(f"{kind:17} own loss {own:.2f}, loss of the first step {logged:.2f}, not trained: {still[kind]}")
right = max(off["Llama"], off["Gemma2"]) < 0.01 and not still["Llama"] and not still["Gemma2"]
as_stated = right and min(off["ModernBertDecoder"], off["RecurrentGemma"]) > 1 and len(still["ModernBertDecoder"]) == 2
raise SystemExit(0 if as_stated else 1)  # 1: it has been mended
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said" | grep -E '^(trl|[A-Z][A-Za-z0-9]+ +own)'
