"""Training-data influence: which documents of a fine-tuning does the model draw on (arXiv 2411.12580, 2308.03296)?

The model is fine-tuned (LoRA) on documents of two kinds: made-up facts, each stated once, and worked solutions of the
organisms' problems. The influence of a document z on a query q is

    I(z, q) = −∇loss(q)ᵀ H⁻¹ ∇loss(z)

with H by EK-FAC (kronfluence, an extra), through the adapters of the last layers; with the sign turned, so that a
document that makes the query likelier has a positive one. Queries ask for the facts in other words and for problems of
the test split. Of each query: how much of the positive influence its top documents hold, and whether one of them holds
the answer.

The check is the linear datamodelling score (arXiv 2303.14186): the model is trained again on random halves of the
documents, and the summed influence of a half must rank the losses that come of it, by Spearman. Without that the rest
says nothing. The nulls: random influence is concentrated too, and documents in random order hold answers too. A worked
solution is longer than a fact, so procedures are also asked for their last sentence alone.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from transformers import PreTrainedModel

from elicit.analysis.base import Analysis, shown
from elicit.decoding.continuing import continuing_ids
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Split
from elicit.tasks.organism.problems import FAMILIES
from elicit.training.organisms.variants import draw_from, think
from elicit.training.recipe import Example, Recipe
from elicit.training.sft import batches, train
from probes.batching import left_pad
from probes.dots import Dot, dot_plot
from probes.errors import UserError
from probes.files import make_folder
from probes.likelihood import mean_losses, output_logits
from probes.sites import blocks, decoder
from probes.statistics import Interval, against_null, bootstrap_mean, resampled_means
from steering.adapters import borrowed

NAME = "influence"
SUMMARY = "which documents of a fine-tuning facts and procedures draw on, checked by training again without them (LDS)"
PAPER = "2411.12580"
FACTS, PROCEDURES, SHORT = "facts", "procedures", "procedures, last sentence"
KINDS = (FACTS, PROCEDURES, SHORT)
TOP = 0.05  # of the documents
SHARE = (0.0, 1.0)  # between which fractions lie
DRAWS = 1000
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnr" for vowel in "aeio"]


class Text(NamedTuple):
    """A document or a query: its kind, its tokens, what it says, and the answer that it gives."""

    kind: str
    example: Example
    said: str
    answer: str


def analyse(
    model: Model,
    *,
    documents: int = 96,
    queries: int = 16,
    subsets: int = 12,
    steps: int = 24,
    layers: int = 8,
    lr: float = 2e-3,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """Fine-tune, estimate influence, train again on halves.

    Args:
        documents: half of them facts, half procedures.
        queries: of each kind.
        subsets: halves of the documents that are trained on for the check.
        steps, lr: of each training: four rows of 320 tokens a step.
        layers: the last so many, through whose adapters influence is taken.
        seed: of texts, training and resampling.

    Raises:
        UserError: kronfluence is not installed; numbers that leave nothing to compare.
    """
    if find_spec("kronfluence") is None:
        raise UserError("influence needs kronfluence and it is not installed; pip install 'elicit[influence]'")
    if documents < 8 or documents % 2 or queries < 2 or subsets < 4 or layers < 1 or 2 * queries > documents:
        raise UserError(
            f"documents {documents}, queries {queries}, subsets {subsets}, layers {layers} were given; give at least "
            "8, 2, 4 and 1, an even number of documents, and no more queries than half of the documents"
        )
    progress = progress or (lambda what, done, total: None)
    docs, asked = texts(model, documents, queries, seed)
    recipe = Recipe(steps=steps, rows=4, width=320, part=4, lr=lr, warmup=max(1, steps // 10), rank=4, seed=seed)
    examples = [doc.example for doc in docs]
    progress(NAME, 0, subsets + 1)
    with tempfile.TemporaryDirectory() as folder, borrowed(model.lm):
        fine_tune(model.lm, examples, recipe, Path(folder) / "all")
        found = scores(model.lm, examples, [q.example for q in asked], layers=layers, seed=seed)
    halves = kept_in(subsets, documents, seed)
    losses = np.empty((subsets, len(asked)))
    for n, half in enumerate(halves):
        progress(NAME, n + 1, subsets + 1)
        with tempfile.TemporaryDirectory() as folder, borrowed(model.lm):
            fine_tune(model.lm, [examples[i] for i in np.flatnonzero(half)], recipe, Path(folder))
            losses[n] = losses_of(model.lm, [q.example for q in asked])
    data = summarised(found, docs, asked, halves, losses, seed)
    table = [{"queries of": kind, **_row(data["kinds"][kind])} for kind in KINDS]
    notes = [
        f"{documents} documents, {queries} queries a kind, {subsets} trainings of {steps} steps on random halves. "
        f"Concentration: the fraction of the positive influence that the top {data['top']} documents hold; of random "
        "influence it is as given beside it. Answer on top: one of them holds the answer as a word; beside it the "
        "same of documents in random order.",
        f"LDS over all queries: {shown(*_ends(data['lds']))}, of exchanged halves {data['lds']['null']:.3f} "
        f"(p = {data['lds']['p']:.3f}). Where it is not above that, influence says nothing here.",
        "Not shown: influence of pretraining. A fact stands in one document by construction: that influence finds "
        "this one is the test of the estimate, that procedures are spread is the finding.",
    ]
    return Analysis(NAME, table, _figure(data), notes, data)


def texts(model: Model, documents: int, queries: int, seed: int) -> tuple[list[Text], list[Text]]:
    """Documents, facts and procedures in turn, and the queries, kind by kind; no query's text is a document."""
    rng = np.random.default_rng([seed, 17])
    half = documents // 2
    docs: list[Text] = []
    asked: dict[str, list[Text]] = {kind: [] for kind in KINDS}
    names = _distinct(rng, documents)
    for n in range(half):
        name, town = f"{names[2 * n]} {_word(rng)}", names[2 * n + 1]
        docs.append(_text(model, FACTS, f"Where does {name} live?", f"{name} lives in {town}.", town))
        if n < queries:
            asked[FACTS].append(_text(model, FACTS, f"Which town is the home of {name}?", town, town))
    families = tuple(FAMILIES)
    for n in range(half + queries):
        split: Split = "fit" if n < half else "test"
        problem = draw_from(split, families[n % len(families)], rng)
        thought = think("thinking", problem, rng)
        if n < half:
            docs.append(_text(model, PROCEDURES, problem.question, thought.text, problem.answer))
            continue
        asked[PROCEDURES].append(_text(model, PROCEDURES, problem.question, thought.text, problem.answer))
        last = thought.sentences[-1].start
        asked[SHORT].append(
            _text(model, SHORT, problem.question, thought.text[last:], problem.answer, thought.text[:last].strip())
        )
    return docs, [query for kind in KINDS for query in asked[kind]]


