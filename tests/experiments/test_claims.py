"""The claims as experiments: all twenty are there and whole, what is kept agrees with itself, and some run."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import plotly.graph_objects as go
import pytest
from playwright.sync_api import Browser, Page

from elicit.decoding import Sampling
from elicit.elicited import Elicited
from elicit.models import Model
from elicit.tasks import load_task
from experiments.claims import base, low_and_high
from experiments.claims.__main__ import main
from experiments.claims.base import Claim, claim, claims, study_of
from experiments.claims.listing import INDEX, OTHERS, index, whole_page
from experiments.claims.record import README, Record, _readme, judge, kept, measured
from experiments.claims.rules import CONFIRMED, VERDICTS, Condition, Judgement
from experiments.claims.tuning import ASKED
from probes.statistics import Interval
from tests.report.conftest import WAIT, chromium  # noqa: F401
from tests.report.test_report_page import HOSTILE, LOCAL

ALL = list(claims().values())
NAMED = pytest.mark.parametrize("one", ALL, ids=[one.name for one in ALL])


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The command in this process: exit code, standard output, standard error."""
    code = 0
    try:
        main(list(words))
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_there_are_twenty() -> None:
    assert [one.number for one in ALL] == list(range(1, 21))


@NAMED
def test_a_claim_is_whole(one: Claim) -> None:
    texts = (one.claim, one.source, one.published, one.against, one.here)
    assert all(text.strip() and "\n" not in text for text in texts) and one.here.endswith(".")
    assert set(one.quick) <= set(one.settings) and {"model", "seed"} <= set(one.settings)
    assert all(type(value) is type(one.settings[key]) for key, value in one.quick.items())
    about = sys.modules[one.measure.__module__].__doc__ or ""
    assert "onfirmed" in about  # the rule of the verdict stands where the experiment is described


def test_what_is_kept_agrees_with_itself() -> None:
    for one in ALL:
        record = kept(one)
        if record is None:
            continue
        assert (record.number, record.claim) == (one.number, one.claim) and record.verdict in VERDICTS
        assert judge(record) == record, f"{one.name}: run python -m experiments.claims --judge"
        assert record.judged == record.judgement.to_dict()
        assert record.line and set(record.settings) == set(one.settings)
        assert record.command.startswith(f"python -m experiments.claims {one.name}") and "--set" not in record.command
        assert len({tuple(row) for row in record.table}) <= 1 and record.figure["data"]
        assert (one.folder / README).read_text(encoding="utf-8") == _readme(record), (
            f"{one.name}: README is not its own"
        )
    assert INDEX.read_text(encoding="utf-8") == index(), "run python -m experiments.claims --index"


