"""`Elicited`: a base model plus everything that was done to it, and how it answers a batch of questions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elicit.answers import Answer, Kind, find_answer
from elicit.decoders import Decoder, Greedy, decoder_from_dict, decoder_to_dict
from elicit.decoding import Generation, Progress, StopRule, decode
from elicit.errors import UserError, unknown
from elicit.models import Model, load_model
from elicit.prompts import Prompt
from elicit.selection import SELECTABLE
from elicit.tasks.base import Item, Items
from elicit.trace import Trace, filter_path, place, response_text, rounded

FILE = "elicited.json"
ANSWER_PROMPT = "\nSo the answer is"
ANSWER_TOKENS = 24
SPANS = ("last", "prompted")


@dataclass(frozen=True)
class Elicited:
    """A model with a prompt, a decoder and a rule that chooses among the decoder's branches.

    Args:
        model: the base.
        method: the name of the mechanism or baseline that made this.
        prompt: how questions are put.
        decoder: how tokens are chosen.
        select: one of `elicit.selection.SELECTABLE`.
        span: where the answer is looked for: `last` on the path itself, or `prompted`: the path is
            continued with "So the answer is", and the answer given there is found back on the path
            (arXiv 2402.10200, section 2.2).
        filters: whether the paper's filters take paths out of the selection.
        options: the options of the method that made it, for the record.
    """

    model: Model
    method: str
    prompt: Prompt = field(default_factory=Prompt)
    decoder: Decoder = field(default_factory=Greedy)
    select: str = "greedy"
    span: str = "last"
    filters: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.select not in SELECTABLE:
            raise unknown("selection", self.select, SELECTABLE)
        if self.span not in SPANS:
            raise unknown("span", self.span, SPANS)

    def prompt_ids(self, item: Item) -> list[int]:
        return self.prompt.ids(item.question, self.model.tokenizer)

    def answer(self, items: Items, progress: Progress | None = None) -> list[list[Trace]]:
        """Answer the questions in one batch: for each its branches, graded."""
        tokenizer, lm = self.model.tokenizer, self.model.lm
        prompts = [self.prompt_ids(item) for item in items]
        policy = self.decoder.policy([item.id for item in items], self.model.vocab_size)
        generations = decode(
            lm,
            prompts,
            policy,
            max_new_tokens=self.decoder.max_new_tokens,
            stop=StopRule(self.model.eos_ids, self.prompt.stop, tokenizer),
            progress=progress,
        )
        flat = [(q, g) for q, branches in enumerate(generations) for g in branches]
        texts = [response_text(tokenizer, g, self.prompt.stop) for _, g in flat]
        kind = items.task.kind
        found: list[Answer | None] = [find_answer(text, kind) for text, _ in texts]
        extra = [0] * len(flat)
        if self.span == "prompted":
            paths = [prompts[q] + g.tokens.tolist() for q, g in flat]
            found, extra = self._prompted([t for t, _ in texts], paths, kind)
        traces: list[list[Trace]] = [[] for _ in items]
        for (q, g), (text, ends), answer, more in zip(flat, texts, found, extra, strict=True):
            traces[q].append(self._trace(items, q, len(traces[q]), len(prompts[q]), g, text, ends, answer, more))
        return traces

    def _trace(
        self,
        items: Items,
        question: int,
        branch: int,
        prompt_tokens: int,
        generation: Generation,
        text: str,
        ends: list[int],
        found: Answer | None,
        extra: int,
    ) -> Trace:
        item = items[question]
        span, delta = place(generation, ends, found)
        answer = found.text if found else None
        dropped = filter_path(text, generation.finish, answer)
        return Trace(
            item=item.id,
            index=self.decoder.first_sample + branch if hasattr(self.decoder, "first_sample") else branch,
            prompt_tokens=prompt_tokens,
            tokens=generation.tokens.tolist(),
            ends=ends,
            text=text,
            top1=rounded(generation.top1),
            top2=rounded(generation.top2),
            entropy=rounded(generation.entropy),
            logprob=rounded(generation.logprob),
            finish=generation.finish,
            spent=generation.spent + extra,
            answer=answer,
            span=span,
            delta=delta,
            dropped=dropped if self.filters or answer is None else "",
            score=items.task.grader.grade(item, answer).score,
        )

    def _prompted(
        self, texts: Sequence[str], paths: Sequence[list[int]], kind: Kind
    ) -> tuple[list[Answer | None], list[int]]:
        """Ask every path for its answer, and find what it says back on the path (its last occurrence)."""
        tokenizer = self.model.tokenizer
        question = list(tokenizer(ANSWER_PROMPT, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
        continued = decode(
            self.model.lm,
            [path + question for path in paths],
            Greedy().policy([""] * len(paths), self.model.vocab_size),
            max_new_tokens=ANSWER_TOKENS,
            stop=StopRule(self.model.eos_ids, ("\n",), tokenizer),
        )
        found: list[Answer | None] = []
        for text, (generation,) in zip(texts, continued, strict=True):
            reply = str(tokenizer.decode(generation.tokens.tolist())).split("\n")[0].split(". ")[0]
            said = find_answer(f"answer is {reply}", kind)
            start = text.rfind(said.text) if said else -1
            found.append(Answer(said.text, start, start + len(said.text)) if said and start >= 0 else None)
        return found, [generation.spent for (generation,) in continued]

    @property
    def decode_key(self) -> str:
        """A hash of all that decides the traces: two handles that differ only in `select` share it."""
        data = {k: v for k, v in self.to_dict().items() if k not in ("method", "select", "options", "model")}
        return _hash([data, self.model.provenance.sha256, self.model.dtype])

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "model": self.model.describe(),
            "prompt": self.prompt.to_dict(),
            "decoder": decoder_to_dict(self.decoder),
            "select": self.select,
            "span": self.span,
            "filters": self.filters,
            "options": self.options,
        }

    def save(self, folder: Path | str) -> Path:
        """Write the handle as a folder; the base is named with its hash, not copied."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{FILE}"
        part.write_text(json.dumps(self.to_dict(), indent=2), encoding="utf-8")
        part.replace(folder / FILE)
        return folder

    @staticmethod
    def load(folder: Path | str, model: Model | None = None) -> Elicited:
        """Read a handle; its base is loaded by name unless given.

        Raises:
            UserError: no handle there, or the base's hash is another.
        """
        file = Path(folder) / FILE
        if not file.is_file():
            raise UserError(f"{str(folder)!r} holds no {FILE}; give the elicited/ folder of a run")
        data = json.loads(file.read_text(encoding="utf-8"))
        wanted = data["model"]
        model = model or load_model(wanted["name"], dtype=wanted["dtype"])
        if model.provenance.sha256 != wanted["sha256"]:
            raise UserError(
                f"the handle was made for {wanted['name']} {wanted['sha256'][:12]}…, the model given is "
                f"{model.provenance.sha256[:12]}…; load that model"
            )
        return Elicited(
            model=model,
            method=data["method"],
            prompt=Prompt.from_dict(data["prompt"]),
            decoder=decoder_from_dict(data["decoder"]),
            select=data["select"],
            span=data["span"],
            filters=data["filters"],
            options=data["options"],
        )


def _hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
