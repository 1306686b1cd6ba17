#!/usr/bin/env bash
# pyreft 0.1.0: position "l1" of its data sets is the token before the prompt's last; short prompts edit the answer.
#
# Documented: ReftGenerationDataset and ReftSupervisedDataset "intervene on a prefix + suffix" of "*only the
# instruction*" and of "the input"; the page of the package applies an intervention "to the residual stream of the last
# prompt token", which it gives to generate as shape[-1] - 1, "last position". Seen: these data sets and
# ReftClassificationDataset count the prompt's tokens, take one away, and then take the tokens *before* that place, so
# that the last token is in no suffix: l1 is the token before it, l3 the three before it. ReftRawDataset and the make_*
# functions are right. In make_multiple_position_supervised_data_module a prompt shorter than twice the positions
# asked for is padded with the place behind the prompt, which is the answer's first token: it is edited while it is
# learnt, and is not there when text is generated. Nothing is said. For a user: an intervention is trained at one token
# and used at another; one in the last layer at l1 cannot change the answer's first token at all. What helps: a subclass
# whose tokenize returns last_position + 1, positions no more than half the shortest prompt.
# Output, 2026-11-30:
#     nnsight is not detected. Please install via 'pip install nnsight' for nnsight backend.
#     pyreft 0.1.0, the prompt is p1 p2 p3 p4 p5 p6 p7 p8, the answer a1 a2
#       l1     ReftGenerationDataset      p7
#       l1     ReftClassificationDataset  p7
#       l1     ReftRawDataset             p8
#       l1     make_multiple_position_*   p8
#       l3     ReftGenerationDataset      p5 p6 p7
#       l3     ReftClassificationDataset  p5 p6 p7
#       l3     ReftRawDataset             p6 p7 p8
#       l3     make_multiple_position_*   p6 p7 p8
#       f1+l1  ReftGenerationDataset      p1 | p7
#       f1+l1  ReftClassificationDataset  p1 | p7
#       f1+l1  ReftRawDataset             p1 | p8
#       f1+l1  make_multiple_position_*   p1 | p8
#       f5+l5 of the prompt p1 p2 p3 p4: p1 p2 a1 a1 a1 | p3 p4 a1 a1 a1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 datasets==5.2.0 \
    matplotlib==3.11.2
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps pyreft==0.1.0 pyvene==0.1.8
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import datasets
from pyreft import make_multiple_position_supervised_data_module
from pyreft.dataset import ReftClassificationDataset, ReftGenerationDataset, ReftRawDataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PROMPT, ANSWER = "p1 p2 p3 p4 p5 p6 p7 p8", " a1 a2"
words = {word: number for number, word in enumerate(["<pad>", "</s>", *PROMPT.split(), *ANSWER.split()])}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>",
                                    model_max_length=100)
data = datasets.Dataset.from_list([{"instruction": PROMPT, "output": ANSWER}])


def edited(row):
    """The words at the places of interventions, one list for each intervention."""
    return [" ".join(tokenizer.convert_ids_to_tokens(int(row["input_ids"][place])) for place in places)
            for places in row["intervention_locations"]]


print(f"pyreft {version('pyreft')}, the prompt is {PROMPT}, the answer{ANSWER}")
seen = {}
fields = {ReftGenerationDataset: dict(prompt_field="instruction", completion_field="output"),
          ReftClassificationDataset: dict(input_field="instruction", label_field="output"), ReftRawDataset: {}}
for position, count in (("l1", 1), ("l3", 1), ("f1+l1", 2)):
    for kind, options in fields.items():
        made = kind("task", None, tokenizer, dataset=data, position=position, num_interventions=count, **options)
        seen[kind.__name__, position] = edited(made[0])
    made = make_multiple_position_supervised_data_module(tokenizer, None, [PROMPT], [ANSWER], position, count)
    seen["make_multiple_position_*", position] = edited(made["train_dataset"][0])
    for (name, asked), row in seen.items():
        if asked == position:
            print(f"  {position:6} {name:26} {' | '.join(row)}")
short = make_multiple_position_supervised_data_module(tokenizer, None, ["p1 p2 p3 p4"], [ANSWER], "f5+l5", 2)
short = edited(short["train_dataset"][0])
print(f"  f5+l5 of the prompt p1 p2 p3 p4: {' | '.join(short)}")
wrong = all(seen[kind, "l1"] == ["p7"] and seen[kind, "l3"] == ["p5 p6 p7"]
            for kind in ("ReftGenerationDataset", "ReftClassificationDataset"))
right = all(seen[kind, "l1"] == ["p8"] for kind in ("ReftRawDataset", "make_multiple_position_*"))
raise SystemExit(0 if wrong and right and "a1" in short[0].split() else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
