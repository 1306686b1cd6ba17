"""Names for categories of sentences, by any model of the suite (for `steering.categories.cards.named`).

The model is shown typical sentences and asked what they do; its greedy answer is cut to a few words. A small model
names badly: a name is a label for the reader, and no result rests on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from elicit.decoding.decoders import Greedy
from elicit.decoding.engine import Batch, decode_batch
from elicit.decoding.loop import StopRule
from elicit.models.model import Model
from elicit.models.prompts import named_prompt
from probes.offsets import known_ids

ASKED = "Here are sentences from solutions of problems:\n{sentences}\nIn a few words, what do all of them do?"
NEW_TOKENS, WORDS = 16, 5


def namer(model: Model, *, max_new_tokens: int = NEW_TOKENS) -> Callable[[Sequence[str]], str]:
    """A function from sentences to a name; it is "" where the model says no word.

    The prompt is the model's chat template, or the bare one where it has none.
    """
    prompt = named_prompt("chat" if model.tokenizer.chat_template else "qa", model.tokenizer)
    stop = StopRule(model.eos_ids, ("\n", *prompt.stop), model.tokenizer)

    def name(sentences: Sequence[str]) -> str:
        shown = "\n".join(f"- {' '.join(s.split())}" for s in sentences)
        ids = prompt.ids(ASKED.replace("{sentences}", shown), model.tokenizer)
        ((answer,),) = decode_batch(model, Batch([ids], ["name"], Greedy(max_new_tokens), stop))
        return cleaned(
            str(model.tokenizer.decode(known_ids(model.tokenizer, answer.tokens.tolist()), skip_special_tokens=True))
        )

    return name


def cleaned(answer: str, words: int = WORDS) -> str:
    """The first few words of an answer's first line, in lower case, without what models begin with ("They all …")."""
    line = next((line for line in answer.splitlines() if re.search(r"\w", line)), "")
    line = re.sub(r"^\W*(?:(?:all of )?(?:they|these|the sentences|these sentences)(?: all)?\s+)?", "", line.lower())
    first = re.split(r"[.;:!?]", line)[0]
    return " ".join(re.findall(r"[\w'’-]+", first)[:words])
