"""`vector-transfer` on tiny models: the fit, its gates, its controls and what it says of itself."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM

from elicit import evaluate
from elicit.decoding import Greedy, Hybrid
from elicit.decoding.decoders.gates import ProbeGate
from elicit.decoding.decoders.partner import HybridSteering
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.methods import vector_transfer
from elicit.methods.vector_transfer import gate_fitting
from elicit.methods.vector_transfer.behaviour_rates import rates as measure_rates
from elicit.methods.vector_transfer.gate_fitting import (
    _held_out,
    cross_model_difference,
    distil,
    greedy_along,
    token_labels,
)
from elicit.methods.vector_transfer.pipeline import STAGES, _check_traces
from elicit.methods.vector_transfer.reasoning_traces import (
    ReasoningTraces,
    TokenActivations,
    read_by_both,
    reasoning_traces_from,
    reasoning_traces_of,
    token_activations,
)
from elicit.models import Model, Prompt, memory
from elicit.report.run_section import notes
from elicit.tasks import load_task
from elicit.tasks.base import Items, Task
from probes.errors import UserError
from probes.sites import Site, blocks
from steering.categories.segments import segment
from steering.categories.sentences import read
from steering.categories.taxonomy import fit as fit_taxonomy
from steering.find import stream_norm

SITE = Site(1)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("chain-sum", limit=8)


@pytest.fixture(scope="module")
def partner_folder(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same shape that says other things."""
    other = copy.deepcopy(tiny.lm)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for block in blocks(other):
            for weight in block.parameters():
                weight += 0.3 * weight.std() * torch.randn(weight.shape, generator=generator)
    folder = tmp_path_factory.mktemp("partner")
    other.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def partner(partner_folder: Path) -> Model:
    from elicit import load_model

    return load_model(str(partner_folder), dtype="float32", device="cpu")


class Told:
    """What a fit reports."""

    def __init__(self) -> None:
        self.arms: dict[str, list[int]] = {}
        self.stages: list[tuple[int, int, str]] = []

    def arm(self, name: str, questions: int, done: int) -> None:
        self.arms[name] = [questions, done]

    def step(self, step: int, open_rows: int) -> None:
        pass

    def advance(self, questions: int, tokens: int) -> None:
        assert tokens > 0
        self.arms[list(self.arms)[-1]][1] += questions

    def training(self, name: str, done: int, updates: int, note: str) -> None:
        assert name == vector_transfer.NAME
        self.stages.append((done, updates, note))


def transferred(model: Model, task: Task, partner: Path, progress: Progress | None = None, **options: Any) -> Elicited:
    chosen = {
        "categories": "2", "coefficients": "1,4", "layers": "1", "read": 8, "dev": 4, "checked": False,
        "max_new_tokens": 24, "reading": "mean", **options,
    }  # fmt: skip
    return vector_transfer.fit(model, task.solved, progress, partner=str(partner), **chosen)


def test_the_gap_to_the_partner_is_reported_beside_the_controls(
    tiny: Model, task: Task, partner_folder: Path, tmp_path: Path
) -> None:
    handle = transferred(tiny, task, partner_folder)
    assert isinstance(handle.decoder, Hybrid) and handle.partner is not None
    found = handle.options["found"]
    assert sum(card["size"] for card in found["cards"]) == found["sentences"] and found["categories"] == 2
    assert 0 <= found["dev"]["copied"] <= 1 and found["steered"] is not None
    controls = vector_transfer.controls(handle, task.solved)
    wanted = {"direct", "thinking model", "permuted categories", "token substitution", "random vectors 4"}
    wanted |= {"direct@budget", "cot-prompt@budget", "random vectors, may decline", "permuted categories, may decline"}
    assert wanted <= set(controls)
    for name in ("random vectors 0", "permuted categories", "random categories"):
        assert controls[name].decoder.share == found["steered"]
    for name in ("random vectors, may decline", "permuted categories, may decline"):
        one = controls[name].partner
        assert one is not None and controls[name].decoder == handle.decoder
        for category, vector in handle.partner.vectors.items():
            assert one.vectors[category].length == pytest.approx(vector.length, rel=1e-5)
            assert abs(float(one.vectors[category].unit @ vector.unit)) < 0.99
    run = evaluate(handle, task.test, against=controls, out=tmp_path / "run")
    copied = [t.tokens for some in run.traces["token substitution"].values() for t in some]
    assert copied == [t.tokens for some in run.traces["thinking model"].values() for t in some]
    (text,) = [part for part in vector_transfer.findings(run) if "table" in part]
    assert "token substitution" in text
    assert Elicited.load(run.folder / "elicited", tiny, handle.partner.model).decode_key == handle.decode_key
    assert any("agree to" in line for line in notes(run.metrics))


