"""Which keys a query sees: one rule, asked of single positions and of whole tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Positions: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Visibility:
    """A query at q sees the key at k when ``k <= q`` and all that is set here agrees.

    Args:
        window: the last so many positions, q included, are seen,
        sink_tokens: and so many first ones beside them.
        chunk: positions of the query's own chunk of so many are seen.
    """

    window: int | None = None
    sink_tokens: int = 0
    chunk: int | None = None

    def sees(self, queries: Positions, keys: Positions) -> Flags:
        """Return whether each query (n, 1) sees each key (m,); nothing sees a negative position."""
        seen = (keys >= 0) & (keys <= queries)
        if self.window is not None:
            seen &= (keys > queries - self.window) | (keys < self.sink_tokens)
        if self.chunk is not None:
            seen &= keys // self.chunk == queries // self.chunk
        return seen

    def seen_by_some(self, first: int, last: int, keys: TilePositions) -> Flags:
        """Return for each tile whether any query from first to last may see any of its keys."""
        some = (keys.lowest <= last) & (keys.highest >= 0)
        if self.window is not None:
            some &= (keys.highest > first - self.window) | (keys.lowest < self.sink_tokens)
        if self.chunk is not None:
            some &= keys.highest // self.chunk >= first // self.chunk
        return some

    def seen_by_all(self, first: int, last: int, keys: TilePositions) -> Flags:
        """Return for each tile whether every query from first to last sees each of its keys."""
        every = keys.full & (keys.highest <= first)
        if self.window is not None:
            every &= (keys.lowest > last - self.window) | (keys.highest < self.sink_tokens)
        if self.chunk is not None:
            every &= keys.lowest // self.chunk == last // self.chunk
        return every


@dataclass(frozen=True, slots=True)
class TilePositions:
    """The positions in each tile: (tiles, tokens), -1 for none; their bounds, and whether none is missing."""

    positions: Positions
    lowest: Positions
    highest: Positions
    full: Flags

    @classmethod
    def of(cls, positions: Positions) -> TilePositions:
        """Find the bounds of positions (tiles, tokens); every tile holds at least one."""
        held = positions >= 0
        lowest = np.where(held, positions, np.iinfo(np.int64).max).min(axis=1)
        return cls(positions, lowest, positions.max(axis=1), np.asarray(held.all(axis=1)))
