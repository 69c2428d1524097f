"""Checks a layer kind makes on its own numbers, wherever they came from."""

from __future__ import annotations


def require_positive(owner: object, *names: str) -> None:
    """Raise ValueError unless every named attribute is a whole number of at least 1."""
    for name in names:
        value = getattr(owner, name)
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


def require_multiple(number: int, name: str, divisor: int, of: str) -> None:
    """Raise ValueError unless ``number`` is a multiple of ``divisor``."""
    if number % divisor:
        raise ValueError(f"{name} ({number}) must be a multiple of {of} ({divisor})")
