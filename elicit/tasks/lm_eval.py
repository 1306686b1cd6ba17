"""Tasks of lm-eval as tasks of this suite: their prompts, filters and metrics as they are there.

`lm-eval:NAME`, or the path of a task's YAML for the name, takes a task of `generate_until`: each question is the whole
prompt that lm-eval makes, answers end at the task's strings, and an answer is right where the task's metric is 1 after
its filter. A task of `multiple_choice` is taken where its choices are letters, so that one can be said; others ask for
likelihoods, and are asked through `elicit lm-eval`. Test items are lm-eval's documents in its order, under ids of their
content; fit and dev items are of the splits that the task does not test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Any

from elicit.tasks.base import Grade, Item, Split, Task, content_id, mixed, split_of
from elicit.tasks.given import value_of
from elicit.tasks.grading import grader_for
from probes.errors import UserError, unknown

FAMILY = "lm-eval"
PARAMETERS = ("include_path", "num_fewshot", "filter", "metric")
SHOTS_SEED = 1234  # lm-eval's own, of the examples that it draws


class SampleIds:
    """Ids for the documents of tasks, from their content: the same wherever one stands, and whatever else is asked.

    What has one task and number is one document; others of the same content get a number of their own.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, list[int | None]] = {}

    def of(self, task: str | None, number: int | None, doc: Any) -> str:
        """The id of a document: its task's name, the number that lm-eval gave it, and what it holds."""
        text = json.dumps(doc, sort_keys=True, default=str, ensure_ascii=False)
        name = f"{task or 'text'}-{content_id(text)}"
        seen = self.numbers.setdefault(name, [])
        if number not in seen:
            seen.append(number)
        at = seen.index(number)
        return f"{name}-{at + 1}" if at else name


class LmEvalGrader:
    """A task's own filter and metric, on the whole text of a response.

    Args:
        source: of the task.
        made: the task itself; made of its source when it is first needed, unless given.
    """

    of_text = True

    def __init__(self, source: dict[str, Any], made: Any = None) -> None:
        self.source, self._made = source, made

    @cached_property
    def task(self) -> Any:
        return self._made or _made(self.source)

    @property
    def depends(self) -> dict[str, Any]:
        return {key: self.source[key] for key in ("task", "filter", "metric", "config", "lm-eval")}

    def filtered(self, doc: Any, text: str) -> Any:
        """What the filter leaves of a response."""
        from lm_eval.api.instance import Instance

        request = Instance("generate_until", doc, ("", {}), 0, (self.source["task"], 0, 1), resps=[text])
        for one in self.task._filters:
            if one.name == self.source["filter"]:
                one.apply([request])
        return request.filtered_resps[self.source["filter"]]

    def grade(self, item: Item, answer: str | None) -> Grade:
        if answer is None:
            return Grade(0.0)
        doc, metric = item.metadata["doc"], self.source["metric"]
        found = self.task.process_results(doc, [self.filtered(doc, answer)])
        value = found.get(metric)
        if not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise UserError(
                f"metric {metric!r} of {self.source['task']!r} is {value!r} for an answer; give one that is "
                f"from 0 to 1 for each: metric={' or '.join(sorted(found))}"
            )
        return Grade(float(value))

    def groups(self, answers: Sequence[str]) -> list[int]:
        first: dict[str, int] = {}
        try:
            return [first.setdefault(str(self.filtered({}, answer)), i) for i, answer in enumerate(answers)]
        except KeyError as error:
            raise UserError(
                f"filter {self.source['filter']!r} of {self.source['task']!r} reads {error} of each question, and "
                "answers cannot be compared without it; give another filter, or a method that does not vote"
            ) from error


