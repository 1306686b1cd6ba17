"""Cognitive tools: together they are a slow version, calls are data with bounds, and runs count all that was spent."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

import elicit
from elicit.decoding import Sampling, StopRule, Tools
from elicit.decoding.answering import found_in, read
from elicit.decoding.decoders import decoder_from_dict, decoder_to_dict, most_tokens
from elicit.decoding.decoders.sampling import rng_stream
from elicit.decoding.engine import Batch, Can, Engine, decode_batch
from elicit.decoding.tools import NO_MORE, no_such, result, scheduled, tool_said
from elicit.evaluation.regrade import regrade
from elicit.methods import cognitive_tools
from elicit.methods.cognitive_tools import NAME
from elicit.models import Model
from elicit.models.prompts import Prompt
from elicit.tasks import grading
from probes.errors import UserError
from steering.interventions import Add, Intervention
from tests.support.hybrid_parts import as_model, directions
from tests.support.shell import shell
from tests.support.tiny import VOCAB, save_tiny, tiny_model

TASK = "chain-sum:min_terms=2,max_terms=2"
LOOK, CHECK, NONE, STRAY = "<tool>look</tool>", "<tool>check</tool>", "<tool>none</tool>", "</tool>"
TOOLS = (("look", "w20 w21 w22"), ("check", "w23 w24"))
QUESTIONS = ["w5 w9 w3", "w7 w1 w12 w8 w40 w41 w42 w43", "w11 w11", "w13", "w50 w51 w52", "w33 w34"]
PROMPT = Prompt("template", template="{question} w60")


class GreedyAlone(Engine):
    """An engine that claims nothing else."""

    name, can = "plain", Can()

    def decode(self, batch: Batch, on_step: Any = None) -> Any:
        raise AssertionError("it is refused before")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, some of which are calls; the last one is special."""
    held = {0: LOOK, 1: "w1", 16: CHECK, 17: NONE, 18: STRAY, 19: "<tool>check</tool>w", 63: "<s>"}
    split = Tokenizer(WordLevel(vocab={held.get(i, f"w{i}"): i for i in range(VOCAB)}, unk_token="w1"))
    split.pre_tokenizer = WhitespaceSplit()
    split.add_special_tokens(["<s>"])
    return PreTrainedTokenizerFast(tokenizer_object=split)


def model_of(architecture: str) -> Model:
    return as_model(tiny_model(architecture), architecture, tokenizer())


def batch_of(decoder: Tools, stop: StopRule, questions: list[str] = QUESTIONS) -> Batch:
    prompts = [PROMPT.ids(question, tokenizer()) for question in questions]
    return Batch(prompts, questions, decoder, stop, questions=[(question, PROMPT) for question in questions])


@torch.inference_mode()
def slow(model: Model, question: str, how: Tools, stop: StopRule) -> tuple[list[int], int, tuple[int, int, int]]:
    """One question, a whole forward a token: its tokens, those that were spent, its calls."""
    spent = 0

    def text(ids: list[int]) -> str:
        return str(tokenizer().decode(ids, clean_up_tokenization_spaces=False))

    def draw(context: list[int], limit: int, stops: tuple[str, ...], key: str) -> tuple[list[int], str]:
        nonlocal spent
        uniform, new = rng_stream(how.seed, key, 0, limit), []
        for step in range(limit):
            logits = model.lm(torch.tensor([[*context, *new]])).logits[0, -1].float()
            if how.temperature:
                cumulative = torch.softmax(logits / how.temperature, -1).double().cumsum(-1)
                token = int(torch.searchsorted(cumulative, uniform[step] * cumulative[-1], right=True))
            else:
                token = int(logits.argmax())
            spent += 1
            if token in stop.eos_ids:
                return new, ""
            new.append(token)
            found = [s for s in stops if s in text(new)]
            if found:
                return new, found[0]
        return new, ""

    out: list[int] = []
    own = pieces = calls = unknown = refused = 0
    left, calling = list(how.schedule), not how.schedule
    put = PROMPT.ids(question, tokenizer())

    def tool(name: str) -> str:
        nonlocal calls, refused
        attempt = [f"Attempt: {text(out).replace('<s>', '').strip() or '(none yet)'}"] if name in how.reads else []
        asked = "\n".join([question, *attempt, dict(how.tools)[name]])
        ids, _ = draw(PROMPT.ids(asked, tokenizer()), how.call_tokens, stop.strings, f"{question}\0call {calls}")
        reply = text(ids)
        for string in stop.strings:
            reply = reply.split(string)[0]
        calls, refused = calls + 1, refused + reply.count(STRAY)
        for mark in ("<tool>", "</tool>", "<s>"):
            reply = reply.replace(mark, "")
        return reply.strip()

    def write(words: str) -> None:
        out.extend(tokenizer()(words, add_special_tokens=False)["input_ids"])

    while True:
        while left and left[0] not in how.reads:
            name = left.pop(0)
            write(scheduled(name, tool(name)))
        stops = (*stop.strings, STRAY) if calling else stop.strings
        before = spent
        new, ended = draw([*put, *out], how.max_new_tokens - own, stops, f"{question}\0piece {pieces}")
        pieces, own = pieces + 1, own + spent - before
        if how.max_new_tokens - own <= 0 or not (left or ended == STRAY):
            return [*out, *new], spent, (calls, unknown, refused)
        if left:
            out += new if not ended else new[:-1]
            name = left.pop(0)
            write(scheduled(name, tool(name)))
            continue
        out += new
        called = text(new).split(STRAY)[0].rpartition("<tool>")
        if calls + unknown == how.calls:
            refused, calling = refused + 1, False
            write(result(NO_MORE))
        elif not called[1] or called[2] not in how.names:
            unknown += 1
            write(result(no_such(how.names)))
        else:
            write(result(tool(called[2])))


