"""Parsers of what models, files and people write: each with what it is given, how it reads that, and what must hold."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from elicit.cli.options import settings, with_prompt_details
from elicit.cli.run import _config, _fill
from elicit.integrations.serve.requests import Chat, Completion
from elicit.integrations.serve.requests import read as read_request
from elicit.methods.critique_ft import critique_file
from elicit.models.prompts import _from_file, _parsed, named_prompt
from elicit.sweeps import plan
from elicit.tasks.answers import KINDS, find_answer, token_span
from elicit.tasks.base import Item, corrupt
from elicit.tasks.equations import equations
from elicit.tasks.grading import grader_for, infer_kind
from elicit.tasks.jsonl import _item
from elicit.tasks.numerals import expression_value, number_value, worded_value
from elicit.tasks.responses import _response
from elicit.training.rl.rewards import parse as rewards_of
from probes.offsets import decoded, offsets
from steering.directions import Direction
from steering.interventions import Add, Intervention, When
from steering.storage import pack, unpack
from tests.fuzz import draw
from tests.support.tokenizers import FAMILIES

PURE, FILE, WORKER = "pure", "file", "worker"


@dataclass(frozen=True)
class Parser:
    """A parser.

    Args:
        name: of it.
        given: draws an input.
        read: reads it and asserts what must hold of what comes.
        way: `pure`; `file`: each input is written first; `worker`: each is sent to another process.
    """

    name: str
    given: Callable[[random.Random], Any]
    read: Callable[[Any], object]
    way: str = PURE


# Answers and numbers.


def _find(given: tuple[str, Any]) -> object:
    text, kind = given
    found = find_answer(text, kind)
    if found is not None:
        assert 0 <= found.start <= found.end <= len(text), found
        if kind not in ("option", "math", "number", "expression"):  # of several boxes the contents, joined
            there = text[found.start : found.end]
            assert len(there) == len(found.text), found
            assert all(a in (b, " ", "\n") for a, b in zip(found.text, there, strict=True)), found  # blank: invented
    return found


def _grade(given: tuple[str, str, Any]) -> object:
    gold, text, kind = given
    grader = grader_for(kind)
    found = find_answer(text, kind)
    verdict = grader.grade(Item("x", "q", gold, "test"), found.text if found else None)
    assert grader.groups([gold, text, gold])[2] == 0, "an answer is not the same as itself"
    return verdict


def _numbers(text: str) -> object:
    number, expression, words = number_value(text), expression_value(text), worded_value(text)
    wrong = corrupt(text)
    assert wrong != text, "the corrupted answer is the answer"
    return number, expression, words, infer_kind([text, wrong]), equations(text)


# Options, templates and plans.

KNOWN = {"k": 10, "prompt": "qa", "max_new_tokens": 300, "seed": 0, "gate": "probe", "lr": 1e-4}
PROMPTS = (
    "qa",
    "qa-cot",
    "chat",
    "few-shot",
    "nowhere",
    "boxed",
    "qa:",
    "chat:",
    "chat:system=",
    "qa:begin=",
    "chat:{",
)


def _pairs(rng: random.Random) -> list[str]:
    names = [*KNOWN, "template.x", "template", "system", draw.text(rng, 1)]
    return [rng.choice(names) + rng.choice(("=", "=", "=", "", "==")) + _said(rng) for _ in range(rng.randrange(1, 4))]


def _said(rng: random.Random) -> str:
    return draw.as_json(draw.value(rng), rng) if rng.random() < 0.5 else draw.text(rng, 4)


def _options(pairs: list[str]) -> object:
    return with_prompt_details(settings(pairs, KNOWN), KNOWN)


def _prompt(rng: random.Random) -> str:
    said = [f"{draw.text(rng, 1)}={_said(rng)}" for _ in range(rng.randrange(3))]
    return rng.choice(PROMPTS) + ",".join(said)


def _named(name: str) -> object:
    if len(name) < 200:
        named_prompt(name, FAMILIES["byte-level"], [("1 + 1?", "2")])
    return _parsed(name)


@cache
def _whole_plan() -> tuple[Any, dict[str, Any]]:
    import torch

    from probes.sites import Site

    tensors: dict[str, Any] = {}
    direction = Direction(torch.linspace(-1.0, 1.0, 32), Site(1), name="push")
    return pack((Intervention(Add(direction), 1.0, when=When.every_step()),), tensors), tensors


def _unpack(data: Any) -> object:
    from probes.errors import as_expected

    with as_expected("the plan", "save it again"):
        return unpack(data, _whole_plan()[1])


def _terms(rng: random.Random) -> str:
    names = ("exact", "boxed", "format:boxed", "format", "random:0.5", "length", "none", draw.text(rng, 2))
    term = [rng.choice(("", "0.5*", "-1*", "*", f"{draw.text(rng, 1)}*")) + rng.choice(names) for _ in range(3)]
    return rng.choice(("+", " + ", "++")).join(term[: rng.randrange(1, 4)])


def _ids(rng: random.Random) -> tuple[str, list[int]]:
    family = rng.choice(sorted(FAMILIES))
    return family, [rng.randrange(len(FAMILIES[family]) + 3) for _ in range(rng.randrange(1, 24))]


def _offsets(given: tuple[str, list[int]]) -> object:
    tokenizer, ids = FAMILIES[given[0]], given[1]
    text = decoded(tokenizer, ids)
    whole, begun = offsets(tokenizer, ids, text)
    assert whole == sorted(whole) and all(w <= b <= len(text) for w, b in zip(whole, begun, strict=True)), whole
    found = find_answer(text, "number")
    if found is not None:
        first, last = token_span(whole, found)
        assert 0 <= first < last <= len(ids), (first, last)
    return whole


# Files and requests.

ITEM = {"question": "What is 3 + 4?", "answer": "7", "id": "a", "split": "test"}
RESPONSE = {"gold": "7", "response": "The answer is 7.", "kind": "number"}
CRITIQUE = {"question": "1 + 1?", "candidate": "3", "critique": "No. Conclusion: wrong"}
CHAT = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 5,
    "temperature": 0.5,
    "stop": ["x"],
}
COMPLETION = {"model": "m", "prompt": "hi", "max_tokens": 5, "n": 2, "seed": 1, "logprobs": 1}
RUN: dict[str, Any] = {
    "model": "", "method": "x", "limit": 8, "seed": 0, "out": Path("x"), "setting": None, "batch_rows": None
}  # fmt: skip
RUN_TOML = 'limit = 3\nseed = 1\nout = "runs/x"\n[options]\nk = 4\nname = "a"\n'
SWEEP = 'analyses = []\n[axes]\nmethod = ["direct"]\nseed = [0, 1]\n[axes.options]\nk = [4, 8]\n[run]\nlimit = 2\n'
KEYS = ("analyses", "axes", "run", "fit", "method", "seed", "limit", "k")


@cache
def _place() -> Path:
    return Path(tempfile.mkdtemp(prefix="elicit-fuzz-"))


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[str], object]:
    def reads(text: str) -> object:
        file = _place() / name
        file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
        return read(file)

    return reads


def _filled(file: Path) -> object:
    given = dict(RUN)
    return _fill(given, set(), file.name, _config(file))


def _line(like: dict[str, Any]) -> Callable[[random.Random], str]:
    return lambda rng: draw.as_json(draw.fields(rng, [*like, "messages", "input", "output"], like), rng)


def _request(given: tuple[type[Chat] | type[Completion], Any]) -> object:
    return read_request(*given)


def _requested(rng: random.Random) -> tuple[type[Chat] | type[Completion], Any]:
    kind: Any = rng.choice((Chat, Completion))
    return kind, draw.changed(CHAT if kind is Chat else COMPLETION, rng)


def _template(rng: random.Random) -> str:
    return "".join(rng.choice(("{question}", "{", "}", "{%", "Q: ", "\n", draw.text(rng, 2))) for _ in range(4))


OF_WORKER = ("math",)
PARSERS: dict[str, Parser] = {
    one.name: one
    for one in (
        Parser("answers", lambda rng: (draw.text(rng), rng.choice(KINDS)), _find),
        Parser(
            "verdicts (all kinds but math)",
            lambda rng: (draw.text(rng, 4), draw.text(rng, 8), rng.choice([k for k in KINDS if k not in OF_WORKER])),
            _grade,
        ),
        Parser("numbers and equations", lambda rng: draw.text(rng, 6), _numbers),
        Parser("--set", _pairs, _options),
        Parser("prompts by name", _prompt, _named),
        Parser("plans (JSON)", lambda rng: draw.changed(_whole_plan()[0], rng), _unpack),
        Parser("rewards by name", _terms, rewards_of),
        Parser("token offsets", _ids, _offsets),
        Parser("tasks (JSON Lines)", _line(ITEM), lambda line: _item(Path("x.jsonl"), 1, line)),
        Parser("responses (JSON Lines)", _line(RESPONSE), lambda line: _response("x", line)),
        Parser("requests", _requested, _request),
        Parser("critiques", _line(CRITIQUE), _in_file("critiques.jsonl", critique_file.load), FILE),
        Parser(
            "options (TOML)",
            lambda rng: draw.toml(rng, [*RUN, "options"], RUN_TOML),
            _in_file("run.toml", _filled),
            FILE,
        ),
        Parser("sweeps (TOML)", lambda rng: draw.toml(rng, KEYS, SWEEP), _in_file("sweep.toml", plan.read), FILE),
        Parser("templates", _template, _in_file("template.txt", lambda file: _from_file(str(file))), FILE),
        Parser("verdicts (math)", lambda rng: (draw.text(rng, 3), draw.text(rng, 6), "math"), _grade, WORKER),
    )
}


def shown(given: object) -> str:
    """An input, short enough for a line."""
    return json.dumps(repr(given))[:300]