def load(text: str, params: dict[str, Any]) -> Task:
    """A task by its name in lm-eval, or its YAML, and what follows: `gsm8k,num_fewshot=5,filter=strict-match`.

    Raises:
        UserError: lm-eval is not installed, an unknown task or parameter, a task that cannot be asked.
    """
    name, *pairs = text.split(",")
    given = dict(params)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"task parameter {pair!r} was given; write key=value, separated by commas")
        given[key.strip()] = value_of(value)
    for key in given:
        if key not in PARAMETERS:
            raise unknown("parameter of lm-eval tasks", key, PARAMETERS)
    shots = given.get("num_fewshot")
    if shots is not None and (type(shots) is not int or shots < 0):
        raise UserError(f"num_fewshot={shots!r} was given; give a number of examples")
    source: dict[str, Any] = {
        "family": FAMILY,
        "task": name,
        **{k: str(given[k]) for k in PARAMETERS[:1] if k in given},
    }
    if shots is not None:
        source["num_fewshot"] = shots
    made = _made(source)
    config = json.dumps(made.dump_config(), sort_keys=True, default=str)
    source |= {"config": hashlib.sha256(config.encode()).hexdigest()[:16], "lm-eval": version("lm_eval")}
    if made.OUTPUT_TYPE == "generate_until":
        return _of_texts(made, source, given)
    if made.OUTPUT_TYPE == "multiple_choice":
        return _of_letters(made, source, given)
    raise UserError(
        f"{name!r} is of {made.OUTPUT_TYPE}: it asks how likely texts are, and no answer; give it to elicit lm-eval"
    )


def _made(source: dict[str, Any]) -> Any:
    """lm-eval's own task, ready to make contexts in the order in which lm-eval makes them."""
    try:
        from lm_eval.tasks import TaskManager
        from lm_eval.tasks._yaml_loader import load_yaml
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, which tasks of lm-eval need; pip install 'elicit[lm-eval]'"
        ) from error
    name, include = source["task"], source.get("include_path")
    try:
        if Path(name).suffix in (".yaml", ".yml"):
            if not Path(name).is_file():
                raise UserError(f"there is no task file {name!r}; give the path of a task's YAML, or a task's name")
            found = TaskManager(include_defaults=False).load([load_yaml(Path(name).absolute(), resolve_func=True)])
        else:
            manager = TaskManager(include_path=include, include_defaults=False) if include else None
            if manager is None or name not in manager.all_tasks:
                manager = TaskManager(include_path=include)
            if name not in manager.all_tasks:
                raise unknown("task of lm-eval", name, manager.all_tasks)
            found = manager.load([name])
    except (ValueError, KeyError, TypeError, OSError, ImportError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"lm-eval cannot load {name!r} ({lines[0]}); mend the task, or give another") from error
    tasks = list(found["tasks"].values())
    if len(tasks) != 1:
        raise UserError(
            f"{name!r} is a group of {len(tasks)} tasks; give one of them, like {next(iter(found['tasks']))}"
        )
    (made,) = tasks
    if getattr(made, "MULTIMODAL", False) or getattr(made, "UNSAFE_CODE", False):
        raise UserError(f"{name!r} shows pictures or runs what models write, which is not done here; give another task")
    if source.get("num_fewshot") is not None:
        made.set_config(key="num_fewshot", value=source["num_fewshot"])
    made.set_fewshot_seed(seed=SHOTS_SEED)
    return made


def _of_texts(made: Any, source: dict[str, Any], given: dict[str, Any]) -> Task:
    filters = [one.name for one in made._filters]
    for what, names in (("filter", filters), ("metric", list(made._metric_fn_list))):
        source[what] = given.get(what, names[0])
        if source[what] not in names:
            raise unknown(f"{what} of {source['task']}", source[what], names)
    if not made.higher_is_better().get(source["metric"], True):
        raise UserError(f"of metric {source['metric']!r} less is better, so that it judges no answer; give another")
    until = made.config.generation_kwargs.get("until") or []
    source["until"] = [until] if isinstance(until, str) else list(until)
    items = _items(made, source, lambda doc: _gold(made, doc))
    _check_filter(source, made, filters, items[0])
    return Task(f"lm-eval:{source['task']}", items, LmEvalGrader(source, made), "whole", source)


