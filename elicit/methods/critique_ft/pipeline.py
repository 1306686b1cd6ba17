"""The whole of a critique fine-tuning: candidates, critiques, what is trained; each kept in a folder and resumed.

runs/critique-ft-<task>-<model>-<hash>/rows.jsonl             candidates with their critiques
    …/problems.json                                               the problems that are done
…/<targets>-<hash>/training.safetensors, adapter/             as `elicit.training` resumes it, as PEFT saves it
    …/model/, steps/                                              all weights instead, and both in between
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from elicit.decoding.progress import Progress, Silent, measure
from elicit.evaluation.run.store import folder_for
from elicit.methods.base import NeedsItems
from elicit.methods.critique_ft import critique_file
from elicit.methods.critique_ft import examples as data
from elicit.methods.critique_ft.candidates import sample
from elicit.methods.critique_ft.critic import Batched, Source, criticise, flipped
from elicit.methods.critique_ft.examples import Row
from elicit.methods.critique_ft.model_critic import ModelCritic
from elicit.methods.critique_ft.symbolic_critic import Symbolic
from elicit.methods.taught import ASKS
from elicit.models.identity import grounds
from elicit.models.model import Model, load_model
from elicit.models.processes import processes
from elicit.models.prompts import Prompt
from elicit.models.zoo import ADAPTER, WHOLE
from elicit.tasks.base import Items, content_id
from elicit.training import trl_common
from elicit.training.recipe import Example, Point, Recipe
from elicit.training.saved import due, save_trained, step_folder
from elicit.training.sft import batches, excess_bits, to_train, train
from probes.errors import UserError, as_expected, unknown
from probes.files import digest, make_folder, write_whole
from steering.adapters import Adapter, Tuned, Weights

ROWS, DONE = "rows.jsonl", "problems.json"
SOURCES = {
    "symbolic": "an exact checker: organisms' problems step by step, equations in any text",
    "model": "the base itself",
    "model:NAME": "another model, by name, hub id, folder or GGUF file",
    "FILE": "critiques in JSON Lines, also in the authors' formats",
}


@dataclass(frozen=True)
class Fitting:
    """The options of a fit; `elicit.methods.critique_ft.fit` says what they mean."""

    source: str
    problems: int
    candidates: int
    first: int
    ask: str
    targets: str
    temperature: float
    steps: int
    lr: float
    rank: int
    rows: int
    width: int
    max_new_tokens: int
    seed: int
    engine: str = "own"
    trl: dict[str, Any] = field(default_factory=dict)
    save_every: int = 0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.candidates < 1 or min(self.problems, self.first, self.rank, self.save_every) < 0:
            raise UserError(
                f"problems {self.problems}, first {self.first}, candidates {self.candidates}, rank {self.rank}, "
                f"save_every {self.save_every} were given; give at least 1 candidate, and 0 or more of the others"
            )
        if self.ask not in ASKS:
            raise unknown("way to ask", self.ask, ASKS)
        if self.targets not in data.TARGETS:
            raise unknown("kind of targets", self.targets, data.TARGETS)
        trl_common.check(self.engine, self.trl)
        self.recipe()

    def kept(self) -> dict[str, Any]:
        """As records hold it: `save_every` and `checkpointing` where they say something."""
        return {k: v for k, v in vars(self).items() if k not in ("save_every", "checkpointing") or v}

    def recipe(self) -> Recipe:
        return Recipe(
            steps=self.steps, rows=self.rows, width=self.width, part=min(5, self.rows), lr=self.lr,
            warmup=max(1, self.steps // 10), rank=self.rank, alpha=max(1, 2 * self.rank), seed=self.seed,
            checkpointing=self.checkpointing,
        )  # fmt: skip

    def problems_of(self, items: Items) -> Items:
        """The problems that are trained on: of the fit split, from the `first` on; all of them for 0.

        Raises:
            UserError: fewer items than that.
        """
        fit = items.task.split("fit")
        chosen = fit[self.first : self.first + self.problems if self.problems else None]
        if len(chosen) < max(1, self.problems):
            raise UserError(
                f"{self.problems} problems from number {self.first} on were asked for and the fit split has "
                f"{len(fit)}; give fewer, or a larger limit"
            )
        return chosen


@dataclass(frozen=True, eq=False)
class Fitted:
    """What was trained with the record of its fit."""

    adapter: Tuned
    record: dict[str, Any]


def source_for(name: str, model: Model, items: Items, seed: int) -> Source:
    """A source by name.

    Raises:
        UserError: an unknown name, a model or file that cannot be read.
    """
    if name == "symbolic":
        return Symbolic(items.task, seed)
    if name == "model":
        return ModelCritic(model)
    if name.startswith("model:"):
        return ModelCritic(load_model(name.removeprefix("model:"), device=str(model.lm.device)))
    if Path(name).suffix in (".jsonl", ".json"):
        return critique_file.load(name)
    raise unknown("critique source", name, SOURCES, hint="(or a .jsonl file)")


def fit(
    model: Model,
    items: Items | None,
    prompt: Prompt,
    options: Fitting,
    source: Source | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Sample, criticise, train.

    Args:
        model: the base; inside the call it has PEFT's layers, after it it is what it was.
        items: of a task; its fit split alone is used.
        prompt: how questions are put.
        options: the rest.
        source: instead of the one that the options name.
        progress: reports problems and steps.

    Raises:
        UserError: no items, no end token, no usable row; as `Fitting`, `source_for` and `train`.
    """
    if items is None:
        raise NeedsItems("critique-ft takes its problems from the fit items of a task")
    if model.tokenizer.eos_token_id is None:
        raise UserError(
            f"{model.name} has a tokenizer without an end token, and a critique has to end; give the tokenizer one"
        )
    critic = source or source_for(options.source, model, items, options.seed)
    with trl_common.first_alone(model):
        folder, rows, left_out = _rows(model, items, prompt, options, critic, progress or Silent())
    kinds = data.examples(options.targets, rows, prompt, model.tokenizer, options.seed)
    examples = data.fitting(kinds, options.width)
    recipe = options.recipe()
    identity: dict[str, Any] = {
        "base": model.provenance.sha256, "dtype": model.dtype, "targets": options.targets, "examples": digest(examples),
    }  # fmt: skip
    if options.engine == "trl":
        identity |= {"trl": options.trl, "processes": processes()}
    if options.save_every:
        identity["save_every"] = options.save_every
    place = folder / f"{options.targets}-{digest([recipe.kept(), identity])}"
    curve, bits = _train(model, examples, recipe, place, identity, progress or Silent(), options)
    record = {
        "folder": str(place),
        "source": critic.identity
        if isinstance(critic, Batched)
        else getattr(critic, "__name__", type(critic).__name__),
        "problems": list(dict.fromkeys(row.item for row in rows)),
        **_counted(rows),
        "without_conclusion": left_out,
        "too_long": len(kinds) - len(examples),
        "examples": len(examples),
        "target_tokens": sum(len(one.target) for one in examples),
        "trained_tokens": sum(point.tokens for point in curve),
        "curve": [round(point.loss, 4) for point in curve],
        "shown": [[row.question, row.candidate, row.critique] for row in rows[:3]],
        **({} if bits is None else {"bits": bits}),
    }
    return Fitted(Adapter(place / ADAPTER) if recipe.rank else Weights(place / WHOLE), record)


