"""A section of a report as rows of text, before a format is chosen."""

from __future__ import annotations

from dataclasses import dataclass

from kvplan.report.rows import column_head, shown_rows
from kvplan.report.words import cell, exact, sentence, share
from kvplan.results import Facts, Quantity, Shown, Table


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows below heads; ``words`` says of every column whether it holds words, not figures."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[bool, ...]


def grid(section: Facts | Table) -> Grid | str:
    """Return the rows of a section, or the sentence it is."""
    if isinstance(section, Table):
        columns = section.shown_columns()
        heads = tuple(column_head(section, column) for column in columns)
        words = (True, *(_are_words(column.cells) for column in columns[1:]))
        return Grid(heads, tuple(shown_rows(section, columns)), words[: len(heads)])
    if section.shown is Shown.BUDGET:
        whole = section.quantities[-1].number
        parts = tuple((q.label, cell(q), share(q.number, whole)) for q in section.quantities)
        return Grid(("", "GiB", "share"), parts, (True, False, False))
    if section.shown is Shown.SENTENCE:
        return sentence(section.quantities)
    return Grid(
        ("figure", "value"), tuple((q.label or q.name, exact(q)) for q in section.quantities), (True, False)
    )


def _are_words(cells: tuple[Quantity, ...]) -> bool:
    """Whether a column holds words: a text, and nothing but texts and cells without an answer."""
    values = [quantity.value for quantity in cells if quantity.value is not None]
    return bool(values) and all(isinstance(value, str) for value in values)