def test_a_fit_tells_what_it_does(tiny: Model, task: Task, partner_folder: Path) -> None:
    told = Told()
    transferred(tiny, task, partner_folder, told)
    done = {name: tuple(counts) for name, counts in told.arms.items()}
    assert done == {
        "base on dev": (4, 4), "thinking model on dev": (4, 4), "thinking model on fit": (8, 8),
        "vector-transfer": (4, 4),
    }  # fmt: skip
    last = len(STAGES) - 1
    assert told.stages == [(n, last, stage) for n, stage in enumerate(STAGES)]


def test_without_a_thinking_model_the_gate_is_on_the_base(tiny: Model, task: Task, partner_folder: Path) -> None:
    handle = transferred(tiny, task, partner_folder, gate="probe")
    assert handle.partner is not None and handle.partner.model is None
    assert 0 <= handle.options["found"]["distilled"]["auroc"] <= 1
    tried = handle.options["found"]["tried"]
    assert isinstance(handle.decoder, Hybrid) and len(handle.decoder.coefficients) == 1 < len(tried)
    assert tried[f"{handle.decoder.coefficients[0]:g}"] == max(tried.values())
    arms = vector_transfer.controls(handle)
    assert arms["thinking model"].model.provenance != handle.model.provenance  # the other end of the gap, all the same
    assert "token substitution" not in arms
    entropy = transferred(tiny, task, partner_folder, gate="entropy")
    assert entropy.partner is not None and entropy.partner.model is None


def test_one_behaviour_at_a_strength_by_kl(tiny: Model, task: Task, partner_folder: Path, tmp_path: Path) -> None:
    handle = transferred(tiny, task, partner_folder, mode="static", kl="0.2")
    assert handle.options["found"]["kl"] == 0.2 and len(handle.options["found"]["rates"]) == 2 + 3
    run = evaluate(handle, task.test[:2], against=vector_transfer.controls(handle, task.solved), out=tmp_path / "run")
    effects = run.metrics["side_effects"]
    assert set(effects) == {"vector-transfer", "sign flipped", "random direction"}
    assert [one["plain_kl"] for one in effects.values()] == pytest.approx([0.2] * 3, rel=0.02)
    assert "Side effects" in (run.folder / "report.html").read_text()


def test_one_behaviour_at_every_step(tiny: Model, task: Task, partner_folder: Path) -> None:
    handle = transferred(tiny, task, partner_folder, mode="static", coefficients="0.5,2")
    (push,) = handle.interventions
    assert push.strength == 0.5 and handle.partner is None
    controls = vector_transfer.controls(handle)
    baselines = ["direct", "cot-prompt", "direct@budget", "cot-prompt@budget"]
    assert list(controls) == [*baselines, "sign flipped", "random direction"]
    assert {one.interventions[0].home for name, one in controls.items() if one.interventions} == {push.home}
    rates = handle.options["found"]["rates"]
    assert list(rates) == ["base", "thinking model", "× 0.5", "× 2", "× -0.5", "random direction × 0.5"]
    heading, shown, rated = (part for part in vector_transfer.report_sections(handle.options) if isinstance(part, str))
    assert "Categories" in heading and "typical sentences" in shown and "× 2" in rated
    with pytest.raises(UserError, match="behaviour 9 was given; the categories with a vector are"):
        transferred(tiny, task, partner_folder, mode="static", behaviour=9)


def test_a_behaviour_is_counted_by_sentence_and_by_token(tiny: Model, task: Task) -> None:
    """A judge whose category is 'begins with this token' must find exactly the sentences that do."""
    items = task.dev[:4]
    judge = Elicited(tiny, "judge", Prompt(), Greedy(16))
    traces = [trace for (trace,) in judge.answers(items)]
    said = reasoning_traces_from([judge.prompt_ids(item) for item in items], traces, tiny.tokenizer)
    site = Site(1)
    x = read(tiny.lm, said.texts, said.lengths, said.spans, [site], ["first"])[site, "first"]
    found = fit_taxonomy(x, "k-means", 2, site=site, reading="first")
    labels = found.labels(x).tolist()
    lengths = [last - first for spans in said.spans for first, last in spans]
    of = [n for n, spans in enumerate(said.spans) for _ in spans]
    rate = measure_rates(judge, found, 1, [judge.prompt_ids(item) for item in items], traces, 0)
    for name, weight in (("sentences", [1] * len(lengths)), ("tokens", lengths)):
        shares = [
            sum(w for w, n, c in zip(weight, of, labels, strict=True) if n == item and c == 1)
            / sum(w for w, n in zip(weight, of, strict=True) if n == item)
            for item in range(len(items))
        ]
        assert rate[name] == pytest.approx(np.mean(shares))
    low, high = rate["tokens_interval"]
    assert low <= rate["tokens"] <= high
    silent = [replace(trace, tokens=[]) for trace in traces]
    assert measure_rates(judge, found, 1, [[1]] * 4, silent, 0)["sentences"] == 0