def _counted(rows: Sequence[Row]) -> dict[str, Any]:
    """How many rows, how many right by the critic and by the grader, and how often the two agree."""
    graded = [row for row in rows if row.correct is not None]
    return {
        "rows": len(rows),
        "held_right": sum(row.right for row in rows),
        "graded": len(graded),
        "graded_right": sum(bool(row.correct) for row in graded),
        "agree": sum(row.right == row.correct for row in graded),
    }


def _rows(
    model: Model, items: Items, prompt: Prompt, options: Fitting, critic: Source, progress: Progress
) -> tuple[Path, list[Row], int]:
    """The folder of the fit, its rows, and how many critiques came to no conclusion."""
    if isinstance(critic, critique_file.CritiqueFile):
        rows = _rows_of_file(critic, items, options)
        return _folder(model, items, [critic.identity, [row.question for row in rows]]), rows, critic.unusable
    problems = options.problems_of(items)
    known = critic.identity if isinstance(critic, Batched) else None
    if known is None and processes() > 1:
        raise UserError("a function was given as critique source to several processes; write its critiques to a file")
    drawn = [options.ask, options.candidates, options.temperature, options.max_new_tokens, options.seed]
    stands_on = grounds(problems, [model, *([critic.model] if isinstance(critic, ModelCritic) else [])])
    folder = _folder(model, items, [known or options.source, stands_on, prompt.to_dict(), *drawn])
    kept = _kept(folder) if known is not None else {}
    progress.arm("critique-ft: critiques", len(problems), sum(item.id in kept for item in problems))
    for item in problems:
        if item.id in kept:
            continue
        found = sample(
            model, items, item, prompt, ask=options.ask, count=options.candidates, temperature=options.temperature,
            max_new_tokens=options.max_new_tokens, seed=options.seed, progress=progress,
        )  # fmt: skip
        texts = [one.text for one in found]
        critiques = criticise(critic, item, texts)
        if isinstance(critic, Symbolic):
            lies = criticise(critic.untruthful(), item, texts)
        else:
            lies = [flipped(one) for one in critiques]
        made: list[Row | None] = [
            data.row_of(item.id, item.question, one.text, said, lie, one.correct) if said and lie else None
            for one, said, lie in zip(found, critiques, lies, strict=True)
        ]
        kept[item.id] = [row for row in made if row is not None], made.count(None)
        _keep(folder, kept)
        progress.advance(1, 0)
    rows = [row for item in problems for row in kept[item.id][0]]
    left_out = sum(kept[item.id][1] for item in problems)
    if not rows:
        raise UserError(
            f"no usable row: of {left_out} critiques none came to a conclusion; give another source, or more candidates"
        )
    return folder, rows, left_out


