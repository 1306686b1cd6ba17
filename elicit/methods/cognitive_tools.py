"""`cognitive-tools`: the model calls four tools that are itself, each in a context of its own (arXiv 2506.12115).

Ebouky, Bartezzaghi and Rigotti, "Eliciting Reasoning in Language Models with Cognitive Tools". Nothing is trained. The
prompt names the tools, and the model may call them while it answers: to understand the question, to recall related
ones that it can solve, to examine its answer, to go back to where it was right. How a call is decoded, and every
departure from the paper's, stands at `elicit.decoding.tools`. Beside those:
- the prompts are worded anew and are shorter; the paper's speak of mathematics alone.
- with a chat prompt the list of tools is the system message, as in the paper; elsewhere it follows the question.
- with a schedule the list is left out, since the calls are not the model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elicit.decoding.decoders import Greedy, Sampling, Tools
from elicit.decoding.progress import Progress
from elicit.decoding.tools import BEGIN, END
from elicit.elicited import Elicited
from elicit.evaluation.budget import MATCHED
from elicit.methods.base import check_own
from elicit.methods.baselines.at_budget import at_budget
from elicit.models.model import Model
from elicit.models.prompts import Prompt, prompt_for
from elicit.tasks.base import Items
from probes.errors import unknown

if TYPE_CHECKING:
    from elicit.evaluation.run.run import Run

NAME = "cognitive-tools"
SUMMARY = "lets the model call tools that are itself: understand, recall, examine, backtrack"
PAPER = "2506.12115"

INSTRUCTIONS = {
    "understand": (
        "Say what is asked, which facts and quantities are given, and which rules or steps would help. "
        "Do not work out the answer."
    ),
    "recall": (
        "Write down one or two other questions of the same kind, and solve each of them step by step. "
        "Do not solve this one."
    ),
    "examine": (
        "Check the attempt step by step, and try its result against what the question demands. Say whether it is right "
        "and, if not, where it goes wrong."
    ),
    "backtrack": (
        "Split the attempt into steps. Name the first step that is wrong or leads nowhere, go back to the one before "
        "it, and say how to go on from there."
    ),
}
READS = ("examine", "backtrack")
SHORT = {
    "understand": "what is asked, what is given, and what could help",
    "recall": "similar questions with their solutions",
    "examine": "a check of what you have written so far",
    "backtrack": "the first wrong step of what you have written, and another way from there",
}
OTHERS = 32  # questions of the fit split, of which the control `another question` takes its own


def listed(names: tuple[str, ...], calls: int) -> str:
    """What the model is told of its tools."""
    tools = "\n".join(f"- {name}: {SHORT[name]}" for name in names)
    return (
        f"You may call tools while you solve this, at most {calls} times. Write {BEGIN}NAME{END} to call one, and "
        "wait: what it found is then put between <result> and </result>, and you go on from there. Never write a "
        f"result yourself. The tools:\n{tools}\nCall a tool where it helps, reason step by step, and when you are "
        "sure, end with: The answer is"
    )


def in_one(names: tuple[str, ...]) -> str:
    """The instructions of all tools as one prompt."""
    steps = "\n".join(f"- {INSTRUCTIONS[name]}" for name in names)
    return (
        f"Solve this in one answer. Before its end do all of these, where they help:\n{steps}\nEnd with: The answer is"
    )


def with_words(prompt: Prompt, words: str) -> Prompt:
    """The prompt with more words: in the system message of a chat, behind the question elsewhere."""
    if prompt.base == "chat":
        return replace(prompt, system="\n\n".join(part for part in (prompt.system, words) if part))
    return replace(prompt, form="\n".join(part for part in (prompt.form, words) if part))


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    tools: str = ",".join(INSTRUCTIONS),
    schedule: str = "",
    calls: int = 4,
    call_tokens: int = 128,
    temperature: float = 0.0,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Elicited:
    """Nothing is fitted: the handle is the decoder, with the tools in its prompt.

    Args:
        model: the base, which is all tools too.
        items: only for `prompt="few-shot"`.
        tools: those that the model may call.
        schedule: tools that are called in this order whatever the model writes, for models that write no calls.
        calls: the most of a question.
        call_tokens: limit of what a tool says.
        temperature: of all that is drawn; 0: the most likely tokens.
        prompt: a name of `elicit.models.prompts.FORMATS` or a template file.
        max_new_tokens: limit of the answer itself; what tools say does not count.
        seed: of all random numbers.

    Raises:
        UserError: an unknown tool, a limit below 1, a schedule of more calls than `calls`; a chat template that takes
            no system message.
    """
    names, order = tuple(dict.fromkeys(_names(tools))), _names(schedule)
    chosen = order or names
    decoder = Tools(
        tuple((name, INSTRUCTIONS[name]) for name in dict.fromkeys(chosen)), tuple(n for n in READS if n in chosen),
        order, calls, call_tokens, temperature, seed, max_new_tokens,
    )  # fmt: skip
    plain = prompt_for(model, prompt, items)
    put = plain if order else with_words(plain, listed(names, calls))
    for one in (put, with_words(plain, INSTRUCTIONS[chosen[0]])):  # a template that cannot be used is told of at once
        one.text("What is 1 + 1?", model.tokenizer)
    options = {
        "tools": ",".join(chosen), "schedule": schedule, "calls": calls, "call_tokens": call_tokens,
        "temperature": temperature, "prompt": prompt, "seed": seed,
    }  # fmt: skip
    return Elicited(model, NAME, put, decoder, options=options)


def _names(given: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    for name in names:
        if name not in INSTRUCTIONS:
            raise unknown("tool", name, INSTRUCTIONS)
    return names


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """One flat prompt with the same limits and with the same tokens, tools that are mixed up, and baselines at budget.

    `flat prompt` has all instructions in one context; it may write as many tokens as an answer and all its calls, and
    `flat prompt@budget` is the majority of samples with those that were spent. `permuted tools` has each tool's
    instruction under another's name. `another question`, where there are fit items, asks tools about one of those.
    """
    check_own(handle, NAME)
    decoder, options = handle.decoder, handle.options
    assert isinstance(decoder, Tools)
    names = tuple(options["tools"].split(","))
    flat = replace(
        handle, method="flat prompt", options={},
        prompt=with_words(prompt_for(handle.model, options["prompt"], items), in_one(tuple(dict.fromkeys(names)))),
    )  # fmt: skip
    limit = decoder.max_new_tokens + decoder.most_calls * decoder.call_tokens
    drawn = decoder.temperature and Sampling(1, decoder.temperature, seed=seed, max_new_tokens=limit)
    sampled = Sampling(seed=seed, max_new_tokens=decoder.max_new_tokens)
    order = list(INSTRUCTIONS)
    other = {name: INSTRUCTIONS[order[(n + 1) % len(order)]] for n, name in enumerate(order)}
    mixed = replace(decoder, tools=tuple((name, other[name]) for name in decoder.names))
    out = {
        "flat prompt": replace(flat, decoder=drawn or Greedy(limit)),
        f"flat prompt{MATCHED}": replace(flat, decoder=sampled, select="vote"),
        "permuted tools": replace(handle, method="permuted tools", decoder=mixed, options={}),
    }
    if items is not None and (asked := tuple(i.question for i in items if i.split == "fit")[:OTHERS]):
        elsewhere = replace(decoder, others=asked)
        out["another question"] = replace(handle, method="another question", decoder=elsewhere, options={})
    return {**out, **at_budget(handle, items, seed)}


def notes(options: Mapping[str, Any]) -> list[str]:
    """How tools are called."""
    limits = f"each of at most {options['call_tokens']} tokens, which count"
    if options["schedule"]:
        return [f"Tools are called by a schedule, {options['schedule']}, and not by the model: {limits}."]
    return [
        f"The model calls {options['tools']} itself, at most {options['calls']} times a question, {limits}; for one "
        "that writes no calls there is --set schedule=understand,recall,examine."
    ]


def findings(run: Run) -> list[str]:
    """For the report: the calls of each arm."""
    import pandas as pd

    from elicit.evaluation.run.store import PARQUET
    from probes.figures import table

    columns = ["calls", "unknown_calls", "refused_calls"]
    counted = pd.read_parquet(run.store.file(PARQUET), columns=["source", *columns]).dropna()
    rows = []
    for arm, about in run.store.config["arms"].items():
        some = counted[counted["source"] == about["source"]]
        if len(some):
            answers = f"{int((some['calls'] > 0).sum())} of {len(some)}"
            rows.append((arm, answers, *(f"{some[column].mean():.2f}" for column in columns)))
    head = ("arm", "answers with calls", "calls a question", "of unknown tools", "refused")
    return ["<h2>Calls of tools</h2>", table(head, rows)] if rows else []
