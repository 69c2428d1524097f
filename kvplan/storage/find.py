"""A format by its name."""

from __future__ import annotations

from typing import Protocol, TypeVar

from kvplan.errors import unknown


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


def find(noun: str, name: str, known: tuple[_N, ...]) -> _N:
    """Return the one of this name; raises UsageError for an unknown one, told as ``noun``."""
    for candidate in known:
        if candidate.name == name:
            return candidate
    raise unknown(noun, name, [candidate.name for candidate in known])
