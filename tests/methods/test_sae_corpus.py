"""Texts for SAEs: what each source gives, what is held out, and that an interrupted call resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elicit.methods.sae_steer.corpus import Corpus, Source, corpus, sources_of
from elicit.models import Model
from elicit.tasks import load_task
from probes.errors import UserError


class Killed(Exception):
    pass


def test_sources_are_read_with_their_weights(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("words " * 10)
    found = sources_of(f"organism*2+samples+{notes}*0.5")
    assert [(s.name, s.weight, s.plain) for s in found] == [
        ("organism", 2.0, False), ("samples", 1.0, False), (str(notes), 0.5, True)
    ]  # fmt: skip
    assert len(found[2].sha256) == 64 and not found[0].sha256
    questions = tmp_path / "q.jsonl"
    questions.write_text(json.dumps({"question": "1 + 1?", "answer": "2"}))
    assert sources_of(str(questions)) == [Source(str(questions), 1.0, sources_of(str(questions))[0].sha256, False)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("organsim", "did you mean organism"),
        ("organism*0", "weight above 0"),
        ("organism*x", "weight above 0"),
        ("organism++samples", "source ''"),
        ("samples+samples*2", "given twice"),
        ("no/such.txt", "no/such.txt"),
    ],
)
def test_sources_that_are_none_are_refused(given: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        sources_of(given)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "said"), [(b"", "no text"), (b"\xff\xfe\x00", "UTF-8")])
def test_files_without_text_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=said):
        sources_of(str(tmp_path / "a.txt"))
    (tmp_path / "a.jsonl").write_bytes(b'{"words": 1}\n')
    with pytest.raises(UserError, match="line 1: no object with a text"):
        sources_of(str(tmp_path / "a.jsonl"))


def drawn(model: Model, given: str, tokens: int, **more: Any) -> Corpus:
    return corpus(model, sources_of(given), tokens, context=16, **more)


def test_a_task_gives_its_fit_questions_in_five_prompts_with_the_models_answers(tiny: Model) -> None:
    made = drawn(tiny, "organism", 3000)
    fit = {item.question for item in load_task("organism", limit=32).fit}
    prompts = [str(tiny.tokenizer.decode(t.ids[: t.length])) for t in made.texts]
    questions = {p.split("\n")[0].removeprefix("Q: ") for p in prompts}
    plain = {
        q.removesuffix(" Let's think step by step.").removesuffix(" Answer at once, with the answer alone.")
        for q in questions
    }
    assert plain <= fit and len(questions) > len(plain)
    for prompt, text in zip(prompts, made.texts, strict=True):
        assert text.kind == ("cot" if "step by step" in prompt else "direct") and len(text.ids) > text.length
    assert 3000 <= made.tokens < 3000 + 600
    assert made == drawn(tiny, "organism", 3000) and made != drawn(tiny, "organism", 3000, seed=1)


def test_held_out_texts_are_others_and_tasks_give_their_dev_questions(tiny: Model, tmp_path: Path) -> None:
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(json.dumps({"text": f"line {n} of some words {n * 7}"}) + "\n" for n in range(3000)))
    given = f"organism+samples+{notes}"
    training, card = drawn(tiny, given, 6000), drawn(tiny, given, 6000, split="card")
    for source in ("samples", str(notes)):
        mine = {tuple(t.ids) for t in training.texts if t.source == source}
        held_out = {tuple(t.ids) for t in card.texts if t.source == source}
        assert mine and held_out and not mine & held_out
    dev = {item.question for item in load_task("organism", limit=32).dev}
    asked = {str(tiny.tokenizer.decode(t.ids[: t.length])) for t in card.texts if t.source == "organism"}
    assert all(any(q in prompt for q in dev) for prompt in asked)
    assert {t.kind for t in card.texts} == {"direct", "cot", "plain"}
    texts, lengths = card.of("plain")
    assert set(lengths) == {1} and max(map(len, texts)) <= 17


def test_an_interrupted_corpus_goes_on_from_its_journal(tiny: Model, tmp_path: Path) -> None:
    given, journal = "organism+samples", tmp_path / "texts.jsonl"
    whole = drawn(tiny, given, 12_000)

    def progress(what: str, done: int, total: int) -> None:
        if what == "texts: samples" and done:
            raise Killed

    with pytest.raises(Killed):
        drawn(tiny, given, 12_000, journal=journal, progress=progress)
    lines = len(journal.read_text().splitlines())
    assert lines > 1
    with journal.open("a") as file:
        file.write("[1, [[[3, 4")  # as a killed process leaves it
    assert drawn(tiny, given, 12_000, journal=journal) == whole
    assert len(journal.read_text().splitlines()) > lines
    before = journal.read_bytes()
    assert drawn(tiny, given, 12_000, journal=journal) == whole and journal.read_bytes() == before
    with pytest.raises(UserError, match="texts for another SAE"):
        drawn(tiny, given, 12_001, journal=journal)


def test_a_file_that_is_too_short_is_told(tiny: Model, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some words " * 20)
    with pytest.raises(UserError, match="tokens for training and 5000 are asked of it"):
        drawn(tiny, str(tmp_path / "a.txt"), 5000)


def test_columns_of_parquet_files_and_of_data_sets_are_read(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [f"line {n} of some words {n * 7}" for n in range(400)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    pq.write_table(pa.table({"text": lines, "id": range(400)}), tmp_path / "a.parquet")
    asked: list[Any] = []

    def rows_of(repo: str, config: str | None, **more: Any) -> list[dict[str, str]]:
        asked.append((repo, config, more))
        return [{"body": line} for line in lines]

    monkeypatch.setattr("datasets.load_dataset", rows_of)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda _, repo, revision: type("", (), {"sha": "c0ffee"}))
    (hub,) = sources_of("hub:some/texts:config=en,split=validation,column=body")
    assert hub.plain and hub.sha256 == "c0ffee"
    given = {"split": "validation", "revision": "c0ffee", "streaming": True}
    assert asked == [("some/texts", "en", given)]
    wanted = [t.ids for t in drawn(tiny, str(tmp_path / "a.jsonl"), 2000).texts]
    assert [t.ids for t in drawn(tiny, str(tmp_path / "a.parquet"), 2000).texts] == wanted
    assert [t.ids for t in drawn(tiny, hub.name, 2000).texts] == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("hub:words", "write hub:owner/name"),
        ("hub:a/b:splitt=train", "did you mean split"),
        ("hub:a/b:train", "write key=value"),
        ("hub:a/b", "no column 'text'; it has body"),
        ("b.parquet", "no column 'text'; it has words"),
        ("c.parquet", "no Parquet file"),
        ("d.parquet", "a int where a text is expected"),
    ],
)
def test_columns_that_are_none_are_refused(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"words": ["a"]}), "b.parquet")
    Path("c.parquet").write_bytes(b"PAR1 cut")
    pq.write_table(pa.table({"text": [1]}), "d.parquet")
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [{"body": "x"}])
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda _, repo, revision: type("", (), {"sha": "c0ffee"}))
    with pytest.raises(UserError) as error:
        sources_of(given)
    assert said in str(error.value) and "\n" not in str(error.value)
