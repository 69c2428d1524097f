"""Operators under the roofs of an accelerator, and the way of a step as its batch grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvplan.charts import Axis, Roof, Spacing, UnderRoof
from kvplan.report.plots.axes import dress, number
from kvplan.report.plots.dots import draw_mark, mark_of
from kvplan.report.plots.labels import Label, name_right
from kvplan.report.plots.pixels import pixels_a_point, write
from kvplan.report.plots.placing import FONT_POINTS, Box, Named, name_points
from kvplan.report.plots.room import Room, right_of_axes
from kvplan.report.plots.text import LINE_SPACING, POINTS_PER_INCH, width_inches, with_amount
from kvplan.units import Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kvplan.report.plots.theme import Theme

# How far the axes reach past what stands on them.
SPACE = 3.0
PATH_RADIUS = 2.0
# Where along the slope of the first roof its memory is named.
NAMED_AT = 0.62


def under_roof_room(panel: UnderRoof) -> Room:
    """Return the room for the names of roofs."""
    return Room(right=right_of_axes(map(_roof_name, panel.roofs)))


def draw_under_roof(axes: Axes, *, panel: UnderRoof, theme: Theme) -> None:
    """Draw roofs, the ridge of each, operators by FLOP a byte, and the path of the whole step."""
    _set_axes(axes, panel)
    written = []
    for index, roof in enumerate(panel.roofs):
        # The first is what most is multiplied at: its slope lies on the others'.
        _draw_roof(axes, roof, theme.limit if index == 0 else theme.quiet, 2 - index / 10)
        written.append(_name_ridge(axes, roof, theme))
    written.append(_name_memory(axes, panel.roofs[0], theme))
    tops = [float(axes.transData.transform((roof.ridge, roof.flops_per_s))[1]) for roof in panel.roofs]
    name_right(
        axes,
        [
            Label(_roof_name(roof), top, theme.limit if index == 0 else theme.quiet)
            for index, (roof, top) in enumerate(zip(panel.roofs, tops, strict=True))
        ],
        theme,
    )
    path = axes.transData.transform([(dot.x, dot.y) for dot in panel.path]).tolist() if panel.path else []
    if panel.path:
        x, y = zip(*((dot.x, dot.y) for dot in panel.path), strict=True)
        axes.plot(x, y, color=theme.quiet, linewidth=1.2, marker="o", markersize=3, zorder=2)
    colors = [theme.of(dot.hue, index) for index, dot in enumerate(panel.dots)]
    marks = []
    for dot, color in sorted(zip(panel.dots, colors, strict=True), key=lambda pair: -pair[0].weight):
        draw_mark(axes, dot, color, theme)
        marks.append(mark_of(axes, dot, color))
    named = zip(panel.path, path, strict=True)
    marks += [Named(dot.name, x, y, PATH_RADIUS, theme.quiet) for dot, (x, y) in named]
    end = float(axes.get_window_extent().x1)
    lines = [path, *([*_slope(axes, roof), (end, top)] for roof, top in zip(panel.roofs, tops, strict=True))]
    name_points(axes, marks, theme, written=written, lines=[line for line in lines if line])


def _set_axes(axes: Axes, panel: UnderRoof) -> None:
    everything = [*panel.dots, *panel.path]
    places = [dot.x for dot in everything] + [roof.ridge for roof in panel.roofs]
    first, last = min(places) / SPACE, max(places) * SPACE
    speeds = [dot.y for dot in everything] + [roof.at(first) for roof in panel.roofs]
    low, high = min(speeds) / SPACE, max(roof.flops_per_s for roof in panel.roofs) * SPACE
    intensity = Axis("arithmetic intensity", Unit.FLOPS_PER_BYTE, Spacing.TENFOLD)
    dress(axes, intensity, [first, last], upright=False)
    dress(axes, Axis("speed", Unit.FLOPS_PER_SECOND, Spacing.TENFOLD), [low, high], upright=True)
    axes.set_xlim(first, last)
    axes.set_ylim(low, high)


def _draw_roof(axes: Axes, roof: Roof, color: str, height: float) -> None:
    (first, last), low = axes.get_xlim(), axes.get_ylim()[0]
    axes.plot(
        [first, roof.ridge, last],
        [roof.at(first), roof.flops_per_s, roof.flops_per_s],
        color=color,
        linewidth=1.5,
        zorder=height,
    )
    axes.plot([roof.ridge] * 2, [low, roof.flops_per_s], color=color, linewidth=0.8, linestyle=":")


def _roof_name(roof: Roof) -> str:
    return with_amount(roof.name, f"{number(roof.flops_per_s / 1e12)} TFLOP/s")


def _name_ridge(axes: Axes, roof: Roof, theme: Theme) -> Box:
    """Write a ridge's place beside its foot, along it; return where that is."""
    pixels = pixels_a_point(axes)
    text = f"ridge {number(roof.ridge)} FLOP/B"
    x, y = axes.transData.transform((roof.ridge, axes.get_ylim()[0]))
    long, thick = _size(text, pixels)
    right, foot = float(x) - 2 * pixels, float(y) + 4 * pixels
    box = Box(right - thick, foot, right, foot + long)
    how = {"rotation": 90, "ha": "center", "va": "center", "fontsize": FONT_POINTS}
    write(axes, box.middle, text, theme.quiet, **how)
    return box


def _name_memory(axes: Axes, roof: Roof, theme: Theme) -> Box:
    """Write the memory's speed left of the slope, where nothing can be faster; return where that is."""
    pixels = pixels_a_point(axes)
    text = f"memory: {number(roof.bytes_per_s / 1e9)} GB/s"
    (x0, y0), (x1, y1) = _slope(axes, roof)
    x, y = x0 + (x1 - x0) * NAMED_AT - 6 * pixels, y0 + (y1 - y0) * NAMED_AT
    width, height = _size(text, pixels)
    left = max(x - width, float(axes.get_window_extent().x0) + 2 * pixels)
    write(axes, (left, y), text, theme.readable(theme.limit), va="bottom", fontsize=FONT_POINTS)
    return Box(left, y, left + width, y + height)


def _size(text: str, pixels: float) -> tuple[float, float]:
    """Return how long and how thick a line of words is, in pixels."""
    points = width_inches(text, FONT_POINTS) * POINTS_PER_INCH, FONT_POINTS * LINE_SPACING
    return points[0] * pixels, points[1] * pixels


def _slope(axes: Axes, roof: Roof) -> list[tuple[float, float]]:
    """Return both ends of a roof's slope, in pixels."""
    first, _ = axes.get_xlim()
    ends = axes.transData.transform([(first, roof.at(first)), (roof.ridge, roof.flops_per_s)])
    return [(float(x), float(y)) for x, y in ends]