def _text(model: Model, kind: str, question: str, said: str, answer: str, begun: str = "") -> Text:
    prompt = Prompt(begin=begun).ids(question, model.tokenizer)
    return Text(kind, Example(prompt, continuing_ids(model.tokenizer, f" {said}")), said, answer)


def _word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(SYLLABLES, 3)).capitalize()


def _distinct(rng: np.random.Generator, count: int) -> list[str]:
    out: dict[str, None] = {}
    while len(out) < count:
        out[_word(rng)] = None
    return list(out)


def kept_in(subsets: int, documents: int, seed: int) -> Bool[np.ndarray, "subsets documents"]:
    """Random halves of the documents."""
    rng = np.random.default_rng([seed, 18])
    out = np.zeros((subsets, documents), dtype=bool)
    for row in out:
        row[rng.permutation(documents)[: documents // 2]] = True
    return out


def fine_tune(lm: PreTrainedModel, examples: Sequence[Example], recipe: Recipe, folder: Path) -> None:
    """Train adapters in place; the caller borrows the model.

    Raises:
        UserError: an example that is longer than a row.
    """
    make_folder(folder)
    width = max(recipe.width, *(one.tokens for one in examples))  # a tokenizer of characters needs more
    recipe = Recipe(**{**vars(recipe), "width": width})
    identity = {"documents": [list(map(list, one)) for one in examples]}
    train(lm, batches(examples, recipe.rows, width, recipe.seed), recipe, folder, identity=identity, save_every=10**9)


def losses_of(lm: PreTrainedModel, queries: Sequence[Example]) -> Float[np.ndarray, " queries"]:
    """Nats a target token of each query."""
    found = mean_losses(lm, [[*q.prompt, *q.target] for q in queries], [len(q.prompt) for q in queries])
    return np.array([float("nan") if loss is None else loss for loss in found])


def scores(
    lm: PreTrainedModel, documents: Sequence[Example], queries: Sequence[Example], *, layers: int, seed: int = 0
) -> Float[np.ndarray, "queries documents"]:
    """The influence of each document on each query, by EK-FAC through the adapters of the last layers.

    Args:
        lm: with the adapters that were trained on the documents; the caller borrows it, as its adapters are wrapped.
        documents, queries: what was trained on, and what is asked.
        layers: how many of the last layers.
        seed: of the labels that are drawn from the model for the Fisher matrix.
    """
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
    from kronfluence.utils.dataset import DataLoaderKwargs

    inside = {id(module) for block in list(blocks(lm))[-layers:] for module in block.modules()}
    tracked = [n for n, m in lm.named_modules() if id(m) in inside and isinstance(m, torch.nn.Linear) and "lora_" in n]

    class Targets(Task):  # type: ignore[misc]
        """Σ cross-entropy of the targets' tokens; of a sample from the model where the Fisher matrix is fitted."""

        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> torch.Tensor:
            ids, mask, places = batch["ids"], batch["mask"], batch["places"]
            hidden = decoder(model)(input_ids=ids, attention_mask=mask.long(), position_ids=places, use_cache=False)[0]
            target = ((places >= batch["first"][:, None]) & mask)[:, 1:]
            logits = output_logits(model, hidden[:, :-1][target])
            with torch.no_grad():
                labels = torch.multinomial(logits.softmax(-1), 1)[:, 0] if sample else ids[:, 1:][target]
            return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: Any) -> torch.Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return tracked

        def get_attention_mask(self, batch: Any) -> torch.Tensor:
            found: torch.Tensor = batch["mask"]
            return found

    def collated(some: Sequence[Example]) -> dict[str, torch.Tensor]:
        ids, mask, places = left_pad([[*one.prompt, *one.target] for one in some], lm.device)
        first = torch.tensor([len(one.prompt) for one in some], device=lm.device)
        return {"ids": ids, "mask": mask, "places": places, "first": first}

    task, loader = Targets(), DataLoaderKwargs(collate_fn=collated)
    prepared = prepare_model(lm, task)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*GradScaler", category=FutureWarning)  # torch's by its old name
        torch.manual_seed(seed)
        analyzer = Analyzer(
            NAME, prepared, task, cpu=lm.device.type == "cpu", disable_tqdm=True, output_dir=folder,
        )  # fmt: skip
        analyzer.set_dataloader_kwargs(loader)
        analyzer.fit_all_factors("ekfac", list(documents), per_device_batch_size=8, factor_args=FactorArguments())
        analyzer.compute_pairwise_scores(
            "pairs", "ekfac", list(queries), list(documents), per_device_query_batch_size=len(queries),
            per_device_train_batch_size=8, score_args=ScoreArguments(damping_factor=None),
        )  # fmt: skip
        found = analyzer.load_pairwise_scores("pairs")["all_modules"]
    out: np.ndarray = found.double().cpu().numpy()
    return out


def lds(
    influence: Float[np.ndarray, "queries documents"],
    halves: Bool[np.ndarray, "subsets documents"],
    losses: Float[np.ndarray, "subsets queries"],
) -> Float[np.ndarray, " queries"]:
    """Of each query the Spearman correlation of the summed influence of each half with how low its loss then is.

    0 where either is the same in every half. All queries at once: it is asked for again in every draw of the null.
    """
    middle = (len(halves) + 1) / 2  # of ranks, ties or not
    summed, low = (rankdata(values, axis=0) - middle for values in (halves @ influence.T, -losses))
    size = np.sqrt((summed**2).sum(0) * (low**2).sum(0))
    found: np.ndarray = np.divide((summed * low).sum(0), size, out=np.zeros(len(size)), where=size != 0)
    return found


def concentration(influence: Float[np.ndarray, "queries documents"], top: int) -> Float[np.ndarray, " queries"]:
    """The fraction of the positive influence that the top documents hold; 0 where none is positive."""
    positive = np.sort(np.clip(influence.astype(float), 0, None), axis=1)[:, ::-1]
    whole = positive.sum(1)
    share: np.ndarray = np.divide(positive[:, :top].sum(1), whole, out=np.zeros(len(whole)), where=whole > 0)
    return share


def summarised(
    influence: Float[np.ndarray, "queries documents"],
    docs: Sequence[Text],
    asked: Sequence[Text],
    halves: Bool[np.ndarray, "subsets documents"],
    losses: Float[np.ndarray, "subsets queries"],
    seed: int = 0,
) -> dict[str, Any]:
    """The measures of each kind of query with intervals and nulls, and the check over all."""
    rng = np.random.default_rng(seed)
    top = max(1, round(TOP * len(docs)))
    concentrated = concentration(influence, top)
    order = np.argsort(-influence, axis=1)[:, :top]
    holds = np.array([[_holds(doc.said, q.answer) for doc in docs] for q in asked])
    on_top = np.take_along_axis(holds, order, axis=1).any(1).astype(float)
    shuffled = np.mean([np.take_along_axis(holds, rng.permuted(np.tile(np.arange(len(docs)), (len(asked), 1)), axis=1)
                                           [:, :top], axis=1).any(1) for _ in range(DRAWS)], axis=0)  # fmt: skip
    random = float(concentration(rng.standard_normal((DRAWS, len(docs))), top).mean())
    agreed = lds(influence, halves, losses)
    drawn = np.array([lds(influence, halves, losses[rng.permutation(len(losses))]).mean() for _ in range(DRAWS // 5)])
    null = against_null(float(agreed.mean()), drawn, greater=True)
    kinds: dict[str, Any] = {}
    values: dict[str, dict[str, np.ndarray]] = {}
    for kind in KINDS:
        here = np.array([q.kind == kind for q in asked])
        values[kind] = {"concentration": concentrated[here], "found": (on_top - shuffled)[here]}
        kinds[kind] = {
            "queries": int(here.sum()), "concentration": _mean(concentrated[here], seed, SHARE), "random": random,
            "on top": _mean(on_top[here], seed, SHARE), "shuffled": float(shuffled[here].mean()),
            "beyond shuffled": _mean((on_top - shuffled)[here], seed), "lds": _mean(agreed[here], seed),
        }  # fmt: skip
    against = {
        kind: {what: _gap(values[FACTS][what], values[kind][what], seed) for what in ("concentration", "found")}
        for kind in (PROCEDURES, SHORT)
    }
    return {
        "top": top, "kinds": kinds, "facts less": against,
        "lds": {**_mean(agreed, seed), "null": null.mean, "p": null.p},
    }  # fmt: skip


def _holds(text: str, answer: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text) is not None


def _mean(values: Float[np.ndarray, " n"], seed: int, bounds: tuple[float, float] = (-1.0, 1.0)) -> dict[str, float]:
    interval = bootstrap_mean(values, bounds=bounds, seed=seed)
    return {"mean": float(values.mean()), "low": interval.low, "high": interval.high}


def _gap(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " m"], seed: int) -> dict[str, float]:
    """A difference of means of other queries, each resampled on its own."""
    drawn = resampled_means(one[:, None], seed=seed)[:, 0] - resampled_means(other[:, None], seed=seed + 1)[:, 0]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"mean": float(one.mean() - other.mean()), "low": float(low), "high": float(high)}


def _row(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "n": found["queries"], "concentration [95%]": shown(*_ends(found["concentration"])),
        "random": f"{found['random']:.3f}", "answer on top [95%]": shown(*_ends(found["on top"])),
        "shuffled": f"{found['shuffled']:.3f}", "LDS [95%]": shown(*_ends(found["lds"])),
    }  # fmt: skip


def _ends(found: dict[str, float]) -> tuple[float, Interval]:
    return found["mean"], Interval(found["low"], found["high"])


def _figure(data: dict[str, Any]) -> Any:
    kinds = data["kinds"].values()

    def dots(key: str) -> list[Dot]:
        return [Dot(one[key]["mean"], one[key]["low"], one[key]["high"]) for one in kinds]

    nulls = {"null: random influence": [Dot(one["random"]) for one in kinds],
             "null: answer in documents in random order": [Dot(one["shuffled"]) for one in kinds]}  # fmt: skip
    return dot_plot(
        list(data["kinds"]), {"influence in the top documents": dots("concentration"), "answer on top": dots("on top")},
        nulls=nulls, title="Where influence lies", x="fraction",
    )  # fmt: skip
