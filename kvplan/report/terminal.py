"""What the reader's terminal can show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terminal:
    """Width in columns (``None`` for as wide as needed), colour, and characters beyond ASCII."""

    width: int | None = None
    color: bool = False
    unicode: bool = True
