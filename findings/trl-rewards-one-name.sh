#!/usr/bin/env bash
# trl 1.16.0: two rewards that are one function with other arguments are logged as one reward: its mean is the mean of both, its
# column in the log of completions the last one's.
#
# Documented: GRPOTrainer takes a list of reward functions, and the docstring of what names them for the log supports
# "functools.partial (unwrapped to the wrapped function's name), and callable class instances (which fall back to their class
# name)". Seen: the log is kept by that name alone, so two partials of one function, or two objects of one class, share it, and
# nothing is said. The training is right: the total is the sum of both. For a user: `rewards/length/mean` of a term for short and
# a term for long answers is neither of them, and whoever reads the log of completions again finds one term less.
# Output, 2026-11-29:
#     trl 1.16.0: rewards 0 and 1, expected two logged means; seen {'rewards/constant/mean': 0.5}, total 1.0, columns {'constant': [1.0, 1.0, 1.0, 1.0]}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 datasets==5.2.0 trl==1.16.0
cd "$folder"
cat > tried.py <<'PYTHON'
import functools

import torch, trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = {word: n for n, word in enumerate(["<pad>", "<eos>", "what", "is", "two", "plus", "one", "three"])}
core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
core.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
torch.manual_seed(0)
sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
lm = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes, pad_token_id=0, eos_token_id=1, bos_token_id=None))


def constant(completions, value, **_):
    return [value] * len(completions)


trainer = trl.GRPOTrainer(
    lm,
    [functools.partial(constant, value=0.0), functools.partial(constant, value=1.0)],
    args=trl.GRPOConfig(
        output_dir="out", max_steps=1, per_device_train_batch_size=4, num_generations=4, max_completion_length=3,
        report_to="none", use_cpu=True, bf16=False, logging_steps=1, disable_tqdm=True,
    ),
    train_dataset=Dataset.from_list([{"prompt": "what is two plus one"}] * 4),
    processing_class=tokenizer,
)
trainer.train()
logged = trainer.state.log_history[0]
means = {key: value for key, value in logged.items() if key.startswith("rewards/") and key.endswith("/mean")}
columns = {name: list(values) for name, values in trainer._logs["rewards"].items()}
print(f"trl {trl.__version__}: rewards 0 and 1, expected two logged means; seen {means}, total {logged['reward']}, columns {columns}")
raise SystemExit(0 if means == {"rewards/constant/mean": 0.5} and logged["reward"] == 1 else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2>&1 | grep '^trl'
