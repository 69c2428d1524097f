"""A table's heads and rows as text: units where they say something, rows that only count on as one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from kvplan.report.words import bare, cell, exact, header, row_name, scaled, shown_unit, with_unit
from kvplan.results import Column, Table
from kvplan.units import Unit

Row = tuple[str, ...]


def column_head(table: Table, column: Column) -> str:
    """Return a column's label, with its unit where that says something and is not in its cells.

    A label of several lines stands above its column in as many, and its unit in one more.
    """
    if column is table.columns[0] or not column.cells:
        return column.label
    if column.scale is not None:
        return f"{column.label} ({column.scale.word})" if column.label else column.scale.word
    if table.handy_units:
        return column.label
    if not table.units:
        return header(column.label, column.cells[0].unit)
    unit = _common_unit(column)
    between = "\n" if "\n" in column.label else " "
    return f"{column.label}{between}({unit})" if unit else column.label


def shown_rows(table: Table, columns: Sequence[Column]) -> list[Row]:
    """Return the rows as text, the label first.

    Rows that are equal but for a running number are one row, named by the first and the last of them.
    """
    cells = [_cells(table, column) for column in columns[1:]]
    labels = table.row_labels(row_name)
    rows = [
        (label, *(column[index] for column in cells))
        for index, label in enumerate(labels)
        if index not in table.hidden
    ]
    return _merged(rows) if _counts_on(table) else rows


def _cells(table: Table, column: Column) -> list[str]:
    if column.scale is not None:
        return [scaled(quantity, column.scale) for quantity in column.cells]
    if table.handy_units:
        return [with_unit(quantity) for quantity in column.cells]
    if not table.units:
        return [cell(quantity) for quantity in column.cells]
    return [(bare if _common_unit(column) else exact)(quantity) for quantity in column.cells]


def _common_unit(column: Column) -> str:
    """Return the unit that every cell is shown in; empty where they differ or have none."""
    units = {shown_unit(quantity) for quantity in column.cells if quantity.value is not None}
    return units.pop() if len(units) == 1 else ""


def _counts_on(table: Table) -> bool:
    """Whether the rows are numbered, not named: 0, 1, 2 and so on."""
    numbered = [quantity.value for quantity in table.columns[0].cells]
    unnamed = not table.labels and all(q.unit is Unit.NONE for q in table.columns[0].cells)
    return unnamed and len(numbered) > 1 and numbered == list(range(len(numbered)))


def _merged(rows: Sequence[Row]) -> list[Row]:
    merged = []
    for rest, equal in groupby(rows, key=lambda row: row[1:]):
        labels = [row[0] for row in equal]
        merged.append(("-".join(dict.fromkeys((labels[0], labels[-1]))), *rest))
    return merged
