"""What a plot shows, before anyone draws it: curves, bands, bars, dots, maps, and the words on them.

A chart is data in base units. Whoever makes one decides what is on it and what it says; a renderer
decides only where things go. The same :class:`Hue` is the same colour on every plot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from typing import TypeAlias

from kvplan.units import Unit


class Hue(Enum):
    """What a colour stands for, on every plot."""

    WEIGHTS = "weights"
    EXPERTS = "experts"
    KV = "KV cache"
    STATE = "recurrent state"
    ATTENTION = "attention"
    ACTIVATIONS = "activations"
    COLLECTIVES = "exchange between GPUs"
    LAUNCH = "launches and host"
    OVERHEAD = "runtime's own"
    FREE = "left free"
    PREFILL = "prefill"
    DECODE = "decode"
    MEASURED = "measured"
    PREDICTED = "predicted"


class Spacing(Enum):
    """How an axis spaces its numbers."""

    EVEN = "even"
    DOUBLING = "each tick twice the last"
    TENFOLD = "each tick ten times the last"


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it counts, in which unit, and how it spaces numbers."""

    label: str
    unit: Unit = Unit.NONE
    spacing: Spacing = Spacing.EVEN


@dataclass(frozen=True, slots=True)
class Line:
    """One curve, named where it ends.

    Args:
        name: the words beside it.
        x: where its points stand, rising.
        y: their heights; as many.
        hue: what its colour stands for; absent, the next colour of those for things compared.
        stepped: flat between points: it holds each height until the next point.
        measured: points that were measured, drawn as dots.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    hue: Hue | None = None
    stepped: bool = False
    measured: bool = False

    def __post_init__(self) -> None:
        require_finite(self.name, self.x, self.y)


@dataclass(frozen=True, slots=True)
class Limit:
    """A height (or, ``upright``, a place) that nothing passes, named on the plot."""

    name: str
    at: float
    upright: bool = False


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves over one axis, with the limits they meet.

    ``shaded`` names what lies below the first, which is filled; ``empty`` is said where there is no curve.
    """

    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    limits: tuple[Limit, ...] = ()
    shaded: str = ""
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """One layer of a stack: its height at every place, on top of the bands before it."""

    name: str
    hue: Hue
    heights: tuple[float, ...]

    def __post_init__(self) -> None:
        require_finite(self.name, self.heights)


@dataclass(frozen=True, slots=True)
class Stack:
    """Bands on top of each other along an axis: what a whole is made of, as something grows."""

    x: Axis
    y: Axis
    at: tuple[float, ...]
    bands: tuple[Band, ...]
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar made of parts, with the limit it is measured against; ``None`` where there is none."""

    name: str
    parts: tuple[tuple[str, Hue, float], ...]
    limit: float | None = None

    def __post_init__(self) -> None:
        require_finite(self.name, [size for _, _, size in self.parts])


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars side by side; ``limit_name`` says what their limits are."""

    size: Axis
    bars: tuple[Bar, ...]
    limit_name: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """One point with its name beside it; its area grows with ``weight``, a share of 1."""

    name: str
    x: float
    y: float
    weight: float = 0.0
    hue: Hue | None = None

    def __post_init__(self) -> None:
        require_finite(self.name, (self.x, self.y, self.weight))


@dataclass(frozen=True, slots=True)
class Dots:
    """Named points on two axes, with limits.

    ``best`` says in words which way is better; ``equal`` names the line where both axes say the same.
    """

    x: Axis
    y: Axis
    dots: tuple[Dot, ...]
    limits: tuple[Limit, ...] = ()
    best: str = ""
    equal: str = ""


@dataclass(frozen=True, slots=True)
class Roof:
    """What an accelerator reaches at most: its peak and its memory's speed, meeting at the ridge."""

    name: str
    flops_per_s: float
    bytes_per_s: float

    @property
    def ridge(self) -> float:
        """FLOP a byte where the two meet."""
        return self.flops_per_s / self.bytes_per_s

    def at(self, intensity: float) -> float:
        """Return the FLOP/s that work of this intensity reaches at most."""
        return min(self.flops_per_s, self.bytes_per_s * intensity)


@dataclass(frozen=True, slots=True)
class UnderRoof:
    """Operators under the roofs of an accelerator, by FLOP a byte; ``path`` is a step as its batch grows.

    Every y is FLOP/s; the points of the path are named where it says so (``batch 1``).
    """

    roofs: tuple[Roof, ...]
    dots: tuple[Dot, ...]
    path: tuple[Dot, ...] = ()


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A figure over two axes, ``None`` where it is not to be had, with lines of equal ``level``.

    Args:
        x: across; ``columns`` are its places.
        y: upwards; ``rows`` are its places.
        value: what the colour says; ``cells`` has a tuple for every row.
        masked: why a cell without a value has none.
        level: what the lines follow; ``levels`` are its values where they run, ``heights`` its grid.
    """

    x: Axis
    columns: tuple[float, ...]
    y: Axis
    rows: tuple[float, ...]
    value: Axis
    cells: tuple[tuple[float | None, ...], ...]
    masked: str = ""
    level: Axis | None = None
    levels: tuple[float, ...] = ()
    heights: tuple[tuple[float, ...], ...] = ()


Panel: TypeAlias = Curves | Stack | Bars | Dots | UnderRoof | HeatMap


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture: the sentence it makes, what it is of, and one panel or a few side by side.

    Args:
        kind: its name on the command line: ``growth``.
        title: what a reader should take from it, one sentence.
        subject: which model, accelerator and storage it is of.
        panels: what is drawn.
        notes: assumptions a reader must know.
    """

    kind: str
    title: str
    subject: str
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()


def require_finite(name: str, *series: Sequence[float]) -> None:
    """Refuse series of different lengths and numbers that no axis has.

    Raises:
        ValueError: a number is not finite, or a series is longer than another.
    """
    if len({len(one) for one in series if not isinstance(one, float)}) > 1:
        raise ValueError(f"{name}: series of different lengths")
    if not all(isfinite(value) for one in series for value in one):
        raise ValueError(f"{name}: a number that is not finite")
