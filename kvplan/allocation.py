"""How cache memory is handed out: a choice of the deployment, not of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Paged:
    """Cache in blocks of ``block_tokens``, taken as a request grows; a window keeps the blocks it touches."""

    block_tokens: int


@dataclass(frozen=True, slots=True)
class Contiguous:
    """Cache for ``max_tokens`` taken when a request arrives; a window takes a ring of its own length."""

    max_tokens: int


Allocation: TypeAlias = Paged | Contiguous