def thoughts(model: Model, items: Items, limit: int) -> ReasoningTraces:
    return reasoning_traces_of(Elicited(model, "thinking", Prompt(), Greedy(limit)), items)


def test_vectors_between_the_models_are_their_mean_difference(tiny: Model, partner: Model, task: Task) -> None:
    told = thoughts(partner, task.fit, 16)
    labels = torch.arange(told.sentences) % 2
    mine, theirs = token_activations(tiny.lm, told, SITE), token_activations(partner.lm, told, SITE)
    vectors = cross_model_difference(mine, theirs, labels, SITE, norm := stream_norm(tiny.lm, told.texts, SITE))
    assert vectors[0].length == pytest.approx(norm)
    rows = labels[mine.sentence] == 1
    wanted = (theirs.x - mine.x)[rows].mean(0)
    assert torch.cosine_similarity(vectors[1].vector, wanted, dim=0) > 0.9999
    with pytest.raises(UserError, match="equal activations"):
        cross_model_difference(mine, mine, labels, SITE, norm)


def test_positions_are_those_that_choose(tiny: Model, partner: Model, task: Task) -> None:
    told = thoughts(partner, task.fit[:2], 12)
    read = token_activations(partner.lm, told, SITE)
    assert len(read.x) == sum(len(t) - n for t, n in zip(told.texts, told.lengths, strict=True))
    # The thinking model would choose its own tokens again at each of them.
    said = torch.cat([torch.tensor(t[n:]) for t, n in zip(told.texts, told.lengths, strict=True)])
    assert torch.equal(torch.cat(greedy_along(partner.lm, told)), said)


