"""`thinkless` on a tiny model: warmed up, trained, resumed, beside its controls, refused; its tokens and gates."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from elicit import evaluate
from elicit.decoding import Greedy
from elicit.decoding.decoders import ModeGate, decoder_from_dict, decoder_to_dict
from elicit.decoding.decoders.mode_gate import entropy_without
from elicit.elicited import Elicited
from elicit.methods import thinkless
from elicit.methods.thinkless.control_tokens import ControlTokens, control_tokens
from elicit.methods.thinkless.gates import as_often, gates, threshold
from elicit.methods.thinkless.modes import ModeReward, collapsed
from elicit.methods.thinkless.warm_up import CALLED as WARMED
from elicit.methods.thinkless.warm_up import examples
from elicit.models import Model, load_model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Task
from elicit.tasks.grading import NumberGrader
from elicit.training.rl.loop import train
from elicit.training.rl.rewards import RewardContext, Rollout
from elicit.training.rl.settings import Settings
from probes.errors import UserError
from tests.support.shell import shell
from tests.support.tiny import save_tiny
from tests.support.toys import Stop, Stopping, Vowels, load_talker, toy_task


@pytest.fixture(scope="module")
def task() -> Task:
    return replace(toy_task(4), grader=Vowels())


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_talker(tmp_path_factory.mktemp("talker") / "model")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL: dict[str, Any] = {
    "short": "s", "think": "t", "questions": 2, "warm_steps": 16, "warm_rows": 2, "updates": 2, "rollouts": 8,
    "group": 4, "rollout_tokens": 8, "rank": 2, "check": 3, "checked": False, "max_new_tokens": 6, "warm_lr": 5e-2,
}  # fmt: skip


def fitted(model: Model, task: Task | None, **options: Any) -> Elicited:
    return thinkless.fit(model, task.solved if task else None, **{**SMALL, **options})


def test_without_dev_items_the_fit_items_say_how_often_it_thinks(talker: Model, task: Task, here: Path) -> None:
    alone = replace(task, items=tuple(item for item in task.items if item.split != "dev"))
    handle = fitted(talker, alone, updates=1, warm_steps=1)
    assert handle.options["found"]["measured"] == 2 and handle.options["seen"]["fitted"] == ["fit-0", "fit-1"]
    assert "of 2 questions that it was trained on" in " ".join(thinkless.notes(handle.options))


def test_it_is_fitted_resumed_saved_and_compared(talker: Model, task: Task, here: Path) -> None:
    before = {name: p.detach().clone() for name, p in talker.lm.named_parameters()}
    handle = fitted(talker, task)
    assert all(torch.equal(before[name], p) for name, p in talker.lm.named_parameters())
    found = handle.options["found"]
    folders = sorted(p.name for p in (here / "runs").iterdir())
    assert folders == sorted([found["folder"], found["warm-up"]["folder"]])
    assert handle.options["settings"]["control_weight"] == 0.01
    assert found["warm-up"]["losses"][-1] < found["warm-up"]["losses"][0]
    assert found["modes"]["update"] == [0, 1]
    for n in range(2):
        assert sum(found["modes"][mode][n] for mode in ("short", "think", "neither")) == pytest.approx(1)
    again = fitted(talker, task)
    assert again.adapter is not None and handle.adapter is not None and again.options == handle.options
    assert again.adapter.sha256 == handle.adapter.sha256
    loaded = Elicited.load(handle.save(here / "bundle"), talker)
    assert [t.tokens for (t,) in loaded.answer(task.test)] == [t.tokens for (t,) in handle.answer(task.test)]

    others = thinkless.controls(handle, task.solved)
    gates = {"random gate 0", "random gate 1", "entropy gate", "always short", "always think"}
    named = {"plain GRPO", "warm-up alone", "direct", "cot-prompt", "direct@budget", "cot-prompt@budget"}
    assert set(others) == gates | named and len(others) == thinkless.BESIDE
    assert all(others[name].adapter == handle.adapter for name in gates)
    assert others["plain GRPO"].options["settings"].get("control_weight") is None
    bits = {
        name: sum(part["bits"] for part in one.options["signal"])
        for name, one in {"": handle, **others}.items()
        if one.adapter
    }
    assert 0 < bits["warm-up alone"] <= min(bits.values()) and {bits[name] for name in gates} == {bits[""]}
    assert bits[""] - bits["warm-up alone"] == pytest.approx(found["summary"]["bits of reward"])
    assert len({h.adapter.sha256 for h in (handle, others["plain GRPO"], others["warm-up alone"]) if h.adapter}) == 3
    again = thinkless.controls(loaded, task.solved)  # what the fit kept is not in the bundle, and is made again
    assert {n: h.decode_key for n, h in again.items()} == {n: h.decode_key for n, h in others.items()}

    run = evaluate(handle, toy_task(4).test, against=others, out=here / "run")
    page = (run.folder / "report.html").read_text()
    for words in ("Control tokens", "How often it thinks", "When it thinks", "Both objectives", "collapse"):
        assert words in page
    # Gates that decide alike share their answers.
    sources = {name: run.store.config["arms"][name]["source"] for name in gates}
    first = {name: {some[0].tokens[0] for some in run.traces[one].values()} for name, one in sources.items()}
    ids = control_tokens(talker, "s", "t").ids
    assert first["always short"] == {ids[0]} and first["always think"] == {ids[1]}
    assert all(some <= set(ids) for some in first.values())


def test_a_stopped_training_ends_at_the_same_bits(talker: Model, task: Task, here: Path) -> None:
    whole = fitted(talker, task, updates=3)
    (here / "runs").rename(here / "before")
    asked = {**SMALL, "updates": 3}
    for at in ((WARMED, 2), ("thinkless", 1), ("thinkless", 2)):
        with pytest.raises(Stop):
            thinkless.fit(talker, task.solved, Stopping(at), **asked)
    again = fitted(talker, task, updates=3)
    assert whole.adapter is not None and again.adapter is not None
    assert again.adapter.sha256 == whole.adapter.sha256
    assert again.options["found"]["modes"] == whole.options["found"]["modes"]


def test_all_weights_are_trained_too(talker: Model, task: Task, here: Path) -> None:
    handle = fitted(talker, task, rank=0, lr=1e-3, kl=0.1)
    assert "weights" in handle.to_dict() and handle.options["found"]["curve"]["kl"][0] < 0.2
    loaded = Elicited.load(handle.save(here / "bundle"), talker)
    assert [t.tokens for (t,) in loaded.answer(task.test)] == [t.tokens for (t,) in handle.answer(task.test)]


@pytest.mark.parametrize("rank", [2, 0])
def test_a_training_begins_where_the_warm_up_ended(talker: Model, task: Task, here: Path, rank: int) -> None:
    """At the first update the policy is the reference: KL is nothing, to the bit of what rounds."""
    handle = fitted(talker, task, rank=rank, kl=1.0, lr=1e-2)
    kl = handle.options["found"]["curve"]["kl"]
    assert kl[0] == pytest.approx(0, abs=1e-3 if rank == 0 else 1e-6) and kl[1] > kl[0]
    assert handle.adapter is not None
    other = thinkless.controls(handle, task.solved)["warm-up alone"].adapter
    settings = Settings(**{**handle.options["settings"], "rank": 3})
    reward = ModeReward(control_tokens(talker, "s", "t"), 0.5)
    with pytest.raises(UserError, match=r"(another rank|the same kind)"):
        train(talker, task.solved[:2], settings, here / "other", rewards={"mode": reward}, start=other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"short": "", "think": ""}, "no tokens <short> and <think> and no two spare ones"),
        ({"short": "st"}, "splits into 2 tokens"),
        ({"short": "t"}, "which are one token; give two"),
        ({"short": "<end>"}, "which ends answers or is never chosen"),
        ({"objective": "degrop"}, "unknown objective 'degrop'; did you mean degrpo"),
        ({"gamma": 2.0}, "gamma = 2.0 was given to thinkless"),
        ({"gamma": math.nan}, "gamma = nan was given"),
        ({"control_weight": -0.1}, "control_weight = -0.1 was given"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0 was given to thinkless; give 2 or more"),
        ({"rollout_tokens": 0}, "max_new_tokens = 0 was given; give at least 2"),
        ({"updates": 0}, "updates = 0 was given"),
        ({"warm_steps": -1}, "warm_steps = -1 was given"),
        ({"questions": 0}, "questions = 0 was given"),
        ({"questions": 3, "rollouts": 16}, "3 examples were given and a rollout has 4 groups"),
        ({"prompt": "qa-cot"}, "thinkless says there how to answer"),
        ({"rollout_tokens": 2}, "came to an end within its limit"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str, talker: Model, task: Task, here: Path) -> None:
    with pytest.raises(UserError, match=words) as error:
        fitted(talker, task, **options)
    assert "\n" not in str(error.value) and not (here / "runs").exists()
    with pytest.raises(UserError, match="give items"):
        fitted(talker, None)


def test_a_run_without_a_signal_is_refused(talker: Model, task: Task, here: Path) -> None:
    """Nothing is ever right: every reward is −1."""
    with pytest.raises(UserError, match=r"reward 'mode' is -1.00 in every group"):
        fitted(talker, replace(task, grader=NumberGrader()), checked=True)


def test_the_command_line(here: Path, talker: Model) -> None:
    common = ("run", "--method", "thinkless", "--model", talker.name, "--dtype", "float32", "--task", "chain-sum")
    code, _, err = shell(*common, "--limit", "2")
    assert code == 2 and err.startswith("elicit: the tokenizer of") and err.count("\n") == 1
    given = {key: str(value).lower() for key, value in SMALL.items() if key != "max_new_tokens"}
    small = [f"--set={key}={value}" for key, value in given.items()]
    code, out, err = shell(*common, "--limit", "4", "--dry-run", "--controls", *small, "--max-new-tokens", "6")
    assert code == 0 and "warm-up" in out, err
    assert not (here / "runs").exists()


# --- control tokens ---


def with_tokens(folder: Path, words: list[str]) -> Model:
    model = load_model(str(save_tiny(folder)), dtype="float32", device="cpu")
    model.tokenizer.add_tokens(words)
    model.lm.resize_token_embeddings(len(model.tokenizer), mean_resizing=False)
    return model


def test_a_model_with_the_tokens_is_taken_as_it_is(tmp_path: Path) -> None:
    model = with_tokens(tmp_path / "m", ["<short>", "<think>", "<other>"])
    found = control_tokens(model)
    assert found.written == ("<short>", "<think>") and found.source == ("own", "own")
    assert control_tokens(model, think="t").source == ("own", "given")


def test_spare_tokens_are_those_whose_rows_are_apart(tmp_path: Path) -> None:
    model = with_tokens(tmp_path / "m", ["<a>", "<b>", "<c>"])
    a, b, c = model.tokenizer.convert_tokens_to_ids(["<a>", "<b>", "<c>"])
    with torch.no_grad():
        for table in (model.lm.get_input_embeddings(), model.lm.get_output_embeddings()):
            table.weight[a] = table.weight[b] = 1.0  # two that were never trained
            table.weight[c, ::2], table.weight[c, 1::2] = 1.0, -1.0
    found = control_tokens(model)
    assert c in found.ids and found.source == ("spare", "spare") and "no such mark" in found.told()
    model.tokenizer.chat_template = "{{ '<c>' }}"  # c has a meaning now, and the others are one
    with pytest.raises(UserError, match="have the same row"):
        control_tokens(model)
    with pytest.raises(UserError, match="never writes its control tokens"):
        thinkless.fit(with_tokens(tmp_path / "n", ["<a>", "<b>"]), toy_task(2).solved, warm_steps=0)


# --- reward, gates, examples ---


def rollout(tokens: list[int], score: int) -> Rollout:
    item = toy_task(1).fit[0]
    return Rollout(item, 0, tokens, "", None, None, float(score), "eos", [0.0] * len(tokens))


def test_the_reward_of_each_mode() -> None:
    reward = ModeReward(ControlTokens(5, 6, ("s", "t"), ("own", "own")), 0.5)
    some = [rollout(t, s) for t, s in (([5, 1], 1), ([6, 1], 1), ([5, 1], 0), ([6, 1], 0), ([7, 1], 1), ([], 0))]
    context = RewardContext(toy_task(1), Prompt(), None, nullcontext, 8, 0, {})
    assert reward(some, context) == [1.0, 0.5, -1.0, -1.0, -1.0, -1.0]


def test_when_a_policy_has_collapsed() -> None:
    def curve(thinks: list[float]) -> dict[str, list[Any]]:
        return {"update": list(range(len(thinks))), "think": thinks, "short": [1 - p for p in thinks]}

    assert collapsed(curve([0.5, 0.5, 0.5, 0.96])) == "think"
    assert collapsed(curve([1.0, 1.0, 1.0, 0.9])) == ""
    assert collapsed(curve([0.0] * 8)) == "short"
    assert collapsed(curve([0.0] * 7 + [0.2])) == ""


def test_a_coin_is_thrown_by_question_and_seed(talker: Model, task: Task) -> None:
    def modes(gate: ModeGate) -> list[int]:
        handle = Elicited(talker, "gate", decoder=gate)
        return [trace.tokens[0] for (trace,) in handle.answers(task.all)]

    gate = ModeGate(20, 21, rate=0.5, max_new_tokens=3)
    assert decoder_from_dict(json.loads(json.dumps(decoder_to_dict(gate)))) == gate
    assert modes(gate) == modes(gate) != modes(replace(gate, seed=1))
    alone = [Elicited(talker, "gate", decoder=gate).answer(task.all[n : n + 1])[0][0].tokens[0] for n in range(12)]
    assert alone == modes(gate) and set(alone) == {20, 21}
    more = modes(replace(gate, rate=0.8))
    assert all(b == 21 for a, b in zip(modes(gate), more, strict=True) if a == 21)
    with pytest.raises(UserError, match=r"rate = 1\.5"):
        ModeGate(1, 2, rate=1.5)
    with pytest.raises(UserError, match="another than short"):
        ModeGate(1, 1)


def test_after_its_gate_an_answer_is_the_models_own(talker: Model, task: Task) -> None:
    (gated,) = Elicited(talker, "gate", decoder=ModeGate(20, 21, rate=1.0, max_new_tokens=6)).answer(task.test[:1])[0]
    word = talker.tokenizer.convert_ids_to_tokens(21)
    put = Prompt("template", template=f"Q: {{question}}\nA:{word}")
    (own,) = Elicited(talker, "own", put, Greedy(5)).answer(task.test[:1])[0]
    assert gated.tokens == [21, *own.tokens] and gated.spent == own.spent + 1


def test_entropy_without_some_tokens() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 50.0], [0.0, 30.0, 0.0, -torch.inf]])
    assert entropy_without(logits, [3]).tolist() == pytest.approx([math.log(3), 0.0], abs=1e-6)
    p = np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum()
    assert float(entropy_without(torch.tensor([[1.0, 9.0, 2.0]]), [1])) == pytest.approx(-(p * np.log(p)).sum())


def test_the_threshold_has_the_rate(talker: Model, task: Task, here: Path) -> None:
    values = [0.3, 1.2, 0.7, 0.1]
    for chosen in range(5):
        assert sum(v >= threshold(values, chosen) for v in values) == chosen
    handle = fitted(talker, task)
    tokens, asked = control_tokens(talker, "s", "t"), task.dev[:3]
    assert handle.adapter is not None
    rate, least = as_often(talker, handle.adapter, handle.prompt, tokens, asked)
    own = [trace.tokens[0] == tokens.think for (trace,) in handle.answers(asked)]
    assert rate == sum(own) / 3 == handle.options["found"]["rate"]
    gate = ModeGate(*tokens.ids, by="entropy", threshold=least, max_new_tokens=2)
    chosen = [trace.tokens[0] for (trace,) in replace(handle, decoder=gate).answers(asked)]
    assert sum(one == tokens.think for one in chosen) == sum(own)


def test_what_the_warm_up_learns(talker: Model, task: Task) -> None:
    tokens, items, put = control_tokens(talker, "s", "t"), task.solved[:2], Prompt()
    handle = Elicited(talker, WARMED, put.thinking(), Greedy(60))
    (one,), (other,) = handle.answer(items)
    cut = replace(one, finish="length")
    marked = replace(other, tokens=[tokens.think, *other.tokens], ends=[0, *other.ends])
    of = examples(talker, items, put, tokens, {"short": [cut, other], "think": [one, marked]})
    assert len(of["short"]) == 1 and len(of["think"]) == 2
    end = talker.tokenizer.eos_token_id
    assert of["short"][0] == (put.ids(items[1].question, talker.tokenizer), [tokens.short, *other.tokens, end])
    assert of["think"][1].target == [tokens.think, *other.tokens, end]  # its own mark is not doubled


def test_rows_that_no_token_has_are_left_out_of_a_gate_s_threshold(tmp_path: Path, task: Task) -> None:
    """As they are where it decodes."""
    folder = save_tiny(tmp_path / "wide")
    lm = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(2)
    lm.resize_token_embeddings(97 + 40, mean_resizing=False)
    with torch.no_grad():
        lm.get_input_embeddings().weight.normal_(0, 1.0)
        lm.get_output_embeddings().weight.normal_(0, 0.25)[97:] *= 3
    lm.save_pretrained(folder)
    wide = load_model(str(folder), dtype="float32", device="cpu")
    items, put = task.all, Prompt()
    first = [trace.tokens[0] for (trace,) in Elicited(wide, "direct", put, Greedy(1)).answers(items)]
    think = max(set(first), key=first.count)
    tokens = ControlTokens(next(n for n in range(97) if n not in first), think, ("s", "t"), ("given", "given"))
    rate, least = as_often(wide, None, put, tokens, items)
    assert rate == first.count(think) / len(first)
    gate = ModeGate(*tokens.ids, by="entropy", threshold=least, max_new_tokens=1)
    chosen = [trace.tokens[0] for (trace,) in Elicited(wide, "gate", put, gate).answers(items)]
    assert chosen.count(think) == first.count(think)


def test_neighbouring_seeds_toss_other_coins() -> None:
    tokens = ControlTokens(1, 2, ("<short>", "<think>"), ("vocabulary", "vocabulary"))
    seeds = [gates(tokens, 0.5, 1.0, 8, seed)[f"random gate {n}"].seed for seed in range(3) for n in range(2)]
    assert len(set(seeds)) == 6
