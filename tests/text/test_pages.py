"""Hostile text in every kind of page, clicked through in Chromium: nothing runs, nothing is asked of a network, and the
policy of the page refuses nothing of our own."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from playwright.sync_api import Browser, Page

from elicit.analysis.base import Analysis
from elicit.cli.analyse import _page as analysis_page
from elicit.evaluation import Run
from elicit.models import Model
from elicit.report import render, render_all
from elicit.report.dose_response import dose_response
from elicit.report.sae_dashboard import dashboard
from elicit.tasks.base import Item, Items, Task
from elicit.tasks.grading import NumberGrader
from probes.dots import Dot, dot_plot
from probes.figures import page, styled, table
from probes.sae import SAE
from probes.sae.activity import read_activity
from tests.report.conftest import WAIT, chromium, until  # noqa: F401
from tests.support.saes import save_random_sae
from tests.support.written import written_run
from tests.text.hostile import LONG, MARKUP, TERMINAL

TEXTS = (*MARKUP, *TERMINAL)
WATCH = """
  window.refused = [];
  document.addEventListener('securitypolicyviolation', (event) => refused.push(event.violatedDirective));
"""
CLICK = """async () => {
  const wait = () => new Promise((done) => setTimeout(done, 5));
  for (const box of document.querySelectorAll('details')) box.open = true;
  for (const box of document.querySelectorAll('.plot')) {
    box.scrollIntoView();
    for (let n = 0; n < 400 && !box.dataset.drawn; n++) await wait();
    const chart = box.querySelector('.chart');
    for (const [curveNumber, trace] of (chart._fullData ?? []).entries()) {
      const points = trace.z ? trace.z.flatMap((row, i) => row.map((_, j) => [i, j])) : [...(trace.x ?? [])].keys();
      for (const pointNumber of [...points].slice(0, 8)) {
        const at = trace.xaxis + trace.yaxis;
        try { Plotly.Fx.hover(chart, [{ curveNumber, pointNumber }], at); } catch (error) { if (!trace.z) throw error; }
        for (const one of chart.querySelectorAll('.hovertext')) seen.push(one.textContent);
      }
    }
    for (const one of chart.querySelectorAll('text')) seen.push(one.textContent);
  }
  const controls = 'button, summary, [role=option], [role=tab], .text span';
  for (const one of [...document.querySelectorAll(controls)].slice(0, 60)) { one.click(); await wait(); }
  for (const one of document.querySelectorAll('select')) for (const option of one.options) {
    one.value = option.value;
    one.dispatchEvent(new Event('change'));
    await wait();
  }
  for (const one of document.querySelectorAll('main *')) {
    for (const kind of ['mouseover', 'pointerover']) one.dispatchEvent(new Event(kind, { bubbles: false }));
  }
}"""


@pytest.fixture(scope="module")
def runs(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("runs")
    held = [text.encode("utf-8", "replace").decode() for text in TEXTS]
    items = tuple(Item(f"q-{n} {text}", f"{text} {n}?", str(n), "test") for n, text in enumerate(held))
    task = Items(Task(f"task {MARKUP[0]}", items, NumberGrader(), "number", {"family": "written"}), items)

    def say(item: Item, branch: int) -> str:
        more = LONG if item.answer == "3" and not branch else ""
        return f"{item.question} {more} {item.answer if branch else 90}"

    arms = {f"m {MARKUP[6]}": say, f"other {MARKUP[12]}": say}
    more = {f"p {MARKUP[10]} {MARKUP[17]}": say, "push": lambda item, branch: "so 7"}
    return [
        written_run(tiny, root / "m", task, next(iter(arms)), arms, 2),
        written_run(tiny, root / "p", task, next(iter(more)), more),
    ]


def pages(runs: list[Run], tiny: Model, folder: Path) -> dict[str, Callable[[], str]]:
    """Every kind of page that is written, of hostile text throughout."""
    sae = SAE.load(save_random_sae(folder / "sae"))
    texts = [tiny.tokenizer.encode(text)[:40] for text in TEXTS if text.isascii()]
    activity = read_activity(tiny.lm, sae, texts, [3, 17])
    names = [f"{n} {text}" for n, text in enumerate(TEXTS)]
    figure = dot_plot(names, {MARKUP[6]: [Dot(0.1 * n) for n in range(len(names))]}, title=MARKUP[8], x=MARKUP[9])
    from_file = styled(go.Figure(go.Bar(x=list(TEXTS), y=[1] * len(TEXTS), name=MARKUP[9], hovertext=list(TEXTS))))
    analysis = Analysis(MARKUP[0], [{MARKUP[6]: text} for text in TEXTS], from_file, [*TEXTS], {})
    about = {"command": MARKUP[1], "model": {"name": MARKUP[6], "sha256": "0" * 64, "dtype": "float32"}, "seed": 0}
    row = {"strength": 0.0, "control": False, "n": 4, "degenerate": 1, "accuracy": 0.5, "interval": [0.2, 0.8],
           "perplexity": 3.0, "difference": 0.1, "tokens": 5.0, "changed": 0.1}  # fmt: skip
    doses = {"rows": [{**row, "series": "unsteered"}, {**row, "series": MARKUP[6], "strength": 1.0}], "graded": True}
    return {
        "report": lambda: render_all(runs),
        "run": lambda: render(runs[0]),
        "dashboard": lambda: dashboard(tiny, sae, activity, texts, what=MARKUP[6]),
        "analysis": lambda: analysis_page(analysis, about, MARKUP[6]),
        "steering": lambda: page(
            MARKUP[6], MARKUP[7], [("Doses", MARKUP[8], dose_response(doses)), table(TEXTS, [TEXTS], prose=True)]
        ),
        "figures": lambda: page(MARKUP[2], MARKUP[3], [(MARKUP[4], MARKUP[5], figure)], first=MARKUP[6]),
    }


def opened(chromium: Browser, file: Path) -> tuple[Page, list[str]]:  # noqa: F811
    """The page, and all that went wrong in it or was asked of a network."""
    one = chromium.new_page()
    one.set_default_timeout(WAIT)
    one.add_init_script(WATCH + "window.seen = [];")
    wrong: list[str] = []
    one.on("pageerror", lambda error: wrong.append(str(error)))
    one.on("dialog", lambda asked: wrong.append(asked.message))
    one.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    one.on("request", lambda asked: wrong.append(asked.url[:99]) if asked.url.split(":")[0] not in LOCAL else None)
    one.on(
        "framenavigated",
        lambda frame: wrong.append(frame.url[:99]) if frame.url.split("#")[0] != file.as_uri() else None,
    )
    one.goto(f"file://{file}")
    return one, wrong


LOCAL = ("file", "data", "blob")


@pytest.mark.long
def test_no_page_runs_or_asks_or_links_anything(
    chromium: Browser,  # noqa: F811
    runs: list[Run],
    tiny: Model,
    tmp_path: Path,
) -> None:
    for name, made in pages(runs, tiny, tmp_path).items():
        file = tmp_path / f"{name}.html"
        file.write_text(made(), encoding="utf-8")
        one, wrong = opened(chromium, file)
        if name in ("report", "run"):
            one.wait_for_selector("#browser[data-ready=yes]")
        one.evaluate(CLICK)
        seen: Any = one.evaluate("({owned: window.owned, refused, url: location.href.split('#')[0]})")
        assert seen["owned"] is None and not seen["refused"] and not wrong, (name, seen, wrong)
        assert seen["url"] == file.as_uri()
        assert one.locator("main :is(img, iframe, form[action], base, object, embed, meta)").count() == 0, name
        links = one.evaluate(
            "[...document.querySelectorAll('a[*|href]')].map((a) => a.getAttribute('href') || a.outerHTML)"
        )
        assert not [link for link in links if not re.fullmatch(r"#[\w-]+", link)], name
        if name != "dashboard":  # whose figure holds no text from elsewhere
            assert "<b onclick" in one.evaluate("seen.join()") or "<img src=x" in one.evaluate("seen.join()"), name
        one.close()


@pytest.mark.long
def test_the_fixture_would_run_and_the_policy_alone_stops_it(chromium: Browser, tmp_path: Path) -> None:  # noqa: F811
    for text in (MARKUP[0], MARKUP[6]):
        whole = page("t", "", [text])
        (tmp_path / "with.html").write_text(whole, encoding="utf-8")
        bare = re.sub(r"<meta http-equiv='Content-Security-Policy' content=\"[^\"]*\">", "", whole)
        (tmp_path / "without.html").write_text(bare, encoding="utf-8")
        one, _ = opened(chromium, tmp_path / "without.html")
        until(one, "window.owned === true")
        one.close()
        one, _ = opened(chromium, tmp_path / "with.html")
        until(one, "refused.length > 0")
        assert one.evaluate("window.owned") is None
        one.close()


def test_every_page_has_the_strict_policy() -> None:
    figure = styled(go.Figure(go.Scatter(x=[1], y=[1])))
    for parts in ([], [("one", "", figure)]):
        whole = page("t", "", parts, script="1;", style="p{}")
        (policy,) = re.findall(r"<meta http-equiv='Content-Security-Policy' content=\"([^\"]*)\">", whole)
        assert whole.index("Content-Security-Policy") < min(whole.index("<style"), whole.index("<title"))
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["script-src-attr"] == "'none'"
        assert rules["style-src-attr"] == "'none'" and "unsafe" not in policy and "http" not in policy
        assert rules["script-src"].count("sha256-") == whole.count("<script>") == (3 if parts else 1)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser on PATH")
def test_drawn_figures_hold_text(tmp_path: Path) -> None:
    from probes.figure_files import write_figures

    names = [f"{n} {text}" for n, text in enumerate(MARKUP)]
    figure = dot_plot(names, {MARKUP[9]: [Dot(float(n)) for n in range(len(names))]})
    write_figures([(MARKUP[0], figure)], tmp_path / "figures", ["svg", "csv"])
    (svg,) = (tmp_path / "figures").glob("*.svg")
    text = svg.read_text(encoding="utf-8")
    assert not re.search(r"<(?:script|img|iframe|a|foreignObject)\b|xlink:href=[\"'](?!#|data:)", text)
    assert "<img src=x" in html.unescape(text)


def test_a_hostile_figure_from_a_file_has_no_link() -> None:
    whole = page("t", "", [("one", "", go.Figure(go.Bar(x=["<a href='http://elsewhere.invalid/'>x</a>"], y=[1])))])
    assert "\\u003ca href" not in whole and "&lt;a href" in whole
