#!/usr/bin/env bash
# inseq 0.7.1: perplexity is 2 to the power of nats, and mc_dropout_prob_avg leaves dropout on for all that follows.
#
# Documented: a perplexity of 100 "means that whenever the model is trying to guess the next word it is as confused as
# if it had to pick between 100 words"; mc_dropout_prob_avg "Returns the average of probability scores using a pool of
# noisy prediction computed with MC Dropout" (step functions). Seen: the cross-entropy is in nats, so that a perplexity
# of 354 is given as 58; mc_dropout_prob_avg gives no average but a z-score, puts the model into training mode and
# leaves it there. So from the second token of the same text on, and in all later calls with other scores too,
# attributions, probabilities and gradients are of a model with dropout, another one each time. Nothing is said. For a
# user: perplexities are comparable with no other's, and one call with this score makes every later attribution noisy.
# What helps: 1 / probability; model.eval() after each such call, whose own attributions are not to be used.
# Output, 2026-11-30:
#     inseq 0.7.1, first three target tokens
#     perplexity, right:  354.12  250.17  603.54
#     perplexity, seen:    58.47   45.95   84.61
#     mc_dropout_prob_avg:   0.0973   0.2307   1.3202  training: True
#     probability before         0.01084  0.00840  0.01121  saliency 0.02243
#     probability in that call   0.01084  0.00820  0.01165
#     probability after          0.01118  0.00886  0.01133  saliency 0.01645
#     probability after, again   0.01083  0.00796  0.01137  saliency 0.02367
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 captum==0.9.0 jaxtyping==0.3.11 matplotlib==3.11.2 protobuf==7.36.2 \
    rich==15.0.0 sentencepiece==0.2.3 treescope==0.1.10 typeguard==2.13.3
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps inseq==0.7.1
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import inseq, tokenizers, torch, transformers

vocabulary = {"<s>": 0, **{f"w{n}": n for n in range(1, 100)}}
core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<s>"))
core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
words = transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<s>", pad_token="<s>", unk_token="<s>")
torch.manual_seed(0)
ends = dict(vocab_size=100, bos_token_id=0, eos_token_id=0)
t5 = transformers.T5ForConditionalGeneration(transformers.T5Config(
    d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0, **ends)).eval()
gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(
    n_positions=64, n_embd=32, n_layer=2, n_head=2, **ends)).eval()

print(f"inseq {version('inseq')}, first three target tokens")
out = inseq.load_model(t5, "saliency", tokenizer=words).attribute(
    ["w1 w2 w3", "w4 w5 w6"], ["w7 w8 w9", "w1 w2 w3"], step_scores=["probability", "perplexity"], show_progress=False)
scores = out.sequence_attributions[0].step_scores
right = 1 / scores["probability"]
print("perplexity, right:", *(f"{float(value):7.2f}" for value in right))
print("perplexity, seen: ", *(f"{float(value):7.2f}" for value in scores["perplexity"]))

model = inseq.load_model(gpt, "saliency", tokenizer=words)


def attributed(*names):
    """Step scores and saliencies of one text."""
    out = model.attribute("w1 w2 w3", "w1 w2 w3 w4 w5 w6", step_scores=[*names], show_progress=False)
    out = out.sequence_attributions[0]
    return {name: values.flatten() for name, values in out.step_scores.items()}, out.target_attributions[:, 0].sum(-1)


seen = {"before": attributed("probability")}
noisy, _ = attributed("mc_dropout_prob_avg", "probability")
seen["in that call"] = noisy, None
seen["after"], seen["after, again"] = attributed("probability"), attributed("probability")
scaled = noisy["mc_dropout_prob_avg"]
print("mc_dropout_prob_avg:", *(f"{float(value):8.4f}" for value in scaled), " training:", gpt.training)
for name, (step, saliency) in seen.items():
    said = "" if saliency is None else f" saliency {float(saliency[0]):.5f}"
    print(f"probability {name:13}", *(f"{float(value):8.5f}" for value in step["probability"]), said)
wrong = torch.allclose(scores["perplexity"], 2 ** right.log(), rtol=1e-3)
wrong = wrong and not torch.allclose(scores["perplexity"], right, rtol=0.5)
first, *others = (step["probability"] for step, _ in seen.values())
changed = gpt.training and min(float((first - other).abs().max()) for other in others) > 1e-5
average = float(scaled.abs().max()) < 0.05
raise SystemExit(0 if wrong and changed and not average else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