def _of_letters(made: Any, source: dict[str, Any], given: dict[str, Any]) -> Task:
    if given.keys() & {"filter", "metric"}:
        raise UserError(
            f"{source['task']!r} is of choices, which are judged by their letters; leave filter and metric out"
        )
    source["until"] = [made.config.fewshot_delimiter]
    for doc in made.eval_docs:
        choices = [str(choice).strip(" ().") for choice in made.doc_to_choice(doc)]
        if not all(len(choice) == 1 and choice.isalpha() for choice in choices):
            raise UserError(
                f"{source['task']!r} asks which of its continuations is likelier, like {choices[0][:40]!r}, and shows "
                "none in its prompt under a letter; give it to elicit lm-eval"
            )
    return Task(f"lm-eval:{source['task']}", _items(made, source, lambda doc: _gold(made, doc)), grader_for("option"),
                "option", source)  # fmt: skip


def _gold(made: Any, doc: Any) -> str:
    """The text of the right answer; of several the first."""
    target = made.doc_to_target(doc)
    if made.config.doc_to_choice is not None and isinstance(target, int):
        return str(made.doc_to_choice(doc)[target]).strip()
    return str(target[0] if isinstance(target, list) else target).strip()


def _items(made: Any, source: dict[str, Any], gold: Any) -> tuple[Item, ...]:
    """Items of all splits. What the test split holds is no fit or dev item, nor what stands among its own examples."""
    ids = SampleIds()
    out, held, left_out = [], set(), 0
    for split, docs in _splits(made):
        for number, doc in enumerate(docs):
            kept = json.loads(json.dumps(doc, default=str))
            text = json.dumps(kept, sort_keys=True)
            question = _context(made, doc, number)
            if split == "test":
                held.add(text)
            elif text in held or (made.config.num_fewshot and question.count(made.doc_to_text(doc)) > 1):
                left_out += 1
                continue
            place: Split = split_of(text) if split is None else split  # type: ignore[assignment]
            place = "fit" if split is None and place == "test" else place
            name = ids.of(made.config.task, number if split == "test" else -number - 1, doc)
            out.append(Item(name, question, gold(doc), place, {"doc": kept}))
    if left_out:
        source["left_out"] = left_out
    return mixed(out)


def _splits(made: Any) -> Iterator[tuple[Split | None, Any]]:
    """The documents of each split: those that lm-eval tests, and fit and dev; None: of both, by a hash."""
    yield "test", made.eval_docs
    validation = made.has_test_docs() and made.has_validation_docs()
    if validation:
        yield "dev", made.validation_docs()
    if made.has_training_docs():
        yield ("fit" if validation else None), made.training_docs()


def _context(made: Any, doc: Any, number: int) -> str:
    """The whole prompt of a document."""
    context = made.fewshot_context(doc, num_fewshot=made.config.num_fewshot or 0, gen_prefix=made.doc_to_prefix(doc))
    if not isinstance(context, str):
        raise UserError(f"{made.config.task!r} has a prompt for each choice; give it to elicit lm-eval")
    request = made.construct_requests(
        doc=doc, ctx=context, metadata=(made.config.task, number, 1), apply_chat_template=False, chat_template=None
    )
    first = request[0] if isinstance(request, list) else request
    return str(first.args[0])


def _check_filter(source: dict[str, Any], made: Any, filters: Sequence[str], item: Item) -> None:
    """Refuse a filter under which the gold answer is not right, where another has it right."""
    right = [
        name for name in filters if LmEvalGrader({**source, "filter": name}, made).grade(item, item.answer).correct
    ]
    if right and source["filter"] not in right:
        raise UserError(
            f"filter {source['filter']!r} of {source['task']!r} does not find its own gold answer, like "
            f"{(item.answer or '')[:40]!r}; give filter={' or '.join(right)}"
        )
