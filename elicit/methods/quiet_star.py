"""`quiet-star`: thoughts before tokens of any text, mixed into what comes next (Quiet-STaR, arXiv 2403.09629).

At every position of every document thoughts are sampled between two learned tokens; a small network mixes the
prediction after a thought with the one without it, and thoughts are rewarded by how likely they make the next `ahead`
tokens (`elicit.training.rl.quiet_star` has the loss and its departures). An adapter, or all weights, is trained with
the tokens and the network. What comes out thinks before the tokens of its answers and is not heard
(`elicit.decoding.quiet`). A fit lives in `runs/`, under a hash of all that decides it, and the same command resumes it
to the bit.

Where it departs from the paper beside the loss and the decoding:
- The documents are those of a file (`text`), or the fit items of the task, each a question with its answer as the
  prompt puts them; with `worked` the answer is worked out. The paper trains on OpenWebMath or C4.
- An update takes the next `positions` positions of the documents; the paper all those of whole sequences.
- Tens of updates of LoRA at 4e-4. The preset `quiet-star-paper` has the paper's values (`rank=0` trains all weights).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from elicit.decoding.decoders import Greedy, Quiet
from elicit.decoding.progress import Progress, measure
from elicit.elicited import Elicited
from elicit.evaluation.description import SIGNAL
from elicit.evaluation.run.store import folder_for
from elicit.evaluation.seen import SEEN, seen
from elicit.methods.base import Work, check_own, minutes_elsewhere
from elicit.methods.baselines.at_budget import at_budget, plain
from elicit.methods.documents import SUPERVISED, documents_of, record, supervised, told_by
from elicit.models.model import Model
from elicit.models.prompts import prompt_for
from elicit.tasks.base import Items
from elicit.training.recipe import Recipe
from elicit.training.rl.positions import positions, tokenized
from elicit.training.rl.quiet_star import QuietPoint, QuietSettings, QuietTrained, train_quietly
from probes.errors import UserError
from probes.files import digest

NAME = "quiet-star"
SUMMARY = "thinks before each token of any text and is not heard: a network mixes the thought in"
PAPER = "2403.09629"
MODEL = "smollm2-135m-latent"
missing = minutes_elsewhere
QUICK = {"updates": 4, "positions": 8, "documents": 8, "thought_tokens": 4, "every": 0, "lr": 1e-3}
UNREWARDED, UNTHOUGHT = "thoughts not rewarded", "without thoughts"


@dataclass(frozen=True)
class Texts:
    """Which texts, and how answers are decoded; `fit` says what each means."""

    text: str
    documents: int
    document_tokens: int
    worked: bool
    every: int
    answer_thoughts: int

    def __post_init__(self) -> None:
        for name, least in (("documents", 1), ("document_tokens", 2), ("answer_thoughts", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} = {getattr(self, name)} was given; give {least} or more")


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    text: str = "",
    documents: int = 32,
    document_tokens: int = 128,
    worked: bool = False,
    thought_tokens: int = 12,
    ahead: int = 4,
    policy: float = 1.0,
    token_scale: float = 10.0,
    positions: int = 16,
    group: int = 2,
    updates: int = 16,
    temperature: float = 1.0,
    lr: float = 4e-4,
    rank: int = 8,
    part: int = 16,
    checkpointing: bool = False,
    state_every: int = 1,
    every: int = 1,
    answer_thoughts: int = 0,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Elicited:
    """Train an adapter, or all weights, with a mixing head on thoughts at the positions of documents.

    Args:
        model: the base; it is as it was afterwards.
        items: items of a task; the fit split makes the documents unless `text` does.
        progress: reports each update.
        text: documents (`elicit.tasks.texts`): JSON Lines or Parquet with `text`, text with blank lines between
            documents, or hub:owner/name.
        documents: how many are read at most, the first ones.
        document_tokens: longer ones are cut into parts of at most so many tokens.
        worked: of the task's items their worked solutions instead of their bare answers.
        thought_tokens: of a thought, without its two marks.
        ahead: true tokens after a position that its thoughts are to make likelier.
        policy: the weight of the reward of thoughts; 0: they are not trained.
        token_scale: by which the learned marks' gradient is larger than that of other weights.
        positions, group: positions of an update, and thoughts of each.
        updates, temperature, lr, rank, part, checkpointing, state_every: as for
            `elicit.training.rl.quiet_star.QuietSettings`.
        every: how far apart the tokens of an answer are that have a thought before them; 0: the first one alone.
        answer_thoughts: tokens of these thoughts; 0: as many as in training.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
        seed: of all that is drawn.

    Raises:
        UserError: no documents, or one that is empty or shorter than a thought; fewer positions than an update takes;
            as `elicit.training.rl.quiet_star.train_quietly`.
    """
    settings = QuietSettings(
        updates=updates, positions=positions, group=group, thought_tokens=thought_tokens, ahead=ahead, policy=policy,
        token_scale=token_scale, temperature=temperature, lr=lr, rank=rank, part=part, checkpointing=checkpointing,
        state_every=state_every, seed=seed,
    )  # fmt: skip
    texts = Texts(text, documents, document_tokens, worked, every, answer_thoughts)
    return _fitted(NAME, model, items, progress, settings, texts, prompt, max_new_tokens)


def _fitted(
    name: str,
    model: Model,
    items: Items | None,
    progress: Progress | None,
    settings: QuietSettings,
    texts: Texts,
    prompt: str,
    max_new_tokens: int,
) -> Elicited:
    """One arm: its documents, its training, its handle."""
    quiet = Quiet(texts.answer_thoughts or settings.thought_tokens, texts.every, max_new_tokens)
    put_to = prompt_for(model, prompt, items)
    told, read_items = documents_of(NAME, model, items, put_to, texts.text, texts.documents, worked=texts.worked)
    shortest = max(settings.thought_tokens, settings.ahead + 1)
    ids = tokenized(model.tokenizer, told, texts.document_tokens, shortest)
    here = positions(
        model.tokenizer, ids, [[at + settings.ahead <= len(one) for at in range(1, len(one))] for one in ids]
    )
    if len(here) < settings.positions:
        raise UserError(
            f"positions = {settings.positions} was given and the documents have {len(here)} with {settings.ahead} "
            "tokens after them; give fewer positions, or more text"
        )
    mixing = None
    if name == SUPERVISED:
        rows = max(1, settings.positions * settings.group * settings.thought_tokens // max(map(len, ids)))
        adapter, found = supervised(NAME, model, ids, rows, settings.recipe, progress, warmup=settings.warmup)
    else:
        made, found = _trained(name, model, here, ids, settings, progress)
        adapter, mixing = made.adapter, made.mixing
    found |= record(told, ids, here)
    options: dict[str, Any] = {
        "prompt": prompt, "asked": asdict(texts), "settings": settings.kept(), "found": found,
        SIGNAL: told_by(model, ids),
    }  # fmt: skip
    if read_items is not None:
        options[SEEN] = seen(read_items)
    decoder = Greedy(max_new_tokens) if mixing is None else quiet
    return Elicited(model, name, put_to, decoder, adapter=adapter, mixing=mixing, options=options)


def _trained(
    name: str,
    model: Model,
    here: Items,
    documents: Sequence[Sequence[int]],
    settings: QuietSettings,
    progress: Progress | None,
) -> tuple[QuietTrained, dict[str, Any]]:
    about = {"base": model.provenance.sha256, "dtype": model.dtype, "documents": digest(documents)}
    folder = folder_for(f"{NAME}-fit", here.task.name, model.name, [settings.kept(), about])

    def on_step(curve: Sequence[QuietPoint]) -> None:
        point = curve[-1]
        measure(
            progress, name, point.update,
            {"loss": point.loss, "reward": point.reward, "tokens_per_second": point.tokens / point.seconds},
        )  # fmt: skip
        if progress is not None:
            gain = f"a thought tells {point.having - point.without:+.3f} nats a token  weight {point.weight:+.3f}"
            progress.training(name, len(curve), settings.updates, gain)

    made = train_quietly(model, here, documents, settings, folder, identity=about, on_step=on_step)
    names = ("update", "loss", "having", "without", "weight", "reward")
    curve = {key: [round(float(getattr(point, key)), 5) for point in made.curve] for key in names}
    seconds = round(sum(point.seconds for point in made.curve), 1)
    return made, {"folder": folder.name, "curve": curve, "seconds": seconds, "mixing": made.mixing.digest}


def work(model: Model, items: Items, options: Mapping[str, Any]) -> Work:
    """The thoughts of all updates, and their rows with as many tokens ahead."""
    thoughts, tokens = options["positions"] * options["group"], options["thought_tokens"]
    handle = Elicited(model, NAME, prompt_for(model, options["prompt"], items), Greedy(options["max_new_tokens"]))
    each = options["answer_thoughts"] or tokens
    quiet = Quiet(each, options["every"], options["max_new_tokens"])
    recipe = Recipe(
        options["updates"], thoughts, tokens + options["ahead"] + 2, options["part"] * options["group"],
        rank=options["rank"], checkpointing=options["checkpointing"],
    )  # fmt: skip
    sampled = replace(handle, decoder=Greedy(tokens))
    times = quiet.thoughts(options["max_new_tokens"]) * quiet.beside / options["max_new_tokens"]
    return Work(
        handle, [(sampled, thoughts * options["updates"]), (handle, round(times * len(items)))], recipe, (5, 2),
        "documents' own forwards are not in it",
    )  # fmt: skip


def controls(
    handle: Elicited, items: Items | None = None, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Elicited]:
    """The same training without a reward of thoughts, what was trained without its thoughts, next-token training on the
    same documents with as many tokens, and the baselines, plain and with as many tokens.

    Raises:
        UserError: a handle of another method; documents of a task and no items.
    """
    check_own(handle, NAME)
    options, limit = handle.options, handle.decoder.max_new_tokens
    settings, texts = QuietSettings(**options["settings"]), Texts(**options["asked"])
    out = plain(handle, items)
    out[UNTHOUGHT] = replace(handle, method=UNTHOUGHT, decoder=Greedy(limit), mixing=None)
    for name, how in ((UNREWARDED, replace(settings, policy=0.0)), (SUPERVISED, settings)):
        out[name] = _fitted(name, handle.model, items, progress, how, texts, options["prompt"], limit)
    return out | at_budget(handle, items, seed)


def notes(options: Mapping[str, Any]) -> list[str]:
    """What was trained on, and what thoughts told at the end."""
    found, settings, curve = options["found"], options["settings"], options["found"]["curve"]
    gain = curve["having"][-1] - curve["without"][-1]
    return [
        f"Trained on {found['documents']} documents with {found['positions']} positions: {settings['updates']} updates "
        f"of {settings['positions'] * settings['group']} thoughts, in {found['seconds']:.0f} s.",
        f"In the last update thoughts told {gain:+.4f} nats about a token, mixed in with a weight of "
        f"{curve['weight'][-1]:+.3f}; rewards of one position were {curve['reward'][-1]:.4f} nats off their mean.",
    ]


def report_sections(options: Mapping[str, Any]) -> list[Any]:
    """For the report: the training."""
    import plotly.graph_objects as go

    from probes.figures import BLUE, MUTED, ORANGE, styled

    curve = options["found"]["curve"]
    made = go.Figure()
    for name, label, colour in (
        ("having", "log p with a thought", BLUE), ("without", "log p without", MUTED), ("weight", "weight", ORANGE),
    ):  # fmt: skip
        made.add_scatter(x=curve["update"], y=curve[name], mode="lines", name=label, line={"color": colour})
    made.update_layout(xaxis_title="update", yaxis_title="nats a token; weight")
    return [("Training", "Log-probabilities of the tokens ahead, and the weight of thoughts.", styled(made))]