@pytest.mark.parametrize(
    ("architecture", "schedule", "temperature"),
    [
        ("llama", (), 1.0), ("llama", (), 3.0), ("bloom", (), 3.0), ("gemma3", ("look", "check", "look"), 0.0),
        ("qwen2", ("check", "look", "check"), 1.5),
    ],
)  # fmt: skip
def test_together_they_are_the_slow_version(architecture: str, schedule: tuple[str, ...], temperature: float) -> None:
    model = model_of(architecture)
    how = Tools(TOOLS, ("check",), schedule, 3, 5, temperature, seed=7, max_new_tokens=14)
    stop = StopRule(frozenset({2, 25, 26}), ("w30", "w44"), tokenizer())
    made = decode_batch(model, batch_of(how, stop))
    counts = []
    for question, (one,) in zip(QUESTIONS, made, strict=True):
        tokens, spent, calls = slow(model, question, how, stop)
        assert one.tokens.tolist() == tokens
        assert (one.calls, one.unknown_calls, one.refused_calls) == calls
        assert one.spent == spent
        counts.append(calls)
    assert sum(map(sum, counts)) > 0


def calls_for_ever() -> Model:
    """A model that always writes token 0, which is a call."""
    lm = deepcopy(tiny_model("llama"))
    lm.lm_head = torch.nn.Linear(32, VOCAB)
    with torch.no_grad():
        lm.lm_head.weight.zero_()
        lm.lm_head.bias.copy_(torch.arange(VOCAB, 0, -1) / 8)
    return as_model(lm, "for ever", tokenizer())


def test_calls_for_ever_are_bounded_and_counted_and_never_nested() -> None:
    how = Tools(TOOLS, calls=3, call_tokens=4, max_new_tokens=10)
    ((one,), *_) = decode_batch(calls_for_ever(), batch_of(how, StopRule(frozenset({2}), (), tokenizer())))
    assert (one.calls, one.unknown_calls) == (3, 0)
    assert one.refused_calls == 1 + 3 * 4  # one beyond the limit, and all that the tools wrote
    assert one.spent == 10 + 3 * 4 and one.finish == "length"
    own = one.logprob < 0
    assert own.sum() == 10 and set(one.tokens[own].tolist()) == {0} and not own[: one.begins].all()
    assert own[one.begins :].all()
    np.testing.assert_array_equal(one.top1[~own], 1)


def test_what_tools_say_is_data() -> None:
    stop = StopRule(frozenset(), ("w30",), tokenizer())
    ids = tokenizer()(f"w4 <s> {LOOK} </tool> w5 w30 w6", add_special_tokens=False)["input_ids"]
    assert tool_said(tokenizer(), ids, stop) == ("w4  look  w5", 2)
    thought = "<think> w1 </think> w9"
    spelled = PreTrainedTokenizerFast(tokenizer_object=_letters())
    ids = spelled(thought, add_special_tokens=False)["input_ids"]
    assert tool_said(spelled, ids, StopRule(frozenset(), (), spelled)) == ("w9", 0)
    rest = spelled(" w1 ", add_special_tokens=False)["input_ids"]
    assert tool_said(spelled, rest, StopRule(frozenset(), (), spelled), "<think>") == ("", 0)
    nested = spelled("<<tool>tool>a<|<s>s|>", add_special_tokens=False)["input_ids"]
    assert tool_said(spelled, nested, StopRule(frozenset(), (), spelled))[0] == "a<|<s>s|>"


def _letters() -> Tokenizer:
    from tokenizers.decoders import Fuse
    from tokenizers.models import BPE

    made = Tokenizer(BPE(vocab={"\n": 95, **{chr(c): c - 32 for c in range(32, 127)}}, merges=[], unk_token="?"))
    made.decoder = Fuse()
    return made


