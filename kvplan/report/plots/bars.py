"""Bars made of parts, one below the other, against their limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvplan.charts import Bar, Bars, Hue
from kvplan.report.plots.axes import amount, dress, marked_in
from kvplan.report.plots.curves import BROKEN
from kvplan.report.plots.room import MARGIN, ROW, Room, right_of_axes
from kvplan.report.plots.text import (
    NOTE_POINTS,
    TEXT_POINTS,
    folded,
    height_inches,
    widest_inches,
    width_inches,
    with_amount,
)
from kvplan.report.plots.theme import ink_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kvplan.report.plots.theme import Theme

# Of the distance between two bars.
THICKNESS = 0.62
# From one bar to the next, and what one bar by itself takes.
BAR_INCHES, LEAST_INCHES = 0.5, 0.8
FIGURE_POINTS = NOTE_POINTS + 0.5
# Of the longest bar: past this from its left the axis ends.
HEADROOM = 1.02
# A square of the key, and what is left between its words, in inches.
_SQUARE, _BETWEEN = 0.11, 0.22


def bars_room(panel: Bars) -> Room:
    """Return the room for the names of bars, the key above them and limits right of them."""
    names = [folded(bar.name) for bar in panel.bars]
    lines = max(name.count("\n") + 1 for name in names)
    each = max(BAR_INCHES, height_inches(lines, TEXT_POINTS) + 0.1)
    return Room(
        left=MARGIN + max(widest_inches(name, TEXT_POINTS) for name in names) + 0.1,
        right=right_of_axes({_limit_text(panel, bar.limit) for bar in panel.bars if bar.limit is not None}),
        above=ROW if len(_named_parts(panel)) > 1 else 0.0,
        tall=max(LEAST_INCHES, each * len(panel.bars)),
    )


def draw_bars(axes: Axes, *, panel: Bars, theme: Theme) -> None:
    """Draw bars from the top down, the figure of a part in it, and what each part is above all of them."""
    longest = _longest(panel)
    dress(axes, panel.size, [longest], upright=False)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, longest * HEADROOM)
    axes.set_ylim(len(panel.bars) - 0.5, -0.5)
    for index, bar in enumerate(panel.bars):
        _draw_bar(axes, panel, bar, index, theme)
    names = [folded(bar.name) for bar in panel.bars]
    axes.set_yticks(range(len(panel.bars)), names, color=theme.ink)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _draw_limits(axes, panel, theme)
    if len(named := _named_parts(panel)) > 1:
        _key(axes, named, theme)


def _draw_bar(axes: Axes, panel: Bars, bar: Bar, index: int, theme: Theme) -> None:
    figure = axes.get_figure()
    assert figure is not None
    longest, start = _longest(panel), 0.0
    inches = axes.get_window_extent().width / figure.dpi / (longest * HEADROOM)
    for _, hue, size in bar.parts:
        color = theme.hues[hue]
        axes.barh(
            index, size, left=start, height=THICKNESS, color=color, edgecolor=theme.paper, linewidth=0.8
        )
        written = _figure(panel, size, longest)
        if size * inches > width_inches(written, FIGURE_POINTS) + 0.06:
            axes.text(
                start + size / 2,
                index,
                written,
                ha="center",
                va="center",
                fontsize=FIGURE_POINTS,
                color=ink_on(color),
            )
        start += size


def _draw_limits(axes: Axes, panel: Bars, theme: Theme) -> None:
    """Draw one line through all bars where their limits are one, else one at each; name them at the right."""
    limits = [bar.limit for bar in panel.bars]
    if None not in limits and len(set(limits)) == 1:
        places = [((len(limits) - 1) / 2, limits[0])]
        half = len(limits) / 2
    else:
        places, half = list(enumerate(limits)), THICKNESS / 2 + 0.09
    for middle, limit in places:
        if limit is None:
            continue
        axes.plot(
            [limit] * 2, [middle - half, middle + half], color=theme.limit, linewidth=1.2, linestyle=BROKEN
        )
        axes.annotate(
            folded(_limit_text(panel, limit)),
            (1.0, middle),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=theme.readable(theme.limit),
        )


def _key(axes: Axes, named: dict[str, Hue], theme: Theme) -> None:
    """Say above the bars which colour is what: the parts are the same in all of them."""
    from matplotlib.patches import Rectangle

    figure = axes.get_figure()
    assert figure is not None
    box = axes.get_window_extent()
    wide, high = box.width / figure.dpi, box.height / figure.dpi
    words = [width_inches(name, TEXT_POINTS) for name in named]
    whole = sum(words) + len(words) * (_SQUARE + 0.06) + (len(words) - 1) * _BETWEEN
    # A key that is longer than the axes begins as far left of them as it must.
    at = min(0.0, wide - whole)
    foot = 1 + 0.09 / high
    for (name, hue), width in zip(named.items(), words, strict=True):
        axes.add_patch(
            Rectangle(
                (at / wide, foot),
                _SQUARE / wide,
                _SQUARE / high,
                transform=axes.transAxes,
                color=theme.hues[hue],
                linewidth=0,
                clip_on=False,
            )
        )
        axes.text(
            (at + _SQUARE + 0.06) / wide,
            foot + _SQUARE / 2 / high,
            name,
            transform=axes.transAxes,
            va="center",
            color=theme.ink,
        )
        at += _SQUARE + 0.06 + width + _BETWEEN


def _named_parts(panel: Bars) -> dict[str, Hue]:
    """Return what the bars are made of, in order."""
    return {name: hue for bar in panel.bars for name, hue, size in bar.parts if size}


def _limit_text(panel: Bars, limit: float) -> str:
    return with_amount(panel.limit_name, amount(limit, panel.size, _longest(panel)))


def _figure(panel: Bars, size: float, longest: float) -> str:
    """Return a figure in the unit of the axis: all with as many decimals."""
    unit, _ = marked_in(panel.size.unit, longest)
    return f"{size / unit:,.{0 if longest / unit >= 1000 else 1 if longest / unit >= 10 else 2}f}"


def _longest(panel: Bars) -> float:
    ends: Sequence[float] = [sum(size for _, _, size in bar.parts) for bar in panel.bars]
    return max([*ends, *(bar.limit for bar in panel.bars if bar.limit is not None)]) or 1.0
