"""How much room words take in the font they are drawn in, and how they are broken into lines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from textwrap import wrap

FONT = "DejaVu Sans"
TITLE_POINTS, TEXT_POINTS, NOTE_POINTS = 13.0, 9.0, 7.5
DPI = 150
POINTS_PER_INCH = 72
# Of the font's size: how far apart two lines of text are.
LINE_SPACING = 1.25
# Names beside a panel are broken into lines of about so many letters.
LETTERS_OF_A_NAME = 22
# By how much a line is made narrower at a time, until all of a text's lines are about as long.
_NARROWER_INCHES = 0.1


@cache
def width_inches(line: str, points: float, *, bold: bool = False) -> float:
    """Return how wide one line is."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.ft2font import LoadFlags

    font = get_font(findfont(FontProperties(family=FONT, weight="bold" if bold else "normal")))
    font.set_size(points, DPI)
    font.set_text(line, 0.0, flags=LoadFlags.NO_HINTING)
    # The font counts in 64ths of a pixel.
    return font.get_width_height()[0] / 64 / DPI


def widest_inches(text: str, points: float) -> float:
    """Return how wide the widest line of a text is."""
    return max(width_inches(line, points) for line in text.split("\n"))


def height_inches(lines: int, points: float) -> float:
    """Return how high so many lines are."""
    return lines * points * LINE_SPACING / POINTS_PER_INCH


def folded(name: str) -> str:
    """Return a name in lines that are short enough to stand beside a panel."""
    lines = (wrap(line, LETTERS_OF_A_NAME, break_on_hyphens=False) or [line] for line in name.split("\n"))
    return "\n".join(line for several in lines for line in several)


def with_amount(name: str, amount: str) -> str:
    """Return a name with its figure behind it, or below it where both are too long for one line."""
    return f"{name}: {amount}" if len(name) + len(amount) + 2 <= LETTERS_OF_A_NAME else f"{name}\n{amount}"


def balanced(text: str, inches: float, points: float, *, bold: bool = False) -> list[str]:
    """Break a text into as few lines as fit, all about as long: the last is not one word."""
    words = text.split()
    lines = _joined(words, " ", inches, points, bold=bold)
    for narrower in range(1, int(inches / _NARROWER_INCHES)):
        tried = _joined(words, " ", inches - narrower * _NARROWER_INCHES, points, bold=bold)
        if len(tried) > len(lines):
            break
        lines = tried
    return lines


def parted(parts: Sequence[str], between: str, inches: float, points: float) -> list[str]:
    """Break a text between its parts, and within one only where it is too long by itself."""
    lines = _joined(parts, between, inches, points)
    return [part for line in lines for part in balanced(line, inches, points)]


def _joined(
    parts: Sequence[str], between: str, inches: float, points: float, *, bold: bool = False
) -> list[str]:
    """Return lines of as many parts as fit, at least one in each."""
    # Parts are measured one by one, each once: what is between two takes as much in every line.
    gap = width_inches(f"x{between}x", points, bold=bold) - width_inches("xx", points, bold=bold)
    lines: list[str] = []
    taken = 0.0
    for part in parts:
        wide = width_inches(part, points, bold=bold)
        if lines and taken + gap + wide <= inches:
            lines[-1] += between + part
            taken += gap + wide
        else:
            lines.append(part)
            taken = wide
    return lines
