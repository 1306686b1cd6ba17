"""Small tokenizers of the two kinds that cut characters into tokens."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

WORDS = [
    "So the sum is 3.14 and no more. Then we add 1,234.5 to it. 数学 is 你好 ☃ naïve.",
    "Let us see: 12 + 5 = 17. The answer is 17.\n\nWait, no. Is it right? Yes!",
] * 4


def byte_level() -> PreTrainedTokenizerBase:
    """Byte-level BPE: characters beyond ASCII are cut into bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def sentence_piece(*more: tuple[str, str]) -> PreTrainedTokenizerBase:
    """As Llama 2 has it: blanks are ▁, one goes before the text and is dropped in decoding; rare signs are bytes.

    Args:
        more: pairs of pieces that are one as well.
    """
    plain = sorted({c for w in WORDS for c in w if c.isascii() and c not in " \n"} | {"▁"})
    vocabulary = {"<unk>": 0, **{f"<0x{b:02X}>": b + 1 for b in range(256)}}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("i", "s"), ("▁", "is"), ("▁", "1"), ("1", "7"), *more]
    for piece in [*plain, *(a + b for a, b in merges)]:
        vocabulary[piece] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def prepending(*more: tuple[str, str]) -> PreTrainedTokenizerBase:
    """As the file of Mistral 7B has it: a blank goes before any text, also one that begins with a blank.

    Args:
        more: as `sentence_piece` takes them.
    """
    made = json.loads(sentence_piece(*more).backend_tokenizer.to_str())  # type: ignore[attr-defined]
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    made["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, blanks]}
    made["pre_tokenizer"] = None
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(made)), eos_token="<unk>")


FAMILIES = {"byte-level": byte_level(), "sentence-piece": sentence_piece()}
