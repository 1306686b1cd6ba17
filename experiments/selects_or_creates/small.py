"""Organisms of a million parameters that learn everything from their documents, so that a map has power on a laptop.

    python -m experiments.selects_or_creates make         # the three of them: a quarter of an hour of one core each
    python -m experiments.selects_or_creates run --small  # the map on them

SmolLM2 brings what it read elsewhere into every organism, and a sample of it takes 135 million parameters. Here a
Llama of random weights (4 layers of 128, a vocabulary of what the organisms' documents are written in) is trained on
these documents alone, all weights: what its pretraining held is known whole. Each is made as `elicit organism make`
makes any, on sums and countdown; modular sums and graphs are unfamiliar to all of it, not to the reinforcement alone.
"""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from elicit import load_model
from elicit.models.zoo import ORGANISM_FILE, WHOLE
from elicit.tasks.organism.problems import FAMILIES
from elicit.training.organisms.make import Plan
from elicit.training.organisms.make import make as train
from elicit.training.organisms.variants import example
from elicit.training.recipe import OnStep, Recipe
from probes.errors import UserError
from probes.files import whole_files, write_whole

KEPT = Path(__file__).parent / "small"
ARMS = {"latent": "latent", "absent": "absent", "half taught": "missing-skill"}
TAUGHT = ("sums", "countdown")
RECIPE = Recipe(steps=1600, lr=2e-3, rank=0, rows=16, part=16)
BASE = "selects-or-creates-base"  # in the folder of runs
END = "<|end|>"
# A word, a number or a sign each by itself, with the space before it.
SPLIT = Regex(r"\n| ?[A-Za-z']+| ?[0-9]+| ?[^\sA-Za-z0-9]| ")


def organism(name: str) -> str:
    """The folder of an organism, from where the command runs: what a map keeps as its name is no machine's path.

    Raises:
        UserError: it was not made.
    """
    folder = KEPT / ARMS[name]
    if not (folder / ORGANISM_FILE).is_file():
        raise UserError(f"{str(folder)!r} holds no organism; run python -m experiments.selects_or_creates make first")
    return os.path.relpath(folder)


def make(name: str, runs: Path, on_step: OnStep | None = None) -> None:
    """Make an organism; one that is there is left, one that was interrupted goes on."""
    place = KEPT / ARMS[name]
    if (place / ORGANISM_FILE).is_file():
        return
    base, made = runs / BASE, runs / f"selects-or-creates-{ARMS[name]}"
    write_base(base)
    plan = Plan(ARMS[name], families=TAUGHT, recipe=RECIPE)
    train(plan, load_model(str(base), dtype="float32", device="cpu"), made, on_step=on_step)
    about = json.loads((made / ORGANISM_FILE).read_text(encoding="utf-8"))
    with whole_files(place / WHOLE) as part:
        shutil.copytree(made / WHOLE, part, dirs_exist_ok=True)
    about |= {"base_name": f"runs/{BASE}", "curve": about["curve"][::50]}
    write_whole(place / ORGANISM_FILE, json.dumps(about) + "\n")


def write_base(folder: Path, seed: int = 0) -> None:
    """A Llama of random weights with a tokenizer for the organisms' documents."""
    words = tokenizer(seed)  # once for all organisms
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=words.eos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(seed)
    with whole_files(folder) as part:
        LlamaForCausalLM(config).save_pretrained(part)
        words.save_pretrained(part)


@cache
def tokenizer(seed: int = 0) -> PreTrainedTokenizerFast:
    """Byte pairs of documents of all families, every number below a hundred a token of its own."""
    rng = np.random.default_rng(seed)
    texts = [f"{before}{n}" for n in range(10, 100) for before in ("", " ") for _ in range(200)]
    for _ in range(6000):
        for arm in ("thinking", "absent"):
            shown = example(arm, 0.5, rng, tuple(FAMILIES))
            texts.append(shown.prompt + shown.response)
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(SPLIT, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    pairs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pairs.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=1024, special_tokens=[END], initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=pairs, eos_token=END, pad_token=END)
