"""Keys of groups that are not full yet, for formats whose scales need a whole group (KIVI, arXiv 2402.02750).

Each sequence has at most one such group, in a slot of its own: a tile of float16 keys. All keys pass
through float16, so a group is stored alike whether its tokens arrive one by one or at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from kvplan.engine.kv_codecs import F32, FLOAT16
from kvplan.engine.tile_formats import TileFormat
from kvplan.engine.tile_plane import Segment, TilePlane


class HotGroups:
    """The slots of ``sequences`` sequences, and the keys they fill when a group is full.

    Args:
        keys: grouped keys; a group is a tile.
        sequences: slots.
    """

    def __init__(self, keys: TilePlane, sequences: int) -> None:
        self._keys = keys
        self._rows_held = np.zeros(sequences, np.int64)
        self.plane = TilePlane(
            TileFormat(FLOAT16), keys.heads, keys.dim, sequences, keys.tokens, by_channel=True
        )

    @property
    def slot_nbytes(self) -> int:
        """Bytes of one slot."""
        return self.token_nbytes * self._keys.tokens

    @property
    def token_nbytes(self) -> int:
        """Bytes of one key of every head."""
        return self.plane.token_nbytes

    def check(
        self, segments: Iterable[Segment], hot: NDArray[np.int64] | None, count: int
    ) -> NDArray[np.int64]:
        """Return the slots; raises ValueError unless every token may be written to the one named for it."""
        slots = len(self._rows_held)
        if hot is None or hot.shape != (count,) or (count and not (hot.min() >= 0 and hot.max() < slots)):
            raise ValueError(f"each of {count} tokens must name one of {slots} hot slots")
        held = self._rows_held.copy()
        for segment in segments:
            slot = hot[segment.tokens.start]
            if segment.rows.start > held[slot]:
                raise ValueError(
                    f"hot slot {slot} holds {held[slot]} tokens, not {segment.rows.start}: reopen the group"
                )
            end = segment.rows.stop
            held[slot] = 0 if end == self._keys.tokens else max(held[slot], end)
        return hot

    def write(self, segments: Iterable[Segment], vectors: F32, hot: NDArray[np.int64]) -> None:
        """Store keys (n, heads, dim) of segments that passed ``check``; full groups leave their slot."""
        rounded = FLOAT16.unpack(FLOAT16.pack(vectors))
        for segment in segments:
            if segment.rows == slice(0, self._keys.tokens):
                self._keys.write_group(segment.tile, rounded[segment.tokens])
                self._rows_held[hot[segment.tokens.start]] = 0
            else:
                self._fill(segment, rounded[segment.tokens], int(hot[segment.tokens.start]))

    def reopen(self, tile: int, slot: int) -> None:
        """Put a full group back into a slot, dequantised, so that its tokens can be written again."""
        rows = np.arange(self._keys.tokens)
        vectors = self._keys.read(np.full_like(rows, tile), rows)
        self.plane.write([Segment.of(slot, 0, 0, len(rows))], vectors)
        self._rows_held[slot] = len(rows)

    def copy(self, source: int, target: int) -> None:
        """Make slot ``target`` equal to slot ``source``."""
        for array in self.plane.arrays.values():
            array[target] = array[source]
        self._rows_held[target] = self._rows_held[source]

    def dump(self, slot: int) -> dict[str, NDArray[np.generic]]:
        """Return a copy of what a slot holds."""
        words = self.plane.arrays["words"][slot].copy()
        return {"words": words, "rows_held": self._rows_held[slot : slot + 1].copy()}

    def load(self, slot: int, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Put back what ``dump`` returned.

        Raises:
            ValueError: for what another arena dumped; nothing is written.
        """
        if {name: (a.shape, a.dtype) for name, a in arrays.items()} != {
            name: (a.shape, a.dtype) for name, a in self.dump(slot).items()
        }:
            raise ValueError("these arrays were not dumped from such a hot slot")
        self.plane.arrays["words"][slot] = arrays["words"]
        self._rows_held[slot] = arrays["rows_held"][0]

    def _fill(self, segment: Segment, vectors: F32, slot: int) -> None:
        end = segment.rows.stop
        self.plane.write([Segment.of(slot, segment.rows.start, 0, len(vectors))], vectors)
        if end < self._keys.tokens:
            self._rows_held[slot] = max(self._rows_held[slot], end)
            return
        rows = np.arange(self._keys.tokens)
        self._keys.write_group(segment.tile, self.plane.read(np.full_like(rows, slot), rows))
        self._rows_held[slot] = 0
