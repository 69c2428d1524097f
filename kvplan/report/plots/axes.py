"""Axes of a panel: spacing, ticks as people type them, and the unit behind the label or the number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil, floor, log2, log10
from typing import TYPE_CHECKING

from kvplan.charts import Axis, Spacing
from kvplan.report.plots.text import POINTS_PER_INCH, TEXT_POINTS, width_inches
from kvplan.units import GIB, KIB, MIB, Unit, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The unit an axis is marked in, and how many base units it is; the first whose size the axis reaches.
_MARKED_IN = {
    Unit.BYTES: ((1 << 40, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"), (1, "B")),
    Unit.SECONDS: ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    Unit.FLOPS_PER_SECOND: ((1e12, "TFLOP/s"), (1e9, "GFLOP/s")),
    Unit.BYTES_PER_SECOND: ((1e12, "TB/s"), (1e9, "GB/s")),
    Unit.FLOPS: ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")),
    Unit.SHARE: ((0.01, "%"),),
    Unit.TIMES: ((1.0, "times"),),
}
# Marks in GiB up to here read better than marks in TiB.
_LONG_GIB = 1 << 44
_MOST_TICKS = 9
_FEWEST_TICKS = 2
# The ends of a spaced axis are at least so many times past what is drawn on it.
NEAREST = 1.6
# A tick every so many inches, at most; between two numbers there is at least so much of their width.
_UPRIGHT_INCHES = 0.3
_BETWEEN = 1.35


def marked_in(unit: Unit, largest: float) -> tuple[float, str]:
    """Return the size and the word of the unit an axis that reaches ``largest`` is marked in."""
    if unit is Unit.BYTES and GIB <= largest < _LONG_GIB:
        return GIB, "GiB"
    choices = _MARKED_IN.get(unit, ((1.0, unit.value),))
    return next((choice for choice in choices if largest >= choice[0]), choices[-1])


def titled(axis: Axis, word: str) -> str:
    """Return an axis's label with the unit behind it, where the label does not say it already."""
    return axis.label if not word or word in axis.label else f"{axis.label} ({word})"


def number(value: float) -> str:
    """Return a number for a tick or a label: three digits, thousands separated, millions as ``M``."""
    if value == 0:
        return "0"
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:,.3g}{suffix}" if abs(value) < 1000 * size else f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def amount(value: float, axis: Axis, largest: float) -> str:
    """Return a figure in the unit its axis is marked in, with the unit."""
    size, word = marked_in(axis.unit, largest)
    return f"{number(value / size)} {word}".strip()


def dress(axes: Axes, axis: Axis, values: Iterable[float], *, upright: bool) -> None:
    """Set the spacing, ticks and label of one axis; ``values`` are all that is drawn on it."""
    shown = [value for value in values if value > 0] or [1.0]
    size, word = marked_in(axis.unit, max(shown))
    named = _tick_names(axis, size)
    own_units = axis.unit is Unit.BYTES and axis.spacing is Spacing.DOUBLING
    label = axis.label if own_units else titled(axis, word)
    (axes.set_ylabel if upright else axes.set_xlabel)(label)
    if axis.spacing is Spacing.EVEN:
        _mark_evenly(axes, size, named, upright=upright)
        return
    doubling = axis.spacing is Spacing.DOUBLING
    (axes.set_yscale if upright else axes.set_xscale)("log", base=2 if doubling else 10)
    least, largest = min(shown), max(shown)
    marks = doublings(least, largest) if doubling else tenfolds(least / size, largest / size)
    marks = marks if doubling else [mark * size for mark in marks]
    if sum(least <= mark <= largest for mark in marks) < _FEWEST_TICKS:
        # Too near each other for that spacing: round numbers between them, and some way around.
        marks = _round_between(least / NEAREST, largest * NEAREST, size)
    _mark_at(axes, marks, named, upright=upright)


def _round_between(least: float, largest: float, size: float) -> list[float]:
    """Return a few numbers that are round in a unit of this size."""
    from matplotlib.ticker import MaxNLocator

    marks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(least / size, largest / size)
    return [float(mark) * size for mark in marks if least <= mark * size <= largest]


def _tick_names(axis: Axis, size: float) -> Callable[[float], str]:
    """Return how the numbers of an axis are written: counts as typed, bytes that double each in its unit."""
    if axis.spacing is Spacing.DOUBLING and axis.unit is Unit.BYTES:
        return lambda at: amount(at, axis, at)
    if axis.unit in (Unit.TOKENS, Unit.REQUESTS):
        return lambda at: short_count(round(at)) if at >= 1 and at == round(at) else number(at)
    return lambda at: number(at / size)


def _mark_at(axes: Axes, places: Sequence[float], named: Callable[[float], str], *, upright: bool) -> None:
    """Mark these places, or every second, third ... as far as their names have room, the last among them."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    along = axes.yaxis if upright else axes.xaxis
    # Counted from the top, so that the largest, most often a model's limit, is always marked.
    stride = ceil(len(places) / most_ticks(axes, [named(place) for place in places], upright=upright))
    along.set_major_locator(FixedLocator(sorted(places[::-1][::stride])))
    along.set_minor_locator(NullLocator())
    along.set_major_formatter(FuncFormatter(lambda at, _: named(at)))


def _mark_evenly(axes: Axes, size: float, named: Callable[[float], str], *, upright: bool) -> None:
    """Mark places that are round in the unit the axis is marked in."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    class RoundMarks(MaxNLocator):
        """Ticks that are round in that unit."""

        def tick_values(self, vmin: float, vmax: float) -> list[float]:
            return [mark * size for mark in super().tick_values(vmin / size, vmax / size)]

    along = axes.yaxis if upright else axes.xaxis
    most = min(6, most_ticks(axes, ["10,000"], upright=upright))
    along.set_major_locator(RoundMarks(most, steps=[1, 2, 2.5, 5, 10]))
    along.set_major_formatter(FuncFormatter(lambda at, _: named(at)))


def most_ticks(axes: Axes, names: Sequence[str], *, upright: bool) -> int:
    """Return how many ticks have room along an axis, two at least."""
    figure = axes.get_figure()
    assert figure is not None
    box = axes.get_window_extent()
    long = (box.height if upright else box.width) / figure.dpi
    widest = max(width_inches(name, TEXT_POINTS) for name in names)
    each = _UPRIGHT_INCHES if upright else widest * _BETWEEN + TEXT_POINTS / 2 / POINTS_PER_INCH
    return max(2, min(_MOST_TICKS, int(long / each)))


def doublings(least: float, largest: float) -> list[float]:
    """Return the powers of two from ``least`` to ``largest``, with the next one below."""
    low, high = floor(log2(least) + 1e-9), floor(log2(largest) + 1e-9)
    return [2.0**power for power in range(low, high + 1)]


def tenfolds(least: float, largest: float) -> list[float]:
    """Return powers of ten around a range, with twos and fives between where it is less than two of them."""
    low, high = floor(log10(least)), ceil(log10(largest))
    steps = (1, 2, 5) if log10(largest / least) < 2 else (1,)
    return [step * 10.0**power for power in range(low, high + 1) for step in steps]


def view(values: Sequence[float], spacing: Spacing, margin: float) -> tuple[float, float]:
    """Return the ends of an axis: past the values by a share of what they span, and never too near."""
    least, largest = min(values), max(values)
    if spacing is Spacing.EVEN:
        past = max((largest - least) * margin, 0.05 * abs(largest), 1e-12)
        return least - past, largest + past
    factor = max((largest / least) ** margin, NEAREST)
    return least / factor, largest * factor
