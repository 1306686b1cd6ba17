"""Rewards and pre-flight as plain callables, for trainings that others run: TRL's and verl's.

A reward is named as everywhere here (`exact`, `exact+0.5*format`, `random:0.3`; `elicit.training.rl.rewards`) and
graded by the same graders. TRL calls a reward with all completions of a process and the columns of their rows; verl
with one answer at a time, in any of several processes and threads, so that there a reward cannot compare an item's
answers.
What TRL is asked was tried with TRL 1.16; what verl asks with the reward managers `naive`, `dapo` and `gdpo` of
verl 0.9.1, made from its own configuration.
"""

from __future__ import annotations

import copy
import json
import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from itertools import islice
from numbers import Number
from pathlib import Path
from typing import Any

import torch

from elicit.decoding.answering import found_in
from elicit.models.processes import processes, rank
from elicit.models.prompts import Prompt
from elicit.tasks.answers import KINDS, Kind
from elicit.tasks.base import Item, Task, content_id, is_found
from elicit.tasks.grading import check_kind, grader_for
from elicit.tasks.statements import open_thought
from elicit.training.rl.preflight import Preflight, of_rewards
from elicit.training.rl.rewards import Graded, RewardContext, Rewards, Rollout, parse
from probes.errors import UserError

GOLD = ("exact", "boxed")  # rewards that read the gold answer
REFUSED = {
    "incorrect": "give exact, with the wrong answers as its gold",
    "information-gain": "it asks the base, which no plain reward has",
}
OTHERWISE = "checked=False gives the figures and goes on"

TrlReward = Callable[..., list[float]]
VerlReward = Callable[..., dict[str, float]]


class _Reader:
    """Completions as graded rollouts, without a task."""

    def __init__(self, reward: str, kind: Kind, seed: int, limit: int, begun: str) -> None:
        check_kind(kind, KINDS)
        self.name, self.seed, self.limit, self.begun = reward, seed, limit, begun
        self.rewards: Rewards = parse(reward)
        self.terms = {name.partition(":")[0] for name, _, _ in self.rewards.terms}
        for name in self.terms & set(REFUSED):
            raise UserError(f"reward {name!r} was given as a plain callable; {REFUSED[name]}")
        if begun and open_thought(begun) != begun:
            raise UserError(f"begun = {begun!r} was given; give the mark of a thought, like <think>")
        self.reads_gold = bool(self.terms & set(GOLD))
        self.task = Task("completions", (), grader_for(kind), kind, {})
        self.checked = lru_cache(maxsize=65536)(self._checked)

    def _checked(self, gold: str) -> bool:
        return is_found(Item("gold", "", gold, "fit"), self.task.grader, self.task.kind)

    def gold(self, given: Any, where: str) -> str | None:
        """A gold answer as text; None where no reward reads it.

        Raises:
            UserError: none, or one that is not found as right in a response that gives it.
        """
        if not self.reads_gold:
            return None
        if not isinstance(given, str | Number):
            raise UserError(
                f"{where} is {type(given).__name__} and reward {self.name!r} reads a gold answer; give a text or number"
            )
        text = str(given)
        if not self.checked(text):
            raise UserError(
                f"{where} is {text[:60]!r}, which is not read as an answer of kind {self.task.kind}; give the answer "
                f"alone, or another kind of {', '.join(KINDS)}"
            )
        return text

    def rollout(self, name: str, sample: int, text: str, gold: str | None, begun: str, tokens: list[int]) -> Rollout:
        item = Item(name, "question", gold, "fit")
        found = found_in(text, self.task.kind, begun)
        answer = found.text if found else None
        grade = self.task.grader.grade(item, answer)
        return Rollout(item, sample, tokens, text, answer, None, grade.score, "", [], grade.unjudged)

    def grade(self, rollouts: Sequence[Rollout], begun: str) -> list[Graded]:
        put = Prompt("template", template="{question}" + begun)
        context = RewardContext(self.task, put, None, nullcontext, self.limit, self.seed, {})
        return self.rewards.grade(rollouts, context)


