"""Colours of a picture: one for each thing, the same on every plot, on light paper and on dark.

The colours of compared things are those of Okabe and Ito, which people with any colour vision tell apart
(https://jfly.uni-koeln.de/color); on dark paper the darker of them are lightened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kvplan.charts import Hue
from kvplan.errors import unknown

# What WCAG 2 asks of text: how much lighter one of two colours is.
LEAST_CONTRAST = 4.5


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours as ``#rrggbb``.

    Args:
        paper: behind everything.
        ink: titles and names.
        quiet: axes, ticks and notes.
        grid: lines to read heights by.
        limit: what nothing passes.
        series: things compared, in their order; the first is the baseline.
        hues: what a colour stands for.
        map: the colour map of figures over two axes, of even lightness from dark to light.
    """

    name: str
    paper: str
    ink: str
    quiet: str
    grid: str
    limit: str
    series: tuple[str, ...]
    hues: Mapping[Hue, str]
    map: str = "cividis"

    def of(self, hue: Hue | None, index: int) -> str:
        """Return the colour of a thing: its hue's, else that of its place; no other has the baseline's."""
        if hue is not None:
            return self.hues[hue]
        return self.series[1 + (index - 1) % (len(self.series) - 1)] if index else self.series[0]

    def readable(self, color: str) -> str:
        """Return a colour for words on the paper: this one, or as much nearer to ink as it takes."""
        for tenth in range(11):
            mixed = _mixed(color, self.ink, tenth / 10)
            if contrast(mixed, self.paper) >= LEAST_CONTRAST:
                return mixed
        return self.ink


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    ink="#1b1f24",
    quiet="#57606a",
    grid="#e4e8ec",
    limit="#a40e26",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#5b3f8c", "#333333"),
    hues={
        Hue.WEIGHTS: "#0072b2",
        Hue.EXPERTS: "#56b4e9",
        Hue.KV: "#e69f00",
        Hue.STATE: "#8a6d00",
        Hue.ATTENTION: "#d55e00",
        Hue.ACTIVATIONS: "#009e73",
        Hue.COLLECTIVES: "#cc79a7",
        Hue.LAUNCH: "#8c959f",
        Hue.OVERHEAD: "#8c959f",
        Hue.FREE: "#dfe4e9",
        Hue.PREFILL: "#d55e00",
        Hue.DECODE: "#0072b2",
        Hue.MEASURED: "#d55e00",
        Hue.PREDICTED: "#0072b2",
    },
)
DARK = Theme(
    name="dark",
    paper="#0d1117",
    ink="#e6edf3",
    quiet="#9aa4af",
    grid="#262c34",
    limit="#ff7b72",
    series=("#4aa8e0", "#f28e4b", "#3fc59c", "#e29ac4", "#d9b23c", "#8fd0f5", "#b39ddb", "#c9d1d9"),
    hues={
        Hue.WEIGHTS: "#4aa8e0",
        Hue.EXPERTS: "#8fd0f5",
        Hue.KV: "#f0b33e",
        Hue.STATE: "#c9a227",
        Hue.ATTENTION: "#f28e4b",
        Hue.ACTIVATIONS: "#3fc59c",
        Hue.COLLECTIVES: "#e29ac4",
        Hue.LAUNCH: "#8b949e",
        Hue.OVERHEAD: "#8b949e",
        Hue.FREE: "#2b323b",
        Hue.PREFILL: "#f28e4b",
        Hue.DECODE: "#4aa8e0",
        Hue.MEASURED: "#f28e4b",
        Hue.PREDICTED: "#4aa8e0",
    },
)
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def theme_named(name: str) -> Theme:
    """Return the theme of this name; raises UsageError where there is none."""
    if name not in THEMES:
        raise unknown("theme", name, THEMES)
    return THEMES[name]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21 (WCAG 2)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def ink_on(color: str) -> str:
    """Return black or white, whichever is read more easily on a colour."""
    return max("#000000", "#ffffff", key=lambda ink: contrast(ink, color))


def _luminance(color: str) -> float:
    """Return the relative luminance of a colour (WCAG 2)."""
    parts = (part / 255 for part in _parts(color))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _mixed(color: str, ink: str, share: float) -> str:
    pairs = zip(_parts(color), _parts(ink), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _parts(color: str) -> tuple[int, int, int]:
    """Return red, green and blue of ``#rrggbb``."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
