"""Figures as people read them."""

from __future__ import annotations

from kvplan.results import Quantity
from kvplan.units import Unit, gib, short_count

# What a unit is shown in, where that is not the base unit.
SHOWN_UNITS = {Unit.BYTES: "GiB"}


def cell(quantity: Quantity) -> str:
    """Return a figure for a table cell: bytes in GiB, counts with thousands separators, never cut."""
    value = quantity.value
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int() if quantity.unit is Unit.BYTES:
            return gib(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.12g}"
    return value


def row_name(quantity: Quantity) -> str:
    """Return the figure that names a table row: contexts the way they are typed."""
    if quantity.unit is Unit.TOKENS and isinstance(quantity.value, int):
        return short_count(quantity.value)
    return cell(quantity)


def exact(quantity: Quantity) -> str:
    """Return a figure in its base unit with the unit behind it."""
    value = quantity.value
    if quantity.unit is Unit.BYTES and isinstance(value, int):
        return f"{value:,} B"
    return f"{cell(quantity)} {quantity.unit.value}".rstrip()


def with_unit(quantity: Quantity) -> str:
    """Return a figure for a line of its own: bytes in GiB, everything else in its base unit."""
    unit = SHOWN_UNITS.get(quantity.unit)
    return f"{cell(quantity)} {unit}" if unit else exact(quantity)


def header(label: str, unit: Unit) -> str:
    """Return a column's header with the unit its cells are shown in, where that says something."""
    return f"{label} ({SHOWN_UNITS[unit]})" if unit in SHOWN_UNITS else label


def share(part: int, whole: int) -> str:
    """Return a share in percent, to a tenth; a part that is there is never called nothing."""
    percent = 100 * part / whole if whole else 0.0
    return "<0.1%" if part and percent < 0.05 else f"{percent:.1f}%"


def sentence(quantities: tuple[Quantity, ...]) -> str:
    """Return figures joined on one line, exact; those without a label or a value are left out."""
    said = [f"{q.value:,} {q.label}" for q in quantities if q.label and isinstance(q.value, int) and q.value]
    return ", ".join(said)
