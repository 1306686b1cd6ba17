"""Texts that an SAE is trained on and measured on: what will be steered, and plain text beside it.

Sources are joined by +, each with a weight if wanted: `organism*2+samples+notes.txt`.

- a task: its questions in five prompts, bare and with either instruction before and after the question, each followed
  by the model's own answer (`direct` and `cot` texts);
- `samples`: what the model writes after nothing but its start token, at temperature 1;
- a file or a data set of the hub (`documents.py`), cut to pieces of one length (both `plain` texts).

Held out for the card: a task's dev items, answered greedily, and a twentieth of samples and pieces, by a hash. Training
sees fit items alone, with sampled answers. What is drawn depends on the seed and on a batch's number, so that a journal
of whole batches is all that an interrupted call needs to resume.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from transformers import PreTrainedTokenizerBase

from elicit.decoding.decoders import Decoder, Greedy, Sampling
from elicit.decoding.engine import Batch, decode_batch
from elicit.decoding.loop import StopRule
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from elicit.tasks.registry import load_task
from elicit.tasks.texts import documents
from elicit.tasks.texts import identity as identity_of
from elicit.training.organisms.variants import PROMPTS
from probes.encoding import encoded
from probes.errors import UserError, as_expected
from probes.files import make_folder, no_link, write_whole

Kind = Literal["direct", "cot", "plain"]
TextSplit = Literal["train", "card"]
SAMPLES = "samples"
HELD_OUT = 20  # one of so many samples and pieces
ITEMS = 16  # a batch, each in all prompts
ROWS = 64  # samples or pieces a batch
ITEM_TOKENS = 150  # that an item in all prompts has at least, or nearly so
MOST_ITEMS = 1024  # of a task; then the same questions again, with other answers
SHORTEST = 8  # tokens of a piece
FRUITLESS = 20  # batches in a row without a text


class Text(NamedTuple):
    """Token ids, how many of them are prompt, what kind of text it is, and the source that it is from."""

    ids: list[int]
    length: int
    kind: Kind
    source: str


@dataclass(frozen=True)
class Source:
    """A source and its weight; `sha256` is that of a file, or a data set's commit; `plain`: text, no questions."""

    name: str
    weight: float = 1.0
    sha256: str = ""
    plain: bool = False


@dataclass(frozen=True)
class Corpus:
    """Texts, in the order of their sources."""

    texts: list[Text]

    @property
    def tokens(self) -> int:
        return sum(len(t.ids) for t in self.texts)

    @property
    def by_source(self) -> dict[str, int]:
        """Tokens of each."""
        out: dict[str, int] = {}
        for t in self.texts:
            out[t.source] = out.get(t.source, 0) + len(t.ids)
        return out

    def of(self, *kinds: Kind) -> tuple[list[list[int]], list[int]]:
        """Token ids and prompt lengths of the texts of these kinds, of all unless given."""
        some = [t for t in self.texts if not kinds or t.kind in kinds]
        return [t.ids for t in some], [t.length for t in some]


def sources_of(text: str) -> list[Source]:
    """Read `organism*2+samples+notes.txt`.

    Raises:
        UserError: an empty or repeated source, a weight that is none, an unknown task, a file that holds no text.
    """
    out: list[Source] = []
    for part in text.split("+"):
        name, star, weight = part.strip().rpartition("*")
        name = name.strip() if star else weight
        try:
            share = float(weight) if star else 1.0
        except ValueError:
            share = 0.0
        if not name or not 0 < share < float("inf"):
            raise UserError(f"source {part!r} was given; write name or name*weight, with a weight above 0, joined by +")
        plain, fixed = identity_of(name)
        if not plain and name != SAMPLES:
            load_task(name, limit=1)
        out.append(Source(name, share, fixed, plain))
        if name in [s.name for s in out[:-1]]:
            raise UserError(f"source {name!r} was given twice; give it once, with a weight: {name}*2")
    return out


def identity(sources: Sequence[Source], tokens: int, context: int, seed: int) -> dict[str, Any]:
    """What decides a corpus, beside the model."""
    named = "+".join(s.name + (f"*{s.weight:g}" if s.weight != 1 else "") for s in sources)
    files = {s.name: s.sha256 for s in sources if s.sha256}
    return {"sources": named, "files": files, "tokens": tokens, "context": context, "text_seed": seed}


