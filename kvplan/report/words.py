"""Figures as people read them."""

from __future__ import annotations

from kvplan.results import Quantity, Scale
from kvplan.units import Unit, gib, short_count

# What a unit is shown in, where that is not the base unit.
SHOWN_UNITS = {
    Unit.BYTES: "GiB",
    Unit.SECONDS: "ms",
    Unit.BYTES_PER_SECOND: "GB/s",
    Unit.FLOPS_PER_SECOND: "GFLOP/s",
    Unit.SHARE: "%",
    Unit.CHANGE: "%",
}
_SCALES = {Unit.SECONDS: 1e3, Unit.BYTES_PER_SECOND: 1e-9, Unit.FLOPS_PER_SECOND: 1e-9, Unit.SHARE: 100}
_MEASURED = {*_SCALES, Unit.TOKENS_PER_SECOND, Unit.FLOPS_PER_BYTE, Unit.USD, Unit.NATS_PER_TOKEN}


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
        case float() if quantity.unit is Unit.SHARE and 0 < value < 1e-3:
            return "<0.1"
        case float() if quantity.unit is Unit.TIMES:
            return f"x{value:.2f}"
        case float() if quantity.unit is Unit.CHANGE:
            return _signed_percent(value)
        case float() if quantity.unit is Unit.PERPLEXITY:
            return f"{value:,.3f}"
        case float() if quantity.unit in _MEASURED:
            return _measured(value * _SCALES.get(quantity.unit, 1.0))
        case float() if 0 < abs(value) < 1e-3:
            return f"{value:.2g}"
        case float():
            return f"{value:,.12g}"
    return value


def _signed_percent(value: float) -> str:
    """Return a change in percent with its sign, to a hundredth, or whole where it is more than double."""
    digits = 2 if abs(value) < 1 else 0
    return f"{round(100 * value, digits) + 0.0:+,.{digits}f}" if value else "0"


def _measured(value: float) -> str:
    """Return a measured number to three digits, or whole where it has more before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = f"{value:.3g}"
    return digits if "e" not in digits else f"{value:.2e}"


def scaled(quantity: Quantity, scale: Scale) -> str:
    """Return a figure in a handy unit, three digits or three decimals, and nothing as a dash."""
    if not quantity.value:
        return "-"
    value = quantity.amount / scale.base_units
    if value < 1e-3:
        return "<0.001"
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def row_name(quantity: Quantity) -> str:
    """Return the figure that names a table row: contexts the way they are typed."""
    if quantity.unit is Unit.TOKENS and isinstance(quantity.value, int):
        return short_count(quantity.value)
    return cell(quantity)


def exact(quantity: Quantity) -> str:
    """Return a count in its base unit, or a measured number, with the unit behind it."""
    return f"{bare(quantity)} {shown_unit(quantity)}".rstrip()


def bare(quantity: Quantity) -> str:
    """Return what :func:`exact` does without the unit."""
    value = quantity.value
    return f"{value:,}" if quantity.unit is Unit.BYTES and isinstance(value, int) else cell(quantity)


def shown_unit(quantity: Quantity) -> str:
    """Return the unit that :func:`exact` writes: a count's base unit, a handy one of what is measured."""
    unit = quantity.unit
    if quantity.value is None:
        return ""
    return unit.value if isinstance(quantity.value, int) else SHOWN_UNITS.get(unit, unit.value)


def with_unit(quantity: Quantity) -> str:
    """Return a figure for a line of its own: bytes in GiB, everything else in its base unit."""
    unit = SHOWN_UNITS.get(quantity.unit) if quantity.value is not None else None
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
