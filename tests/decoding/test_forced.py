"""Budget forcing: every token is that of a slow version, on every engine that does it; what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from elicit.decoding import Forced, StopRule
from elicit.decoding.decoders import decoder_from_dict, decoder_to_dict
from elicit.decoding.engine import Batch, decode_batch, engine_of
from elicit.models.model import Model
from probes.errors import UserError
from tests.support.thinkers import thinker

PROMPTS = ("What is 1 + 1?<think>\n", "What is 2?", "Two times three, please <think>", "a<think>\n\n</think>\n")
LIMIT = 20


@pytest.fixture(scope="module")
def model() -> Model:
    """Whose two end tokens are likely."""
    made = thinker("qwen3", seed=8)
    with torch.no_grad():
        head = made.lm.get_output_embeddings().weight
        for name in ("</think>", "<|im_end|>"):
            head[made.tokenizer.convert_tokens_to_ids(name)] *= 3
    return made


@torch.inference_mode()
def slow(model: Model, prompt: str, how: Forced) -> tuple[str, int, bool]:
    """One answer, a whole forward a token: its text, the waits in it, and whether it was cut."""
    text, due, spent, waits, cut = "", "", 0, 0, False
    stops = {model.tokenizer.decode([token]) for token in model.eos_ids}
    within = how.whole or prompt.rstrip().endswith("<think>")
    for _ in range(how.max_new_tokens):
        ids = [*model.tokenizer(prompt)["input_ids"], *model.tokenizer(text)["input_ids"]]
        chosen = model.tokenizer.decode([int(model.lm(torch.tensor([ids])).logits[0, -1].argmax())])
        ends = stops if how.whole else stops | {"</think>"}
        since = text if how.whole else text.rpartition("</think>")[2].rpartition("<think>")[2]
        blank = (not since[-1:].isspace() if since else how.whole) * " "
        if within and not due and spent >= how.thought_tokens:
            due, cut = (blank + how.final if how.whole else f"</think>\n\n{how.final}"), True
            within = within and not how.whole
        elif within and not due and waits < how.waits and chosen in ends:
            due, waits = blank + how.word, waits + 1
        token = chosen if not due else "</think>" if due.startswith("</think>") else due[0]
        due = due[len(token) :] if due else ""
        text, spent = text + token, spent + bool(within)
        if not how.whole:
            within = token != "</think>" if within else token == "<think>" and not due
        if token in stops:
            break
    return text, waits, cut


@pytest.mark.parametrize("engine", ["hf", "graph", "nnsight", "transformer-lens"])
@pytest.mark.parametrize("whole", [False, True])
def test_it_is_the_slow_version(model: Model, engine: str, whole: bool) -> None:
    waited = 0
    cuts = set()
    every = ((1, 2, "Wait"), (7, 0, "Wait"), (7, 3, "."), (100, 2, "Wait"))
    for budget, waits, word in every if engine == "hf" else every[2:3]:
        how = Forced(budget, waits, word, "So:", whole, LIMIT)
        prompts = [model.tokenizer(text)["input_ids"] for text in PROMPTS]
        stop = StopRule(model.eos_ids)
        made = decode_batch(replace(model, engine=engine), Batch(prompts, list(PROMPTS), how, stop))
        for prompt, (one,) in zip(PROMPTS, made, strict=True):
            text, asked, cut = slow(model, prompt, how)
            found = [*one.tokens.tolist(), *([] if one.end is None else [one.end])]
            assert model.tokenizer.decode(found) == text
            assert one.spent == len(found) <= LIMIT
            waited += asked
            cuts.add(cut)
    assert waited and True in cuts


def test_what_was_begun_counts() -> None:
    """An answer that is gone on with from any of its tokens comes out as it was."""
    model, how, stop = thinker("qwen3", seed=8), Forced(6, 0, max_new_tokens=LIMIT), StopRule(frozenset())
    prompts = [model.tokenizer(text)["input_ids"] for text in PROMPTS]
    streams = [""] * len(prompts)
    answers = [one.tokens.tolist() for (one,) in decode_batch(model, Batch(prompts, streams, how, stop))]
    for cut in range(1, LIMIT):
        paths = [[*prompt, *answer[:cut]] for prompt, answer in zip(prompts, answers, strict=True)]
        left = replace(how, max_new_tokens=LIMIT - cut)
        made = decode_batch(model, Batch(paths, streams, left, stop, lengths=[len(p) for p in prompts]))
        assert [one.tokens.tolist() for (one,) in made] == [answer[cut:] for answer in answers]


def test_the_graph_engine_says_that_it_does_not_do_it_itself(model: Model) -> None:
    other = replace(model, engine="graph")
    decode_batch(other, Batch([[9, 10]], ["a"], Forced(3, max_new_tokens=4), StopRule(frozenset())))
    assert any("thought" in note for note in engine_of(other).notes)


def test_what_does_not_fit_is_refused(model: Model) -> None:
    for given, said in (
        ({"thought_tokens": 0}, "thought_tokens = 0 was given to budget forcing; give 1 token or more"),
        ({"waits": -1}, "waits = -1 was given to budget forcing; give 0"),
        ({"word": " "}, "word = ' '"),
        ({"branches": 2}, "branches = 2"),
    ):
        with pytest.raises(UserError, match=said):
            Forced(**given)
    how = Forced(5, 1, "Hmm", max_new_tokens=4)
    assert decoder_from_dict(decoder_to_dict(how)) == how
    stop = StopRule(frozenset(), (), model.tokenizer, thought_tokens=3)
    with pytest.raises(UserError, match="has its own; leave it out"):
        decode_batch(model, Batch([[9, 10]], ["a"], how, stop))
