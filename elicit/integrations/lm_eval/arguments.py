"""From the model arguments of lm-eval to a handle: what can be refused is refused before weights are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elicit.elicited import Elicited
from elicit.methods import current, fit, get
from elicit.methods.base import NeedsItems
from elicit.models.model import DEFAULT_MODEL, DTYPES, load_model
from elicit.tasks.answers import KINDS, Kind
from elicit.tasks.base import Items
from elicit.tasks.grading import check_kind
from probes.errors import UserError, unknown

STOPS = ("lm-eval", "elicit")
AUTO = "auto"
FIT_ON = "fit_task=NAME, a task of this suite, or bundle=FOLDER of one that was fitted"
# What lm-eval itself adds to the arguments of a model, and what it calls others.
_THEIRS = {
    "parallelize": "device_map=auto",
    "peft": "bundle=FOLDER",
    "tokenizer": "a folder that holds both as pretrained",
    "trust_remote_code": "a model whose code is in transformers",
    "add_bos_token": "nothing: a beginning token is put once where the tokenizer has it put",
    "think_end_token": "a filter of the task",
    "enable_thinking": "prompt=chat:enable_thinking=false",
}


@dataclass(frozen=True)
class Arguments:
    """The arguments of the model `elicit` (`--model_args`).

    Args:
        pretrained: a model's name, hub id, folder or GGUF file.
        method: a mechanism or baseline; `direct` unless given.
        bundle: a folder that `Elicited.save` wrote, instead of a method; it names its model.
        fit_task, fit_limit: what a method is fitted on: a task of this suite, and how many items of each split.
        kind: of the answers, or of those of each task by its name; needed where answers are compared or have a Δ.
        stop: where answers end, one of `STOPS`.
        truncate: whether a context that is too long loses its beginning, as lm-eval has it; else it is refused.
        seed: of samplers, and of the method's fit.
        batch_size, max_batch_size: prompts decoded together; `auto` leaves it to the suite. With 1 texts are scored one
            at a time as well.
        dtype, device, device_map, revision, engine: as `elicit.load_model`.
        options: of the method.
    """

    pretrained: str = ""
    method: str = ""
    bundle: str = ""
    fit_task: str = ""
    fit_limit: int | None = None
    kind: str | Mapping[str, str] = ""
    stop: str = STOPS[0]
    truncate: bool = False
    seed: int = 0
    batch_size: int | str = AUTO
    max_batch_size: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | Mapping[str, Any] | None = None
    revision: str | None = None
    engine: str = "hf"
    options: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(given: Mapping[str, Any]) -> Arguments:
        """Sort what was given into arguments and the method's options.

        Raises:
            UserError: an unknown name, a value of another type or out of range, what cannot be together.
        """
        own = {k: v for k, v in given.items() if k in _TYPES}
        rest = {k: v for k, v in given.items() if k not in _TYPES}
        for key in rest:
            if not key.isidentifier():
                raise UserError(
                    f"model argument {key!r} was given without a value; commas separate arguments, so write a list as "
                    'JSON: --model_args \'{"kl": "0.1,0.5"}\''
                )
        for key, value in own.items():
            if not isinstance(value, _TYPES[key]) or (isinstance(value, bool) and key != "truncate"):
                raise UserError(f"model argument {key}={value!r} was given; expected {_named(_TYPES[key])}")
        arguments = Arguments(**own, options=rest)
        arguments._check()
        return arguments

    def _check(self) -> None:
        name = self.method or "direct"
        known = get(name).options
        for key in self.options:
            if key in _THEIRS and key not in known:
                raise UserError(f"model argument {key!r} was given, which elicit has not; give {_THEIRS[key]}")
            if key not in known:
                raise unknown(f"model argument, or option of {name},", key, [*_TYPES, *known])
        get(name).check_options(self.options)
        for what, value, all_of in (("stop rule", self.stop, STOPS), ("dtype", self.dtype, DTYPES)):
            if value not in all_of:
                raise unknown(what, value, all_of)
        for kind in [self.kind] if isinstance(self.kind, str) else self.kind.values():
            if kind:
                check_kind(kind, KINDS)
        if isinstance(self.batch_size, str) and not self.batch_size.isdigit() and self.batch_size != AUTO:
            raise UserError(f"batch_size={self.batch_size!r} was given; give a number of prompts, or auto")
        for key in ("batch_size", "max_batch_size", "fit_limit"):
            value = getattr(self, key)
            if value not in (None, AUTO) and int(value) < 1:
                raise UserError(f"{key}={value} was given; give at least 1")
        if self.bundle:
            others = {"method": self.method, "fit_task": self.fit_task, **dict.fromkeys(self.options, True)}
            if set_too := [key for key, value in others.items() if value]:
                raise UserError(f"bundle and {set_too[0]} were given; a bundle brings its own, leave {set_too[0]} out")
            if not Path(self.bundle).is_dir():
                raise UserError(f"there is no bundle {self.bundle!r}; give a folder that Elicited.save wrote")

    @property
    def prompts_at_once(self) -> int | None:
        """How many are decoded together; None: the suite decides."""
        if self.batch_size == AUTO:
            return self.max_batch_size
        return int(self.batch_size)

    def handle(self) -> Elicited:
        """Load what was named, and fit the method where it has to be.

        Raises:
            UserError: as `load_model`, `Elicited.load` and the method's fit; a method that has to be fitted, and is
                given nothing to be fitted on.
        """
        where = {key: getattr(self, key) for key in ("dtype", "device", "device_map", "revision", "engine")}
        if self.bundle:
            given = [key for key, value in where.items() if value != getattr(Arguments, key)]
            if given and not self.pretrained:
                raise UserError(f"bundle and {given[0]} were given; name the model as well: pretrained=NAME")
            return Elicited.load(self.bundle, load_model(self.pretrained, **where) if self.pretrained else None)
        method = get(self.method or "direct")
        options = current(method.name, self.options)
        if "seed" in method.options:
            options.setdefault("seed", self.seed)
        items = self._items()
        if items is None and method.needs_items:
            raise NeedsItems(f"{method.name} is fitted on items of a task").told(FIT_ON)
        model = load_model(self.pretrained or DEFAULT_MODEL, **where)
        try:
            return fit(method.name, model, items, **options)
        except NeedsItems as error:
            if items is not None:
                raise
            raise error.told(FIT_ON) from None

    def _items(self) -> Items | None:
        if not self.fit_task:
            return None
        from elicit.tasks.registry import load_task

        return load_task(self.fit_task, limit=self.fit_limit).solved

    def kind_for(self, task: str | None) -> Kind | None:
        """Of the answers of a task of lm-eval, where it was given."""
        kind = self.kind if isinstance(self.kind, str) else self.kind.get(task or "", "")
        return kind or None  # type: ignore[return-value]


def _named(types: tuple[type, ...]) -> str:
    words = {
        "Mapping": "a JSON object",
        "NoneType": "null",
        "str": "a text",
        "int": "a whole number",
        "bool": "true or false",
    }
    return " or ".join(words[one.__name__] for one in types)


_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("pretrained", "method", "bundle", "fit_task", "stop", "dtype", "device", "engine"), (str,)),
    "revision": (str, type(None)),
    "kind": (str, Mapping),
    "device_map": (str, Mapping, type(None)),
    "truncate": (bool,),
    "seed": (int,),
    "batch_size": (int, str),
    **dict.fromkeys(("max_batch_size", "fit_limit"), (int, type(None))),
}


def parsed(text: str) -> dict[str, Any]:
    """Model arguments in one text: a JSON object, or `key=value` joined by commas.

    Raises:
        UserError: JSON that cannot be read, or a part without a value.
    """
    if text.lstrip().startswith("{"):
        try:
            return dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise UserError(
                f"model arguments {text[:60]!r} were given, which are no JSON ({error}); mend them"
            ) from error
    from lm_eval.utils import simple_parse_args_string

    return dict(simple_parse_args_string(text))


def check_prompt(handle: Elicited) -> None:
    """Refuse a prompt of which more than its last words would have to be carried over.

    lm-eval writes the question. A trigger and words to begin with can be put at its end, and arguments of a chat
    template be passed on; a template, solved questions, a form and a system message are lm-eval's own.

    Raises:
        UserError: one of these.
    """
    prompt = handle.prompt
    for what, given, instead in (
        ("a template of its own", prompt.base == "template", "prompt=qa, qa-cot, qa-direct or chat"),
        ("solved questions", bool(prompt.shots), "--num_fewshot"),
        ("a form of the answer", bool(prompt.form), "--system_instruction, or a task that asks for it"),
        ("a system message", prompt.system is not None, "--system_instruction"),
    ):
        if given:
            raise UserError(
                f"the prompt of {handle.method} has {what}, and lm-eval writes the question; give {instead}"
            )


def needs_kind(handle: Elicited) -> bool:
    """Whether it must be known what kind an answer is: it is chosen by its answer, or asked for it again."""
    return (handle.select != "greedy" and handle.decoder.branches > 1) or handle.span == "prompted"  # type: ignore[attr-defined]
