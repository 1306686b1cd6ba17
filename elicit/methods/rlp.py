"""`rlp`: reinforcement learning of thought on any text, without a verifier (arXiv 2510.01265).

At every position of every document thoughts are sampled before the next token, rewarded by what they tell about it and
compared within their position (`elicit.training.rl.next_token` has the definition and its departures); an adapter, or
all weights, is trained to make the better ones likelier by the loop of `one-shot-rlvr`. What comes out answers
questions greedily, like any other handle. A fit lives in `runs/`, under a hash of all that decides it, and the same
command takes it up to the bit.

Where it departs from the paper beside the definition:
- `objective=rpt` is next-token reasoning instead (arXiv 2506.08007), with its filter: positions whose next token a
  proxy model is sure of are left out (`min_entropy`), or as many others (`filter_by`).
- The documents are those of a file (`text`), or the fit items of the task, each a question with its answer as the
  prompt puts them; with `worked` the answer is worked out, where the task says how.
- A rollout takes the next `positions` positions of the documents, one after the other and over again, so that whole
  documents are seen and share their computation; the paper draws pairs of a context and a next token (`order=drawn`).
- LoRA at 4e-4, a quick average (τ = 0.99, not 0.999), 4 thoughts and not 16, temperature 1 and not 0.7: tens of updates
  instead of thousands. The preset `rlp-paper` has the paper's values (`rank=0` trains all weights).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from elicit.decoding.decoders import Greedy, Sampling
from elicit.decoding.progress import Progress
from elicit.decoding.trunk import shares
from elicit.elicited import Elicited
from elicit.evaluation.description import SIGNAL
from elicit.evaluation.run.store import folder_for
from elicit.evaluation.seen import SEEN, seen
from elicit.methods.base import Work, check_own, minutes_elsewhere
from elicit.methods.baselines.at_budget import at_budget, plain
from elicit.methods.documents import SUPERVISED, documents_of, record, supervised, told_by
from elicit.models.identity import grounds
from elicit.models.model import Model, load_model
from elicit.models.prompts import prompt_for
from elicit.tasks.base import Items
from elicit.training.recipe import Recipe
from elicit.training.rl.curve import columns, figure, summary, telling
from elicit.training.rl.loop import train
from elicit.training.rl.next_token import InformationGain, Looked, PrefixMatch, Shuffled, entropies
from elicit.training.rl.positions import FILTERS, ORDERS, Positions, drawn, filtered, positions, put, tokenized
from elicit.training.rl.settings import Settings
from probes.errors import UserError, unknown
from steering.adapters import Tuned

NAME = "rlp"
SUMMARY = "reinforcement learning of thoughts that tell what comes next in any text"
PAPER = "2510.01265"
MODEL = "smollm2-135m-latent"
missing = minutes_elsewhere
QUICK = {"updates": 4, "positions": 8, "documents": 8, "lr": 1e-3}
# What a thought is rewarded for: the advantage within a position, and how the losses of tokens are put together.
OBJECTIVES = {"rlp": ("rloo", "sequence-mean"), "rpt": ("grpo", "token-mean")}
SHUFFLED = "reward of another position"
MARK = 4  # tokens of an opening or a closing, about


@dataclass(frozen=True)
class Texts:
    """Which texts, and how they become positions; `fit` says what each means."""

    text: str
    documents: int
    document_tokens: int
    worked: bool
    opening: str
    closing: str
    thought_tokens: int
    decay: float
    checked: bool
    objective: str
    predicts: str
    proxy: str
    min_entropy: float
    filter_by: str = "entropy"
    order: str = "text"

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise unknown("objective", self.objective, OBJECTIVES)
        if self.min_entropy < 0:
            raise UserError(f"min_entropy = {self.min_entropy} was given; give 0 (all positions) or more nats")
        if self.proxy and not self.min_entropy:
            raise UserError(f"proxy = {self.proxy!r} was given and min_entropy is 0, so it filters nothing; give both")
        if self.filter_by not in FILTERS:
            raise unknown("filter", self.filter_by, FILTERS)
        if self.filter_by != "entropy" and not self.min_entropy:
            raise UserError(
                f"filter_by = {self.filter_by!r} was given and min_entropy is 0, which leaves out none; give both"
            )
        if self.order not in ORDERS:
            raise unknown("order", self.order, ORDERS)
        for name in ("documents", "thought_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)} was given; give 1 or more")
        if self.document_tokens <= self.thought_tokens:
            raise UserError(
                f"document_tokens = {self.document_tokens} and thought_tokens = {self.thought_tokens} were given; a "
                "document has more tokens than a thought: give a larger document_tokens"
            )


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    objective: str = "rlp",
    text: str = "",
    documents: int = 32,
    document_tokens: int = 128,
    worked: bool = False,
    opening: str = "<think>",
    closing: str = "</think>",
    thought_tokens: int = 16,
    decay: float = 0.99,
    predicts: str = "boxed",
    proxy: str = "",
    min_entropy: float = 0.0,
    filter_by: str = "entropy",
    order: str = "text",
    positions: int = 16,
    group: int = 4,
    updates: int = 16,
    per_rollout: int = 1,
    temperature: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl: float = 0.0,
    entropy: float = 0.0,
    lr: float = 4e-4,
    rank: int = 8,
    part: int = 0,
    rollout_rows: int = 0,
    checkpointing: bool = False,
    save_every: int = 0,
    state_every: int = 1,
    checked: bool = True,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Elicited:
    """Train an adapter, or all weights, on thoughts before the next tokens of documents.

    Args:
        model: the base; it is as it was afterwards.
        items: items of a task; the fit split makes the documents unless `text` does.
        progress: reports each update.
        objective: what a thought is rewarded for, one of `OBJECTIVES`.
        text: documents (`elicit.tasks.texts`): JSON Lines or Parquet with `text`, text with blank lines between
            documents, or hub:owner/name.
        documents: how many documents are read at most, the first ones.
        document_tokens: longer ones are cut into parts of at most so many tokens.
        worked: of the task's items their worked solutions instead of their bare answers.
        opening, closing: what begins and ends a thought.
        thought_tokens: the limit of a thought in training; `max_new_tokens` is that of an answer in evaluation.
        decay: τ of the moving average that does not think (`rlp`).
        predicts: where the prediction of `rpt` is looked for (`elicit.training.rl.next_token.PREDICTS`).
        proxy, min_entropy: positions whose next token has less entropy (nats, of the 16 likeliest tokens) for the proxy
            are left out; the proxy is a model by name, hub id or folder, "" the base itself; 0 leaves out none.
        filter_by: which positions stay, always as many (`elicit.training.rl.positions.FILTERS`).
        order: in which they are trained on (`elicit.training.rl.positions.ORDERS`).
        positions, group: positions in a rollout, and thoughts of each.
        updates, per_rollout, temperature, clip_low, clip_high, kl, entropy, lr, rank, rollout_rows, checkpointing,
            save_every, state_every: as for `elicit.training.rl.settings.Settings`.
        part: micro-batch size of the updates; 0 is a group.
        checked: refuse a run that the pre-flight finds no signal for.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
        seed: of all that is drawn.

    Raises:
        UserError: an unknown objective; a proxy with another tokenizer; no documents, or one that is empty or shorter
            than a thought; fewer positions than a rollout takes; as `elicit.training.rl.loop.train`.
    """
    advantage, aggregate = OBJECTIVES.get(objective, OBJECTIVES["rlp"])
    settings = Settings(
        updates=updates, rollouts=positions * group, group=group, per_rollout=per_rollout, reward=objective,
        temperature=temperature, max_new_tokens=thought_tokens, advantage=advantage, aggregate=aggregate,
        clip_low=clip_low, clip_high=clip_high, kl=kl, entropy=entropy, lr=lr, rank=rank, part=part or group,
        preflight=group, seed=seed, checkpointing=checkpointing, rollout_rows=rollout_rows, save_every=save_every,
        state_every=state_every,
    )  # fmt: skip
    texts = Texts(
        text=text, documents=documents, document_tokens=document_tokens, worked=worked, opening=opening,
        closing=closing, thought_tokens=thought_tokens, decay=decay, checked=checked, objective=objective,
        predicts=predicts, proxy=proxy, min_entropy=min_entropy, filter_by=filter_by, order=order,
    )  # fmt: skip
    return _fitted(NAME, model, items, progress, settings, texts, prompt, max_new_tokens)


def _fitted(
    name: str,
    model: Model,
    items: Items | None,
    progress: Progress | None,
    settings: Settings,
    texts: Texts,
    prompt: str,
    max_new_tokens: int,
) -> Elicited:
    """One arm: its documents, its training, its handle."""
    put_to = prompt_for(model, prompt, items)
    told, read_items = documents_of(NAME, model, items, put_to, texts.text, texts.documents, worked=texts.worked)
    ids = tokenized(model.tokenizer, told, texts.document_tokens, texts.thought_tokens)
    beyond = texts.objective == "rpt" and texts.predicts == "boxed"
    before = put(model.tokenizer, ids, texts.opening, texts.closing, beyond)
    here = positions(model.tokenizer, ids, _kept(model, ids, texts, settings.seed))
    if texts.order == "drawn":
        here = drawn(here, settings.groups, settings.seed)
    if len(here) < settings.groups:
        raise UserError(
            f"positions = {settings.groups} was given and the documents have {len(here)}; give fewer positions, or "
            "more text"
        )
    if name == SUPERVISED:
        rows = max(1, settings.rollouts * settings.max_new_tokens // max(map(len, ids)))
        recipe = replace(settings.recipe, checkpointing=settings.checkpointing)
        adapter, found = supervised(NAME, model, ids, rows, recipe, progress, warmup=settings.warmup)
    else:
        adapter, found = _reinforced(name, model, here, before, settings, texts, progress)
    found |= record(told, ids, here)
    options: dict[str, Any] = {
        "prompt": prompt, "asked": asdict(texts), "settings": settings.kept(), "found": found,
        SIGNAL: told_by(model, ids),
    }  # fmt: skip
    if read_items is not None:
        options[SEEN] = seen(read_items)
    return Elicited(model, name, put_to, Greedy(max_new_tokens), adapter=adapter, options=options)


def _kept(model: Model, documents: Sequence[Sequence[int]], texts: Texts, seed: int) -> list[list[bool]] | None:
    """Of each document whether each next token is trained on; None where all are.

    Raises:
        UserError: a proxy with another tokenizer.
    """
    if not texts.min_entropy:
        return None
    proxy = load_model(texts.proxy, device=str(model.lm.device), dtype=model.dtype) if texts.proxy else model
    if proxy.tokenizer.get_vocab() != model.tokenizer.get_vocab():
        raise UserError(
            f"proxy {texts.proxy!r} has another tokenizer than {model.name!r}, so its positions are others; give a "
            "proxy of the same family"
        )
    unsure = [[h >= texts.min_entropy for h in one] for one in entropies(proxy.lm, documents)]
    return filtered(unsure, texts.filter_by, seed)


def _reinforced(
    name: str, model: Model, here: Items, before: Positions, settings: Settings, texts: Texts, progress: Progress | None
) -> tuple[Tuned, dict[str, Any]]:
    reward: Looked = InformationGain(before, settings.max_new_tokens, texts.decay)
    if texts.objective == "rpt":
        reward = PrefixMatch(before, settings.max_new_tokens, texts.predicts)
    if name == SHUFFLED:
        reward = Shuffled(reward, settings.seed)
    decides = [
        settings.kept(), reward.identity(), before.to_dict(), model.provenance.sha256, model.dtype,
        grounds(here, [model]),
    ]  # fmt: skip
    folder = folder_for(f"{NAME}-fit", here.task.name, model.name, decides)
    made = train(
        model, here, settings, folder, prompt=before, rewards={texts.objective: reward},
        checked=texts.checked and name == NAME, looked_at=settings.groups,
        on_step=telling(progress, name, settings.updates, graded=False),
    )  # fmt: skip
    found = {
        "folder": folder.name, "preflight": made.preflight.to_dict(), "summary": summary(made.curve),
        "curve": columns(made.curve),
    }  # fmt: skip
    return made.adapter, found


def work(model: Model, items: Items, options: Mapping[str, Any]) -> Work:
    """The rollouts, as long as thoughts may be, and updates of rows that hold a thought each.

    Documents are computed once for all of their positions: a row of an update has a thought behind them, and of the
    documents as many tokens as there are positions.
    """
    group, tokens = options["group"], options["thought_tokens"]
    rollouts = options["positions"] * group
    handle = Elicited(model, NAME, prompt_for(model, options["prompt"], items), Greedy(options["max_new_tokens"]))
    marks = 2 * MARK
    together = shares(model.lm, options["document_tokens"] + tokens + marks)
    recipe = Recipe(
        options["updates"], rollouts, tokens + marks + (1 if together else options["document_tokens"]),
        options["part"] or group, rank=options["rank"], checkpointing=options["checkpointing"],
    )  # fmt: skip
    sampled = replace(handle, decoder=Sampling(group, options["temperature"], max_new_tokens=tokens))
    return Work(
        handle, [(sampled, options["positions"] * -(-options["updates"] // options["per_rollout"]))], recipe, (6, 2),
        "what scores the next tokens is not in it",
    )  # fmt: skip


def controls(
    handle: Elicited, items: Items | None = None, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Elicited]:
    """The same training with each position rewarded for another's thoughts, next-token training on the same documents
    with as many tokens, and the baselines, plain and with as many tokens.

    Raises:
        UserError: a handle of another method; documents of a task and no items.
    """
    check_own(handle, NAME)
    options, limit = handle.options, handle.decoder.max_new_tokens
    settings, texts = Settings(**options["settings"]), Texts(**options["asked"])
    out = plain(handle, items)
    for name in (SHUFFLED, SUPERVISED):
        out[name] = _fitted(name, handle.model, items, progress, settings, texts, options["prompt"], limit)
    return out | at_budget(handle, items, seed)


def notes(options: Mapping[str, Any]) -> list[str]:
    """What was trained on, and what thoughts told at the end."""
    found, settings = options["found"], options["settings"]
    before, after, curve = found["preflight"], found["summary"], found["curve"]
    gain = options["asked"]["objective"] == "rlp"
    told = "a thought told {:+.3f} nats about the next token" if gain else "{:.1%} of predictions were right"
    return [
        f"Trained on {found['documents']} documents with {found['positions']} positions: {after['updates']} updates of "
        f"{settings['rollouts']} thoughts, in {after['seconds']:.0f} s.",
        f"Before: {told.format(before['reward'])}, {before['mixed']:.0%} of positions with a difference between "
        f"thoughts; in the last update {curve['reward'][-1]:+.3f}.",
        f"{after['clipped']:.1%} of tokens were clipped.",
    ]


def report_sections(options: Mapping[str, Any]) -> list[Any]:
    """For the report: the training."""
    gain = options["asked"]["objective"] == "rlp"
    what = "in nats a thought, beside an average of the weights that does not think" if gain else "1 where it was right"
    note = f"The reward is {what}; entropy at the right."
    return [("Training", note, figure(options["found"]["curve"], None))]
