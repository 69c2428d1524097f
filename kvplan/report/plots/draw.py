"""A chart as a picture: the sentence on top, what it is of, its panels below each other, and notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

from kvplan.charts import Bars, Chart, Curves, Dots, HeatMap, Panel, Stack, UnderRoof
from kvplan.report.plots.room import MARGIN, Room
from kvplan.report.plots.text import (
    DPI,
    FONT,
    NOTE_POINTS,
    TEXT_POINTS,
    TITLE_POINTS,
    balanced,
    height_inches,
    parted,
)
from kvplan.report.plots.theme import LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pictures are shown 800 pixels wide or so: with more inches, words would be too small to read there.
WIDTH = 8.0
# How high the axes of a single panel are, and of each where there are several.
TALL_ALONE, TALL_SHARED = 4.1, 2.6
# For ticks and the label of an axis, below a panel.
BELOW = 0.62
# Between the words on top and the panel below them.
_GAP = 0.14

Painter: TypeAlias = Callable[["Axes"], None]


def draw(chart: Chart, theme: Theme = LIGHT) -> Figure:
    """Return the picture of a chart, ready to be saved."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_settings(theme)):
        inside = WIDTH - 2 * MARGIN
        titles = balanced(chart.title, inside, TITLE_POINTS, bold=True)
        subjects = parted(chart.subject.split(" · "), " · ", inside, TEXT_POINTS)
        notes = [line for note in chart.notes for line in balanced(note, inside, NOTE_POINTS)]
        painted = [_painted(panel, theme) for panel in chart.panels]
        tall = TALL_ALONE if len(painted) == 1 else TALL_SHARED
        heights = [room.above + (room.tall or tall) + BELOW for room, _ in painted]
        words = height_inches(len(titles), TITLE_POINTS) + height_inches(len(subjects), TEXT_POINTS)
        under = MARGIN / 2 + height_inches(len(notes), NOTE_POINTS)
        height = MARGIN + words + _GAP + sum(heights) + under
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=theme.paper)
        FigureCanvasAgg(figure)
        top = _write(figure, titles, height - MARGIN, TITLE_POINTS, theme.ink, bold=True)
        top = _write(figure, subjects, top, TEXT_POINTS, theme.quiet) - _GAP
        _write(figure, notes, under, NOTE_POINTS, theme.quiet)
        left, right = (max(getattr(room, side) for room, _ in painted) for side in ("left", "right"))
        for (room, paint), taken in zip(painted, heights, strict=True):
            foot = top - taken + BELOW
            across = (WIDTH - left - right) / WIDTH
            axes = figure.add_axes((left / WIDTH, foot / height, across, (room.tall or tall) / height))
            _dress(axes, theme)
            paint(axes)
            top -= taken
    return figure


def _painted(panel: Panel, theme: Theme) -> tuple[Room, Painter]:
    """Return the room a panel takes, and what draws it; only what is drawn is imported."""
    match panel:
        case Curves():
            from kvplan.report.plots.curves import curves_room, draw_curves

            return curves_room(panel), partial(draw_curves, panel=panel, theme=theme)
        case Stack():
            from kvplan.report.plots.stack import draw_stack, stack_room

            return stack_room(panel), partial(draw_stack, panel=panel, theme=theme)
        case Bars():
            from kvplan.report.plots.bars import bars_room, draw_bars

            return bars_room(panel), partial(draw_bars, panel=panel, theme=theme)
        case Dots():
            from kvplan.report.plots.dots import dots_room, draw_dots

            return dots_room(panel), partial(draw_dots, panel=panel, theme=theme)
        case UnderRoof():
            from kvplan.report.plots.under_roof import draw_under_roof, under_roof_room

            return under_roof_room(panel), partial(draw_under_roof, panel=panel, theme=theme)
        case HeatMap():
            from kvplan.report.plots.heat_map import draw_heat_map, heat_map_room

            return heat_map_room(panel), partial(draw_heat_map, panel=panel, theme=theme)
        case _ as never:
            assert_never(never)


def _dress(axes: Axes, theme: Theme) -> None:
    """Set what all panels share; ticks made later, when the picture is saved, look the same."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(color=theme.quiet, labelcolor=theme.quiet, labelsize=TEXT_POINTS, labelfontfamily=FONT)


def _write(
    figure: Figure, lines: Sequence[str], top: float, points: float, color: str, *, bold: bool = False
) -> float:
    """Write lines below each other from ``top`` inches above the foot; return where they end."""
    width, height = figure.get_size_inches()
    for line in lines:
        figure.text(
            MARGIN / width,
            top / height,
            line,
            fontsize=points,
            color=color,
            fontweight="bold" if bold else "normal",
            va="top",
        )
        top -= height_inches(1, points)
    return top


def _settings(theme: Theme) -> dict[Any, Any]:
    """Return matplotlib's own defaults where a user's differ, a font it ships and the theme's colours.

    The name of the backend is left as it is: to read or change it, matplotlib would import pyplot.
    """
    from matplotlib import rcParams, rcParamsDefault

    defaults = {name: value for name, value in rcParamsDefault.items() if name != "backend"}
    return {name: value for name, value in defaults.items() if rcParams[name] != value} | {
        "font.family": FONT,
        "font.size": TEXT_POINTS,
        "text.color": theme.ink,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.quiet,
        "axes.labelcolor": theme.ink,
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "hatch.color": theme.quiet,
        "hatch.linewidth": 0.5,
    }
