"""Curves over one axis, named where they end, under the limits they meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kvplan.charts import Axis, Curves, Limit, Line, Spacing
from kvplan.report.plots.axes import amount, dress, view
from kvplan.report.plots.labels import Label, name_above, name_right
from kvplan.report.plots.room import ROW, Room, right_of_axes
from kvplan.report.plots.text import with_amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kvplan.report.plots.theme import Theme

BROKEN = (0, (5, 3))
MARGIN_SHARE = 0.05


def curves_room(panel: Curves) -> Room:
    """Return the room for names right of the curves, and above limits that stand upright."""
    flat, upright = split(panel.limits)
    names = [line.name for line in panel.lines] + limit_names(flat, panel.y, _heights(panel))
    return Room(right=right_of_axes(names), above=ROW if upright or not panel.lines else 0.0)


def draw_curves(axes: Axes, *, panel: Curves, theme: Theme) -> None:
    """Draw curves on axes that are as wide as the panel."""
    flat, upright = split(panel.limits)
    heights = _heights(panel)
    places = [place for line in panel.lines for place in line.x] + [limit.at for limit in upright]
    dress(axes, panel.x, places, upright=False)
    dress(axes, panel.y, heights, upright=True)
    for index, line in enumerate(panel.lines):
        # The first lies on top: it is what the others are compared with.
        _draw_line(axes, line, theme.of(line.hue, index), 2.5 - index / 1000)
    axes.set_xlim(*_ends(places or [1.0], panel.x.spacing))
    low, high = view(heights or [1.0], panel.y.spacing, MARGIN_SHARE)
    axes.set_ylim(0.0 if panel.y.spacing is Spacing.EVEN else low, high)
    if panel.shaded and panel.lines:
        _shade(axes, panel, theme)
    draw_limits(axes, panel.limits, theme)
    if not panel.lines:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, panel.empty, transform=axes.transAxes, ha="center", va="center", color=theme.ink)
    names = [_named(axes, line, theme.of(line.hue, index)) for index, line in enumerate(panel.lines)]
    name_right(axes, names + limit_labels(axes, flat, panel.y, heights, theme), theme)


def split(limits: Sequence[Limit]) -> tuple[list[Limit], list[Limit]]:
    """Return the limits that lie, and those that stand upright."""
    return [one for one in limits if not one.upright], [one for one in limits if one.upright]


def limit_names(limits: Iterable[Limit], axis: Axis, drawn: Sequence[float]) -> list[str]:
    """Return what is written beside limits that lie: their names and heights."""
    return [with_amount(limit.name, amount(limit.at, axis, max([*drawn, limit.at]))) for limit in limits]


def limit_labels(
    axes: Axes, limits: Sequence[Limit], axis: Axis, drawn: Sequence[float], theme: Theme
) -> list[Label]:
    """Return the labels of limits that lie."""
    names = limit_names(limits, axis, drawn)
    return [
        Label(name, pixels_up(axes, limit.at), theme.limit) for name, limit in zip(names, limits, strict=True)
    ]


def draw_limits(axes: Axes, limits: Sequence[Limit], theme: Theme) -> None:
    """Draw limits as broken lines; those that stand upright are named above the axes."""
    flat, upright = split(limits)
    for limit in flat:
        axes.axhline(limit.at, color=theme.limit, linewidth=1.1, linestyle=BROKEN)
    for limit in upright:
        axes.axvline(limit.at, color=theme.limit, linewidth=1.1, linestyle=BROKEN)
    low = axes.get_ylim()[0]
    tops = [float(axes.transData.transform((limit.at, low))[0]) for limit in upright]
    name_above(
        axes, list(zip((limit.name for limit in upright), tops, strict=True)), theme.readable(theme.limit)
    )


def pixels_up(axes: Axes, height: float) -> float:
    """Return a height on the picture, in pixels; the foot of the axes where they do not reach so low."""
    shown = max(height, axes.get_ylim()[0])
    return float(axes.transData.transform((axes.get_xlim()[0], shown))[1])


def _heights(panel: Curves) -> list[float]:
    return [height for line in panel.lines for height in line.y] + [
        limit.at for limit in split(panel.limits)[0]
    ]


def _ends(places: Sequence[float], spacing: Spacing) -> tuple[float, float]:
    """Return the first and last place, or some way around a single one."""
    if min(places) < max(places):
        return min(places), max(places)
    return view(places, spacing, MARGIN_SHARE)


def _draw_line(axes: Axes, line: Line, color: str, height: float) -> None:
    if line.measured or len(line.x) == 1:
        axes.plot(line.x, line.y, "o", color=color, markersize=4, zorder=height)
    elif line.stepped:
        axes.step(line.x, line.y, where="post", color=color, linewidth=1.8, zorder=height)
    else:
        axes.plot(line.x, line.y, color=color, linewidth=1.8, solid_joinstyle="round", zorder=height)


def _shade(axes: Axes, panel: Curves, theme: Theme) -> None:
    """Fill what lies below the first curve, and say what it is where that is high enough for a word."""
    first = panel.lines[0]
    color = theme.of(first.hue, 0)
    axes.fill_between(
        first.x, first.y, color=color, alpha=0.12, linewidth=0, step="post" if first.stepped else None
    )
    axes.text(
        0.03,
        0.04,
        panel.shaded,
        transform=axes.transAxes,
        color=theme.readable(color),
        bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 1.5, "alpha": 0.6},
    )


def _named(axes: Axes, line: Line, color: str) -> Label:
    x, _ = axes.transData.transform((line.x[-1], line.y[-1]))
    return Label(line.name, pixels_up(axes, line.y[-1]), color, float(x))
