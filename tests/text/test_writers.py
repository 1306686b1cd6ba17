"""Text goes to a terminal, a page, a figure or a spreadsheet by the doors alone; what goes round is seen."""

from __future__ import annotations

import ast

from tests.text import writers
from tests.text.reviewed import DOORS, REVIEWED
from tests.text.writers import EVERYWHERE


def test_a_terminal_is_written_to_by_its_doors_alone() -> None:
    found = writers.calls(writers.TERMINAL | writers.STREAMS, *EVERYWHERE)
    found = {place for place in found if not place.startswith("experiments/")}  # these are of our own models
    lines = {f"elicit/cli/lines.py:{name}" for name in ("say", "remark", "show_json", "_bug")}
    bars = {"elicit/cli/terminal.py:_counted", "elicit/cli/terminal.py:fetch_bar"}
    assert found == lines | bars | {"probes/direct.py:DirectFile._flush"}  # the last one writes a file


def test_columns_of_bars_and_consoles_read_no_markup() -> None:
    file = writers.ROOT / "elicit" / "cli" / "terminal.py"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("TextColumn", "super().__init__"):
            assert "markup=False" in ast.unparse(node), ast.unparse(node)
    marked = [f for f in writers.files(*EVERYWHERE) if "markup=True" in f.read_text(encoding="utf-8")]
    assert not marked


def test_html_and_csv_are_written_by_their_doors_alone() -> None:
    asked = writers.SPREADSHEETS | writers.OTHER_PAGES | writers.ESCAPES
    found = writers.calls(asked, *EVERYWHERE)
    inspect = "elicit/integrations/inspect/provider.py:ElicitAPI.__init__"  # of mark-up that Inspect reads
    assert found == {"probes/csv_table.py:csv_table", "probes/inert.py:escaped", inspect}
    assert not writers.defines(writers.OTHER_PAGES, *EVERYWHERE)


def test_documents_are_begun_where_they_get_a_policy() -> None:
    ours = {"probes/figures.py:page", "probes/figures.py:_html", "probes/figure_files.py:_drawn"}
    data = {"elicit/report/browser.py:browser"}  # no scripts: base64 in elements of type text/plain
    assert writers.documents() == ours | data | {"probes/figure_files.py:_printed"}


def test_what_stands_within_tags_went_through_a_door() -> None:
    round_it = {
        (place, what)
        for place, what in writers.put_into_tags()
        if "(" not in what or what.partition("(")[0] not in DOORS
    }
    reviewed = {(place, what) for place, (expressions, _) in REVIEWED.items() for what in expressions}
    assert round_it == reviewed, (
        f"escape {round_it - reviewed} (probes.inert), or put it into tests/text/reviewed.py, where "
        f"{reviewed - round_it} is gone"
    )


def test_a_new_writer_is_seen() -> None:
    source = "def show(name):\n    print(name)\n    return f'<p>{name}</p><b>{escaped(name)}</b>{len(name):d}'\n"
    tree = list(writers._within(ast.parse(source)))
    calls = [ast.unparse(node.func) for where, node in tree if isinstance(node, ast.Call) and where == "show"]
    (text,) = [node for _, node in tree if isinstance(node, ast.JoinedStr) and len(node.values) > 1]
    put = [p for p in text.values if isinstance(p, ast.FormattedValue) and not writers._number(p)]
    assert "print" in calls and [ast.unparse(p.value) for p in put] == ["name", "escaped(name)"]