def test_an_answer_is_not_what_a_tool_said() -> None:
    letters = PreTrainedTokenizerFast(tokenizer_object=_letters())
    text = "So 12. Examine: The answer is 7. Answer:"
    ids = letters(text + " hm", add_special_tokens=False)["input_ids"]
    assert read(letters, ids, (), "number").answer == "7"
    assert read(letters, ids, (), "number", begins=len(text)).answer is None
    ids = letters(text + " 9 Q: 3", add_special_tokens=False)["input_ids"]
    said = read(letters, ids, ("Q:",), "number", begins=len(text))
    assert (said.answer, said.span, said.text) == ("9", (len(text) + 1, len(text) + 2), text + " 9 ")


def test_a_chat_names_tools_in_its_system_message_and_each_call_has_its_own() -> None:
    from elicit.decoding.tools import call_context

    letters = PreTrainedTokenizerFast(tokenizer_object=_letters())
    letters.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]"
    model = replace(model_of("llama"), tokenizer=letters)
    handle = cognitive_tools.fit(model, prompt='chat:{"system": "Be brief."}')
    put = handle.prompt.text("What is it?", letters)
    assert put.startswith("[system] Be brief.\n\nYou may call tools") and put.endswith("[user] What is it? [assistant]")
    ids, begun = call_context(handle.prompt, "What is it?", "Look.", "It is 3.", letters)
    assert letters.decode(ids) == "[system] Look. [user] What is it?\nAttempt: It is 3. [assistant]" and begun == ""
    letters.chat_template = "{% for m in messages %}{{ 1 / (m.role != 'system') }}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match="system"):
        cognitive_tools.fit(model, prompt="chat")


@pytest.mark.parametrize("schedule", ["", "understand,recall"])
def test_a_run_has_it_beside_its_controls(tiny: Model, tmp_path: Path, schedule: str) -> None:
    task = elicit.load_task(TASK, limit=2)
    few = {"schedule": schedule} if schedule else {"tools": "understand"}
    handle = cognitive_tools.fit(tiny, **few, call_tokens=6, max_new_tokens=8, calls=2)
    beside = cognitive_tools.controls(handle, task.solved)
    assert list(beside) == [
        "flat prompt", "flat prompt@budget", "permuted tools", "another question", "direct@budget", "cot-prompt@budget",
    ]  # fmt: skip
    run = elicit.evaluate(handle, task.test, against=beside, out=tmp_path / "run")
    again = elicit.evaluate(handle, task.test, against=(), out=tmp_path / "again", batch_rows=1)
    calls = 2 if schedule else 0
    for some in (run, elicit.Run.load(run.folder), again):
        for (trace,) in some.traces["cognitive-tools"].values():
            assert (trace.calls, trace.unknown_calls) == (calls, 0) and trace.refused_calls == 0
            assert trace.spent > 8 if schedule else trace.spent <= 8
            assert [trace.tokens] == [t.tokens for t in run.traces["cognitive-tools"][trace.item]]
    for (flat,) in run.traces["flat prompt"].values():
        assert flat.calls is None and flat.spent <= 8 + 2 * 6
    for name in ("permuted tools", "another question"):
        assert all(t.calls == calls for (t,) in run.traces[name].values())
    if schedule:
        pairs = [(run.traces[name], run.traces["cognitive-tools"]) for name in ("permuted tools", "another question")]
        assert all(any(a[i][0].tokens != b[i][0].tokens for i in a) for a, b in pairs)
    for item, drawn in run.traces["flat prompt@budget"].items():
        (trace,) = run.traces["cognitive-tools"][item]
        assert sum(t.spent for t in drawn) <= max(trace.spent, drawn[0].spent)
    page = "".join(cognitive_tools.findings(run))
    assert f"{2 if schedule else 0} of 2" in page and "permuted tools" in page and "flat prompt" not in page
    loaded = elicit.Elicited.load(handle.save(tmp_path / "bundle"), tiny)
    assert loaded.decode_key == handle.decode_key and loaded.decoder == handle.decoder


