"""Named points on two axes."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING

from kvplan.charts import Dot, Dots
from kvplan.report.plots.axes import dress, view
from kvplan.report.plots.curves import draw_limits, limit_labels, limit_names, split
from kvplan.report.plots.labels import name_right
from kvplan.report.plots.pixels import pixels_a_point, write_above
from kvplan.report.plots.placing import Named, name_points
from kvplan.report.plots.room import ROW, Room, right_of_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kvplan.report.plots.theme import Theme

# Radius of a mark in points, for a weight of 0 and of 1.
SMALLEST, LARGEST = 4.0, 13.0
# Names need room between them, whatever stands below the panel.
TALL = 3.9
# Of what the points span: how far the axes go on past them, so that names have room.
MARGIN_SHARE = 0.15


def mark_radius(weight: float) -> float:
    """Return the radius in points of a mark whose area grows with its weight, a share of 1."""
    return sqrt(SMALLEST**2 + (LARGEST**2 - SMALLEST**2) * weight)


def dots_room(panel: Dots) -> Room:
    """Return the room for the names of limits, and for the words above the axes."""
    flat, upright = split(panel.limits)
    heights = [dot.y for dot in panel.dots]
    return Room(
        right=right_of_axes(limit_names(flat, panel.y, heights)),
        above=ROW if upright or panel.best else 0.0,
        tall=TALL,
    )


def draw_dots(axes: Axes, *, panel: Dots, theme: Theme) -> None:
    """Draw points with their names beside them."""
    flat, upright = split(panel.limits)
    heights = [dot.y for dot in panel.dots] + [limit.at for limit in flat]
    places = [dot.x for dot in panel.dots] + [limit.at for limit in upright]
    if panel.equal:
        heights = places = heights + places
    dress(axes, panel.x, places, upright=False)
    dress(axes, panel.y, heights, upright=True)
    axes.set_xlim(*view(places, panel.x.spacing, MARGIN_SHARE))
    axes.set_ylim(*view(heights, panel.y.spacing, MARGIN_SHARE))
    draw_limits(axes, panel.limits, theme)
    colors = [theme.of(dot.hue, index) for index, dot in enumerate(panel.dots)]
    for dot, color in zip(panel.dots, colors, strict=True):
        draw_mark(axes, dot, color, theme)
    name_right(axes, limit_labels(axes, flat, panel.y, heights, theme), theme)
    if panel.best:
        write_above(axes, axes.get_window_extent().x1, panel.best, theme.quiet, ha="right")
    marks = [mark_of(axes, dot, color) for dot, color in zip(panel.dots, colors, strict=True)]
    lines = [_draw_equal(axes, theme)] if panel.equal else []
    if lines:
        marks.insert(0, Named(panel.equal, *_widest_gap(lines[0], marks), 0.0, theme.quiet))
    name_points(axes, marks, theme, lines=lines)


def draw_mark(axes: Axes, dot: Dot, color: str, theme: Theme) -> None:
    """Draw one point as large as its weight."""
    axes.plot(
        [dot.x],
        [dot.y],
        "o",
        markersize=2 * mark_radius(dot.weight),
        color=color,
        markeredgecolor=theme.paper,
        markeredgewidth=0.8,
        alpha=0.9,
        zorder=3,
    )


def mark_of(axes: Axes, dot: Dot, color: str) -> Named:
    """Return a point where it stands on the picture."""
    x, y = axes.transData.transform((dot.x, dot.y))
    return Named(dot.name, float(x), float(y), mark_radius(dot.weight) * pixels_a_point(axes), color)


def _draw_equal(axes: Axes, theme: Theme) -> list[tuple[float, float]]:
    """Draw the line where both axes say the same, all through them; return its ends in pixels."""
    ends = axes.get_xlim()
    axes.plot(ends, ends, color=theme.quiet, linewidth=1.0, zorder=1.5)
    return [(float(x), float(y)) for x, y in axes.transData.transform([(end, end) for end in ends])]


def _widest_gap(line: list[tuple[float, float]], marks: list[Named]) -> tuple[float, float]:
    """Return the point of a line in the middle of where fewest marks are: its name has room there."""
    (left, low), (right, high) = line
    places = sorted([left, *(mark.x for mark in marks), right])
    start, end = max(pairwise(places), key=lambda pair: pair[1] - pair[0])
    x = (start + end) / 2
    return x, low + (high - low) * (x - left) / (right - left)