def test_token_labels_find_planted_categories() -> None:
    generator = torch.Generator().manual_seed(0)
    sentence = np.repeat(np.arange(60), 5)
    labels = torch.arange(60) % 3
    x = torch.randn(300, 8, generator=generator)
    x[torch.arange(300), labels[sentence]] += 4
    read = TokenActivations(x, sentence // 3, sentence)
    probe, figures = token_labels(read, labels, 0)
    assert figures["accuracy"] > 0.9 > figures["most_frequent"]
    assert float((probe.labels(x) == labels[sentence]).float().mean()) > 0.9
    with pytest.raises(UserError, match="one category"):
        token_labels(read, torch.zeros(60, dtype=torch.long), 0)
    held = int(read.text[_held_out(read.text, 0)][0])
    with pytest.raises(UserError, match="but those of held-out texts are of one category; give more questions"):
        token_labels(read, (torch.arange(60) // 3 == held).long(), 0)


def test_the_distilled_gate_fires_where_the_models_part(tiny: Model, partner: Model, task: Task) -> None:
    told = thoughts(partner, task.fit, 24)
    labels = torch.zeros(told.sentences, dtype=torch.long)
    gate, figures = distil(tiny.lm, told, token_activations(tiny.lm, told, SITE), labels, SITE, 0, budget=0.2)
    assert set(gate.categories) == {0} and 0 < gate.threshold < 1
    assert figures["differs"] > 0
    with pytest.raises(UserError, match="nothing to gate"):
        distil(partner.lm, told, token_activations(partner.lm, told, SITE), labels, SITE, 0)


@pytest.mark.parametrize(
    ("agree", "budget", "told"),
    [
        ((), 0.5, "differ at 100% of positions outside held-out texts, budget 50%: there is nothing to gate"),
        ((), None, "differ at 100% of positions outside held-out texts, budget 100%: there is nothing to gate"),
        ((3,), None, "differ at 100% of positions outside held-out texts, budget 83%: there is nothing to gate"),
        ((0,), None, ""),
    ],
)
def test_models_that_differ_everywhere_leave_nothing_to_gate(
    agree: tuple[int, ...], budget: float | None, told: str, monkeypatch: pytest.MonkeyPatch, tiny: Model
) -> None:
    """A classifier of one class alone cannot be fitted; text 3 is held out."""
    texts = [[1, 2, 3, 4, 5, 6]] * 6
    thought = ReasoningTraces(texts, [2] * 6, [[(2, 6)]] * 6)
    read = TokenActivations(torch.randn(24, 8), np.repeat(np.arange(6), 4), np.repeat(np.arange(6), 4))
    assert 3 in read.text[_held_out(read.text, 0)] and 0 not in read.text[_held_out(read.text, 0)]
    greedy = [torch.tensor([3, 4, 5, 6]) + (0 if n in agree else 9) for n in range(6)]
    monkeypatch.setattr(gate_fitting, "greedy_along", lambda lm, thoughts: greedy)

    def distilled(labels: list[int], budget: float | None) -> ProbeGate:
        return distil(tiny.lm, thought, read, torch.tensor(labels), SITE, 0, budget)[0]

    if told:
        with pytest.raises(UserError, match=told):
            distilled([0] * 6, budget)
        assert distilled([0, 1] * 3, 0.5).categories == (0, 1)  # which one is due is to be told
    else:
        assert distilled([0] * 6, budget).categories == (0,)


def test_a_head_tells_the_coefficient(tiny: Model, task: Task, partner_folder: Path, tmp_path: Path) -> None:
    handle = transferred(tiny, task, partner_folder, coefficients="head")
    assert isinstance(handle.decoder, Hybrid) and handle.decoder.coefficients == (1.0,)
    assert handle.partner is not None and handle.partner.heads is not None
    assert list(handle.partner.heads) == list(handle.partner.vectors)
    for category, head in handle.partner.heads.items():
        made = handle.options["found"]["heads"][str(category)]
        assert made["positions"] + made["held_out"] > 8 and made == dict(head.made)
    run = evaluate(handle, task.test[:2], out=tmp_path / "run")
    assert any("predicted from the base's own activation" in line for line in notes(run.metrics))
    back = Elicited.load(run.folder / "elicited", tiny, handle.partner.model)
    assert isinstance(back.partner, HybridSteering) and back.partner.digest == handle.partner.digest
    with pytest.raises(UserError, match="static needs a number"):
        transferred(tiny, task, partner_folder, coefficients="head", mode="static")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"gate": "oracel"}, "unknown gate"),
        ({"mode": "stati"}, "unknown mode"),
        ({"vectors": "mean"}, "did you mean means"),
        ({"taxonomy": "kmeans"}, "unknown kind of taxonomy"),
        ({"reading": "frist"}, "did you mean first"),
        ({"coefficients": "much"}, "coefficients 'much' were given"),
        ({"coefficients": ""}, "give at least one, ascending"),
        ({"windows": "1,x"}, "windows '1,x' were given"),
        ({"layers": "9"}, "layer 9 was given"),
        ({"kl": "0.5"}, "give it with mode=static"),
        ({"categories": "1,3"}, "numbers from 2 on"),
        ({"categories": ""}, "numbers from 2 on"),
        ({"dev": 0}, "dev = 0 was given to vector-transfer; give 1 or more"),
        ({"read": -1}, "read = -1 was given to vector-transfer; give 1 or more"),
        ({"read": 3}, "categories need 6 in 4 at least; give more questions"),
        ({"categories": "90"}, "90 categories need 270"),
        ({"partner": ""}, "no thinking model comes with"),
        ({"partner": "nowhere"}, "unknown model 'nowhere'"),
        (
            {"checked": True},
            r"no better than .* on 4 dev questions \(difference .\d\.\d\d \[.*\]\): nothing to recover",
        ),
    ],
)
def test_wrong_input_takes_one_line(
    tiny: Model, task: Task, partner_folder: Path, options: dict[str, Any], word: str
) -> None:
    with pytest.raises(UserError, match=word) as caught:
        transferred(tiny, task, **{"partner": partner_folder, "max_new_tokens": 12, **options})
    assert "\n" not in str(caught.value)


def test_controls_are_for_its_own_handles(tiny: Model) -> None:
    with pytest.raises(UserError, match=r"give one that vector-transfer\.fit made"):
        vector_transfer.controls(Elicited(tiny, "direct"))