def test_regrading_finds_no_answer_in_what_tools_said(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = elicit.load_task(TASK, limit=3).test
    monkeypatch.setattr("elicit.decoding.tools.scheduled", lambda name, text: f" The answer is 7. {text}\nAnswer:")
    handle = cognitive_tools.fit(tiny, schedule="recall", call_tokens=4, max_new_tokens=2)
    run = elicit.evaluate(handle, items, against=(), out=tmp_path / "run")
    monkeypatch.setattr(grading, "VERSION", "another")
    again = regrade(run, tmp_path / "again")
    assert again.folder != run.folder
    kept = [(a, b) for i in run.traces[NAME] for a, b in zip(run.traces[NAME][i], again.traces[NAME][i], strict=True)]
    assert all((a.answer, a.span, a.score, a.dropped) == (b.answer, b.span, b.score, b.dropped) for a, b in kept)
    assert any(a.answer is None and found_in(a.text, items.task.kind) for a, _ in kept)


def test_it_is_forecast_and_compared(tiny_folder: Path, tmp_path: Path) -> None:
    small = ("--model", str(tiny_folder), "--task", TASK, "--limit", "2", "--max-new-tokens", "4", "--device", "cpu")
    few = ("--set", "calls=1", "--set", "call_tokens=4")
    code, out, err = shell("run", "--method", "cognitive-tools", *small, *few, "--controls", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["seconds"] > 0, err
    code, out, err = shell(
        "compare", "--methods", "cognitive-tools,direct", *small, "--dtype", "float32", "--json", "--out", str(tmp_path)
    )
    assert code == 0, err
    assert {"cognitive-tools", "direct"} <= {arm["arm"] for arm in json.loads(out)["arms"]}


def test_each_control_differs_in_one_thing(tiny: Model) -> None:
    task = elicit.load_task(TASK, limit=2)
    handle = cognitive_tools.fit(tiny, schedule="understand,examine", call_tokens=6, max_new_tokens=8)
    beside, decoder = cognitive_tools.controls(handle, task.solved), handle.decoder
    mixed, other = beside["permuted tools"].decoder, beside["another question"].decoder
    assert isinstance(decoder, Tools) and isinstance(mixed, Tools) and isinstance(other, Tools)
    assert replace(mixed, tools=decoder.tools) == decoder == replace(other, others=())
    assert all(a[0] == b[0] and a[1] != b[1] for a, b in zip(mixed.tools, decoder.tools, strict=True))
    assert not set(other.others) & {item.question for item in task.test}
    flat = beside["flat prompt"]
    assert all(said in flat.prompt.form for _, said in decoder.tools) and flat.decoder.max_new_tokens == 8 + 2 * 6
    assert isinstance(beside["flat prompt@budget"].decoder, Sampling)
    assert "another question" not in cognitive_tools.controls(handle)
    assert most_tokens(decoder) > 8 + 2 * 6 and decoder_from_dict(decoder_to_dict(decoder)) == decoder


def test_what_does_not_fit_is_one_line(tiny: Model, tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path))
    for option in ("calls=0", "call_tokens=0", "temperature=-1.0", "tools=", "schedule=understand,undersand"):
        code, _, err = shell("run", "--method", "cognitive-tools", "--set", option, "--model", folder)
        assert code == 2 and err.count("\n") == 1, err
        assert option.split("=")[0].removesuffix("s") in err or "tool" in err
    long = ("schedule=understand,recall,examine,backtrack", "calls=3")
    code, _, err = shell("run", "--method", "cognitive-tools", "--set", long[0], "--set", long[1], "--model", folder)
    assert code == 2 and "give at most 3 names, or more calls" in err
    code, _, err = shell(
        *("run", "--method", "cognitive-tools", "--set", "call_tokens=2000", "--model", folder, "--task", TASK),
        *("--limit", "2", "--out", str(tmp_path / "out")),
    )
    assert code == 2 and "positions" in err and not (tmp_path / "out").exists()
    decoder = Tools(TOOLS, max_new_tokens=4)
    stop = StopRule(frozenset(), (), tiny.tokenizer)
    with pytest.raises(UserError, match="token ids alone"):
        decode_batch(tiny, Batch([[1, 2]], ["a"], decoder, stop))
    other = Model("tiny", tiny.lm, tiny.tokenizer, tiny.provenance, f"{__name__}:GreedyAlone")
    with pytest.raises(UserError, match="plain engine cannot do tools decoding; it does greedy"):
        decode_batch(other, Batch([[1, 2]], ["a"], decoder, stop))
    with pytest.raises(UserError, match="thought_tokens was given with cognitive tools"):
        decode_batch(tiny, batch_of(decoder, replace(stop, thought_tokens=3)))
    steered = replace(batch_of(decoder, stop), arms=[("pushed", (Intervention(Add(directions()[0])),))])
    with pytest.raises(UserError, match="cognitive tools were given interventions"):
        decode_batch(tiny, steered)
    with pytest.raises(UserError, match="no policy"):
        decoder.policy(["a"], 5)
    with pytest.raises(UserError, match="small letters"):
        Tools((("Look at", "x"),))
    direct = elicit.methods.get("direct").fit(tiny)
    with pytest.raises(UserError, match="controls of cognitive-tools"):
        cognitive_tools.controls(direct)
