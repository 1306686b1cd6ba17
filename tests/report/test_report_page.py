"""The report in a real browser, by clicking: it opens without a network, and shows what the samples hold.

It drives the Chromium that is installed; without one on PATH these tests are skipped, and say so.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import numpy as np
import plotly.graph_objects as go
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page
from plotly.offline import get_plotlyjs

from elicit.analysis import ANALYSES, Analyser, Analysis, of_samples, takes_runs
from elicit.decoding.trace import token_margins
from elicit.evaluation import Run
from elicit.models import Model
from elicit.report import render, render_all
from elicit.report.browser import browser
from elicit.report.comparison import entries
from elicit.tasks.base import Item
from probes.errors import UserError
from probes.figures import page as page_of
from probes.inert import inert
from tests.report.conftest import WAIT, until
from tests.support.shell import shell
from tests.support.written import written_run, written_task

HOSTILE = "</script><script>document.title='owned'</script><b>&amp; “q” \u2028 𝔘𝔫𝔦\n\nso"


def said(item: Item, branch: int) -> str:
    """Every third question is answered rightly by the second branch, and the first says something hostile."""
    right = int(item.answer or 0) % 3 == 0
    return f"{HOSTILE} {item.answer if right and branch == 1 else 9000 + branch}"


@pytest.fixture(scope="module")
def runs(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("runs")
    items = written_task(30)
    branched = written_run(tiny, root / "m", items, "m", {"m": said, "direct": lambda i, b: f"I say {i.answer}"}, 3)
    pushed = written_run(
        tiny, root / "p", items, "p", {"p": lambda i, b: f"pushed to 7{b}", "push": lambda i, b: "so 7"}
    )
    return [branched, pushed]


@pytest.fixture(scope="module")
def file(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    out.write_text(render_all(runs), encoding="utf-8")
    return out


def opened(chromium: Browser, file: Path, link: str = "", **options: object) -> tuple[Page, list[str]]:
    """The page, and all that went wrong in it or was asked of a network."""
    page = chromium.new_context(**options).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(WAIT)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("request", lambda asked: wrong.append(asked.url[:99]) if asked.url.split(":")[0] not in LOCAL else None)
    page.goto(f"file://{file}{link}")
    page.wait_for_selector("#browser[data-ready=yes]")
    page.wait_for_selector("#b-one .text")
    return page, wrong


LOCAL = ("file", "data", "blob")


def shown(page: Page) -> str:
    return page.locator("#b-one .text").text_content() or ""


def test_it_opens_alone_and_draws_its_figures(chromium: Browser, file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(get_plotlyjs()[:400]) == 1 and "<script src" not in text and "<link" not in text
    page, wrong = opened(chromium, file)
    figures = page.locator("figure.plot")
    assert figures.count() >= 4
    for n in range(figures.count()):
        figures.nth(n).scroll_into_view_if_needed()
        figures.nth(n).locator(".main-svg").first.wait_for(state="attached")
    assert page.title().startswith("elicit") and not wrong, wrong
    page.get_by_text("Contents", exact=True).click()
    page.get_by_role("link", name="How it was made").click()
    assert page.url.rpartition("#")[2].startswith("part-")
    page.context.close()


def test_samples_are_found_filtered_and_shown(chromium: Browser, file: Path, runs: list[Run]) -> None:
    page, wrong = opened(chromium, file)
    count = page.locator("#b-count")
    options = page.locator("#b-list [role=option]")
    assert (count.text_content() or "").startswith("120 of 120 answers")
    page.locator("#b-arm").select_option(label="m")
    until(page, "document.getElementById('b-count').textContent.startsWith('30 of 120')")
    right = sum(score >= 1 for score in runs[0].metrics["arms"]["m"]["scores"].values())
    assert f"; {right} right" in (count.text_content() or "")
    page.locator("#b-right").select_option("0")
    until(page, f"document.getElementById('b-count').textContent.startsWith('{30 - right} of')")
    page.locator("#b-right").select_option("")
    page.locator("#b-text").fill("what is 12 +")
    until(page, "document.getElementById('b-count').textContent.startsWith('1 of')")
    options.first.click()
    until(page, "document.querySelector('#b-one h3').textContent === 'm, q-12'")
    trace = runs[0].traces["m"]["q-12"][0]
    assert shown(page) == inert(trace.text) and "owned" not in page.title()
    assert page.locator("#b-one .question").text_content() == "What is 12 + 0?"
    page.locator("#b-text").fill("")
    page.locator("#b-answer").fill("12")
    until(page, "document.getElementById('b-count').textContent.startsWith('1 of')")
    page.locator("#b-answer").fill("no such answer")
    until(page, "document.getElementById('b-count').textContent.startsWith('0 of')")
    assert options.count() == 0 and not wrong
    page.context.close()


def test_branches_are_tabs_and_every_sample_has_a_link(chromium: Browser, file: Path, runs: list[Run]) -> None:
    page, wrong = opened(chromium, file, "#sample=m/q-12/0")
    assert page.locator("#b-one h3").text_content() == "m, q-12"
    tabs = page.locator("#b-one [role=tab]")
    assert [tab.text_content() for tab in tabs.all()] == ["✗ 0", "✓ 1", "✗ 2"]
    tabs.nth(1).click()
    until(page, "document.querySelector('#b-panel .facts').textContent.includes('answer 12,')")
    assert shown(page) == inert(runs[0].traces["m"]["q-12"][1].text)
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('#b-panel .facts').textContent.includes('answer 9002')")
    assert unquote(page.url).endswith("#sample=m/q-12/2")
    again, _ = opened(chromium, file, "#sample=m/q-12/2")
    assert shown(again) == inert(runs[0].traces["m"]["q-12"][2].text)
    again.context.close()
    page.get_by_role("button", name="✓ direct").click()
    until(page, "document.querySelector('#b-one h3').textContent === 'direct, q-12'")
    assert not wrong
    page.context.close()


def test_tokens_carry_their_numbers_and_the_colour_that_was_chosen(
    chromium: Browser, file: Path, runs: list[Run]
) -> None:
    page, _ = opened(chromium, file, "#sample=push/q-5/0")
    trace = runs[1].traces["push"]["q-5"][0]
    tokens = page.locator("#b-one .text span")
    assert [one.text_content() for one in tokens.all()] == trace.pieces
    tokens.nth(1).click()
    read = page.locator("#b-one .read").text_content() or ""
    margins = token_margins(np.array(trace.top1), np.array(trace.top2), np.array(trace.logprob))
    for name, value in (
        ("margin", margins[1]), ("entropy", trace.entropy[1]), ("log p", trace.logprob[1]), ("moved", trace.moved[1])
    ):  # fmt: skip
        found = re.search(rf"{name} (-?[\d.]+)", read)
        assert found and float(found[1]) == pytest.approx(value, abs=0.03), (name, read)
    assert tokens.nth(1).get_attribute("class") == "answer at"
    colours = {}
    for name in ("margin", "entropy", "logprob", "moved"):
        page.locator("#b-measure").select_option(name)
        page.wait_for_timeout(100)
        colours[name] = tokens.first.evaluate("span => getComputedStyle(span).backgroundColor")
    assert len(set(colours.values())) == 4, colours
    page.context.close()


def test_keys_alone_are_enough(chromium: Browser, file: Path) -> None:
    page, _ = opened(chromium, file)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "b-text"
    page.locator("#b-list").focus()
    page.keyboard.press("End")
    until(page, "document.querySelector('#b-one h3').textContent.endsWith('q-29')")
    assert page.locator("#b-list [aria-selected=true]").get_attribute("aria-posinset") == "120"
    active = page.locator("#b-list").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowUp")
    until(page, "document.querySelector('#b-one h3').textContent.endsWith('q-28')")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "H3"
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_by_all(chromium: Browser, file: Path, scheme: str) -> None:
    """axe-core finds nothing serious, on a desk and on a phone; a phone has nothing to scroll sideways."""
    for width in (1280, 390):
        page, wrong = opened(chromium, file, viewport={"width": width, "height": 844}, color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert not serious and not wrong, (serious, wrong)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.context.close()


def test_the_theme_is_the_readers_to_choose(chromium: Browser, file: Path) -> None:
    page, _ = opened(chromium, file, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name="Dark")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert page.evaluate(ground) != light and button.get_attribute("aria-pressed") == "true"
    button.click()
    assert page.evaluate(ground) == light
    page.context.close()


def test_analyses_are_sections_and_a_refusal_is_said(
    runs: list[Run], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(runs: list[Run], *, of: str = "arms") -> Analysis:
        return Analysis("counted", [{"what": of, "n": len(runs)}], go.Figure(), ["How to read: as a count."], {})

    def refused(runs: list[Run]) -> Analysis:
        raise UserError("the runs have no thoughts; run a method that thinks")

    for name in of_samples():
        assert takes_runs(name)
        monkeypatch.setitem(ANALYSES, name, replace(ANALYSES[name], reads="runs"))
    for one in (counted, refused):
        module = ModuleType(one.__name__)
        vars(module).update(NAME=one.__name__, SUMMARY="a count", PAPER="", READS="samples", analyse=one)
        monkeypatch.setitem(ANALYSES, one.__name__, Analyser.of(module))
    folders, out = [str(run.folder) for run in runs], tmp_path / "page.html"
    code, said_, err = shell("report", *folders, "--out", str(out))
    assert code == 0 and "2 runs, 1 analysis" in said_, err
    page = out.read_text(encoding="utf-8")
    assert "How to read: as a count." in page and "the runs have no thoughts" in page

    lens = ("analyse", "logit-lens", "--model", str(tiny_folder), "--device", "cpu", "--out", str(tmp_path / "lens"))
    code, _, err = shell(*lens)
    assert code == 0, err
    kept = str(tmp_path / "lens" / "logit-lens.json")
    code, said_, err = shell("report", *folders, "--out", str(out), "--analyses", f"counted,{kept}")
    assert code == 0 and "2 analyses" in said_, err
    assert ">Logit lens<" in out.read_text(encoding="utf-8")
    for asked, word in (
        ("refused", "refused: the runs have no thoughts"), ("logit-lens", "is an analysis of a model"),
        ("nowhere.json", "there is no"), ("countd", "did you mean counted"), ("all,countd", "did you mean counted"),
    ):  # fmt: skip
        code, _, err = shell("report", *folders, "--out", str(out), "--analyses", asked)
        assert code == 2 and word in err and err.count("\n") == 1
    for name in set(ANALYSES) - {"counted", "refused", "logit-lens"}:
        monkeypatch.delitem(ANALYSES, name)
    code, said_, err = shell("report", *folders, "--out", str(out), "--analyses", "all")
    assert code == 0 and "refused: the runs have no thoughts" in said_ and "1 analysis" in said_, err


def test_a_runs_own_page_is_made_of_the_same_parts(runs: list[Run]) -> None:
    own = render(runs[0])
    for part in ("id='b-index'", "How it was made", "Null: ", runs[0].metrics["model"]["sha256"], "python"):
        assert part in own, part
    assert "from Python" in own  # the command: these runs were not made by `elicit`


def test_twenty_thousand_samples_stay_quick_and_more_are_a_stated_part(
    chromium: Browser, tiny: Model, tmp_path: Path
) -> None:
    run = written_run(
        tiny, tmp_path / "many", written_task(2_000), "m", {"m": lambda i, b: f"it may be {b} or {i.answer}"}, 10
    )
    part = browser(entries([run]), limit=500)
    assert "Of 20,000 samples 500 are in this page: all answers to the first 50 of 2,000 questions" in part.html
    whole = browser(entries([run]))
    assert "All 20,000 samples of 2,000 questions." in whole.html
    file = tmp_path / "page.html"
    file.write_text(page_of("many", "", [whole.html], style=whole.style, script=whole.script), encoding="utf-8")
    assert file.stat().st_size < 8 * 2**20
    page, wrong = opened(chromium, file)
    assert page.locator("#b-list [role=option]").count() < 40  # of two thousand
    spent = page.evaluate(
        """async () => {
          const [box, count] = [document.getElementById('b-text'), document.getElementById('b-count')];
          const before = performance.now();
          box.value = 'what is 1999 +';
          box.dispatchEvent(new Event('input'));
          while (!count.textContent.startsWith('1 of')) await new Promise(requestAnimationFrame);
          return performance.now() - before;
        }"""
    )
    assert spent < 5_000 and not wrong, (spent, wrong)
    page.context.close()
