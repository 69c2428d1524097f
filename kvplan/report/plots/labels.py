"""Names beside what they name, moved apart where they would lie on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvplan.report.plots.pixels import lead, pixels_a_point, write, write_above
from kvplan.report.plots.text import LINE_SPACING, POINTS_PER_INCH, TEXT_POINTS, folded, width_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kvplan.report.plots.theme import Theme

# From the axes to a name, without a line between them and with one.
NEAR_POINTS, FAR_POINTS = 6.0, 16.0
# What is moved by less stands where it belongs.
MOVED_POINTS = 3.0


@dataclass(frozen=True, slots=True)
class Label:
    """Words, the height they belong to in pixels, and their colour.

    Args:
        text: one line or a few.
        at: the height.
        color: of what they name.
        end: where across it ends, in pixels; absent where it reaches the edge of the axes.
    """

    text: str
    at: float
    color: str
    end: float | None = None


def apart(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Return places near those ``wanted``, in their order, where none overlaps; in the range if they fit.

    Each takes ``sizes`` around its place. Neighbours that overlap become one block, centred on the mean
    of what its members want: the least sum of squared moves.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[_Block] = []
    for index in order:
        blocks.append(_Block([index], wanted[index], sizes[index]))
        blocks[-1].clamp(low, high)
        while len(blocks) > 1 and blocks[-2].top > blocks[-1].bottom:
            upper = blocks.pop()
            blocks[-1].join(upper, wanted, sizes)
            blocks[-1].clamp(low, high)
    places = [0.0] * len(wanted)
    for block in blocks:
        at = block.bottom
        for index in block.members:
            places[index] = at + sizes[index] / 2
            at += sizes[index]
    return places


class _Block:
    """Labels that touch: their members from below, the middle, and the size of all."""

    def __init__(self, members: list[int], middle: float, size: float) -> None:
        self.members, self.middle, self.size = members, middle, size

    @property
    def bottom(self) -> float:
        return self.middle - self.size / 2

    @property
    def top(self) -> float:
        return self.middle + self.size / 2

    def join(self, upper: _Block, wanted: Sequence[float], sizes: Sequence[float]) -> None:
        """Take the block above in, and move to where the members want to be on average."""
        self.members += upper.members
        self.size += upper.size
        below, total = 0.0, 0.0
        for index in self.members:
            total += wanted[index] - below - sizes[index] / 2
            below += sizes[index]
        self.middle = total / len(self.members) + self.size / 2

    def clamp(self, low: float, high: float) -> None:
        """Stay within the range: above its low end before all."""
        self.middle = max(min(self.middle, high - self.size / 2), low + self.size / 2)


def name_right(axes: Axes, labels: Sequence[Label], theme: Theme) -> None:
    """Write labels right of the axes, each at its height or, where crowded, near it at a thin line."""
    pixels, box = pixels_a_point(axes), axes.get_window_extent()
    texts = [folded(label.text) for label in labels]
    sizes = [(text.count("\n") + 1) * TEXT_POINTS * LINE_SPACING * pixels for text in texts]
    wanted = [min(max(label.at, box.y0), box.y1) for label in labels]
    # The first stands no lower than the axes: the numbers of the axis across are below.
    places = apart(wanted, sizes, box.y0, box.y1 + TEXT_POINTS * pixels)
    moved = any(abs(a - b) > MOVED_POINTS * pixels for a, b in zip(wanted, places, strict=True))
    for text, label, height, place in zip(texts, labels, wanted, places, strict=True):
        if label.end is not None and label.end < box.x1 - pixels:
            lead(axes, [(label.end, height), (box.x1, height)], label.color, dotted=True)
        if moved:
            lead(axes, [(box.x1, height), (box.x1 + 0.7 * FAR_POINTS * pixels, place)], label.color)
        x = box.x1 + (FAR_POINTS if moved else NEAR_POINTS) * pixels
        write(axes, (x, place), text, theme.readable(label.color), va="center")


def name_above(axes: Axes, names: Sequence[tuple[str, float]], color: str) -> None:
    """Write names in a row over the axes, each above its place across (in pixels), or near it."""
    pixels, box = pixels_a_point(axes), axes.get_window_extent()
    inches = [width_inches(f"{name}  ", TEXT_POINTS) for name, _ in names]
    widths = [inch * POINTS_PER_INCH * pixels for inch in inches]
    places = apart([place for _, place in names], widths, box.x0, box.x1)
    for (name, _), place in zip(names, places, strict=True):
        write_above(axes, place, name, color)
