"""From token ids to a graded answer: its text, the answer in it, where that lies, and its verdict.

Evaluations and rollouts come through here, so that both read and grade alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from elicit.decoding.decoders import Greedy
from elicit.decoding.loop import NOTES, Generation, StopRule, decode
from elicit.decoding.trace import Trace, filter_path, place, rounded, text_of
from elicit.models.model import Model
from elicit.tasks.answers import Answer, Kind, find_answer, token_span
from elicit.tasks.base import Item, Task
from probes.offsets import decoded
from steering.hooks import Session

ANSWER_PROMPT = "\nSo the answer is"
ANSWER_TOKENS = 24


@dataclass(frozen=True)
class Response:
    """What was said in answer to a question.

    Args:
        text: up to a stop string.
        ends: for each token the character at which it ends.
        found: the answer in the text, if there is one.
    """

    text: str
    ends: list[int]
    found: Answer | None

    @property
    def answer(self) -> str | None:
        return self.found.text if self.found else None

    @property
    def span(self) -> tuple[int, int] | None:
        """The answer's tokens, first and one past the last."""
        return token_span(self.ends, self.found) if self.found else None


def read(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: tuple[str, ...], kind: Kind) -> Response:
    """The text of token ids, whoever drew them, and the answer that it gives."""
    text, ends = text_of(tokenizer, ids, stop)
    return Response(text, ends, find_answer(text, kind))


def ask(
    model: Model, paths: Sequence[Sequence[int]], kinds: Sequence[Kind], steering: Session | None = None
) -> list[tuple[str | None, int]]:
    """Ask every path for its answer: what is said after "So the answer is", and the tokens that it took."""
    tokenizer = model.tokenizer
    question = list(tokenizer(ANSWER_PROMPT, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
    continued = decode(
        model.lm,
        [[*path, *question] for path in paths],
        Greedy().policy([""] * len(paths), model.vocab_size),
        max_new_tokens=ANSWER_TOKENS,
        stop=StopRule(model.eos_ids, ("\n",), tokenizer),
        steering=steering,
    )
    out: list[tuple[str | None, int]] = []
    for (generation,), kind in zip(continued, kinds, strict=True):
        reply = decoded(tokenizer, generation.tokens.tolist()).split("\n")[0].split(". ")[0]
        said = find_answer(f"answer is {reply}", kind)
        out.append((said.text if said else None, generation.spent))
    return out


def found_again(response: Response, answer: str | None) -> Response:
    """The response with an answer that it gave when asked for it, at its last occurrence in the text."""
    start = response.text.rfind(answer) if answer is not None else -1
    found = Answer(answer, start, start + len(answer)) if answer is not None and start >= 0 else None
    return replace(response, found=found)


def graded(
    response: Response,
    generation: Generation,
    task: Task,
    item: Item,
    *,
    index: int,
    prompt_tokens: int,
    asked: int = 0,
    filters: bool = False,
    steered: bool = False,
) -> Trace:
    """The trace of one branch.

    Args:
        response: what the generation says.
        index: of the branch or sample among those of its question.
        prompt_tokens: of the question's prompt.
        asked: tokens that it took to ask for the answer.
        filters: whether the paper's filters take it out of the selection; a path without an answer always is.
        steered: whether interventions may have moved it.
    """
    span, delta = place(generation, response.ends, response.found)
    dropped = filter_path(response.text, generation.finish, response.answer)
    grade = task.grader.grade(item, response.answer)
    notes = {} if generation.notes is None else dict(zip(NOTES, generation.notes.T.tolist(), strict=True))
    return Trace(
        item=item.id,
        index=index,
        prompt_tokens=prompt_tokens,
        tokens=generation.tokens.tolist(),
        ends=response.ends,
        text=response.text,
        top1=rounded(generation.top1),
        top2=rounded(generation.top2),
        entropy=rounded(generation.entropy),
        logprob=rounded(generation.logprob),
        finish=generation.finish,
        spent=generation.spent + asked,
        answer=response.answer,
        span=span,
        delta=delta,
        dropped=dropped if filters or response.answer is None else "",
        score=grade.score,
        moved=rounded(generation.moved) if steered else [],
        prompt_moved=generation.prompt_moved,
        unjudged=grade.unjudged,
        **notes,
    )
