"""A language model whose every preference is written into its weights, and answers with given thoughts.

A Llama of one layer: attention is uniform, so the stream holds how often each character was said, and the output head
makes a digit as likely as its evidence was frequent. After a digit comes a new line, and after an s a blank ("the
answer is 3"). Nothing is trained or random.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from elicit.decoding import Trace
from elicit.models import Model, load_model
from elicit.tasks.base import Item, Items, Task
from elicit.tasks.grading import NumberGrader

CHARACTERS = [chr(c) for c in range(32, 127)] + ["\n"]
STRENGTH, AT_ONCE, ENDS = 3.0, 1000.0, 0.01
EVIDENCE = {"#": "1", "$": "2", "%": "3", "&": "4"}


def planted(folder: Path, evidence: Mapping[str, str] | None = None, says: Mapping[str, str] | None = None) -> Model:
    """The model, saved and loaded as any other.

    Args:
        folder: where it is saved.
        evidence: for each character the one that it speaks for.
        says: for each character the one that follows it at once, whatever was said before.
    """
    vocabulary = {"<end>": 0, **{c: i + 1 for i, c in enumerate(CHARACTERS)}}
    size = len(vocabulary)
    config = LlamaConfig(
        vocab_size=size, hidden_size=2 * size, intermediate_size=2, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=2 * size, max_position_embeddings=4096, tie_word_embeddings=False,
        eos_token_id=0, pad_token_id=0, bos_token_id=0,
    )  # fmt: skip
    lm = LlamaForCausalLM(config).float().eval()
    layer, said, counts = lm.model.layers[0], torch.arange(size), torch.arange(size) + size
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        lm.model.embed_tokens.weight[said, said] = 1.0
        layer.self_attn.v_proj.weight[said, said] = 1.0
        layer.self_attn.o_proj.weight[counts, said] = 10.0
        for one, other in (EVIDENCE if evidence is None else evidence).items():
            lm.lm_head.weight[vocabulary[other], size + vocabulary[one]] = STRENGTH
        lm.lm_head.weight[0, size:] = ENDS  # where nothing speaks for anything, the answer ends
        follows = {**dict.fromkeys("0123456789", "\n"), "s": " ", **(says or {})}
        for one, other in follows.items():
            lm.lm_head.weight[vocabulary[other], vocabulary[one]] = AT_ONCE
    lm.save_pretrained(folder)
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<end>"))
    tokenizer.decoder = Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    return load_model(str(folder), dtype="float32", device="cpu")


def riddles(count: int = 12) -> Items:
    """Questions that say nothing, with answers 1 to 4 in turn."""
    items = tuple(Item(f"r{n}", f"Which ({'x' * (1 + n % 3)})?", str(1 + n % 4), "test") for n in range(count))
    return Items(Task("riddles", items, NumberGrader(), "number", {"family": "toy"}), items)


def thinking(model: Model, item: Item, thought: str, answer: str | None = None) -> Trace:
    """An answer whose thought is this text."""
    answer = answer or item.answer or ""
    text = f"{thought}{answer}"
    tokens = list(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    flat = [0.5] * len(tokens)
    span = (len(tokens) - len(answer), len(tokens))
    return Trace(
        item=item.id, index=0, prompt_tokens=1, tokens=tokens, ends=list(range(1, len(tokens) + 1)), text=text,
        top1=flat, top2=flat, entropy=flat, logprob=flat, finish="eos", spent=len(tokens), answer=answer, span=span,
        delta=0.0, dropped="", score=float(answer == item.answer),
    )  # fmt: skip
