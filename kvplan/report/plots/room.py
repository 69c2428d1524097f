"""The room that a panel takes on a picture beside its axes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kvplan.report.plots.text import TEXT_POINTS, folded, height_inches, widest_inches

# Between the edge of a picture and what stands nearest to it.
MARGIN = 0.25
# For ticks and the label of an axis, left of a panel.
TICKS = 0.9
# From the axes to the names right of them, a thin line between the two included.
BEFORE_NAMES = 0.27
# A row of names above a panel.
ROW = height_inches(1, TEXT_POINTS) + 0.08


@dataclass(frozen=True, slots=True)
class Room:
    """Inches around a panel's axes.

    Args:
        left, right: for ticks, and for names beside the axes.
        above: for names over the axes.
        tall: the axes themselves; 0 where they may be as high as the picture has room for.
    """

    left: float = TICKS
    right: float = MARGIN
    above: float = 0.0
    tall: float = 0.0


def right_of_axes(names: Iterable[str]) -> float:
    """Return the inches that names right of the axes take, in lines."""
    widths = [widest_inches(folded(name), TEXT_POINTS) for name in names]
    return BEFORE_NAMES + max(widths) + MARGIN if widths else MARGIN
