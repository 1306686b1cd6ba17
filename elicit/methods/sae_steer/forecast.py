"""What reading an SAE's features will take, before any text is written: a few texts are read as they will be, a few
steps of decoding are timed (`elicit.decoding.pace.StepCost`), and both are multiplied.

"At most": the model's own answers are taken to go on to their limit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from elicit.decoding.decoders import Greedy
from elicit.decoding.pace import StepCost
from elicit.elicited import Elicited
from elicit.evaluation.evaluator import BATCH_ROWS
from elicit.evaluation.forecast import PAGE, forecast
from elicit.methods.sae_steer import falsification
from elicit.methods.sae_steer.corpus import ROWS, SAMPLES, Source, TextSplit, asked
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from elicit.tasks.everyday_text import SENTENCES
from probes.capture import capture
from probes.estimate import Estimate
from probes.sae.activity import CHUNK_TOKENS, EDGES, read_activity
from probes.sae.autoencoder import SAE
from probes.sae.card import BATCH_TOKENS, CHUNK, sae_card
from probes.sites import Site, depth

TRIED = 8  # texts
CONTRASTS = 1 + len(falsification.PARAPHRASES) + 2 * len(falsification.TEMPLATES) + len(falsification.IRRELEVANT) + 1
BYTES_OF_A_TOKEN = 120  # on the page of features, where each stands in a mark of its own


def writing(model: Model, sources: Sequence[Source], tokens: int, context: int, split: TextSplit = "train") -> Estimate:
    """What writing the texts of a corpus takes; files are there already.

    Args:
        model: that answers.
        sources: of the corpus.
        tokens: in all.
        context: the most tokens of an answer.
        split: as for `corpus`.
    """
    written = [source for source in sources if not source.plain]
    if not written:
        return Estimate(0.0)
    cost, reading = StepCost.measured(model, ROWS), _reading(model, Site(depth(model.lm) - 1), context)
    total, seconds = sum(source.weight for source in sources), 0.0
    for source in written:
        share = max(1, round(tokens * source.weight / total))
        rows, prompt = (ROWS, 1) if source.name == SAMPLES else asked(model.tokenizer, source.name, share, split)
        batches = math.ceil(share / (rows * (prompt + context)))
        seconds += batches * (context * cost.of(rows) + rows * prompt * reading)
    return Estimate(seconds, most=True)


def card(
    model: Model, sae: SAE, sources: Sequence[Source], tokens: int, context: int, batch_tokens: int = BATCH_TOKENS
) -> Estimate:
    """What `elicit sae card` takes.

    Args:
        model, sae: that are measured.
        sources, tokens, context: of the texts.
        batch_tokens: tokens of a batch.
    """
    lm = model.lm

    def measured(steps: tuple[int | None, int | None]) -> Callable[[list[list[int]]], object]:
        return lambda texts: sae_card(lm, sae, texts, [len(t) // 2 for t in texts], steps=steps, similar=NO_COSINES)

    plain = sum(s.weight for s in sources if s.plain or s.name == SAMPLES) / sum(s.weight for s in sources)
    parts = {(None, None): plain, (0, 1): 1 - plain}
    each = sum(share * _each(model, context, measured(steps)) for steps, share in parts.items() if share)
    unit = torch.zeros(CHUNK, sae.d_model, device=sae.W_dec.device)
    began = time.perf_counter()
    unit @ sae.W_dec.T.float()
    cosines = 2 * (time.perf_counter() - began) * sae.d_sae / CHUNK
    width = sae.d_sae * 3 + 5 * model.vocab_size
    memory = 4 * (CHUNK * width + 6 * batch_tokens * sae.d_model + 2 * sae.d_sae * sae.d_model)
    return writing(model, sources, tokens, context, "card") + Estimate(tokens * each + cosines, memory)


NO_COSINES: Mapping[str, float] = {"average_max_encoder_cosine_sim": 0.0, "average_max_decoder_cosine_sim": 0.0}


def dashboard(
    model: Model,
    sae: SAE,
    sources: Sequence[Source],
    tokens: int,
    context: int,
    *,
    features: Sequence[int] | None,
    shown: int,
    contexts: int,
) -> Estimate:
    """What `elicit sae dashboard` takes.

    Args:
        model, sae: whose features are shown.
        sources, tokens, context: of the texts.
        features: their numbers; None: all are read, and `shown` of them shown.
        shown: on the page.
        contexts: texts of each.
    """
    read = sae.d_sae if features is None else len(features)
    again = min(tokens, shown * contexts * context)  # the texts that are shown are read once more
    # Few texts are read twice, for their norms.
    each = _each(model, context, lambda texts: read_activity(model.lm, sae, texts, features, contexts=contexts)) / 2
    memory = 4 * CHUNK_TOKENS * sae.d_model + 12 * context * sae.d_sae + read * (40 * contexts + 4 * len(EDGES))
    disk = PAGE + BYTES_OF_A_TOKEN * shown * contexts * context
    return writing(model, sources, tokens, context) + Estimate((tokens + again) * each, memory, disk)


def search(
    model: Model, items: Items, prompt: Prompt, instruction: str, limit: int, site: Site, *, card: bool
) -> Estimate:
    """What `elicit sae find` takes, and with the falsification card `elicit sae feature`.

    Args:
        model: that answers.
        items: that are read.
        prompt, instruction: how they are put.
        limit: tokens of an answer.
        site: where the SAE reads.
        card: whether one feature's card is made.
    """
    thinking = Elicited(model, "answers", prompt.asked(instruction), Greedy(limit))
    answers = forecast([{"answers": thinking}], {}, items, BATCH_ROWS)
    length = len(thinking.prompt_ids(items[0]))
    tokens = len(items) * (2 * length + limit)
    if card:
        tokens += CONTRASTS * len(items) * length + 2 * len(SENTENCES) * length
    reading = tokens * _reading(model, site, length)
    return Estimate(answers.seconds + reading, answers.memory, PAGE if card else 0, most=True)


def _reading(model: Model, site: Site, context: int) -> float:
    """Seconds of a token that is read up to a site."""
    return _each(model, context, lambda texts: capture(model.lm, texts, [site]))


def _each(model: Model, context: int, work: Callable[[list[list[int]]], object]) -> float:
    """Seconds a token of some work on texts of random tokens, the second time that it is done."""
    rows = torch.randint(model.vocab_size, (TRIED, context), generator=torch.Generator().manual_seed(0)).tolist()
    work(rows)
    began = time.perf_counter()
    work(rows)
    return (time.perf_counter() - began) / (TRIED * context)