def trl_reward(
    reward: str = "exact", gold: str = "answer", *, kind: Kind = "math", seed: int = 0, limit: int = 0, begun: str = ""
) -> TrlReward:
    """A reward function for TRL's `GRPOTrainer` and `RLOOTrainer` (`reward_funcs`).

    Args:
        reward: terms joined by +, each `[weight*]name[:argument]`, as `--set reward=` takes them. Not `incorrect` and
            `information-gain`, which ask the base; `majority` in one process alone.
        gold: the data set's column with the gold answer, which `exact` and `boxed` read.
        kind: of the answers: number, math, option, expression, text, code, whole or last-number.
        seed: of `random`. Its tosses are the same in each training of as many processes.
        limit: tokens of a completion, of which `length` is the fraction.
        begun: the mark of a thought that the chat template ends in, like `<think>`; at the end of a plain prompt it
            is found.

    Returns:
        A function of TRL's form: (prompts, completions, **columns) → one number a completion, 0 where the reward reads
        nothing (a None would take the completion out of its group). Prompts and completions are texts or messages, of
        which the last is read.

    Raises:
        UserError: an unknown reward or kind; by the function: a column that is not there or holds no answers.
    """
    reader = _Reader(reward, kind, seed, limit, begun)
    if "length" in reader.terms and limit < 1:
        raise UserError("reward 'length' was given without limit; give limit, the largest number of tokens")
    seen: Counter[str] = Counter()
    at = -1

    def function(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        nonlocal at
        if "majority" in reader.terms and processes() > 1:
            raise UserError(
                f"reward 'majority' was given in {processes()} processes, which see a part of a group each; give one"
            )
        if reader.reads_gold and gold not in columns:
            there = ", ".join(name for name, value in columns.items() if isinstance(value, list)) or "none"
            raise UserError(f"the data set has no column {gold!r}; give the one with the gold answers, of {there}")
        ids = columns.get("completion_ids")
        if "length" in reader.terms and ids is None:
            raise UserError("reward 'length' counts tokens; give completion_ids, as TRL does")
        step = getattr(columns.get("trainer_state"), "global_step", 0)
        if step != at:
            seen.clear()
            at = step
        together: dict[str, list[tuple[int, Rollout]]] = {}
        marks: dict[str, str] = {}
        for n, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            put = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)
            answer = reader.gold(columns[gold][n], f"column {gold!r} of a row") if reader.reads_gold else None
            name = f"{content_id(f'{put} {answer}')} {step} {rank()}"
            marks[name] = (open_thought(prompt) if isinstance(prompt, str) else "") or begun
            tokens = list(ids[n]) if ids is not None else []
            one = reader.rollout(name, seen[name], _text(completion), answer, marks[name], tokens)
            seen[name] += 1
            together.setdefault(name, []).append((n, one))
        out = [0.0] * len(completions)
        for name, some in together.items():
            for (n, _), graded in zip(some, reader.grade([one for _, one in some], marks[name]), strict=True):
                out[n] = graded.total
        return out

    function.__name__ = function.__qualname__ = reward
    return function