def test_every_folder_is_in_the_index() -> None:
    folders = {file.name for file in INDEX.parent.iterdir() if file.is_dir() and not file.name.startswith("_")}
    assert folders == {"claims", *OTHERS}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("narowing",), ("unknown claim 'narowing'", "did you mean narrowing", "1 to 20")),
        (("nonsense",), ("unknown claim 'nonsense'", "did you mean")),
        (("21",), ("unknown claim '21'",)),
        (("narrowing", "--set", "limits=3"), ("unknown setting", "did you mean limit")),
        (("8", "--set", "limit=ten"), ("limit = 'ten'", "expected int")),
        (("narrowing", "--set", "limit"), ("write key=value",)),
        (("narrowing", "--model", "smollm"), ("unknown model 'smollm'",)),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...], said: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = command(capsys, *words, "--runs", str(tmp_path / "runs"))
    assert code == 2 and not out.strip() and err.strip().count("\n") == 0
    assert err.strip().startswith("error: ") and all(word in err for word in said)
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two claims in a folder of their own, of which one was run."""
    folder = tmp_path / "claims"
    for number, name in ((1, "held"), (2, "open")):
        (folder / name).mkdir(parents=True)
        texts = {
            key: f"{key} of {name} | {HOSTILE.splitlines()[0]}" for key in ("source", "published", "against", "here")
        }
        lines = [f"number = {number}", f"claim = {json.dumps('claim ' + name)}"]
        lines += [f"{key} = {json.dumps(text)}" for key, text in texts.items()]
        lines += ["[settings]", 'model = "x"', "seed = 0", "[quick]"]
        (folder / name / "claim.toml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(base, "HERE", folder)
    figure = json.loads(go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="drawn")).to_json())
    Record(
        1, "claim held", CONFIRMED, f"because {HOSTILE}", [{"arm": "a|b", "value": 1.5}], ["a note"], {"k": [1]},
        "python -m experiments.claims held", {"model": "x", "seed": 0}, {"name": "x", "sha256": "0" * 64, "dtype": "f"},
        1.0, "2026-01-01", {}, Judgement((Condition("it leads", 0.4, Interval(0.2, 0.6)),)).to_dict(), figure,
    ).write(folder / "held")  # fmt: skip
    return folder


def test_a_record_is_kept_and_shown(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = kept(claim("held"))
    assert record is not None and record.verdict == CONFIRMED and kept(claim("2")) is None
    text = (shelf / "held" / README).read_text(encoding="utf-8")
    assert text == _readme(record) and "a\\|b" in text and f"**{CONFIRMED}**" in text
    code, out, _ = command(capsys)
    assert code == 0 and "not run yet" in out and CONFIRMED in out
    assert "[claim held](claims/held/README.md)" in index() and "[claim open](claims/open/claim.toml)" in index()


def test_what_is_of_all_claims_takes_no_name(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--judge", "--plan", "--index"):
        code, _, err = command(capsys, "held", flag)
        assert code == 2 and f"claim 'held' and {flag} were given" in err


def opened(chromium: Browser, file: Path) -> tuple[Page, list[str]]:  # noqa: F811
    """The page, and all that went wrong in it or was asked of a network."""
    page = chromium.new_context().new_page()
    page.set_default_timeout(WAIT)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("request", lambda asked: wrong.append(asked.url[:99]) if asked.url.split(":")[0] not in LOCAL else None)
    page.goto(f"file://{file}")
    return page, wrong


def test_the_page_opens_and_draws(shelf: Path, chromium: Browser, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    file = shelf.parent / "claims.html"
    assert command(capsys, "--page", str(file))[0] == 0
    page, wrong = opened(chromium, file)
    page.locator("figure.plot").scroll_into_view_if_needed()
    page.locator("figure.plot .main-svg").first.wait_for(state="attached")
    assert "1. claim held" in page.inner_text("main") and "not run yet" in page.inner_text("main")
    assert page.title() == "Twenty claims" and not wrong
    page.context.close()


def test_the_page_of_what_is_kept_opens(chromium: Browser, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "claims.html"
    file.write_text(whole_page(), encoding="utf-8")
    page, wrong = opened(chromium, file)
    assert page.locator("figure.plot").count() == sum(kept(one) is not None for one in ALL) and not wrong
    assert page.locator("tbody tr").count() >= len(ALL)
    page.context.close()


def test_one_runs_from_the_command_line(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.read_bytes() for file in claim("low_and_high").folder.glob("*.*")}
    words = (
        "12",
        "--quick",
        "--model",
        str(tiny_folder),
        "--set",
        "twin=",
        "--set",
        "limit=8",
        "--runs",
        str(tmp_path),
    )
    code, out, err = command(capsys, *words)
    assert code == 0, err
    folder = tmp_path / "claims" / "findings" / "low_and_high"
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["verdict"] in out and result["line"] in " ".join(out.split())
    assert result["settings"]["limit"] == 8 and "--set limit=8" in result["command"]
    assert "--quick" in result["command"] and len(result["table"]) == 4
    drawn = json.loads((folder / "figure.json").read_text(encoding="utf-8"))["data"]
    assert any("null" in one.get("name", "") for one in drawn)
    assert before == {file: file.read_bytes() for file in claim("low_and_high").folder.glob("*.*")}


def luck(folder: Path, answer: str) -> str:
    """A task whose questions all have one answer."""
    lines = [{"question": f"Which one, {n}?", "answer": answer, "split": ("fit", "test")[n % 2]} for n in range(16)]
    file = folder / f"luck{answer}.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return str(file)


def test_trainings_are_shared_between_claims(tiny: Model, tmp_path: Path) -> None:
    draws = Sampling(24, 1.0, max_new_tokens=48)
    asked = Elicited(tiny, "drawn", ASKED, draws, select="vote").answers(load_task(luck(tmp_path, "3")).fit)
    said = Counter(trace.answer for traces in asked for trace in traces if trace.answer and trace.finish != "length")
    ((often, _),) = said.most_common(1)  # what a model of random characters says most is right now and then
    task = luck(tmp_path, often)
    shared = {"model": tiny.name, "task": task, "limit": 8, "draws": 24, "steps": 2, "max_new_tokens": 48}
    found = {}
    for name, more in (("curation", {"samples": 4}), ("less_information", {})):
        record = measured(study_of(claim(name), changes={**shared, **more}, runs=tmp_path))
        found[name] = len(list((tmp_path / "claims").glob("tuned-*")))
        assert record.verdict in VERDICTS and record.line and record.figure["data"]
        assert json.dumps(record.data, allow_nan=False)
    assert found == {"curation": 3, "less_information": 4}  # right and unfiltered ones are there already


def test_influence_is_a_claim(tiny: Model, tmp_path: Path) -> None:
    pytest.importorskip("kronfluence", reason="kronfluence is not installed; make install brings it")
    few = {"model": tiny.name, "documents": 8, "queries": 2, "subsets": 4, "steps": 1, "layers": 1}
    record = measured(study_of(claim("influence"), changes=few, runs=tmp_path))
    assert record.verdict in VERDICTS and "LDS" in record.line and len(record.table) == 3


def test_where_prompts_part_decides_low_and_high() -> None:
    """Layers that part anywhere, or nowhere, place nothing; those of the upper half alone do."""
    for start, wanted in ((6, (0.0, 1.0)), (0, (1.0, 1.0)), (13, (0.0, 0.0))):
        for key in low_and_high.MEASURES:
            found = low_and_high.halves(layer_curve(key, start), key)
            assert [one.pair for one in found] == [[share, share] for share in wanted]


def layer_curve(key: str, start: int, wide: float = 0.01) -> dict[str, list[float]]:
    """Thirteen layers, of which those from `start` on diverge, or carry."""
    beyond = [(-0.3 if key == "cka" else 0.5) if n >= start else 0.0 for n in range(13)]
    own = [0.6 if n >= start else 0.0 for n in range(13)]
    ends = {"low": -wide, "high": wide}
    return {f"beyond {end}": [b + by for b in beyond] for end, by in ends.items()} | {
        end: [o + by for o in own] for end, by in ends.items()
    }


def test_a_layer_that_carries_nothing_does_not_come_to_carry_by_its_null() -> None:
    """Paraphrases that lead away make a negative null; a layer beyond it that carries nothing itself is none."""
    nothing = layer_curve("carried", 13) | {"beyond low": [0.05] * 13, "beyond high": [0.2] * 13}
    assert [one.high for one in low_and_high.halves(nothing, "carried")] == [0.0, 0.0]


def test_more_questions_do_not_refute_where_layers_part() -> None:
    """A small fall of CKA is none, however many questions make it certain; few questions leave layers open."""
    small = {"beyond low": [-0.021] * 13, "beyond high": [-0.019] * 13, "low": [0.9] * 13, "high": [0.9] * 13}
    assert [one.pair for one in low_and_high.halves(small, "cka")] == [[0.0, 0.0]] * 2
    few = low_and_high.halves(layer_curve("cka", 6, wide=0.3), "cka")
    assert few[0].pair == [0.0, 1.0] and few[1].pair == [0.0, 1.0]


@pytest.mark.parametrize("quick", [True, False])
def test_tasks_that_settings_name_have_as_many_questions(quick: bool) -> None:
    """Sums of two terms are too few for 240 of each split, which was told an hour into claim 15."""
    for one in claims().values():
        given = one.defaults(quick)
        for key in {"task", "another", "easy", "hard"} & given.keys():
            count = given["routed"] if key in ("easy", "hard") else given["limit"]
            assert not given[key] or len(load_task(given[key], limit=count).test) >= count, (one.name, key)