@pytest.mark.parametrize(
    ("changes", "swapped", "word"),
    [
        ({"num_hidden_layers": 3}, False, "has 3 layers of width 32, .* 4 of 32; give a thinking model of the same"),
        ({"hidden_size": 16}, False, "has 4 layers of width 16, .* 4 of 32"),
        ({}, True, "token 66 is 'a' and 'b', and so with 1 others; use two models of one tokenizer"),
    ],
)
def test_a_pair_that_does_not_match_is_refused(
    tiny: Model, task: Task, tiny_folder: Path, tmp_path: Path, changes: dict[str, int], swapped: bool, word: str
) -> None:
    config = AutoConfig.from_pretrained(tiny_folder)
    for name, value in changes.items():
        setattr(config, name, value)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    if swapped:
        file = tmp_path / "tokenizer.json"
        data = json.loads(file.read_text())
        vocabulary = data["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        file.write_text(json.dumps(data))
    with pytest.raises(UserError, match=word):
        transferred(tiny, task, tmp_path)


def test_tokens_that_the_base_lacks_are_told(tiny: Model) -> None:
    said = ReasoningTraces([[3, 97]] * 6, [1] * 6, [[(1, 2)]] * 6)
    with pytest.raises(UserError, match=r"says token 97 and .* has 97: it cannot be read along"):
        _check_traces(said, [2], tiny)
    _check_traces(ReasoningTraces([[3, 96]] * 6, [1] * 6, [[(1, 2)]] * 6), [2], tiny)


def test_a_partner_larger_than_memory_is_refused(
    tiny: Model, task: Task, partner_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(p.numel() for p in tiny.lm.parameters()) * 4
    assert memory.weight_bytes(partner_folder, torch.float32) == needed
    free = memory.free_bytes(torch.device("cpu"))
    assert free is None or free > needed
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - 1)
    with pytest.raises(UserError, match=r"needs \d\.\d\d GB in float32 and \d\.\d\d GB are free on cpu") as caught:
        transferred(tiny, task, partner_folder)
    assert "an adapter" in str(caught.value)


def test_sentences_cover_the_answers(partner: Model, task: Task) -> None:
    told = thoughts(partner, task.fit[:3], 16)
    for text, length, spans in zip(told.texts, told.lengths, told.spans, strict=True):
        assert spans == segment(partner.tokenizer, text, length)
        assert spans[0][0] == length and spans[-1][1] == len(text)


def test_a_thought_is_read_by_each_model_after_its_own_prompt_and_in_its_own_tokens() -> None:
    thoughts = ReasoningTraces([[1, 2, 3, 4, 90, 5, 6]], [2], [[(2, 4), (4, 6), (6, 7)]])
    own, other = read_by_both(
        thoughts, [[7, 7, 7, 7]], lambda ids: [[40, 41, 42] if i == 90 else [i + 10] for i in ids]
    )
    assert own.texts == thoughts.texts and own.spans == [[(2, 4), (6, 7)]]
    assert other.texts == [[7, 7, 7, 7, 13, 14, 40, 41, 42, 15, 16]] and other.lengths == [4]
    assert other.spans == [[(4, 6), (10, 11)]]
    for text, spans in zip(other.texts, other.spans, strict=True):
        assert [text[a:b] for a, b in spans] == [[13, 14], [16]]


@pytest.mark.parametrize("gate", ["oracle", "probe"])
def test_the_thinking_model_is_asked_with_a_prompt_of_its_own(
    gate: str, tiny: Model, task: Task, partner_folder: Path, tmp_path: Path
) -> None:
    """Its template, a longer table and special tokens of its own; the base is asked barely."""
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.add_tokens([AddedToken("<user>", special=True), AddedToken("</think>", special=True)])
    tokenizer.chat_template = "{% for m in messages %}<user>{{ m.content }}\n{% endfor %}Thought:"
    lm = AutoModelForCausalLM.from_pretrained(partner_folder)
    lm.resize_token_embeddings(len(tokenizer))
    folder = tmp_path / "thinking"
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    handle = transferred(tiny, task, folder, partner_prompt="chat", gate=gate)
    assert handle.options["asked"]["partner_prompt"] == "chat" and handle.partner is not None
    thinking = vector_transfer.controls(handle, task.solved)["thinking model"]
    assert thinking.prompt == Prompt("chat") and handle.prompt == Prompt()
    assert thinking.prompt_ids(task.test[0])[0] == len(tiny.tokenizer)
    if gate == "oracle":
        assert handle.partner.prompt == Prompt("chat")
        substituted = vector_transfer.controls(handle, task.solved)["token substitution"]
        run = evaluate(handle, task.test[:3], against={"s": substituted, "t": thinking}, out=tmp_path / "run")
        said = {name: [t.tokens for some in run.traces[name].values() for t in some] for name in ("s", "t")}
        assert max(max(ids, default=0) for ids in said["s"]) < len(tiny.tokenizer)
        if not any(i >= len(tiny.tokenizer) for ids in said["t"] for i in ids):
            assert said["s"] == said["t"]
        again = Elicited.load(run.folder / "elicited", tiny, handle.partner.model)
        assert again.partner is not None and again.partner.digest == handle.partner.digest
        assert replace(again.partner, prompt=None).digest != handle.partner.digest