def _text(completion: Any) -> str:
    """What a completion says: a text, or the last of its messages."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if completion else ""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    return content or ""


def verl_reward(reward: str = "exact", *, kind: Kind = "math", seed: int = 0, begun: str = "") -> VerlReward:
    """A reward function for verl (`reward.custom_reward_function`, in older versions `custom_reward_function`).

    Args:
        reward, kind, begun: as `trl_reward`'s; not `majority` and `length` either, since verl shows one text at a time.
        seed: beside it each toss of `random` is new: verl does not say which of an item's answers is asked about.

    Returns:
        A function of verl's form: (data_source, solution_str, ground_truth, extra_info) → `score`, the total, and each
        term without its weight by its name, 0 where it reads nothing; with `exact` also `acc`, which verl reports as
        accuracy: of a function that gives a number alone it takes the total for that (0.9.1, `naive`).

    Raises:
        UserError: as `trl_reward`.
    """
    reader = _Reader(reward, kind, seed, 0, begun)
    for name in ("majority", "length"):
        if name in reader.terms:
            raise UserError(f"reward {name!r} was given for verl, which shows one text at a time and no tokens of it")

    def compute_score(
        data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any = None, **_: Any
    ) -> dict[str, float]:
        answer = reader.gold(ground_truth, f"ground_truth of {data_source!r}")
        name = content_id(str(answer))
        one = reader.rollout(name, secrets.randbits(63), solution_str, answer, begun, [])
        graded = reader.grade([one], begun)[0]
        accuracy = {"acc": graded.parts["exact"]} if "exact" in graded.parts else {}
        return {"score": graded.total} | accuracy | graded.parts

    return compute_score


def trl_preflight(trainer: Any, examples: int = 8, *, checked: bool = True) -> Preflight:
    """Sample with a trainer of TRL as it will, grade by its rewards, and refuse a training without a signal.

    Call it before `trainer.train()`; each process calls it. The trainer generates as in training (vLLM, tools, chat
    template, its own `rollout_func`), and its random numbers, metrics and logs are afterwards what they were.

    Args:
        trainer: a `GRPOTrainer`.
        examples: rows of its data set that are sampled, a group of `num_generations` each, evenly from all.
        checked: whether a training without a signal is refused.

    Raises:
        UserError: the rewards read nothing or are the same in every group; a trainer with environments or sharded
            weights, which cannot be asked before it trains.
    """
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise UserError("the trainer shards its weights, which cannot be sampled before it trains; give one without")
    if getattr(trainer, "environment_factories", None) is not None:
        raise UserError("the trainer has environments, which are made as it trains; give one with reward functions")
    count, of = trainer.accelerator.num_processes, trainer.accelerator.process_index
    whole = -(-examples // count)
    mine = _rows(trainer.train_dataset, whole * count)[of::count]
    if not mine or len(mine) * count < min(examples, 2):
        raise UserError(f"the trainer's data set has no {examples} rows for {count} processes; give fewer examples")
    size = trainer.num_generations
    most = max(1, trainer.args.generation_batch_size // size // count)
    groups: list[list[float | None]] = []
    with _untouched(trainer):
        for start in range(0, len(mine), most):
            inputs = [copy.deepcopy(row) for row in mine[start : start + most] for _ in range(size)]
            prompts = [row["prompt"] for row in inputs]
            _, ids, _, completions, _, extra, *_ = trainer._generate(prompts)
            for key, values in extra.items():  # what a rollout_func says of its samples
                for n, row in enumerate(inputs):
                    row[key] = values[n] if isinstance(values, list) else values
            each = trainer._calculate_rewards(inputs, prompts, completions, ids).cpu()
            total = (each * trainer.reward_weights.cpu()).nansum(1)
            total[each.isnan().all(1)] = math.nan
            groups += total.view(-1, size).tolist()
    found = of_rewards(groups)
    if checked:
        found.check("+".join(trainer.reward_func_names), OTHERWISE)
    return found


def _rows(data: Any, count: int) -> list[dict[str, Any]]:
    """So many rows, evenly from all of them; the first ones of a stream."""
    if not hasattr(data, "__len__"):
        return list(islice(iter(data), count))
    count = min(count, len(data))
    return [data[n * len(data) // count] for n in range(count)]


@contextmanager
def _untouched(trainer: Any) -> Iterator[None]:
    """The trainer in training mode inside the context, and afterwards as it was."""
    names = ("_metrics", "_logs", "_pending_metrics", "_pending_extra_logs")
    kept = {name: copy.deepcopy(getattr(trainer, name)) for name in names if hasattr(trainer, name)}
    tokens, training = trainer.state.num_input_tokens_seen, trainer.model.training
    trainer.model.train()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(trainer.args.seed ^ 0x5EED)
            yield
    finally:
        trainer.model.train(training)
        trainer.state.num_input_tokens_seen = tokens
        for name, value in kept.items():
            setattr(trainer, name, value)


def verl_log(file: Path | str, score: str = "score") -> list[list[float | None]]:
    """The groups of rewards of one step of verl, which `trainer.rollout_data_dir` writes as `<step>.jsonl`.

    Rows with the same prompt (`input`) are a group, in whatever order they stand.

    Args:
        file: of one step.
        score: the field that holds the reward; of a mixture one of its parts.

    Raises:
        UserError: a file that is not there or not of this form.
    """
    path = Path(file)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # U+2028 and its like stand in texts as they are
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}); give a file of trainer.rollout_data_dir") from error
    groups: dict[str, list[float | None]] = {}
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"line {n} of {str(path)!r} is no JSON; give a file of trainer.rollout_data_dir") from error
        value = row.get(score) if isinstance(row, Mapping) else None
        if not isinstance(row, Mapping) or not isinstance(row.get("input"), str) or not isinstance(value, int | float):
            raise UserError(f"line {n} of {str(path)!r} has no text 'input' with a number {score!r}; give other fields")
        groups.setdefault(row["input"], []).append(float(value))
    return list(groups.values())