def corpus(
    model: Model,
    sources: Sequence[Source],
    tokens: int,
    *,
    split: TextSplit = "train",
    seed: int = 0,
    context: int = 128,
    journal: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    short: bool = False,
) -> Corpus:
    """Texts of all sources, each with its share of the tokens.

    Args:
        model: writes answers and samples.
        sources: what `sources_of` read.
        tokens: wanted in all; each source ends with the text that reaches its share.
        split: `train`, or the held-out texts for a `card`.
        seed: of answers and samples.
        context: the most tokens of an answer, a sample or a piece.
        journal: a file to which whole batches are appended, and from which an interrupted call resumes.
        progress: called with what is written, the tokens done, and of how many.
        short: whether a source may have fewer tokens than its share, of which there must be some.

    Raises:
        UserError: a source with too few tokens, a journal of another corpus, a model that answers nothing.
    """
    if tokens < 1 or context < SHORTEST:
        raise UserError(f"tokens {tokens}, context {context}: give at least 1 and {SHORTEST}")
    about = identity(sources, tokens, context, seed)
    about |= {"part": split, "model": model.provenance.sha256, "dtype": model.dtype}
    about |= {} if model.engine == "hf" else {"engine": model.engine}
    about |= {"tokenizer": model.encoding_sha256, "ends": sorted(model.eos_ids)}
    written = _read(journal, about) if journal is not None else []
    total = sum(s.weight for s in sources)
    texts: list[Text] = []
    for n, source in enumerate(sources):
        share = max(1, round(tokens * source.weight / total))
        known = [batch for owner, batch in written if owner == n]
        have: list[Text] = []
        done = 0
        for batch in _batches(model, source, share, split, seed, context, known, journal, n):
            have += batch
            done += sum(len(t.ids) for t in batch)
            if progress is not None:
                progress(f"texts: {source.name}", min(share, done), share)
            if done >= share:
                break
        texts += _cut(have, share, source, split, least=1 if short else share)
    return Corpus(texts)


def _batches(
    model: Model,
    source: Source,
    share: int,
    split: TextSplit,
    seed: int,
    context: int,
    known: Sequence[list[Text]],
    journal: Path | None,
    number: int,
) -> Iterator[list[Text]]:
    """The batches that the journal knows, then new ones, which are written to it."""
    yield from known
    if source.plain:
        new = _file(model.tokenizer, source, split, context, len(known))
    elif source.name == SAMPLES:
        new = _samples(model, split, seed, context, len(known))
    else:
        new = _task(model, source.name, share, split, seed, context, len(known))
    fruitless = 0
    for batch in new:
        fruitless = 0 if batch else fruitless + 1
        if fruitless == FRUITLESS:
            raise UserError(f"{model.name} writes nothing for source {source.name!r}; give another model or source")
        if journal is not None:
            no_link(journal)
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps([number, batch]) + "\n")
        yield batch


def _cut(texts: Sequence[Text], share: int, source: Source, split: TextSplit, least: int) -> list[Text]:
    out: list[Text] = []
    tokens = 0
    for text in texts:
        if tokens >= share:
            break
        out.append(text)
        tokens += len(text.ids)
    if tokens < least:
        kept = "for training" if split == "train" else "held out"
        raise UserError(
            f"source {source.name!r} has {tokens} tokens {kept} and {share} are asked of it; "
            "give fewer tokens, another weight or more text"
        )
    return out


def _read(journal: Path, about: dict[str, Any]) -> list[tuple[int, list[Text]]]:
    """The whole batches of a journal and the sources they are from; a new journal is begun where there is none."""
    if not journal.is_file():
        make_folder(journal.parent)
        write_whole(journal, json.dumps(about) + "\n")
        return []
    no_link(journal)
    lines = journal.read_bytes().split(b"\n")
    try:
        same = json.loads(lines[0]) == about
    except (ValueError, RecursionError):  # another program's file
        same = False
    if not same:
        raise UserError(f"{str(journal)!r} holds texts for another SAE; give another folder")
    whole = lines[:-1]  # what follows the last line break was cut
    if lines[-1]:
        with journal.open("r+b") as file:
            file.truncate(sum(len(line) + 1 for line in whole))
    with as_expected(repr(str(journal)), "remove it, and the texts are made again"):
        return [(int(owner), [_text(*t) for t in batch]) for owner, batch in map(json.loads, whole[1:])]


