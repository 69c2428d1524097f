"""A report for the eye: rich tables, bars, and the sentence that decides.

Numbers are never wrapped or cut. Where a table is wider than the terminal, its columns of lowest
priority are left out and named; where that is not enough, the lines are left to the terminal to wrap.
"""

from __future__ import annotations

from io import StringIO
from typing import Literal

from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from kvplan.report.rows import column_head, shown_rows
from kvplan.report.terminal import Terminal
from kvplan.report.words import cell, sentence, share, with_unit
from kvplan.results import Column, Facts, Report, Shown, Table

_WIDEST = 10_000
_BAR_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def render_table(report: Report, terminal: Terminal) -> str:
    """Return the report as text for this terminal."""
    text = StringIO()
    console = Console(
        file=text,
        width=_WIDEST,
        force_terminal=terminal.color,
        color_system="standard" if terminal.color else None,
        no_color=not terminal.color,
        legacy_windows=False,
        highlight=False,
        emoji=False,
        markup=False,
    )
    title, line_break, rest = report.heading.partition("\n")
    _say(console, terminal, Text.assemble((title, "bold"), line_break, rest))
    for section in report.sections:
        _section(console, section, terminal)
    _ending(console, report, terminal)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    rendered = "\n".join(lines) + "\n"
    return rendered if terminal.unicode else rendered.encode("ascii", "replace").decode("ascii")


def _say(console: Console, terminal: Terminal, text: Text) -> None:
    """Print a sentence, wrapped between words where the terminal is narrow."""
    console.print(text, width=terminal.width or _WIDEST)


def _ending(console: Console, report: Report, terminal: Terminal) -> None:
    if report.verdict is not None:
        console.print()
        style = "bold green" if report.verdict.yes else "bold red"
        _say(console, terminal, Text(report.verdict.text, style=style))
    for note in report.notes:
        _say(console, terminal, Text(f"note: {note}", style="dim"))


def _section(console: Console, section: Facts | Table, terminal: Terminal) -> None:
    if section.shown is Shown.NOT:
        return
    console.print()
    if section.shown is Shown.SENTENCE and isinstance(section, Facts):
        said = Text.assemble((section.title, "bold"), f"  {sentence(section.quantities)}")
        _say(console, terminal, said)
        return
    _say(console, terminal, Text(section.title, style="bold"))
    if isinstance(section, Table):
        _print_table(console, section, terminal)
    elif section.shown is Shown.BUDGET:
        _print_budget(console, section, terminal)
    else:
        _print_lines(console, section, terminal)


def _print_table(console: Console, table: Table, terminal: Terminal) -> None:
    columns = list(table.shown_columns())
    dropped: list[str] = []
    while terminal.width and _needed(console, _rich_table(columns, table)) > terminal.width:
        least = max(columns[1:], key=lambda column: column.priority, default=None)
        if least is None or least.priority == 0:
            break
        columns.remove(least)
        dropped.append(" ".join((least.label or column_head(table, least)).split()))
    _print_wide(console, _rich_table(columns, table))
    if dropped:
        _say(console, terminal, Text(f"  (no room for: {', '.join(dropped)})", style="dim"))


def _rich_table(columns: list[Column], source: Table) -> RichTable:
    table = _empty()
    for column in columns:
        words = any(isinstance(q.value, str) for q in column.cells)
        justify: Literal["left", "right"] = "left" if words else "right"
        table.add_column(column_head(source, column), justify=justify, no_wrap=True)
    for row in shown_rows(source, columns):
        table.add_row(*row)
    return table


def _print_budget(console: Console, facts: Facts, terminal: Terminal) -> None:
    table = _budget(facts, terminal, bars=True)
    if terminal.width and _needed(console, table) > terminal.width:
        table = _budget(facts, terminal, bars=False)
    _print_wide(console, table)


def _budget(facts: Facts, terminal: Terminal, *, bars: bool) -> RichTable:
    whole = facts.quantities[-1].number
    table = _empty()
    table.add_column("", no_wrap=True)
    table.add_column("GiB", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for quantity in facts.quantities[:-1]:
        part = quantity.number
        bar = _bar(part, whole, terminal.unicode) if bars else ""
        table.add_row(quantity.label, cell(quantity), share(part, whole), bar)
    last = facts.quantities[-1]
    table.add_row(last.label, cell(last), share(whole, whole), "", style="bold")
    return table


def _bar(part: int, whole: int, unicode: bool) -> str:
    eighths = min(8 * _BAR_WIDTH, round(8 * _BAR_WIDTH * part / whole)) if whole else 0
    if not unicode:
        return "#" * round(eighths / 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _print_lines(console: Console, facts: Facts, terminal: Terminal) -> None:
    """Print a figure a line; long texts go on below themselves, numbers stay whole."""
    numbers = [len(with_unit(q)) for q in facts.quantities if not isinstance(q.value, str)]
    table = _empty(headers=False)
    table.add_column(no_wrap=True)
    table.add_column(min_width=max(numbers, default=1), overflow="fold")
    for quantity in facts.quantities:
        table.add_row(quantity.label or quantity.name, with_unit(quantity))
    labels = max((len(q.label or q.name) for q in facts.quantities), default=0)
    least = 2 + labels + 3 + max(numbers, default=1) + 3
    width = min(_needed(console, table), max(least, terminal.width or _WIDEST))
    console.print(Padding(table, (0, 0, 0, 2)), width=width, crop=False)


def _empty(*, headers: bool = True) -> RichTable:
    return RichTable(box=None, show_header=headers, header_style="dim", padding=(0, 3, 0, 0), pad_edge=False)


def _needed(console: Console, table: RichTable) -> int:
    options = console.options.update(max_width=_WIDEST)
    return Measurement.get(console, options, table).maximum + 2


def _print_wide(console: Console, table: RichTable) -> None:
    """Print a table at its own width, whatever the terminal's."""
    console.print(Padding(table, (0, 0, 0, 2)), width=_needed(console, table), crop=False, no_wrap=True)
