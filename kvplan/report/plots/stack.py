"""Bands on top of each other, named where they end."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from kvplan.charts import Band, Stack
from kvplan.report.plots.axes import amount, dress
from kvplan.report.plots.curves import draw_limits, limit_labels, limit_names, pixels_up, split
from kvplan.report.plots.labels import Label, name_right
from kvplan.report.plots.room import ROW, Room, right_of_axes
from kvplan.report.plots.text import with_amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kvplan.report.plots.theme import Theme

# Of the last whole: a band thinner than this is drawn, and not named.
THINNEST_NAMED = 0.004
HEADROOM = 1.05


def stack_room(panel: Stack) -> Room:
    """Return the room for the names of bands and limits."""
    flat, upright = split(panel.limits)
    largest = _largest(panel)
    names = [_said(panel, band, largest) for band in panel.bands]
    return Room(
        right=right_of_axes(names + limit_names(flat, panel.y, [largest])), above=ROW if upright else 0.0
    )


def draw_stack(axes: Axes, *, panel: Stack, theme: Theme) -> None:
    """Draw bands along an axis, from what carries the rest upwards."""
    tops = list(accumulate((band.heights for band in panel.bands), _sums))
    flat, _ = split(panel.limits)
    largest = _largest(panel)
    dress(axes, panel.x, panel.at, upright=False)
    dress(axes, panel.y, [largest], upright=True)
    axes.set_xlim(panel.at[0], panel.at[-1])
    axes.set_ylim(0, largest * HEADROOM)
    labels, below = [], tuple(0.0 for _ in panel.at)
    for band, top in zip(panel.bands, tops, strict=True):
        color = theme.hues[band.hue]
        axes.fill_between(panel.at, below, top, color=color, linewidth=0.6, edgecolor=theme.paper)
        if band.heights[-1] > THINNEST_NAMED * tops[-1][-1]:
            middle = pixels_up(axes, (below[-1] + top[-1]) / 2)
            labels.append(Label(_said(panel, band, largest), middle, color))
        below = top
    draw_limits(axes, panel.limits, theme)
    name_right(axes, labels + limit_labels(axes, flat, panel.y, [largest], theme), theme)


def _said(panel: Stack, band: Band, largest: float) -> str:
    """Return a band's name and its height at the far end."""
    return with_amount(band.name, amount(band.heights[-1], panel.y, largest))


def _largest(panel: Stack) -> float:
    wholes: list[float] = [
        sum(heights) for heights in zip(*(band.heights for band in panel.bands), strict=True)
    ]
    return max([*wholes, *(limit.at for limit in split(panel.limits)[0])])


def _sums(below: tuple[float, ...], band: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(below, band, strict=True))
