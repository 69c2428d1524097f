"""A figure over two axes by colour, hatched where it is not to be had, with lines of equal level."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2
from typing import TYPE_CHECKING

from kvplan.charts import Axis, HeatMap, Spacing
from kvplan.report.plots.axes import amount, marked_in, most_ticks, number, tenfolds, titled
from kvplan.report.plots.pixels import pixels_a_point, write, write_above
from kvplan.report.plots.placing import FONT_POINTS, Box, frame_of
from kvplan.report.plots.room import ROW, Room
from kvplan.report.plots.text import FONT, LINE_SPACING, POINTS_PER_INCH, TEXT_POINTS, width_inches
from kvplan.units import Unit, short_count

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.path import Path

    from kvplan.report.plots.theme import Theme

# Right of the cells: the bar of colours, its numbers and its label.
BESIDE_INCHES = 1.15
BAR_GAP, BAR_INCHES = 0.14, 0.14
LEVEL_POINTS = 1.1
LEVEL_BOX = {"facecolor": "#000000", "alpha": 0.55, "edgecolor": "none", "pad": 1.0}


def heat_map_room(panel: HeatMap) -> Room:
    """Return the room for the bar of colours, and for what hatching means."""
    return Room(right=BESIDE_INCHES, above=ROW if panel.masked and _masked(panel) else 0.0)


def draw_heat_map(axes: Axes, *, panel: HeatMap, theme: Theme) -> None:
    """Draw the cells side by side, each as large as the next, whatever lies between their places."""
    axes.grid(visible=False)
    axes.set_xlim(-0.5, len(panel.columns) - 0.5)
    axes.set_ylim(-0.5, len(panel.rows) - 0.5)
    _name_ticks(axes, panel.x, panel.columns, upright=False)
    _name_ticks(axes, panel.y, panel.rows, upright=True)
    if panel.masked and _masked(panel):
        _hatch(axes, panel, theme)
    if any(cell is not None for row in panel.cells for cell in row):
        _draw_bar(axes, panel, _draw_cells(axes, panel, theme), theme)
    if panel.level is not None and panel.levels:
        _draw_levels(axes, panel, panel.level)


def _masked(panel: HeatMap) -> bool:
    return any(cell is None for row in panel.cells for cell in row)


def _hatch(axes: Axes, panel: HeatMap, theme: Theme) -> None:
    """Hatch the ground behind the cells, and say over the axes what that means."""
    from matplotlib.patches import Rectangle

    size = (len(panel.columns), len(panel.rows))
    axes.add_patch(
        Rectangle(
            (-0.5, -0.5),
            *size,
            facecolor=theme.paper,
            edgecolor=theme.quiet,
            hatch="////",
            linewidth=0,
            zorder=0.5,
        )
    )
    write_above(axes, axes.get_window_extent().x1, f"hatched: {panel.masked}", theme.quiet, ha="right")


def _draw_cells(axes: Axes, panel: HeatMap, theme: Theme) -> QuadMesh:
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    cells = np.array([[np.nan if cell is None else cell for cell in row] for row in panel.cells], dtype=float)
    least, largest = float(np.nanmin(cells)), float(np.nanmax(cells))
    size, _ = marked_in(panel.value.unit, largest)
    even = panel.value.spacing is Spacing.EVEN or least <= 0
    norm = Normalize(0, largest / size) if even else LogNorm(least / size, largest / size)
    edges = np.arange(len(panel.columns) + 1) - 0.5, np.arange(len(panel.rows) + 1) - 0.5
    return axes.pcolormesh(*edges, np.ma.masked_invalid(cells / size), cmap=theme.map, norm=norm)


def _draw_bar(axes: Axes, panel: HeatMap, drawn: QuadMesh, theme: Theme) -> None:
    """Draw the bar that says which colour is which figure."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure = axes.get_figure(root=True)
    assert figure is not None
    shown = [cell for row in panel.cells for cell in row if cell is not None]
    size, word = marked_in(panel.value.unit, max(shown))
    box, wide = axes.get_position(), figure.get_size_inches()[0]
    beside = figure.add_axes((box.x1 + BAR_GAP / wide, box.y0, BAR_INCHES / wide, box.height))
    bar = figure.colorbar(drawn, cax=beside)
    bar.outline.set_visible(False)
    beside.grid(visible=False)
    beside.tick_params(
        color=theme.quiet, labelcolor=theme.quiet, labelsize=TEXT_POINTS, which="both", labelfontfamily=FONT
    )
    beside.yaxis.set_minor_locator(NullLocator())
    if isinstance(drawn.norm, LogNorm):
        beside.yaxis.set_major_locator(FixedLocator(tenfolds(min(shown) / size, max(shown) / size)))
    beside.yaxis.set_major_formatter(FuncFormatter(lambda at, _: number(at)))
    bar.set_label(titled(panel.value, word))


