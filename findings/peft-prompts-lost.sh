#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.24.0: a prefix-tuned model generates the text of its base, and prompt-tuned ones see no place right.
#
# Documented: "The prefix parameters are inserted in all of the model layers"; "generate" is among what a PeftModelForCausalLM does. Expected:
# greedy tokens of generate are those of forwards of the whole text. So it is with transformers 5.23.0. In 5.24.0 generate carries its
# cache under another name (`cache`, no longer `past_key_values`), by which PEFT puts the prefix in, and finds out where it is: the prefix is left out,
# and of prompt tuning and P-tuning every step after the first is computed at wrong positions. Nothing is said; forwards are right, so that
# losses and scores are too. For a user: an evaluation by generated text measures the base (prefix) or a damaged model.
# Output, 2026-11-30:
#     peft 0.21.2, transformers 5.23.0: of 24 greedy tokens generated as by forwards: prefix 24, prompt 24, P-tuning 24; as the base's: prefix 0
#     peft 0.21.2, transformers 5.24.0: of 24 greedy tokens generated as by forwards: prefix 0, prompt 5, P-tuning 15; as the base's: prefix 24
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 peft==0.21.2
cd "$folder"
cat > tried.py <<'PYTHON'
import peft, torch, transformers

NEW, ROWS = 8, 3
ids = torch.randint(3, 60, (ROWS, 6), generator=torch.Generator().manual_seed(1))


def greedy(lm, start):
    for _ in range(NEW):  # the whole text each time
        said = lm(input_ids=start, attention_mask=torch.ones_like(start), use_cache=False).logits[:, -1:].argmax(-1)
        start = torch.cat([start, said], 1)
    return start[:, -NEW:]


def tried(config):
    """How many generated tokens are as by forwards of the whole text, and how many as the base's."""
    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)).eval()
    before = greedy(base, ids)
    lm = peft.get_peft_model(base, config).eval()
    for weight in lm.parameters():
        if weight.requires_grad:  # a training's updates are random numbers here
            weight.normal_(0, 2)
    said = lm.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, eos_token_id=None,
                       pad_token_id=2)[:, -NEW:]
    return int((said == greedy(lm, ids)).sum()), int((said == before).sum())


same = dict(task_type="CAUSAL_LM", num_virtual_tokens=4)
with torch.no_grad():
    prefix = tried(peft.PrefixTuningConfig(**same))
    prompt = tried(peft.PromptTuningConfig(**same))
    ptuning = tried(peft.PromptEncoderConfig(**same, encoder_hidden_size=32))
print(f"peft {peft.__version__}, transformers {transformers.__version__}: of {ROWS * NEW} greedy tokens generated as by forwards: "
      f"prefix {prefix[0]}, prompt {prompt[0]}, P-tuning {ptuning[0]}; as the base's: prefix {prefix[1]}")
every = ROWS * NEW
if transformers.__version__ == "5.24.0":
    kept = prefix[1] == every and prefix[0] < every and prompt[0] < every and ptuning[0] < every
else:
    kept = prefix[0] == prompt[0] == ptuning[0] == every
raise SystemExit(0 if kept else 1)  # 1: it is otherwise now
PYTHON
for version in 5.23.0 5.24.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
    "$folder/venv/bin/python" tried.py 2> said || { tail -5 said; exit 1; }
done
