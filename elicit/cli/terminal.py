"""What the shell shows: tables, progress bars, one line for a mistake."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from elicit.cli.lines import remark
from probes.inert import inert, one_line, shortened

NAME = 200  # characters of a name beside a bar


class InertConsole(Console):
    """What it is given is text and no mark-up; what a terminal would obey in it is written out (`probes.inert`)."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(inert(segment.text), segment.style)


out = InertConsole()
err = InertConsole(stderr=True)


def headed(head: str, rest: str, style: str = "bold") -> Text:
    """A line whose head stands out."""
    return Text.assemble((head, style), rest)


def show_table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "", main: int | None = None) -> None:
    """A table in the terminal's width: columns come closer, then cells break between words, and words last of all."""
    head = [inert(column) for column in head]
    cells = [[inert(shortened(str(cell))) for cell in row] for row in rows]
    columns = list(zip(head, *cells, strict=True))
    whole = [max(cell_len(cell) for cell in column) for column in columns]
    gap = min(4, max(1, (out.width - sum(whole)) // max(1, len(columns) - 1)))
    table = Table(
        title=title or None, title_justify="left", header_style="dim", box=None, pad_edge=False, padding=(0, gap, 0, 0)
    )
    for i, (column, width) in enumerate(zip(columns, _widths(columns, whole, gap), strict=True)):
        numbers = i > 0 and any(cell[:1] in "0123456789+-" for cell in column[1:] if cell)
        table.add_column(column[0], justify="right" if numbers else "left", overflow="fold", width=width)
    for i, row in enumerate(cells):
        table.add_row(*row, style="bold" if i == main else None)
    out.print(table)


def _widths(columns: Sequence[Sequence[str]], whole: Sequence[int], gap: int) -> Sequence[int | None]:
    """Each column's longest word, and what is left given to those that lack least; None where not even words fit."""
    widths = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    spare = out.width - sum(widths) - gap * (len(columns) - 1)
    if spare < 0:
        return [None] * len(columns)
    for i in sorted(range(len(columns)), key=lambda i: whole[i] - widths[i]):
        given = min(spare, whole[i] - widths[i])
        widths[i] += given
        spare -= given
    return widths


class Lines:
    """Progress where standard error is no terminal: a line after `FIRST` seconds, then one each `EACH`, from a thread
    of its own, so that work that reports nothing for minutes is seen to go on."""

    FIRST, EACH = 2.0, 10.0

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.began = time.monotonic()
        self.ended = Event()
        self.thread = Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Lines:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.thread.join()

    def add_task(self, description: str, total: int | None = None, completed: int = 0, **fields: str) -> TaskID:
        task = {"description": description, "total": total, "completed": completed, "note": "", "unit": "", **fields}
        self.tasks.append({**task, "from": completed, "began": time.monotonic()})
        return TaskID(len(self.tasks) - 1)

    def update(self, task: TaskID, advance: int = 0, **fields: Any) -> None:
        self.tasks[task].update(fields)
        self.tasks[task]["completed"] += advance

    def remove_task(self, task: TaskID) -> None:
        self.tasks[task]["total"] = None

    def line(self) -> str:
        """What is worked on, how much of it is done, and how long the rest of it will take at this pace."""
        now = time.monotonic()
        gone = str(timedelta(seconds=int(now - self.began)))
        if not self.tasks:
            return f"{gone} working"
        task = dict(self.tasks[-1])
        counted, left = "", ""
        if task["total"]:
            counted = f" {task['completed']:.0f}/{task['total']:.0f} {task['unit']}".rstrip()
            if task["completed"] >= task["total"]:  # something follows that is not counted
                return f"{gone} working, after {task['description'] or 'training'}{counted}"
            done = task["completed"] - task["from"]
            if done > 0:
                seconds = (now - task["began"]) / done * (task["total"] - task["completed"])
                left = f", {timedelta(seconds=int(seconds))} left"
        note = f"  {task['note'].strip()}" if task["note"] else ""
        return f"{gone} {task['description'] or 'training'}{counted}{left}{note}"

    def _tell(self) -> None:
        wait = self.FIRST
        while not self.ended.wait(wait):
            remark(self.line())
            wait = self.EACH


class RunBars:
    """`elicit.decoding.progress.Progress` as a bar an arm, with tokens a second and what the open batch is doing."""

    def __init__(self, bars: Progress | Lines) -> None:
        self.bars = bars
        self.task: TaskID | None = None
        self.trainings: dict[str, tuple[TaskID, int]] = {}
        self.tokens = 0
        self.began = time.perf_counter()

    def arm(self, name: str, questions: int, done: int) -> None:
        self.tokens, self.began = 0, time.perf_counter()
        self.task = self.bars.add_task(one_line(name, NAME), total=questions, completed=done, note="", unit="questions")

    def step(self, step: int, open_rows: int) -> None:
        if self.task is not None:
            self.bars.update(self.task, note=f"{self._speed()}step {step}, {open_rows} answers open")

    def advance(self, questions: int, tokens: int) -> None:
        if self.task is not None:
            self.tokens += tokens
            self.bars.update(self.task, advance=questions, note=self._speed())

    def training(self, name: str, done: int, updates: int, note: str) -> None:
        task, before = self.trainings.get(name, (None, 0))
        if task is None or done < before:  # another one of this name, with the next seed say
            task = self.bars.add_task(one_line(name, NAME), total=updates, note="", unit="steps")
        self.trainings[name] = task, done
        self.bars.update(task, completed=done, note=one_line(note, NAME))

    def _speed(self) -> str:
        seconds = time.perf_counter() - self.began
        return f"{self.tokens / seconds:.0f} tokens/s  " if self.tokens else ""


def _counted(label: str, quiet: bool) -> Progress | Lines:
    if not quiet and not err.is_terminal:
        return Lines()
    return Progress(
        TextColumn(label, markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=err,
        disable=quiet,
        refresh_per_second=4,
    )


@contextmanager
def run_bars(*, quiet: bool) -> Iterator[RunBars]:
    with _counted("{task.description:<24}", quiet) as bars:
        yield RunBars(bars)


@contextmanager
def fetch_bar(*, quiet: bool) -> Iterator[Any]:
    """A bar for downloads and conversions, shown once there is something to show."""
    shown: Progress | Lines = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        console=err,
        disable=quiet,
        transient=True,
    )
    if not quiet and not err.is_terminal:
        shown = Lines()
    with shown as bars:
        tasks: dict[str, TaskID] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for old in tasks.values():
                    bars.remove_task(old)
                tasks.clear()
                tasks[what] = bars.add_task(one_line(what, NAME), total=total or None)
            bars.update(tasks[what], completed=done, total=total if done else None)

        yield update


@contextmanager
def step_bar(steps: int, *, quiet: bool) -> Iterator[Any]:
    """A bar for a training, whose `on_step` it gives; it begins where a training was resumed."""
    with _counted("training", quiet) as bars:
        task = bars.add_task("", total=steps, note="loading", unit="steps")

        def on_step(step: int, loss: float, tokens_per_second: float) -> None:
            bars.update(task, completed=step + 1, note=f"loss {loss:.3f}  {tokens_per_second:.0f} tokens/s")

        yield on_step