def _text(ids: Any, length: Any, kind: Any, source: Any) -> Text:
    if kind not in get_args(Kind):
        raise ValueError(f"a text of kind {kind!r}")
    return Text([int(one) for one in ids], int(length), kind, str(source))


def _task(
    model: Model, name: str, share: int, split: TextSplit, seed: int, context: int, start: int
) -> Iterator[list[Text]]:
    """Questions in all prompts, with the model's answers."""
    items, forms = _questions(name, share, split), _forms()
    stop = StopRule(model.eos_ids, Prompt().stop, model.tokenizer)
    size = min(ITEMS, len(items))
    rounds = -(-len(items) // size)
    for n in count(start):
        again, at = divmod(n, rounds)
        asked = [(item, k, *form) for item in items[at * size : (at + 1) * size] for k, form in enumerate(forms)]
        prompts = [prompt.ids(item.question, model.tokenizer) for item, _, _, prompt in asked]
        how: Decoder = Greedy(context)
        if split == "train" or again:
            how = Sampling(samples=1, first_sample=again, seed=seed, max_new_tokens=context)
        answers = decode_batch(model, Batch(prompts, [f"{item.id}/{k}" for item, k, _, _ in asked], how, stop))
        yield [
            Text([*prompt, *one.tokens.tolist()], len(prompt), kind, name)
            for prompt, (one,), (_, _, kind, _) in zip(prompts, answers, asked, strict=True)
            if len(one.tokens)
        ]


def asked(tokenizer: PreTrainedTokenizerBase, name: str, share: int, split: TextSplit) -> tuple[int, float]:
    """How many prompts of a task are answered together, and their tokens in the mean."""
    items = _questions(name, share, split)[:ITEMS]
    ids = [prompt.ids(item.question, tokenizer) for item in items for _, prompt in _forms()]
    return len(ids), sum(map(len, ids)) / len(ids)


def _questions(name: str, share: int, split: TextSplit) -> Items:
    task = load_task(name, limit=min(MOST_ITEMS, max(2, share // ITEM_TOKENS + 1)))
    return task.split("fit" if split == "train" else "dev")


def _forms() -> list[tuple[Kind, Prompt]]:
    """The prompts in which each question is put, and the kind of text that follows."""
    return [("cot" if mode == "think" else "direct", prompt) for mode, prompts in PROMPTS.items() for prompt in prompts]


def _samples(model: Model, split: TextSplit, seed: int, context: int, start: int) -> Iterator[list[Text]]:
    """What the model writes after its start token."""
    begin = model.tokenizer.bos_token_id
    begin = model.tokenizer.eos_token_id if begin is None else begin
    if not isinstance(begin, int):
        raise UserError(f"{model.name} has a tokenizer without a start or end token; give another source than samples")
    numbers = (k for k in count() if _held_out(f"sample/{k}") == (split == "card"))
    how = Sampling(samples=1, temperature=1.0, seed=seed, max_new_tokens=context)
    stop = StopRule(model.eos_ids)
    for n in count():
        names = [f"sample/{k}" for k in islice(numbers, ROWS)]
        if n < start:
            continue
        written = decode_batch(model, Batch([[begin]] * ROWS, names, how, stop))
        yield [Text([begin, *one.tokens.tolist()], 1, "plain", SAMPLES) for (one,) in written if len(one.tokens)]


def _file(
    tokenizer: PreTrainedTokenizerBase, source: Source, split: TextSplit, context: int, start: int
) -> Iterator[list[Text]]:
    """Pieces of a source's documents."""
    pieces = (
        Text(ids[at : at + context], 1, "plain", source.name)
        for document in documents(source.name, source.sha256)
        for ids in [encoded(tokenizer, document)]
        for at in range(0, len(ids), context)
        if len(ids) - at >= SHORTEST
    )
    chosen = (piece for piece in pieces if _held_out(json.dumps(piece.ids)) == (split == "card"))
    for n in count():
        batch = list(islice(chosen, ROWS))
        if not batch:
            return
        if n >= start:
            yield batch


def _held_out(name: str) -> bool:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=b"sae").digest(), "big") % HELD_OUT == 0
