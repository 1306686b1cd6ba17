"""Tokenizers of characters with chat templates that behave as those of well-known families do; none is theirs."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

QUESTION = "What is 2 + 3?"
_TURNS = "{% for m in turns %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
_SPLIT = (
    "{% if messages[0].role == 'system' %}{% set told = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set told = none %}{% set turns = messages %}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """How one family writes a chat.

    Args:
        template: its chat template.
        put: what becomes of `QUESTION`.
        told: the same with the system message "Be brief."; None where it refuses one.
        special: its special tokens; the first begins a text and the second ends one, where there is one.
        adds: whether its tokenizer puts the beginning token before every text.
        begun: the mark of the thought that its prompt ends in.
    """

    template: str
    put: str
    told: str | None
    special: tuple[str, ...]
    adds: bool = False
    begun: str = ""


def _im(system: str, tail: str = "") -> str:
    return f"{system}<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n{tail}"


def _system(words: str) -> str:
    return f"<|im_start|>system\n{words}<|im_end|>\n"


def _llama(words: str) -> str:
    return (
        f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n{words}<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{QUESTION}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


_OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n"
FAMILIES: dict[str, Family] = {
    "llama-3": Family(
        "{{ bos_token }}" + _SPLIT + "{% if date_string is not defined %}"
        "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n{{ told or '' }}"
        "<|eot_id|>{% for m in turns %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
        "<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        _llama(""), _llama("Be brief."),
        ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"), adds=True,
    ),
    "qwen2.5": Family(
        _SPLIT + "<|im_start|>system\n{{ 'You help.' if told is none else told }}<|im_end|>\n" + _TURNS + _OPEN
        + "{% endif %}",
        _im(_system("You help.")), _im(_system("Be brief.")), ("<|endoftext|>", "<|im_end|>", "<|im_start|>"),
    ),
    "qwen3": Family(
        _SPLIT + "{% if told %}<|im_start|>system\n{{ told }}<|im_end|>\n{% endif %}" + _TURNS + _OPEN
        + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
        "{% endif %}",
        _im(""), _im(_system("Be brief.")),
        ("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<think>", "</think>"),
    ),
    "qwen3-thinking": Family(
        _SPLIT + "{% if told %}<|im_start|>system\n{{ told }}<|im_end|>\n{% endif %}" + _TURNS + _OPEN
        + "<think>\n{% endif %}",
        _im("", "<think>\n"), _im(_system("Be brief."), "<think>\n"),
        ("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<think>", "</think>"), begun="<think>",
    ),
    "gemma": Family(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}"
        "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        f"<bos><start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n", None,
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), adds=True,
    ),
    "mistral": Family(
        "{{ bos_token }}" + _SPLIT + "{% for m in turns %}{% if m.role == 'user' %}[INST] "
        "{% if loop.last and told %}{{ told }}\n\n{% endif %}{{ m.content }}[/INST]{% elif m.role == 'assistant' %}"
        " {{ m.content }}{{ eos_token }}{% else %}{{ raise_exception('roles alternate') }}{% endif %}{% endfor %}",
        f"<s>[INST] {QUESTION}[/INST]", f"<s>[INST] Be brief.\n\n{QUESTION}[/INST]",
        ("<s>", "</s>", "[INST]", "[/INST]"), adds=True,
    ),
    "deepseek-r1": Family(
        "{{ bos_token }}" + _SPLIT + "{{ told or '' }}{% for m in turns %}{% if m.role == 'user' %}"
        "<｜User｜>{{ m.content }}{% else %}"
        "<｜Assistant｜>{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
        f"<｜begin｜><｜User｜>{QUESTION}<｜Assistant｜><think>\n",
        f"<｜begin｜>Be brief.<｜User｜>{QUESTION}<｜Assistant｜><think>\n",
        ("<｜begin｜>", "<｜end｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        adds=True, begun="<think>",
    ),
    "phi-3": Family(
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n",
        f"<|system|>\nBe brief.<|end|>\n<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n",
        ("<s>", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
    ),
    "smollm3": Family(
        _SPLIT + "{% set think = enable_thinking if enable_thinking is defined else true %}"
        "<|im_start|>system\nToday is {{ strftime_now('%d %B %Y') }}. Mode: {{ '/think' if think else '/no_think' }}\n"
        "{{ told or 'You help.' }}<|im_end|>\n" + _TURNS + _OPEN
        + "{% if not think %}<think>\n\n</think>\n{% endif %}{% endif %}",
        _im(_system("Today is 26 July 2024. Mode: /think\nYou help.")),
        _im(_system("Today is 26 July 2024. Mode: /think\nBe brief.")),
        ("<|begin_of_text|>", "<|im_end|>", "<|im_start|>"),
    ),
    "olmo-2": Family(
        "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ '\\n' if not loop.last }}"
        "{% if loop.last and add_generation_prompt %}{{ '\\n' }}<|assistant|>\n{% endif %}{% endfor %}",
        f"<|endoftext|><|user|>\n{QUESTION}\n<|assistant|>\n",
        f"<|endoftext|><|system|>\nBe brief.\n<|user|>\n{QUESTION}\n<|assistant|>\n",
        ("<|endoftext|>", "<|endoftext|>"),
    ),
}  # fmt: skip


def tokenizer_of(family: Family, *, appends: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are single characters, but for the family's special ones; `appends`: ends texts."""
    characters = [*(chr(c) for c in range(32, 127)), "\n", "｜"]
    vocabulary = {token: n for n, token in enumerate([*dict.fromkeys(family.special), *characters])}
    made = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    made.decoder = Fuse()
    made.add_special_tokens(list(family.special))
    begin, end = family.special[:2]
    if family.adds or appends:
        single = " ".join([*([begin] if family.adds else []), "$A", *([end] if appends else [])])
        made.post_processor = TemplateProcessing(
            single=single, special_tokens=[(token, vocabulary[token]) for token in {begin, end}]
        )
    made_fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=begin, eos_token=end)
    made_fast.chat_template = family.template
    return made_fast
