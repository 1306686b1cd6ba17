"""Answers through lm-eval against the suite's own evaluation; where they end; what is refused."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import elicit
from elicit.elicited import Elicited
from elicit.evaluation.run.arms import arms_of
from elicit.integrations.lm_eval.arguments import STOPS
from elicit.integrations.lm_eval.model import ElicitLM, register
from elicit.methods import fit
from elicit.models import Model
from elicit.tasks.free_text import free_text
from elicit.tasks.lm_eval import SampleIds
from elicit.tasks.registry import load_task
from elicit.tasks.statements import open_thought
from probes.errors import UserError
from probes.sites import Site
from steering.directions import Direction
from steering.interventions import Add, Intervention, When
from tests.support.chats import FAMILIES, QUESTION, tokenizer_of

pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval and what it brings warn of their own matters
LIMIT = 20


def handles(model: Model) -> dict[str, Elicited]:
    direct = fit("direct", model, max_new_tokens=LIMIT)
    direction = Direction(
        torch.randn(model.lm.config.hidden_size, generator=torch.Generator().manual_seed(1)), Site(12)
    )
    plan = (Intervention(Add(direction), 2.0, when=When.every_step()),)
    return {
        "steered": replace(direct, interventions=plan),
        "cot-prompt": fit("cot-prompt", model, max_new_tokens=LIMIT),
        "cot-decoding": fit("cot-decoding", model, k=3, max_new_tokens=LIMIT),
        "self-consistency": fit("self-consistency", model, samples=3, seed=5, max_new_tokens=LIMIT),
    }


@pytest.fixture(scope="module")
def own_task(tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same questions as a task of this suite, each under the id that its document has in lm-eval."""
    docs = [json.loads(line) for line in (tasks / "test.jsonl").read_text().splitlines()]
    ids = SampleIds()
    rows = [{**doc, "id": ids.of("sums", n, doc), "split": "test"} for n, doc in enumerate(docs)]
    file = tmp_path_factory.mktemp("own") / "sums.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return load_task(str(file))


@pytest.mark.parametrize("name", ["steered", "cot-prompt", "cot-decoding", "self-consistency"])
def test_texts_are_those_of_the_suites_own_evaluation(
    organism: Model, manager: Any, own_task: Any, tmp_path: Path, name: str
) -> None:
    handle = handles(organism)[name]
    items = own_task.test[:4]
    run = elicit.evaluate(handle, items, against=[], out=tmp_path / "run")
    wanted = [trace.text for trace in arms_of([run])[0].chosen([item.id for item in items])]
    lm = ElicitLM(handle, kind="number", stop="elicit", batch_size=3)
    found = simple_evaluate(
        lm, tasks=["sums"], task_manager=manager, limit=4, bootstrap_iters=0,
        gen_kwargs={"until": list(handle.prompt.stop), "max_gen_toks": LIMIT},
    )  # fmt: skip
    assert [sample["resps"][0][0] for sample in found["samples"]["sums"]] == wanted
    assert found["config"]["elicit"]["method"] == handle.method


def test_repeats_are_drawn_apart_and_in_any_batch_the_same(tiny: Model, manager: Any) -> None:
    def texts(batch: int, **chosen: Any) -> list[list[str]]:
        lm = ElicitLM(fit("direct", tiny), seed=7, batch_size=batch)
        found = simple_evaluate(lm, tasks=["sums_sampled"], task_manager=manager, bootstrap_iters=0, **chosen)
        return [sample["resps"][0] for sample in found["samples"]["sums_sampled"]]

    every = texts(4)
    assert all(len(some) == 2 and some[0] != some[1] for some in every)
    assert texts(1, samples={"sums_sampled": [3, 5]}) == [every[3], every[5]]


def test_both_stop_rules(organism: Model) -> None:
    asked = ("Q: Compute 10 + 11 - 9 + 3 - 8.\nA:", {"until": [" "], "max_gen_toks": 6})
    request = Instance("generate_until", {}, asked, 0)
    ours = {stop: ElicitLM(fit("direct", organism), stop=stop).generate_until([request]) for stop in STOPS}
    theirs = HFLM(pretrained=organism.lm, tokenizer=copy.deepcopy(organism.tokenizer)).generate_until([request])
    assert ours == {"lm-eval": theirs, "elicit": [" 12"]}
    assert theirs == [""]


@pytest.mark.parametrize("stop", STOPS)
def test_thoughts_end_by_the_prompts_budget(tiny: Model, stop: str) -> None:
    handle = fit("direct", tiny, prompt="qa:begin=<think>,thought_tokens=3", max_new_tokens=24)
    (trace,) = handle.answer(free_text(["a b c"]))[0]
    request = Instance("generate_until", {}, ("Q: a b c\nA:", {"until": [], "max_gen_toks": 24}), 0)
    assert ElicitLM(handle, stop=stop).generate_until([request]) == [trace.text]
    assert trace.text[3:11] == "</think>"


