"""Names beside points: the nearest free place around each, and a thin line where that is not near."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, hypot
from typing import TYPE_CHECKING

from kvplan.report.plots.pixels import lead, pixels_a_point, write
from kvplan.report.plots.text import LINE_SPACING, POINTS_PER_INCH, widest_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kvplan.report.plots.theme import Theme

FONT_POINTS = 8.5
# Distances from a point to its name that are tried, in points, and the sides, best first.
DISTANCES = (4.0, 11.0, 20.0, 32.0, 46.0, 64.0, 90.0, 120.0)
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
# Farther than this, in points, a line leads from the point to its name.
NEAR = 12.0
# To hide a part of another name is worse than to leave the axes, and that worse than to lie on a line.
OUTSIDE, ON_A_LINE = 3.0, 0.5
# Lines are kept clear of in steps of so many points.
LINE_STEP = 4.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def middle(self) -> tuple[float, float]:
        """Its middle, across and up."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def overlap(self, other: Box) -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, frame: Box) -> float:
        """Return how much of its area is not in a frame."""
        area = (self.right - self.left) * (self.top - self.bottom)
        return area - self.overlap(frame)


@dataclass(frozen=True, slots=True)
class Named:
    """A point in pixels, the radius of its mark, and its name's words and colour."""

    text: str
    x: float
    y: float
    radius: float
    color: str


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a name may hide: nothing of names and marks, better nothing of lines, and nothing outside."""

    frame: Box
    taken: tuple[Box, ...]
    lines: tuple[Box, ...]

    def hidden(self, box: Box) -> float:
        """Return how bad a place is: 0 where it is free."""
        names = sum(box.overlap(other) for other in self.taken)
        return names + OUTSIDE * box.outside(self.frame) + ON_A_LINE * sum(map(box.overlap, self.lines))


def frame_of(axes: Axes) -> Box:
    """Return the rectangle of the axes."""
    window = axes.get_window_extent()
    return Box(window.x0, window.y0, window.x1, window.y1)


def name_points(
    axes: Axes,
    points: Sequence[Named],
    theme: Theme,
    *,
    written: Sequence[Box] = (),
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> None:
    """Write every name near its point, off other names, marks and lines, within the axes where it can be.

    Args:
        axes: where the points are drawn.
        points: in the order in which they choose their places.
        theme: colours.
        written: boxes of words that stand there already.
        lines: broken lines in pixels.
    """
    pixels, frame = pixels_a_point(axes), frame_of(axes)
    drawn = tuple(box for line in lines for box in _along(line, LINE_STEP * pixels))
    marks = [_around(p.x, p.y, p.radius) for p in points]
    taken = list(written)
    for index, point in enumerate(points):
        if not point.text:
            continue
        wide = widest_inches(point.text, FONT_POINTS) * POINTS_PER_INCH * pixels
        size = wide + pixels, _height(point.text, pixels)
        ground = _Ground(frame, (*taken, *marks[:index], *marks[index + 1 :]), drawn)
        box, distance = _best(point, size, ground, pixels)
        taken.append(box)
        if distance > NEAR:
            near = (min(max(point.x, box.left), box.right), min(max(point.y, box.bottom), box.top))
            lead(axes, [(point.x, point.y), near], point.color)
        write(axes, box.middle, point.text, theme.ink, ha="center", va="center", fontsize=FONT_POINTS)


def _best(point: Named, size: tuple[float, float], ground: _Ground, pixels: float) -> tuple[Box, float]:
    """Return where a name hides least, the nearest of those, and how far that is in points."""
    choices = []
    for distance in DISTANCES:
        for rank, (right, up) in enumerate(SIDES):
            box = _beside(point, size, right, up, distance * pixels)
            choices.append((round(ground.hidden(box)), distance, rank, box))
        if min(choice[0] for choice in choices) == 0:
            break
    _, distance, _, box = min(choices, key=lambda choice: choice[:3])
    return box, distance


def _beside(point: Named, size: tuple[float, float], right: int, up: int, distance: float) -> Box:
    """Return the name's box with its nearest edge or corner so far from the point's mark."""
    width, height = size
    length = hypot(right, up)
    x = point.x + right / length * (point.radius + distance) + right * width / 2
    y = point.y + up / length * (point.radius + distance) + up * height / 2
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _around(x: float, y: float, radius: float) -> Box:
    return Box(x - radius, y - radius, x + radius, y + radius)


def _along(line: Sequence[tuple[float, float]], step: float) -> Iterator[Box]:
    """Yield small boxes along a broken line."""
    for (x0, y0), (x1, y1) in pairwise(line):
        count = max(1, ceil(hypot(x1 - x0, y1 - y0) / step))
        for at in range(count + 1):
            yield _around(x0 + (x1 - x0) * at / count, y0 + (y1 - y0) * at / count, step / 2)


def _height(text: str, pixels: float) -> float:
    return (text.count("\n") + 1) * FONT_POINTS * LINE_SPACING * pixels
