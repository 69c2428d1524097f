"""Which tokens stay in a layer's cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Full:
    """Every token stays."""


@dataclass(frozen=True, slots=True)
class Sliding:
    """The last ``window`` tokens stay, the newest included."""

    window: int


@dataclass(frozen=True, slots=True)
class PerRequest:
    """Nothing grows: one entry per request, however long it gets."""


Retention: TypeAlias = Full | Sliding | PerRequest