def test_ids_are_of_content() -> None:
    docs = [("a", 0, {"q": 1, "r": 2}), ("a", 0, {"r": 2, "q": 1}), ("a", 1, {"q": 1, "r": 2}), ("b", 1, {"q": 1})]
    ids = SampleIds()
    one, same, again, other = (ids.of(*doc) for doc in docs)
    assert one == same
    assert again == f"{one}-2"
    assert other.startswith("b-")
    assert SampleIds().of(*docs[2]) == one


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "cot-decoding", "k": 2, "2": ""}, "model argument '2' was given without a value"),
        ({"method": "cot-decodin"}, "did you mean cot-decoding"),
        (
            {"method": "cot-decoding", "kk": 2},
            "unknown model argument, or option of cot-decoding, 'kk'; did you mean k",
        ),
        ({"method": "cot-decoding", "k": "2"}, "expected int, like 10"),
        ({"peft": "folder"}, "model argument 'peft' was given, which elicit has not; give bundle=FOLDER"),
        ({"stop": "both"}, "unknown stop rule 'both'; known: elicit, lm-eval"),
        ({"kind": "numbers"}, "give one of number, last-number"),
        ({"kind": {"sums": "numbers"}}, "give one of number, last-number"),
        ({"seed": "0"}, "seed='0' was given; expected a whole number"),
        ({"truncate": 1}, "truncate=1 was given; expected true or false"),
        ({"batch_size": "auto:4"}, "batch_size='auto:4' was given; give a number of prompts, or auto"),
        ({"batch_size": 0}, "batch_size=0 was given; give at least 1"),
        ({"bundle": "nowhere"}, "there is no bundle 'nowhere'"),
        ({"bundle": "nowhere", "k": 3, "method": "cot-decoding"}, "bundle and method were given"),
        ({"bundle": "nowhere", "seed": 1, "dtype": "float32x"}, "unknown dtype"),
    ],
)
def test_arguments_are_refused_before_weights_are_read(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ElicitLM("no-such-model", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "cot-decoding", "k": 2}, "cot-decoding chooses among answers, and for that has to know their kind"),
        ({"method": "sae-steer"}, "give fit_task=NAME, a task of this suite, or bundle=FOLDER"),
        ({"method": "one-shot-rlvr"}, "give fit_task=NAME"),
        ({"method": "quiet-star"}, "give text=FILE, fit_task=NAME, a task of this suite, or bundle=FOLDER"),
        ({"prompt": "boxed"}, "has a form of the answer, and lm-eval writes the question"),
        ({"prompt": "qa-asked-cot"}, "has a template of its own"),
    ],
)
def test_handles_are_refused_at_construction(folder: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ElicitLM(str(folder), dtype="float32", **given)


@pytest.mark.parametrize(
    ("method", "asked", "message"),
    [
        ("direct", {"num_beams": 4}, "num_beams=4"),
        ("direct", {"repetition_penalty": 1.2}, "repetition_penalty=1.2"),
        ("direct", {"do_sample": True}, "samples at temperature 0"),
        ("self-consistency", {"do_sample": True, "temperature": 0.5}, "self-consistency chooses tokens by sampling"),
        ("cot-decoding", {"temperature": 0.5}, "cot-decoding chooses tokens by branching"),
        ("cot-decoding", {}, "the kind of the answers of 'other' was not given"),
        ("direct", {"max_gen_toks": 2040}, "answers of 2040 were asked for, and there are 2048 positions"),
    ],
)
def test_what_a_task_asks_is_honoured_or_refused(tiny: Model, method: str, asked: dict[str, Any], message: str) -> None:
    lm = ElicitLM(fit(method, tiny), kind={"sums": "number"})
    request = Instance("generate_until", {}, ("Q: 1 + 1?\nA:", {"num_beams": 1, **asked}), 0, ("other", 0, 1))
    with pytest.raises(UserError, match=message):
        lm.generate_until([request])


def test_a_bundle_answers_as_the_handle_did(tiny: Model, folder: Path, tmp_path: Path) -> None:
    direction = Direction(torch.randn(32, generator=torch.Generator().manual_seed(1)), Site(1))
    handle = replace(fit("direct", tiny), interventions=(Intervention(Add(direction), 2.0),))
    handle.save(tmp_path / "bundle")
    request = Instance("generate_until", {}, ("Q: 1 + 1?\nA:", {"until": [], "max_gen_toks": 8}), 0)
    lm = ElicitLM.create_from_arg_string(
        json.dumps({"pretrained": str(folder), "bundle": str(tmp_path / "bundle"), "dtype": "float32"}),
        {"device": "cpu"},
    )
    given = ElicitLM(handle)
    assert lm.digest == given.digest
    assert (
        lm.generate_until([request])
        == given.generate_until([request])
        != ElicitLM(fit("direct", tiny)).generate_until([request])
    )


def test_lists_that_became_keys_are_refused_in_one_text(folder: Path, manager: Any) -> None:
    register()
    with pytest.raises(UserError, match="model argument '3' was given without a value"):
        simple_evaluate(
            "elicit", f"pretrained={folder},method=cot-decoding,k=2,3", tasks=["sums"], task_manager=manager
        )
    with pytest.raises(UserError, match="which are no JSON"):
        ElicitLM.create_from_arg_string('{"k": 2')


def test_a_cache_belongs_to_one_handle(tiny: Model, manager: Any, tmp_path: Path) -> None:
    def run(lm: ElicitLM, cache: str = "cache", **given: Any) -> Any:
        return simple_evaluate(
            lm, tasks=["sums", "choices"], task_manager=manager, limit=2, bootstrap_iters=0,
            use_cache=str(tmp_path / cache), **given,
        )["samples"]  # fmt: skip

    first = run(ElicitLM(fit("direct", tiny)))
    again = ElicitLM(fit("direct", tiny))
    again.handle.model.kept.clear()
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:
        patched.setattr(Elicited, "respond", None)  # nothing is decoded again
        assert [s["resps"] for s in run(again)["sums"]] == [s["resps"] for s in first["sums"]]
    with pytest.raises(UserError, match="holds answers of another model or mechanism; name it by this one's digest"):
        run(ElicitLM(fit("cot-prompt", tiny)))
    with pytest.raises(UserError, match="self-consistency draws its answers"):
        run(ElicitLM(fit("self-consistency", tiny), kind="number"), "other")
    with pytest.raises(UserError, match="samples are asked for by temperature alone"):
        run(ElicitLM(fit("direct", tiny)), gen_kwargs={"temperature": 0.5, "do_sample": None})


@pytest.mark.parametrize("family", ["llama-3", "qwen3", "qwen3-thinking", "gemma", "mistral", "deepseek-r1"])
def test_a_chats_trigger_stands_in_the_users_message_once(tiny: Model, family: str) -> None:
    model = replace(tiny, tokenizer=tokenizer_of(FAMILIES[family]))
    handle = fit("cot-prompt", model, prompt="chat")
    lm = ElicitLM(handle)
    text = lm.apply_chat_template([{"role": "user", "content": QUESTION}])
    assert text == handle.prompt.text(QUESTION, model.tokenizer)
    assert lm.words.after(text) == text
    opened = lm.words.opened(text)
    assert opened is not None
    assert open_thought(opened) == FAMILIES[family].begun == handle.prompt.begun(QUESTION, model.tokenizer)
    assert lm.words.after(f"Q: {QUESTION}\nA:") == f"Q: {QUESTION}\nA: Let's think step by step."
    assert lm.tokenizer_name != ElicitLM(fit("direct", model, prompt="chat")).tokenizer_name


@pytest.mark.parametrize("family", ["llama-3", "qwen3", "mistral", "deepseek-r1", "smollm3", "olmo-2"])
def test_a_chat_that_lm_eval_begins_to_answer(tiny: Model, family: str) -> None:
    """The trigger stands in it once, the day is the one of every prompt, and a template's faults are told as ever."""
    lm = ElicitLM(fit("cot-prompt", replace(tiny, tokenizer=tokenizer_of(FAMILIES[family])), prompt="chat"))
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "It is"}]
    made = lm.apply_chat_template(turns, False)
    text = lm.words.after(made)
    assert text == made and text.endswith("It is")
    assert text.count("step by step") == 1
    assert lm.words.opened(text) is not None
    days = ("26 Jul 2024", "26 July 2024")
    assert any(day in text for day in days) is (family in ("llama-3", "smollm3"))
    lm.chat_template_args = {"brisk": True}
    with pytest.raises(UserError, match="reads none of that name"):
        lm.apply_chat_template(turns, False)


def test_a_template_that_takes_no_system_message_is_told_of(tiny: Model) -> None:
    lm = ElicitLM(fit("direct", replace(tiny, tokenizer=tokenizer_of(FAMILIES["gemma"])), prompt="chat"))
    with pytest.raises(UserError, match="takes no system message"):
        lm.apply_chat_template([{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}])
