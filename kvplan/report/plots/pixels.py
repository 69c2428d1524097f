"""Words and thin lines at places of the picture, in pixels, where no scale of an axis moves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvplan.report.plots.text import LINE_SPACING, POINTS_PER_INCH

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pixels_a_point(axes: Axes) -> float:
    """Return how many pixels a point is on the picture."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure.dpi / POINTS_PER_INCH


def write(axes: Axes, at: tuple[float, float], text: str, color: str, **how: Any) -> None:
    """Write words at a place, as matplotlib's ``Axes.text`` does."""
    x, y = axes.transAxes.inverted().transform(at)
    axes.text(
        float(x), float(y), text, transform=axes.transAxes, color=color, linespacing=LINE_SPACING, **how
    )


def write_above(axes: Axes, across: float, text: str, color: str, ha: str = "center") -> None:
    """Write words in the row over the axes, at a place across them that is in pixels."""
    top = axes.get_window_extent().y1 + 4 * pixels_a_point(axes)
    write(axes, (across, top), text, color, ha=ha, va="bottom")


def lead(axes: Axes, points: Sequence[tuple[float, float]], color: str, *, dotted: bool = False) -> None:
    """Draw a thin line through places: from a name to what it names."""
    ends = axes.transAxes.inverted().transform(points)
    axes.plot(
        ends[:, 0],
        ends[:, 1],
        transform=axes.transAxes,
        color=color,
        linewidth=0.7,
        linestyle=(0, (1, 2)) if dotted else "solid",
        clip_on=False,
        zorder=1.5,
    )