def _rows_of_file(file: critique_file.CritiqueFile, items: Items, options: Fitting) -> list[Row]:
    """The first problems of a file, with the first candidates of each; none that is evaluated.

    Raises:
        UserError: a question of the dev or test split in the file; no problem so far on.
    """
    evaluated = {item.question for item in items.task.items if item.split != "fit"}
    if any(entry.question in evaluated for entry in file.entries):
        raise UserError(f"{str(file.path)!r} holds questions of the dev or test split; take them out")
    questions = list(dict.fromkeys(entry.question for entry in file.entries))
    chosen = questions[options.first : options.first + options.problems if options.problems else None]
    if not chosen:
        raise UserError(f"{str(file.path)!r} has {len(questions)} problems; give a smaller first than {options.first}")
    by_question = {question: [e for e in file.entries if e.question == question] for question in chosen}
    rows = []
    for question, entries in by_question.items():
        for entry in entries[: options.candidates]:
            lie = flipped(entry.critique)
            assert lie is not None
            rows.append(data.row_of(f"file-{content_id(question)}", question, entry.candidate, entry.critique, lie))
    return rows


def _train(
    model: Model,
    examples: Sequence[Example],
    recipe: Recipe,
    place: Path,
    identity: dict[str, Any],
    progress: Progress,
    options: Fitting,
) -> tuple[list[Point], float | None]:
    """Train an adapter or all weights and save them; the base is given back as it was. Also the bits of its targets,
    where the suite's own trainer counted them."""
    batch = batches(examples, recipe.rows, recipe.width, recipe.seed)
    name = f"critique-ft: {identity['targets']}"
    progress.arm(name, recipe.steps, 0)
    if options.engine == "trl":
        from elicit.training import trl_sft as trl

        curve = trl.train(
            model, batch, recipe, place, identity=identity, given=options.trl, save_every=options.save_every,
            on_step=_Steps(progress, name),
        )  # fmt: skip
        return _told(progress, name, curve), None

    def save(lm: PreTrainedModel, folder: Path) -> None:
        save_trained(lm, model.tokenizer, recipe, folder, model.name, torch.bfloat16)

    with to_train(model.lm, recipe.rank) as lm:
        steps = _Steps(progress, name, lambda done: save(lm, step_folder(place, done)), options.save_every)
        curve = train(lm, batch, recipe, place, identity=identity, on_step=steps, coded=True)
        bits = excess_bits(lm, batch, recipe, curve)
        save(lm, place)
    return _told(progress, name, curve), bits


def _told(progress: Progress, name: str, curve: list[Point]) -> list[Point]:
    """The curve, after all of it was measured: a process that was killed may have kept a step that it did not tell."""
    for point in curve:
        values = {"loss": point.loss, "norm": point.norm, "tokens_per_second": point.tokens / point.seconds}
        measure(progress, name, point.step, values)
    return curve


@dataclass(frozen=True)
class _Steps:
    """Training steps, as a progress bar counts questions; those of an earlier call at once. Some are saved."""

    progress: Progress
    name: str
    save: Callable[[int], None] | None = None
    every: int = 0
    began: list[int] = field(default_factory=list)

    def __call__(self, step: int, loss: float, tokens_per_second: float) -> None:
        if self.save is not None and due(step + 1, self.every):
            self.save(step + 1)
        self.progress.advance(1 if self.began else step + 1, 0)
        self.began.append(step)
        measure(self.progress, self.name, step, {"loss": loss, "tokens_per_second": tokens_per_second})


def _folder(model: Model, items: Items, decides: list[Any]) -> Path:
    return folder_for("critique-ft", items.task.name, model.name, [model.provenance.sha256, model.dtype, decides])


def _keep(folder: Path, kept: dict[str, tuple[list[Row], int]]) -> None:
    """All rows so far, which are a critique source themselves; what names the finished problems comes last."""
    make_folder(folder)
    write_whole(folder / ROWS, "".join(json.dumps(row.to_dict()) + "\n" for rows, _ in kept.values() for row in rows))
    write_whole(folder / DONE, json.dumps({item: missing for item, (_, missing) in kept.items()}))


def _kept(folder: Path) -> dict[str, tuple[list[Row], int]]:
    """For each finished problem its rows, and how many critiques came to no conclusion."""
    if not (folder / DONE).is_file():
        return {}
    with as_expected(f"{ROWS} or {DONE} in {str(folder)!r}", "remove both, and the fit asks again"):
        lines = (folder / ROWS).read_text(encoding="utf-8").split("\n")
        rows = [Row.from_dict(json.loads(line)) for line in lines if line]
        done = {str(item): int(missing) for item, missing in json.loads((folder / DONE).read_text("utf-8")).items()}
    return {item: ([row for row in rows if row.item == item], missing) for item, missing in done.items()}
