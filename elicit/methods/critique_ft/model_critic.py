"""Any causal LM as a critic: asked to check a solution, greedy.

The papers' critics are strong (GPT-4o in arXiv 2501.17703, seven teachers in 2506.03295, whose inconsistent critiques
were taken out). A weak one is often wrong: how often it agrees with the grader is counted in every fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elicit.decoding.answering import respond
from elicit.decoding.decoders import Greedy
from elicit.decoding.engine import Batch
from elicit.decoding.loop import StopRule
from elicit.methods.critique_ft.critic import Critique, read
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Item

ASKED = (
    "Check the solution to the question step by step. Where it goes wrong, say where, and give the right solution. "
    'End with "Conclusion: right" or "Conclusion: wrong".'
)
ROWS = 32


@dataclass(frozen=True)
class ModelCritic:
    """A model that is asked for critiques; with its chat template where it has one."""

    model: Model
    max_new_tokens: int = 256

    @property
    def identity(self) -> str:
        model = self.model
        engine = "" if model.engine == "hf" else f", engine {model.engine}"
        return f"model {model.provenance.sha256}, {model.dtype}, {self.max_new_tokens} tokens{engine}"

    @property
    def prompt(self) -> Prompt:
        return Prompt("chat") if self.model.tokenizer.chat_template else Prompt()

    def __call__(self, item: Item, candidate: str) -> Critique | None:
        return self.many(item, [candidate])[0]

    def many(self, item: Item, candidates: Sequence[str]) -> list[Critique | None]:
        """Greedy critiques; None where the model came to no conclusion."""
        out = []
        tokenizer = self.model.tokenizer
        stop = StopRule(self.model.eos_ids, self.prompt.stop, tokenizer)
        for start in range(0, len(candidates), ROWS):
            asked = [f"{ASKED}\n\nQuestion:\n{item.question}\nSolution:\n{c}" for c in candidates[start : start + ROWS]]
            batch = Batch(
                prompts=[self.prompt.ids(text, tokenizer) for text in asked],
                rng_streams=[item.id] * len(asked),
                decoder=Greedy(self.max_new_tokens),
                stop=stop,
            )
            drafts = respond(self.model, batch, ["text"] * len(asked))
            out += [read(one.said.text.strip()) for (one,) in drafts]
        return out
