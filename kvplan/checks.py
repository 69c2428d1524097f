"""Checks a dataclass makes on its own values, wherever they came from."""

from __future__ import annotations

import re
from operator import index
from typing import TypeAlias

from kvplan.errors import UsageError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
NAME_RULE = "up to 64 lower-case letters, digits and . _ -, beginning with a letter or a digit"

# Larger sizes are mistakes; bounding them keeps every product of two an exact int64.
LARGEST_SIZE = 1 << 31
# Rates, prices and the like: anything past this is a slip of the unit.
LARGEST_AMOUNT = 1e9

Where: TypeAlias = tuple[str | int, ...]


class FieldError(ValueError):
    """Values that cannot be: each with the fields that lead to it and a complaint such as ``must be ...``."""

    def __init__(self, *complaints: tuple[Where, str]) -> None:
        self.complaints = complaints
        super().__init__("; ".join(f"{'.'.join(map(str, where))} {text}" for where, text in complaints))


def require_sizes(owner: object, *names: str) -> None:
    """Raise FieldError unless every named attribute is 1 to 2^31, or ``None``."""
    complaints = []
    for name in names:
        value = getattr(owner, name)
        if value is not None and value < 1:
            complaints.append(((name,), f"must be at least 1, not {value}"))
        elif value is not None and value > LARGEST_SIZE:
            complaints.append(((name,), f"must be at most {LARGEST_SIZE:,}, not {value}"))
    if complaints:
        raise FieldError(*complaints)


def require_amounts(owner: object, *names: str) -> None:
    """Raise FieldError unless every named attribute is above 0 and up to 10^9, or ``None``."""
    complaints = [
        ((name,), f"must be above 0 and at most {LARGEST_AMOUNT:,.0f}, not {value:g}")
        for name in names
        if (value := getattr(owner, name)) is not None and not 0 < value <= LARGEST_AMOUNT
    ]
    if complaints:
        raise FieldError(*complaints)


def require_text(owner: object, *names: str) -> None:
    """Raise FieldError where a named attribute is nothing but white space."""
    complaints = [((name,), "must not be empty") for name in names if not getattr(owner, name).strip()]
    if complaints:
        raise FieldError(*complaints)


def require_name(name: str) -> None:
    """Raise FieldError unless ``name`` can be one in the catalog."""
    if not NAME.fullmatch(name):
        raise FieldError((("name",), f"{name[:40]!r} is no name: {NAME_RULE}"))


def require_multiple(number: int, name: str, divisor: int, of: str) -> None:
    """Raise FieldError unless ``number`` is a multiple of ``divisor``."""
    if number % divisor:
        raise FieldError(((name,), f"must be a multiple of {of} ({divisor}), not {number}"))


def require_whole(name: str, value: int, largest: int, least: int = 1) -> int:
    """Return a whole number that a caller gave by this name.

    Raises:
        UsageError: it is no whole number, or not in ``least`` .. ``largest``.
    """
    try:
        whole = None if isinstance(value, bool) else index(value)
    except TypeError:
        whole = None
    if whole is None:
        raise UsageError(f"{name}: {str(value)[:40]!r} is no whole number")
    if not least <= whole <= largest:
        raise UsageError(f"{name}: {whole:,} is out of range: expected {least:,} to {largest:,}")
    return whole