def _draw_levels(axes: Axes, panel: HeatMap, level: Axis) -> None:
    """Draw lines through cells of equal level, within the cells that have a value, each named once."""
    import numpy as np

    there = np.array([[cell is not None for cell in row] for row in panel.cells])
    if min(there.shape) < 2:
        return
    across, up = np.arange(len(panel.columns)), np.arange(len(panel.rows))
    heights = np.array(panel.heights, dtype=float)
    lines = axes.contour(across, up, heights, levels=sorted(panel.levels), colors="white")
    lines.set_clip_path(_outline(there), axes.transData)
    taken: list[Box] = []
    widths = []
    for at, path in zip(lines.levels, lines.get_paths(), strict=True):
        text = amount(float(at), level, max(panel.levels))
        box = _free_place(axes, text, _within(np.asarray(path.vertices, dtype=float), there), taken)
        if box is not None:
            taken.append(box)
            how = {"ha": "center", "va": "center", "fontsize": FONT_POINTS, "bbox": LEVEL_BOX}
            write(axes, box.middle, text, "#ffffff", **how)
        # A line that has no room for its name is not drawn.
        widths.append(0.0 if box is None else LEVEL_POINTS)
    lines.set(linewidths=widths)


def _outline(there: npt.NDArray[np.bool_]) -> Path:
    """Return the squares of the cells that have a value."""
    import numpy as np
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D

    square = Path.unit_rectangle()
    places = (Affine2D().translate(x - 0.5, y - 0.5) for y, x in np.argwhere(there))
    return Path.make_compound_path(*(square.transformed(place) for place in places))


def _within(vertices: npt.NDArray[np.float64], there: npt.NDArray[np.bool_]) -> Sequence[tuple[float, float]]:
    """Return the points of a line that are in cells with a value, those in the middle first."""
    inside = [(float(x), float(y)) for x, y in vertices if there[round(y), round(x)]]
    order = sorted(range(len(inside)), key=lambda index: abs(index - len(inside) / 2))
    return [inside[index] for index in order]


def _free_place(
    axes: Axes, text: str, points: Sequence[tuple[float, float]], taken: Sequence[Box]
) -> Box | None:
    """Return the first place on a line where its name is within the axes and off the other names."""
    pixels, frame = pixels_a_point(axes), frame_of(axes)
    half_width = (width_inches(text, FONT_POINTS) * POINTS_PER_INCH / 2 + 2) * pixels
    half_height = (FONT_POINTS * LINE_SPACING / 2 + 1) * pixels
    for point in points:
        x, y = (float(place) for place in axes.transData.transform(point))
        box = Box(x - half_width, y - half_height, x + half_width, y + half_height)
        if box.outside(frame) < 1 and not any(box.overlap(other) for other in taken):
            return box
    return None


def _name_ticks(axes: Axes, axis: Axis, places: Sequence[float], *, upright: bool) -> None:
    typed = axis.unit in (Unit.TOKENS, Unit.REQUESTS)
    names = [short_count(round(place)) if typed else number(place) for place in places]
    stride = ceil(len(places) / most_ticks(axes, names, upright=upright))
    marked = [len(places) - 1]
    # Counted from the far end, so that the largest is always named; rather one that is a power of two.
    for index in range(len(places) - 1 - stride, -1, -1):
        round_or_late = log2(places[index]).is_integer() or marked[-1] - index > stride
        if marked[-1] - index >= stride and round_or_late:
            marked.append(index)
    (axes.set_yticks if upright else axes.set_xticks)(marked, [names[index] for index in marked])
    (axes.set_ylabel if upright else axes.set_xlabel)(titled(axis, axis.unit.value))
