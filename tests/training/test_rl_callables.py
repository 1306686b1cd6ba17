"""Rewards as callables of TRL and verl, the pre-flight of a trainer of TRL's, the figures of anybody's rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit.models import Model, load_model
from elicit.training import trl_common
from elicit.training.rl.callables import trl_preflight, trl_reward, verl_log, verl_reward
from elicit.training.rl.preflight import of_rewards
from probes.errors import UserError

SAID = ["so \\boxed{4}", "It is 4.", "", "It is 5."]


def message(text: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def test_rewards_read_texts_and_messages() -> None:
    reward = trl_reward("exact+0.5*format:boxed", "gold", kind="number")
    asked = [{"role": "user", "content": "2 + 2?"}]
    expected = [1.5, 1.0, 0.0, 0.0]
    assert reward(prompts=["2 + 2?"] * 4, completions=SAID, gold=["4"] * 4, other=[1] * 4) == expected
    told = [message("so \\boxed{4}"), message([{"type": "text", "text": "It is 4."}]), message(None), message("5")]
    assert reward(prompts=[asked] * 4, completions=told, gold=[4, 4.0, "4", "4"]) == expected
    assert reward.__name__ == "exact+0.5*format:boxed"  # as TRL logs it
    corrupted = reward(prompts=["2 + 2?"] * 4, completions=SAID, gold=["3"] * 4)
    assert corrupted == [0.5, 0.0, 0.0, 0.0]
    score = verl_reward("exact+0.5*format:boxed", kind="number")
    given = [score("gsm8k", text, "4", {"index": 3}) for text in SAID]
    assert [one["score"] for one in given] == expected
    assert [one["acc"] for one in given] == [one["exact"] for one in given] == [1.0, 1.0, 0.0, 0.0]
    assert [one["format:boxed"] for one in given] == [1.0, 0.0, 0.0, 0.0]
    boxed = verl_reward("boxed")(data_source="maths", solution_str="so \\boxed{\\frac12}", ground_truth="0.5")
    assert boxed == {"score": 1.0, "boxed": 1.0}  # no accuracy where no term is one


def test_a_thought_that_does_not_end_has_no_answer() -> None:
    said = ["It is 4. Or", "It is 3.</think> It is 4."]
    asked = [{"role": "user", "content": "2 + 2?"}]
    for name in ("exact", "boxed"):
        texts = [text.replace("4", "\\boxed{4}") for text in said]
        assert trl_reward(name, begun="<think>")([asked] * 2, texts, answer=["4"] * 2) == [0.0, 1.0]
        assert trl_reward(name)(["2 + 2?\n<think>\n"] * 2, texts, answer=["4"] * 2) == [0.0, 1.0]
        assert [verl_reward(name, begun="<think>")("", text, "4")["score"] for text in texts] == [0.0, 1.0]


def test_rewards_of_a_group() -> None:
    answers = ["4", "4", "5", "7", "7", "2"]
    prompts = ["a"] * 3 + ["b"] * 3
    assert trl_reward("majority")(prompts, answers) == [1, 1, 0, 1, 1, 0]
    ids = [[1] * n for n in (1, 2, 4, 8, 3, 5)]
    assert trl_reward("length", limit=8)(prompts, answers, completion_ids=ids) == [len(one) / 8 for one in ids]


def test_tosses() -> None:
    class At:
        def __init__(self, step: int) -> None:
            self.global_step = step

    first, again, other = trl_reward("random:0.5"), trl_reward("random:0.5"), trl_reward("random:0.5", seed=1)
    told = [first(["q"] * 64, ["x"] * 64, trainer_state=At(step)) for step in (0, 1)]
    assert told[0] != told[1] and 16 < sum(told[0]) < 48
    assert told[1] == again(["q"] * 64, ["x"] * 64, trainer_state=At(1))  # as after a stop
    assert told[1] != again(["q"] * 64, ["x"] * 64, trainer_state=At(1))  # more answers of the same step
    assert told[0] != other(["q"] * 64, ["x"] * 64, trainer_state=At(0))
    toss = verl_reward("random:0.5")
    assert 0 < sum(toss("", "x", None)["score"] for _ in range(64)) < 64


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda: trl_reward("exat"), "unknown reward 'exat'; did you mean exact"),
    (lambda: trl_reward("incorrect"), "give exact, with the wrong answers as its gold"),
    (lambda: verl_reward("information-gain"), "it asks the base"),
    (lambda: verl_reward("exact+majority"), "'majority' was given for verl, which shows one text"),
    (lambda: trl_reward("length"), "give limit, the largest number of tokens"),
    (lambda: trl_reward(begun="think"), "begun = 'think' was given; give the mark of a thought"),
    (lambda: trl_reward()(["a"], ["4"], solution=["4"]), "no column 'answer'; give the one .* of solution"),
    (lambda: trl_reward()(["a"], ["4"], answer=[None]), "column 'answer' of a row is NoneType"),
    (lambda: trl_reward(kind="number")(["a"], ["4"], answer=["four or so"]), "not read as an answer of kind number"),
    (lambda: verl_reward()("maths", "4", ["4"]), "ground_truth of 'maths' is list"),
])  # fmt: skip
def test_what_is_refused(wrong: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as told:
        wrong()
    assert "\n" not in str(told.value)


def test_a_majority_of_a_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="in 2 processes, which see a part of a group each"):
        trl_reward("majority")(["a"], ["4"])


def test_figures_of_the_rewards_of_others() -> None:
    found = of_rewards([[0, 1, 0, 0], [0, 0, 0, 0]], 2)
    assert (found.answers, found.read, found.reward, found.mixed, found.right) == (8, 1.0, 0.125, 0.25, 0.125)
    assert found.expected == pytest.approx((1 - 0.25**2 - 0.75**2) / 2)
    assert found.pass_at_k == pytest.approx({"1": 0.125, "2": 0.25, "4": 0.5})
    graded = of_rewards([[0.5, 0.5, 0.2], [0.1, 0.1]])
    assert (graded.mixed, graded.expected, graded.right, graded.pass_at_k) == (0.5, -1.0, -1.0, {})
    lost = of_rewards([[1.0, None, float("nan")], [None, None]])
    assert (lost.mixed, lost.read, lost.reward) == (0.0, 0.2, 1.0)
    with pytest.raises(UserError, match=r"'mine' is 0\.30 in every group of 4 answers of the base, so"):
        of_rewards([[0.3, 0.3], [0.3, 0.3]]).check("mine")
    with pytest.raises(UserError, match="could be read in none of 2 answers"):
        of_rewards([[None, None]]).check("mine")
    for rewards, group in (([], 0), ([[1.0]], 0), ([[1.0, 0.0, 1.0]], 2), ([[1.0, float("inf")]], 0), ([[1.0]], 1)):
        with pytest.raises(UserError, match="give "):
            of_rewards(rewards, group)


def test_a_log_of_verl(tmp_path: Path) -> None:
    file = tmp_path / "7.jsonl"
    rows = [{"input": "ab"[n % 2], "output": "x", "gts": "4", "score": float(n == 2), "step": 7} for n in range(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert verl_log(file) == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert of_rewards(verl_log(file)).mixed == 0.5
    rows = [row | {"input": f"{row['input']}\u2028", "output": "x\x85\u2029"} for row in rows]  # no ends of lines
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert verl_log(file) == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    for text, words in (("{", "line 1 of .* is no JSON"), ('{"input": "a"}', "no text 'input' with a number 'score'")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=words):
            verl_log(file)
    with pytest.raises(UserError, match="cannot be read"):
        verl_log(tmp_path / "8.jsonl")


def grpo(folder: Path, model: str, rewards: list[Any], **more: Any) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    loaded: Model = load_model(model, dtype="float32", device="cpu")
    loaded.lm.requires_grad_(True)
    rows = [{"prompt": f"Q: {n} + 1\nA:", "answer": str(n + 1)} for n in range(4)]
    args = GRPOConfig(
        str(folder), use_cpu=True, bf16=False, max_steps=1, per_device_train_batch_size=4, num_generations=4,
        max_completion_length=6, learning_rate=0.01, report_to="none", save_strategy="no", disable_tqdm=True,
        gradient_checkpointing=None, **more,
    )  # fmt: skip
    return GRPOTrainer(
        loaded.lm, rewards, args=args, train_dataset=Dataset.from_list(rows), processing_class=loaded.tokenizer
    )


def test_a_trainer_of_trl_is_looked_at_and_trains_as_without(tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason=f"TRL is not installed; {trl_common.INSTALL}")

    def vowels(completions: list[str], **_: Any) -> list[float]:
        return [sum(letter in "aeiou" for letter in text) / 6 for text in completions]

    weights = []
    for looked in (True, False):
        made = grpo(tmp_path, str(tiny_folder), [vowels, trl_reward("exact", kind="number")], reward_weights=[1.0, 2.0])
        before = {name: value.clone() for name, value in made.model.named_parameters()}
        if looked:
            found = trl_preflight(made, 4)
            assert found.answers == 16 and 0 < found.mixed <= 1 and found.reward > 0 and found.read == 1
            assert not made.model.training and not made._metrics["train"]
        made.train()
        after = dict(made.model.named_parameters())
        assert any(not torch.equal(before[name], after[name]) for name in before)
        weights.append(after)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_trainer_without_a_signal_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason=f"TRL is not installed; {trl_common.INSTALL}")
    made = grpo(tmp_path, str(tiny_folder), [trl_reward("boxed")])
    with pytest.raises(UserError, match=r"reward 'boxed' is 0\.00 in every group of 8 answers of the base") as told:
        trl_preflight(made, 2)
    assert "\n" not in str(told.value) and str(told.value).endswith("(checked=False gives the figures and goes on)")
    assert trl_preflight(made, 2, checked=False).mixed == 0
    with pytest.raises(UserError, match="has no 0 rows"):
        trl_preflight(made, 0)
